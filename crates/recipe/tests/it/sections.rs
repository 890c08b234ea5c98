//! Parsed sections: values, defaults and helper functions.

use std::path::Path;

use recipe::{
    ChatTemplate, ModelSection, OnBadRow, Overlong, Packing, RopeScaling, RowLayout, ScheduleKind,
    SplitBy, TokenizerSection, TrainTokenizer,
};

use crate::{GOOD, parse, refused};

#[test]
fn what_is_left_out_has_its_default() {
    let loaded = parse(GOOD).unwrap();
    let recipe = &loaded.recipe;
    assert_eq!((loaded.name.as_str(), recipe.seed, recipe.device.as_str()), ("mine", 7, "cpu"));
    let Some(TokenizerSection::Train(TrainTokenizer::ByteBpe(bpe))) = &recipe.tokenizer else {
        panic!()
    };
    assert_eq!((bpe.vocab_size, bpe.special_tokens.is_none()), (512, true));
    let Some(ModelSection::Llama(llama)) = &recipe.model else { panic!() };
    assert_eq!(
        (llama.rms_norm_eps, llama.rope_theta, llama.tie_word_embeddings),
        (1e-5, 10_000.0, false)
    );
    let pretrain = recipe.pretrain.as_ref().unwrap();
    assert_eq!(pretrain.packing, Packing::Documents);
    assert_eq!((pretrain.input.on_bad_row, pretrain.input.max_bad_rows), (OnBadRow::Stop, 100));
    assert_eq!(pretrain.input.data[0].layout, RowLayout::Auto);
    let train = &pretrain.train;
    let keys = recipe::AdamwKeys { betas: [0.9, 0.95], eps: 1e-8 };
    assert_eq!(train.optimizer.kind, recipe::OptimizerKind::AdamW(keys));
    assert_eq!((train.optimizer.weight_decay, train.optimizer.max_grad_norm), (0.0, 1.0));
    assert_eq!(
        (train.save_every_minutes, train.keep_checkpoints, train.log_every_steps),
        (10.0, 2, 10)
    );
    assert_eq!((train.schedule.kind, train.schedule.min_lr), (ScheduleKind::Cosine, 0.0));
    let sft = recipe.sft.as_ref().unwrap();
    assert_eq!(
        (sft.chat_template.as_ref(), sft.packing, sft.overlong),
        (None, true, Overlong::Cut)
    );
    assert!(recipe.checks.targets && recipe.checks.dry_save);
}

#[test]
fn kernels_are_timed_unless_the_recipe_is_deterministic() {
    let plain = parse(GOOD).unwrap();
    assert!(!plain.recipe.deterministic);
    assert!(!plain.resolved_toml.contains("deterministic"));
    let pinned = parse(&format!("deterministic = true\n{GOOD}")).unwrap();
    assert!(pinned.recipe.deterministic);
    assert!(pinned.resolved_toml.contains("deterministic = true"));
}

#[test]
fn chat_templates_splits_and_rope_are_read() {
    let text = GOOD
        .replace("start = \"pretrain\"\n", "start = \"pretrain\"\nchat_template = \"mine.jinja\"\n")
        .replace("epochs = 1\n", "epochs = 1\neval = { holdout = 0.1, by = \"position\" }\n")
        .replace(
            "intermediate_size = 128\n",
            "intermediate_size = 128\nrope_scaling = { rope_type = \"yarn\", factor = 4, original_max_position_embeddings = 64 }\n",
        );
    let recipe = parse(&text).unwrap().recipe;
    let sft = recipe.sft.unwrap();
    assert_eq!(sft.chat_template, Some(ChatTemplate::File("mine.jinja".to_owned())));
    assert_eq!(sft.train.eval.unwrap().by, SplitBy::Position);
    let Some(ModelSection::Llama(llama)) = recipe.model else { panic!() };
    let Some(RopeScaling::Yarn(yarn)) = llama.rope_scaling else { panic!() };
    assert_eq!((yarn.factor, yarn.beta_fast, yarn.beta_slow), (4.0, 32.0, 1.0));
}

#[test]
fn a_model_section_is_a_config_json() {
    let recipe = parse(GOOD).unwrap().recipe;
    let config = recipe.model.unwrap().config_json(500, 64).unwrap();
    let expected = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": false,
        "attention_bias": false, "mlp_bias": false, "initializer_range": 0.02, "hidden_act": "silu",
        "vocab_size": 500, "max_position_embeddings": 64,
    });
    assert_eq!(config, expected);
}

#[test]
fn sources_have_key_paths_and_places() {
    let loaded = parse(GOOD).unwrap();
    let sources = loaded.recipe.sources();
    let paths: Vec<&str> = sources.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["pretrain.data[0]", "pretrain.data[1]", "sft.data[0]"]);
    let place = loaded.spans.location("pretrain.data[1].path").unwrap().to_string();
    assert_eq!(place, "recipes/mine.toml:15:41");
    assert!(
        loaded.spans.is_set("pretrain.data[1].text")
            && !loaded.spans.is_set("pretrain.data[0].text")
    );
    let (dir, data_dir) = (loaded.dir(), Path::new("/data"));
    assert_eq!(sources[0].1.resolve(dir, data_dir), Path::new("recipes/text.txt"));
    assert_eq!(sources[1].1.resolve(dir, data_dir), Path::new("/data/more/*.jsonl.gz"));
    assert!(sources[1].1.needs_data_dir());
}

#[test]
fn a_later_check_shows_the_line_of_its_key() {
    let loaded = parse(GOOD).unwrap();
    let error = loaded.spans.error(
        "pretrain.data[1].text",
        "column not found: `body`",
        "its columns are `title`, `words`",
        None,
    );
    insta::assert_snapshot!(error, @r#"
    column not found: `body`
      --> recipes/mine.toml:15:72
       |
    15 | data = [{ path = "text.txt" }, { path = "data:more/*.jsonl.gz", text = "body" }]
       |                                                                        ^^^^^^ its columns are `title`, `words`
    "#);
}

/// The valid recipe with a stage of drawn pairs.
fn with_pairs(pairs: &str) -> String {
    let source = format!("data = [{{ path = \"rows.jsonl\", pairs = {pairs} }}]");
    format!(
        "{GOOD}\n[reward]\nstart = \"sft\"\n{source}\nsequence_length = 64\npairs_per_step = 8\nmax_steps = 5\noptimizer = {{ lr = 1e-4 }}\n"
    )
}

#[test]
fn pairs_are_drawn_by_columns() {
    let text = with_pairs(
        "{ from = \"text\", chosen = { emotions = [\"joy\"], stars = [\"5\"] }, rejected = { emotions = [\"anger\"] }, prompt = \"Write.\" }",
    );
    let recipe = parse(&text).unwrap().recipe;
    let reward = recipe.reward.unwrap();
    let pairs = reward.input.data[0].pairs.as_ref().unwrap();
    assert_eq!(pairs.from, "text");
    let entries: Vec<(&str, &[String])> = pairs.chosen.entries().collect();
    assert_eq!(entries, [("emotions", &["joy".to_owned()][..]), ("stars", &["5".to_owned()])]);
    assert_eq!(pairs.prompt.as_ref().unwrap().as_str(), "Write.");

    let text = GOOD.replace("text = \"body\"", "where = { lang = [\"en\", \"de\"] }");
    let pretrain = parse(&text).unwrap().recipe.pretrain.unwrap();
    let filter = pretrain.input.data[1].filter.as_ref().unwrap();
    let values = ["en".to_owned(), "de".to_owned()];
    assert_eq!(filter.entries().collect::<Vec<_>>(), [("lang", &values[..])]);
    // Serialized, it has the name of the key in a recipe.
    let written = toml_edit::ser::to_string(&pretrain.input.data[1]).unwrap();
    assert!(written.contains("where = { lang = [\"en\", \"de\"] }"), "{written}");
}

#[test]
fn pairs_that_say_nothing_are_refused() {
    let refused = |pairs: &str| {
        let error = parse(&with_pairs(pairs)).expect_err("this recipe was taken");
        crate::shown(&error).lines().next().unwrap().to_owned()
    };
    let sides = "chosen = { a = [\"x\"] }, rejected = { a = [\"y\"] }";
    let said = [
        refused("{ from = \"text\", chosen = { a = [\"x\"] }, rejected = { a = [\"x\"] } }"),
        refused("{ from = \"text\", chosen = {}, rejected = { a = [\"x\"] } }"),
        refused("{ from = \"text\", chosen = { a = [] }, rejected = { a = [\"x\"] } }"),
        refused("{ from = \"text\", chosen = { a = \"x\" }, rejected = { a = [\"y\"] } }"),
        refused("{ from = \"text\", chosen = { a = [5] }, rejected = { a = [\"y\"] } }"),
        refused(&format!("{{ from = \"text\", {sides}, prompt = \"{{a}}\" }}")),
        refused(&format!("{{ {sides} }}")),
        refused(&format!(
            "{{ from = \"text\", {sides} }}, rows = {{ chosen = \"a\", rejected = \"b\" }}"
        ))
        .replace(" }", ""),
    ];
    insta::assert_snapshot!(said.join("\n"), @r#"
    error: `rejected` in [reward.data[0].pairs] cannot be used: it is equal to `chosen`, so no row would be in a pair
    error: `chosen` in [reward.data[0].pairs] must not be empty: `{}`
    error: `a` in [reward.data[0].pairs.chosen] must not be empty: `[]`
    error: `a` in [reward.data[0].pairs.chosen] must be a list: `"x"`
    error: `a[0]` in [reward.data[0].pairs.chosen] must be a string: `5`
    error: `prompt` in [reward.data[0].pairs] must have no `{column}`: the two texts of a pair are from different rows: `{a}`
    error: missing key `from` in [reward.data[0].pairs]
    error: `rows` in [reward.data[0]] cannot be used: `pairs` already defines the rows
    "#);

    // Only reward models use margins.
    let margin = |section: &str| {
        let with = with_pairs(&format!("{{ from = \"text\", {sides} }}"));
        let drawn = format!("pairs = {{ from = \"text\", {sides} }}");
        let with = with.replace(&drawn, "columns = { margin = \"votes\" }");
        parse(&with.replace("[reward]", section)).map(|_| ())
    };
    assert!(margin("[reward]").is_ok());
    let error = crate::shown(&margin("[dpo]").unwrap_err());
    insta::assert_snapshot!(error.lines().next().unwrap(), @r"
    error: `margin` in [dpo.data[0].columns] cannot be used: only [reward] uses margins
    ");

    let text = GOOD.replace("text = \"body\"", &format!("pairs = {{ from = \"text\", {sides} }}"));
    insta::assert_snapshot!(crate::shown(&parse(&text).unwrap_err()).lines().next().unwrap(), @r"
    error: `pairs` in [pretrain.data[1]] cannot be used: only stages that train on pairs use it, such as [reward] and [dpo]
    ");
}

#[test]
fn keys_of_a_source_that_decide_how_files_are_read() {
    let keys = "path = \"chats.jsonl\", split = \"dev\", field = \"data\", delimiter = \"\\t\", max_row_bytes = 9";
    let recipe = parse(&GOOD.replace("path = \"chats.jsonl\"", keys)).unwrap().recipe;
    let source = &recipe.sft.unwrap().input.data[0];
    assert_eq!(source.split.as_deref(), Some("dev"));
    assert_eq!(source.field.as_deref(), Some("data"));
    assert_eq!((source.delimiter.as_deref(), source.max_row_bytes), (Some("\t"), Some(9)));
    for delimiter in ["\\\"", "\\n", "é", "ab", ""] {
        let keys = format!("path = \"chats.jsonl\", delimiter = \"{delimiter}\"");
        let error = refused("path = \"chats.jsonl\"", &keys);
        assert!(error.contains("`delimiter`"), "{error}");
    }
    insta::assert_snapshot!(refused("path = \"chats.jsonl\"", "path = \"x\", delimiter = \"\\\"\""), @r#"
    error: `delimiter` in [sft.data[0]] must be one ASCII character, not a quote or a line break: `"`
      --> recipes/mine.toml:24:35
       |
    24 | data = [{ path = "x", delimiter = "\"" }]
       |                                   ^^^^
    "#);
}
