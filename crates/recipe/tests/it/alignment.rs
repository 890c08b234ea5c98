//! Adapters and PPO: defaults of their keys, and conflicts between them.

use recipe::{Conventions, Extract, Kl, KlEstimator, OnBadRow, RewardKind};

use crate::{GOOD, parse, shown};

const REWARD: &str = r#"
[reward]
start = "sft"
data = [{ path = "pairs.jsonl" }]
sequence_length = 64
pairs_per_step = 8
max_steps = 5
optimizer = { lr = 1e-4 }
"#;

const PPO: &str = r#"
[ppo]
policy = { start = "sft" }
reward = "reward"
prompts = [{ path = "prompts.jsonl" }]
max_prompt_tokens = 40
max_new_tokens = 24
episodes_per_step = 12
max_steps = 5
optimizer = { lr = 1e-4 }
"#;

/// The valid recipe, followed by a reward model and PPO.
fn aligned() -> String {
    format!("{GOOD}{REWARD}{PPO}")
}

/// The error of that recipe with one text of it replaced.
fn refused(from: &str, to: &str) -> String {
    let text = aligned();
    assert_eq!(text.matches(from).count(), 1, "`{from}` must stand there once");
    shown(&parse(&text.replace(from, to)).expect_err("this recipe was taken"))
}

/// The error of the reward stage with this `lora`.
fn refused_lora(keys: &str) -> String {
    refused("pairs_per_step = 8", &format!("pairs_per_step = 8\nlora = {keys}"))
}

/// Defaults of `[ppo]`, as documented in docs/recipe.md and docs/ppo.md.
#[test]
fn ppo_without_a_word_has_the_published_values() {
    let ppo = parse(&aligned()).expect("a recipe").recipe.ppo.expect("the section");
    assert_eq!((ppo.temperature, ppo.gamma, ppo.lambda), (1.0, 1.0, 0.95));
    assert_eq!((ppo.clip_range, ppo.clip_range_value, ppo.vf_coef), (0.2, 0.2, 0.1));
    assert_eq!((ppo.n_ppo_epochs, ppo.n_minibatches, ppo.target_kl), (4, 1, None));
    assert_eq!((ppo.missing_eos_penalty, ppo.whiten_rewards), (0.0, false));
    let kl = Kl { estimator: KlEstimator::K1, coef: 0.05, target: None, horizon: 1e4 };
    assert_eq!((ppo.kl.clone(), ppo.conventions), (kl, Conventions::RealTokens));
    assert_eq!(
        (ppo.train.sample_every_steps, ppo.max_bad_rows, ppo.on_bad_row),
        (None, 100, OnBadRow::Stop)
    );
    assert!(ppo.chat_template.is_none() && ppo.policy.lora.is_none());
    // The value model starts from the reward model by default.
    assert!(ppo.value.is_none());
    assert_eq!(ppo.value_start(), Some("reward"));
    let own =
        aligned().replace("max_prompt_tokens", "value = { start = \"sft\" }\nmax_prompt_tokens");
    let own = parse(&own).expect("a recipe").recipe.ppo.expect("the section");
    assert_eq!(own.value_start(), Some("sft"));
    // The other keys of `kl` keep their defaults.
    let part = aligned().replace("episodes_per_step", "kl = { target = 6 }\nepisodes_per_step");
    let part = parse(&part).expect("a recipe").recipe.ppo.expect("the section");
    assert_eq!((part.kl.coef, part.kl.target, part.kl.horizon), (0.05, Some(6.0), 1e4));
}

/// Reward, value and reference model of PPO have no rows for new tokens.
#[test]
fn ppo_adds_no_tokens() {
    for key in ["add_tokens", "add_special_tokens"] {
        let text = refused("[ppo]\n", &format!("[ppo]\n{key} = [\"<think>\"]\n"));
        assert!(text.contains(&format!("unknown key `{key}` in [ppo]")), "{text}");
        assert!(text.contains("add them in the stages before, [sft] and [reward]"), "{text}");
    }
}

#[test]
fn a_model_has_room_for_a_prompt_and_its_answer() {
    let text = aligned().replace("max_new_tokens = 24", "max_new_tokens = 25");
    assert_eq!(parse(&text).expect("a recipe").recipe.longest_sequence(), Some(65));
    let from = "intermediate_size = 128\n";
    let text = text.replace(from, &format!("{from}max_position_embeddings = 64\n"));
    insta::assert_snapshot!(shown(&parse(&text).expect_err("too long")), @r"
    error: `max_new_tokens` in [ppo] and `max_prompt_tokens` must together be at most `max_position_embeddings` of [model] (64): `65`
      --> recipes/mine.toml:44:18
       |
    44 | max_new_tokens = 25
       |                  ^^
    ");
}

/// Row 36 of the field's bugs: dropout during scoring makes ratios and KL noisy.
#[test]
fn ppo_refuses_dropout() {
    insta::assert_snapshot!(
        refused("policy = { start = \"sft\" }", "policy = { start = \"sft\", lora = { dropout = 0.1 } }"),
        @r#"
        error: `dropout` in [ppo.policy.lora] cannot be used: with dropout, the policy that samples differs from the policy that is trained
          --> recipes/mine.toml:39:36
           |
        39 | policy = { start = "sft", lora = { dropout = 0.1 } }
           |                                    ^^^^^^^
          hint: remove `dropout`, or change the keys it conflicts with
        "#
    );
    let value = "value = { start = \"sft\", lora = { dropout = 0.1 } }\nmax_prompt_tokens = 40";
    insta::assert_snapshot!(refused("max_prompt_tokens = 40", value), @r#"
    error: `dropout` in [ppo.value.lora] cannot be used: with dropout, the policy that samples differs from the policy that is trained
      --> recipes/mine.toml:42:35
       |
    42 | value = { start = "sft", lora = { dropout = 0.1 } }
       |                                   ^^^^^^^
      hint: remove `dropout`, or change the keys it conflicts with
    "#);
    let none =
        aligned().replace("{ start = \"sft\" }", "{ start = \"sft\", lora = { dropout = 0 } }");
    assert!(parse(&none).is_ok());
}

#[test]
fn updates_are_whole_and_end_by_steps() {
    insta::assert_snapshot!(
        refused("episodes_per_step = 12", "episodes_per_step = 12\nn_minibatches = 5"),
        @r"
    error: `n_minibatches` in [ppo] must divide `episodes_per_step` (12): `5`
      --> recipes/mine.toml:45:17
       |
    45 | n_minibatches = 5
       |                 ^
    "
    );
    for fits in [1, 2, 3, 4, 6, 12] {
        let text = format!("{}n_minibatches = {fits}\n", aligned());
        assert!(parse(&text).is_ok(), "{fits}");
    }
    insta::assert_snapshot!(
        refused("episodes_per_step = 12\nmax_steps = 5", "episodes_per_step = 12\nmax_tokens = 5000"),
        @r"
        error: `max_tokens` in [ppo] cannot be used: the length of answers is not known in advance: use `max_steps` or `epochs`
          --> recipes/mine.toml:45:1
           |
        45 | max_tokens = 5000
           | ^^^^^^^^^^
          hint: remove `max_tokens`, or change the keys it conflicts with
        "
    );
    insta::assert_snapshot!(refused("max_new_tokens = 24", "max_new_tokens = 24\ntop_p = 0.9"), @r"
    error: unknown key `top_p` in [ppo]
      --> recipes/mine.toml:44:1
       |
    44 | top_p = 0.9
       | ^^^^^ move it to [grpo]
    ");
}

/// Models must be trained before they are used.
#[test]
fn roles_come_from_stages_that_ran_before() {
    let beside = "max_prompt_tokens = 40";
    insta::assert_snapshot!(refused("policy = { start = \"sft\" }", "policy = { start = \"ppo\" }"), @r#"
    error: `start` in [ppo.policy] must be a stage that runs before this one: `ppo`
      --> recipes/mine.toml:39:20
       |
    39 | policy = { start = "ppo" }
       |                    ^^^^^
    "#);
    insta::assert_snapshot!(refused("reward = \"reward\"", "reward = \"ppo\""), @r#"
    error: `reward` in [ppo] must be a stage that runs before this one: `ppo`
      --> recipes/mine.toml:40:10
       |
    40 | reward = "ppo"
       |          ^^^^^
    "#);
    insta::assert_snapshot!(refused(beside, &format!("value = {{ start = \"ppo\" }}\n{beside}")), @r#"
    error: `start` in [ppo.value] must be a stage that runs before this one: `ppo`
      --> recipes/mine.toml:42:19
       |
    42 | value = { start = "ppo" }
       |                   ^^^^^
    "#);
    let value = "value = { start = \"sft\", lora = { adapter = \"ppo\" } }";
    insta::assert_snapshot!(refused(beside, &format!("{value}\n{beside}")), @r#"
    error: `adapter` in [ppo.value.lora] must be a stage that runs before this one: `ppo`
      --> recipes/mine.toml:42:45
       |
    42 | value = { start = "sft", lora = { adapter = "ppo" } }
       |                                             ^^^^^
    "#);
    let policy = "policy = { start = \"sft\", lora = { adapter = \"ppo\" } }";
    insta::assert_snapshot!(refused("policy = { start = \"sft\" }", policy), @r#"
    error: `adapter` in [ppo.policy.lora] must be a stage that runs before this one: `ppo`
      --> recipes/mine.toml:39:46
       |
    39 | policy = { start = "sft", lora = { adapter = "ppo" } }
       |                                              ^^^^^
    "#);
    // A stage that is in the recipe, and runs later.
    insta::assert_snapshot!(refused_lora("{ adapter = \"ppo\" }"), @r#"
    error: `adapter` in [reward.lora] must be a stage that runs before this one: `ppo`
      --> recipes/mine.toml:35:20
       |
    35 | lora = { adapter = "ppo" }
       |                    ^^^^^
    "#);
}

#[test]
fn an_adapter_that_goes_on_keeps_its_shape() {
    insta::assert_snapshot!(refused_lora("{ adapter = \"sft\", rank = 8 }"), @r#"
    error: `rank` in [reward.lora] cannot be used: the adapter that it continues has its own
      --> recipes/mine.toml:35:27
       |
    35 | lora = { adapter = "sft", rank = 8 }
       |                           ^^^^
      hint: remove `rank`, or change the keys it conflicts with
    "#);
    for key in ["alpha = 8", "dropout = 0.1", "rslora = true", "target_modules = [\"q_proj\"]"] {
        let said = refused_lora(&format!("{{ adapter = \"sft\", {key} }}"));
        let name = key.split(' ').next().expect("a name");
        let wanted = format!(
            "error: `{name}` in [reward.lora] cannot be used: the adapter that it continues has its own"
        );
        assert!(said.starts_with(&wanted), "{said}");
    }
    insta::assert_snapshot!(
        refused_lora("{ target_modules = [\"q_proj\"], target_pattern = '.*v_proj' }"),
        @r#"
    error: `target_pattern` in [reward.lora] cannot be used: `target_modules` already names the layers
      --> recipes/mine.toml:35:39
       |
    35 | lora = { target_modules = ["q_proj"], target_pattern = '.*v_proj' }
       |                                       ^^^^^^^^^^^^^^
      hint: remove `target_pattern`, or change the keys it conflicts with
    "#
    );
}

#[test]
fn an_adapter_stands_beside_trained_weights() {
    insta::assert_snapshot!(
        refused("max_steps = 20\n", "max_steps = 20\nlora = { rank = 4 }\n"),
        @r"
        error: `lora` in [pretrain] cannot be used: an adapter needs trained weights, and the stage has no `start`
          --> recipes/mine.toml:19:1
           |
        19 | lora = { rank = 4 }
           | ^^^^
          hint: remove `lora`, or change the keys it conflicts with
        "
    );
    let with_base = format!("lora = {{}}\n{}", "start = \"sft\"");
    let text = aligned().replace("start = \"sft\"\ndata", &format!("{with_base}\ndata"));
    let reward = parse(&text).expect("a recipe").recipe.reward.expect("the section");
    assert_eq!(reward.input.lora, Some(recipe::LoraKeys::default()));
}

/// Row 71 of the field's bugs: `lora_ranl = 4` trained with the default rank, without an error.
#[test]
fn a_slip_in_an_adapters_key_shows_the_key_that_was_meant() {
    insta::assert_snapshot!(refused_lora("{ ranl = 4 }"), @r"
    error: unknown key `ranl` in [reward.lora]
      --> recipes/mine.toml:35:10
       |
    35 | lora = { ranl = 4 }
       |          ^^^^ did you mean `rank`?
    ");
    insta::assert_snapshot!(refused_lora("{ r = 4 }"), @r"
    error: unknown key `r` in [reward.lora]
      --> recipes/mine.toml:35:10
       |
    35 | lora = { r = 4 }
       |          ^ use `rank` instead
    ");
    insta::assert_snapshot!(refused_lora("{ rank = 0 }"), @"
    error: `rank` in [reward.lora] must be from 1 to 4096: `0`
      --> recipes/mine.toml:35:17
       |
    35 | lora = { rank = 0 }
       |                 ^
      hint: `rank`: Rank of the adapter
    ");
    insta::assert_snapshot!(refused_lora("{ alpha = 0 }"), @"
    error: `alpha` in [reward.lora] must be above 0 and at most 1e6: `0`
      --> recipes/mine.toml:35:18
       |
    35 | lora = { alpha = 0 }
       |                  ^
      hint: `alpha`: Scale of the adapter: its output is multiplied by `alpha` / `rank`
    ");
    insta::assert_snapshot!(refused_lora("{ target_modules = \"q_proj\" }"), @r#"
    error: `target_modules` in [reward.lora] must be a list: `"q_proj"`
      --> recipes/mine.toml:35:27
       |
    35 | lora = { target_modules = "q_proj" }
       |                           ^^^^^^^^ this is a string
      hint: write a list: `[ … ]`
    "#);
    insta::assert_snapshot!(
        refused("policy = { start = \"sft\" }", "policy = { start = \"sft\", rank = 4 }"),
        @r#"
        error: unknown key `rank` in [ppo.policy]
          --> recipes/mine.toml:39:27
           |
        39 | policy = { start = "sft", rank = 4 }
           |                           ^^^^ move it to [ppo.policy.lora]
        "#
    );
    insta::assert_snapshot!(refused("policy = { start = \"sft\" }", "policy = \"sft\""), @r#"
    error: `policy` in [ppo] must be a table: `"sft"`
      --> recipes/mine.toml:39:10
       |
    39 | policy = "sft"
       |          ^^^^^ this is a string
      hint: write `{ start = "sft" }`
    "#);
    insta::assert_snapshot!(refused("episodes_per_step = 12", "episodes_per_step = 12\nkl_coef = 0.1"), @r"
    error: unknown key `kl_coef` in [ppo]
      --> recipes/mine.toml:45:1
       |
    45 | kl_coef = 0.1
       | ^^^^^^^ use `kl` instead
    ");
}

#[test]
fn a_precision_that_the_device_lacks_is_refused() {
    let of = |name: &str| {
        let text = format!("precision = \"{name}\"\n{}", aligned());
        shown(&parse(&text).expect_err("this recipe was taken"))
    };
    insta::assert_snapshot!(of("tf32"), @r#"
    error: `precision` cannot be used: `tf32` needs the tensor cores of a GPU: set `device = "cuda"`
      --> recipes/mine.toml:1:1
       |
     1 | precision = "tf32"
       | ^^^^^^^^^
      hint: remove `precision`, or change the keys it conflicts with
    "#);
    let wgpu = |keys: &str| {
        let text = format!("device = \"wgpu\"\n{keys}\n{}", aligned());
        shown(&parse(&text).expect_err("this recipe was taken"))
    };
    insta::assert_snapshot!(wgpu("precision = \"bf16\"\nreplicas = 2"), @r#"
    error: `precision` cannot be used: `wgpu` computes in f32: set `precision = "f32"`
      --> recipes/mine.toml:2:1
       |
     2 | precision = "bf16"
       | ^^^^^^^^^
      also: line 3: `replicas` cannot be used: replicas on GPUs are summed by NCCL, which `wgpu` does not have (remove `replicas`, or change the keys it conflicts with)
      hint: remove `precision`, or change the keys it conflicts with
    "#);
    insta::assert_snapshot!(of("fp16"), @r#"
    error: `precision` must be one of `f32`, `tf32`, `bf16`: `fp16`
      --> recipes/mine.toml:1:13
       |
     1 | precision = "fp16"
       |             ^^^^^^
      hint: `precision`: Type of the inputs of matrix products in layers
    "#);
}

#[test]
fn policy_and_value_model_hold_their_weights_in_one_way() {
    let policy = "policy = { start = \"sft\", lora = { base_dtype = \"bf16\" } }";
    insta::assert_snapshot!(
        refused(
            "policy = { start = \"sft\" }",
            &format!("{policy}\nvalue = {{ start = \"reward\", lora = {{}} }}")
        ),
        @r#"
        error: `value` in [ppo] cannot be used: policy and value model need the same `lora.base_dtype`
          --> recipes/mine.toml:40:1
           |
        40 | value = { start = "reward", lora = {} }
           | ^^^^^
          hint: remove `value`, or change the keys it conflicts with
        "#
    );
    let alone = aligned().replace("policy = { start = \"sft\" }", policy);
    assert!(parse(&alone).is_ok(), "the value model's adapter is made as the policy's");
}

/// PPO on rewards that need no model.
fn with_rewards(rewards: &str) -> String {
    let value = "value = { start = \"sft\" }\n";
    aligned().replace("reward = \"reward\"\n", &format!("{value}rewards = [{rewards}]\n"))
}

#[test]
fn rewards_have_defaults_of_their_own() {
    let text = with_rewards(
        "{ kind = \"number\", answer = \"{answer}\" }, { kind = \"choice\", answer = \"{key}\", extract = \"tag:a\", \
         weight = 2 }, { kind = \"length\", cache_tokens = 4, weight = 0.5 }, \
         { kind = \"model\", start = \"reward\" }",
    );
    let ppo = parse(&text).expect("a recipe").recipe.ppo.expect("the section");
    let [number, choice, length, model] = ppo.rewards.as_slice() else { panic!("four rewards") };
    assert_eq!((number.weight, choice.weight, length.weight), (1.0, 2.0, 0.5));
    let RewardKind::Number(keys) = &number.kind else { panic!("a number") };
    assert_eq!(
        (keys.answer.as_str(), &keys.extract, keys.tolerance),
        ("{answer}", &Extract::Last, 0.0)
    );
    let RewardKind::Choice(keys) = &choice.kind else { panic!("a choice") };
    assert_eq!((&keys.extract, keys.choices.as_str()), (&Extract::Tag("a".to_owned()), "ABCDE"));
    assert_eq!(model.kind.name(), "model");
    let models = ppo.reward_models();
    let [(key, start, weight)] = models.as_slice() else { panic!("{models:?}") };
    assert_eq!((key.as_ref(), *start, *weight), ("rewards[3].start", "reward", 1.0));
    assert_eq!(ppo.value_start(), Some("sft"));
}

#[test]
fn mistakes_in_rewards_are_named() {
    let refused =
        |rewards: &str| shown(&parse(&with_rewards(rewards)).expect_err("this was taken"));
    let both = aligned().replace(
        "reward = \"reward\"\n",
        "reward = \"reward\"\nrewards = [{ kind = \"repetition\", n = 3 }]\n",
    );
    let neither = aligned().replace("reward = \"reward\"\n", "");
    let no_value = aligned()
        .replace("reward = \"reward\"\n", "rewards = [{ kind = \"repetition\", n = 3 }]\n");
    let whole = |text: &str| shown(&parse(text).expect_err("this was taken"));
    let all = [
        whole(&both),
        whole(&neither),
        whole(&no_value),
        refused(""),
        refused("{ answer = \"{a}\" }"),
        refused("{ kind = \"numbr\", answer = \"{a}\" }"),
        refused("{ kind = \"number\" }"),
        refused("{ kind = \"number\", answer = \"{a\" }"),
        refused("{ kind = \"number\", answer = \"{a}\", tolerence = 1 }"),
        refused("{ kind = \"number\", answer = \"{a}\", extract = \"box\" }"),
        refused("{ kind = \"number\", answer = \"{a}\", extract = \"tag:\" }"),
        refused("{ kind = \"number\", answer = \"{a}\", weight = 0 }"),
        refused("{ kind = \"format\", tags = [] }"),
        refused("{ kind = \"choice\", answer = \"{a}\", choices = \"abc\" }"),
        refused("{ kind = \"length\" }"),
        refused("{ kind = \"length\", cache_tokens = 9, max_tokens = 8 }"),
        refused("{ kind = \"length\", cache_tokens = 2, correct = [1.0, 0.5] }"),
        refused("{ kind = \"length\", shape = \"cosine\" }"),
        refused("{ kind = \"json_schema\", schema = \"{}\", extract = \"last\" }"),
        refused("{ kind = \"judge\", start = \"sft\", template = \"Rate it.\" }"),
        refused("{ kind = \"judge\", start = \"sft\", template = \"{completion} {x}\" }"),
        refused("{ kind = \"judge\", start = \"sft\", template = \"{completion} {answer}\" }"),
        refused(
            "{ kind = \"judge\", start = \"sft\", template = \"{completion}\", range = [3, 1] }",
        ),
        refused("{ kind = \"command\", argv = [] }"),
        refused("{ kind = \"command\", argv = [\"x\"], timeout_s = 0 }"),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

/// A key without effect is refused.
#[test]
fn samples_need_prompts_and_a_model_that_writes() {
    let with = |keys: &str| refused("pairs_per_step = 8", &format!("pairs_per_step = 8\n{keys}"));
    let error = with("sample_prompts = [\"Hi\"]");
    assert!(
        error
            .contains("`sample_prompts` in [reward] cannot be used: a reward model writes no text"),
        "{error}"
    );
    let error = with("sample_every_steps = 3");
    assert!(error.contains("a reward model writes no text"), "{error}");
    let of_ppo =
        refused("episodes_per_step = 12", "episodes_per_step = 12\nsample_temperature = 0.5");
    assert!(of_ppo.contains("there are no `sample_prompts`"), "{of_ppo}");
    let keys = "sample_prompts = [\"Hi\"]\nsample_temperature = 0.5\nsample_every_steps = 2";
    let text = aligned().replace("episodes_per_step", &format!("{keys}\nepisodes_per_step"));
    let train = parse(&text).expect("a recipe").recipe.ppo.expect("the section").train;
    assert_eq!((train.sample_max_new_tokens, train.sample_every_steps), (48, Some(2)));
}

/// Scores are 32-bit numbers, and no file has a million million rows.
#[test]
fn weights_that_round_to_nothing_are_refused() {
    let rewards = with_rewards("{ kind = \"number\", answer = \"{a}\", weight = 1e-46 }");
    let error = shown(&parse(&rewards).expect_err("this was taken"));
    assert!(error.contains("`weight`") && error.contains("must not be 0"), "{error}");
    let range =
        "{ kind = \"judge\", start = \"sft\", template = \"{completion}\", range = [0, 1e300] }";
    let error = shown(&parse(&with_rewards(range)).expect_err("this was taken"));
    assert!(error.contains("must be a lower and a higher number"), "{error}");
}
