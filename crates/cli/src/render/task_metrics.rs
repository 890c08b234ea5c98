//! Metrics of tasks in lines of progress.

/// Metrics of tasks among the metrics of an evaluation, such as `arc_easy/acc 0.4867`, without standard errors and counts.
pub(crate) fn shown_metrics<'a>(metrics: impl Iterator<Item = (&'a str, f64)>) -> Vec<String> {
    let of_tasks = metrics
        .filter_map(|(name, value)| Some((name.strip_prefix(plan::TASK_PREFIX)?, value)))
        .filter(|(name, _)| !name.ends_with("_stderr") && !name.ends_with("/truncated_prompts"));
    of_tasks.map(|(name, value)| format!("{name} {value:.4}")).collect()
}
