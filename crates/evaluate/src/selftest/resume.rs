//! Compares a run that is saved, loaded and resumed, on the device and on the CPU, with an uninterrupted one.
//!
//! The weights and the optimizer state go through files, so reading and writing are tested too.

use std::path::Path;

use arch::ModelConfig;
use burn::tensor::Device;
use fsio::DirWriter;
use model::CausalLm;
use train::Optimizer;

use super::model_on;
use super::steps::{continue_training, settings, train};
use crate::error::Result;
use crate::verify::{Quantity, Tolerance};

/// Number of steps before the checkpoint, and in total.
const N_SAVED: u64 = 3;
const N_STEPS: u64 = 6;
/// Losses on the CPU after resuming a GPU's checkpoint.
const ON_THE_CPU: Tolerance = Tolerance { absolute: 1e-3, relative: 0.0 };
/// On a GPU the order of some sums is not fixed; on the CPU results are equal to the bit.
const ON_A_GPU: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };
/// Rounded products differ by more, on either device: about four times the largest difference of a correct implementation.
const ROUNDED: Tolerance = Tolerance { absolute: 3e-4, relative: 0.0 };

pub(super) fn compare(config: &ModelConfig, device: &Device, dir: &Path) -> Result<Vec<Quantity>> {
    let trained = train(model_on(config, device), N_SAVED, device)?;
    let mut writer = DirWriter::begin(dir)?;
    train::save_trained(&mut writer, train::MODEL_FILE, &trained.model)?;
    trained.optimizer.save(&mut writer)?;
    writer.commit(serde_json::json!({}))?;
    let (_, _, whole) =
        continue_training(trained.model, trained.optimizer, N_SAVED..N_STEPS, device)?;

    let full = kernels::precision() == kernels::Precision::F32;
    let exact = kernels::is_cpu(device);
    let on_the_device = match (exact, full) {
        (true, _) => Tolerance::absolute(0.0),
        (false, true) => ON_A_GPU,
        (false, false) => ROUNDED,
    };
    let mut quantities = Vec::new();
    let cpu = kernels::device("cpu").unwrap_or_else(|_| device.clone());
    let on_the_cpu = if full { ON_THE_CPU } else { ROUNDED };
    for (name, place, tolerance) in
        [("on_the_device", device, on_the_device), ("on_the_cpu", &cpu, on_the_cpu)]
    {
        let (model, optimizer) = load(config, dir, place)?;
        let (_, _, resumed) = continue_training(model, optimizer, N_SAVED..N_STEPS, place)?;
        let mut quantity = Quantity::new(&format!("losses_resumed_{name}"));
        quantity.add("", &resumed, &whole, tolerance);
        quantities.push(quantity);
    }
    Ok(quantities)
}

fn load(config: &ModelConfig, dir: &Path, device: &Device) -> Result<(CausalLm, Optimizer)> {
    let model = train::load_trained(
        CausalLm::init(config, 12, &device.clone().autodiff()),
        &dir.join(train::MODEL_FILE),
        &str::to_owned,
    )?;
    let optimizer = Optimizer::load(dir, settings(), &model, device)?;
    Ok((model, optimizer))
}
