//! `temper score`: scores texts or pairs with a reward model and prints one JSON line per row.

use std::path::Path;

use data::{Batch, Conversations, SampleKind, SourceSpec, conversations};
use hub_local::Need;
use kernels::Device;
use model::ScalarModel;
use serde_json::{Value, json};
use tokenizer::{ChatTemplate, Conversation, Message, Tokenizer};

use super::{open_model, print};
use crate::args::ScoreArgs;
use crate::failure::{Failure, Result};

/// Rows per forward pass.
const ROWS: usize = 16;

pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    let scorer = Scorer::open(&args.model, args.base.as_deref(), &args.device)?;
    let (file, kind) = match (&args.pairs, &args.texts) {
        (Some(file), _) => (file, SampleKind::Pairs),
        (None, Some(file)) => (file, SampleKind::Chats),
        (None, None) => return Err(Failure::input("nothing to score", "give --pairs or --texts")),
    };
    let mut spec = SourceSpec::file(plan::local_copy(file, Need::Data)?);
    spec.limit = args.limit;
    let mut metrics = evaluate::PairMetrics::default();
    let mut rows = conversations(&spec, kind)?.peekable();
    while rows.peek().is_some() {
        let rows = rows.by_ref().take(ROWS).collect::<data::Result<Vec<_>>>()?;
        let mut texts = Vec::new();
        for row in &rows {
            let place = row.location.to_string();
            for chat in &row.chats {
                texts.push(scorer.encode(chat, &place)?);
            }
        }
        let mut scores = scorer.of_texts(&texts).into_iter();
        let mut lines = String::new();
        for row in &rows {
            let scores: Vec<f64> = scores.by_ref().take(row.chats.len()).collect();
            lines += &format!("{}\n", line(row, &scores, kind, &mut metrics));
        }
        print(&lines)?;
    }
    if metrics.n_pairs > 0 {
        let mut summary = json!({ "pairs": metrics.n_pairs, "loss": metrics.loss() });
        for (name, value) in metrics.metrics() {
            summary[name] = json!(value);
        }
        print(&format!("{}\n", json!({ "summary": summary })))?;
    }
    Ok(())
}

/// A reward model that scores chats.
#[derive(Debug)]
pub(super) struct Scorer {
    model: ScalarModel,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    device: Device,
}

impl Scorer {
    /// Opens a reward model.
    pub(super) fn open(path: &Path, base: Option<&Path>, device: &str) -> Result<Self> {
        let (model, tokenizer) = open_model::<ScalarModel>(path, base, device)?;
        let template = tokenizer.chat_template().cloned().ok_or_else(|| {
            Failure::input(
                "the model has no chat template",
                "use a model trained on pairs or chats",
            )
        })?;
        Ok(Self { model, tokenizer, template, device: kernels::device(device)? })
    }

    /// Ids of a chat, from the same function as in training. `place` is for errors.
    fn encode<'c>(&self, chat: impl Into<Conversation<'c>>, place: &str) -> Result<Vec<u32>> {
        let longest = self.model.config().max_positions();
        let ids = self.tokenizer.encode_for_scoring(chat, &self.template)?.ids;
        if ids.len() > longest {
            return Err(Failure::input(
                format!("{place}: the text has {} tokens", ids.len()),
                format!("the reward model's context is {longest} tokens"),
            ));
        }
        Ok(ids)
    }

    /// Scores of encoded chats, computed together.
    fn of_texts(&self, texts: &[Vec<u32>]) -> Vec<f64> {
        let batch = Batch::of_texts(texts, self.tokenizer.pad().unwrap_or(0));
        let scores = evaluate::text_scores(&self.model, &batch, &self.device);
        scores.into_data().iter::<f64>().collect()
    }

    /// Scores of chats.
    pub(super) fn scores(&self, chats: &[Vec<Message>], place: &str) -> Result<Vec<f64>> {
        let mut scores = Vec::with_capacity(chats.len());
        for chats in chats.chunks(ROWS) {
            let texts = chats.iter().map(|chat| self.encode(chat, place));
            scores.extend(self.of_texts(&texts.collect::<Result<Vec<_>>>()?));
        }
        Ok(scores)
    }
}

fn line(
    row: &Conversations,
    scores: &[f64],
    kind: SampleKind,
    metrics: &mut evaluate::PairMetrics,
) -> Value {
    if let (SampleKind::Pairs, [chosen, rejected]) = (kind, scores) {
        metrics.add(*chosen, *rejected);
        let margin = chosen - rejected;
        return json!({ "chosen": chosen, "rejected": rejected, "margin": margin });
    }
    let place = row.location.to_string();
    match scores {
        [score] => json!({ "place": place, "score": score }),
        scores => json!({ "place": place, "scores": scores }),
    }
}
