//! A run that is saved, loaded and taken up again, on the device and on the CPU, against the one that was never cut.
//!
//! It deliberately goes through the files of a checkpoint: what a device cannot write or read shows here.

use std::path::Path;

use arch::ModelConfig;
use burn::tensor::Device;
use fsio::DirWriter;
use model::CausalLm;
use train::Optimizer;

use super::model_on;
use super::steps::{go_on, settings, train};
use crate::error::Result;
use crate::verify::{Quantity, Tolerance};

/// Steps before the cut, and steps in all.
const CUT: u64 = 3;
const N_STEPS: u64 = 6;
/// Losses on the CPU after a checkpoint of a GPU, by what the issue of it allows.
const ELSEWHERE: Tolerance = Tolerance { absolute: 1e-3, relative: 0.0 };
/// On a GPU the order of some sums is not fixed; on the CPU every bit is.
const ON_A_GPU: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };
/// Rounded products differ by more, and by as much on both sides of a cut.
const ROUNDED: Tolerance = Tolerance { absolute: 1e-2, relative: 1e-2 };

pub(super) fn compare(config: &ModelConfig, device: &Device, dir: &Path) -> Result<Vec<Quantity>> {
    let trained = train(model_on(config, device), CUT, device)?;
    let mut writer = DirWriter::begin(dir)?;
    train::save_trained(&mut writer, train::MODEL_FILE, &trained.model)?;
    trained.optimizer.save(&mut writer)?;
    writer.commit(serde_json::json!({}))?;
    let (_, _, whole) = go_on(trained.model, trained.optimizer, CUT..N_STEPS, device)?;

    let full = kernels::precision() == kernels::Precision::F32;
    let exact = kernels::is_cpu(device);
    let here = match (exact, full) {
        (true, _) => Tolerance::absolute(0.0),
        (false, true) => ON_A_GPU,
        (false, false) => ROUNDED,
    };
    let mut quantities = Vec::new();
    let cpu = kernels::device("cpu").unwrap_or_else(|_| device.clone());
    let elsewhere = if full { ELSEWHERE } else { ROUNDED };
    for (name, place, tolerance) in
        [("on_the_device", device, here), ("on_the_cpu", &cpu, elsewhere)]
    {
        let (model, optimizer) = load(config, dir, place)?;
        let (_, _, resumed) = go_on(model, optimizer, CUT..N_STEPS, place)?;
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
