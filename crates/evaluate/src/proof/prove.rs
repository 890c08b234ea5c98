//! The steps of an export with proof: answers before writing, comparison after it.

use std::path::Path;

use arch::LoraInit;
use burn::tensor::Device;
use model::SavedModel;
use tokenizer::Tokenizer;
use train::BaseModelCache;

use super::distance::{PromptLogits, distance, logits_of};
use super::prompts::{CLOCK, choose_prompts, n_greedy, prompt_ids};
use super::{Answer, Output, Prompt, Proof, ProvenModel, Rounding, SourceDistance};
use crate::error::{Error, Result};
use crate::proof::answers::Differences;
use crate::verify::Quantity;

/// The answers of a model in memory, which its files must give too.
#[derive(Debug)]
pub struct SourceAnswers {
    prompts: Vec<Prompt>,
    n_new: usize,
    /// All logits, for weights that will be packed.
    logits: Option<PromptLogits>,
}

/// A proof, with the distance of the written model from its source.
#[derive(Debug)]
pub struct Proven {
    /// The proof.
    pub proof: Proof,
    /// The largest difference of a logit or score from the source's, which is that of rounding.
    pub moved: f64,
}

impl SourceAnswers {
    /// Answers the prompts that are chosen for the model. `n_positions` is the context length of the
    /// written model, if it is another than the model's.
    pub fn of<M: ProvenModel>(
        model: &M,
        tokenizer: &Tokenizer,
        n_positions: Option<usize>,
    ) -> Result<Self> {
        let output = Output::of(M::ARCHITECTURE);
        let config = SavedModel::config(model);
        let n_positions = n_positions.unwrap_or_else(|| config.max_positions());
        let mut prompts = choose_prompts(tokenizer, config, n_positions, output);
        let n_new = n_greedy(n_positions);
        for prompt in &mut prompts {
            prompt.answer = model.answer(&prompt.ids, n_new, &tokenizer.eos_ids())?;
        }
        Ok(Self { prompts, n_new, logits: None })
    }

    /// Stores all logits of the model too if `rounding` packs its weights, so that the proof has the distance from it.
    #[must_use]
    pub fn with_logits<M: ProvenModel>(self, model: &M, rounding: Rounding) -> Self {
        let logits = rounding.largest_kl().map(|_| logits_of(model, &self.prompts));
        Self { logits, ..self }
    }

    /// Opens a written directory or GGUF file, compares its answers with these, and makes them the proof.
    ///
    /// Errors: a difference that the rounding does not explain.
    pub fn prove<M: ProvenModel>(self, path: &Path, rounding: Rounding) -> Result<Proven> {
        let model = M::load(path, &Device::flex())?;
        let hashes = (plan::weights_hash(path)?, None);
        self.prove_with(&model, &Tokenizer::from_dir_or_file(path)?, rounding, hashes)
    }

    /// As [`Self::prove`], for an adapter that is opened on `base`.
    ///
    /// An adapter on packed base weights computes something else on unpacked ones, so its answers are not compared.
    pub fn prove_adapter<M: ProvenModel>(
        self,
        path: &Path,
        base: &Path,
        rounding: Rounding,
        is_packed: bool,
    ) -> Result<Proven> {
        let model: M = open_on_base(path, base)?;
        let hashes = (adapter_hash(path)?, Some(plan::weights_hash(base)?));
        let starts_from_weights = lora::Peft::read(path).map_err(lora::Error::from)?.lora.init;
        let tokenizer = tokenizer_of(path, Some(base))?;
        if !is_packed && starts_from_weights == LoraInit::Default {
            return self.prove_with(&model, &tokenizer, rounding, hashes);
        }
        let prompts = self.answered(&model, &tokenizer)?;
        let proof = Proof::new(M::ARCHITECTURE, rounding, hashes, prompts);
        Ok(Proven { proof, moved: f64::NAN })
    }

    fn prove_with<M: ProvenModel>(
        self,
        model: &M,
        tokenizer: &Tokenizer,
        rounding: Rounding,
        hashes: (String, Option<String>),
    ) -> Result<Proven> {
        for (idx, prompt) in self.prompts.iter().enumerate() {
            if !has_same_ids(tokenizer, prompt, Output::of(M::ARCHITECTURE), CLOCK)? {
                let reason = format!("the tokenizer encodes prompt {} differently", idx + 1);
                return Err(Error::NoProof { reason });
            }
        }
        let largest = self.prompts.iter().map(|prompt| prompt.answer.largest());
        let bound = rounding.moves_logits_by(largest.fold(0.0, f32::max));
        let compared = compare(model, &self.prompts, bound.unwrap_or(f64::INFINITY));
        let moved = compared.first().map_or(f64::NAN, |values| values.largest_difference);
        // With greedy ids of other weights, only the values are compared.
        let failed = compared.iter().find(|quantity| {
            !quantity.passed() && (quantity.name != "greedy_ids" || rounding.is_exact())
        });
        if let Some(quantity) = failed.filter(|_| bound.is_some()) {
            let place = quantity.at.clone().unwrap_or_default();
            return Err(Error::NoProof {
                reason: format!(
                    "{} differ by {:.1e} ({place}), accepted is {:.1e}",
                    quantity.name, quantity.largest_difference, quantity.tolerance
                ),
            });
        }
        let from_source = self.distance(model, rounding)?;
        let prompts = self.answered(model, tokenizer)?;
        let proof = Proof::new(M::ARCHITECTURE, rounding, hashes, prompts);
        Ok(Proven { proof: Proof { from_source, ..proof }, moved })
    }

    /// The distance of packed weights from their source.
    ///
    /// Errors: it is larger than packing explains.
    fn distance<M: ProvenModel>(
        &self,
        model: &M,
        rounding: Rounding,
    ) -> Result<Option<SourceDistance>> {
        let (Some(source), Some(accepted)) = (&self.logits, rounding.largest_kl()) else {
            return Ok(None);
        };
        let found = distance(source, model, &self.prompts);
        // Not a number counts as too large.
        if found.kl_nats_per_token <= accepted && found.largest_logit_difference.is_finite() {
            return Ok(Some(found));
        }
        Err(Error::NoProof {
            reason: format!(
                "packing in {} moves the distribution of next tokens by a KL divergence of {:.2} nats \
                 per token, accepted is {accepted}; a larger type, such as q8_0 or f16, moves it less",
                rounding.name(),
                found.kl_nats_per_token
            ),
        })
    }

    /// The prompts with the answers of another model.
    fn answered<M: ProvenModel>(self, model: &M, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
        let (n_new, eos_ids) = (self.n_new, tokenizer.eos_ids());
        let answer = |prompt: Prompt| {
            let answer: Answer = model.answer(&prompt.ids, n_new, &eos_ids)?;
            Ok(Prompt { answer, ..prompt })
        };
        self.prompts.into_iter().map(answer).collect()
    }
}

/// The differences of a model's values from stored answers.
pub(crate) fn compare<M: ProvenModel>(
    model: &M,
    prompts: &[Prompt],
    tolerance: f64,
) -> Vec<Quantity> {
    let name = match Output::of(M::ARCHITECTURE) {
        Output::Logits => "logits",
        Output::Scores => "scores",
    };
    let mut differences = Differences::new(name, tolerance);
    for (idx, prompt) in prompts.iter().enumerate() {
        let place = format!("prompt {}", idx + 1);
        model.compare(&prompt.ids, &prompt.answer, &place, &mut differences);
    }
    differences.finish()
}

/// Whether a tokenizer gives the ids of a prompt, or first the ids of one that was cut.
pub(crate) fn has_same_ids(
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    output: Output,
    clock: u64,
) -> Result<bool> {
    let ids = prompt_ids(tokenizer, prompt, output, clock)?;
    Ok(ids.is_none_or(|ids| ids.starts_with(&prompt.ids)))
}

/// An adapter opened on a base model.
pub(crate) fn open_on_base<M: ProvenModel>(path: &Path, base: &Path) -> Result<M> {
    Ok(BaseModelCache::new(&Device::flex()).open_on_base(base, path)?)
}

/// The tokenizer of a directory, or of an adapter's base model if the adapter's directory has none.
pub(crate) fn tokenizer_of(path: &Path, base: Option<&Path>) -> Result<Tokenizer> {
    let has_own = gguf::is_gguf(path) || path.join("tokenizer.json").is_file();
    let dir = base.filter(|_| !has_own).unwrap_or(path);
    Ok(Tokenizer::from_dir_or_file(dir)?)
}

/// The hash of an adapter's weights.
pub(crate) fn adapter_hash(dir: &Path) -> Result<String> {
    Ok(fsio::verified_sha256(dir.join(lora::ADAPTER_WEIGHTS))?)
}
