//! Replays losses on labelled answers over logits, with their gradients. Settings are in `cases.json` beside the vectors.
//!
//! Shape legend: b texts, t time, v vocabulary, n positions (b × t).

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::Head;
use loss::{LossSum, SequenceLogprobs, UnpairedLoss, UnpairedObjective, mismatched_kl};
use serde_json::Value;

use super::pair_losses::cases;
use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;
use crate::host_values::host_values;

/// Losses of one answer, and their mean.
const TOLERANCE: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };
/// Gradients of a loss with respect to logits.
const GRADIENTS: Tolerance = Tolerance { absolute: 1e-7, relative: 3e-6 };

/// The losses of `kto.safetensors` with their gradients and TRL's metrics.
pub(super) fn replay(path: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let texts = Texts::read(&file)?;
    let reference_b = texts.logprobs(&texts.logits(&file, "ref_logits", device)?);
    let [mut rows, mut means, mut slopes] = ["rows", "means", "gradients"].map(Quantity::new);
    let mut metrics = Quantity::new("metrics");
    for case in &cases(&file, path)? {
        let Some(name) = case["name"].as_str().and_then(|name| name.strip_prefix("kto.")) else {
            continue;
        };
        let objective = objective(&file, case, name)?;
        let (tag, loss) = name.split_once('.').unwrap_or_default();
        let estimate = file.floats_of(&format!("{tag}.kl_estimate_before_clamp"), &[1])?;
        let kl = mismatched_kl(estimate.iter().copied().map(f64::from).sum(), 1);
        let kl = if objective.reads_kl() { kl } else { 0.0 };
        let leaf_nv = texts.logits(&file, "policy_logits", &device.clone().autodiff())?;
        let leaf_nv = leaf_nv.require_grad();
        let policy_b = texts.logprobs(&leaf_nv);
        let rewards_b = objective.rewards(policy_b.clone(), reference_b.clone());
        let losses_b = objective.losses(rewards_b.clone(), &texts.labels, kl);
        let expected = file.floats_of(&format!("{tag}.rows.{loss}"), &[texts.labels.len()])?;
        rows.add(name, &host_values(&losses_b.clone().inner()), &expected, TOLERANCE);
        let loss_sum = LossSum::of(losses_b);
        let n = loss_sum.count;
        let mean = loss_sum.mean_over(n);
        let expected = file.floats_of(&format!("{tag}.mean.{loss}"), &[1])?;
        means.add(name, &host_values(&mean.clone().inner()), &expected, TOLERANCE);
        let (policy, rewards) = (host_values(&policy_b.inner()), host_values(&rewards_b.inner()));
        let sides = [("chosen", true), ("rejected", false)];
        let found = sides.into_iter().flat_map(|(side, label)| {
            let mean = |values: &[f32]| texts.mean_of(values, label);
            [(format!("rewards/{side}"), mean(&rewards)), (format!("logps/{side}"), mean(&policy))]
        });
        for (key, value) in found.chain([("kl".to_owned(), kl as f32)]) {
            let expected = case["metrics"][&key].as_f64();
            let expected = expected
                .ok_or_else(|| file.bad(format!("the case `{name}` has no metric `{key}`")))?;
            metrics.add(&format!("{name} {key}"), &[value], &[expected as f32], TOLERANCE);
        }
        let grads = mean.backward();
        let gradient = leaf_nv.grad(&grads).ok_or_else(|| {
            file.bad(format!("`{name}` has no gradient with respect to the logits"))
        })?;
        let shape = [texts.labels.len(), texts.t, texts.v];
        let expected = file.floats_of(&format!("{tag}.grad.{loss}"), &shape)?;
        slopes.add(name, &host_values(&gradient), &expected, GRADIENTS);
    }
    Ok(vec![rows, means, metrics, slopes])
}

/// The objective of a case, whose settings have TRL's names.
fn objective(file: &Vectors, case: &Value, name: &str) -> Result<UnpairedObjective> {
    let number = |key: &str| {
        let missing = || file.bad(format!("the case `{name}` has no number `{key}`"));
        case[key].as_f64().ok_or_else(missing)
    };
    let loss = match name.split_once('.') {
        Some((_, "kto")) => UnpairedLoss::Kto,
        Some((_, "apo_zero_unpaired")) => UnpairedLoss::ApoZeroUnpaired,
        Some(_) | None => return Err(file.bad(format!("a case has an unknown loss: `{name}`"))),
    };
    Ok(UnpairedObjective {
        loss,
        beta: number("beta")?,
        desirable_weight: number("desirable_weight")?,
        undesirable_weight: number("undesirable_weight")?,
    })
}

/// The texts of the vectors.
struct Texts {
    t: usize,
    v: usize,
    labels: Vec<bool>,
    /// The token that each position predicts, -1 where it belongs to no answer.
    targets: Vec<i32>,
}

impl Texts {
    fn read(file: &Vectors) -> Result<Self> {
        let logits = file.floats("policy_logits")?;
        let &[b, t, v] = &logits.shape[..] else {
            return Err(file.bad("tensor `policy_logits` must have three dimensions".to_owned()));
        };
        let (ids, labels) = (file.ids("input_ids")?, file.integers("label")?);
        if ids.shape != [b, t] || labels.shape != [b] {
            let problem = "tensors `input_ids` and `label` do not fit the logits".to_owned();
            return Err(file.bad(problem));
        }
        let mask = file.mask("completion_mask", &ids.shape)?;
        let next = |at: usize| {
            let is_target = !(at + 1).is_multiple_of(t) && mask[at + 1];
            if is_target { ids.values[at + 1] as i32 } else { -1 }
        };
        let targets = (0..b * t).map(next).collect();
        Ok(Self { t, v, labels: labels.values.iter().map(|label| *label != 0).collect(), targets })
    }

    /// Logits of the file, `[n, v]`.
    fn logits(&self, file: &Vectors, name: &str, device: &Device) -> Result<Tensor<2>> {
        let values = file.floats_of(name, &[self.labels.len(), self.t, self.v])?;
        let n = self.labels.len() * self.t;
        Ok(Tensor::from_data(TensorData::new(values, [n, self.v]), device))
    }

    /// Log-probabilities of the answers, `[b]`, by the functions that training calls: the logits are its hidden states, and
    /// the identity is its head.
    fn logprobs(&self, logits_nv: &Tensor<2>) -> Tensor<1> {
        let device = logits_nv.device();
        let head: Head = Tensor::<2>::eye(self.v, &device.clone().inner()).into();
        let targets_n = Tensor::<1, Int>::from_data(self.targets.as_slice(), &device);
        let logprobs_n =
            kernels::linear_logprobs(logits_nv.clone(), head, targets_n, 1.0).logprobs_n;
        SequenceLogprobs::of_targets(logprobs_n, &self.targets, self.t).sums()
    }

    /// Mean of the values of one label.
    fn mean_of(&self, values: &[f32], label: bool) -> f32 {
        let of_label = || values.iter().zip(&self.labels).filter(|(_, found)| **found == label);
        let sum: f64 = of_label().map(|(value, _)| f64::from(*value)).sum();
        (sum / of_label().count().max(1) as f64) as f32
    }
}
