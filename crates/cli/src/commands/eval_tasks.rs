//! `temper eval --task`: few-shot tasks with the prompts and metrics of lm-evaluation-harness.

use std::path::{Path, PathBuf};

use evaluate::{Scorer, TaskRun};
use model::{CausalLm, ScalarModel};
use serde_json::{Map, Value, json};
use tasks::{Estimate, Item, Task, TaskOptions};
use tokenizer::Tokenizer;

use super::{open_model, print};
use crate::args::EvalArgs;
use crate::failure::{Failure, Result};
use crate::render::plot::{Line, svg};
use crate::render::progress::warn;
use crate::render::table::columns;
use crate::render::tasks::TaskProgress;

/// Seed of the draws of tasks that sample completions.
const SEED: u64 = 1234;

/// A task with a number of examples.
struct Job<'a> {
    task: &'a Task,
    options: TaskOptions,
    items: Vec<Item>,
}

/// A finished run of a task with a number of examples.
struct Finished {
    task: String,
    shots: usize,
    /// Name of the checkpoint, if several are evaluated.
    checkpoint: Option<String>,
    n_rows: usize,
    n_truncated: usize,
    notes: Vec<String>,
    estimates: Vec<Estimate>,
}

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    args.svg.as_deref().map(fsio::check_destination).transpose()?;
    if let Some(path) = args.svg.as_deref().filter(|path| fsio::is_present(path)) {
        return Err(Failure::input(
            format!("`{}` already exists", path.display()),
            "choose a new name for --svg; nothing is overwritten",
        ));
    }
    // All task files are read before the model.
    let tasks = args.task.iter().map(|name| Task::open(name)).collect::<tasks::Result<Vec<_>>>()?;
    let is_reward = are_for_reward_models(args, &tasks)?;
    let data_dir =
        args.data_dir.clone().or_else(|| std::env::var_os("TEMPER_DATA").map(PathBuf::from));
    let mut jobs = Vec::new();
    for task in &tasks {
        let shots = match args.shots.as_slice() {
            [] => vec![task.default_shots()],
            shots => shots.to_vec(),
        };
        for shots in shots {
            let options = TaskOptions { data_dir: data_dir.clone(), limit: args.limit, shots };
            // Rows that do not fit are found before the model is read, even if its template renders them later.
            let items = task.items(&options)?;
            jobs.push(Job { task, options, items });
        }
    }
    let mut finished = Vec::new();
    for (label, path) in models(args)? {
        finished.extend(evaluate_model(args, label.as_deref(), &path, &jobs, is_reward)?);
    }
    if let Some(path) = &args.svg {
        fsio::write_atomic(path, svg(&plot_lines(&finished)))?;
    }
    if args.json {
        let lines: Vec<String> =
            finished.iter().map(|run| format!("{}\n", summary_json(run))).collect();
        return print(&lines.concat());
    }
    print(&table(&finished))
}

/// The models to evaluate: MODEL, or its checkpoints and its final model with their names.
fn models(args: &EvalArgs) -> Result<Vec<(Option<String>, PathBuf)>> {
    if !args.all_checkpoints {
        return Ok(vec![(None, args.model.clone())]);
    }
    let checkpoints = args.model.join(plan::CHECKPOINTS_DIR);
    let steps =
        if checkpoints.is_dir() { train::checkpoint_steps(&checkpoints)? } else { Vec::new() };
    if steps.is_empty() {
        return Err(Failure::input(
            format!("no checkpoints: `{}`", checkpoints.display()),
            "--all-checkpoints needs the directory of a run's stage, such as runs/x/sft",
        ));
    }
    let mut models: Vec<(Option<String>, PathBuf)> = steps
        .into_iter()
        .map(|step| {
            let name = train::checkpoint_name(step);
            let path = checkpoints.join(&name);
            (Some(name), path)
        })
        .collect();
    let last = args.model.join(plan::MODEL_DIR);
    if last.is_dir() {
        models.push((Some(plan::MODEL_DIR.to_owned()), last));
    }
    Ok(models)
}

fn evaluate_model(
    args: &EvalArgs,
    label: Option<&str>,
    path: &Path,
    jobs: &[Job<'_>],
    is_reward: bool,
) -> Result<Vec<Finished>> {
    let model = Model::open(args, path, is_reward)?;
    let reward = args.reward.as_deref();
    let reward = reward.map(|reward| open_model::<ScalarModel>(reward, None, &args.device));
    let reward = reward.transpose()?;
    let reward = reward.as_ref().map(|(model, tokenizer)| Scorer::new(model, tokenizer));
    let reward = reward.transpose()?;
    let mut finished = Vec::new();
    for Job { task, options, items } in jobs {
        let shots = options.shots;
        let as_chat =
            args.chat.then(|| chat_items(task, options, model.tokenizer())).transpose()?;
        let items = as_chat.as_ref().unwrap_or(items);
        let title = match label {
            Some(label) => format!("{label}: {}, {shots} shots", task.name()),
            None => format!("{}, {shots} shots", task.name()),
        };
        let mut progress = TaskProgress::new(title.clone());
        let mut on_progress = |done, all| progress.update(done, all);
        let run = kernels::on_pool(|| model.run(reward.as_ref(), task, items, &mut on_progress))?;
        progress.finish();
        if args.json {
            print(&rows_json(task, shots, label, &run))?;
        }
        if run.n_truncated > 0 {
            warn(&format!(
                "{title}: {} prompts are longer than the model's context and lost their beginning",
                run.n_truncated
            ));
        }
        for note in &run.notes {
            warn(&format!("{title}: {note}"));
        }
        finished.push(Finished {
            task: task.name().to_owned(),
            shots,
            checkpoint: label.map(str::to_owned),
            n_rows: run.rows.len(),
            n_truncated: run.n_truncated,
            notes: run.notes,
            estimates: run.estimates,
        });
    }
    Ok(finished)
}

/// The evaluated model with its tokenizer.
enum Model {
    Language(CausalLm, Tokenizer),
    Reward(ScalarModel, Tokenizer),
}

impl Model {
    fn open(args: &EvalArgs, path: &Path, is_reward: bool) -> Result<Self> {
        let base = args.base.as_deref();
        if is_reward {
            let (model, tokenizer) = open_model(path, base, &args.device)?;
            return Ok(Self::Reward(model, tokenizer));
        }
        let (model, tokenizer) = open_model(path, base, &args.device)?;
        Ok(Self::Language(model, tokenizer))
    }

    fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Language(_, tokenizer) | Self::Reward(_, tokenizer) => tokenizer,
        }
    }

    fn run(
        &self,
        reward: Option<&Scorer<'_>>,
        task: &Task,
        items: &[Item],
        progress: &mut dyn FnMut(usize, usize),
    ) -> evaluate::Result<TaskRun> {
        match self {
            Self::Language(model, tokenizer) => {
                evaluate::run_task(model, tokenizer, reward, task, items, SEED, progress)
            }
            Self::Reward(model, tokenizer) => {
                evaluate::run_pairs(&Scorer::new(model, tokenizer)?, task, items, progress)
            }
        }
    }
}

/// Whether the tasks are for reward models. Tasks for both kinds of models cannot be mixed.
fn are_for_reward_models(args: &EvalArgs, tasks: &[Task]) -> Result<bool> {
    let scored: Vec<&Task> = tasks.iter().filter(|task| task.needs_scores()).collect();
    if let (Some(first), Some(other)) =
        (scored.first(), tasks.iter().find(|task| !task.needs_scores()))
    {
        return Err(Failure::input(
            format!("`{}` needs a reward model, `{}` a language model", first.name(), other.name()),
            "evaluate them one after the other",
        ));
    }
    if let Some(first) = scored.first()
        && args.chat
    {
        return Err(Failure::input(
            format!("--chat has no meaning for `{}`", first.name()),
            "reward models always read pairs with their chat template",
        ));
    }
    if let (None, Some(ranked)) = (&args.reward, tasks.iter().find(|task| task.needs_rewards())) {
        return Err(Failure::input(
            format!("task `{}` needs a reward model, which ranks its completions", ranked.name()),
            "name one with --reward MODEL",
        ));
    }
    Ok(!scored.is_empty())
}

/// Items whose prompts are rendered by the model's chat template.
fn chat_items(task: &Task, options: &TaskOptions, tokenizer: &Tokenizer) -> Result<Vec<Item>> {
    plan::chat_items(task, options, tokenizer)?.ok_or_else(|| {
        Failure::input(
            "the model has no chat template",
            "remove --chat, or use a model trained on chats",
        )
    })
}

/// One object per row.
fn rows_json(task: &Task, shots: usize, label: Option<&str>, run: &TaskRun) -> String {
    let mut lines = String::new();
    for row in &run.rows {
        let mut object = Map::new();
        if let Some(label) = label {
            object.insert("checkpoint".to_owned(), json!(label));
        }
        object.insert("task".to_owned(), json!(task.name()));
        object.insert("shots".to_owned(), json!(shots));
        object.insert("doc_id".to_owned(), json!(row.doc_id));
        object.insert("place".to_owned(), json!(row.place));
        object.extend(row.values.clone());
        lines += &format!("{}\n", Value::Object(object));
    }
    lines
}

/// Metrics under the names of lm-evaluation-harness: `acc,none`, `acc_stderr,none`, `exact_match,strict-match`.
fn summary_json(run: &Finished) -> Value {
    let (mut results, mut intervals) = (Map::new(), Map::new());
    for estimate in &run.estimates {
        let Estimate { metric, filter, value, stderr, interval, .. } = estimate;
        results.insert(format!("{metric},{filter}"), json!(value));
        results.insert(format!("{metric}_stderr,{filter}"), json!(stderr));
        intervals.insert(format!("{metric},{filter}"), json!(interval));
    }
    let mut summary = json!({
        "task": run.task,
        "shots": run.shots,
        "rows": run.n_rows,
        "results": results,
        "intervals_95": intervals,
        "truncated_prompts": run.n_truncated,
    });
    if !run.notes.is_empty() {
        summary["notes"] = json!(run.notes);
    }
    if let Some(checkpoint) = &run.checkpoint {
        summary["checkpoint"] = json!(checkpoint);
    }
    summary
}

/// A line for each metric, with the name of the checkpoint if several were evaluated.
fn table(runs: &[Finished]) -> String {
    let has_checkpoints = runs.iter().any(|run| run.checkpoint.is_some());
    let heads = ["task", "shots", "rows", "metric", "value", "stderr", "95 % interval"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    if has_checkpoints {
        lines[0].push("checkpoint".to_owned());
    }
    for run in runs {
        for estimate in &run.estimates {
            let Estimate { metric, filter, value, stderr, interval, .. } = estimate;
            let metric = match filter.as_str() {
                "none" => metric.clone(),
                filter => format!("{metric}, {filter}"),
            };
            let interval = interval.map(|(low, high)| format!("{} to {}", short(low), short(high)));
            let mut line = vec![
                run.task.clone(),
                run.shots.to_string(),
                estimate.n_rows.to_string(),
                metric,
                short(*value),
                stderr.map_or_else(|| "-".to_owned(), short),
                interval.unwrap_or_else(|| "-".to_owned()),
            ];
            line.extend(run.checkpoint.clone());
            lines.push(line);
        }
    }
    columns(&lines, &[1, 2, 4, 5])
}

/// A line for each metric of each task and checkpoint, over the numbers of examples.
fn plot_lines(runs: &[Finished]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for run in runs {
        for estimate in &run.estimates {
            let mut name = format!("{} {}", run.task, estimate.label());
            if let Some(checkpoint) = &run.checkpoint {
                name += &format!(", {checkpoint}");
            }
            let point = (run.shots, estimate.value, estimate.interval);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name, points: vec![point] }),
            }
        }
    }
    for line in &mut lines {
        line.points.sort_by_key(|point| point.0);
    }
    lines
}

/// Four digits after the point; fewer for large numbers.
fn short(value: f64) -> String {
    match value.abs() {
        0.0..100.0 => format!("{value:.4}"),
        100.0..1e6 => format!("{value:.1}"),
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Estimate, Finished, table};

    #[test]
    fn the_table_has_a_line_for_each_metric() {
        let estimate = |metric, filter: &str, value, interval| Estimate {
            metric: str::to_owned(metric),
            filter: filter.to_owned(),
            value,
            stderr: Some(0.0289),
            interval,
            n_rows: 300,
        };
        let run = Finished {
            task: "gsm8k".to_owned(),
            shots: 5,
            checkpoint: None,
            n_rows: 300,
            n_truncated: 0,
            notes: Vec::new(),
            estimates: vec![
                estimate("exact_match", "strict-match", 0.5, Some((0.44, 0.56))),
                estimate("word_perplexity", "none", 123_456.7, None),
            ],
        };
        insta::assert_snapshot!(table(&[run]));
    }
}
