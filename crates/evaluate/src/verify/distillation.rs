//! Replays divergences between a teacher's and a student's logits: per position, their means and their gradients.
//!
//! Shape legend: n positions, v vocabulary.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use loss::{Distillation, HostTopTokens};

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;
use crate::host_values::host_values;

/// Divergences reach 8 nats.
const TOLERANCE: Tolerance = Tolerance { absolute: 2e-6, relative: 1e-6 };
/// Gradients of a mean with respect to logits.
const GRADIENTS: Tolerance = Tolerance { absolute: 2e-7, relative: 3e-6 };

/// The divergences of `distillation.safetensors`. A tensor's name has its settings: `per_token.beta0.1.temperature2.0`, or
/// `per_token.top4.beta0.1.temperature2.0` over the teacher's four most probable tokens and the rest.
pub(super) fn replay(path: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let logits = file.floats("student_logits")?;
    let &[b, t, v] = &logits.shape[..] else {
        return Err(file.bad("tensor `student_logits` must have three dimensions".to_owned()));
    };
    let n = b * t;
    let labels = file.matrix("labels")?;
    let is_target: Vec<bool> = labels.values.iter().map(|label| *label >= 0).collect();
    if is_target.len() != n {
        return Err(file.bad("tensor `labels` does not fit the logits".to_owned()));
    }
    let tensor = |name: &str, device: &Device| -> Result<Tensor<2>> {
        let values = file.floats_of(name, &[b, t, v])?;
        Ok(Tensor::from_data(TensorData::new(values, [n, v]), device))
    };
    let targets: Vec<i64> =
        (0..n).filter(|at| is_target.get(*at) == Some(&true)).map(|at| at as i64).collect();
    let at_targets = |logits_nv: &Tensor<2>| {
        let indices = TensorData::new(targets.clone(), [targets.len()]);
        logits_nv.clone().select(0, Tensor::<1, Int>::from_data(indices, &logits_nv.device()))
    };
    let teacher = tensor("teacher_logits", device)?;
    let [mut values, mut means, mut slopes] = ["values", "means", "gradients"].map(Quantity::new);
    for name in file.names().iter().filter_map(|name| name.strip_prefix("per_token.")) {
        let unreadable = || file.bad(format!("`{name}` names no β and no temperature"));
        let (top_k, loss) = settings(name).ok_or_else(unreadable)?;
        let leaf_nv = tensor("student_logits", &device.clone().autodiff())?.require_grad();
        let top = |teacher_nv: &Tensor<2>| {
            let logprobs_nv = loss.log_probabilities(teacher_nv.clone());
            top_k.map(|k| HostTopTokens::select(&logprobs_nv, k).to_device(k, device))
        };
        let values_n = match top(&teacher) {
            Some(top) => loss.with_gradient_of_top(&leaf_nv, &top).0,
            None => loss.with_gradient(&leaf_nv, &teacher).0,
        };
        let expected = file.floats_of(&format!("per_token.{name}"), &[b, t])?;
        values.add(name, &host_values(&values_n), &expected, TOLERANCE);
        let (student_mv, teacher_mv) = (at_targets(&leaf_nv), at_targets(&teacher));
        let sum = match top(&teacher_mv) {
            Some(top) => loss.loss_of_top(student_mv, &top),
            None => loss.loss(student_mv, &teacher_mv),
        };
        let mean = sum.mean_over(targets.len() as u64);
        let expected = file.floats_of(&format!("mean.{name}"), &[1])?;
        means.add(name, &host_values(&mean.clone().inner()), &expected, TOLERANCE);
        let with_gradient = format!("grad.{name}");
        if file.has(&with_gradient) {
            let grads = mean.backward();
            let gradient = leaf_nv.grad(&grads).ok_or_else(|| {
                file.bad(format!("`{name}` has no gradient with respect to the logits"))
            })?;
            let expected = file.floats_of(&with_gradient, &[b, t, v])?;
            slopes.add(name, &host_values(&gradient), &expected, GRADIENTS);
        }
    }
    Ok(vec![values, means, slopes])
}

/// The number of tokens and the divergence that a tensor's name has.
fn settings(name: &str) -> Option<(Option<usize>, Distillation)> {
    let (top_k, rest) = match name.strip_prefix("top") {
        Some(rest) => {
            let (k, rest) = rest.split_once('.')?;
            (Some(k.parse().ok()?), rest)
        }
        None => (None, name),
    };
    let (beta, temperature) = rest.strip_prefix("beta")?.split_once(".temperature")?;
    let (beta, temperature) = (beta.parse().ok()?, temperature.parse().ok()?);
    Some((top_k, Distillation { beta, temperature }))
}
