//! Lines of `temper plan` about the tasks that a stage evaluates.

use plan::{EvalTask, StagePlan, TASK_PREFIX};

use crate::render::table::counted;

/// Tasks that are evaluated on the schedule of the validation.
pub(super) fn tasks_note(stage: &StagePlan) -> Option<String> {
    let tasks = &stage.eval_tasks;
    if tasks.tasks.is_empty() {
        return None;
    }
    let of = |EvalTask { task, shots, items, .. }: &EvalTask| {
        let rows = counted(items.len() as u64, "row");
        format!("{} ({rows}, {})", task.name(), counted(*shots as u64, "example"))
    };
    let all: Vec<String> = tasks.tasks.iter().map(of).collect();
    let every = stage.keys.eval.as_ref().and_then(|eval| eval.every_steps);
    let last = stage.max_steps;
    let n_evaluations =
        every.map_or(1, |every| last / every + u64::from(!last.is_multiple_of(every)));
    let best = tasks.metric.as_ref().map(|metric| {
        let name = metric.name.strip_prefix(TASK_PREFIX).unwrap_or(&metric.name);
        format!("; the best evaluation is that with the best {name}")
    });
    Some(format!(
        "tasks: {}; {} in each of {}{}",
        all.join(", "),
        counted(tasks.n_requests(), "request"),
        counted(n_evaluations, "evaluation"),
        best.unwrap_or_default()
    ))
}
