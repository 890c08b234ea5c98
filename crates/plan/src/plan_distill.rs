//! Plans the teacher of a distillation: its weights, its vocabulary and its context. Opens no weights.

use arch::ModelConfig;
use data::Dataset;
use recipe::{DistillSamples, DistillSection, Loaded};
use tokenizer::Tokenizer;

use crate::error::AtKey;
use crate::stage::{DistillPlan, Start};
use crate::stage_plan::StagePlan;
use crate::starting_point::of_name;
use crate::{Error, Paths, Result};

/// Plans the teacher of `[distill]`. `student` is the student's tokenizer.
///
/// # Errors
/// The teacher cannot be found, has another vocabulary, or a context that is shorter than the rows.
pub(crate) fn plan_distill(
    loaded: &Loaded,
    paths: &Paths,
    section: &DistillSection,
    student: &Tokenizer,
    earlier: &[StagePlan],
    warnings: &mut Vec<String>,
) -> Result<DistillPlan> {
    let point = of_name(paths, &section.teacher, earlier).at_key(loaded, "distill.teacher")?;
    warnings.extend(point.warnings.clone());
    let of_teacher = match &point.start {
        Start::Stage(name) => {
            let previous = earlier.iter().find(|previous| previous.name == *name);
            previous.map(|previous| previous.tokenizer.clone())
        }
        Start::Directory(dir) => Some(Tokenizer::from_dir_or_file(dir)?),
        Start::Fresh => None,
    };
    let refused = |key: &str, message: String, label: &str, hint: &str| {
        Error::Recipe(loaded.spans.error(key, message, label, Some(hint.to_owned())))
    };
    let (Some(of_teacher), Some(config)) = (of_teacher, point.config) else {
        let message = "the teacher has no weights".to_owned();
        return Err(refused("distill.teacher", message, "not found", "name a trained model"));
    };
    if point.is_scalar == Some(true) {
        let message = "the teacher is a reward model".to_owned();
        let hint = "name a language model";
        return Err(refused("distill.teacher", message, "has no output layer", hint));
    }
    let (n_rows, n_ids) = (config.vocab_size(), student.vocab_size());
    if n_rows < n_ids {
        return Err(refused(
            "distill.teacher",
            format!("its embedding has {n_rows} rows, and the tokenizer has {n_ids} ids"),
            "lacks tokens of its tokenizer",
            "the model's files do not belong together: get them from their publisher again",
        ));
    }
    if let Some(difference) = first_difference(student, &of_teacher) {
        return Err(refused(
            "distill.teacher",
            format!("its tokenizer differs from the student's: {difference}"),
            "must have the student's tokens",
            "a divergence compares probabilities of the same tokens: load the teacher's tokenizer in \
             [tokenizer] and train a new student, or start from a student that has it",
        ));
    }
    check_context(&config, section)
        .map_err(|(message, hint)| refused("distill.sequence_length", message, "too long", hint))?;
    let n_tokens = student.vocab_size();
    if let Some(k) = section.top_k.filter(|k| *k >= n_tokens) {
        return Err(refused(
            "distill.top_k",
            format!("`top_k` is {k}, and the tokenizer has {n_tokens} tokens"),
            "must be below the number of tokens",
            "remove `top_k` to compare all tokens",
        ));
    }
    Ok(DistillPlan {
        section: section.clone(),
        teacher: point.start,
        teacher_config: config,
        n_saved_targets: 0,
    })
}

/// The first id whose token differs, for messages.
fn first_difference(student: &Tokenizer, teacher: &Tokenizer) -> Option<String> {
    let n = student.vocab_size().max(teacher.vocab_size());
    let id = (0..n as u32).find(|id| student.token_text(*id) != teacher.token_text(*id))?;
    let shown = |tokenizer: &Tokenizer| {
        let token = tokenizer.token_text(id);
        token.map_or_else(|| "no token".to_owned(), |token| format!("`{token}`"))
    };
    Some(format!("id {id} is {} and the student's is {}", shown(teacher), shown(student)))
}

/// Targets at which the teacher's tokens are saved, at most: those of an epoch of chats, because a chat has one record in
/// whatever row it is; those of the whole run of documents, which epochs cut differently; and those of the validation set.
pub(crate) fn n_saved_targets(section: &DistillSection, dataset: &Dataset) -> u64 {
    if section.top_k.is_none() {
        return 0;
    }
    let counts = dataset.counts();
    let trained = match section.samples {
        DistillSamples::Chats => dataset.run_targets().min(counts.epoch_targets),
        DistillSamples::Documents => dataset.run_targets(),
    };
    let max_rows = section.train.eval.as_ref().and_then(|eval| eval.max_rows);
    let evaluated = max_rows.unwrap_or(counts.eval_rows).min(counts.eval_rows);
    // A row's share of the targets, rounded up.
    let per_row = counts.eval_targets.div_ceil(counts.eval_rows.max(1));
    trained.saturating_add(evaluated.saturating_mul(per_row).min(counts.eval_targets))
}

/// Checks that the teacher has a position for every token of a row.
fn check_context(
    config: &ModelConfig,
    section: &DistillSection,
) -> std::result::Result<(), (String, &'static str)> {
    let (length, n_positions) = (section.input.sequence_length, config.max_positions());
    if length <= n_positions {
        return Ok(());
    }
    let message = format!("the teacher has {n_positions} positions, and rows have {length}");
    Err((message, "lower `sequence_length`"))
}
