//! Prompts with the texts that rewards compare completions with, and what is sampled from them.

use data::{Batch, Dataset};
use generate::Settings as Generation;
use model::CausalLm;
use tokenizer::{Message, Role, Tokenizer};
use train::Collective;

use crate::Result;
use crate::rollout::{EndReason, Rollout, Rollouts, Sampling};

/// Prompts with the texts of their rows that rewards compare answers with.
#[derive(Clone, Debug, Default)]
pub struct Prompts {
    /// Token ids of each prompt.
    pub ids: Vec<Vec<u32>>,
    /// Texts of each prompt, in the order of the rewards' templates.
    pub answers: Vec<Vec<Option<String>>>,
}

impl Prompts {
    /// Adds the prompts of a batch: the ids of its rows and their samples.
    pub fn add(&mut self, ids: &[&[u32]], samples: &[u64], dataset: &Dataset) {
        self.ids.extend(ids.iter().map(|ids| ids.to_vec()));
        self.answers.extend(samples.iter().map(|sample| dataset.answers(*sample)));
    }

    /// The prompts of a batch.
    pub fn of_batch(batch: &Batch, dataset: &Dataset) -> Self {
        let mut prompts = Self::default();
        prompts.add(&batch.texts(), &batch.samples, dataset);
        prompts
    }

    /// The first prompts.
    #[must_use]
    pub fn first(mut self, n: usize) -> Self {
        self.ids.truncate(n);
        self.answers.truncate(n);
        self
    }

    /// At most `n` prompts for the samples of a log: the first of the validation set, or of the training data without one.
    pub fn shown(dataset: &Dataset, n: usize) -> Self {
        let validation = dataset.eval_batches(n, Some(n as u64)).next();
        let batch = validation.unwrap_or_else(|| dataset.batch(0));
        Self::of_batch(&batch, dataset).first(n)
    }

    /// The prompts of the validation set, at most `max_rows`, read `rows_per_batch` at a time.
    pub fn of_validation(dataset: &Dataset, rows_per_batch: usize, max_rows: Option<u64>) -> Self {
        let mut prompts = Self::default();
        for batch in dataset.eval_batches(rows_per_batch, max_rows) {
            prompts.add(&batch.texts(), &batch.samples, dataset);
        }
        prompts
    }
}

/// Samples `settings.n` completions of each prompt, those of a prompt adjacent: each replica samples its share of the prompts
/// and receives all completions. Draws depend on the prompt, not on the replica.
///
/// Errors: those of generation and of the exchange.
pub fn sample_together(
    policy: &CausalLm,
    prompts: &[Vec<u32>],
    settings: &Generation,
    sampling: &Sampling,
    seed: u64,
    replicas: &dyn Collective,
) -> Result<Rollouts> {
    let share = replicas.share().of(prompts.len());
    let settings = Generation { first_prompt: share.start, ..settings.clone() };
    let mine = prompts.get(share).unwrap_or_default();
    let mut numbers = Vec::new();
    for answer in generate::generate(policy, mine, &settings, seed, |_| {})? {
        numbers.push(answer.tokens.len() as f64);
        numbers.extend(answer.tokens.into_iter().map(f64::from));
    }
    let mut numbers = replicas.all_gather(numbers)?.into_iter().flatten();
    let mut rollouts = Rollouts::new(sampling.clone());
    for prompt in prompts {
        for _ in 0..settings.n {
            let n = numbers.next().unwrap_or_default() as usize;
            let answer: Vec<u32> = numbers.by_ref().take(n).map(|id| id as u32).collect();
            rollouts.push(prompt, &answer)?;
        }
    }
    Ok(rollouts)
}

/// A completion as text without its end token and other special tokens, for display.
pub fn shown_text(episode: &Rollout, tokenizer: &Tokenizer) -> String {
    tokenizer.decode(episode.response(), true).trim().to_owned()
}

/// A completion as text without its end token. Other special tokens stay: a reward may look for `<think>`.
pub(crate) fn completion(episode: &Rollout, tokenizer: &Tokenizer) -> String {
    let ids = episode.response();
    let n = match episode.span().end {
        EndReason::EndToken => ids.len().saturating_sub(1),
        EndReason::Length => ids.len(),
    };
    tokenizer.decode(ids.get(..n).unwrap_or_default(), false)
}

/// The user's words in a prompt, without the text that the chat template puts around them.
pub fn question(prompt: &[u32], tokenizer: &Tokenizer) -> String {
    const MARK: &str = "\u{1}";
    let whole = tokenizer.decode(prompt, false);
    let framed = tokenizer.chat_template().and_then(|template| {
        let mark = [Message::new(Role::User, MARK)];
        Some(tokenizer.decode(&tokenizer.encode_prompt(&mark, template).ok()?, false))
    });
    let question = framed.as_deref().and_then(|framed| {
        let (before, after) = framed.split_once(MARK)?;
        whole.strip_prefix(before)?.strip_suffix(after)
    });
    // A tokenizer without the mark, such as one of characters, cannot tell the words apart.
    question.map_or_else(|| tokenizer.decode(prompt, true), str::to_owned).trim().to_owned()
}
