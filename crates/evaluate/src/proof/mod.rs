//! The proof of an export: prompts with the answers that the written files give, stored beside the files.
//!
//! An export is read back and its answers are compared with those of the model that was exported. `temper verify` reads
//! the files again at any later time, with any version, and compares the answers with the stored ones.

mod answers;
mod distance;
mod prompts;
mod prove;
mod weights;

use std::path::{Path, PathBuf};

use arch::Architecture;
use serde::{Deserialize, Serialize};

pub use answers::{Answer, ProvenModel};
pub use distance::{SourceDistance, kl_divergence};
pub use prompts::{Prompt, Turn};
pub use prove::{Proven, SourceAnswers};
pub(crate) use prove::{adapter_hash, compare, has_same_ids, open_on_base, tokenizer_of};
pub use weights::{Rounding, compare_weights};

use crate::error::{Error, Result};

/// Name of the proof in a directory.
pub const PROOF_FILE: &str = "temper_proof.json";
/// Version of the file's structure.
const FORMAT: u32 = 1;
/// The largest accepted size of a proof.
const PROOF_BYTES: u64 = 64 << 20;

/// Answers of exported files to prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Version of this structure.
    pub format: u32,
    /// The output of the model.
    pub output: Output,
    /// The type of the weights: `f32`, `bf16`, `f16`, or a type of GGUF file.
    pub weights: String,
    /// The largest accepted difference of a logit or score.
    pub tolerance: f64,
    /// The hash of the weights, for information: a proof holds for any weights that give these answers.
    pub weights_sha256: String,
    /// The hash of the base model's weights, in the proof of an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_sha256: Option<String>,
    /// The distance from the model before its weights were packed in 8 or 4 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_source: Option<SourceDistance>,
    /// The time for chat templates that write the date, in seconds since 1970.
    pub clock: u64,
    /// Prompts and answers.
    pub prompts: Vec<Prompt>,
}

/// The output of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Logits over the vocabulary.
    Logits,
    /// One score per text.
    Scores,
}

impl Output {
    /// The output of an architecture.
    pub fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::CausalLm => Self::Logits,
            Architecture::SequenceClassifier => Self::Scores,
        }
    }
}

impl Proof {
    /// A proof of answered prompts.
    pub fn new(
        architecture: Architecture,
        rounding: Rounding,
        hashes: (String, Option<String>),
        prompts: Vec<Prompt>,
    ) -> Self {
        let (weights_sha256, base_sha256) = hashes;
        Self {
            format: FORMAT,
            output: Output::of(architecture),
            weights: rounding.name().to_owned(),
            tolerance: rounding.tolerance(),
            weights_sha256,
            base_sha256,
            from_source: None,
            clock: prompts::CLOCK,
            prompts,
        }
    }

    /// The path of the proof of a GGUF file, or of a directory.
    pub fn path_of(model: &Path) -> PathBuf {
        if gguf::is_gguf(model) {
            return model.with_extension("proof.json");
        }
        model.join(PROOF_FILE)
    }

    /// Reads the proof of a GGUF file or directory.
    pub fn read(model: &Path) -> Result<Self> {
        let path = Self::path_of(model);
        let text = fsio::read_text_capped(&path, PROOF_BYTES)?;
        let bad = |reason: String| Error::BadProof { path: path.clone(), reason };
        let proof: Self = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if proof.format != FORMAT {
            return Err(bad(format!("its format is {}, not {FORMAT}", proof.format)));
        }
        if proof.prompts.is_empty() {
            return Err(bad("it has no prompts".to_owned()));
        }
        // A number like 1e39 is in the range of the parser, but not in that of an `f32`.
        if let Some(idx) = proof.prompts.iter().position(|prompt| !prompt.answer.is_finite()) {
            return Err(bad(format!("a value of prompt {} is not a finite number", idx + 1)));
        }
        Ok(proof)
    }

    /// The file's bytes: JSON with one line a prompt.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = head.as_object_mut() {
            map.remove("prompts");
        }
        let head = format!("{head:#}");
        let head = head.trim_end_matches(['\n', '}']);
        let lines: Vec<String> = self
            .prompts
            .iter()
            .map(|prompt| format!("    {}", serde_json::to_value(prompt).unwrap_or_default()))
            .collect();
        format!("{head},\n  \"prompts\": [\n{}\n  ]\n}}\n", lines.join(",\n")).into_bytes()
    }
}
