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
    assert_eq!((all.n_layers, all.n_parameters), (14, 2 * 16 * (4 * 32 + 3 * 48)));
    assert_eq!(all.adapter, None);
    let two = planned(&with_lora("{ rank = 3, target_modules = [\"q_proj\", \"mlp.down_proj\"] }"));
    assert_eq!((two.n_layers, two.n_parameters, two.config.alpha), (4, 2 * 3 * (32 + 48), 6.0));
    let one = planned(&with_lora("{ rank = 1, target_pattern = '.*\\.1\\..*(q|k)_proj' }"));
    assert_eq!((one.n_layers, one.n_parameters), (2, 2 * 32));
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
    assert_eq!((all.n_layers, all.n_parameters), (12, 3 * 2 * (64 + 32 + 80 + 80)));
    let both = planned(&gpt2("{ rank = 2, target_modules = [\"c_proj\"] }"));
    assert_eq!((both.n_layers, both.n_parameters), (6, 3 * 2 * (32 + 80)));
    let one = planned(&gpt2("{ rank = 2, target_modules = [\"attn.c_proj\"] }"));
    assert_eq!((one.n_layers, one.n_parameters), (3, 3 * 2 * 32));
}

#[test]
fn only_the_adapter_is_trained() {
    let dir = folder(&with_lora("{ rank = 2 }"));
    let plan = plan_in(dir.path(), &[], Some("sft")).expect("a plan");
    let stage = &plan.stages[0];
    assert_eq!(stage.cost.n_trained, stage.lora.as_ref().expect("an adapter").n_parameters);
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

/// peft#2018, transformers#45127: a merged adapter on a tied matrix makes a model that repeats one token.
#[test]
fn a_tied_matrix_carries_no_adapter() {
    for module in ["embed_tokens", "lm_head"] {
        let text = refused(&with_lora(&format!("{{ target_modules = [\"{module}\"] }}")));
        assert!(text.to_string().contains("shared by embedding and output layer"), "{text}");
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
