//! Replays reference vectors: determines their kind, computes the same values, reports the differences.
//!
//! Each kind has its own file, with its tolerances.

mod adapter;
mod causal_lm;
mod continuation;
mod gguf_blocks;
mod gradients;
mod group;
mod group_losses;
mod kind;
mod pair_losses;
mod ppo;
mod preference;
mod proof;
mod quantised;
mod report;
mod reward;
mod sampling;
mod summed_loss;
mod trained_weights;
mod training;
mod vectors;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use self::kind::Kind;
pub use self::report::{Outcome, Quantity, Report, Tolerance};
use crate::error::{Error, Result};

/// The depth to which a directory is searched.
const MAX_DEPTH: usize = 4;

/// Replays the reference vectors at a path, or those of every reference in a directory, in order.
///
/// `device` has no autodiff. A reference that cannot be replayed gives a report with an error, so there is at least one
/// report.
pub fn verify(path: &Path, device: &Device) -> Vec<Report> {
    verify_on_base(path, None, device)
}

/// As [`verify`]; proofs of adapters are replayed on `base`.
pub fn verify_on_base(path: &Path, base: Option<&Path>, device: &Device) -> Vec<Report> {
    let mut reports = Vec::new();
    search(path, &Replay { base, device }, 0, &mut reports);
    if reports.is_empty() {
        let error = Error::NoReference { path: path.to_owned() };
        reports.push(report(path, "unknown", Err(error)));
    }
    reports
}

/// The settings of all replays of a call.
struct Replay<'a> {
    /// Base model of adapters with a proof.
    base: Option<&'a Path>,
    device: &'a Device,
}

fn search(path: &Path, settings: &Replay, depth: usize, reports: &mut Vec<Report>) {
    match Kind::of(path) {
        Ok(Some(kind)) => reports.push(settings.run(path, kind)),
        Ok(None) if depth < MAX_DEPTH => match candidates(path) {
            Ok(inside) => inside.iter().for_each(|path| search(path, settings, depth + 1, reports)),
            Err(error) => reports.push(report(path, "unknown", Err(error))),
        },
        Ok(None) => {}
        // Other files of a searched directory are ignored.
        Err(Error::NoReference { .. }) if depth > 0 => {}
        Err(error) => reports.push(report(path, "unknown", Err(error))),
    }
}

impl Replay<'_> {
    /// Replays a reference or proof of a kind.
    fn run(&self, path: &Path, kind: Kind) -> Report {
        if kind != Kind::Proof {
            return report(path, kind.name(), replay(path, kind, self.device));
        }
        match proof::replay(path, self.base, self.device) {
            Ok((quantities, note)) => Report { note, ..report(path, kind.name(), Ok(quantities)) },
            Err(error) => report(path, kind.name(), Err(error)),
        }
    }
}

/// Replays a reference of a kind.
fn replay(path: &Path, kind: Kind, device: &Device) -> Result<Vec<Quantity>> {
    match kind {
        Kind::CausalLm => causal_lm::replay(path, device),
        Kind::WidenedLm => causal_lm::replay_widened(path, device),
        Kind::TrainingFull => training::replay(path, device),
        Kind::Sampling => sampling::replay(path),
        Kind::TrainingLora => training::replay_lora(path, device),
        Kind::Adapter => adapter::replay(path, device),
        Kind::AdapterInit => adapter::replay_init(path, device),
        Kind::PackedBlocks => quantised::replay_blocks(path),
        Kind::GgufBlocks => gguf_blocks::replay(path),
        Kind::PackedLayer => quantised::replay_layer(path),
        Kind::PackedLm => quantised::replay_model(path, device),
        Kind::Reward => reward::replay(path, device),
        Kind::Preference => preference::replay(path, device),
        Kind::PairLosses => pair_losses::replay_logits(path, device),
        Kind::AnswerLosses => pair_losses::replay_answers(path, device),
        Kind::Ppo => ppo::replay(path, device),
        Kind::Grpo | Kind::Rloo => group::replay(path, device),
        Kind::GroupLosses => group_losses::replay(path, device),
        Kind::Refusal => Ok(vec![adapter::refusal(path)]),
        Kind::Proof => Ok(proof::replay(path, None, device)?.0),
    }
}

/// The entries of a directory that may be references: directories, and safetensors files unless they belong to a model.
fn candidates(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source: std::io::Error| Error::BadVectors {
        path: dir.to_owned(),
        reason: format!("cannot be listed: {source}"),
    };
    let is_model = ["config.json", "adapter_config.json"].iter().any(|f| dir.join(f).exists());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_vectors = path.extension().is_some_and(|e| e == "safetensors") && !is_model;
        if path.is_dir() || is_vectors || proof::has_proof(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn report(path: &Path, kind: &str, replayed: Result<Vec<Quantity>>) -> Report {
    let (quantities, error) = match replayed {
        Ok(quantities) => (quantities, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Report {
        path: path.display().to_string(),
        kind: kind.to_owned(),
        quantities,
        note: None,
        hint: error.as_ref().and_then(Error::hint),
        error: error.map(|error| error.to_string()),
    }
}
