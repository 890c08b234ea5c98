//! Replays the proof of an export: ids of its prompts, greedy ids, the largest logits or the scores.

use std::path::Path;

use arch::{ADAPTER_CONFIG, Architecture};
use burn::tensor::Device;
use model::{CausalLm, SavedModel, ScalarModel};

use super::report::Quantity;
use crate::error::{Error, Result};
use crate::proof::{
    Output, Proof, ProvenModel, adapter_hash, compare, has_same_ids, open_on_base, tokenizer_of,
};

/// A directory or GGUF file with a proof. `base` is the base model of an adapter.
///
/// The second value is a remark about the hash of the weights.
pub(super) fn replay(
    path: &Path,
    base: Option<&Path>,
    device: &Device,
) -> Result<(Vec<Quantity>, Option<String>)> {
    let proof = Proof::read(path)?;
    let mut quantities = vec![compare_ids(path, base, &proof)?];
    let values = match proof.output {
        Output::Logits => values::<CausalLm>(path, base, &proof, device)?,
        Output::Scores => values::<ScalarModel>(path, base, &proof, device)?,
    };
    quantities.extend(values);
    Ok((quantities, remark(path, &proof)?))
}

/// Whether a path has a proof.
pub(super) fn has_proof(path: &Path) -> bool {
    Proof::path_of(path).is_file() && (path.is_dir() || gguf::is_gguf(path))
}

fn compare_ids(path: &Path, base: Option<&Path>, proof: &Proof) -> Result<Quantity> {
    let tokenizer = tokenizer_of(path, base)?;
    let mut n_wrong = 0;
    for prompt in &proof.prompts {
        let same = has_same_ids(&tokenizer, prompt, proof.output, proof.clock)?;
        n_wrong += usize::from(!same || prompt.ids.is_empty());
    }
    Ok(Quantity::mistakes("prompt_ids", n_wrong, proof.prompts.len()))
}

fn values<M: ProvenModel>(
    path: &Path,
    base: Option<&Path>,
    proof: &Proof,
    device: &Device,
) -> Result<Vec<Quantity>> {
    let model: M = if path.join(ADAPTER_CONFIG).is_file() {
        let recorded = recorded_base(path)?;
        let Some(base) = base.map(Path::to_owned).or(recorded) else {
            let reason = "the proof of an adapter needs its base model";
            return Err(Error::ProofBase { path: path.to_owned(), reason });
        };
        if proof.base_sha256.as_deref() != Some(plan::weights_hash(&base)?.as_str()) {
            let reason = "the base model has other weights than that of the proof";
            return Err(Error::ProofBase { path: path.to_owned(), reason });
        }
        open_on_base(path, &base)?
    } else {
        let architecture = arch::ModelInfo::read(path)?.architecture;
        if architecture != <M as SavedModel>::ARCHITECTURE {
            let found = match architecture {
                Architecture::CausalLm => "a language model",
                Architecture::SequenceClassifier => "a sequence classifier",
            };
            let reason = format!("its answers are not those of {found}");
            return Err(Error::BadProof { path: Proof::path_of(path), reason });
        }
        M::load(path, device)?
    };
    Ok(compare(&model, &proof.prompts, proof.tolerance))
}

/// The base model that an adapter's directory records, if it records one.
fn recorded_base(path: &Path) -> Result<Option<std::path::PathBuf>> {
    if !path.join(plan::BASE_FILE).is_file() {
        return Ok(None);
    }
    Ok(plan::recorded_base(path)?)
}

fn remark(path: &Path, proof: &Proof) -> Result<Option<String>> {
    let is_adapter = path.join(ADAPTER_CONFIG).is_file();
    let hash = if is_adapter { adapter_hash(path)? } else { plan::weights_hash(path)? };
    let changed = "the weight files are not those of the proof (sha256)";
    Ok((hash != proof.weights_sha256).then(|| changed.to_owned()))
}
