//! Prompts of the samples that a stage logs: those of the recipe, encoded before training, or one of the stage's own.

use arch::ModelConfig;
use data::Dataset;
use recipe::{Loaded, SampleKind, StageKeys};
use tokenizer::{Message, Role, Tokenizer};

use crate::{Error, Result};

/// A prompt whose answers are logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SamplePrompt {
    /// The text that the log shows for it.
    pub text: String,
    /// Its token ids.
    pub ids: Vec<u32>,
}

/// The prompts of a stage's samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SamplePrompts {
    /// The prompts.
    pub prompts: Vec<SamplePrompt>,
    /// Whether they are those of `sample_prompts`.
    pub of_recipe: bool,
}

impl SamplePrompts {
    /// The prompts of `sample_prompts`; without any, the beginning of a document or the first prompt of the validation set. A
    /// stage that answers prompts of its data, or that trains a reward model, has none of its own.
    pub(crate) fn plan(
        loaded: &Loaded,
        stage: &str,
        keys: &StageKeys<'_>,
        tokenizer: &Tokenizer,
        config: &ModelConfig,
        dataset: &Dataset,
        is_scalar: bool,
    ) -> Result<Self> {
        let kind = keys.samples.kind();
        let texts = &keys.train.sample_prompts;
        if texts.is_empty() {
            let own = match kind {
                SampleKind::Documents => Some(document_start(tokenizer)),
                SampleKind::Prompts => None,
                SampleKind::Chats | SampleKind::Pairs | SampleKind::Completions => {
                    first_prompt(tokenizer, dataset)
                }
            };
            let prompts = own.filter(|_| !is_scalar).into_iter().collect();
            return Ok(Self { prompts, of_recipe: false });
        }
        let mut prompts = Vec::with_capacity(texts.len());
        for (idx, text) in texts.iter().enumerate() {
            let ids = encoded(text, kind, tokenizer)?;
            if ids.is_empty() || ids.len() >= config.max_positions() {
                return Err(Error::Recipe(loaded.spans.error(
                    &format!("{stage}.sample_prompts[{idx}]"),
                    format!(
                        "the prompt has {} tokens, and the model's context is {}",
                        ids.len(),
                        config.max_positions()
                    ),
                    "",
                    Some("prompt and answer have to fit into the context".to_owned()),
                )));
            }
            prompts.push(SamplePrompt { text: text.clone(), ids });
        }
        Ok(Self { prompts, of_recipe: true })
    }
}

/// A user message up to the beginning of its answer, or the beginning of a document.
fn encoded(text: &str, kind: SampleKind, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    if let Some(template) = tokenizer.chat_template().filter(|_| kind != SampleKind::Documents) {
        return Ok(tokenizer.encode_prompt(&[Message::new(Role::User, text)], template)?);
    }
    let mut ids = tokenizer.prefix_ids();
    ids.extend(tokenizer.encode_plain(text)?);
    Ok(ids)
}

/// The tokens before every document; a line break for a tokenizer without such tokens.
fn document_start(tokenizer: &Tokenizer) -> SamplePrompt {
    let mut ids = tokenizer.prefix_ids();
    if ids.is_empty() {
        ids = tokenizer.encode_plain("\n").unwrap_or_default();
    }
    if ids.is_empty() {
        ids.push(0);
    }
    SamplePrompt { ids, text: String::new() }
}

/// The first prompt of the validation set: the ids before its first target.
fn first_prompt(tokenizer: &Tokenizer, dataset: &Dataset) -> Option<SamplePrompt> {
    let batch = dataset.eval_batches(1, Some(1)).next()?;
    let first_target = batch.targets.iter().position(|target| *target >= 0).unwrap_or(0);
    // The position that predicts the first target is the last one of the prompt.
    let ids: Vec<u32> = batch.ids.into_iter().take(first_target + 1).collect();
    Some(SamplePrompt { text: tokenizer.decode(&ids, false), ids })
}
