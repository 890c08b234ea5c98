//! `--set`: changed values, kept comments, and errors.

use recipe::{AdamwKeys, Format, OptimizerKind, ScheduleKind};

use crate::{GOOD, parse, parse_with, refused_set};

#[test]
fn values_of_every_kind_are_set_where_they_are_meant() {
    let loaded = parse_with(
        GOOD,
        &[
            "device=cuda:1",
            "name=try",
            "pretrain.max_steps=60",
            "pretrain.data.1.text=words",
            "pretrain.data[0].limit=5",
            "pretrain.data[0].format=text",
            "sft.optimizer.lr=1e-5",
            "sft.optimizer.betas=[0.8, 0.9]",
            "sft.schedule.kind=linear",
            "sft.eval={ holdout = 0.1 }",
            "checks.first_loss=false",
            "model.rope_scaling={ rope_type = \"linear\", factor = 2 }",
            "sft.epochs=1",
            "sft.epochs=0.5",
        ],
    )
    .unwrap();
    let recipe = &loaded.recipe;
    assert_eq!((recipe.device.as_str(), loaded.name.as_str()), ("cuda:1", "try"));
    let pretrain = recipe.pretrain.as_ref().unwrap();
    assert_eq!(pretrain.train.max_steps, Some(60));
    assert_eq!(pretrain.input.data[1].text.as_deref(), Some("words"));
    assert_eq!(
        (pretrain.input.data[0].limit, pretrain.input.data[0].format),
        (Some(5), Some(Format::Text))
    );
    let sft = recipe.sft.as_ref().unwrap();
    assert_eq!(sft.train.optimizer.lr, 1e-5);
    let keys = AdamwKeys { betas: [0.8, 0.9], ..Default::default() };
    assert_eq!(sft.train.optimizer.kind, OptimizerKind::AdamW(keys));
    assert_eq!(sft.train.schedule.kind, ScheduleKind::Linear);
    assert_eq!(sft.train.eval.as_ref().unwrap().holdout, 0.1);
    assert_eq!(sft.train.epochs, Some(0.5), "the last override of a key wins");
    assert!(!recipe.checks.first_loss);
}

#[test]
fn the_resolved_recipe_keeps_comments_and_reads_back_the_same() {
    let loaded = parse_with(
        GOOD,
        &[
            "pretrain.tokens_per_step=1024",
            "pretrain.data[0].limit=5",
            "sft.eval.holdout=0.1",
            "threads=2",
        ],
    )
    .unwrap();
    insta::assert_snapshot!(loaded.resolved_toml, @r#"
    # A comment that stays.
    seed = 7
    threads = 2

    [tokenizer]
    train = { kind = "byte-bpe", vocab_size = 512 }

    [model]
    family = "llama"
    hidden_size = 64
    num_hidden_layers = 2
    num_attention_heads = 4
    intermediate_size = 128

    [pretrain]
    data = [{ path = "text.txt", limit = 5 }, { path = "data:more/*.jsonl.gz", text = "body" }]
    sequence_length = 64
    tokens_per_step = 1024    # 8 rows
    max_steps = 20
    optimizer = { lr = 1e-3 }
    schedule = { kind = "cosine", warmup_steps = 2 }

    [sft]
    start = "pretrain"
    data = [{ path = "chats.jsonl" }]
    sequence_length = 64
    tokens_per_step = 512
    epochs = 1
    optimizer = { lr = 1e-4 }
    eval = { holdout = 0.1 }
    "#);
    let again = parse(&loaded.resolved_toml).unwrap();
    assert_eq!(again.recipe, loaded.recipe);
    assert_eq!(again.resolved_toml, loaded.resolved_toml);
    assert_eq!(parse(GOOD).unwrap().resolved_toml, GOOD, "without overrides it is the file itself");
}

#[test]
fn every_way_of_writing_a_table_takes_overrides() {
    let good = parse_with(GOOD, &["sft.optimizer.max_grad_norm=2"]).unwrap().recipe;
    let inline = "optimizer = { lr = 1e-4 }\n";
    for other in [
        "optimizer.lr = 1e-4\n",
        "[sft.optimizer]\nlr = 1e-4\n",
        "\"optimizer\" = { \"lr\" = 1e-4 }",
    ] {
        let text = GOOD.replace(inline, other);
        let loaded = parse_with(&text, &["sft.optimizer.max_grad_norm=2"]).unwrap();
        assert_eq!(loaded.recipe, good, "{}", loaded.resolved_toml);
        let replaced =
            parse_with(&text, &["sft.optimizer={ lr = 1e-4, max_grad_norm = 2 }"]).unwrap();
        assert_eq!(replaced.recipe, good, "{}", replaced.resolved_toml);
        assert_eq!(parse(&replaced.resolved_toml).unwrap().recipe, good);
    }
    let listed = GOOD.replace("data = [{ path = \"chats.jsonl\" }]\n", "");
    let listed = format!("{listed}\n[[sft.data]]\npath = \"chats.jsonl\"\n");
    let limited = parse_with(GOOD, &["sft.data[0].limit=3"]).unwrap().recipe;
    assert_eq!(parse_with(&listed, &["sft.data.0.limit=3"]).unwrap().recipe, limited);
    let entry = "sft.data[0]={ path = \"chats.jsonl\", limit = 3 }";
    assert_eq!(parse_with(&listed, &[entry]).unwrap().recipe, limited);
    let implicit = GOOD.replace("[sft]\n", "[sft.schedule]\nkind = \"linear\"\n[sft]\n");
    assert!(parse_with(&implicit, &["sft.schedule.warmup_steps=0", "sft.max_bad_rows=1"]).is_ok());
}

#[test]
fn what_cannot_be_set_is_refused_with_the_override_s_words() {
    insta::assert_snapshot!(refused_set(&["pretrain.max_step=60"]), @r"
    error: unknown key `max_step` in [pretrain]
      --> the command line
       |
       | --set pretrain.max_step=60
       |                ^^^^^^^^ did you mean `max_steps`?
    ");
    insta::assert_snapshot!(refused_set(&["pretrian.max_steps=60"]), @r"
    error: unknown key `pretrian` in the recipe
      --> the command line
       |
       | --set pretrian.max_steps=60
       |       ^^^^^^^^ did you mean `pretrain`?
    ");
    insta::assert_snapshot!(refused_set(&["lr=1e-3"]), @r"
    error: unknown key `lr` in the recipe
      --> the command line
       |
       | --set lr=1e-3
       |       ^^ move it to [pretrain.optimizer] or [sft.optimizer]
    ");
    insta::assert_snapshot!(refused_set(&["pretrain.max_steps=many"]), @r#"
    error: `max_steps` in [pretrain] must be an integer: `"many"`
      --> the command line
       |
       | --set pretrain.max_steps=many
       |                          ^^^^ this is a string
      hint: `max_steps`: Maximum number of optimizer steps
    "#);
    insta::assert_snapshot!(refused_set(&["sft.optimizer={ learning_rate = 1 }"]), @r"
    error: unknown key `learning_rate` in [sft.optimizer]
      --> the command line
       |
       | --set sft.optimizer={ learning_rate = 1 }
       |                       ^^^^^^^^^^^^^ use `lr` instead
    ");
    insta::assert_snapshot!(refused_set(&["pretrain.data[2].limit=1"]), @r"
    error: cannot set `pretrain.data[2].limit=1`: `pretrain.data` has no entry 2
      hint: it has 2 entries, numbered from 0
    ");
    insta::assert_snapshot!(refused_set(&["pretrain.max_steps.x=1"]), @r"
    error: cannot set `pretrain.max_steps.x=1`: `pretrain.max_steps` has no keys: it is an integer
      hint: set `pretrain.max_steps` itself
    ");
    insta::assert_snapshot!(refused_set(&["pretrain.max_steps[0]=1"]), @r"
    error: cannot set `pretrain.max_steps[0]=1`: `pretrain.max_steps` is not a list
      hint: `pretrain.max_steps[0]` is an entry of a list
    ");
    insta::assert_snapshot!(refused_set(&["pretrain.tokens_per_step=100"]), @r"
    error: `tokens_per_step` in [pretrain] must be a multiple of `sequence_length` (64), such as 64: `100`
      --> the command line
       |
       | --set pretrain.tokens_per_step=100
       |                                ^^^
    ");
    insta::assert_snapshot!(refused_set(&["pretrain..x=100"]), @r"
    error: cannot set `pretrain..x=100`: not a key
      hint: examples: `--set sft.optimizer.lr=1e-4`, `--set sft.data[0].limit=100`
    ");
    insta::assert_snapshot!(refused_set(&["tokenizer.load=tokenizer.json"]), @r"
    error: [tokenizer] takes only one of `train` and `load`
      --> the command line
       |
       | --set tokenizer.load=tokenizer.json
       |                 ^^^^
      hint: remove `train` or `load`
    ");
}

#[test]
fn an_override_can_supply_what_the_file_lacks() {
    let text = GOOD.replace("max_steps = 20\n", "");
    assert!(parse(&text).is_err());
    assert!(parse_with(&text, &["pretrain.max_steps=20"]).is_ok());
}
