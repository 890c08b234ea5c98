//! Tables of a stage: data and drops, plan against outcome, evaluations, all metrics.

use super::html::{Html, table};
use crate::metrics::{Metrics, Phase, Series};
use crate::numbers::{bytes, clock, counted, millions, operations, thousands, value};
use crate::stage::StageData;

/// Evaluations that are columns of a table; of more, some between the first and the last are left out.
const MOST_COLUMNS: usize = 7;

/// Files and columns of the stage's data.
pub(super) fn sources(stage: &StageData) -> Html {
    let sources = stage.plan.iter().flat_map(|plan| &plan.sources);
    let rows = sources.map(|source| {
        let files = match source.files {
            0 | 1 => source.path.clone(),
            n => format!("{} ({})", source.path, counted(n as u64, "file")),
        };
        let list = |names: &[String]| {
            if names.is_empty() { "–".to_owned() } else { names.join(", ") }
        };
        vec![
            Html::tag("code", &files),
            Html::text(&source.layout),
            Html::text(&list(&source.read)),
            Html::text(&list(&source.unread)),
        ]
    });
    let rows: Vec<Vec<Html>> = rows.collect();
    if rows.is_empty() {
        return Html::default();
    }
    table("", &["Source", "Layout", "Columns read", "Not read"], rows, &[])
}

/// Sizes of the data set with what was left out of it.
pub(super) fn counts(stage: &StageData) -> Html {
    let Some(plan) = &stage.plan else { return Html::default() };
    if plan.counts.is_empty() {
        return Html::default();
    }
    let sizes = [
        ("rows", "row", " read"),
        ("samples", "sample", ""),
        ("tokens", "token", ""),
        ("train_samples", "sample", " for training"),
        ("eval_samples", "sample", " for validation"),
    ];
    let drops = [
        ("bad", "row", " skipped: unreadable"),
        ("filtered", "row", " skipped by `where`"),
        ("empty", "row", " left out: no text"),
        ("undesirable", "row", " not read: the label is false"),
        ("too_long", "sample", " dropped: too long"),
        ("without_targets", "sample", " dropped: no target left"),
        ("identical_texts", "pair", " dropped: both texts equal"),
        ("different_prompts", "pair", " dropped: prompts differ"),
        ("truncated", "sample", " cut"),
        ("duplicates", "duplicate", ""),
    ];
    let item = |class: &str, n: u64, noun: &str, rest: &str| {
        let noun = format!(" {noun}{}{rest}", if n == 1 { "" } else { "s" });
        Html::class("li", class, Html::all([Html::tag("strong", &thousands(n)), Html::text(&noun)]))
    };
    let mut items: Vec<Html> =
        sizes.iter().map(|(name, noun, rest)| item("", plan.count(name), noun, rest)).collect();
    let dropped = drops.iter().filter(|(name, _, _)| plan.count(name) > 0);
    let dropped: Vec<Html> =
        dropped.map(|(name, noun, rest)| item("drop", plan.count(name), noun, rest)).collect();
    if dropped.is_empty() {
        items.push(Html::tag("li", "nothing left out or cut"));
    }
    items.extend(dropped);
    Html::class("ul", "counts", Html::all(items)).line()
}

/// Planned values beside the measured ones.
pub(super) fn plan_and_outcome(stage: &StageData) -> Html {
    let Some(plan) = &stage.plan else { return Html::default() };
    let finished = stage.finished.as_ref();
    let unknown = || "–".to_owned();
    let outcome = stage.outcome.as_ref();
    let model_bytes: u64 =
        stage.model_files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    let tokens = finished.map_or(stage.metrics.tokens, |finished| finished.tokens);
    let rate = finished
        .filter(|finished| finished.seconds > 0.0)
        .map(|finished| format!("{}/s", operations(plan.flops / finished.seconds)));
    let memory = outcome.and_then(|outcome| outcome.peak_memory_bytes).map(bytes);
    let planned_time = plan.seconds.map(|seconds| format!("about {}", clock(seconds)));
    let time = finished.map(|finished| clock(finished.seconds));
    let rows = [
        ("Steps", thousands(plan.steps), thousands(stage.step())),
        ("Tokens", thousands(plan.tokens), thousands(tokens)),
        (
            "Time, of the plan without evaluations",
            planned_time.unwrap_or_else(unknown),
            time.unwrap_or_else(unknown),
        ),
        ("Computation", operations(plan.flops), rate.unwrap_or_else(unknown)),
        (
            "Peak memory of the process so far",
            bytes(plan.memory_bytes),
            memory.unwrap_or_else(unknown),
        ),
        (
            "Finished model",
            bytes(plan.model_bytes),
            if model_bytes > 0 { bytes(model_bytes) } else { unknown() },
        ),
        ("Directory of the stage", unknown(), bytes(stage.bytes)),
    ];
    let rows = rows.into_iter().map(|(name, planned, found)| {
        vec![Html::text(name), Html::text(&planned), Html::text(&found)]
    });
    let measured = results(stage)
        .into_iter()
        .map(|(name, found)| vec![Html::text(&name), Html::text(&unknown()), Html::text(&found)]);
    let rows = rows.chain(measured);
    table("narrow", &["", "Plan", "Outcome"], rows.collect(), &[1, 2])
}

/// Evaluation of the exported weights: the validation loss, and metrics of tasks with their standard errors.
fn results(stage: &StageData) -> Vec<(String, String)> {
    let result = stage.finished.as_ref().and_then(|finished| finished.result.as_object());
    let Some(result) = result else { return Vec::new() };
    let number = |name: &str| result.get(name).and_then(serde_json::Value::as_f64);
    // The loss of a policy's evaluation is its negative reward.
    let kinds = [("score", "score"), ("reward", "reward"), ("eval_loss", "loss")];
    let loss = kinds
        .iter()
        .find_map(|(key, kind)| Some((format!("Validation {kind}"), value(number(key)?))));
    let tasks = result.keys().filter_map(|key| {
        let name = key.strip_prefix("task/").filter(|name| !name.ends_with("_stderr"))?;
        let error = number(&format!("{key}_stderr")).map(|error| format!(" ± {}", value(error)));
        Some((format!("Task {name}"), value(number(key)?) + &error.unwrap_or_default()))
    });
    loss.into_iter().chain(tasks).collect()
}

/// Metrics of evaluations, a column for each of them.
pub(super) fn evaluations(metrics: &Metrics) -> Html {
    let series: Vec<&Series> = metrics
        .of_phase(Phase::Validation)
        .filter(|series| !series.name.ends_with("_stderr"))
        .collect();
    let mut steps: Vec<u64> =
        series.iter().flat_map(|series| series.points.iter().map(|point| point.step)).collect();
    steps.sort_unstable();
    steps.dedup();
    let steps = spread(&steps);
    if steps.is_empty() {
        return Html::default();
    }
    let value_at = |series: &Series, step: u64| {
        series.points.iter().find(|point| point.step == step).map(|point| point.value)
    };
    let rows = series.iter().map(|series| {
        let error = metrics.get(Phase::Validation, &format!("{}_stderr", series.name));
        let cells = steps.iter().map(|step| {
            let Some(found) = value_at(series, *step) else { return Html::text("–") };
            let error = error.and_then(|error| value_at(error, *step));
            let error = error.map(|error| format!(" ± {}", value(error))).unwrap_or_default();
            Html::text(&(value(found) + &error))
        });
        std::iter::once(Html::tag("code", &series.name)).chain(cells).collect()
    });
    let names: Vec<String> =
        steps.iter().map(|step| format!("step {}", thousands(*step))).collect();
    let head: Vec<&str> =
        std::iter::once("Metric").chain(names.iter().map(String::as_str)).collect();
    let right: Vec<usize> = (1..=steps.len()).collect();
    table("", &head, rows.collect(), &right)
}

/// At most [`MOST_COLUMNS`] of the steps, the first and the last among them.
fn spread(steps: &[u64]) -> Vec<u64> {
    if steps.len() <= MOST_COLUMNS {
        return steps.to_vec();
    }
    let last = steps.len() - 1;
    let places = (0..MOST_COLUMNS).map(|idx| idx * last / (MOST_COLUMNS - 1));
    places.filter_map(|idx| steps.get(idx).copied()).collect()
}

/// First, last, smallest and largest value of every metric.
pub(super) fn all_metrics(metrics: &Metrics) -> Html {
    if metrics.series.is_empty() {
        return Html::default();
    }
    let rows = metrics.series.iter().map(|series| {
        let phase = match series.phase {
            Phase::Training => "training",
            Phase::Validation => "validation",
        };
        let (low, high) = series.range().unwrap_or((f64::NAN, f64::NAN));
        let at = |point: Option<crate::metrics::Point>| point.map_or(f64::NAN, |point| point.value);
        let values = [at(series.first()), at(series.last()), low, high];
        let values = values.map(|found| if found.is_nan() { "–".to_owned() } else { value(found) });
        let texts = [phase.to_owned(), millions(series.points.len() as u64)];
        std::iter::once(Html::tag("code", &series.name))
            .chain(texts.iter().chain(&values).map(|text| Html::text(text)))
            .collect()
    });
    let head = ["Metric", "Measured in", "Rows", "First", "Last", "Smallest", "Largest"];
    table("", &head, rows.collect(), &[2, 3, 4, 5, 6])
}
