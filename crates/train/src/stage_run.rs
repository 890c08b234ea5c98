//! The bookkeeping of a running stage: its directory, logs and counters, and when to evaluate, save and stop.
//!
//! Model, optimizer and loop stay in the stage's own code.

mod dir_check;
mod evaluations;
mod unrewarded;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fsio::DirWriter;
use plan::{BestMetric, Plan, StagePlan};
use recipe::TrainKeys;
use serde_json::Value;

use crate::checkpoint::{
    CHECKPOINT_FORMAT, Checkpoint, CheckpointInfo, TrainState, WEIGHTS_OF, checkpoint_name,
    checkpoint_steps, delete_checkpoint, discard_dir, load_newest, retain, save_checkpoint,
};
use crate::environment::Environment;
use crate::health::{self, Finding, Health};
use crate::metrics::{EvalRow, Logs, SampleRow, StepRow};
use crate::progress::{Event, Progress};
use crate::run_dir::{Finished, RunDir, RunDirGuard, StageDir};
use crate::signals::StopFlag;
use crate::trackers::Tracking;
use crate::weight_inputs::WeightInputs;
use crate::{Collective, Error, Result, SingleReplica};

/// The settings of a stage's run.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// The stage's name: its section in the recipe and its directory in the run.
    pub stage: String,
    /// Total number of updates.
    pub max_steps: u64,
    /// Number of parameters, shown in the progress output.
    pub n_parameters: u64,
    /// Number of trainable parameters.
    pub n_trained: u64,
    /// Intervals of saving, logging and evaluation, and early stopping.
    pub keys: TrainKeys,
    /// Whether the stage has validation data.
    pub validates: bool,
    /// Metric by which evaluations are compared. Default: the validation loss.
    pub best_metric: Option<BestMetric>,
    /// The resolved recipe, copied into every checkpoint.
    pub recipe_toml: String,
    /// config.json and tokenizer files, which make a checkpoint a Hugging Face directory.
    pub side_files: Vec<(String, Vec<u8>)>,
    /// Hashes of token caches, base model and tokenizer by name. They must be unchanged when a run is resumed.
    pub inputs: BTreeMap<String, String>,
    /// The directories of those inputs that are weights, for messages.
    pub input_dirs: BTreeMap<String, PathBuf>,
    /// Copies of the metrics for other programs.
    pub tracking: Tracking,
}

impl StageSettings {
    /// The settings of a planned stage. Its side files follow by [`StageRun::set_side_files`].
    pub fn of(plan: &Plan, stage: &StagePlan) -> Self {
        let mut keys = stage.keys.clone();
        if stage.dataset.n_eval_rows() == 0 && stage.eval_tasks.tasks.is_empty() {
            keys.eval = None;
        }
        Self {
            stage: stage.name.clone(),
            max_steps: stage.max_steps,
            n_parameters: stage.cost.n_parameters,
            n_trained: stage.cost.n_trained,
            keys,
            validates: stage.dataset.n_eval_rows() > 0,
            best_metric: stage.eval_tasks.metric.clone(),
            recipe_toml: plan.recipe_toml.clone(),
            side_files: Vec::new(),
            inputs: stage.inputs.clone(),
            input_dirs: BTreeMap::new(),
            tracking: Tracking {
                trackers: plan.recipe.trackers.clone(),
                run: plan.name.clone(),
                stage: stage.name.clone(),
                max_steps: stage.max_steps,
                epochs: stage.dataset.epoch_of(stage.max_steps),
                // A recipe came from TOML, so its keys are strings.
                recipe: serde_json::to_value(&plan.recipe).unwrap_or_default(),
                recipe_toml: plan.recipe_toml.clone(),
            },
        }
    }

    /// The settings with the hashes of the weights that the stage reads, by [`crate::weight_inputs`].
    #[must_use]
    pub fn with_weights(mut self, weights: WeightInputs) -> Self {
        self.inputs.extend(weights.hashes);
        self.input_dirs = weights.dirs;
        self
    }
}

/// A running stage.
pub struct StageRun<'a> {
    settings: StageSettings,
    dir: StageDir,
    guard: RunDirGuard,
    replicas: &'a dyn Collective,
    /// Open on the leader only.
    logs: Option<Logs>,
    state: TrainState,
    progress: &'a mut dyn Progress,
    stop: StopFlag,
    stopping: bool,
    previous: Option<String>,
    environment: Environment,
    last_save: Instant,
    last_row: Instant,
    tokens_at_last_row: u64,
    /// Seconds of training before `resumed_at`.
    seconds_before: f64,
    resumed_at: Instant,
    best_is_new: bool,
    /// Looks for signs that training goes wrong; on the leader only.
    health: Option<Health>,
    /// Texts that were generated before the first update, by their prompts.
    first_samples: BTreeMap<String, String>,
    /// Metrics of evaluations that were not finite, of which it has warned.
    not_finite: BTreeSet<String>,
}

impl<'a> StageRun<'a> {
    /// Prepares the stage's directory and opens its logs. `run` holds the lock of the run directory.
    pub fn open(
        run: &RunDir,
        settings: StageSettings,
        progress: &'a mut dyn Progress,
        stop: StopFlag,
    ) -> Result<Self> {
        Self::open_as(&SingleReplica, run, settings, progress, stop)
    }

    /// Like [`Self::open`], for one of several replicas. Only the leader writes, evaluates and reacts to signals; the
    /// others keep the same counters and are opened after the leader has resumed.
    pub fn open_as(
        replicas: &'a dyn Collective,
        run: &RunDir,
        settings: StageSettings,
        progress: &'a mut dyn Progress,
        stop: StopFlag,
    ) -> Result<Self> {
        let dir = run.stage(&settings.stage);
        let mut logs = None;
        let guard = run.guard();
        if replicas.is_leader() {
            guard.check()?;
            dir.prepare()?;
            logs = Some(Logs::open(dir.path(), settings.tracking.clone())?);
        }
        let health = replicas.is_leader().then(Health::default);
        let now = Instant::now();
        Ok(Self {
            logs,
            settings,
            dir,
            guard,
            replicas,
            state: TrainState::default(),
            progress,
            stop,
            stopping: false,
            previous: None,
            environment: Environment::current(),
            last_save: now,
            last_row: now,
            tokens_at_last_row: 0,
            seconds_before: 0.0,
            resumed_at: now,
            best_is_new: false,
            health,
            first_samples: BTreeMap::new(),
            not_finite: BTreeSet::new(),
        })
    }

    /// Restores the counters from the newest valid checkpoint; `None` if none was ever saved. Call it once, first.
    ///
    /// Logs are truncated to the lengths that the checkpoint records, so that each step appears once. The caller loads
    /// weights and optimizer state from `Checkpoint::dir`.
    pub fn resume(&mut self) -> Result<Option<Checkpoint>> {
        let checkpoint = load_newest(&self.dir.checkpoints(), self.progress)?;
        if let Some(checkpoint) = &checkpoint {
            self.compare_inputs(checkpoint)?;
            for difference in checkpoint.info.environment.differences(&self.environment) {
                self.warn(format!("results may differ in the last bits: {difference}"));
            }
            self.state = checkpoint.state.clone();
            self.previous = Some(checkpoint_name(self.state.step));
            self.seconds_before = self.state.seconds;
            self.tokens_at_last_row = self.state.tokens;
        }
        self.truncate_logs()?;
        if let (Some(logs), Some(health)) = (&self.logs, &mut self.health) {
            logs.metrics_lines(|line| health.replay(line));
            self.first_samples = logs.first_samples();
        }
        let event = Event::StageStarted {
            stage: self.settings.stage.clone(),
            step: self.state.step,
            max_steps: self.settings.max_steps,
            n_parameters: self.settings.n_parameters,
            n_trained: self.settings.n_trained,
            resumed_from: checkpoint.as_ref().map(|c| c.dir.clone()),
        };
        self.progress.event(&event);
        self.start_clocks();
        Ok(checkpoint)
    }

    /// Sets the files that are written beside the weights of each checkpoint; they depend on the save format.
    pub fn set_side_files(&mut self, files: Vec<(String, Vec<u8>)>) {
        self.settings.side_files = files;
    }

    /// The files that are written beside the weights.
    pub fn side_files(&self) -> &[(String, Vec<u8>)] {
        &self.settings.side_files
    }

    /// The counters of the stage.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// Counters that belong to one algorithm, saved with the others.
    pub fn extra_state(&mut self) -> &mut BTreeMap<String, f64> {
        &mut self.state.extra
    }

    /// Number of updates made, which is the 0-based index of the next one in the schedule and the data.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// The stage's directory.
    pub fn dir(&self) -> &StageDir {
        &self.dir
    }

    /// Whether another update follows: not at the last step, nor after early stopping or a stop signal.
    pub fn has_next_step(&self) -> bool {
        !self.is_done() && !self.stopping
    }

    /// Whether the stage is complete: all updates are made, or early stopping ended it.
    pub fn is_done(&self) -> bool {
        self.state.step >= self.settings.max_steps || self.state.stopped_early
    }

    /// The latest evaluation, or the best one where the best checkpoint is exported: it describes the weights in `model/`.
    pub fn exported_eval(&self) -> Option<&EvalRow> {
        let best = self.best().filter(|_| self.exports_best());
        best.or(self.state.last_eval.as_ref())
    }

    /// The checkpoint whose weights belong into `model/`, verified; `None` if those are the weights of the last step.
    ///
    /// Errors: the checkpoint is missing or damaged.
    pub fn best_checkpoint(&self) -> Result<Option<PathBuf>> {
        let step = self.exported_step();
        if step == self.state.step {
            return Ok(None);
        }
        let path = self.dir.checkpoints().join(checkpoint_name(step));
        match fsio::verify_dir(&path) {
            Ok(_) => Ok(Some(path)),
            Err(fsio::Error::Damaged { file, damage, .. }) if damage.is_other_content() => {
                Err(Error::BestCheckpoint { path, reason: format!("{file}: {damage}") })
            }
            Err(error) if error.is_not_found() => {
                Err(Error::BestCheckpoint { path, reason: "it is missing".to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Polls the stop signal. All replicas follow the leader's flags for stopping and early stopping.
    fn synchronize_stop(&mut self) -> Result<()> {
        let flags = [self.stop.is_requested(), self.state.stopped_early];
        let flags = flags.map(|flag| f64::from(u8::from(flag))).to_vec();
        if let [stop, stopped_early] = self.replicas.broadcast(flags)?[..] {
            self.state.stopped_early = stopped_early > 0.0;
            if stop > 0.0 && !self.stopping {
                self.stopping = true;
                self.progress.event(&Event::Stopping { step: self.state.step });
            }
        }
        Ok(())
    }

    /// Reports work other than steps. Its duration does not count in tokens per second.
    pub fn note(&mut self, message: String) {
        self.progress.event(&Event::Note { message });
        self.start_row();
    }

    /// Reports something that the user should know and that does not stop the run.
    pub fn warn(&mut self, message: String) {
        self.progress.event(&Event::Warning { message });
    }

    /// Counts an update, and logs it every `log_every_steps`.
    pub fn log_step(&mut self, report: StepReport) -> Result<()> {
        self.state.step += 1;
        self.state.tokens += report.tokens;
        let step = self.state.step;
        let every = self.settings.keys.log_every_steps.max(1);
        let logged = step.is_multiple_of(every) || step == 1 || step >= self.settings.max_steps;
        let seconds = self.last_row.elapsed().as_secs_f64();
        let tokens = self.state.tokens - self.tokens_at_last_row;
        let row = StepRow {
            step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            lr: report.lr,
            tokens: self.state.tokens,
            tokens_per_s: if seconds > 0.0 { (tokens as f64 / seconds).round() } else { 0.0 },
            extra: report.extra,
        };
        if logged && let Some(logs) = &mut self.logs {
            self.guard.check()?;
            logs.step(&row)?;
            self.warn_of_trackers();
            self.start_row();
        }
        let is_last = step >= self.settings.max_steps;
        let found = self.health.as_mut().map(|health| health.step(&row, is_last));
        self.progress.event(&Event::Step { row, logged });
        self.warn_of(&found.unwrap_or_default());
        Ok(())
    }

    fn warn_of(&mut self, findings: &[Finding]) {
        let lr = self.settings.keys.optimizer.lr;
        for finding in findings {
            let warning = health::warning(finding, &self.settings.stage, lr);
            self.warn(warning);
        }
    }

    /// Logs a generated text, with the text of the same prompt before the first update if there is one.
    pub fn log_sample(&mut self, mut row: SampleRow) -> Result<()> {
        if row.step == 0 {
            self.first_samples.insert(row.prompt.clone(), row.text.clone());
        } else if row.before.is_none() {
            row.before = self.first_samples.get(&row.prompt).cloned();
        }
        if let Some(logs) = &mut self.logs {
            self.guard.check()?;
            logs.sample(&row)?;
        }
        self.progress.event(&Event::Sample(row));
        self.start_row();
        Ok(())
    }

    /// Saves a checkpoint if one is due: by steps, by the clock, at the last step, after a stop signal, and at each best
    /// evaluation if the best checkpoint is exported. Call it last in the loop: here replicas agree on whether to stop.
    ///
    /// `write` writes model and optimizer; the other files are added here.
    pub fn save_if_due(
        &mut self,
        write: impl FnOnce(&mut DirWriter) -> Result<()>,
    ) -> Result<Option<PathBuf>> {
        self.synchronize_stop()?;
        let due = self.replicas.is_leader() && self.save_is_due();
        if due { self.save(write).map(Some) } else { Ok(None) }
    }

    /// Saves a checkpoint now, then deletes those that are no longer retained.
    pub fn save(&mut self, write: impl FnOnce(&mut DirWriter) -> Result<()>) -> Result<PathBuf> {
        let start = Instant::now();
        self.guard.check()?;
        if let Some(logs) = &mut self.logs {
            self.state.logs = logs.sync()?;
        }
        self.state.seconds = self.seconds();
        let checkpoints = self.dir.checkpoints();
        let step = self.state.step;
        let name = checkpoint_name(step);
        if checkpoint_steps(&checkpoints)?.contains(&step) {
            // Resumed after the last step: this checkpoint exists already.
            return Ok(checkpoints.join(name));
        }
        let info = CheckpointInfo {
            checkpoint_format: CHECKPOINT_FORMAT,
            environment: self.environment.clone(),
            previous: self.previous.clone(),
            inputs: self.settings.inputs.clone(),
        };
        let side_files = &self.settings.side_files;
        let recipe_toml = &self.settings.recipe_toml;
        let guard = &self.guard;
        let path = save_checkpoint(&checkpoints, &self.state, &info, recipe_toml, |dir| {
            write(dir)?;
            for (name, bytes) in side_files {
                dir.write(name, bytes)?;
            }
            // Writing takes a while; the directory gets its name after this.
            guard.check()
        })?;
        if let Some(logs) = &mut self.logs {
            logs.checkpoint_saved();
        }
        self.previous = Some(name);
        self.best_is_new = false;
        self.last_save = Instant::now();
        let seconds = start.elapsed().as_secs_f64();
        self.progress.event(&Event::CheckpointSaved { step, path: path.clone(), seconds });
        self.apply_retention(&checkpoints)?;
        self.start_row();
        Ok(path)
    }

    /// Writes a checkpoint before the first step, compares it by `read_back`, and removes it.
    pub fn dry_save(
        &mut self,
        write: impl FnOnce(&mut DirWriter) -> Result<()>,
        read_back: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.guard.check()?;
        let dir = self.dir.dry_save();
        let mut writer = DirWriter::begin(&dir)?;
        write(&mut writer)?;
        for (name, bytes) in &self.settings.side_files {
            writer.write(name, bytes)?;
        }
        writer.commit(Value::Null)?;
        fsio::verify_dir(&dir)?;
        let compared = read_back(&dir);
        discard_dir(&dir)?;
        self.start_clocks();
        compared
    }

    /// Marks the stage as finished. Its `model/` must be complete.
    pub fn finish(mut self, result: Value) -> Result<Finished> {
        self.guard.check()?;
        if let Some(logs) = &mut self.logs {
            logs.sync()?;
            logs.finish();
        }
        self.warn_without_best();
        let exports_last = self.exported_step() == self.state.step;
        let above = self.health.as_ref().and_then(Health::ended_above_start);
        let above = above.filter(|_| exports_last);
        if let Some(finding) = &above {
            self.warn(health::ending(finding, &self.settings.stage));
        }
        self.warn_of_trackers();
        let finished = Finished {
            steps: self.state.step,
            tokens: self.state.tokens,
            seconds: self.seconds(),
            exported_step: self.exported_step(),
            ended_above_start: above.is_some(),
            result,
            format: CHECKPOINT_FORMAT,
        };
        if self.replicas.is_leader() {
            self.dir.write_finished(&finished)?;
        }
        self.progress.event(&Event::Finished {
            stage: self.settings.stage.clone(),
            steps: finished.steps,
            seconds: finished.seconds,
            path: self.dir.path().to_owned(),
        });
        Ok(finished)
    }

    /// Seconds of training so far, without interruptions.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.resumed_at.elapsed().as_secs_f64()
    }

    fn save_is_due(&self) -> bool {
        let keys = &self.settings.keys;
        let by_steps =
            keys.save_every_steps.is_some_and(|every| self.state.step.is_multiple_of(every.max(1)));
        let minutes = keys.save_every_minutes;
        let by_clock =
            minutes > 0.0 && self.last_save.elapsed() >= Duration::from_secs_f64(minutes * 60.0);
        let at_best = self.best_is_new && self.exports_best();
        by_steps || by_clock || at_best || self.is_done() || self.stopping
    }

    /// Whether `model/` gets the weights of the best evaluation: `eval.export_best`, which early stopping implies.
    fn exports_best(&self) -> bool {
        let eval = self.settings.keys.eval.as_ref();
        eval.is_some_and(|eval| eval.export_best || eval.early_stopping.is_some())
    }

    /// The step whose weights are in `model/`.
    fn exported_step(&self) -> u64 {
        let best = self.best().filter(|_| self.exports_best());
        best.map_or(self.state.step, |best| best.step)
    }

    fn patience(&self) -> Option<u64> {
        let eval = self.settings.keys.eval.as_ref()?;
        Some(eval.early_stopping.as_ref()?.patience)
    }

    fn apply_retention(&mut self, checkpoints: &Path) -> Result<()> {
        let all = checkpoint_steps(checkpoints)?;
        let best = self.best().map(|best| best.step);
        let keep = self.settings.keys.keep_checkpoints;
        for step in retain(&all, best, self.state.step, keep) {
            delete_checkpoint(checkpoints, step)?;
        }
        Ok(())
    }

    fn compare_inputs(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (old, new) = (&checkpoint.info.inputs, &self.settings.inputs);
        let mut differences = Vec::new();
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            // Checkpoints did not always record weights.
            let is_newer = name.starts_with(WEIGHTS_OF) && !old.contains_key(name);
            if old.get(name) != new.get(name) && !is_newer {
                let dir = self.settings.input_dirs.get(name);
                let dir = dir.map(|dir| format!(" (in {})", dir.display())).unwrap_or_default();
                differences.push(format!("{name}{dir}"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::InputsChanged { path: checkpoint.dir.clone(), differences })
    }

    fn truncate_logs(&mut self) -> Result<()> {
        let Some(logs) = &mut self.logs else { return Ok(()) };
        // Where log rows are lost, the weights are complete.
        for warning in logs.truncate(self.state.logs, self.state.step)? {
            self.warn(warning);
        }
        Ok(())
    }

    fn warn_of_trackers(&mut self) {
        for message in self.logs.as_mut().map(Logs::take_warnings).unwrap_or_default() {
            self.warn(message);
        }
    }

    fn start_row(&mut self) {
        self.last_row = Instant::now();
        self.tokens_at_last_row = self.state.tokens;
    }

    fn start_clocks(&mut self) {
        self.start_row();
        self.last_save = Instant::now();
        self.resumed_at = Instant::now();
    }
}

/// The metrics of one update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Mean loss over the step's targets.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Tokens of the step without padding.
    pub tokens: u64,
    /// Metrics of the algorithm.
    pub extra: BTreeMap<String, f64>,
}

impl StepReport {
    /// The same report with the step's number of tokens and further metrics of the algorithm.
    #[must_use]
    pub fn with(self, tokens: u64, metrics: impl IntoIterator<Item = (String, f64)>) -> Self {
        let mut extra = self.extra;
        extra.extend(metrics);
        Self { tokens, extra, ..self }
    }
}
