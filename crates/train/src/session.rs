//! What a stage's loop holds on to: its folder, its logs, its counters, when to save and to stop.
//!
//! It deliberately has no loop, no model and no optimizer: those stay in view in the stage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fsio::DirWriter;
use plan::{Plan, StagePlan};
use recipe::TrainKeys;
use serde_json::Value;

use crate::checkpoint::{
    Best, CHECKPOINT_FORMAT, Checkpoint, CheckpointInfo, TrainState, checkpoint_name,
    checkpoint_steps, delete_checkpoint, load_newest, retain, save_checkpoint,
};
use crate::machine::Machine;
use crate::metrics::{EvalRow, Logs, SampleRow, StepRow};
use crate::progress::{Event, Progress};
use crate::run_dir::{Finished, RunDir, StageDir};
use crate::signals::StopFlag;
use crate::{Collective, Error, Result, SingleReplica};

/// What a stage brings to its session.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// The stage's name: its section and its folder.
    pub stage: String,
    /// Updates in all.
    pub max_steps: u64,
    /// Parameters in all, for whoever watches.
    pub n_parameters: u64,
    /// Parameters that are trained.
    pub n_trained: u64,
    /// When to save, to log, to measure and to give up.
    pub keys: TrainKeys,
    /// The recipe, as resolved; goes into every checkpoint.
    pub recipe_toml: String,
    /// config.json, tokenizer files: what makes a checkpoint a Hugging Face folder.
    pub side_files: Vec<(String, Vec<u8>)>,
    /// Hashes of token caches, base model and tokenizer, by name; a resumed run must have the same.
    pub inputs: BTreeMap<String, String>,
}

impl StageSettings {
    /// What a plan says of a stage; the files beside its weights are named once those are known.
    pub fn of(plan: &Plan, stage: &StagePlan) -> Self {
        Self {
            stage: stage.name.clone(),
            max_steps: stage.max_steps,
            n_parameters: stage.cost.n_parameters,
            n_trained: stage.cost.n_trained,
            keys: stage.keys.clone(),
            recipe_toml: plan.recipe_toml.clone(),
            side_files: Vec::new(),
            inputs: stage.inputs.clone(),
        }
    }
}

/// A stage that is running.
pub struct StageRun<'a> {
    settings: StageSettings,
    dir: StageDir,
    replicas: &'a dyn Collective,
    /// The leader's alone.
    logs: Option<Logs>,
    state: TrainState,
    progress: &'a mut dyn Progress,
    stop: StopFlag,
    stopping: bool,
    previous: Option<String>,
    machine: Machine,
    last_save: Instant,
    last_row: Instant,
    tokens_at_last_row: u64,
    /// Training time up to `resumed_at`.
    seconds_before: f64,
    resumed_at: Instant,
    best_is_new: bool,
}

impl<'a> StageRun<'a> {
    /// Prepares the stage's folder and opens its logs. The run's lock is held by `run`.
    pub fn open(
        run: &RunDir,
        settings: StageSettings,
        progress: &'a mut dyn Progress,
        stop: StopFlag,
    ) -> Result<Self> {
        Self::open_as(&SingleReplica, run, settings, progress, stop)
    }

    /// The same for one of several replicas. Only the leader writes, measures and hears signals; the others count along
    /// with it, and are opened when it has resumed.
    pub fn open_as(
        replicas: &'a dyn Collective,
        run: &RunDir,
        settings: StageSettings,
        progress: &'a mut dyn Progress,
        stop: StopFlag,
    ) -> Result<Self> {
        let dir = run.stage(&settings.stage);
        let mut logs = None;
        if replicas.is_leader() {
            dir.prepare()?;
            logs = Some(Logs::open(dir.path())?);
        }
        let now = Instant::now();
        Ok(Self {
            logs,
            settings,
            dir,
            replicas,
            state: TrainState::default(),
            progress,
            stop,
            stopping: false,
            previous: None,
            machine: Machine::here(),
            last_save: now,
            last_row: now,
            tokens_at_last_row: 0,
            seconds_before: 0.0,
            resumed_at: now,
            best_is_new: false,
        })
    }

    /// Takes up the newest whole checkpoint, or none if nothing was ever saved; call it once, first.
    ///
    /// The logs are cut back to what the checkpoint recorded, so that each step stands once. The
    /// caller loads weights and moments from `Checkpoint::dir`.
    pub fn resume(&mut self) -> Result<Option<Checkpoint>> {
        let checkpoint = load_newest(&self.dir.checkpoints(), self.progress)?;
        if let Some(checkpoint) = &checkpoint {
            self.compare_inputs(checkpoint)?;
            for difference in checkpoint.info.machine.differences(&self.machine) {
                self.warn(format!("the last bits of the run may differ: {difference}"));
            }
            self.state = checkpoint.state.clone();
            self.previous = Some(checkpoint_name(self.state.step));
            self.seconds_before = self.state.seconds;
            self.tokens_at_last_row = self.state.tokens;
        }
        self.cut_logs()?;
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

    /// Names the files that stand beside the weights in each checkpoint, once it is known how weights are kept.
    pub fn set_side_files(&mut self, files: Vec<(String, Vec<u8>)>) {
        self.settings.side_files = files;
    }

    /// The counters.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// A stage's own counters, saved with the rest.
    pub fn extra_state(&mut self) -> &mut BTreeMap<String, f64> {
        &mut self.state.extra
    }

    /// Updates made: the number of the next update, from 0, as schedules and data count.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Where the stage's files lie.
    pub fn dir(&self) -> &StageDir {
        &self.dir
    }

    /// Whether the stage has made all its updates, or early stopping ended it.
    pub fn is_done(&self) -> bool {
        self.state.step >= self.settings.max_steps || self.state.stopped_early
    }

    /// With early stopping, the checkpoint of the best measurement where it is not the latest one:
    /// what the stage should give out instead of its last weights.
    pub fn best_checkpoint(&self) -> Option<PathBuf> {
        self.patience()?;
        let best = self.state.best.filter(|best| best.step < self.state.step)?;
        let dir = self.dir.checkpoints().join(checkpoint_name(best.step));
        dir.is_dir().then_some(dir)
    }

    /// Whether a signal came before the last [`Self::save_if_due`], which saved because of it.
    pub fn stop_requested(&self) -> bool {
        self.stopping
    }

    /// Sees whether a signal came, and tells whoever watches the first time; all replicas go by what the leader sees.
    fn agree(&mut self) -> Result<()> {
        let seen = [self.stop.is_requested(), self.state.stopped_early];
        let seen = seen.map(|seen| f64::from(u8::from(seen))).to_vec();
        if let [stop, stopped_early] = self.replicas.broadcast(seen)?[..] {
            self.state.stopped_early = stopped_early > 0.0;
            if stop > 0.0 && !self.stopping {
                self.stopping = true;
                self.progress.event(&Event::Stopping { step: self.state.step });
            }
        }
        Ok(())
    }

    /// Passes something on to whoever watches.
    pub fn event(&mut self, event: &Event) {
        self.progress.event(event);
    }

    /// Says what was done besides steps; it doesn't count as time per token.
    pub fn note(&mut self, message: String) {
        self.progress.event(&Event::Note { message });
        self.start_row();
    }

    /// Says something that stops nothing.
    pub fn warn(&mut self, message: String) {
        self.progress.event(&Event::Warning { message });
    }

    /// Counts an update that was made, and logs every so many.
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
            logs.step(&row)?;
            self.warn_of_events();
            self.start_row();
        }
        self.progress.event(&Event::Step { row, logged });
        Ok(())
    }

    /// Whether the model is to be measured here and now: by the leader, every so many steps, and at the end.
    pub fn eval_due(&self) -> bool {
        let Some(eval) = &self.settings.keys.eval else { return false };
        if !self.replicas.is_leader() {
            return false;
        }
        let every =
            eval.every_steps.is_some_and(|every| self.state.step.is_multiple_of(every.max(1)));
        every || self.state.step >= self.settings.max_steps
    }

    /// Logs a measurement and counts it for early stopping. Returns whether it is the best so far.
    pub fn log_eval(&mut self, row: EvalRow) -> Result<bool> {
        if let Some(logs) = &mut self.logs {
            logs.eval(&row)?;
        }
        self.warn_of_events();
        let is_best = self.state.best.is_none_or(|best| row.eval_loss < best.metric);
        if is_best {
            self.state.best = Some(Best { step: row.step, metric: row.eval_loss });
            self.state.evals_without_gain = 0;
            self.best_is_new = true;
        } else {
            self.state.evals_without_gain += 1;
        }
        self.state.last_eval = Some(row.clone());
        if let Some(patience) = self.patience() {
            self.state.stopped_early |= self.state.evals_without_gain >= patience;
        }
        self.progress.event(&Event::Eval { row, is_best });
        // Measuring is no training: it doesn't count as time per token.
        self.start_row();
        Ok(is_best)
    }

    /// Logs a text that the model wrote.
    pub fn log_sample(&mut self, row: SampleRow) -> Result<()> {
        if let Some(logs) = &mut self.logs {
            logs.sample(&row)?;
        }
        self.progress.event(&Event::Sample(row));
        self.start_row();
        Ok(())
    }

    /// Saves if it is time: by steps, by the clock, at the end, at a signal, and with early stopping
    /// at each best measurement. Call it last in the loop: this is where replicas agree to stop.
    ///
    /// `write` puts model and optimizer into the folder; the rest is added here.
    pub fn save_if_due(
        &mut self,
        write: impl FnOnce(&mut DirWriter) -> Result<()>,
    ) -> Result<Option<PathBuf>> {
        self.agree()?;
        let due = self.replicas.is_leader() && self.save_is_due();
        if due { self.save(write).map(Some) } else { Ok(None) }
    }

    /// Saves now, and then deletes what is no longer kept.
    pub fn save(&mut self, write: impl FnOnce(&mut DirWriter) -> Result<()>) -> Result<PathBuf> {
        let start = Instant::now();
        if let Some(logs) = &mut self.logs {
            self.state.logs = logs.sync()?;
        }
        self.state.seconds = self.seconds();
        let checkpoints = self.dir.checkpoints();
        let step = self.state.step;
        let name = checkpoint_name(step);
        if checkpoint_steps(&checkpoints)?.contains(&step) {
            // A stage that is resumed after its last step has nothing new to save.
            return Ok(checkpoints.join(name));
        }
        let info = CheckpointInfo {
            checkpoint_format: CHECKPOINT_FORMAT,
            machine: self.machine.clone(),
            previous: self.previous.clone(),
            inputs: self.settings.inputs.clone(),
        };
        let side_files = &self.settings.side_files;
        let recipe_toml = &self.settings.recipe_toml;
        let path = save_checkpoint(&checkpoints, &self.state, &info, recipe_toml, |dir| {
            write(dir)?;
            for (name, bytes) in side_files {
                dir.write(name, bytes)?;
            }
            Ok(())
        })?;
        self.previous = Some(name);
        self.best_is_new = false;
        self.last_save = Instant::now();
        let seconds = start.elapsed().as_secs_f64();
        self.progress.event(&Event::CheckpointSaved { step, path: path.clone(), seconds });
        self.delete_old(&checkpoints)?;
        self.start_row();
        Ok(path)
    }

    /// Writes a checkpoint before the first step, lets `read_back` compare it, and removes it.
    pub fn dry_save(
        &mut self,
        write: impl FnOnce(&mut DirWriter) -> Result<()>,
        read_back: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let dir = self.dir.dry_save();
        let mut writer = DirWriter::begin(&dir)?;
        write(&mut writer)?;
        for (name, bytes) in &self.settings.side_files {
            writer.write(name, bytes)?;
        }
        writer.commit(Value::Null)?;
        fsio::verify_dir(&dir)?;
        let compared = read_back(&dir);
        fsio::remove_dir_all(&dir)?;
        self.start_clocks();
        compared
    }

    /// Marks the stage as done. Its `model/` must be in place.
    pub fn finish(mut self, result: Value) -> Result<Finished> {
        if let Some(logs) = &mut self.logs {
            logs.sync()?;
        }
        let finished = Finished {
            steps: self.state.step,
            tokens: self.state.tokens,
            seconds: self.seconds(),
            result,
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

    /// Seconds of training so far, interruptions left out.
    pub fn seconds(&self) -> f64 {
        self.seconds_before + self.resumed_at.elapsed().as_secs_f64()
    }

    fn save_is_due(&self) -> bool {
        let keys = &self.settings.keys;
        let by_steps =
            keys.save_every_steps.is_some_and(|every| self.state.step.is_multiple_of(every.max(1)));
        let minutes = keys.save_every_minutes;
        let by_clock =
            minutes > 0.0 && self.last_save.elapsed() >= Duration::from_secs_f64(minutes * 60.0);
        let at_best = self.best_is_new && self.patience().is_some();
        by_steps || by_clock || at_best || self.is_done() || self.stopping
    }

    fn patience(&self) -> Option<u64> {
        let eval = self.settings.keys.eval.as_ref()?;
        Some(eval.early_stopping.as_ref()?.patience)
    }

    fn delete_old(&mut self, checkpoints: &Path) -> Result<()> {
        let all = checkpoint_steps(checkpoints)?;
        let best = self.state.best.map(|best| best.step);
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
            if old.get(name) != new.get(name) {
                differences.push(name.clone());
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::InputsChanged { path: checkpoint.dir.clone(), differences })
    }

    fn cut_logs(&mut self) -> Result<()> {
        let Some(logs) = &mut self.logs else { return Ok(()) };
        match logs.cut_to(self.state.logs, self.state.step) {
            Err(Error::File(e @ fsio::Error::LogTooShort { .. })) => {
                // Rows are missing, weights are not.
                self.warn(format!("{e}; rows before step {} are missing", self.state.step));
                Ok(())
            }
            other => other,
        }
    }

    fn warn_of_events(&mut self) {
        if let Some(message) = self.logs.as_mut().and_then(Logs::events_warning) {
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

/// What the loop says of an update it has made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Mean loss over the step's targets.
    pub loss: f64,
    /// Global norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Tokens of the step, padding left out.
    pub tokens: u64,
    /// A stage's own figures.
    pub extra: BTreeMap<String, f64>,
}
