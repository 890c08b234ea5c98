//! Comparison of a trained model's weights with those of a reference after the same updates.

use std::path::Path;

use burn::module::Module;

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::{Error, Result};

/// Tolerance of each weight. Where a gradient is rounding error, AdamW's first steps follow its sign, which depends on the
/// processor's order of sums; this allows half a step at the references' learning rate, and `MOST_WEIGHTS` bounds all other
/// weights.
const WORST_WEIGHT: f64 = 5e-4;
/// Tolerance of all but one weight in a thousand. If a gradient is as small as AdamW's epsilon, a rounding error can become a
/// whole step of that weight.
const MOST_WEIGHTS: f64 = 1e-6;
const MOST: f64 = 0.999;

/// Differences of a trained model's weights from the reference's.
pub(super) struct Weights {
    name: &'static str,
    differences: Vec<f64>,
    worst: Quantity,
}

/// Compares all weights of a trained model with the directory `name`.
pub(super) fn compare_weights<M: Module>(
    name: &'static str,
    model: &M,
    dir: &Path,
) -> Result<Weights> {
    let after = Vectors::open(&dir.join(name).join("model.safetensors"))?;
    let mut worst = Quantity::new(&format!("{name}_worst"));
    let (mut differences, mut n_compared) = (Vec::new(), 0);
    model::visit_tensors(model, |name, shape, values| {
        n_compared += 1;
        let expected = after.floats_of(name, shape)?;
        worst.add(name, values, &expected, Tolerance::absolute(WORST_WEIGHT));
        let pairs = values.iter().zip(&expected);
        differences.extend(pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()));
        Ok::<(), Error>(())
    })?;
    if n_compared != after.names().len() {
        worst.add_difference(Some("number of tensors"), f64::INFINITY, 0.0, 1);
    }
    Ok(Weights { name, differences, worst })
}

impl Weights {
    /// The largest difference.
    pub(super) fn worst(self) -> Quantity {
        self.worst
    }

    /// All but one weight in a thousand. NaN sorts last; [`Self::worst`] reports it.
    pub(super) fn most(mut self) -> Quantity {
        self.differences.sort_by(f64::total_cmp);
        let rank = (self.differences.len() as f64 * MOST) as usize;
        let difference = self.differences.get(rank).copied().unwrap_or(f64::INFINITY);
        let mut quantity = Quantity::new(&format!("{}_99_9_percent", self.name));
        quantity.add_difference(None, difference, MOST_WEIGHTS, rank);
        quantity
    }
}
