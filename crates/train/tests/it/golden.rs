//! 20 steps of torch's AdamW on a real model: losses, norms, rates, and the weights at the end.

use model::load_causal_lm;
use nn::TokenBatch;
use recipe::{Schedule, ScheduleKind};
use serde_json::Value;
use testkit::{Golden, golden_dir};
use train::{Gradients, Optimizer, ParameterNames, StepPlace, lr};

use super::toy::{device, loss_of};

#[test]
fn training_follows_torch() {
    let dir = golden_dir("training/full");
    let batches = Golden::open(&dir.join("batches.safetensors"));
    let expected = std::fs::read_to_string(dir.join("expected.json")).expect("expected.json");
    let expected: Vec<Value> = serde_json::from_str(&expected).expect("rows");
    let number = |row: &Value, key: &str| row[key].as_f64().expect("a number");

    let mut model = load_causal_lm(&dir.join("start"), &device()).expect("model");
    let names = ParameterNames::of(&model);
    let settings = recipe::Optimizer { weight_decay: 0.1, ..recipe::Optimizer::adamw(3e-3) };
    let schedule = Schedule {
        kind: ScheduleKind::Cosine,
        warmup_steps: 4,
        min_lr: 0.0,
        decay_steps: None,
        total_steps: None,
    };
    let mut optimizer = Optimizer::new(settings, &model).expect("no groups");
    for (step, row) in expected.iter().enumerate() {
        let micro: Vec<(TokenBatch, Vec<i32>)> =
            (0..2).map(|j| micro_batch(&batches, step, j)).collect();
        let n_targets =
            micro.iter().flat_map(|(_, targets)| targets).filter(|t| **t >= 0).count() as u64;
        let (mut gradients, mut sum) = (Gradients::new(&names), 0.0);
        for (tokens, targets) in &micro {
            let loss = loss_of(&model, tokens, targets);
            sum += loss.value();
            gradients.accumulate(&model, || loss.sum.backward());
        }
        let place = StepPlace { step: step as u64 + 1, samples: &[] };
        let norm = gradients.norm(n_targets, place).expect("finite");
        let rate = lr(&schedule, 3e-3, step as u64, 20);
        let loss = sum / n_targets as f64;
        assert!((loss - number(row, "loss")).abs() < 1e-5, "step {step}: {loss} {row}");
        assert!((norm.value() - number(row, "grad_norm")).abs() < 6e-5, "{norm:?} {row}");
        assert!((rate - number(row, "lr")).abs() < 1e-12, "{rate} {row}");
        model = optimizer.step(model, gradients, norm, rate);
    }

    let end = Golden::open(&dir.join("end/model.safetensors"));
    let mut differences = Vec::new();
    let compared: Result<(), std::convert::Infallible> =
        model::visit_tensors(&model, |name, _, got| {
            let want = end.f32(name);
            differences.extend(got.iter().zip(&want).map(|(a, b)| (a - b).abs()));
            Ok(())
        });
    assert!(compared.is_ok());
    differences.sort_by(f32::total_cmp);
    let largest = differences[differences.len() - 1];
    let most = differences[differences.len() * 999 / 1000];
    assert!(largest < 3e-4 && most < 1e-6, "{largest:e} {most:e}");
}

fn micro_batch(batches: &Golden, step: usize, j: usize) -> (TokenBatch, Vec<i32>) {
    let name = |what: &str| format!("step{step:02}.micro{j}.{what}");
    let ids = batches.ids(&name("input_ids"));
    let mask: Vec<bool> = batches.i64(&name("attention_mask")).iter().map(|m| *m != 0).collect();
    let labels = batches.i64(&name("labels"));
    let [rows, t] = batches.shape(&name("labels"))[..] else { panic!("two axes") };
    let mut targets = Vec::new();
    for row in labels.chunks(t) {
        targets.extend(row[1..].iter().map(|label| i32::try_from(*label).expect("an id").max(-1)));
        targets.push(-1);
    }
    (TokenBatch::padded(&ids, &mask, rows, &device()), targets)
}
