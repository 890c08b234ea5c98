//! Events of training as updates of the view.

use train::{EvalRow, Event, SampleRow, StepRow};
use watch::{MessageKind, Row, Sample, StageStart, Update};

/// The update of an event; `None` if the view does not show it.
pub(crate) fn update_of(event: &Event) -> Option<Update> {
    Some(match event {
        Event::StageStarted { stage, step, max_steps, n_parameters, n_trained, .. } => {
            Update::StageStarted(StageStart {
                name: stage.clone(),
                step: *step,
                max_steps: *max_steps,
                n_parameters: *n_parameters,
                n_trained: *n_trained,
            })
        }
        Event::Step { row, .. } => Update::Row(step_row(row)),
        Event::Eval { row, .. } => Update::Row(eval_row(row)),
        Event::Sample(row) => Update::Sample(sample(row)),
        Event::CheckpointSaved { .. } => return None,
        Event::CheckpointRejected { message, moved_to } => {
            let text = format!("{message}; moved to {}", moved_to.display());
            Update::Message(MessageKind::Warning, text)
        }
        Event::Note { message } => Update::Message(MessageKind::Note, message.clone()),
        Event::Warning { message } => Update::Message(MessageKind::Warning, message.clone()),
        Event::Stopping { .. } => Update::Stopping,
        Event::Finished { steps, .. } => Update::StageFinished { steps: *steps },
    })
}

/// An update with its metrics by their names in metrics.jsonl.
pub(crate) fn step_row(row: &StepRow) -> Row {
    let named = [
        ("loss", row.loss),
        ("grad_norm", row.grad_norm),
        ("lr", row.lr),
        ("tokens", row.tokens as f64),
        ("tokens_per_s", row.tokens_per_s),
    ];
    let mut values = row.extra.clone();
    values.extend(named.map(|(name, value)| (name.to_owned(), value)));
    // As in a file, where JSON has no such numbers.
    values.retain(|_, value| value.is_finite());
    Row { step: row.step, is_eval: false, values }
}

fn eval_row(row: &EvalRow) -> Row {
    let mut values = row.extra.clone();
    values.extend(row.eval_loss.map(|loss| ("eval_loss".to_owned(), loss)));
    values.retain(|_, value| value.is_finite());
    Row { step: row.step, is_eval: true, values }
}

fn sample(row: &SampleRow) -> Sample {
    Sample {
        step: row.step,
        prompt: row.prompt.clone(),
        text: row.text.clone(),
        before: row.before.clone(),
        score: row.score,
    }
}

#[cfg(test)]
mod tests {
    use train::{EvalRow, StepRow};
    use watch::Row;

    use super::{eval_row, step_row};

    #[test]
    fn a_row_of_the_process_is_that_of_its_file() {
        let extra = [("reward".to_owned(), 0.5)].into_iter().collect();
        let step = StepRow { step: 3, loss: 2.5, lr: 1e-3, tokens: 7, extra, ..StepRow::default() };
        assert_eq!(Row::of(&serde_json::to_value(&step).unwrap()), Some(step_row(&step)));
        let eval = EvalRow { step: 3, eval_loss: Some(2.5), ..EvalRow::default() };
        assert_eq!(Row::of(&serde_json::to_value(&eval).unwrap()), Some(eval_row(&eval)));
    }
}
