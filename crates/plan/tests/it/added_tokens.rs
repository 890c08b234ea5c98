//! Tokens that stages add: notes, rows that an adapter leaves untrained, and what is refused.

use crate::support::{RECIPE, folder, plan_in};

const DPO: &str = "\n[dpo]\nstart = \"sft\"\ndata = [{ path = \"pairs.jsonl\" }]\n\
    sequence_length = 64\npairs_per_step = 2\nmax_steps = 2\noptimizer = { lr = 1e-3 }\n";

fn recipe(tied: bool) -> String {
    let tie = format!("tie_word_embeddings = {tied}");
    RECIPE.replace("tie_word_embeddings = true", &tie) + DPO + &DPO.replace("dpo", "reward")
}

const ADDED: [(&str, &str); 2] = [
    ("dpo.add_special_tokens", "[\"<|eot|>\"]"),
    ("reward.add_tokens", "[\"<think>\", \"</think>\"]"),
];

#[test]
fn stages_on_pairs_add_tokens() {
    let dir = folder(&recipe(true));
    let plan = plan_in(dir.path(), &ADDED, None).expect("a plan");
    let [_, sft, reward, dpo] = plan.stages.as_slice() else { panic!("four stages") };
    let n = sft.tokenizer.vocab_size();
    assert_eq!(sft.config.vocab_size(), n);
    for (stage, n_new) in [(dpo, 1), (reward, 2)] {
        assert_eq!(stage.config.vocab_size(), n + n_new, "{}", stage.name);
        assert!(stage.grows_vocabulary, "{}", stage.name);
        let grow = format!("the embeddings grow from {n} to {} rows", n + n_new);
        assert!(stage.notes.iter().any(|note| note.contains(&grow)), "{:?}", stage.notes);
        assert!(stage.warnings.is_empty(), "all weights are trained: {:?}", stage.warnings);
    }
    assert_eq!(dpo.tokenizer.token_id("<|eot|>"), Some(n as u32));
    assert!(dpo.tokenizer.is_special(n as u32) && !reward.tokenizer.is_special(n as u32));
}

/// The plan names the key that trains new rows, for the embeddings and for an output layer of its own; no warning is left
/// once the keys are there.
#[test]
fn an_adapter_that_leaves_new_rows_as_they_are_is_told() {
    for tied in [true, false] {
        let dir = folder(&recipe(tied));
        let n = plan_in(dir.path(), &[], None).expect("a plan").stages[0].tokenizer.vocab_size();
        let warnings = |stage: &str, lora: &str| {
            let key = format!("{stage}.lora");
            let plan = plan_in(dir.path(), &[ADDED[0], ADDED[1], (&key, lora)], None);
            let plan = plan.expect("a plan");
            plan.stages.iter().find(|s| s.name == stage).expect("the stage").warnings.join("\n")
        };
        let rows = format!("trainable_token_indices = [{n}]");
        let plain = warnings("dpo", "{ rank = 2 }");
        assert!(plain.contains(&format!("add `{rows}` to `lora`")), "{plain}");
        assert_eq!(plain.contains("modules_to_save = [\"lm_head\"]"), !tied, "{plain}");
        let mended = if tied {
            warnings("dpo", &format!("{{ rank = 2, {rows} }}"))
        } else {
            warnings("dpo", &format!("{{ rank = 2, {rows}, modules_to_save = [\"lm_head\"] }}"))
        };
        assert_eq!(mended, "");
        let whole = "{ rank = 2, modules_to_save = [\"embed_tokens\", \"lm_head\"] }";
        assert_eq!(warnings("dpo", whole), "");
        let factors = "{ rank = 2, target_modules = [\"embed_tokens\", \"lm_head\"] }";
        if !tied {
            assert_eq!(warnings("dpo", factors), "");
        }
        // A reward model has no output layer.
        let reward = warnings("reward", "{ rank = 2 }");
        assert!(
            reward.contains(&format!("trainable_token_indices = [{n}, {}]", n + 1)),
            "{reward}"
        );
        assert!(!reward.contains("lm_head"), "{reward}");
        // One of two rows is not enough.
        let one = warnings("reward", &format!("{{ rank = 2, {rows} }}"));
        assert!(one.contains("does not train the embeddings"), "{one}");
    }
}

#[test]
fn an_adapter_is_not_continued_on_a_base_that_grows() {
    let dir = folder(&recipe(true));
    let set = [ADDED[0], ("sft.lora", "{ rank = 2 }"), ("dpo.lora", "{ adapter = \"sft\" }")];
    let error = plan_in(dir.path(), &set, None).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("cannot be continued on a base model that gets rows"), "{text}");
    // Without `adapter`, the earlier adapter is merged first.
    let set = [ADDED[0], ("sft.lora", "{ rank = 2 }"), ("dpo.lora", "{ rank = 2 }")];
    let plan = plan_in(dir.path(), &set, None).expect("a plan");
    let dpo = plan.stages.iter().find(|stage| stage.name == "dpo").expect("the stage");
    assert!(dpo.merges_start && dpo.grows_vocabulary);
}
