//! Properties of every kind of optimizer: state through a file, its size, learning, threads, clipping, groups.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use model::CausalLm;
use recipe::{Optimizer as Settings, OptimizerGroup};
use serde_json::json;
use testkit::values;
use train::{Error, Gradients, OPTIMIZER_FILE, Optimizer, ParameterNames};

use super::toy::{
    Pair, bits, device, gradients_of, model_of_width, optimizer, place, tiny_model, update,
};

/// Large enough for 8-bit moments, with some tensors below their smallest size.
const WIDTH: usize = 96;

/// Settings of every kind, and of the branches within a kind, in a recipe's words.
fn kinds() -> Vec<Settings> {
    let adamw = json!({ "lr": 0.01 });
    let kinds = [
        json!({ "lr": 0.01, "weight_decay": 0.1 }),
        json!({ "kind": "adamw8bit", "lr": 0.01, "weight_decay": 0.1 }),
        json!({ "kind": "muon", "lr": 0.01, "weight_decay": 0.1 }),
        json!({ "kind": "muon", "lr": 0.02, "adjust_lr": "original", "nesterov": false,
                "adamw": adamw }),
        json!({ "kind": "adafactor", "lr": 0.01, "weight_decay": 0.1 }),
        json!({ "kind": "adafactor", "lr": 0.05, "beta1": 0.9, "scale_parameter": true }),
    ];
    kinds.into_iter().map(|keys| serde_json::from_value(keys).expect("settings")).collect()
}

fn save(optimizer: &Optimizer, dir: &Path) -> PathBuf {
    let mut writer = fsio::DirWriter::begin(dir).expect("begin");
    optimizer.save(&mut writer).expect("save");
    writer.commit(serde_json::Value::Null).expect("commit");
    dir.join(OPTIMIZER_FILE)
}

/// Updates on the rows of steps `from..to`.
fn run(mut model: CausalLm, optimizer: &mut Optimizer, from: u64, to: u64) -> CausalLm {
    let names = ParameterNames::of(&model);
    for step in from..to {
        model = update(model, optimizer, &names, step, 2, 1e-2).0;
    }
    model
}

#[test]
fn a_resumed_optimizer_makes_the_same_updates() {
    let root = tempfile::tempdir().expect("tempdir");
    for (idx, settings) in kinds().into_iter().enumerate() {
        let model = model_of_width(WIDTH, 5);
        let mut whole = optimizer(settings.clone(), &model);
        let model = run(model, &mut whole, 0, 3);
        let dir = root.path().join(idx.to_string());
        save(&whole, &dir);
        let mut resumed = Optimizer::load(&dir, settings, &model, &device()).expect("load");
        assert_eq!(resumed.n_updates(), 3);
        let go_on = |optimizer: &mut Optimizer| bits(&run(model.clone(), optimizer, 3, 6));
        assert!(go_on(&mut resumed) == go_on(&mut whole), "{idx}");
    }
}

/// The plan's estimate is what is in memory, and what is written.
#[test]
fn state_takes_the_bytes_of_the_estimate() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut sizes = Vec::new();
    for (idx, settings) in kinds().into_iter().enumerate() {
        let model = model_of_width(WIDTH, 1);
        let mut optimizer = optimizer(settings.clone(), &model);
        assert_eq!(optimizer.state_bytes(), 0);
        let model = run(model, &mut optimizer, 0, 1);
        let parameters = model::named_parameters(&model);
        let shapes = parameters.iter().map(|p| (p.name.as_str(), p.shape.as_slice()));
        let estimate = plan::optimizer::state_bytes(&settings, shapes);
        assert_eq!(optimizer.state_bytes(), estimate, "{settings:?}");
        let file =
            std::fs::read(save(&optimizer, &root.path().join(idx.to_string()))).expect("file");
        let header = u64::from_le_bytes(file[..8].try_into().expect("8 bytes"));
        assert_eq!(file.len() as u64, 8 + header + estimate, "{settings:?}");
        sizes.push(estimate);
    }
    let n: usize = model::named_parameters(&model_of_width(WIDTH, 1))
        .iter()
        .map(|parameter| parameter.shape.iter().product::<usize>())
        .sum();
    assert_eq!(sizes[0], 8 * n as u64);
    // Small tensors keep f32 moments; of the others a quarter is left.
    assert!(sizes[1] * 100 < sizes[0] * 40, "{sizes:?}");
    assert!(sizes[2] < sizes[0] && sizes[2] > sizes[0] / 2, "{sizes:?}");
    assert!(sizes[4] * 20 < sizes[0], "{sizes:?}");
}

#[test]
fn every_kind_learns() {
    for settings in kinds() {
        let mut model = tiny_model(3);
        let names = ParameterNames::of(&model);
        let mut optimizer = optimizer(settings.clone(), &model);
        let mut losses = Vec::new();
        for _ in 0..30 {
            let (next, loss, _) = update(model, &mut optimizer, &names, 0, 1, settings.lr);
            model = next;
            losses.push(loss);
        }
        assert!(losses[29] < 0.7 * losses[0], "{settings:?}: {losses:?}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_of_any_kind() {
    for settings in kinds() {
        let run = |n_threads: usize| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("pool");
            pool.install(|| {
                let model = model_of_width(192, 3);
                let mut optimizer = optimizer(settings.clone(), &model);
                bits(&run(model, &mut optimizer, 0, 2))
            })
        };
        assert!(run(1) == run(3), "{settings:?}");
    }
}

/// State is made of clipped gradients: its norm is that of the maximum, however large the gradient was.
#[test]
fn every_kind_clips() {
    for settings in kinds() {
        let settings = Settings { max_grad_norm: 0.01, ..settings };
        let model = tiny_model(3);
        let names = ParameterNames::of(&model);
        let mut optimizer = optimizer(settings.clone(), &model);
        let (gradients, _, n_targets) = gradients_of(&model, &names, 0, 1);
        let norm = gradients.norm(n_targets, place(1)).expect("finite");
        assert!(norm.value() > 0.1);
        let _model = optimizer.step(model, gradients, norm, 1e-2);
        let sum = |prefix: &str, name: &str, value: fn(f64) -> f64| -> f64 {
            let state = optimizer.state(prefix, name).map(values).unwrap_or_default();
            state.iter().map(|x| value(f64::from(*x))).sum()
        };
        // Squares of the clipped gradient, as each rule keeps them.
        let name = "model.layers.0.mlp.up_proj.weight";
        let n_columns = 32.0;
        let squares = match &settings.kind {
            recipe::OptimizerKind::AdamW(_) | recipe::OptimizerKind::AdamW8bit(_) => {
                sum("v", name, |x| x) / 0.05
            }
            recipe::OptimizerKind::Muon(_) => sum("momentum", name, |x| x * x) / (0.05 * 0.05),
            recipe::OptimizerKind::Adafactor(_) => sum("row", name, |x| x) * n_columns,
        };
        let (gradients, _, _) = gradients_of(&tiny_model(3), &names, 0, 1);
        let unclipped = values(gradients.get(name).expect(name));
        let unclipped: f64 = unclipped.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>()
            / (n_targets as f64).powi(2);
        let clipped = unclipped * (0.01 / norm.value()).powi(2);
        assert!((squares / clipped - 1.0).abs() < 1e-3, "{settings:?}: {squares:e} {clipped:e}");
    }
}

#[test]
fn state_of_another_kind_or_model_is_refused() {
    let root = tempfile::tempdir().expect("tempdir");
    let all = kinds();
    let model = tiny_model(5);
    let mut muon = optimizer(all[2].clone(), &model);
    let model = run(model, &mut muon, 0, 1);
    let dir = root.path().join("muon");
    let file = save(&muon, &dir);
    let refused = |settings: &Settings, model: &CausalLm| {
        let error = Optimizer::load(&dir, settings.clone(), model, &device()).expect_err("refused");
        assert!(error.hint().is_some());
        error.to_string().replace(&file.display().to_string(), "FILE")
    };
    assert_eq!(
        refused(&all[0], &model),
        "FILE: has the state of `muon`, and the optimizer is `adamw`"
    );
    assert_eq!(
        refused(&all[2], &model_of_width(64, 1)),
        "FILE: tensor `m.model.embed_tokens.weight` has shape [259, 32], not [259, 64]"
    );
    // A parameter that is no longer trained.
    let frozen = model::train_only(model, &|name| name != "lm_head.weight");
    assert_eq!(
        refused(&all[2], &frozen),
        "FILE: has state of parameters that the model does not train"
    );
}

#[test]
fn a_tensor_that_is_missing_is_named() {
    let root = tempfile::tempdir().expect("tempdir");
    let model = tiny_model(5);
    let adafactor = kinds().remove(4);
    let mut saved = optimizer(adafactor.clone(), &model);
    let model = run(model, &mut saved, 0, 1);
    save(&saved, &root.path().join("whole"));
    // The same kind with a first moment, which the file lacks.
    let with_momentum: Settings =
        serde_json::from_value(json!({ "kind": "adafactor", "lr": 0.01, "beta1": 0.9 })).unwrap();
    let dir = root.path().join("whole");
    let error = Optimizer::load(&dir, with_momentum, &model, &device()).expect_err("refused");
    assert!(
        error.to_string().ends_with("tensor missing: `m.model.embed_tokens.weight`"),
        "{error}"
    );
}

fn group(pattern: &str, lr: Option<f64>, weight_decay: Option<f64>) -> OptimizerGroup {
    OptimizerGroup { pattern: pattern.to_owned(), lr, weight_decay }
}

/// A constant gradient moves AdamW's weights by the rate, so each parameter shows its own.
#[test]
fn groups_have_rates_of_their_own() {
    let mut model = Pair::new();
    let groups = vec![group("vec*", Some(0.08), None), group("*", None, Some(0.5))];
    let settings = Settings { groups, max_grad_norm: 0.0, ..Settings::adamw(0.02) };
    let names = ParameterNames::of(&model);
    let mut optimizer = optimizer(settings, &model);
    let before = (values(&model.matrix.val()), values(&model.vector.val()));
    let mut gradients = Gradients::new(&names);
    gradients.accumulate(&model, || model.linear_loss(&[2.0; 6], &[3.0; 4]).backward());
    let norm = gradients.norm(1, place(1)).expect("finite");
    // The schedule is at half of the peak.
    let rates: Vec<(&str, f64)> = optimizer.rates(0.01).collect();
    assert_eq!(rates, [("matrix", 0.01), ("vector", 0.04)]);
    model = optimizer.step(model, gradients, norm, 0.01);
    for (after, before) in values(&model.matrix.val()).iter().zip(before.0) {
        assert!((after - (before * (1.0 - 0.01 * 0.5) - 0.01)).abs() < 1e-6, "{after} {before}");
    }
    for (after, before) in values(&model.vector.val()).iter().zip(before.1) {
        assert!((after - (before - 0.04)).abs() < 1e-6, "{after} {before}");
    }
}

#[test]
fn a_group_has_to_match_a_trained_parameter() {
    let mut model = Pair::new();
    model.vector = model.vector.set_require_grad(false);
    for pattern in ["*.lora_B.weight", "vector"] {
        let groups = vec![group("*", Some(0.1), None), group(pattern, Some(0.1), None)];
        let settings = Settings { groups, ..Settings::adamw(0.02) };
        let error = Optimizer::new(settings, &model).expect_err("matches nothing");
        assert!(matches!(error, Error::UnmatchedGroup { .. }));
        assert!(error.to_string().ends_with(&format!("`{pattern}`")), "{error}");
        assert!(error.hint().is_some());
    }
}

/// One update of a GPT-2 with each formula for Muon's rate, without decay; how far one matrix moved.
fn moved(adjust_lr: &str, name: &str) -> f64 {
    let config = json!({
        "model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32,
        "vocab_size": 259, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    });
    let config = arch::ModelConfig::from_json(&config, Path::new("tiny")).expect("tiny");
    let model = CausalLm::init(&config, 1, &device());
    let settings =
        json!({ "kind": "muon", "lr": 0.01, "adjust_lr": adjust_lr, "adamw": { "lr": 0.01 } });
    let mut optimizer = optimizer(serde_json::from_value(settings).expect("settings"), &model);
    let weights = |model: &CausalLm| -> Vec<f32> {
        let mut found = Vec::new();
        let seen: Result<(), std::convert::Infallible> =
            model::visit_tensors(model, |known, _, values| {
                if known == name {
                    found = values.to_vec();
                }
                Ok(())
            });
        assert!(seen.is_ok() && !found.is_empty(), "{name}");
        found
    };
    let before = weights(&model);
    let after = weights(&run(model, &mut optimizer, 0, 1));
    let squares = before.iter().zip(after).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// GPT-2 stores its matrices as `[in, out]`; torch's formulas are of `[out, in]`.
#[test]
fn muon_sees_gpt2_matrices_as_out_by_in() {
    let [wide, narrow] =
        ["mlp.c_fc", "mlp.c_proj"].map(|name| format!("transformer.h.0.{name}.weight"));
    // 64 × 16: √4 either way. 16 × 64: 1 and √¼.
    let ratio = |name: &str| moved("original", name) / moved("spectral_unclamped", name);
    assert!((ratio(&wide) - 1.0).abs() < 1e-4, "{}", ratio(&wide));
    assert!((ratio(&narrow) - 2.0).abs() < 1e-4, "{}", ratio(&narrow));
    let to_match = moved("match_rms_adamw", &wide) / moved("original", &wide);
    assert!((to_match - 0.2 * 8.0 / 2.0).abs() < 1e-4, "{to_match}");
}

/// The root mean square of an update never exceeds the threshold times the rate.
#[test]
fn adafactor_clips_its_updates() {
    let spike: [f32; 6] = [100.0, 0.01, 0.01, 0.01, 0.01, -100.0];
    for threshold in [0.25, 0.5, 100.0] {
        let model = Pair::new();
        let settings = json!({ "kind": "adafactor", "lr": 0.01, "clip_threshold": threshold });
        let names = ParameterNames::of(&model);
        let mut optimizer = optimizer(serde_json::from_value(settings).expect("settings"), &model);
        let before = values(&model.matrix.val());
        let mut gradients = Gradients::new(&names);
        gradients.accumulate(&model, || model.linear_loss(&spike, &[1.0; 4]).backward());
        let norm = gradients.norm(1, place(1)).expect("finite");
        let after: Tensor<2> = optimizer.step(model, gradients, norm, 0.01).matrix.val();
        let squares = before.iter().zip(values(&after)).map(|(a, b)| f64::from(a - b).powi(2));
        let rms = (squares.sum::<f64>() / 6.0).sqrt() / 0.01;
        // Unclipped, the six elements are √2, 1, 0, 0, 1 and √2.
        let want = f64::min(threshold, 1.0);
        assert!((rms / want - 1.0).abs() < 0.01, "{threshold}: {rms}");
    }
}

/// 8-bit moments lead where f32 moments lead: most weights within a fraction of the rate.
#[test]
fn eight_bits_follow_f32() {
    let end = |settings: Settings| {
        let model = model_of_width(WIDTH, 7);
        let mut optimizer = optimizer(settings, &model);
        let model = run(model, &mut optimizer, 0, 10);
        let mut weights = Vec::new();
        let seen: Result<(), std::convert::Infallible> = model::visit_tensors(&model, |_, _, v| {
            weights.extend_from_slice(v);
            Ok(())
        });
        assert!(seen.is_ok());
        weights
    };
    let (exact, coarse) = (end(kinds().remove(0)), end(kinds().remove(1)));
    let mut differences: Vec<f32> = exact.iter().zip(&coarse).map(|(a, b)| (a - b).abs()).collect();
    differences.sort_by(f32::total_cmp);
    // Ten steps of 1e-2: a weight moves by up to 0.1.
    let median = differences[differences.len() / 2];
    let most = differences[differences.len() * 99 / 100];
    assert!(median < 2e-3 && most < 3e-2 && median > 0.0, "{median} {most}");
}
