//! Replays training steps, of all weights or of an adapter's factors, with the gradients, optimizer and schedule of `train`.
//!
//! `settings.json` has the optimizer and the schedule in a recipe's words. Without it, the settings are those of the oldest
//! references: AdamW with a cosine schedule.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use model::{CausalLm, load_causal_lm};
use nn::TokenBatch;
use recipe::{Schedule, ScheduleKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use train::{GradNorm, Gradients, Optimizer, ParameterNames, StepPlace, WeightAverage, lr};

use super::report::{Quantity, Tolerance};
use super::summed_loss::summed_loss;
use super::vectors::Vectors;
use crate::error::{Error, Result};

/// Peak learning rates of the references without `settings.json`.
const LR_OF_WEIGHTS: f64 = 3e-3;
const LR_OF_ADAPTER: f64 = 1e-2;
const LOSS: f64 = 2e-5;
const GRAD_NORM: f64 = 1e-4;
/// Both sides compute the learning rate in f64.
const LR: f64 = 1e-12;
/// Tolerances of weights after the last step: of each one, and of all but one in a thousand.
const WORST_WEIGHT: f64 = 5e-4;
const MOST_WEIGHTS: f64 = 1e-6;
const MOST_FACTORS: f64 = 1e-5;
const MOST: f64 = 0.999;
/// The largest accepted size of a list of steps or settings.
const JSON_BYTES: u64 = 1 << 20;
const SETTINGS_FILE: &str = "settings.json";
/// The average of the trained weights over all steps, with its decay as metadata.
const AVERAGE_FILE: &str = "averaged.safetensors";
const DECAY: &str = "ema";

/// One line of expected.json.
#[derive(Debug, Deserialize)]
struct Expected {
    step: u64,
    loss: f64,
    grad_norm: f64,
    lr: f64,
    /// The rates of torch's parameter groups, where the reference has several.
    #[serde(default)]
    lr_by_group: Vec<f64>,
}

/// settings.json.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    optimizer: recipe::Optimizer,
    schedule: Schedule,
}

/// Replays training of all weights.
pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let model = load_causal_lm(&dir.join("start"), &device.clone().autodiff())?;
    let (Trained { model, averaged }, mut quantities) = follow(model, dir, LR_OF_WEIGHTS, device)?;
    let end = Vectors::open(&dir.join("end").join("model.safetensors"))?;
    let names = model::parameter_names(&model).into_iter().map(|name| (name.clone(), name));
    let names = names.collect();
    let weights = Bounds { what: "weights", worst: WORST_WEIGHT, most: MOST_WEIGHTS };
    quantities.extend(compare(&model, &end, &names, &weights)?);
    if let Some(averaged) = averaged {
        let weights = Bounds { what: "averaged_weights", ..weights };
        let reference = Vectors::open(&dir.join(AVERAGE_FILE))?;
        quantities.extend(compare(&averaged, &reference, &names, &weights)?);
    }
    Ok(quantities)
}

/// Replays training of an adapter. The base model must not change by a bit.
pub(super) fn replay_lora(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let base_dir = dir.join("base");
    let base = load_causal_lm(&base_dir, &device.clone().autodiff())?;
    let (adapted, _) = lora::load(base, &dir.join("adapter_start"))?;
    let (Trained { model, averaged }, mut quantities) =
        follow(adapted.model, dir, LR_OF_ADAPTER, device)?;
    let end = Vectors::open(&dir.join("adapter_end").join(lora::ADAPTER_WEIGHTS))?;
    let names = lora::adapter_names(&model).into_iter();
    let names = names.map(|name| (name.clone(), format!("base_model.model.{name}"))).collect();
    let factors = Bounds { what: "factors", worst: WORST_WEIGHT, most: MOST_FACTORS };
    quantities.extend(compare(&model, &end, &names, &factors)?);
    if let Some(averaged) = averaged {
        let factors = Bounds { what: "averaged_factors", ..factors };
        let reference = Vectors::open(&dir.join(AVERAGE_FILE))?;
        quantities.extend(compare(&averaged, &reference, &names, &factors)?);
    }

    let (model, _) = lora::detach(model);
    let base = Vectors::open(&base_dir.join("model.safetensors"))?;
    let mut frozen = Quantity::new("frozen_weights");
    model::visit_tensors(&model, |name, shape, values| {
        frozen.add(name, values, &base.floats_of(name, shape)?, Tolerance::absolute(0.0));
        Ok::<(), Error>(())
    })?;
    quantities.push(frozen);
    Ok(quantities)
}

/// The model after the last step, and with averaged weights if the reference has those.
struct Trained {
    model: CausalLm,
    averaged: Option<CausalLm>,
}

/// Trains on the batches of a directory and compares loss, gradient norm and learning rates of each step.
///
/// `peak` is the learning rate of a reference without settings.
fn follow(
    mut model: CausalLm,
    dir: &Path,
    peak: f64,
    device: &Device,
) -> Result<(Trained, Vec<Quantity>)> {
    let expected = read_expected(&dir.join("expected.json"))?;
    let batches = Vectors::open(&dir.join("batches.safetensors"))?;
    let n_steps = expected.len() as u64;
    let Settings { optimizer, schedule } = settings(dir, peak)?;
    let peak = optimizer.lr;
    let names = ParameterNames::of(&model);
    let mut optimizer = Optimizer::new(optimizer, &model)?;
    let mut average = decay(dir)?.map(|decay| WeightAverage::new(decay, &model));
    let [mut losses, mut norms, mut lrs] = ["loss", "grad_norm", "lr"].map(Quantity::new);
    let mut lrs_by_group = Quantity::new("lr_by_group");
    for (step, row) in (0..).zip(&expected) {
        let at = format!("step {}", row.step);
        let mut gradients = Gradients::new(&names);
        let (loss, norm) = loss_and_norm(&model, &mut gradients, &batches, step, device)?;
        let lr = lr(&schedule, peak, step, n_steps);
        model = optimizer.step(model, gradients, norm, lr);
        if let Some(average) = &mut average {
            average.update(&model);
        }
        let bound = Tolerance::of_number(LOSS, row.loss);
        losses.add_difference(Some(&at), (loss - row.loss).abs(), bound, 1);
        let bound = Tolerance::of_number(GRAD_NORM, row.grad_norm);
        norms.add_difference(Some(&at), (norm.value() - row.grad_norm).abs(), bound, 1);
        lrs.add_difference(Some(&at), (lr - row.lr).abs(), LR, 1);
        if !row.lr_by_group.is_empty() {
            let ours: Vec<f64> = optimizer.rates(lr).map(|(_, rate)| rate).collect();
            let n = row.lr_by_group.len();
            lrs_by_group.add_difference(Some(&at), distance(&ours, &row.lr_by_group), LR, n);
        }
    }
    let mut quantities = vec![losses, norms, lrs];
    if lrs_by_group.n_compared > 0 {
        quantities.push(lrs_by_group);
    }
    let averaged = average.map(|average| average.applied(&model));
    Ok((Trained { model, averaged }, quantities))
}

/// The decay of the average that a reference has.
fn decay(dir: &Path) -> Result<Option<f64>> {
    let path = dir.join(AVERAGE_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let file = Vectors::open(&path)?;
    let decay = file.metadata(DECAY).and_then(|text| text.parse().ok());
    decay.map(Some).ok_or_else(|| file.bad(format!("has no number `{DECAY}` as metadata")))
}

/// The largest distance from a rate of ours to the nearest rate of torch's groups, some of which have no parameters.
fn distance(ours: &[f64], groups: &[f64]) -> f64 {
    let nearest = |x: &f64| groups.iter().map(|y| (x - y).abs()).fold(f64::INFINITY, f64::min);
    ours.iter().map(nearest).fold(0.0, f64::max)
}

/// The mean loss of a step and the norm of its gradients, over all its micro-batches.
fn loss_and_norm(
    model: &CausalLm,
    gradients: &mut Gradients,
    batches: &Vectors,
    step: u64,
    device: &Device,
) -> Result<(f64, GradNorm)> {
    let (mut sum, mut n_targets) = (0.0, 0);
    for micro in 0.. {
        let name = |what: &str| format!("step{step:02}.micro{micro}.{what}");
        if micro > 0 && !batches.has(&name("input_ids")) {
            break;
        }
        let ids = batches.ids_for(model.config(), &name("input_ids"))?;
        let mask = batches.mask(&name("attention_mask"), &ids.shape)?;
        let targets = batches.targets(model.config(), &name("labels"), &ids.shape)?;
        let rows = ids.shape.first().copied().unwrap_or(0);
        let tokens = TokenBatch::padded(&ids.values, &mask, rows, device);
        let count = targets.iter().filter(|target| **target >= 0).count() as u64;
        let loss = summed_loss(model, &tokens, &targets, count);
        sum += loss.value();
        n_targets += count;
        gradients.accumulate(model, || loss.sum.backward());
    }
    let norm = gradients.norm(n_targets, StepPlace { step: step + 1, samples: &[] })?;
    Ok((sum / n_targets.max(1) as f64, norm))
}

/// Tolerances of trained values: of each one, and of all but one in a thousand.
#[derive(Clone, Copy)]
struct Bounds {
    what: &'static str,
    worst: f64,
    most: f64,
}

/// Compares the parameters of `names` (ours → the reference's) with a file that has exactly these.
fn compare(
    model: &CausalLm,
    end: &Vectors,
    names: &BTreeMap<String, String>,
    bounds: &Bounds,
) -> Result<[Quantity; 2]> {
    let mut worst = Quantity::new(&format!("{}_worst", bounds.what));
    let mut differences: Vec<f64> = Vec::new();
    model::visit_tensors(model, |name, shape, values| {
        let Some(known_as) = names.get(name) else { return Ok(()) };
        let expected = end.floats_of(known_as, shape)?;
        worst.add(name, values, &expected, Tolerance::absolute(bounds.worst));
        let pairs = values.iter().zip(&expected);
        differences.extend(pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()));
        Ok::<(), Error>(())
    })?;
    if names.len() != end.names().len() {
        worst.add_difference(Some("number of tensors"), f64::INFINITY, 0.0, 1);
    }
    // NaN sorts last, so it may be in the remainder; `worst` reports it.
    differences.sort_by(f64::total_cmp);
    let rank = (differences.len() as f64 * MOST) as usize;
    let mut most = Quantity::new(&format!("{}_99_9_percent", bounds.what));
    let difference = differences.get(rank).copied().unwrap_or(f64::INFINITY);
    most.add_difference(None, difference, bounds.most, rank);
    Ok([worst, most])
}

/// The settings of a reference; `peak` is the learning rate if it has none.
fn settings(dir: &Path, peak: f64) -> Result<Settings> {
    let path = dir.join(SETTINGS_FILE);
    if path.exists() {
        return read_json(&path, "settings of an optimizer and a schedule");
    }
    let optimizer = recipe::Optimizer { weight_decay: 0.1, ..recipe::Optimizer::adamw(peak) };
    let schedule = Schedule {
        kind: ScheduleKind::Cosine,
        warmup_steps: 4,
        min_lr: 0.0,
        decay_steps: None,
        total_steps: None,
    };
    Ok(Settings { optimizer, schedule })
}

fn read_expected(path: &Path) -> Result<Vec<Expected>> {
    let rows: Vec<Expected> = read_json(path, "a list of steps")?;
    if rows.is_empty() {
        let reason = "has no steps".to_owned();
        return Err(Error::BadVectors { path: path.to_owned(), reason });
    }
    Ok(rows)
}

fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = fsio::read_text_capped(path, JSON_BYTES)?;
    serde_json::from_str(&text).map_err(|error| Error::BadVectors {
        path: path.to_owned(),
        reason: format!("not {what}: {error}"),
    })
}
