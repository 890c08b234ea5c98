//! Replays of the reference vectors: those in the repository, and all others where they are.

use std::path::Path;

use evaluate::{Report, verify};
use testkit::{golden_dir, shared_golden_dir};

fn replay(path: &Path) -> Vec<Report> {
    verify(path, &kernels::device("cpu").unwrap())
}

fn names(report: &Report) -> Vec<&str> {
    report.quantities.iter().map(|quantity| quantity.name.as_str()).collect()
}

/// One report, within tolerance, of the expected kind; prints it, so that differences can be read.
fn passes(path: &Path, kind: &str) -> Report {
    let mut reports = replay(path);
    assert_eq!(reports.len(), 1, "{}", path.display());
    let report = reports.remove(0);
    println!("{}", report.to_json());
    assert!(report.passed(), "{}", report.to_json());
    assert_eq!(report.kind, kind);
    report
}

const CAUSAL_LM: [&str; 11] = [
    "hidden_states",
    "logits",
    "loss",
    "gradients",
    "greedy_ids",
    "greedy_logits",
    "left_padded_ids",
    "left_padded_logits",
    "long_logits",
    "cached_one_at_a_time",
    "cached_several_at_a_time",
];

#[test]
fn language_models() {
    for name in ["llama", "llama-tied-rope3", "llama-bias-headdim"] {
        let report = passes(&golden_dir("models").join(name), "causal-lm");
        assert_eq!(names(&report), [&CAUSAL_LM[..], &["legacy_logits"]].concat());
    }
}

#[test]
fn twenty_steps_of_training() {
    let report = passes(&golden_dir("training/full"), "training-full");
    let expected = ["loss", "grad_norm", "lr", "weights_worst", "weights_99_9_percent"];
    assert_eq!(names(&report), expected);
}

#[test]
fn sampling_distributions() {
    let report = passes(&golden_dir("sampling.safetensors"), "sampling");
    assert_eq!(report.quantities.len(), 6);
    assert!(report.quantities.iter().all(|quantity| quantity.n_compared == 200));
}

#[test]
fn a_folder_of_folders_gives_a_report_for_each() {
    let reports = replay(&golden_dir(""));
    let kinds: Vec<&str> = reports.iter().map(|report| report.kind.as_str()).collect();
    let models = ["causal-lm", "causal-lm", "causal-lm"];
    let others = ["ppo", "preference", "reward", "sampling", "training-full", "training-lora"];
    assert_eq!(kinds, [&["adapter"][..], &models, &others].concat());
    assert!(reports.iter().all(Report::passed));
}

/// What the repository has no copy of: gpt2 has no older spelling, bf16 weights have logits only.
#[test]
fn further_models_of_the_reference() {
    let Some(models) = shared_golden_dir("models") else {
        println!("skipped: no reference vectors beside the repository");
        return;
    };
    let report = passes(&models.join("gpt2"), "causal-lm");
    assert_eq!(names(&report), CAUSAL_LM);
    passes(&models.join("llama-mlp-bias"), "causal-lm");
    let report = passes(&models.join("llama-bf16-sharded"), "causal-lm-widened");
    assert_eq!(names(&report), ["logits"]);
}

#[test]
fn twenty_steps_of_an_adapter() {
    let report = passes(&golden_dir("training/lora"), "training-lora");
    let expected =
        ["loss", "grad_norm", "lr", "factors_worst", "factors_99_9_percent", "frozen_weights"];
    assert_eq!(names(&report), expected);
}

#[test]
fn adapters_as_peft_reads_and_merges_them() {
    let expected = ["logits", "merged_weights", "merged_logits"];
    assert_eq!(names(&passes(&golden_dir("adapters/lora"), "adapter")), expected);
    let Some(adapters) = shared_golden_dir("adapters") else {
        println!("skipped: no reference vectors beside the repository");
        return;
    };
    for name in ["rslora", "regex"] {
        assert_eq!(names(&passes(&adapters.join(name), "adapter")), expected);
    }
    // What is not supported is refused by the name of its key.
    for (name, key) in [
        ("dora", "use_dora"),
        ("patterns", "alpha_pattern"),
        ("modules_to_save", "modules_to_save"),
    ] {
        let reports = replay(&adapters.join(name));
        let error = reports[0].error.clone().unwrap();
        assert!(error.contains(&format!("not supported: `{key}`")), "{error}");
    }
}

#[test]
fn scores_losses_and_gradients_of_a_reward_model() {
    let report = passes(&golden_dir("reward/llama"), "reward");
    let expected = ["scores", "loss", "loss_with_margin", "loss_centered", "gradients"];
    assert_eq!(names(&report), expected);
}

#[test]
fn losses_over_preferences() {
    let report = passes(&golden_dir("preference.safetensors"), "preference");
    assert_eq!(report.quantities.len(), 6);
    assert!(report.quantities.iter().all(|quantity| quantity.n_compared == 4));
}

#[test]
fn whole_updates_of_ppo() {
    let expected = [
        "logprobs",
        "ref_logprobs",
        "kl",
        "values",
        "rewards",
        "advantages_before_whitening",
        "advantages",
        "returns",
        "scores",
        "sequence_lengths",
        "metrics",
        "policy_after_99_9_percent",
        "value_after_99_9_percent",
        "policy_after_worst",
        "value_after_worst",
        "reference_unchanged",
    ];
    let report = passes(&golden_dir("ppo/k1"), "ppo");
    assert_eq!(names(&report), expected);
    let Some(update) = shared_golden_dir("ppo/k3_whiten") else {
        println!("skipped: no reference vectors beside the repository");
        return;
    };
    // Where a gradient is rounding alone, AdamW's first steps follow its sign, which other processors' sums turn: single
    // weights may lie further off there than `temper verify` allows here.
    let mut reports = replay(&update);
    let report = reports.remove(0);
    println!("{}", report.to_json());
    assert_eq!(names(&report), expected);
    for quantity in &report.quantities {
        let is_worst = quantity.name.ends_with("_worst");
        let near = is_worst && quantity.largest_difference <= 5.0 * quantity.tolerance;
        assert!(near || quantity.passed(), "{}", quantity.name);
    }
}
