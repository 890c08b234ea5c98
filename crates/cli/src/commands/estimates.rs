//! Durations that `temper plan` measured by its probes, stored in the cache for the report of a run of the same plan.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plan::Plan;
use serde_json::json;

/// Directory of the estimates in the cache.
pub(super) const ESTIMATES: &str = "estimates";
/// Size of a file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Stores the seconds of stages that were probed. A failure changes nothing but the report.
pub(super) fn save(plan: &Plan, seconds: &[Option<f64>]) {
    let names = plan.stages.iter().map(|stage| &stage.name);
    let known: BTreeMap<&String, f64> =
        names.zip(seconds).filter_map(|(name, seconds)| Some((name, (*seconds)?))).collect();
    let path = path(plan);
    if known.is_empty() || path.parent().is_none_or(|dir| fsio::create_dir_all(dir).is_err()) {
        return;
    }
    let _ = fsio::write_atomic(path, json!(known).to_string() + "\n");
}

/// The seconds of stages, if this plan was probed.
pub(super) fn read(plan: &Plan) -> BTreeMap<String, f64> {
    let text = fsio::read_text_capped(path(plan), MAX_BYTES).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The file of a plan: its name is a hash of everything that the time depends on, but not of the run's name.
fn path(plan: &Plan) -> PathBuf {
    let recipe = recipe::Recipe { name: None, ..plan.recipe.clone() };
    let stages = plan.stages.iter().map(|stage| (&stage.name, stage.max_steps, stage.cost.flops));
    let key = json!([recipe, kernels::n_threads(), stages.collect::<Vec<_>>()]);
    let name = fsio::sha256_hex(key.to_string().as_bytes());
    plan.paths.cache_dir.join(ESTIMATES).join(format!("{name}.json"))
}
