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
    assert_eq!(kinds, ["causal-lm", "causal-lm", "causal-lm", "sampling", "training-full"]);
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
fn kinds_without_a_replay_say_so() {
    let Some(golden) = shared_golden_dir("") else {
        println!("skipped: no reference vectors beside the repository");
        return;
    };
    for (path, kind) in [
        ("reward/llama", "reward"),
        ("adapters/lora", "adapter"),
        ("training/lora", "training-lora"),
        ("ppo/k1", "ppo"),
        ("preference.safetensors", "preference"),
    ] {
        let reports = replay(&golden.join(path));
        assert_eq!(reports.len(), 1, "{path}");
        assert!(!reports[0].passed());
        let error = reports[0].error.clone().unwrap();
        let expected = format!("no replay is known for reference vectors of this kind: `{kind}`");
        assert!(error.ends_with(&expected), "{error}");
        assert!(reports[0].hint.is_some());
    }
}
