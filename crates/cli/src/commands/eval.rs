//! `temper eval --file`: measures loss, perplexity and bits per byte of a model on the documents or chats of a file.

use data::{Content, Dataset, Holdout, PrepareOptions, RunOptions, SampleKind, SourceSpec};
use evaluate::Measured;
use hub_local::Need;
use model::CausalLm;
use plan::RUNS_DIR;
use recipe::{ChatTargets, OnBadRow, Packing, SplitBy};
use serde_json::json;
use tokenizer::{ChatTemplate, Tokenizer};

use super::{open_model, print};
use crate::args::EvalArgs;
use crate::failure::{Failure, Result};
use crate::render::progress::warn;

/// Rows per forward pass.
const ROWS: usize = 8;

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let Some(file) = &args.file else { return super::eval_tasks::run(args) };
    let (model, tokenizer) =
        open_model::<CausalLm>(&args.model, args.base.as_deref(), &args.device)?;
    let device = kernels::device(&args.device)?;
    let longest = model.config().max_positions();
    let sequence_length = args.sequence_length.unwrap_or(longest.min(1024));
    if sequence_length == 0 || sequence_length > longest {
        return Err(Failure::input(
            format!("--sequence-length must be from 1 to {longest}: `{sequence_length}`"),
            "rows cannot be longer than the model's context",
        ));
    }
    let cache_dir = std::path::Path::new(RUNS_DIR).join(".cache");
    fsio::create_dir_all(&cache_dir)?;
    let mut source = SourceSpec::file(plan::local_copy(file, Need::Data)?);
    source.text.clone_from(&args.text);
    let chats = chat_template(&source, &tokenizer)?;
    if chats.is_some() && (args.stream || args.part.is_some()) {
        return Err(Failure::input(
            "--stream and --part do not apply to chats",
            "remove them; they are for documents",
        ));
    }
    // A sample for each answer, because some templates write earlier turns differently.
    let targets = ChatTargets { split_turns: true, ..ChatTargets::default() };
    let options = PrepareOptions {
        cache_dir: &cache_dir,
        tokenizer: &tokenizer,
        content: chats.map_or(Content::Documents, |template| Content::Chats(template, targets)),
        on_bad_row: OnBadRow::Stop,
        max_bad_rows: 0,
        check_prompts: false,
    };
    let prepared = data::prepare(&[source], &options, &mut |_| {})?;
    let packing = if args.stream { Packing::Stream } else { Packing::Documents };
    let measured = match args.part {
        None if chats.is_some() => {
            let dataset = Dataset::chats_in_order(&prepared, sequence_length)?;
            evaluate::measure(&model, &tokenizer, dataset.eval_batches(ROWS, None), &device)?
        }
        None => {
            let dataset = Dataset::in_order(&prepared, sequence_length, ROWS, packing)?;
            let batches = (0..dataset.n_steps()).map(|step| dataset.batch(step));
            evaluate::measure(&model, &tokenizer, batches, &device)?
        }
        Some(fraction) => {
            let run = RunOptions {
                seed: 1,
                stage: "eval".to_owned(),
                sequence_length,
                rows_per_step: ROWS,
                max_steps: None,
                epochs: Some(1.0),
                max_tokens: None,
                holdout: Some(Holdout { fraction, by: SplitBy::Position }),
            };
            let dataset = Dataset::pretrain(&prepared, &run, packing)?;
            evaluate::measure(&model, &tokenizer, dataset.eval_batches(ROWS, None), &device)?
        }
    };
    if let Some(note) = perplexity_note(&measured) {
        warn(&note);
    }
    let line = json!({
        "loss": measured.loss(),
        "perplexity": measured.perplexity(),
        "bits_per_byte": measured.bits_per_byte(),
        "mean_token_accuracy": measured.mean_token_accuracy(),
        "targets": measured.n_targets,
        "of": if chats.is_some() { "answers of chats" } else { "documents" },
    });
    print(&format!("{line}\n"))
}

/// A note if the perplexity is infinite. The loss is finite: anything else is an error of measuring.
fn perplexity_note(measured: &Measured) -> Option<String> {
    let (loss, perplexity) = (measured.loss(), measured.perplexity());
    (!perplexity.is_finite()).then(|| {
        format!(
            "`perplexity` is {perplexity}: e to the mean loss of {loss:.1} nats is larger than the largest number"
        )
    })
}

/// The chat template, if the rows of a source are chats and not documents. The loss is that of the assistant's answers.
fn chat_template<'t>(
    source: &SourceSpec,
    tokenizer: &'t Tokenizer,
) -> Result<Option<&'t ChatTemplate>> {
    let reads = |kind| data::describe_source(source, kind, None);
    let Err(error) = reads(SampleKind::Documents) else { return Ok(None) };
    if reads(SampleKind::Chats).is_err() {
        return Err(error.into());
    }
    let template = tokenizer.chat_template().ok_or_else(|| {
        Failure::input(
            "the file has chats, and the model has no chat template",
            "use a chat model, or a file with texts",
        )
    })?;
    Ok(Some(template))
}

#[cfg(test)]
mod tests {
    use super::{Measured, perplexity_note};

    #[test]
    fn an_infinite_perplexity_has_a_note() {
        let note = |loss_sum| {
            perplexity_note(&Measured { loss_sum, n_targets: 2, n_correct: 1, n_bytes: 10 })
        };
        assert_eq!(note(1400.0), None);
        assert_eq!(
            note(1600.0).unwrap(),
            "`perplexity` is inf: e to the mean loss of 800.0 nats is larger than the largest number"
        );
    }
}
