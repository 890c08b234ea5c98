//! The validation data of a stage in words.

use plan::StagePlan;
use recipe::SampleKind;

use crate::render::table::{counted, thousands};

/// Samples below which validation data are called few.
const FEW: u64 = 5;

/// Size of the validation data, beside all samples. Each sample is held out at random, so the share is near `holdout`.
pub(super) fn validation_note(stage: &StagePlan) -> Option<String> {
    let counts = stage.dataset.counts();
    if counts.eval_rows == 0 {
        return None;
    }
    let rows = match stage.sample_kind {
        SampleKind::Pairs => String::new(),
        SampleKind::Documents
        | SampleKind::Chats
        | SampleKind::Completions
        | SampleKind::Prompts => format!(" in {}", counted(counts.eval_rows, "row")),
    };
    let targets = counted(counts.eval_targets, "target");
    let few = if is_few(stage) { "; so few measure roughly: raise `holdout`" } else { "" };
    Some(format!("validation: {} held out{rows}, with {targets}{few}", held_out(stage)))
}

fn is_few(stage: &StagePlan) -> bool {
    let counts = stage.dataset.counts();
    counts.eval_rows > 0 && counts.eval_samples < FEW
}

/// A warning, if the validation data are too few to judge by. A prompt is sampled many times, so a few of them can do.
pub(super) fn few_held_out(stage: &StagePlan) -> Option<String> {
    (is_few(stage) && stage.sample_kind != SampleKind::Prompts).then(|| {
        let (name, held_out) = (&stage.name, held_out(stage));
        format!("[{name}] validates on {held_out}; so few measure roughly: raise `eval.holdout`")
    })
}

/// `3 of 60 chats`: the samples of the validation data, and all.
fn held_out(stage: &StagePlan) -> String {
    let counts = stage.dataset.counts();
    let sample = match stage.sample_kind {
        SampleKind::Documents => "document",
        SampleKind::Chats => "chat",
        SampleKind::Pairs => "pair",
        SampleKind::Completions => "completion",
        SampleKind::Prompts => "prompt",
    };
    let all = counted(counts.train_samples + counts.eval_samples, sample);
    format!("{} of {all}", thousands(counts.eval_samples))
}
