//! Compares the gradients of a backward pass with those of the reference.

use std::path::Path;

use train::{Gradients, ParameterNames};

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;
use crate::host_values::host_values;

/// The parameters that a file of reference gradients has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Covers {
    /// All: a parameter without a reference fails.
    All,
    /// Some.
    Some,
}

/// Compares each gradient of the file. A parameter without a gradient fails, except an expert without tokens, whose gradient
/// is zeros in the reference.
pub(super) fn compare(
    quantity: &str,
    gradients: &Gradients,
    names: &ParameterNames,
    path: &Path,
    covers: Covers,
) -> Result<Quantity> {
    let reference = Vectors::open(path)?;
    let strides = reference.row_strides()?;
    let mut quantity = Quantity::new(quantity);
    for name in reference.names() {
        let expected = reference.floats(&name)?;
        let got = match gradients.get(&name) {
            Some(gradient) => host_values(gradient),
            None if arch::is_expert_parameter(&name) => vec![0.0; expected.values.len()],
            None => Vec::new(),
        };
        let got = match (strides.get(&name), expected.shape.as_slice()) {
            (Some(stride), &[_, width]) if gradients.get(&name).is_some() => {
                got.chunks(width.max(1)).step_by((*stride).max(1)).flatten().copied().collect()
            }
            _ => got,
        };
        quantity.add(&name, &got, &expected.values, Tolerance::GRADIENTS);
    }
    if covers == Covers::All {
        for name in names.iter().filter(|name| !reference.has(name)) {
            quantity.add_difference(Some(name), f64::INFINITY, 0.0, 1);
        }
    }
    Ok(quantity)
}
