//! The state of a run as it is shown: its stages with curves and samples, and its latest messages.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::message::{Message, MessageKind};
use crate::pace::Pace;
use crate::row::Row;
use crate::series::Series;
use crate::status::{RunState, StageSteps, Status};

/// Messages that are remembered.
const MAX_MESSAGES: usize = 12;
/// Samples of a stage that are remembered.
const MAX_SAMPLES: usize = 32;

/// An event of a running process.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A stage starts or resumes.
    StageStarted(StageStart),
    /// An update or an evaluation of the current stage.
    Row(Row),
    /// A sample of the current stage.
    Sample(Sample),
    /// A note or a warning.
    Message(MessageKind, String),
    /// A signal was received.
    Stopping,
    /// The current stage is finished.
    StageFinished {
        /// Its number of updates.
        steps: u64,
    },
    /// The process ends its work on the run.
    Ended(RunState),
}

/// The start of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageStart {
    /// Name of the stage.
    pub name: String,
    /// Number of updates made before.
    pub step: u64,
    /// Total number of updates.
    pub max_steps: u64,
    /// Number of parameters.
    pub n_parameters: u64,
    /// Number of trained parameters.
    pub n_trained: u64,
}

/// A generated text, as in samples.jsonl.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Number of updates made before it.
    pub step: u64,
    /// The prompt.
    pub prompt: String,
    /// The generated text.
    pub text: String,
    /// The text from the same prompt before training.
    pub before: Option<String>,
    /// Score of the text.
    pub score: Option<f64>,
}

/// A run.
#[derive(Clone, Debug, Default)]
pub struct RunView {
    pub(crate) name: String,
    pub(crate) state: RunState,
    pub(crate) stages: Vec<StageView>,
    pub(crate) current: usize,
    pub(crate) messages: VecDeque<Message>,
    pub(crate) memory_bytes: Option<u64>,
}

/// A stage of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageView {
    pub(crate) name: String,
    /// Total number of updates; 0 if it is not known.
    pub(crate) max_steps: u64,
    pub(crate) is_finished: bool,
    pub(crate) step: u64,
    pub(crate) n_parameters: u64,
    pub(crate) n_trained: u64,
    pub(crate) elapsed: f64,
    pub(crate) left: Option<f64>,
    pub(crate) latest: Row,
    pub(crate) previous_loss: Option<f64>,
    pub(crate) steps: BTreeMap<String, Series>,
    pub(crate) evals: BTreeMap<String, Series>,
    pub(crate) samples: VecDeque<Sample>,
    /// Time of the start, in the process that trains.
    started: Option<f64>,
    pace: Pace,
}

impl RunView {
    /// A run of which nothing is known.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// A run whose process is starting, with its stages in order.
    pub fn starting(name: &str, stages: &[StageSteps]) -> Self {
        let mut view = Self::new(name);
        view.state = RunState::Training;
        view.set_stages(stages);
        view
    }

    /// State of the run.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Sets the memory of the process, in bytes.
    pub fn set_memory(&mut self, bytes: Option<u64>) {
        self.memory_bytes = bytes;
    }

    /// Number of stages.
    pub fn n_stages(&self) -> usize {
        self.stages.len()
    }

    /// Index of the stage that trains, or trained last.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Name of the current stage, its latest update with the total number, and the seconds left; `None` before the first
    /// update.
    pub fn progress(&self) -> Option<(&str, &Row, u64, Option<f64>)> {
        let stage = self.stages.get(self.current)?;
        (stage.latest.step > 0).then_some((&stage.name, &stage.latest, stage.max_steps, stage.left))
    }

    /// Messages that are remembered, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter()
    }

    /// Forgets what an earlier process said about itself: its state, messages and memory. Curves stay.
    pub fn forget_process(&mut self) {
        self.state = RunState::Training;
        self.messages.clear();
        self.memory_bytes = None;
        self.current = 0;
    }

    /// Applies what happened at the time `now`, in seconds since any moment.
    pub fn apply(&mut self, update: Update, now: f64) {
        match update {
            Update::StageStarted(start) => self.start_stage(start, now),
            Update::Row(row) => {
                if let Some(stage) = self.stages.get_mut(self.current) {
                    if !row.is_eval {
                        stage.pace.note(row.step, now);
                    }
                    stage.add_row(row);
                    stage.tick(now);
                }
            }
            Update::Sample(sample) => {
                if let Some(stage) = self.stages.get_mut(self.current) {
                    stage.add_sample(sample);
                }
            }
            Update::Message(kind, text) => {
                let stage = self.stages.get(self.current);
                let (name, step) =
                    stage.map_or((String::new(), 0), |stage| (stage.name.clone(), stage.step));
                self.messages.push_back(Message { kind, stage: name, step, text });
                self.forget_messages();
            }
            Update::Stopping => self.state = RunState::Stopping,
            Update::StageFinished { steps } => {
                if let Some(stage) = self.stages.get_mut(self.current) {
                    (stage.step, stage.is_finished, stage.left) = (steps, true, None);
                    stage.started = None;
                }
            }
            Update::Ended(state) => self.state = state,
        }
    }

    /// Lets time pass without an event.
    pub fn tick(&mut self, now: f64) {
        if let Some(stage) = self.stages.get_mut(self.current) {
            stage.tick(now);
        }
    }

    /// The content of `status.json` at a time in seconds since 1970.
    pub fn status(&self, updated: f64) -> Status {
        let stages = self.stages.iter().map(|stage| StageSteps {
            name: stage.name.clone(),
            max_steps: stage.max_steps,
            finished: stage.is_finished,
        });
        let none = StageView::default();
        let stage = self.stages.get(self.current).unwrap_or(&none);
        let mut row = json!(stage.latest.values);
        if let Some(row) = row.as_object_mut() {
            row.insert("step".to_owned(), stage.latest.step.into());
        }
        Status {
            state: self.state,
            updated,
            stages: stages.collect(),
            stage: stage.name.clone(),
            step: stage.step,
            n_parameters: stage.n_parameters,
            n_trained: stage.n_trained,
            row,
            elapsed: stage.elapsed,
            left: stage.left,
            memory_bytes: self.memory_bytes,
            messages: self.messages.iter().cloned().collect(),
        }
    }

    /// Takes over what a status file says.
    pub(crate) fn read_status(&mut self, status: &Status) {
        self.set_stages(&status.stages);
        self.state = status.state;
        self.memory_bytes = status.memory_bytes;
        self.messages = status.messages.iter().cloned().collect();
        self.forget_messages();
        let Some(at) = self.stages.iter().position(|stage| stage.name == status.stage) else {
            return;
        };
        self.current = at;
        let Some(stage) = self.stages.get_mut(at) else { return };
        if !stage.is_finished {
            stage.step = stage.latest.step.max(status.step);
        }
        (stage.n_parameters, stage.n_trained) = (status.n_parameters, status.n_trained);
        (stage.elapsed, stage.left) = (status.elapsed, status.left);
        if let Some(row) = Row::of(&status.row).filter(|row| row.step >= stage.latest.step) {
            stage.add_row(row);
        }
    }

    /// Adds stages that are not known yet, in their order, and updates the others.
    fn set_stages(&mut self, stages: &[StageSteps]) {
        for given in stages {
            let stage = self.stage_mut(&given.name);
            stage.max_steps = given.max_steps;
            stage.is_finished |= given.finished;
        }
    }

    /// The stage of a name; it is added if it is new.
    pub(crate) fn stage_mut(&mut self, name: &str) -> &mut StageView {
        let at = self.stages.iter().position(|stage| stage.name == name);
        let at = at.unwrap_or_else(|| {
            self.stages.push(StageView { name: name.to_owned(), ..StageView::default() });
            self.stages.len() - 1
        });
        &mut self.stages[at]
    }

    fn start_stage(&mut self, start: StageStart, now: f64) {
        let stage = self.stage_mut(&start.name);
        stage.max_steps = start.max_steps;
        (stage.n_parameters, stage.n_trained) = (start.n_parameters, start.n_trained);
        (stage.elapsed, stage.left, stage.is_finished) = (0.0, None, false);
        (stage.started, stage.pace) = (Some(now), Pace::default());
        stage.truncate_after(start.step);
        self.current =
            self.stages.iter().position(|stage| stage.name == start.name).unwrap_or_default();
    }

    fn forget_messages(&mut self) {
        while self.messages.len() > MAX_MESSAGES {
            // Warnings are kept longer than notes.
            let note = self.messages.iter().position(|message| message.kind == MessageKind::Note);
            self.messages.remove(note.unwrap_or(0));
        }
    }
}

impl StageView {
    pub(crate) fn add_row(&mut self, row: Row) {
        let curves = if row.is_eval { &mut self.evals } else { &mut self.steps };
        for (name, value) in &row.values {
            curves.entry(name.clone()).or_default().push(row.step, *value);
        }
        self.step = self.step.max(row.step);
        if row.is_eval {
            return;
        }
        if row.step > self.latest.step {
            self.previous_loss = self.latest.values.get("loss").copied();
        }
        self.latest = row;
    }

    pub(crate) fn add_sample(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        if self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
        }
    }

    /// Removes what came after an update, as when a stage resumes from it.
    fn truncate_after(&mut self, step: u64) {
        for curve in self.steps.values_mut().chain(self.evals.values_mut()) {
            curve.truncate_before(step + 1);
        }
        self.samples.retain(|sample| sample.step <= step);
        self.step = step;
        if self.latest.step > step {
            (self.latest, self.previous_loss) = (Row::default(), None);
        }
    }

    /// Removes all rows, to read them again.
    pub(crate) fn clear_rows(&mut self) {
        self.steps.clear();
        self.evals.clear();
        (self.latest, self.previous_loss, self.step) = (Row::default(), None, 0);
    }

    fn tick(&mut self, now: f64) {
        let Some(start) = self.started else { return };
        self.elapsed = (now - start).max(0.0);
        // Time passes between updates: the estimate counts from the latest one.
        self.left = self.pace.left(self.step, self.max_steps, now).or(self.left);
    }

    pub(crate) fn curve(&self, names: &[&str]) -> Option<&Series> {
        names.iter().find_map(|name| self.steps.get(*name))
    }

    pub(crate) fn eval_curve(&self, names: &[&str]) -> Option<&Series> {
        names.iter().find_map(|name| self.evals.get(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64, loss: f64) -> Row {
        let values = [("loss".to_owned(), loss), ("lr".to_owned(), 1e-3)];
        Row { step, is_eval: false, values: values.into_iter().collect() }
    }

    fn started() -> RunView {
        let stages =
            ["a", "b"].map(|name| StageSteps { name: name.into(), max_steps: 10, finished: false });
        let mut view = RunView::starting("run", &stages);
        let start = StageStart { name: "b".into(), max_steps: 10, ..StageStart::default() };
        view.apply(Update::StageStarted(start), 100.0);
        view
    }

    #[test]
    fn time_left_follows_from_the_updates_of_this_process() {
        let mut view = started();
        view.apply(Update::Row(row(1, 3.0)), 300.0);
        assert_eq!(view.progress().unwrap().3, None, "200 s before the first update tell nothing");
        view.apply(Update::Row(row(2, 2.0)), 302.0);
        let (name, latest, max_steps, left) = view.progress().unwrap();
        assert_eq!((name, latest.step, max_steps, left), ("b", 2, 10, Some(16.0)));
        view.apply(Update::StageFinished { steps: 10 }, 320.0);
        view.tick(400.0);
        assert_eq!(view.stages[1].left, None);
        assert!(view.stages[1].is_finished && !view.stages[0].is_finished);
    }

    #[test]
    fn a_status_file_carries_everything_that_the_logs_do_not_have() {
        let mut view = started();
        view.apply(Update::Row(row(4, 3.0)), 104.0);
        view.apply(Update::Message(MessageKind::Warning, "hot".into()), 104.0);
        view.set_memory(Some(5));
        let status = view.status(7.0);
        let mut other = RunView::new("run");
        other.read_status(&status);
        assert_eq!(other.status(7.0), status);
        assert_eq!(other.progress(), view.progress());
        assert_eq!(other.current(), 1);
    }

    #[test]
    fn resuming_removes_what_came_after_the_checkpoint() {
        let mut view = started();
        for step in 1..=6 {
            view.apply(Update::Row(row(step, step as f64)), 101.0);
            view.apply(Update::Sample(Sample { step, ..Sample::default() }), 101.0);
        }
        let start =
            StageStart { name: "b".into(), step: 4, max_steps: 10, ..StageStart::default() };
        view.apply(Update::StageStarted(start), 200.0);
        let stage = &view.stages[1];
        assert_eq!(stage.curve(&["loss"]).unwrap().last(), Some(4.0));
        assert_eq!((stage.samples.len(), stage.step, stage.latest.step), (4, 4, 0));
    }

    #[test]
    fn warnings_outlive_notes() {
        let mut view = started();
        view.apply(Update::Message(MessageKind::Warning, "hot".into()), 0.0);
        for n in 0..50 {
            view.apply(Update::Message(MessageKind::Note, n.to_string()), 0.0);
        }
        assert_eq!(view.messages.len(), MAX_MESSAGES);
        assert_eq!(view.messages[0].text, "hot");
    }
}
