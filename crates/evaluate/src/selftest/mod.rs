//! `temper selftest`: compares a device with the CPU on models initialized from a seed, so that it needs no files.
//!
//! The reference is the CPU with generic kernels in f32, so that each CPU kernel, and each product of a GPU, is compared
//! with burn's tensor operations.

mod models;
mod resume;
mod steps;

use std::path::Path;

use arch::ModelConfig;
use burn::tensor::Device;
use kernels::Precision;
use model::CausalLm;

use self::steps::{Trained, train};
use crate::error::Result;
use crate::verify::{Quantity, Report, Tolerance};

/// Number of training steps.
const N_STEPS: u64 = 4;

/// Tolerances of a device's differences from the CPU, by the precision of its products. In tf32 and bf16 about four times the
/// largest difference of a correct implementation.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Logits, hidden states, losses.
    values: Tolerance,
    /// Each gradient tensor.
    gradients: Tolerance,
    /// Weights after the steps.
    weights: Tolerance,
    /// Losses of the steps.
    losses: Tolerance,
}

impl Bounds {
    fn of(precision: Precision) -> Self {
        let relative = |relative| Tolerance { absolute: 1e-4, relative };
        match precision {
            Precision::F32 => Self {
                values: Tolerance::absolute(1e-4),
                gradients: Tolerance { absolute: 1e-5, relative: 1e-4 },
                weights: Tolerance::absolute(5e-4),
                losses: Tolerance::absolute(1e-4),
            },
            Precision::Tf32 => Self {
                values: relative(1e-3),
                gradients: relative(4e-3),
                weights: Tolerance::absolute(4e-3),
                losses: Tolerance::absolute(1e-4),
            },
            Precision::Bf16 => Self {
                values: relative(1.5e-2),
                gradients: relative(3e-2),
                weights: Tolerance::absolute(2e-2),
                losses: Tolerance::absolute(1e-3),
            },
        }
    }
}

/// Compares a device with the CPU on a small model of each family: logits, losses, gradients, steps of AdamW; then saves,
/// loads and resumes, on the device and on the CPU. Files are written to the empty directory `scratch`.
///
/// `device` has no autodiff. Products are in the precision of the process; the reference's are f32.
pub fn selftest(device: &Device, scratch: &Path) -> Vec<Report> {
    let bounds = Bounds::of(kernels::precision());
    let mut reports = Vec::new();
    for (family, description) in models::descriptions() {
        let config = ModelConfig::from_json(&description, Path::new(family));
        let dir = scratch.join(family);
        let parity = config
            .as_ref()
            .map_err(clone_text)
            .and_then(|config| parity(config, device, &bounds).map_err(|error| error.to_string()));
        reports.push(report(family, "parity", parity));
        let resumed = config.as_ref().map_err(clone_text).and_then(|config| {
            resume::compare(config, device, &dir).map_err(|error| error.to_string())
        });
        reports.push(report(family, "resume", resumed));
    }
    reports
}

fn clone_text(error: &arch::Error) -> String {
    error.to_string()
}

fn report(path: &str, kind: &str, outcome: std::result::Result<Vec<Quantity>, String>) -> Report {
    let (quantities, error) = match outcome {
        Ok(quantities) => (quantities, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Report {
        path: path.to_owned(),
        kind: kind.to_owned(),
        quantities,
        note: None,
        error,
        hint: None,
    }
}

/// Runs with generic kernels in f32.
fn reference<R>(run: impl FnOnce() -> R) -> R {
    kernels::with_precision(Precision::F32, || kernels::with_generic_kernels(run))
}

fn parity(config: &ModelConfig, device: &Device, bounds: &Bounds) -> Result<Vec<Quantity>> {
    let cpu = kernels::device("cpu").unwrap_or_else(|_| device.clone());
    let expected = reference(|| train(model_on(config, &cpu), N_STEPS, &cpu))?;
    let got = train(model_on(config, device), N_STEPS, device)?;
    let mut quantities = vec![
        one("logits", &got.logits, &expected.logits, bounds.values),
        each("gradients", &got.gradients, &expected.gradients, bounds.gradients),
        one("losses", &got.losses, &expected.losses, bounds.losses),
        each("weights", &got.weights()?, &expected.weights()?, bounds.weights),
    ];
    // If the steps changed no weight, equal weights would prove nothing.
    let start = Trained::weights_of(&model_on(config, &cpu))?;
    let n_unchanged = expected.weights()?.iter().zip(&start).filter(|(a, b)| a.1 == b.1).count();
    quantities.push(Quantity::mistakes("tensors_unchanged_by_training", n_unchanged, start.len()));
    Ok(quantities)
}

fn model_on(config: &ModelConfig, device: &Device) -> CausalLm {
    CausalLm::init(config, 11, &device.clone().autodiff())
}

fn one(name: &str, got: &[f32], expected: &[f32], tolerance: Tolerance) -> Quantity {
    let mut quantity = Quantity::new(name);
    quantity.add("", got, expected, tolerance);
    quantity
}

/// Compares tensors by name; an infinite difference if the names differ.
fn each(
    name: &str,
    got: &[(String, Vec<f32>)],
    expected: &[(String, Vec<f32>)],
    tolerance: Tolerance,
) -> Quantity {
    let mut quantity = Quantity::new(name);
    if !got.iter().map(|(name, _)| name).eq(expected.iter().map(|(name, _)| name)) {
        quantity.add_difference(Some("names"), f64::INFINITY, 0.0, 1);
    }
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        quantity.add(name, got, expected, tolerance);
    }
    quantity
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arch::ModelConfig;
    use kernels::Precision;

    use super::{Bounds, models, parity, selftest};
    use crate::verify::Quantity;

    #[test]
    fn the_cpu_passes_and_resumes_to_the_bit() {
        let scratch = tempfile::tempdir().expect("a directory");
        let device = kernels::device("cpu").expect("the CPU");
        let reports = selftest(&device, scratch.path());
        assert_eq!(reports.len(), 4);
        for report in reports {
            assert!(report.passed(), "{}", report.to_json());
            if report.kind == "resume" {
                assert!(report.quantities.iter().all(|q| q.largest_difference == 0.0));
            }
        }
    }

    /// Rounded products stand in for a device with wrong results.
    #[test]
    fn a_device_that_rounds_fails_in_f32_and_passes_in_bf16() {
        let device = kernels::device("cpu").expect("the CPU");
        for (family, description) in models::descriptions() {
            let config = ModelConfig::from_json(&description, Path::new(family)).expect("a shape");
            let quantities = |bounds: Precision| {
                kernels::with_precision(Precision::Bf16, || {
                    parity(&config, &device, &Bounds::of(bounds)).expect("computed")
                })
            };
            let failed: Vec<String> = quantities(Precision::F32)
                .into_iter()
                .filter_map(|quantity| (!quantity.passed()).then_some(quantity.name))
                .collect();
            assert!(failed.contains(&"logits".to_owned()), "{family}: {failed:?}");
            assert!(failed.contains(&"gradients".to_owned()), "{family}: {failed:?}");
            assert!(quantities(Precision::Bf16).iter().all(Quantity::passed), "{family}");
        }
    }
}
