//! Tasks that a stage evaluates on the schedule of its validation: read and rendered before training, so that no file is
//! missing later.

use std::path::Path;

use recipe::{Eval, Loaded};
use tasks::{Item, MetricName, RowTexts, Task, TaskOptions, Turn};
use tokenizer::{Message, Role, Tokenizer};

use crate::{Error, Paths, Result};

/// Start of the names of tasks' metrics in logs, as in `task/arc_easy/acc`.
pub const TASK_PREFIX: &str = "task/";

/// Tasks of a stage's evaluations. Default: none.
#[derive(Debug, Default)]
pub struct EvalTasks {
    /// The tasks, in the order of the recipe.
    pub tasks: Vec<EvalTask>,
    /// Metric by which evaluations are compared. Default: the validation loss.
    pub metric: Option<BestMetric>,
}

/// A task with its rows.
#[derive(Debug)]
pub struct EvalTask {
    /// The task.
    pub task: Task,
    /// Number of examples before each question.
    pub shots: usize,
    /// Its rows with their requests.
    pub items: Vec<Item>,
    /// The texts of its rows.
    pub texts: Vec<RowTexts>,
}

/// Metric that selects the best evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BestMetric {
    /// Its name in the log, such as `task/arc_easy/acc`.
    pub name: String,
    /// Whether larger values are better.
    pub higher_is_better: bool,
}

impl EvalTasks {
    /// Number of requests to the model in one evaluation.
    pub fn n_requests(&self) -> u64 {
        let items = self.tasks.iter().flat_map(|task| &task.items);
        items.map(|item| item.requests.len() as u64).sum()
    }

    /// Reads the tasks of a stage.
    pub(crate) fn plan(
        loaded: &Loaded,
        paths: &Paths,
        stage: &str,
        eval: Option<&Eval>,
        tokenizer: &Tokenizer,
        is_scalar: bool,
    ) -> Result<Self> {
        let Some(eval) = eval.filter(|eval| !eval.tasks.is_empty()) else {
            return Ok(Self::default());
        };
        let mut tasks: Vec<EvalTask> = Vec::new();
        for (idx, name) in eval.tasks.iter().enumerate() {
            let wrong = |message: String, hint: Option<String>| {
                let key = format!("{stage}.eval.tasks[{idx}]");
                Error::Recipe(loaded.spans.error(&key, message, "", hint))
            };
            let of_task = |error: tasks::Error| wrong(error.to_string(), error.hint());
            let is_file = Path::new(name).extension().is_some_and(|extension| extension == "toml");
            let path = if is_file { paths.recipe_dir.join(name) } else { name.into() };
            let task = Task::open(&path).map_err(of_task)?;
            if tasks.iter().any(|other| other.task.name() == task.name()) {
                let message = format!("two tasks are called `{}`", task.name());
                return Err(wrong(message, Some("give one of them another `name`".to_owned())));
            }
            if task.needs_scores() != is_scalar {
                return Err(wrong(not_of_model(&task, is_scalar), None));
            }
            if task.needs_rewards() {
                let message = format!(
                    "the completions of `{}` are ranked by a reward model, which only `temper eval` has",
                    task.name()
                );
                return Err(wrong(message, None));
            }
            let shots = eval.task_shots.unwrap_or(task.default_shots());
            let data_dir = Some(paths.data_dir.clone());
            let options = TaskOptions { data_dir, limit: eval.task_rows, shots };
            let items = if eval.task_chat {
                chat_items(&task, &options, tokenizer)?
                    .ok_or_else(|| Error::NoChatTemplate { stage: stage.to_owned() })?
            } else {
                task.items(&options).map_err(of_task)?
            };
            let texts = task.texts(&options).map_err(of_task)?;
            tasks.push(EvalTask { task, shots, items, texts });
        }
        let metric = eval.metric.as_ref().map(|name| best_metric(loaded, stage, &tasks, name));
        Ok(Self { tasks, metric: metric.transpose()? })
    }
}

fn not_of_model(task: &Task, is_scalar: bool) -> String {
    if is_scalar {
        format!("`{}` needs a language model, and this stage trains a reward model", task.name())
    } else {
        format!("`{}` needs a reward model, and this stage trains a language model", task.name())
    }
}

fn best_metric(loaded: &Loaded, stage: &str, tasks: &[EvalTask], name: &str) -> Result<BestMetric> {
    let all = tasks.iter().flat_map(|EvalTask { task, .. }| {
        let of = |MetricName { name, higher_is_better }| BestMetric {
            name: format!("{TASK_PREFIX}{}/{name}", task.name()),
            higher_is_better,
        };
        task.metric_names().into_iter().map(of)
    });
    let all: Vec<BestMetric> = all.collect();
    let short =
        |metric: &BestMetric| metric.name.strip_prefix(TASK_PREFIX).unwrap_or_default().to_owned();
    all.iter().find(|metric| short(metric) == name).cloned().ok_or_else(|| {
        let names: Vec<String> = all.iter().map(|metric| format!("`{}`", short(metric))).collect();
        Error::Recipe(loaded.spans.error(
            &format!("{stage}.eval.metric"),
            format!("no metric of the stage's tasks: `{name}`"),
            "",
            Some(format!("the tasks have {}", names.join(", "))),
        ))
    })
}

/// Items of a task whose prompts are rendered by the tokenizer's chat template; `None` if it has none.
pub fn chat_items(
    task: &Task,
    options: &TaskOptions,
    tokenizer: &Tokenizer,
) -> Result<Option<Vec<Item>>> {
    let Some(template) = tokenizer.chat_template() else { return Ok(None) };
    let render = |turns: &[Turn]| {
        let message = |turn: &Turn| {
            let role = match turn.role {
                "system" => Role::System,
                "assistant" => Role::Assistant,
                _ => Role::User,
            };
            Message::new(role, turn.text.clone())
        };
        let messages: Vec<Message> = turns.iter().map(message).collect();
        tokenizer.render_chat(&messages, template, true).map_err(|error| error.to_string())
    };
    Ok(Some(task.items_as_chat(options, &render)?))
}
