//! The runs of a sweep before they are trained: each is planned, so that what can fail early fails before anything is spent.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use plan::{BestMetric, Plan, StagePlan};
use recipe::Recipe;
use train::{RunDir, StageDir, StageStatus};

use super::grid::{Combination, Grid};
use crate::args::{LogStyle, RecipeArgs, SweepArgs};
use crate::commands::plan::timed;
use crate::commands::run::check_starts;
use crate::commands::{plan_loaded, resources, set_up_kernels};
use crate::failure::{Failure, Result};
use crate::render::progress::warn;
use crate::render::table::{self, counted};

/// A sweep that can be trained.
pub(super) struct Planned {
    /// Short names of the keys with several values.
    pub(super) labels: Vec<String>,
    pub(super) runs: Vec<PlannedRun>,
    /// Stages that are the same in all runs, the last stage aside.
    shared: Vec<String>,
    disk: u64,
    free_disk: Option<u64>,
}

/// A run of a sweep.
pub(super) struct PlannedRun {
    pub(super) name: String,
    pub(super) values: Vec<String>,
    /// The run's command line.
    pub(super) args: RecipeArgs,
    pub(super) dir: PathBuf,
    pub(super) stages: Vec<PlannedStage>,
}

/// A stage of a run of a sweep.
pub(super) struct PlannedStage {
    pub(super) name: String,
    /// The metric that `eval.metric` names.
    pub(super) metric: Option<BestMetric>,
    /// Targets of the validation data. Losses on different targets are not comparable.
    pub(super) eval_targets: u64,
    max_steps: u64,
    steps_done: u64,
    is_finished: bool,
    peak_bytes: u64,
    /// Estimated seconds of the whole stage.
    seconds: Option<f64>,
}

/// Plans all runs.
///
/// Errors: a recipe is wrong, changes a run that has begun, or needs more memory or disk space than there is.
pub(super) fn plan(args: &SweepArgs, log: LogStyle, threads: Option<usize>) -> Result<Planned> {
    let grid = Grid::new(&args.set)?;
    let combinations = grid.combinations();
    let mut planner = Planner { args, grid, log, threads, probes: HashMap::new() };
    let mut planned = Planned {
        labels: planner.grid.labels(),
        runs: Vec::new(),
        shared: Vec::new(),
        disk: 0,
        free_disk: None,
    };
    let mut notes = BTreeSet::new();
    let mut first: Option<Recipe> = None;
    for combination in &combinations {
        let loaded = recipe::load(&args.recipe, &combination.set)?;
        for note in &loaded.notes {
            if notes.insert(note.clone()) {
                warn(note);
            }
        }
        let base = args.name.clone().unwrap_or_else(|| loaded.name.clone());
        let name = planner.grid.name(&base, combination);
        let of_run = |failure: Failure| failure.of(&name);
        let (run, plan) = planner.run(&loaded, &name, combination).map_err(of_run)?;
        if run.is_finished() {
            planned.runs.push(run);
            continue;
        }
        planned.disk += resources::needed_disk(&plan);
        planned.free_disk = resources::free_disk(&plan);
        match &first {
            None => {
                planned.shared = before_last(&plan);
                first = Some(loaded.recipe);
            }
            Some(first) => {
                planned.shared.retain(|stage| is_same(first, &loaded.recipe, stage));
            }
        }
        planned.runs.push(run);
    }
    planned.check(args.force)?;
    Ok(planned)
}

/// Names of all stages but the last one.
fn before_last(plan: &Plan) -> Vec<String> {
    let names: Vec<String> = plan.stages.iter().map(|stage| stage.name.clone()).collect();
    names.split_last().map(|(_, before)| before.to_vec()).unwrap_or_default()
}

/// Whether a stage of two recipes makes the same weights.
fn is_same(a: &Recipe, b: &Recipe, stage: &str) -> bool {
    let value = |recipe: &Recipe| serde_json::to_value(recipe).unwrap_or_default();
    train::differences(&value(a), &value(b), stage) == train::Differences::default()
}

struct Planner<'a> {
    args: &'a SweepArgs,
    grid: Grid,
    log: LogStyle,
    threads: Option<usize>,
    /// Seconds of stages of one shape.
    probes: HashMap<String, f64>,
}

impl Planner<'_> {
    fn run(
        &mut self,
        loaded: &recipe::Loaded,
        name: &str,
        combination: &Combination,
    ) -> Result<(PlannedRun, Plan)> {
        recipe::run_name(name).map_err(|rule| {
            Failure::input(format!("the name of a run {rule}: `{name}`"), "add --name NAME")
        })?;
        let args = RecipeArgs {
            recipe: self.args.recipe.clone(),
            data_dir: self.args.data_dir.clone(),
            set: combination.set.clone(),
            limit: self.args.limit,
            name: Some(name.to_owned()),
            stage: self.args.stage.clone(),
            allow_commands: self.args.allow_commands,
        };
        let plan = plan_loaded(loaded, &args, self.log, self.threads)?;
        RunDir::check_recipe(&plan.paths.run_dir, &plan.recipe)?;
        check_starts(&plan)?;
        let dir = plan.paths.run_dir.clone();
        let mut stages = Vec::new();
        for stage in &plan.stages {
            stages.push(planned_stage(stage, &StageDir::in_run(&dir, &stage.name))?);
        }
        let values = combination.values.clone();
        let mut run = PlannedRun { name: name.to_owned(), values, args, dir, stages };
        if !run.is_finished() {
            let fits = resources::check(&plan);
            if fits.is_err() && !self.args.force {
                return fits.map(|()| (run, plan));
            }
            if !self.args.no_probe && fits.is_ok() {
                self.probe(&plan, &mut run)?;
            }
        }
        Ok((run, plan))
    }

    /// Times the stages that are not finished. Stages of one shape are timed once.
    fn probe(&mut self, plan: &Plan, run: &mut PlannedRun) -> Result<()> {
        set_up_kernels(plan);
        for (stage, planned) in plan.stages.iter().zip(&mut run.stages) {
            if planned.is_finished {
                continue;
            }
            let cost = &stage.cost;
            let shape = format!(
                "{} {} {} {} {} {} {} {}",
                stage.name,
                cost.flops,
                cost.n_trained,
                cost.peak_bytes,
                stage.micro_batch,
                stage.rows_per_step,
                stage.sequence_length,
                plan.precision.name(),
            );
            let seconds = match self.probes.get(&shape) {
                Some(seconds) => *seconds,
                None => timed(plan, stage)?,
            };
            self.probes.insert(shape, seconds);
            planned.seconds = Some(seconds);
        }
        Ok(())
    }
}

fn planned_stage(stage: &StagePlan, dir: &StageDir) -> Result<PlannedStage> {
    let (steps_done, is_finished) = match dir.status()? {
        StageStatus::NotStarted => (0, false),
        StageStatus::Interrupted { step } => (step, false),
        StageStatus::Finished(finished) => (finished.steps, true),
    };
    Ok(PlannedStage {
        name: stage.name.clone(),
        metric: stage.eval_tasks.metric.clone(),
        eval_targets: stage.dataset.counts().eval_targets,
        max_steps: stage.max_steps,
        steps_done,
        is_finished,
        peak_bytes: stage.cost.peak_bytes,
        seconds: None,
    })
}

impl PlannedRun {
    /// Whether every stage was trained before.
    pub(super) fn is_finished(&self) -> bool {
        self.stages.iter().all(|stage| stage.is_finished)
    }

    /// Estimated seconds that are left; `None` without a probe.
    fn seconds_left(&self) -> Option<f64> {
        let left = self.stages.iter().filter(|stage| !stage.is_finished).map(|stage| {
            let steps = stage.max_steps.saturating_sub(stage.steps_done);
            Some(stage.seconds? * steps as f64 / stage.max_steps.max(1) as f64)
        });
        left.sum()
    }

    fn state(&self) -> String {
        let begun = self.stages.iter().find(|stage| !stage.is_finished && stage.steps_done > 0);
        if self.is_finished() {
            "finished: skipped".to_owned()
        } else if let Some(stage) = begun {
            format!("resumes [{}] at step {}", stage.name, table::thousands(stage.steps_done))
        } else if let Some(stage) = self.stages.iter().rfind(|stage| stage.is_finished) {
            format!("goes on after [{}]", stage.name)
        } else {
            "new".to_owned()
        }
    }
}

impl Planned {
    /// Refuses names that two runs share, and a sweep that the disk has no room for.
    fn check(&self, force: bool) -> Result<()> {
        let mut names = BTreeSet::new();
        if let Some(run) = self.runs.iter().find(|run| !names.insert(&run.name)) {
            return Err(Failure::input(
                format!("two runs have the name `{}`", run.name),
                "choose a shorter name with --name",
            ));
        }
        match self.free_disk {
            Some(free) if self.disk > free && !force => Err(Failure::input(
                format!(
                    "the sweep needs {} of disk space, and {} are free",
                    table::bytes(self.disk),
                    table::bytes(free)
                ),
                "free some space, or sweep fewer values at a time; `--force` starts it anyway",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Number of runs that are not finished.
    pub(super) fn n_left(&self) -> usize {
        self.runs.iter().filter(|run| !run.is_finished()).count()
    }

    /// The table of the runs, with time, memory and disk space.
    pub(super) fn text(&self) -> String {
        let tail = ["steps", "memory", "time", "run", ""].map(str::to_owned);
        let head: Vec<String> = self.labels.iter().cloned().chain(tail).collect();
        let lines = self.runs.iter().map(|run| {
            let steps = run.stages.iter().map(|stage| stage.max_steps).sum();
            let bytes = run.stages.iter().map(|stage| stage.peak_bytes).max().unwrap_or(0);
            let seconds = run.seconds_left().filter(|_| !run.is_finished());
            let time = seconds.map_or_else(|| "-".to_owned(), table::clock);
            let rest = [
                table::thousands(steps),
                table::bytes(bytes),
                time,
                run.dir.display().to_string(),
                run.state(),
            ];
            run.values.iter().cloned().chain(rest).collect()
        });
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
        let n = self.labels.len();
        table::columns(&rows, &[n, n + 1, n + 2]) + &self.totals()
    }

    fn totals(&self) -> String {
        let n_runs = counted(self.runs.len() as u64, "run");
        let mut text = match self.runs.len() - self.n_left() {
            0 => n_runs,
            n => format!("{n_runs}, {} of them finished", table::thousands(n as u64)),
        };
        let left = self.runs.iter().filter(|run| !run.is_finished());
        let seconds: Option<f64> = left.map(PlannedRun::seconds_left).sum();
        if let Some(seconds) = seconds.filter(|_| self.n_left() > 0) {
            text += &format!(" · about {} of training left", table::clock(seconds));
        }
        if self.disk > 0 {
            text += &format!(" · about {} of disk space", table::bytes(self.disk));
            let free = self.free_disk.map(|free| format!(", {} free", table::bytes(free)));
            text += &free.unwrap_or_default();
        }
        text.push('\n');
        for stage in &self.shared {
            text += &format!(
                "note: [{stage}] is the same in every run and is trained in each; train it once with \
                 `temper run … --stage {stage}` and start the stage after it from runs/NAME/{stage}\n"
            );
        }
        text
    }
}
