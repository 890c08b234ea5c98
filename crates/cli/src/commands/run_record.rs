//! Records of a run beside its stages: `plan.json` before the first step, `report.json` and `report.html` after the
//! last one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plan::{Plan, StagePlan, Start};
use report::{
    Machine, Outcome, PAGE_FILE, PLAN_FILE, PlanFile, PlannedSource, PlannedStage, REPORT_FILE,
    ReportFile, RunData, StageOutcome,
};
use serde_json::Value;
use train::{RunDir, RunDirGuard};

use super::estimates;
use super::plan::{per_step, stage_notes};
use crate::failure::{Failure, Result};
use crate::render::progress::warn;

/// Format of `plan.json` and `report.json`.
const FORMAT: u32 = 1;
/// Size of a file of the system, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The record of a session of a run.
pub(super) struct RunRecord {
    dir: PathBuf,
    guard: RunDirGuard,
    report: ReportFile,
}

impl RunRecord {
    /// Writes the plan, and that a session has begun.
    pub(super) fn start(plan: &Plan, run_dir: &RunDir) -> Result<Self> {
        let dir = plan.paths.run_dir.clone();
        let before = PlanFile::read(&dir).unwrap_or_default();
        fsio::write_atomic(dir.join(PLAN_FILE), plan_file(plan, before).text())?;
        let before = ReportFile::read(&dir).unwrap_or_default();
        let report = ReportFile {
            format: FORMAT,
            outcome: Outcome::Started,
            error: None,
            sessions: before.sessions.saturating_add(1),
            started: report::now(),
            ended: 0,
            stages: before.stages,
        };
        fsio::write_atomic(dir.join(REPORT_FILE), report.text())?;
        Ok(Self { dir, guard: run_dir.guard(), report })
    }

    /// Notes what a stage took.
    pub(super) fn stage_finished(&mut self, name: &str) {
        let outcome = StageOutcome {
            name: name.to_owned(),
            peak_memory_bytes: peak_memory(),
            disk_bytes: report::size_of(&self.dir.join(name)),
        };
        self.report.stages.retain(|stage| stage.name != name);
        self.report.stages.push(outcome);
    }

    /// Writes how the session ended, and the page. A failure is a warning: the run itself is complete.
    pub(super) fn end(mut self, failure: Option<&Failure>) {
        self.report.ended = report::now();
        self.report.outcome = match failure {
            None => Outcome::Finished,
            Some(failure) if failure.is_stop() => Outcome::Stopped,
            Some(failure) => {
                self.report.error = Some(failure.message().trim_end().to_owned());
                Outcome::Failed
            }
        };
        if let Err(failure) = self.write() {
            warn(&format!("the report of the run was not written: {}", failure.message()));
        }
    }

    fn write(&self) -> Result<()> {
        self.guard.check()?;
        fsio::write_atomic(self.dir.join(REPORT_FILE), self.report.text())?;
        let run = RunData::read_ended(&self.dir)?;
        fsio::write_atomic(self.dir.join(PAGE_FILE), report::page(&run))?;
        Ok(())
    }
}

/// The plan as a file. Stages of an earlier plan that this one leaves out, as with `--stage`, stay.
fn plan_file(plan: &Plan, before: PlanFile) -> PlanFile {
    let estimates = estimates::read(plan);
    let seconds = |name: &str| {
        let earlier = || before.stages.iter().find(|stage| stage.name == name)?.seconds;
        estimates.get(name).copied().or_else(earlier)
    };
    let mut stages: Vec<PlannedStage> = plan
        .stages
        .iter()
        .map(|stage| PlannedStage { seconds: seconds(&stage.name), ..planned(plan, stage) })
        .collect();
    let is_planned = |name: &str| plan.stages.iter().any(|stage| stage.name == name);
    let earlier = before.stages.into_iter().filter(|stage| !is_planned(&stage.name));
    stages.splice(0..0, earlier);
    let environment = train::Environment::current();
    PlanFile {
        format: FORMAT,
        name: plan.name.clone(),
        temper: environment.temper,
        burn: environment.burn,
        seed: plan.seed,
        device: plan.device.clone(),
        precision: plan.precision.name().to_owned(),
        replicas: plan.replicas,
        threads: environment.threads,
        started: if before.started > 0 { before.started } else { report::now() },
        machine: machine(environment.cpu_features),
        stages,
    }
}

fn planned(plan: &Plan, stage: &StagePlan) -> PlannedStage {
    let cost = &stage.cost;
    let counts = serde_json::to_value(stage.dataset.counts()).unwrap_or_default();
    let counts: BTreeMap<String, Value> = serde_json::from_value(counts).unwrap_or_default();
    let sources = stage.sources.iter().map(|source| PlannedSource {
        path: source.path.clone(),
        files: source.files.len(),
        layout: source.layout.to_owned(),
        read: source.read.clone(),
        unread: source.unread.clone(),
    });
    PlannedStage {
        name: stage.name.clone(),
        start: start_text(stage),
        steps: stage.max_steps,
        per_step: per_step(stage),
        epochs: stage.dataset.epoch_of(stage.max_steps),
        tokens: cost.n_tokens,
        targets: stage.dataset.run_targets(),
        parameters: cost.n_parameters,
        trained: cost.n_trained,
        flops: cost.flops,
        seconds: None,
        memory_bytes: cost.peak_bytes,
        checkpoint_bytes: cost.checkpoint_bytes,
        model_bytes: cost.model_bytes,
        sources: sources.collect(),
        counts,
        notes: stage_notes(stage),
        inputs: stage.inputs.clone(),
        models: models(plan, stage),
    }
}

fn start_text(stage: &StagePlan) -> String {
    let start = match &stage.start {
        Start::Fresh => "new weights".to_owned(),
        Start::Stage(name) => format!("[{name}]"),
        Start::Directory(dir) => {
            hub_local::origin(dir).unwrap_or_else(|| dir.display().to_string())
        }
    };
    match &stage.lora {
        Some(lora) => format!("{start}, with an adapter of rank {}", lora.config.rank),
        None => start,
    }
}

/// Directories of models that the stage reads, base models of adapters included.
fn models(plan: &Plan, stage: &StagePlan) -> Vec<String> {
    let mut models = Vec::new();
    for (_, start) in stage.starts() {
        let dir = match start {
            Start::Fresh => continue,
            Start::Stage(name) => plan.paths.run_dir.join(name),
            Start::Directory(dir) => dir.clone(),
        };
        // A base model that cannot be read is reported when the stage starts.
        let base = plan::recorded_base(&dir).ok().flatten();
        models.extend(std::iter::once(dir).chain(base).map(|dir| dir.display().to_string()));
    }
    models.sort();
    models.dedup();
    models
}

fn machine(cpu_features: Vec<String>) -> Machine {
    Machine {
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processor: line_of("/proc/cpuinfo", "model name").unwrap_or_default(),
        n_processors: std::thread::available_parallelism().map_or(0, usize::from),
        cpu_features,
        memory_bytes: line_of("/proc/meminfo", "MemTotal")
            .and_then(|text| kilobytes(&text))
            .unwrap_or(0),
    }
}

/// Largest resident memory of this process so far, where the system reports it.
fn peak_memory() -> Option<u64> {
    kilobytes(&line_of("/proc/self/status", "VmHWM")?)
}

/// The text after `KEY:` in a file of the system.
fn line_of(path: &str, key: &str) -> Option<String> {
    let text = fsio::read_text_capped(path, MAX_BYTES).ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim());
    values.next().map(str::to_owned)
}

/// `12 kB` in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
