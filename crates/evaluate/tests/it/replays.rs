//! Replays of the committed reference vectors.

use std::path::Path;

use evaluate::{Outcome, Report, verify};
use serde_json::{Value, json};
use testkit::golden_dir;

fn replay(path: &Path) -> Vec<Report> {
    verify(path, &kernels::device("cpu").unwrap())
}

fn names(report: &Report) -> Vec<&str> {
    report.quantities.iter().map(|quantity| quantity.name.as_str()).collect()
}

/// The only report, which must pass and be of the expected kind; printed to show the differences.
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
    for name in
        ["llama", "llama-gelu", "llama-tied-rope3", "llama-bias-headdim", "llama-mlp-bias", "qwen3"]
    {
        let report = passes(&golden_dir("models").join(name), "causal-lm");
        assert_eq!(names(&report), [&CAUSAL_LM[..], &["legacy_logits"]].concat());
    }
}

/// A model of each kind of decoder; the vocabulary is half of that of the others.
#[test]
fn decoders() {
    for name in ["gemma2", "gemma3-linear", "olmo2", "olmo3", "exaone4", "smollm3", "granite"] {
        let report = passes(&golden_dir("models").join(name), "causal-lm");
        assert_eq!(names(&report), [&CAUSAL_LM[..], &["legacy_logits"]].concat());
    }
}

#[test]
fn decoders_whose_angles_depend_on_the_length_of_a_text() {
    let several = CAUSAL_LM.iter().filter(|name| **name != "cached_several_at_a_time");
    let expected: Vec<&str> =
        several.copied().chain(["crossing_logits", "legacy_logits"]).collect();
    for name in ["phi3-longrope", "llama-dynamic"] {
        let report = passes(&golden_dir("models").join(name), "causal-lm");
        assert_eq!(names(&report), expected);
    }
}

#[test]
fn mixtures_of_experts() {
    let own = ["router_probabilities", "aux_loss", "loss_with_aux", "gradients_aux"];
    let expected = [&CAUSAL_LM[..4], &own[..], &CAUSAL_LM[4..], &["legacy_logits"]].concat();
    for name in ["qwen2_moe", "qwen3_moe-mixed"] {
        let report = passes(&golden_dir("models").join(name), "causal-lm");
        assert_eq!(names(&report), expected);
    }
}

#[test]
fn twenty_steps_of_training() {
    let report = passes(&golden_dir("training/full"), "training-full");
    let averaged = ["averaged_weights_worst", "averaged_weights_99_9_percent"];
    let expected = ["loss", "grad_norm", "lr", "weights_worst", "weights_99_9_percent"];
    assert_eq!(names(&report), [&expected[..], &averaged].concat());
}

/// Optimizers of torch, transformers and PEFT, by the settings.json of their vectors.
#[test]
fn twenty_steps_of_every_optimizer() {
    let expected = ["loss", "grad_norm", "lr", "lr_by_group"];
    for name in ["muon", "muon-original", "adafactor", "adafactor-scaled", "adafactor-momentum"] {
        let report = passes(&golden_dir("training").join(name), "training-full");
        let weights = ["weights_worst", "weights_99_9_percent"];
        assert_eq!(names(&report), [&expected[..], &weights].concat(), "{name}");
    }
    let report = passes(&golden_dir("training/loraplus"), "training-lora");
    let factors = ["factors_worst", "factors_99_9_percent", "frozen_weights"];
    assert_eq!(names(&report), [&expected[..], &factors].concat());
}

/// Other settings than the reference's fail, and unknown settings are refused.
#[test]
fn settings_of_a_reference_are_used() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("muon");
    copy_dir(&golden_dir("training/muon"), &dir);
    let file = dir.join("settings.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"nesterov\": true"));
    let with = |from: &str, to: &str| {
        fsio::write_atomic(&file, text.replace(from, to)).unwrap();
        replay(&dir).remove(0)
    };
    let report = with("\"nesterov\": true", "\"nesterov\": false");
    assert!(report.error.is_none() && !report.passed());
    let report = with("\"nesterov\"", "\"nestorov\"");
    assert!(report.error.unwrap().contains("unknown field `nestorov`"));
}

fn copy_dir(from: &Path, to: &Path) {
    fsio::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fsio::write_atomic(&target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[test]
fn sampling_distributions() {
    let report = passes(&golden_dir("sampling.safetensors"), "sampling");
    assert_eq!(report.quantities.len(), 6);
    assert!(report.quantities.iter().all(|quantity| quantity.n_compared == 200));
}

#[test]
fn a_directory_of_references_gives_a_report_for_each() {
    let reports = replay(&golden_dir(""));
    let kinds: Vec<&str> = reports.iter().map(|report| report.kind.as_str()).collect();
    let adapters = [["adapter"; 9].as_slice(), &["adapter-init", "adapter"]].concat();
    let lm = "causal-lm";
    // llama-bf16-sharded is the seventh, after exaone4, gemma2, gemma3-linear, gpt2, granite and llama.
    let models = [[lm; 6].as_slice(), &["causal-lm-widened"], &[lm; 12]].concat();
    let packed = ["packed-blocks", "packed-layer", "packed-lm"];
    let blocks = "gguf-blocks";
    let others = [
        "grpo",
        "grpo",
        "grpo-losses",
        "rloo",
        "ppo",
        "ppo",
        "preference",
        "answer-losses",
        "distillation",
        "distillation",
        "pair-losses",
        "unpaired-losses",
        packed[0],
        blocks,
        blocks,
        packed[1],
        packed[2],
        packed[2],
        "reward",
        "reward",
        "sampling",
    ];
    // adafactor, -momentum, -scaled; dora; full; lora, loraplus; muon, -original.
    let (full, lora) = ("training-full", "training-lora");
    let training = [full, full, full, lora, full, lora, lora, full, full];
    assert_eq!(kinds, [&adapters[..], &models, &others, &training].concat());
    assert!(reports.iter().all(Report::passed));
}

/// GPT-2 has no legacy config.json, and the bf16 reference has only logits.
#[test]
fn gpt2_and_bf16_shards() {
    let report = passes(&golden_dir("models/gpt2"), "causal-lm");
    assert_eq!(names(&report), CAUSAL_LM);
    let report = passes(&golden_dir("models/llama-bf16-sharded"), "causal-lm-widened");
    assert_eq!(names(&report), ["logits"]);
}

#[test]
fn twenty_steps_of_an_adapter() {
    for name in ["training/lora", "training/dora"] {
        let report = passes(&golden_dir(name), "training-lora");
        let steps = ["loss", "grad_norm", "lr", "factors_worst", "factors_99_9_percent"];
        let averaged = ["averaged_factors_worst", "averaged_factors_99_9_percent"];
        let averaged = if name == "training/lora" { &averaged[..] } else { &[] };
        assert_eq!(names(&report), [&steps[..], averaged, &["frozen_weights"]].concat());
    }
}

#[test]
fn adapters_as_peft_reads_and_merges_them() {
    let expected = ["logits", "merged_weights", "merged_logits"];
    for name in ["lora", "rslora", "regex", "dora", "patterns"] {
        assert_eq!(names(&passes(&golden_dir("adapters").join(name), "adapter")), expected);
    }
    for name in ["bias_all", "embedding", "gpt2_conv1d_dora", "lora_bias", "tokens_tied"] {
        assert_eq!(names(&passes(&golden_dir("adapters2").join(name), "adapter")), expected);
    }
}

#[test]
fn packed_weights() {
    let report = passes(&golden_dir("quant/blocks.safetensors"), "packed-blocks");
    assert_eq!(names(&report), ["dequantised", "quantised"]);
    let report = passes(&golden_dir("quant/gguf.safetensors"), "gguf-blocks");
    assert_eq!(names(&report), ["dequantised", "bytes"]);
    let report = passes(&golden_dir("quant/ggml.safetensors"), "gguf-blocks");
    assert_eq!(names(&report), ["bytes"]);
    let report = passes(&golden_dir("quant/linear.safetensors"), "packed-layer");
    assert_eq!(names(&report), ["y", "grad_x", "grad_lora_A", "grad_lora_B"]);
    let report = passes(&golden_dir("quant/llama-nf4_double"), "packed-lm");
    let qlora = ["qlora.logits", "qlora.loss", "qlora.gradients", "qlora.merged_logits"];
    assert_eq!(names(&report), [&["logits"][..], &qlora].concat());
    let report = passes(&golden_dir("quant/llama-int8"), "packed-lm");
    assert_eq!(names(&report), ["training_logits", "logits"]);
}

/// Numbers that differ are not a refusal, and neither is a reference that must be refused.
#[test]
fn outcomes_of_replays() {
    let work = tempfile::tempdir().unwrap();
    let refused = work.path().join("refuse-ia3");
    copy_dir(&golden_dir("adapters/lora"), &refused);
    let config = refused.join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let reports = replay(work.path());
    assert_eq!(reports[0].outcome(), Outcome::Wrong, "{}", reports[0].to_json());
    fsio::write_atomic(&config, text.replace("\"LORA\"", "\"IA3\"")).unwrap();
    let report = passes(work.path(), "refusal");
    assert!(report.quantities[0].at.as_ref().unwrap().contains("not supported: `peft_type`"));

    let other = work.path().join("lora");
    copy_dir(&golden_dir("adapters/base"), &work.path().join("base"));
    copy_dir(&golden_dir("adapters/lora"), &other);
    assert_eq!(replay(&other)[0].outcome(), Outcome::Passed);
    fsio::write_atomic(other.join("adapter_config.json"), text.replace("\"LORA\"", "\"IA3\""))
        .unwrap();
    assert_eq!(replay(&other)[0].outcome(), Outcome::Refused);
}

#[test]
fn starting_values_of_pissa() {
    let report = passes(&golden_dir("adapters2/pissa"), "adapter-init");
    assert_eq!(names(&report), ["logits", "loaded_logits", "factors", "residuals"]);
}

/// Every reference outside of the repository; together they are too large for it.
#[test]
fn references_where_they_are() {
    let data = std::env::var_os("TEMPER_DATA").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).to_owned(),
        Into::into,
    );
    let golden = data.with_file_name("golden");
    if !golden.is_dir() {
        println!("skipped: no reference vectors at {}", golden.display());
        return;
    }
    for (name, least) in [
        ("models", 22),
        ("reward", 2),
        ("training", 10),
        ("adapters", 6),
        ("adapters2", 13),
        ("quant", 5),
        ("online", 4),
        ("ppo", 2),
        ("preference.safetensors", 1),
        ("preference2", 4),
        ("sampling.safetensors", 1),
    ] {
        let reports = replay(&golden.join(name));
        for report in &reports {
            println!("{}", report.to_json());
            assert!(report.passed(), "{}", report.to_json());
        }
        assert!(reports.len() >= least, "{name}: {} references", reports.len());
    }
}

/// Settings of PEFT that were refused once; they are outside of the repository, and without weights.
#[test]
fn settings_of_peft_where_they_are() {
    let data = std::env::var_os("TEMPER_DATA").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).to_owned(),
        Into::into,
    );
    let refused = data.with_file_name("field").join("turn2-interop/peft-refused");
    let Ok(entries) = std::fs::read_dir(&refused) else {
        println!("skipped: no settings at {}", refused.display());
        return;
    };
    let base = arch::ModelInfo::read(&golden_dir("adapters/base")).unwrap().config;
    let mut n = 0;
    for dir in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let peft = lora::Peft::read(&dir).unwrap();
        assert!(peft.lora.layout(&base).is_ok(), "{}", dir.display());
        n += 1;
    }
    assert!(n >= 12, "{n} directories");
}

#[test]
fn unsupported_adapters_are_refused_by_key() {
    let golden = golden_dir("adapters/lora");
    let read = |name: &str| std::fs::read(golden.join(name)).unwrap();
    for (key, value) in [
        ("use_qalora", json!(true)),
        ("target_parameters", json!(["mlp.experts"])),
        ("peft_type", json!("IA3")),
    ] {
        let place = tempfile::tempdir().unwrap();
        copy_dir(&golden_dir("adapters/base"), &place.path().join("base"));
        let adapter = place.path().join("adapter");
        fsio::create_dir_all(&adapter).unwrap();
        for file in ["adapter_model.safetensors", "io.safetensors", "merged.safetensors"] {
            fsio::write_atomic(adapter.join(file), read(file)).unwrap();
        }
        let mut config: Value = serde_json::from_slice(&read("adapter_config.json")).unwrap();
        config[key] = value;
        fsio::write_atomic(adapter.join("adapter_config.json"), config.to_string()).unwrap();
        let reports = replay(&adapter);
        let error = reports[0].error.clone().unwrap();
        assert!(error.contains(&format!("not supported: `{key}`")), "{error}");
    }
}

#[test]
fn scores_losses_and_gradients_of_a_reward_model() {
    let expected = ["scores", "loss", "loss_with_margin", "loss_centered", "gradients"];
    for family in ["llama", "qwen3"] {
        let report = passes(&golden_dir("reward").join(family), "reward");
        assert_eq!(names(&report), expected);
    }
}

#[test]
fn losses_over_preferences() {
    let report = passes(&golden_dir("preference.safetensors"), "preference");
    assert_eq!(report.quantities.len(), 6);
    assert!(report.quantities.iter().all(|quantity| quantity.n_compared == 4));
}

/// Every loss, divergence and weighting of TRL's DPO trainer with its gradients, and CPO, SimPO and ORPO over whole answers.
#[test]
fn losses_of_preference_trainers() {
    let report = passes(&golden_dir("preference2/dpo.safetensors"), "pair-losses");
    assert_eq!(names(&report), ["rows", "means", "gradients"]);
    let counts: Vec<usize> = report.quantities.iter().map(|q| q.n_compared).collect();
    // 24 cases of 8 × 11 × 16 logits; those with the likelihood of the chosen answers have no rows.
    assert_eq!(counts, [22 * 4, 24, 24 * 8 * 11 * 16]);
    let report = passes(&golden_dir("preference2/cpo_orpo_bco.safetensors"), "answer-losses");
    assert_eq!(names(&report), ["cpo.sigmoid", "cpo.sigmoid_smoothed", "cpo.simpo", "orpo.losses"]);
    assert!(report.quantities.iter().all(|quantity| quantity.n_compared == 4));
    // KTO and APO-zero, each with a positive and a negative estimate of the divergence, on 8 answers.
    let report = passes(&golden_dir("preference2/kto.safetensors"), "unpaired-losses");
    assert_eq!(names(&report), ["rows", "means", "metrics", "gradients"]);
    let counts: Vec<usize> = report.quantities.iter().map(|q| q.n_compared).collect();
    assert_eq!(counts, [4 * 8, 4, 4 * 5, 4 * 8 * 11 * 16]);
}

/// Forward, reverse and generalized Jensen–Shannon divergence at three temperatures, by TRL's GKD trainer.
#[test]
fn divergences_of_distillation() {
    let report = passes(&golden_dir("preference2/distillation.safetensors"), "distillation");
    assert_eq!(names(&report), ["values", "means", "gradients"]);
    let counts: Vec<usize> = report.quantities.iter().map(|q| q.n_compared).collect();
    assert_eq!(counts, [15 * 21, 15, 10 * 21 * 24]);
}

/// The same over the teacher's 1, 4 or 16 most probable tokens with a tail bucket, by TRL's asynchronous distillation trainer.
#[test]
fn divergences_over_the_top_tokens() {
    let report = passes(&golden_dir("preference2/distillation_top_k.safetensors"), "distillation");
    assert_eq!(names(&report), ["values", "means", "gradients"]);
    let counts: Vec<usize> = report.quantities.iter().map(|q| q.n_compared).collect();
    assert_eq!(counts, [3 * 15 * 21, 3 * 15, 3 * 6 * 21 * 24]);
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
    for case in ["ppo/k1", "ppo/k3_whiten"] {
        assert_eq!(names(&passes(&golden_dir(case), "ppo")), expected);
    }
}

/// One generation of GRPO and RLOO: every optimizer step on it, and the weights after them.
#[test]
fn whole_updates_of_grpo_and_rloo() {
    let after =
        ["metrics", "policy_after_99_9_percent", "policy_after_worst", "reference_unchanged"];
    let scored = |reference: &[&'static str]| {
        [&["old_per_token_logps"][..], reference, &["advantages"], &after].concat()
    };
    let both = scored(&["ref_per_token_logps"]);
    assert_eq!(names(&passes(&golden_dir("online/dapo"), "grpo")), both);
    assert_eq!(names(&passes(&golden_dir("online/grpo_masked"), "grpo")), scored(&[]));
    let report = passes(&golden_dir("online/rloo"), "rloo");
    assert_eq!(names(&report), both);
    // Four optimizer steps; the metrics of completions and rewards are in the first.
    let metrics = report.quantities.iter().find(|quantity| quantity.name == "metrics").unwrap();
    assert_eq!(metrics.n_compared, 23 + 3 * 8);
}

#[test]
fn losses_and_advantages_of_grpo() {
    let report = passes(&golden_dir("online/losses"), "grpo-losses");
    assert_eq!(names(&report), ["losses", "gradients", "metrics", "advantages"]);
    let counts: Vec<usize> = report.quantities.iter().map(|quantity| quantity.n_compared).collect();
    // 31 cases of 16 completions of up to 12 tokens; advantages under four settings, with and without missing rewards.
    assert_eq!([counts[0], counts[1], counts[3]], [31, 31 * 16 * 12, 8 * 16]);
}
