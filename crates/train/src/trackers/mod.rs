//! Copies of a stage's metrics for other programs: TensorBoard, Weights & Biases, MLflow. Only files are written.
//!
//! `metrics.jsonl` is the original. A resumed stage writes the copies again from it, so that no row is lost or there twice;
//! TensorBoard's files, which cannot be changed, get the rows again if they lack one. The first failure of a copy ends it with one warning and never stops the stage.

mod event_files;
mod identity;
mod mlflow;
mod names;
mod proto;
mod record_log;
mod tensorboard;
#[cfg(test)]
mod tests;
mod wandb;

use std::collections::BTreeMap;
use std::path::Path;

use recipe::Tracker;
use serde_json::{Map, Value};

use crate::Result;
use crate::metrics::SampleRow;
use crate::resume_rules::flat_keys;

use event_files::Shown;
use identity::Identity;
use mlflow::Mlflow;
pub(crate) use names::Values;
pub use tensorboard::EventWriter;
use wandb::Wandb;

/// The copies of a stage's metrics, and what they say about it.
#[derive(Clone, Debug, Default)]
pub struct Tracking {
    /// Programs that copies are written for.
    pub trackers: Vec<Tracker>,
    /// The run's name.
    pub run: String,
    /// The stage's name.
    pub stage: String,
    /// Number of updates of the stage.
    pub max_steps: u64,
    /// Passes over the data in all of them; 0 if unknown.
    pub epochs: f64,
    /// The resolved recipe.
    pub recipe: Value,
    /// The same as TOML.
    pub recipe_toml: String,
}

impl Tracking {
    /// The keys of the recipe that the stage depends on, by their paths: those of no section, and those of the stage's own.
    fn settings(&self) -> BTreeMap<String, String> {
        let own = self.recipe.as_object().into_iter().flatten();
        let own = own.filter(|(key, value)| **key == self.stage || is_plain(value));
        flat_keys(&Value::Object(own.map(|(key, value)| (key.clone(), value.clone())).collect()))
    }

    /// `RUN/STAGE`.
    fn title(&self) -> String {
        format!("{}/{}", self.run, self.stage)
    }
}

/// Whether a value is no section of a recipe.
fn is_plain(value: &Value) -> bool {
    !value.is_object() && !value.is_null()
}

/// Everything that was logged before: nothing in a new stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Values by step.
    pub(crate) values: BTreeMap<u64, Vec<(String, f64)>>,
    /// Samples in their order.
    pub(crate) samples: Vec<SampleRow>,
}

impl History {
    pub(crate) fn add(&mut self, values: Values) {
        self.values.entry(values.step).or_default().extend(values.values);
    }
}

/// A copy of the metrics.
trait MetricsCopy: Send {
    /// Starts with what was logged before.
    fn start(&mut self, history: &History) -> Result<()>;
    /// Adds values.
    fn values(&mut self, values: &Values) -> Result<()>;
    /// Adds a generated text.
    fn sample(&mut self, row: &SampleRow) -> Result<()>;
    /// Writes what is still in memory.
    fn flush(&mut self) -> Result<()>;
    /// Marks the stage as finished.
    fn finish(&mut self) -> Result<()>;
}

/// The copies of one stage.
pub(crate) struct Trackers {
    tracking: Tracking,
    events: Option<EventWriter>,
    copies: Vec<(&'static str, Box<dyn MetricsCopy>)>,
    /// Texts for TensorBoard until the next checkpoint is saved: it drops values of a process that was killed, but no texts.
    texts: Vec<Text>,
    /// Numbers of the prompts of samples, in the order of their first appearance.
    prompts: BTreeMap<String, usize>,
    warnings: Vec<String>,
}

impl Trackers {
    /// The copies of the stage in this directory; nothing is written.
    pub(crate) fn new(stage_dir: &Path, tracking: Tracking) -> Self {
        let has = |tracker| tracking.trackers.contains(&tracker);
        let events = has(Tracker::Tensorboard).then(|| EventWriter::new(stage_dir));
        let mut copies: Vec<(&'static str, Box<dyn MetricsCopy>)> = Vec::new();
        let identity = Identity::of(stage_dir);
        if has(Tracker::Wandb) {
            let run = Wandb::new(identity.clone(), tracking.clone());
            copies.push(("Weights & Biases", Box::new(run)));
        }
        if has(Tracker::Mlflow) {
            copies.push(("MLflow", Box::new(Mlflow::new(identity, tracking.clone()))));
        }
        let (texts, prompts, warnings) = Default::default();
        Self { tracking, events, copies, texts, prompts, warnings }
    }

    /// Whether a copy starts with the metrics that were logged before.
    pub(crate) fn needs_metrics(&self) -> bool {
        self.events.is_some() || !self.copies.is_empty()
    }

    /// Starts the copies of a stage that has made `step` updates.
    pub(crate) fn start(&mut self, step: u64, history: &History) {
        let texts: Vec<Text> = history.samples.iter().map(|row| self.text_of(row)).collect();
        if let Some(events) = &mut self.events {
            // The rows of the checkpoint's own step were written before it, unless the process was killed or had no such copy.
            let is_whole = step > 0 && has_all(&Shown::read(events.dir()), history, &texts);
            events.start_session(if is_whole { step + 1 } else { 0 });
            events.text("recipe", &indented(&self.tracking.recipe_toml), step);
            events.hyperparameters(&self.tracking.settings());
            if !is_whole {
                write_all(events, history, &texts);
            }
            events.flush();
        }
        self.each(|copy| copy.start(history));
    }

    /// The values of a row of metrics.jsonl.
    pub(crate) fn values_of(&self, row: &Map<String, Value>) -> Option<Values> {
        Values::of(row, self.tracking.epochs, self.tracking.max_steps)
    }

    /// Adds a row of metrics.jsonl.
    pub(crate) fn row(&mut self, row: &Value) {
        let Some(values) = row.as_object().and_then(|row| self.values_of(row)) else { return };
        if let Some(events) = &mut self.events {
            for (name, value) in &values.values {
                events.scalar(name, *value, values.step);
            }
            events.flush();
        }
        self.each(|copy| copy.values(&values));
    }

    /// Adds a generated text.
    pub(crate) fn sample(&mut self, row: &SampleRow) {
        let text = self.text_of(row);
        if self.events.is_some() {
            self.texts.push(text);
        }
        self.each(|copy| copy.sample(row));
    }

    /// A generated text for TensorBoard.
    fn text_of(&mut self, row: &SampleRow) -> Text {
        let number = self.number(&row.prompt);
        let score = row.score.map(|score| format!("\n\nScore: {score}")).unwrap_or_default();
        let (prompt, text) = (indented(&row.prompt), indented(&row.text));
        let text = format!("{prompt}\n\nAnswer:\n\n{text}{score}");
        Text { tag: format!("samples/{number}"), text, step: row.step }
    }

    /// The number of a prompt, which a resumed stage keeps.
    fn number(&mut self, prompt: &str) -> usize {
        let next = self.prompts.len() + 1;
        *self.prompts.entry(prompt.to_owned()).or_insert(next)
    }

    /// Writes what is still in memory, before a checkpoint.
    pub(crate) fn flush(&mut self) {
        if let Some(events) = &mut self.events {
            events.flush();
        }
        self.each(|copy| copy.flush());
    }

    /// Writes what a resumed stage will not repeat, after a checkpoint.
    pub(crate) fn checkpoint_saved(&mut self) {
        let texts = std::mem::take(&mut self.texts);
        if let Some(events) = &mut self.events {
            for Text { tag, text, step } in texts {
                events.text(&tag, &text, step);
            }
            events.flush();
        }
    }

    /// Marks the stage as finished.
    pub(crate) fn finish(&mut self) {
        self.flush();
        self.checkpoint_saved();
        self.each(|copy| copy.finish());
    }

    /// Failures, each returned once.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        let of_events = self.events.as_mut().and_then(EventWriter::take_warning);
        of_events.into_iter().chain(std::mem::take(&mut self.warnings)).collect()
    }

    fn each(&mut self, act: impl Fn(&mut dyn MetricsCopy) -> Result<()>) {
        let warnings = &mut self.warnings;
        self.copies.retain_mut(|(name, copy)| match act(copy.as_mut()) {
            Ok(()) => true,
            Err(error) => {
                warnings.push(format!("no more files for {name} in this run: {error}"));
                false
            }
        });
    }
}

/// A text of a step.
struct Text {
    tag: String,
    text: String,
    step: u64,
}

/// Whether every value and text is shown.
fn has_all(shown: &Shown, history: &History, texts: &[Text]) -> bool {
    let mut values = history
        .values
        .iter()
        .flat_map(|(step, values)| values.iter().map(move |(name, _)| (name.as_str(), *step)));
    values.all(|(name, step)| shown.has(name, step))
        && texts.iter().all(|text| shown.has(&text.tag, text.step))
}

/// Writes every value and text, in the order of their steps.
fn write_all(events: &mut EventWriter, history: &History, texts: &[Text]) {
    for (step, values) in &history.values {
        for (name, value) in values {
            events.scalar(name, *value, *step);
        }
    }
    for Text { tag, text, step } in texts {
        events.text(tag, text, *step);
    }
}

/// A text as a block of code in Markdown.
fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

/// Seconds since 1970.
fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}
