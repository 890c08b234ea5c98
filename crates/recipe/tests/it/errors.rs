//! Error messages of recipes.

use crate::{parse, refused, shown};

#[test]
fn a_slip_in_a_key_shows_the_key_that_was_meant() {
    insta::assert_snapshot!(refused("warmup_steps = 2", "warmup_step = 2"), @r#"
    error: unknown key `warmup_step` in [pretrain.schedule]
      --> recipes/mine.toml:20:31
       |
    20 | schedule = { kind = "cosine", warmup_step = 2 }
       |                               ^^^^^^^^^^^ did you mean `warmup_steps`?
    "#);
    insta::assert_snapshot!(refused("[model]", "[modle]"), @r"
    error: unknown key `modle` in the recipe
      --> recipes/mine.toml:7:2
       |
     7 | [modle]
       |  ^^^^^ did you mean `model`?
    ");
    insta::assert_snapshot!(refused("text = \"body\"", "txet = \"body\""), @r#"
    error: unknown key `txet` in [pretrain.data[1]]
      --> recipes/mine.toml:15:65
       |
    15 | data = [{ path = "text.txt" }, { path = "data:more/*.jsonl.gz", txet = "body" }]
       |                                                                 ^^^^ did you mean `text`?
    "#);
    insta::assert_snapshot!(refused("tokens_per_step = 512    #", "\"tokens-per-step\" = 512  #"), @r#"
    error: unknown key `tokens-per-step` in [pretrain]
      --> recipes/mine.toml:17:1
       |
    17 | "tokens-per-step" = 512  # 8 rows
       | ^^^^^^^^^^^^^^^^^ did you mean `tokens_per_step`?
    "#);
}

#[test]
fn a_key_of_another_section_shows_where_it_belongs() {
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_steps = 20\nlr = 1e-3\n"), @r"
    error: unknown key `lr` in [pretrain]
      --> recipes/mine.toml:19:1
       |
    19 | lr = 1e-3
       | ^^ move it to [pretrain.optimizer]
    ");
    insta::assert_snapshot!(refused("start = \"pretrain\"\n", "start = \"pretrain\"\nseed = 3\n"), @r"
    error: unknown key `seed` in [sft]
      --> recipes/mine.toml:24:1
       |
    24 | seed = 3
       | ^^^^ move it to the top of the file, before the first [section]
    ");
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_steps = 20\noverlong = \"cut\"\n"), @r#"
    error: unknown key `overlong` in [pretrain]
      --> recipes/mine.toml:19:1
       |
    19 | overlong = "cut"
       | ^^^^^^^^ move it to [sft]
    "#);
    insta::assert_snapshot!(refused("seed = 7\n", "seed = 7\nholdout = 0.1\n"), @r"
    error: unknown key `holdout` in the recipe
      --> recipes/mine.toml:3:1
       |
     3 | holdout = 0.1
       | ^^^^^^^ move it to [pretrain.eval] or [sft.eval]
    ");
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_steps = 20\nlimit = 9\n"), @r"
    error: unknown key `limit` in [pretrain]
      --> recipes/mine.toml:19:1
       |
    19 | limit = 9
       | ^^^^^ move it to an entry of [pretrain.data]
    ");
}

#[test]
fn another_tool_s_key_shows_ours() {
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ learning_rate = 1e-3 }"), @r"
    error: unknown key `learning_rate` in [pretrain.optimizer]
      --> recipes/mine.toml:19:15
       |
    19 | optimizer = { learning_rate = 1e-3 }
       |               ^^^^^^^^^^^^^ use `lr` instead
    ");
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_iters = 20\n"), @r"
    error: unknown key `max_iters` in [pretrain]
      --> recipes/mine.toml:18:1
       |
    18 | max_iters = 20
       | ^^^^^^^^^ use `max_steps` instead
    ");
    insta::assert_snapshot!(refused("hidden_size = 64\n", "n_embd = 64\n"), @r"
    error: unknown key `n_embd` in [model]
      --> recipes/mine.toml:9:1
       |
     9 | n_embd = 64
       | ^^^^^^ use `hidden_size` instead
    ");
    insta::assert_snapshot!(refused("epochs = 1\n", "epochs = 1\ngrad_clip = 1.0\n"), @r"
    error: unknown key `grad_clip` in [sft]
      --> recipes/mine.toml:28:1
       |
    28 | grad_clip = 1.0
       | ^^^^^^^^^ move it to [sft.optimizer] as `max_grad_norm`
    ");
    insta::assert_snapshot!(refused("kind = \"byte-bpe\", vocab_size = 512", "kind = \"char\", vocab_size = 512"), @r#"
    error: unknown key `vocab_size` in [tokenizer.train]
      --> recipes/mine.toml:5:26
       |
     5 | train = { kind = "char", vocab_size = 512 }
       |                          ^^^^^^^^^^ only `kind = "byte-bpe"` has this key
    "#);
}

#[test]
fn a_key_like_no_other_shows_what_there_is() {
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_steps = 20\nfrobnicate = true\n"), @r"
    error: unknown key `frobnicate` in [pretrain]
      --> recipes/mine.toml:19:1
       |
    19 | frobnicate = true
       | ^^^^^^^^^^
      hint: [pretrain] has `start`, `lora`, `data`, `sequence_length`, `tokens_per_step`, `eos_token`, `add_tokens`, `add_special_tokens`, `on_bad_row`, `max_bad_rows`, `packing`, `max_steps`, `epochs`, `max_tokens`, `micro_batch`, `checkpointing`, `optimizer`, `ema`, `schedule`, `eval`, `sample_prompts`, `sample_every_steps`, `sample_max_new_tokens`, `sample_temperature`, `save_every_steps`, `save_every_minutes`, `keep_checkpoints`, `log_every_steps`
    ");
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ lr = 1e-3, momentum = 0.9 }"), @r#"
    error: unknown key `momentum` in [pretrain.optimizer]
      --> recipes/mine.toml:19:26
       |
    19 | optimizer = { lr = 1e-3, momentum = 0.9 }
       |                          ^^^^^^^^ only `kind = "muon"` has this key
    "#);
}

#[test]
fn all_missing_keys_are_reported_together() {
    insta::assert_snapshot!(shown(&parse("[pretrain]\nsequence_length = 64\n[sft]\nstart = \"pretrain\"\n").unwrap_err()), @"
    error: [pretrain] has nothing to start from
      --> recipes/mine.toml:1:2
       |
     1 | [pretrain]
       |  ^^^^^^^^
      also: line 1: [pretrain] needs one of `max_steps`, `epochs` and `max_tokens` (add one of them)
      also: line 1: missing key `data` in [pretrain] (Data sources)
      also: line 1: missing key `optimizer` in [pretrain] (Optimizer)
      also: line 1: missing key `tokens_per_step` in [pretrain] (Tokens per optimizer step, a multiple of `sequence_length`)
      also: line 3: [sft] needs one of `max_steps`, `epochs` and `max_tokens` (add one of them)
      also: line 3: missing key `data` in [sft] (Data sources)
      also: line 3: missing key `optimizer` in [sft] (Optimizer)
      also: line 3: missing key `sequence_length` in [sft] (Tokens per row)
      also: line 3: missing key `tokens_per_step` in [sft] (Tokens per optimizer step, a multiple of `sequence_length`)
      hint: set its `start`, or describe a new model in [model]
    ");
}

/// Keys that a rule over several keys requires are reported with those that are always required.
#[test]
fn what_a_new_model_lacks_is_reported_with_the_missing_keys() {
    let text = "[model]\nfamily = \"llama\"\n[sft]\ndata = []\n[dpo]\nmax_steps = 3\n";
    let error = shown(&parse(text).unwrap_err());
    assert!(error.contains("`data` in [sft] must not be empty"), "{error}");
    let error = shown(&parse(&text.replace("data = []\n", "")).unwrap_err());
    for part in [
        "missing key `hidden_size` in [model]",
        "a new model needs a tokenizer",
        "[sft] needs one of `max_steps`, `epochs` and `max_tokens`",
        "missing key `start` in [dpo] (to continue from [sft]: `start = \"sft\"`)",
        "missing key `pairs_per_step` in [dpo]",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("[dpo] needs one of"), "{error}");
}

#[test]
fn a_word_in_place_of_a_table_shows_the_table() {
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "\"adamw\""), @r#"
    error: `optimizer` in [pretrain] must be a table: `"adamw"`
      --> recipes/mine.toml:19:13
       |
    19 | optimizer = "adamw"
       |             ^^^^^^^ this is a string
      hint: write `{ kind = "adamw", lr = … }`
    "#);
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "1e-3"), @"
    error: `optimizer` in [pretrain] must be a table: `1e-3`
      --> recipes/mine.toml:19:13
       |
    19 | optimizer = 1e-3
       |             ^^^^ this is a number with a fraction
      hint: write `{ lr = 1e-3 }`
    ");
}

#[test]
fn a_missing_key_shows_what_it_would_say() {
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ max_grad_norm = 0.5 }"), @"
    error: missing key `lr` in [pretrain.optimizer]
      --> recipes/mine.toml:19:1
       |
    19 | optimizer = { max_grad_norm = 0.5 }
       | ^^^^^^^^^
      hint: `lr`: Peak learning rate
    ");
    insta::assert_snapshot!(refused("intermediate_size = 128\n", ""), @"
    error: missing key `intermediate_size` in [model]
      --> recipes/mine.toml:7:2
       |
     7 | [model]
       |  ^^^^^
      hint: `intermediate_size`: Width of the feed-forward layers
    ");
    insta::assert_snapshot!(refused("{ path = \"text.txt\" }", "{ weight = 2 }"), @r#"
    error: missing key `path` in [pretrain.data[0]]
      --> recipes/mine.toml:15:9
       |
    15 | data = [{ weight = 2 }, { path = "data:more/*.jsonl.gz", text = "body" }]
       |         ^^^^^^^^^^^^^^
      hint: `path`: A file, a directory or a pattern such as `texts/*.jsonl.gz`, relative to the recipe; `data:sft/x.json` is under the data directory
    "#);
    insta::assert_snapshot!(refused("max_steps = 20\n", ""), @"
    error: [pretrain] needs one of `max_steps`, `epochs` and `max_tokens`
      --> recipes/mine.toml:14:2
       |
    14 | [pretrain]
       |  ^^^^^^^^
      hint: add one of them
    ");
    insta::assert_snapshot!(refused("family = \"llama\"\n", ""), @r#"
    error: [model] needs one of `family` and `start`
      --> recipes/mine.toml:7:2
       |
     7 | [model]
       |  ^^^^^
      hint: use `family = "llama"` or `family = "gpt2"` or `family = "qwen3"` or 13 other values of `family` or `start = …`
    "#);
    insta::assert_snapshot!(refused("{ kind = \"cosine\", warmup_steps = 2 }", "{ kind = \"wsd\", warmup_steps = 2 }"), @r#"
    error: missing key `decay_steps` in [pretrain.schedule]
      --> recipes/mine.toml:20:1
       |
    20 | schedule = { kind = "wsd", warmup_steps = 2 }
       | ^^^^^^^^ `wsd` needs the length of its decay
    "#);
}

#[test]
fn a_wrong_type_shows_the_right_one() {
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_steps = \"20\"\n"), @r#"
    error: `max_steps` in [pretrain] must be an integer: `"20"`
      --> recipes/mine.toml:18:13
       |
    18 | max_steps = "20"
       |             ^^^^ this is a string
      hint: remove the quotes
    "#);
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_steps = 2e3\n"), @r"
    error: `max_steps` in [pretrain] must be an integer: `2e3`
      --> recipes/mine.toml:18:13
       |
    18 | max_steps = 2e3
       |             ^^^ this is a number with a fraction
      hint: write `2000`
    ");
    insta::assert_snapshot!(refused("seed = 7", "seed = 7.5"), @r"
    error: `seed` must be an integer: `7.5`
      --> recipes/mine.toml:2:8
       |
     2 | seed = 7.5
       |        ^^^ this is a number with a fraction
      hint: `seed`: Seed of every random choice
    ");
    insta::assert_snapshot!(refused("seed = 7", "seed = 7\ndevice = 0"), @r"
    error: `device` must be a string: `0`
      --> recipes/mine.toml:3:10
       |
     3 | device = 0
       |          ^ this is an integer
      hint: put the value in quotes
    ");
    insta::assert_snapshot!(refused("data = [{ path = \"chats.jsonl\" }]", "data = { path = \"chats.jsonl\" }"), @r#"
    error: `data` in [sft] must be a list: `{ … }`
      --> recipes/mine.toml:24:8
       |
    24 | data = { path = "chats.jsonl" }
       |        ^^^^^^^^^^^^^^^^^^^^^^^^ this is a table
      hint: write a list: `[{ … }]`
    "#);
    insta::assert_snapshot!(refused("data = [{ path = \"chats.jsonl\" }]", "data = [\"chats.jsonl\"]"), @r#"
    error: `data[0]` in [sft] must be a table: `"chats.jsonl"`
      --> recipes/mine.toml:24:9
       |
    24 | data = ["chats.jsonl"]
       |         ^^^^^^^^^^^^^ this is a string
      hint: write `{ path = "chats.jsonl" }`
    "#);
    insta::assert_snapshot!(refused("schedule = { kind = \"cosine\", warmup_steps = 2 }", "schedule = \"cosine\""), @r#"
    error: `schedule` in [pretrain] must be a table: `"cosine"`
      --> recipes/mine.toml:20:12
       |
    20 | schedule = "cosine"
       |            ^^^^^^^^ this is a string
      hint: write `{ kind = "cosine" }`
    "#);
    insta::assert_snapshot!(refused("{ lr = 1e-4 }", "{ lr = 1e-4, betas = [0.9, true] }"), @r"
    error: `betas[1]` in [sft.optimizer] must be a number: `true`
      --> recipes/mine.toml:28:40
       |
    28 | optimizer = { lr = 1e-4, betas = [0.9, true] }
       |                                        ^^^^ this is true or false
      hint: `betas`: Decay rates of the first and second moments, each at least 0 and below 1
    ");
    insta::assert_snapshot!(refused("[pretrain]", "[[pretrain]]"), @"
    error: `pretrain` must be a table: `[ … ]`
      --> recipes/mine.toml:14:1
       |
    14 | [[pretrain]]
       | ^^^^^^^^^^^^ this is a list
      hint: `pretrain`: Stage: pretraining on documents
    ");
}

#[test]
fn a_value_out_of_range_shows_the_range() {
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ lr = 0.0 }"), @"
    error: `lr` in [pretrain.optimizer] must be above 0 and at most 10: `0.0`
      --> recipes/mine.toml:19:20
       |
    19 | optimizer = { lr = 0.0 }
       |                    ^^^
      hint: `lr`: Peak learning rate
    ");
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ lr = nan }"), @"
    error: `lr` in [pretrain.optimizer] must be above 0 and at most 10: `nan`
      --> recipes/mine.toml:19:20
       |
    19 | optimizer = { lr = nan }
       |                    ^^^
      hint: `lr`: Peak learning rate
    ");
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ lr = 1e-3, betas = [0.9, 1.0] }"), @r"
    error: `betas[1]` in [pretrain.optimizer] must be at least 0 and at most 0.999999: `1.0`
      --> recipes/mine.toml:19:40
       |
    19 | optimizer = { lr = 1e-3, betas = [0.9, 1.0] }
       |                                        ^^^
      hint: `betas`: Decay rates of the first and second moments, each at least 0 and below 1
    ");
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ lr = 1e-3, betas = [0.9] }"), @r"
    error: `betas` in [pretrain.optimizer] must have 2 entries: `1`
      --> recipes/mine.toml:19:34
       |
    19 | optimizer = { lr = 1e-3, betas = [0.9] }
       |                                  ^^^^^
      hint: `betas`: Decay rates of the first and second moments, each at least 0 and below 1
    ");
    insta::assert_snapshot!(refused("seed = 7", "seed = -7"), @"
    error: `seed` must be at least 0: `-7`
      --> recipes/mine.toml:2:8
       |
     2 | seed = -7
       |        ^^
      hint: `seed`: Seed of every random choice
    ");
    insta::assert_snapshot!(refused("epochs = 1\n", "epochs = 1\neval = { holdout = 0.7 }\n"), @r"
    error: `holdout` in [sft.eval] must be at least 0 and at most 0.5: `0.7`
      --> recipes/mine.toml:28:20
       |
    28 | eval = { holdout = 0.7 }
       |                    ^^^
      hint: `holdout`: Share of the data that is used for validation instead of training
    ");
    insta::assert_snapshot!(refused("epochs = 1\n", "epochs = 1\nkeep_checkpoints = 1\n"), @r"
    error: `keep_checkpoints` in [sft] must be at least 2: `1`
      --> recipes/mine.toml:28:20
       |
    28 | keep_checkpoints = 1
       |                    ^
      hint: `keep_checkpoints`: Number of checkpoints to keep, in addition to the best one
    ");
    insta::assert_snapshot!(refused("[{ path = \"chats.jsonl\" }]", "[]"), @"
    error: `data` in [sft] must not be empty: `[]`
      --> recipes/mine.toml:24:8
       |
    24 | data = []
       |        ^^
      hint: `data`: Data sources
    ");
    insta::assert_snapshot!(refused("seed = 7", "seed = 7\nname = \"../../etc\""), @r#"
    error: `name` must be at most 64 letters, digits, `-`, `_` or `.`, and start with a letter or digit: `../../etc`
      --> recipes/mine.toml:3:8
       |
     3 | name = "../../etc"
       |        ^^^^^^^^^^^
      hint: `name`: Name of the run, which is saved to `runs/NAME`
    "#);
    insta::assert_snapshot!(refused("seed = 7", "seed = 7\ndevice = \"gpu\""), @r#"
    error: `device` must be `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`: `gpu`
      --> recipes/mine.toml:3:10
       |
     3 | device = "gpu"
       |          ^^^^^ did you mean `cuda`?
    "#);
    insta::assert_snapshot!(refused("seed = 7", "seed = 7\ndevice = \"cdua\""), @r#"
    error: `device` must be `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`: `cdua`
      --> recipes/mine.toml:3:10
       |
     3 | device = "cdua"
       |          ^^^^^^ did you mean `cuda`?
    "#);
    insta::assert_snapshot!(refused("data:more/*.jsonl.gz", "data:../secret"), @r#"
    error: `path` in [pretrain.data[1]] must stay within the data directory: `data:../secret`
      --> recipes/mine.toml:15:41
       |
    15 | data = [{ path = "text.txt" }, { path = "data:../secret", text = "body" }]
       |                                         ^^^^^^^^^^^^^^^^
      hint: `path`: A file, a directory or a pattern such as `texts/*.jsonl.gz`, relative to the recipe; `data:sft/x.json` is under the data directory
    "#);
}

#[test]
fn a_word_that_is_none_of_the_known_shows_them() {
    insta::assert_snapshot!(refused("kind = \"cosine\"", "kind = \"cosin\""), @r#"
    error: `kind` in [pretrain.schedule] must be one of `cosine`, `linear`, `constant`, `wsd`: `cosin`
      --> recipes/mine.toml:20:21
       |
    20 | schedule = { kind = "cosin", warmup_steps = 2 }
       |                     ^^^^^^^ did you mean `cosine`?
    "#);
    insta::assert_snapshot!(refused("family = \"llama\"", "family = \"lama\""), @r#"
    error: `family` in [model] must be one of `llama`, `gpt2`, `qwen3`, `mistral`, `qwen2`, `gemma2`, `gemma3_text`, `phi3`, `olmo2`, `olmo3`, `exaone4`, `smollm3`, `granite`, `mixtral`, `qwen2_moe`, `qwen3_moe`: `lama`
      --> recipes/mine.toml:8:10
       |
     8 | family = "lama"
       |          ^^^^^^ did you mean `llama`?
    "#);
    insta::assert_snapshot!(refused("family = \"llama\"", "family = \"pythian\""), @r#"
    error: `family` in [model] must be one of `llama`, `gpt2`, `qwen3`, `mistral`, `qwen2`, `gemma2`, `gemma3_text`, `phi3`, `olmo2`, `olmo3`, `exaone4`, `smollm3`, `granite`, `mixtral`, `qwen2_moe`, `qwen3_moe`: `pythian`
      --> recipes/mine.toml:8:10
       |
     8 | family = "pythian"
       |          ^^^^^^^^^
    "#);
    insta::assert_snapshot!(refused("kind = \"byte-bpe\"", "kind = \"bpe\""), @r#"
    error: `kind` in [tokenizer.train] must be one of `byte-bpe`, `char`: `bpe`
      --> recipes/mine.toml:5:18
       |
     5 | train = { kind = "bpe", vocab_size = 512 }
       |                  ^^^^^
    "#);
    insta::assert_snapshot!(refused("epochs = 1\n", "epochs = 1\nchat_template = \"chatlm\"\n"), @r#"
    error: `chat_template` in [sft] must be `chatml`, `plain`, `model` or the path of a `.jinja` file: `chatlm`
      --> recipes/mine.toml:28:17
       |
    28 | chat_template = "chatlm"
       |                 ^^^^^^^^ did you mean `chatml`?
    "#);
    insta::assert_snapshot!(refused("text = \"body\"", "rows = { text = \"{title\" }"), @r#"
    error: `text` in [pretrain.data[1].rows] has an unclosed `{`; write `{{` for a brace: `{title`
      --> recipes/mine.toml:15:81
       |
    15 | data = [{ path = "text.txt" }, { path = "data:more/*.jsonl.gz", rows = { text = "{title" } }]
       |                                                                                 ^^^^^^^^
      hint: `text`: The document (pretraining), such as `"{title}\n{body}"`
    "#);
    insta::assert_snapshot!(refused("{ lr = 1e-3 }", "{ kind = \"adam\", lr = 1e-3 }"), @r#"
    error: `kind` in [pretrain.optimizer] must be one of `adamw`, `adamw8bit`, `muon`, `adafactor`: `adam`
      --> recipes/mine.toml:19:22
       |
    19 | optimizer = { kind = "adam", lr = 1e-3 }
       |                      ^^^^^^ did you mean `adamw`?
    "#);
}

#[test]
fn keys_that_contradict_show_both() {
    insta::assert_snapshot!(refused("tokens_per_step = 512    #", "tokens_per_step = 500    #"), @r"
    error: `tokens_per_step` in [pretrain] must be a multiple of `sequence_length` (64), such as 448: `500`
      --> recipes/mine.toml:17:19
       |
    17 | tokens_per_step = 500    # 8 rows
       |                   ^^^
    ");
    insta::assert_snapshot!(refused("num_attention_heads = 4\n", "num_attention_heads = 4\nnum_key_value_heads = 3\n"), @r"
    error: `num_key_value_heads` in [model] must divide `num_attention_heads` (4): `3`
      --> recipes/mine.toml:12:23
       |
    12 | num_key_value_heads = 3
       |                       ^
    ");
    insta::assert_snapshot!(refused("hidden_size = 64", "hidden_size = 66"), @r"
    error: `hidden_size` in [model] must be a multiple of 2 × `num_attention_heads` (4) unless `head_dim` is given: `66`
      --> recipes/mine.toml:9:15
       |
     9 | hidden_size = 66
       |               ^^
    ");
    insta::assert_snapshot!(refused("family = \"llama\"", "family = \"llama\"\nstart = \"hf\""), @r#"
    error: [model] takes only one of `family` and `start`
      --> recipes/mine.toml:9:1
       |
     9 | start = "hf"
       | ^^^^^
      hint: remove `family` or `start`
    "#);
    insta::assert_snapshot!(refused("warmup_steps = 2", "warmup_steps = 30"), @r#"
    error: `warmup_steps` in [pretrain.schedule] must keep warm-up and decay within 20 steps: `30`
      --> recipes/mine.toml:20:46
       |
    20 | schedule = { kind = "cosine", warmup_steps = 30 }
       |                                              ^^
    "#);
    insta::assert_snapshot!(refused("warmup_steps = 2", "min_lr = 0.1"), @r#"
    error: `min_lr` in [pretrain.schedule] must be at most `lr` (0.001): `0.1`
      --> recipes/mine.toml:20:40
       |
    20 | schedule = { kind = "cosine", min_lr = 0.1 }
       |                                        ^^^
    "#);
    insta::assert_snapshot!(refused("warmup_steps = 2", "decay_steps = 2"), @r#"
    error: `decay_steps` in [pretrain.schedule] cannot be used: only `kind = "wsd"` uses it
      --> recipes/mine.toml:20:31
       |
    20 | schedule = { kind = "cosine", decay_steps = 2 }
       |                               ^^^^^^^^^^^
      hint: remove `decay_steps`, or change the keys it conflicts with
    "#);
    insta::assert_snapshot!(refused("{ path = \"chats.jsonl\" }", "{ path = \"chats.jsonl\", text = \"body\" }"), @r#"
    error: `text` in [sft.data[0]] cannot be used: fine-tuning reads prompts and completions: name them in `columns` or `rows`
      --> recipes/mine.toml:24:33
       |
    24 | data = [{ path = "chats.jsonl", text = "body" }]
       |                                 ^^^^
      hint: remove `text`, or change the keys it conflicts with
    "#);
    insta::assert_snapshot!(refused("{ path = \"chats.jsonl\" }", "{ path = \"chats.jsonl\", rows = { prompt = \"{a}\" } }"), @r#"
    error: missing key `completion` in [sft.data[0].rows]
      --> recipes/mine.toml:24:33
       |
    24 | data = [{ path = "chats.jsonl", rows = { prompt = "{a}" } }]
       |                                 ^^^^ fine-tuning needs a prompt and a completion
    "#);
    insta::assert_snapshot!(refused("{ path = \"text.txt\" }", "{ path = \"text.txt\", layout = \"tree\" }"), @r#"
    error: `layout` in [pretrain.data[0]] cannot be used: pretraining reads documents: use `auto`, `text` or `pretokenized`
      --> recipes/mine.toml:15:30
       |
    15 | data = [{ path = "text.txt", layout = "tree" }, { path = "data:more/*.jsonl.gz", text = "body" }]
       |                              ^^^^^^
      hint: remove `layout`, or change the keys it conflicts with
    "#);
    insta::assert_snapshot!(refused("epochs = 1\n", "epochs = 1\neval = { holdout = 0.1, early_stopping = { patience = 2 } }\n"), @r"
    error: `early_stopping` in [sft.eval] cannot be used: it needs `every_steps`: without it there is one evaluation, at the end
      --> recipes/mine.toml:28:25
       |
    28 | eval = { holdout = 0.1, early_stopping = { patience = 2 } }
       |                         ^^^^^^^^^^^^^^
      hint: remove `early_stopping`, or change the keys it conflicts with
    ");
    insta::assert_snapshot!(refused("intermediate_size = 128\n", "intermediate_size = 128\nmax_position_embeddings = 32\n"), @r"
    error: `sequence_length` in [pretrain] must be at most `max_position_embeddings` of [model] (32): `64`
      --> recipes/mine.toml:17:19
       |
    17 | sequence_length = 64
       |                   ^^
      also: line 26: `sequence_length` in [sft] must be at most `max_position_embeddings` of [model] (32): `64`
    ");
}

#[test]
fn stages_without_a_start_or_a_model_are_refused() {
    insta::assert_snapshot!(refused("start = \"pretrain\"\n", ""), @r#"
    error: missing key `start` in [sft]
      --> recipes/mine.toml:22:2
       |
    22 | [sft]
       |  ^^^ to continue from [pretrain]: `start = "pretrain"`
    "#);
    insta::assert_snapshot!(refused("start = \"pretrain\"\n", "start = \"sft\"\n"), @r#"
    error: `start` in [sft] must be a stage that runs before this one: `sft`
      --> recipes/mine.toml:23:9
       |
    23 | start = "sft"
       |         ^^^^^
    "#);
    insta::assert_snapshot!(refused("[tokenizer]\ntrain = { kind = \"byte-bpe\", vocab_size = 512 }\n", ""), @r#"
    error: a new model needs a tokenizer
      --> recipes/mine.toml:5:2
       |
     5 | [model]
       |  ^^^^^
      hint: add [tokenizer] with `train = { kind = "byte-bpe", vocab_size = 2048 }` or `load = …`
    "#);
    insta::assert_snapshot!(refused("max_steps = 20\n", "max_steps = 20\nstart = \"hf\"\n"), @"
    error: [model] is not used: every stage has a `start`
      --> recipes/mine.toml:7:2
       |
     7 | [model]
       |  ^^^^^
      hint: remove [model], or the `start` of the first stage
    ");
    insta::assert_snapshot!(shown(&parse("seed = 1\n").unwrap_err()), @"
    error: recipes/mine.toml: the recipe has no stage
      hint: add [pretrain], [sft], [distill], [reward], [dpo], [kto], [ppo] or [grpo]
    ");
}

#[test]
fn a_key_that_the_loss_does_not_read_is_refused() {
    let recipe = |keys: &str| {
        format!(
            "[model]\nstart = \"m\"\n[dpo]\ndata = [{{ path = \"p.jsonl\" }}]\nsequence_length = 64\n\
             pairs_per_step = 8\nepochs = 1\noptimizer = {{ lr = 1e-4 }}\n{keys}"
        )
    };
    let refused = |keys: &str| shown(&parse(&recipe(keys)).unwrap_err());
    assert!(parse(&recipe("label_smoothing = 0.1\n")).is_ok());
    assert!(parse(&recipe("loss = \"simpo\"\nsimpo_gamma = 1.0\nbeta = 2.5\n")).is_ok());
    assert!(parse(&recipe("loss = \"orpo\"\nbeta = 0.2\n")).is_ok());
    let good = [
        "loss = [\"sigmoid\", \"sft\"]\nloss_weights = [1, 0.5]\n",
        "loss = [\"ipo\"]\nf_divergence = \"forward_kl\"\n",
        "loss = \"cpo\"\ncpo_alpha = 0\nlabel_smoothing = 0.1\n",
        "loss = \"exo_pair\"\nlabel_smoothing = 0.001\n",
        "ld_alpha = 0.5\nuse_weighting = true\n",
        "f_divergence = \"alpha_divergence\"\nf_alpha = 0.3\n",
        "loss = \"aot\"\nmicro_batch = 8\n",
    ];
    for keys in good {
        assert!(parse(&recipe(keys)).is_ok(), "{keys}: {}", refused(keys));
    }
    let all = [
        refused("loss = \"hinge\"\nlabel_smoothing = 0.1\n"),
        refused("simpo_gamma = 0.1\n"),
        refused("loss = \"dpo\"\n"),
        refused("loss = 3\n"),
        refused("loss = []\n"),
        refused("loss = [\"sigmoid\", \"sigmod\"]\n"),
        refused("loss = [\"sigmoid\", \"sigmoid\"]\n"),
        refused("loss = [\"sigmoid\", \"simpo\"]\n"),
        refused("loss = [\"sigmoid\", \"sft\"]\nloss_weights = [1]\n"),
        refused("beta = 0\n"),
        refused("label_smoothing = 0.6\n"),
        refused("loss = \"exo_pair\"\n"),
        refused("loss = \"robust\"\nlabel_smoothing = 0.5\n"),
        refused("loss = \"orpo\"\nld_alpha = 0.5\n"),
        refused("loss = \"aot\"\nuse_weighting = true\n"),
        refused("loss = \"aot_unpaired\"\nmicro_batch = 4\n"),
        refused("loss = \"nca_pair\"\nf_divergence = \"js_divergence\"\n"),
        refused("f_alpha = 0.5\n"),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn what_is_not_toml_shows_where() {
    insta::assert_snapshot!(refused("seed = 7", "seed: 7"), @r"
    error: the recipe is not valid TOML: key with no value, expected `=`
      --> recipes/mine.toml:2:7
       |
     2 | seed: 7
       |       ^
      hint: a line is `key = value`, `[section]` or `# comment`; strings are in quotes
    ");
    insta::assert_snapshot!(refused("[pretrain]", "[pretrain"), @r"
    error: the recipe is not valid TOML: unclosed table, expected `]`
      --> recipes/mine.toml:14:10
       |
    14 | [pretrain
       |          ^
      hint: a line is `key = value`, `[section]` or `# comment`; strings are in quotes
    ");
    insta::assert_snapshot!(refused("seed = 7", "seed = 7\nseed = 8"), @r"
    error: the recipe is not valid TOML: duplicate key
      --> recipes/mine.toml:3:1
       |
     3 | seed = 8
       | ^^^^
      hint: a line is `key = value`, `[section]` or `# comment`; strings are in quotes
    ");
    insta::assert_snapshot!(refused("family = \"llama\"", "family = llama"), @r"
    error: the recipe is not valid TOML: string values must be quoted, expected literal string
      --> recipes/mine.toml:8:10
       |
     8 | family = llama
       |          ^^^^^
      hint: a line is `key = value`, `[section]` or `# comment`; strings are in quotes
    ");
}

/// Keys of another kind of optimizer are refused, and the error names that kind.
#[test]
fn keys_of_another_optimizer() {
    let with = |keys: &str| {
        refused("optimizer = { lr = 1e-3 }\nschedule", &format!("optimizer = {keys}\nschedule"))
    };
    insta::assert_snapshot!(with("{ kind = \"adafactor\", lr = 1e-3, betas = [0.9, 0.95] }"), @r#"
    error: unknown key `betas` in [pretrain.optimizer]
      --> recipes/mine.toml:19:46
       |
    19 | optimizer = { kind = "adafactor", lr = 1e-3, betas = [0.9, 0.95] }
       |                                              ^^^^^ did you mean `beta1`?
    "#);
    insta::assert_snapshot!(with("{ kind = \"muon\", lr = 1e-3, ns_step = 5 }"), @r#"
    error: unknown key `ns_step` in [pretrain.optimizer]
      --> recipes/mine.toml:19:41
       |
    19 | optimizer = { kind = "muon", lr = 1e-3, ns_step = 5 }
       |                                         ^^^^^^^ did you mean `ns_steps`?
    "#);
    insta::assert_snapshot!(with("{ kind = \"muon\", lr = 0.02, adjust_lr = \"original\" }"), @r#"
    error: missing key `adamw.lr` in [pretrain.optimizer]
      --> recipes/mine.toml:19:1
       |
    19 | optimizer = { kind = "muon", lr = 0.02, adjust_lr = "original" }
       | ^^^^^^^^^ with this `adjust_lr`, Muon's learning rate does not suit AdamW: `adamw = { lr = … }`
    "#);
    insta::assert_snapshot!(with("{ kind = \"muon\", lr = 0.02, adjust_lr = \"spectral\" }"), @r#"
    error: `adjust_lr` in [pretrain.optimizer] must be one of `match_rms_adamw`, `original`, `spectral_unclamped`: `spectral`
      --> recipes/mine.toml:19:53
       |
    19 | optimizer = { kind = "muon", lr = 0.02, adjust_lr = "spectral" }
       |                                                     ^^^^^^^^^^
      hint: `adjust_lr`: Scaling of the learning rate with a matrix's shape
    "#);
    insta::assert_snapshot!(with("{ kind = \"adafactor\", lr = 0.02, decay_rate = 0.8 }"), @r#"
    error: `decay_rate` in [pretrain.optimizer] must be at least -10 and below 0: `0.8`
      --> recipes/mine.toml:19:59
       |
    19 | optimizer = { kind = "adafactor", lr = 0.02, decay_rate = 0.8 }
       |                                                           ^^^
      hint: `decay_rate`: Exponent of the step number: the second moment decays at the rate 1 − step^`decay_rate`
    "#);
    insta::assert_snapshot!(with("{ lr = 1e-3, groups = [{ match = \"*\" }] }"), @r#"
    error: [pretrain.optimizer.groups[0]] changes nothing: it has neither `lr` nor `weight_decay`
      --> recipes/mine.toml:19:36
       |
    19 | optimizer = { lr = 1e-3, groups = [{ match = "*" }] }
       |                                    ^^^^^^^^^^^^^^^
      hint: give it one of them, or remove it
    "#);
    insta::assert_snapshot!(with("{ lr = 1e-3, groups = [{ lr = 1e-3 }] }"), @r"
    error: missing key `match` in [pretrain.optimizer.groups[0]]
      --> recipes/mine.toml:19:36
       |
    19 | optimizer = { lr = 1e-3, groups = [{ lr = 1e-3 }] }
       |                                    ^^^^^^^^^^^^^
      hint: `match`: Checkpoint names of the parameters; `*` stands for any characters, `?` for one
    ");
    insta::assert_snapshot!(with("{ lr = 1e-3, groups = [{ match = \"*\", rate = 1e-3 }] }"), @r#"
    error: unknown key `rate` in [pretrain.optimizer.groups[0]]
      --> recipes/mine.toml:19:51
       |
    19 | optimizer = { lr = 1e-3, groups = [{ match = "*", rate = 1e-3 }] }
       |                                                   ^^^^
      hint: [pretrain.optimizer.groups[0]] has `match`, `lr`, `weight_decay`
    "#);
    insta::assert_snapshot!(with("1e-3"), @r"
    error: `optimizer` in [pretrain] must be a table: `1e-3`
      --> recipes/mine.toml:19:13
       |
    19 | optimizer = 1e-3
       |             ^^^^ this is a number with a fraction
      hint: write `{ lr = 1e-3 }`
    ");
}

#[test]
fn a_source_that_gives_no_row_is_refused() {
    let error = refused("{ path = \"text.txt\" }", "{ path = \"text.txt\", weight = 1e-300 }");
    assert!(error.contains("must be at least 0.000001"), "{error}");
}
