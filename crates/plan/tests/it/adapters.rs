//! Adapters in a plan: numbers of layers and parameters, merging, and errors.

use plan::{Error, LoraPlan, Start};

use crate::support::{RECIPE, folder, plan_in};

/// The small recipe with this `lora` in its second stage.
fn with_lora(keys: &str) -> String {
    RECIPE.replace("start = \"pretrain\"", &format!("start = \"pretrain\"\nlora = {keys}"))
}

fn planned(recipe: &str) -> LoraPlan {
    let dir = folder(recipe);
    let mut plan = plan_in(dir.path(), &[], Some("sft")).expect("a plan");
    plan.stages.remove(0).lora.expect("an adapter")
}

fn refused(recipe: &str) -> Error {
    let dir = folder(recipe);
    plan_in(dir.path(), &[], None).expect_err("this recipe was taken")
}

/// Widths of a block: q, k, v, o 16 → 16; gate, up 16 → 32; down 32 → 16.
#[test]
fn counts_of_a_llama_are_those_of_the_formula() {
    let all = planned(&with_lora("{}"));
    assert_eq!((all.config.rank, all.config.alpha, all.config.dropout), (16, 32.0, 0.0));
    assert_eq!((all.layout.layers.len(), all.layout.n_trained()), (14, 2 * 16 * (4 * 32 + 3 * 48)));
    assert_eq!(all.adapter, None);
    let two = planned(&with_lora("{ rank = 3, target_modules = [\"q_proj\", \"mlp.down_proj\"] }"));
    assert_eq!(
        (two.layout.layers.len(), two.layout.n_trained(), two.config.alpha),
        (4, 2 * 3 * (32 + 48), 6.0)
    );
    let one = planned(&with_lora("{ rank = 1, target_pattern = '.*\\.1\\..*(q|k)_proj' }"));
    assert_eq!((one.layout.layers.len(), one.layout.n_trained()), (2, 2 * 32));
    let named = planned(&with_lora("{ target_modules = [\"all-linear\"] }"));
    assert_eq!(named, all);
}

/// Widths of a block: c_attn 16 → 48, attn.c_proj 16 → 16, c_fc 16 → 64, mlp.c_proj 64 → 16.
#[test]
fn counts_of_a_gpt2_are_those_of_the_formula() {
    let from = RECIPE.find("family").expect("the model");
    let to = RECIPE.find("[pretrain]").expect("the first stage");
    let model = "family = \"gpt2\"\nn_embd = 16\nn_layer = 3\nn_head = 2\n\n";
    let gpt2 = |keys: &str| with_lora(keys).replace(&RECIPE[from..to], model);
    let all = planned(&gpt2("{ rank = 2 }"));
    assert_eq!(
        (all.layout.layers.len(), all.layout.n_trained()),
        (12, 3 * 2 * (64 + 32 + 80 + 80))
    );
    let both = planned(&gpt2("{ rank = 2, target_modules = [\"c_proj\"] }"));
    assert_eq!((both.layout.layers.len(), both.layout.n_trained()), (6, 3 * 2 * (32 + 80)));
    let one = planned(&gpt2("{ rank = 2, target_modules = [\"attn.c_proj\"] }"));
    assert_eq!((one.layout.layers.len(), one.layout.n_trained()), (3, 3 * 2 * 32));
}

#[test]
fn only_the_adapter_is_trained() {
    let dir = folder(&with_lora("{ rank = 2 }"));
    let plan = plan_in(dir.path(), &[], Some("sft")).expect("a plan");
    let stage = &plan.stages[0];
    assert_eq!(stage.cost.n_trained, stage.lora.as_ref().expect("an adapter").layout.n_trained());
    assert!(stage.cost.n_trained < stage.cost.n_parameters);
}

/// An adapter on a target that is not a layer would do nothing (peft PR #2084, peft#2699).
#[test]
fn targets_that_are_no_layers_stop_the_plan_at_their_line() {
    let line = with_lora("x").lines().position(|line| line == "lora = x").expect("a line") + 1;
    for (keys, wanted) in [
        ("{ target_modules = [\"q_proj\", \"query\"] }", "matches no layer of the model: `query`"),
        ("{ target_modules = [\"proj\"] }", "matches no layer of the model: `proj`"),
        (
            "{ target_modules = [\"norm\"] }",
            "matches a module that cannot have an adapter: `model.norm`",
        ),
        ("{ target_pattern = 'q_proj' }", "matches no layer of the model: `q_proj`"),
        ("{ target_pattern = '(' }", "is not a supported regular expression: `(`"),
    ] {
        let error = refused(&with_lora(keys));
        let text = error.to_string();
        assert!(text.contains(wanted), "{keys}: {text}");
        assert!(text.contains(&format!("r.toml:{line}:")), "{keys}: {text}");
        assert!(error.hint().is_some(), "{keys}");
    }
}

/// peft#2018, transformers#45127: an adapter on one use of a tied matrix that is merged into both ends in a model that
/// repeats one token. Here the two uses are two weights from then on.
#[test]
fn an_adapter_on_a_tied_matrix_unties_it() {
    let untied = |keys: &str| with_lora(keys).replace("embeddings = true", "embeddings = false");
    for module in ["embed_tokens", "lm_head"] {
        let keys = format!("{{ rank = 2, target_modules = [\"{module}\"] }}");
        assert!(planned(&with_lora(&keys)).layout.unties, "{module}");
        assert!(!planned(&untied(&keys)).layout.unties, "{module}");
        // The next stage merges it.
        let reward =
            behind_an_adapter("").replace("lora = { rank = 2 }", &format!("lora = {keys}"));
        let dir = folder(&reward);
        let plan = plan_in(dir.path(), &[], None).expect("a plan");
        let tied: Vec<bool> = plan.stages.iter().map(|stage| stage.config.tied()).collect();
        assert_eq!(tied, [true, true, false], "{module}");
    }
}

#[test]
fn what_is_trained_besides_the_factors_is_counted() {
    let counts = |keys: &str| {
        let lora = planned(&with_lora(keys));
        (lora.layout.layers.len(), lora.layout.n_added(), lora.layout.n_trained())
    };
    let q = "rank = 2, target_modules = [\"q_proj\"]";
    assert_eq!(counts(&format!("{{ {q} }}")), (2, 2 * 2 * 32, 2 * 2 * 32));
    assert_eq!(counts(&format!("{{ {q}, use_dora = true }}")), (2, 160, 160));
    assert_eq!(counts(&format!("{{ {q}, layers_to_transform = [1] }}")), (1, 64, 64));
    assert_eq!(counts(&format!("{{ {q}, rank_pattern = {{ q_proj = 3 }} }}")), (2, 192, 192));
    assert_eq!(counts(&format!("{{ {q}, trainable_token_indices = [3, 4] }}")), (2, 160, 160));
    let saved = counts(&format!("{{ {q}, modules_to_save = [\"input_layernorm\"] }}"));
    assert_eq!(saved, (2, 128, 160));
    assert_eq!(counts("{ rank = 2, exclude_modules = [\"mlp.up_proj\"] }").0, 12);
}

#[test]
fn settings_without_effect_stop_the_plan_at_their_key() {
    let q = "rank = 2, target_modules = [\"q_proj\"]";
    for (key, value, wanted) in [
        ("rank_pattern", "{ c_attn = 2 }", "rank_pattern matches nothing: `c_attn`"),
        ("alpha_pattern", "{ k_proj = 2.0 }", "alpha_pattern matches nothing: `k_proj`"),
        ("rank_pattern", "{ q_proj = 0 }", "`rank_pattern` must be 1 to 4096: `0`"),
        ("layers_to_transform", "[0, 9]", "layers_to_transform matches nothing: `9`"),
        ("modules_to_save", "[\"wte\"]", "modules_to_save matches nothing: `wte`"),
        ("trainable_token_indices", "[99999]", "must be ids of the vocabulary: `99999`"),
        ("init", "\"pissa\", exclude_modules = [\"q_proj\"]", "matches no layer of the model"),
    ] {
        let text = refused(&with_lora(&format!("{{ {q}, {key} = {value} }}"))).to_string();
        assert!(text.contains(wanted), "{key}: {text}");
    }
}

/// The small recipe with a third stage that starts from an adapter.
fn behind_an_adapter(keys: &str) -> String {
    let reward = "[reward]\nstart = \"sft\"\ndata = [{ path = \"pairs.jsonl\" }]\nsequence_length = 64\n\
                  pairs_per_step = 4\nmax_steps = 3\noptimizer = { lr = 1e-3 }\n";
    format!("{}\n{reward}{keys}", with_lora("{ rank = 2 }"))
}

#[test]
fn a_stage_behind_an_adapter_merges_it_or_goes_on_with_it() {
    for (keys, merges, adapter) in [
        ("", true, None),
        ("lora = { rank = 3 }\n", true, None),
        ("lora = { adapter = \"sft\" }\n", false, Some(Start::Stage("sft".to_owned()))),
    ] {
        let dir = folder(&behind_an_adapter(keys));
        let plan = plan_in(dir.path(), &[], Some("reward")).expect("a plan");
        let stage = &plan.stages[0];
        assert_eq!(stage.start, Start::Stage("sft".to_owned()));
        assert_eq!(stage.merges_start, merges, "{keys}");
        let planned = stage.lora.as_ref().and_then(|lora| lora.adapter.clone());
        assert_eq!(planned, adapter, "{keys}");
        // A continued adapter keeps its configuration.
        let rank = stage.lora.as_ref().map(|lora| lora.config.rank);
        assert_eq!(rank.filter(|_| adapter.is_some()), adapter.as_ref().map(|_| 2));
    }
    let error = refused(&behind_an_adapter("lora = { adapter = \"pretrain\" }\n"));
    let text = error.to_string();
    assert!(text.contains("[pretrain] trains all weights") && text.contains("r.toml:"), "{text}");
}
