//! `temper score`: scores texts or pairs with a reward model and prints one JSON line per row.

use data::{Batch, Conversations, SampleKind, SourceSpec, conversations};
use hub_local::Need;
use model::ScalarModel;
use serde_json::{Value, json};
use tokenizer::{ChatTemplate, Tokenizer};

use super::{open_model, print};
use crate::args::ScoreArgs;
use crate::failure::{Failure, Result};

/// Rows per forward pass.
const ROWS: usize = 16;

pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    let (model, tokenizer) =
        open_model::<ScalarModel>(&args.model, args.base.as_deref(), &args.device)?;
    let device = kernels::device(&args.device)?;
    let template = tokenizer.chat_template().ok_or_else(|| {
        Failure::input("the model has no chat template", "use a model trained on pairs or chats")
    })?;
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
        let longest = model.config().max_positions();
        let texts = rows
            .iter()
            .map(|row| encode(row, &tokenizer, template, longest))
            .collect::<Result<Vec<_>>>()?;
        let batch = Batch::of_texts(&texts.concat(), tokenizer.pad().unwrap_or(0));
        let scores = evaluate::text_scores(&model, &batch, &device);
        let mut scores = scores.into_data().iter::<f64>().collect::<Vec<f64>>().into_iter();
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

/// Ids of a row's texts, from the same function as in training.
fn encode(
    row: &Conversations,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    longest: usize,
) -> Result<Vec<Vec<u32>>> {
    let one = |messages: &data::Dialogue| {
        let ids = tokenizer.encode_for_scoring(messages, template)?.ids;
        if ids.len() > longest {
            return Err(Failure::input(
                format!("{}: the text has {} tokens", row.location, ids.len()),
                format!("the model's context is {longest} tokens"),
            ));
        }
        Ok(ids)
    };
    row.chats.iter().map(one).collect()
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
