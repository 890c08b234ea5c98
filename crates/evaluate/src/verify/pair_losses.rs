//! Replays preference losses over logits: every loss of a preference trainer with its gradients, and losses over
//! log-probabilities of whole answers. Settings are in `cases.json` beside the vectors.
//!
//! Shape legend: p pairs, b texts (2 × p), t time, v vocabulary, n positions (b × t).

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::Head;
use loss::{
    FDivergence, LossSum, PairContext, PairLogprobs, PairLoss, PairObjective, SequenceLogprobs,
    answer_weights, pair_weights,
};
use serde_json::Value;

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;
use crate::host_values::host_values;

/// Losses of SPPO reach 60, where f32 has a resolution of 4e-6, and are squares: an error of a summed log-probability is
/// multiplied by 15.
const TOLERANCE: Tolerance = Tolerance { absolute: 2e-6, relative: 2e-6 };
/// Gradients of a loss with respect to logits.
const GRADIENTS: Tolerance = Tolerance { absolute: 1e-6, relative: 3e-6 };
/// Settings of the vectors.
const CASES: &str = "cases.json";

/// The losses of `dpo.safetensors`, with the gradients of `dpo_grads.safetensors`.
pub(super) fn replay_logits(path: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let gradients = Vectors::open(&path.with_file_name("dpo_grads.safetensors"))?;
    let cases = cases(&file, path)?;
    let logits = file.floats("policy_logits")?;
    let &[b, t, v] = &logits.shape[..] else {
        return Err(file.bad("tensor `policy_logits` must have three dimensions".to_owned()));
    };
    let texts = Texts::read(&file, b, t, v)?;
    let reference = texts.logits(&file, "ref_logits", &device.clone().inner())?;
    let [mut rows, mut means, mut slopes] = ["rows", "means", "gradients"].map(Quantity::new);
    for name in file.names().iter().filter_map(|name| name.strip_prefix("mean.")) {
        let case = cases.iter().find(|case| case["name"] == name);
        let case = case.ok_or_else(|| file.bad(format!("{CASES} has no case `{name}`")))?;
        let objective = objective(&file, case)?;
        let ld_alpha = case["ld_alpha"].as_f64();
        let leaf_nv = texts.logits(&file, "policy_logits", &device.clone().autodiff())?;
        let leaf_nv = leaf_nv.require_grad();
        let policy = texts.pairs(&leaf_nv, ld_alpha, 1.0);
        let sharpened = texts.pairs(&leaf_nv, ld_alpha, 0.5);
        let is_weighted = case["use_weighting"] == true;
        let context = PairContext {
            mean_chosen_tokens: texts.mean_chosen_tokens(),
            weights_p: is_weighted.then(|| pair_weights(&policy, &sharpened)),
        };
        let losses_p = objective.losses(&policy, &texts.pairs(&reference, ld_alpha, 1.0), &context);
        let row_name = format!("rows.{name}");
        if file.has(&row_name) && !objective.terms.iter().any(|(loss, _)| *loss == PairLoss::Sft) {
            let expected = file.floats_of(&row_name, &losses_p.dims())?;
            rows.add(name, &host_values(&losses_p.clone().inner()), &expected, TOLERANCE);
        }
        let loss = LossSum::of(losses_p);
        let n_pairs = loss.count;
        let mean = loss.mean_over(n_pairs);
        let expected = file.floats_of(&format!("mean.{name}"), &[1])?;
        means.add(name, &host_values(&mean.clone().inner()), &expected, TOLERANCE);
        let grads = mean.backward();
        let gradient = leaf_nv.grad(&grads).ok_or_else(|| {
            file.bad(format!("`{name}` has no gradient with respect to the logits"))
        })?;
        let expected = gradients.floats_of(name, &[b, t, v])?;
        slopes.add(name, &texts.in_file_order(&host_values(&gradient)), &expected, GRADIENTS);
    }
    Ok(vec![rows, means, slopes])
}

/// The losses of `cpo_orpo_bco.safetensors` that recipes have; the file has the log-probabilities of whole answers.
pub(super) fn replay_answers(path: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let floats = |name: &str| -> Result<Tensor<1>> {
        let array = file.floats(name)?;
        let n = array.values.len();
        Ok(Tensor::from_data(TensorData::new(array.values, [n]), device))
    };
    let answers = |side: &str| -> Result<SequenceLogprobs> {
        let sums_p = floats(&format!("sum_{side}"))?;
        // Lengths are whole numbers, which the quotients miss by rounding.
        let n_tokens_p = (sums_p.clone() / floats(&format!("mean_{side}"))?).round();
        Ok(SequenceLogprobs::from_sums(sums_p, n_tokens_p))
    };
    let policy = PairLogprobs { chosen: answers("chosen")?, rejected: answers("rejected")? };
    // The likelihood term of CPO is no part of these rows, so its weight is 0.
    let cpo = |label_smoothing| PairLoss::Cpo { label_smoothing, alpha: 0.0 };
    let context = PairContext { mean_chosen_tokens: 1.0, weights_p: None };
    let losses = |loss: PairLoss, beta: f64| {
        host_values(&PairObjective::one(loss, beta).losses(&policy, &policy, &context))
    };
    let mut quantities = Vec::new();
    let mut add = |name: &str, got: Vec<f32>| -> Result<()> {
        let mut quantity = Quantity::new(name);
        quantity.add("", &got, &file.floats(name)?.values, TOLERANCE);
        quantities.push(quantity);
        Ok(())
    };
    add("cpo.sigmoid", losses(cpo(0.0), 0.1))?;
    add("cpo.sigmoid_smoothed", losses(cpo(0.1), 0.1))?;
    add("cpo.simpo", losses(PairLoss::SimPo { gamma: 1.0 }, 2.0))?;
    // The reference has the negated odds term alone, times β.
    let odds = host_values(&loss::orpo_odds_ratio(&policy).mul_scalar(-0.1));
    add("orpo.losses", odds)?;
    Ok(quantities)
}

/// The settings beside a file.
pub(super) fn cases(file: &Vectors, path: &Path) -> Result<Vec<Value>> {
    let path = path.with_file_name(CASES);
    let bytes = std::fs::read(&path)
        .map_err(|error| file.bad(format!("cannot read {}: {error}", path.display())))?;
    let cases: Value = serde_json::from_slice(&bytes)
        .map_err(|error| file.bad(format!("{}: {error}", path.display())))?;
    Ok(cases.as_array().cloned().unwrap_or_default())
}

/// The objective of a case, whose settings have TRL's names.
fn objective(file: &Vectors, case: &Value) -> Result<PairObjective> {
    let number = |key: &str, default: f64| case[key].as_f64().unwrap_or(default);
    let label_smoothing = number("label_smoothing", 0.0);
    let named = |name: &str| -> Result<PairLoss> {
        Ok(match name {
            "sigmoid" => PairLoss::Sigmoid { label_smoothing: 0.0 },
            "sigmoid_norm" => PairLoss::SigmoidNorm,
            "hinge" => PairLoss::Hinge,
            "ipo" => PairLoss::Ipo,
            "exo_pair" => PairLoss::ExoPair { label_smoothing },
            "nca_pair" => PairLoss::NcaPair,
            "robust" => PairLoss::Robust { label_smoothing },
            "bco_pair" => PairLoss::BcoPair,
            "sppo_hard" => PairLoss::SppoHard,
            "aot" => PairLoss::Aot { label_smoothing },
            "aot_unpaired" => PairLoss::AotUnpaired { label_smoothing },
            "apo_zero" => PairLoss::ApoZero,
            "apo_down" => PairLoss::ApoDown,
            "discopop" => PairLoss::DiscoPop { tau: 0.05 },
            "sft" => PairLoss::Sft,
            other => return Err(file.bad(format!("{CASES} has an unknown loss: `{other}`"))),
        })
    };
    let names: Vec<&str> = match case["loss_types"].as_array() {
        Some(names) => names.iter().filter_map(Value::as_str).collect(),
        None => vec!["sigmoid"],
    };
    let weight = |idx: usize| case["loss_weights"][idx].as_f64().unwrap_or(1.0);
    let terms: Result<Vec<(PairLoss, f64)>> =
        names.iter().enumerate().map(|(idx, name)| Ok((named(name)?, weight(idx)))).collect();
    let divergence = match case["f_divergence_type"].as_str() {
        None | Some("reverse_kl") => FDivergence::ReverseKl,
        Some("forward_kl") => FDivergence::ForwardKl,
        Some("js_divergence") => FDivergence::JensenShannon,
        Some("alpha_divergence") => FDivergence::Alpha(number("f_alpha_divergence_coef", 0.5)),
        Some(other) => {
            return Err(file.bad(format!("{CASES} has an unknown divergence: `{other}`")));
        }
    };
    Ok(PairObjective { terms: terms?, beta: number("beta", 0.1), divergence })
}

/// The texts of the vectors in the order of batches: chosen and rejected rows alternate. The file has all chosen rows first.
struct Texts {
    b: usize,
    t: usize,
    v: usize,
    /// The token that each position predicts, -1 where it belongs to no answer.
    targets: Vec<i32>,
}

impl Texts {
    fn read(file: &Vectors, b: usize, t: usize, v: usize) -> Result<Self> {
        let ids = file.ids("input_ids")?;
        let mask = file.mask("completion_mask", &ids.shape)?;
        if ids.shape != [b, t] || !b.is_multiple_of(2) {
            return Err(file.bad("tensor `input_ids` does not fit the logits".to_owned()));
        }
        let mut targets = Vec::with_capacity(b * t);
        for row in 0..b {
            let next = |at: usize| {
                let is_target = at + 1 < t && mask[row * t + at + 1];
                if is_target { ids.values[row * t + at + 1] as i32 } else { -1 }
            };
            targets.extend((0..t).map(next));
        }
        let texts = Self { b, t, v, targets: Vec::new() };
        let targets = texts.in_batch_order(&targets, t);
        Ok(Self { targets, ..texts })
    }

    /// Rows of `width` values in the order of batches.
    fn in_batch_order<T: Copy>(&self, values: &[T], width: usize) -> Vec<T> {
        let row = |row: usize| values[row * width..(row + 1) * width].iter().copied();
        (0..self.b / 2).flat_map(|pair| row(pair).chain(row(pair + self.b / 2))).collect()
    }

    /// Logits of the batch's order in the order of the file.
    fn in_file_order(&self, values: &[f32]) -> Vec<f32> {
        let width = self.t * self.v;
        let row = |row: usize| values[row * width..(row + 1) * width].iter().copied();
        let side = |side: usize| (0..self.b / 2).flat_map(move |pair| row(2 * pair + side));
        side(0).chain(side(1)).collect()
    }

    /// Logits of the file, `[n, v]`.
    fn logits(&self, file: &Vectors, name: &str, device: &Device) -> Result<Tensor<2>> {
        let values = file.floats_of(name, &[self.b, self.t, self.v])?;
        let values = self.in_batch_order(&values, self.t * self.v);
        Ok(Tensor::from_data(TensorData::new(values, [self.b * self.t, self.v]), device))
    }

    fn mean_chosen_tokens(&self) -> f64 {
        let chosen = self.targets.chunks(self.t).step_by(2).flatten();
        chosen.filter(|target| **target >= 0).count() as f64 / (self.b / 2) as f64
    }

    /// Log-probabilities of the answers, by the function that training calls: the logits are its hidden states, and the
    /// identity is its head.
    fn pairs(
        &self,
        logits_nv: &Tensor<2>,
        ld_alpha: Option<f64>,
        temperature: f64,
    ) -> PairLogprobs {
        let device = logits_nv.device();
        let (p, t) = (self.b / 2, self.t);
        let head: Head = Tensor::<2>::eye(self.v, &device.clone().inner()).into();
        let targets_n = Tensor::<1, Int>::from_data(self.targets.as_slice(), &device);
        let logprobs_n =
            kernels::linear_logprobs(logits_nv.clone(), head, targets_n, temperature).logprobs_n;
        let mask: Vec<bool> = self.targets.iter().map(|target| *target >= 0).collect();
        let weights = answer_weights(&mask, t, ld_alpha.unwrap_or(1.0));
        let floats = |values: Vec<f32>| {
            Tensor::<1>::from_data(TensorData::new(values, [self.b * t]), &logprobs_n.device())
        };
        let mask_n = floats(mask.into_iter().map(|is_one| f32::from(u8::from(is_one))).collect());
        let weights_n = floats(weights);
        let side = |from: usize| {
            let of =
                |x_n: &Tensor<1>| x_n.clone().reshape([p, 2 * t]).slice([0..p, from..from + t]);
            let sums = SequenceLogprobs::from_tokens(of(&logprobs_n), of(&mask_n));
            if ld_alpha.is_some() { sums.weighted(of(&logprobs_n), of(&weights_n)) } else { sums }
        };
        PairLogprobs { chosen: side(0), rejected: side(t) }
    }
}
