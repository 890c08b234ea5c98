//! Replays the losses of TRL's GRPO over fixed log-probabilities: every loss type with its gradients and metrics, and the
//! advantages of every scaling. Settings are in `cases.json` beside the vectors.
//!
//! Shape legend: b completions, t tokens of the longest one.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use loss::{
    AdvantageKind, Aggregation, CompletionBatch, GroupCounts, GroupObjective, GroupRewards,
    RewardScale, entropy_threshold, group_advantages,
};
use rl::GroupMetrics;
use serde_json::Value;

use super::group::{named_level, named_loss};
use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::{Error, Result};
use crate::host_values::host_values;

const LOSSES: Tolerance = Tolerance { absolute: 1e-6, relative: 2e-6 };
const GRADIENTS: Tolerance = Tolerance { absolute: 1e-7, relative: 3e-6 };
const ADVANTAGES: Tolerance = Tolerance { absolute: 2e-6, relative: 2e-6 };
/// Tolerance of metrics, relative above 1.
const METRICS: f64 = 2e-6;
const CASES_BYTES: u64 = 1 << 20;
/// The settings of the vectors.
pub(super) const CASES: &str = "cases.json";
/// Gradients of the losses with respect to log-probabilities.
pub(super) const GRADS: &str = "grads.safetensors";

pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let path = dir.join(CASES);
    let bad = |reason: String| Error::BadVectors { path: path.clone(), reason };
    let cases: Vec<Value> = serde_json::from_str(&fsio::read_text_capped(&path, CASES_BYTES)?)
        .map_err(|error| bad(format!("not a list of settings: {error}")))?;
    let inputs = Inputs { vectors: Vectors::open(&dir.join("inputs.safetensors"))?, device };
    let gradients = Vectors::open(&dir.join(GRADS))?;
    let [mut losses, mut slopes, mut metrics] =
        ["losses", "gradients", "metrics"].map(Quantity::new);
    for case in &cases {
        let name = case["name"].as_str().ok_or_else(|| bad("a case has no name".to_owned()))?;
        let objective = objective(case).map_err(&bad)?;
        let (batch, leaf_bt, lengths) = inputs.batch(case)?;
        let counts = counts(&batch, &lengths);
        let terms = objective.terms(&batch, &counts);
        let expected = case["loss"].as_f64().ok_or_else(|| bad(format!("{name} has no loss")))?;
        let got = host_values(&terms.loss.clone().inner());
        losses.add(name, &got, &[expected as f32], LOSSES);

        let advantages = inputs.vectors.floats("advantages")?.values;
        let entropies = host_values(&batch.entropies_bt);
        let mut of_batch = GroupMetrics::default();
        of_batch.add(&terms, &entropies, &lengths, &advantages, &objective);
        let got = of_batch.named(&objective);
        for (metric, expected) in case["metrics"].as_object().into_iter().flatten() {
            let expected = expected.as_f64().unwrap_or(f64::NAN);
            let difference = (got.get(metric).copied().unwrap_or(f64::NAN) - expected).abs();
            let at = format!("{name} {metric}");
            metrics.add_difference(Some(&at), difference, METRICS * expected.abs().max(1.0), 1);
        }

        let grads = terms.loss.backward();
        let gradient = leaf_bt.grad(&grads);
        let gradient = gradient.ok_or_else(|| bad(format!("{name} has no gradient")))?;
        let expected = gradients.floats_of(name, &gradient.dims())?;
        slopes.add(name, &host_values(&gradient), &expected, GRADIENTS);
    }
    let mut quantities = vec![losses, slopes, metrics];
    quantities.push(advantages(&dir.join("advantages.safetensors"))?);
    Ok(quantities)
}

/// The objective of a case, whose settings have TRL's names.
fn objective(case: &Value) -> std::result::Result<GroupObjective, String> {
    let number = |key: &str| case[key].as_f64();
    let epsilon = number("epsilon").unwrap_or(0.2);
    Ok(GroupObjective {
        loss: named_loss(case["loss_type"].as_str())?,
        level: named_level(case["importance_sampling_level"].as_str())?,
        epsilon,
        epsilon_high: number("epsilon_high").unwrap_or(epsilon),
        delta: number("delta"),
        beta: number("beta").unwrap_or(0.0),
        corrects_kl: case["use_bias_correction_kl"].as_bool().unwrap_or(true),
        off_policy_threshold: number("off_policy_mask_threshold"),
        entropy_coef: number("entropy_coef").unwrap_or(0.0),
    })
}

/// The vectors that all cases share.
struct Inputs<'a> {
    vectors: Vectors,
    device: &'a Device,
}

impl Inputs<'_> {
    /// The tokens of a case, the log-probabilities that its gradient is with respect to, and the completions' tokens in the
    /// loss.
    fn batch(&self, case: &Value) -> Result<(CompletionBatch, Tensor<2>, Vec<usize>)> {
        let shape = self.vectors.floats("per_token_logps")?.shape;
        let &[b, t] = &shape[..] else {
            return Err(self.vectors.bad("log-probabilities must have two dimensions".to_owned()));
        };
        let plain = self.device.clone().inner();
        let tensor = |values: Vec<f32>, width: usize, device: &Device| {
            Tensor::<2>::from_data(TensorData::new(values, [b, width]), device)
        };
        let read = |name: &str, device: &Device| -> Result<Tensor<2>> {
            Ok(tensor(self.vectors.floats_of(name, &[b, t])?, t, device))
        };
        let is_cut = case["truncated_dropped"] == true;
        let mask = if is_cut { "completion_mask_truncated_dropped" } else { "completion_mask" };
        let mask = self.vectors.mask(mask, &[b, t])?;
        let lengths = mask.chunks(t).map(|row| row.iter().filter(|is| **is).count()).collect();
        let entropies = self.vectors.floats_of("entropies", &[b, t])?;
        let flags = |flags: Vec<bool>| {
            tensor(flags.into_iter().map(|is| f32::from(u8::from(is))).collect(), t, &plain)
        };
        let focus_bt = case["top_entropy_quantile"].as_f64().map(|share| {
            let masked = entropies.iter().zip(&mask).filter(|(_, is)| **is);
            let threshold = entropy_threshold(&masked.map(|(x, _)| *x).collect::<Vec<_>>(), share);
            let high = entropies.iter().zip(&mask).map(|(x, is)| *is && *x >= threshold);
            flags(high.collect())
        });
        let leaf_bt = read("per_token_logps", &self.device.clone().autodiff())?.require_grad();
        let batch = CompletionBatch {
            logprobs_bt: leaf_bt.clone(),
            old_logprobs_bt: read("old_per_token_logps", &plain)?,
            ref_logprobs_bt: (case["beta"] != 0.0)
                .then(|| read("ref_per_token_logps", &plain))
                .transpose()?,
            advantages_b1: tensor(self.vectors.floats_of("advantages", &[b])?, 1, &plain),
            entropies_bt: tensor(entropies, t, &plain),
            mask_bt: flags(mask),
            focus_bt,
        };
        Ok((batch, leaf_bt, lengths))
    }
}

/// All completions are one batch, and it is the whole update.
fn counts(batch: &CompletionBatch, lengths: &[usize]) -> GroupCounts {
    let [rows, max_new_tokens] = batch.mask_bt.dims();
    let tokens: usize = lengths.iter().sum();
    let focused = batch.focus_bt.as_ref().map(|x| host_values(x).iter().sum::<f32>() as usize);
    GroupCounts {
        rows,
        tokens,
        focus_tokens: focused.unwrap_or(tokens),
        tokens_per_step: tokens.max(1) as f64,
        max_new_tokens,
        batches_per_step: 1,
    }
}

/// Advantages under every scaling, with and without missing rewards.
fn advantages(path: &Path) -> Result<Quantity> {
    /// The reference's completions of a prompt, and weights of its rewards.
    const GROUP: usize = 4;
    const WEIGHTS: [f64; 2] = [1.0, 0.5];
    let file = Vectors::open(path)?;
    let mut quantity = Quantity::new("advantages");
    for name in file.names().iter().filter(|name| !name.starts_with("rewards_per_func")) {
        let (setting, missing) = match name.strip_suffix(".none") {
            Some(setting) if setting.contains('.') => (setting, ".none"),
            Some(_) | None => (name.as_str(), ""),
        };
        let (aggregation, scale) = match setting {
            "sum_then_normalize.group" => (Aggregation::SumThenNormalize, RewardScale::Group),
            "sum_then_normalize.batch" => (Aggregation::SumThenNormalize, RewardScale::Batch),
            "sum_then_normalize.none" => (Aggregation::SumThenNormalize, RewardScale::None),
            "normalize_then_sum.group" => (Aggregation::NormalizeThenSum, RewardScale::Group),
            other => return Err(file.bad(format!("advantages by unknown settings: `{other}`"))),
        };
        let rewards = file.floats(&format!("rewards_per_func{missing}"))?;
        let row = |row: &[f32]| row.iter().map(|value| f64::from(*value)).collect();
        let values: Vec<Vec<f64>> = rewards.values.chunks(WEIGHTS.len()).map(row).collect();
        let groups =
            GroupRewards { values: &values, weights: &WEIGHTS, group_size: GROUP, penalties: &[] };
        let got = group_advantages(&groups, AdvantageKind::Group { scale, aggregation });
        let expected = file.floats_of(name, &[values.len()])?;
        quantity.add(name, &got.advantages, &expected, ADVANTAGES);
    }
    Ok(quantity)
}
