//! A directory with a recipe and its pairs, and a tiny model trained on them.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use plan::{DpoPlan, Plan, Request, Stage, StagePlan, Unwatched};
use serde_json::Value;
use train::{Context, Event, Outcome, Progress, RunDir, StopFlag};

/// Answers of different lengths, all different; in each pair the kind one is chosen.
pub(crate) fn pairs() -> String {
    (0..40).fold(String::new(), |text, n| {
        let more = " so much".repeat(n % 4);
        text + &format!(
            "{{\"prompt\":\"Say {n}.\",\"chosen\":\"I like {n}{more}.\",\"rejected\":\"Not {n}!\"}}\n"
        )
    })
}

const NEW_MODEL: &str = r#"
seed = 3
[tokenizer]
train = { kind = "char" }
[model]
family = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
intermediate_size = 56
"#;

const STAGE: &str = r#"
[dpo]
data = [{ path = "pairs.jsonl" }]
chat_template = "plain"
sequence_length = 64
pairs_per_step = 8
epochs = 2
optimizer = { lr = 3e-3 }
eval = { holdout = 0.2, every_steps = 4 }
save_every_steps = 3
save_every_minutes = 0.0
log_every_steps = 1
"#;

/// A directory that is removed after the test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let recipe = format!("{NEW_MODEL}{STAGE}");
        fsio::write_atomic(dir.path().join("r.toml"), recipe).expect("a recipe");
        fsio::write_atomic(dir.path().join("pairs.jsonl"), pairs()).expect("pairs");
        Self { dir }
    }

    /// From now on the stage starts from the finished stage of a run, with an adapter.
    pub(crate) fn start_with_lora(&self, name: &str) {
        self.start_with("rank = 4, dropout = 0.1", name);
    }

    /// The same with these keys of the adapter.
    pub(crate) fn start_with(&self, lora: &str, name: &str) {
        let start = self.stage_dir(name).join("model");
        let keys = format!("start = \"{}\"\nlora = {{ {lora} }}\n", start.display());
        let recipe = format!("seed = 3\n{STAGE}{keys}");
        fsio::write_atomic(self.path().join("r.toml"), recipe).expect("a recipe");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Plans the recipe with `--set` overrides, as a run of this name.
    pub(crate) fn plan(&self, name: &str, set: &[(&str, &str)]) -> Plan {
        let set: Vec<(String, String)> =
            set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let loaded = recipe::load(&self.path().join("r.toml"), &set).expect("a recipe");
        let request = Request {
            name: Some(name.to_owned()),
            runs_dir: Some(self.path().join("runs")),
            ..Request::default()
        };
        plan::plan(&loaded, &request, &mut Unwatched).expect("a plan")
    }

    /// The directory of the stage of a run.
    pub(crate) fn stage_dir(&self, name: &str) -> PathBuf {
        self.path().join("runs").join(name).join("dpo")
    }

    /// Runs or resumes, up to the end or to a step at which somebody asks to stop.
    pub(crate) fn run(&self, name: &str, set: &[(&str, &str)], stop_at: Option<u64>) -> Watched {
        let plan = self.plan(name, set);
        let device = Device::flex().autodiff();
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let stop = StopFlag::manual();
        let mut watched =
            Watched { stop_at, stop: stop.clone(), events: Vec::new(), outcome: None };
        let context = Context {
            plan: &plan,
            stage: stage(&plan),
            run_dir: &run_dir,
            device: &device,
            progress: &mut watched,
            stop,
            replicas: &train::SingleReplica,
        };
        watched.outcome = Some(dpo::run(context, dpo_plan(&plan)).expect("the stage runs"));
        watched
    }

    /// The error of a resumed run whose LOCK is removed once it has resumed, as where another run takes its directory.
    pub(crate) fn loses_its_directory(&self, name: &str, set: &[(&str, &str)]) -> dpo::Error {
        let plan = self.plan(name, set);
        let device = Device::flex().autodiff();
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let mut progress = Loses { lock: run_dir.root().join("LOCK") };
        let context = Context {
            plan: &plan,
            stage: stage(&plan),
            run_dir: &run_dir,
            device: &device,
            progress: &mut progress,
            stop: StopFlag::manual(),
            replicas: &train::SingleReplica,
        };
        dpo::run(context, dpo_plan(&plan)).expect_err("no longer its directory")
    }

    /// The rows of metrics.jsonl.
    pub(crate) fn metrics(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.stage_dir(name).join("metrics.jsonl"));
        let rows = text.expect("metrics");
        rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// A file of a stage, as bytes.
    pub(crate) fn bytes(&self, name: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.stage_dir(name).join(file)).expect(file)
    }
}

/// The one stage of a plan.
pub(crate) fn stage(plan: &Plan) -> &StagePlan {
    plan.stages.first().expect("a stage")
}

/// DPO's part of that stage.
pub(crate) fn dpo_plan(plan: &Plan) -> &DpoPlan {
    let Stage::Dpo(dpo) = &stage(plan).kind else { panic!("not a DPO stage") };
    dpo
}

/// Watches a run, and stops it.
pub(crate) struct Watched {
    stop_at: Option<u64>,
    stop: StopFlag,
    pub(crate) events: Vec<Event>,
    pub(crate) outcome: Option<Outcome>,
}

impl Watched {
    /// Number of notes and warnings that contain this text.
    pub(crate) fn told(&self, text: &str) -> usize {
        let told = |event: &&Event| {
            matches!(event, Event::Note { message } | Event::Warning { message }
                if message.contains(text))
        };
        self.events.iter().filter(told).count()
    }
}

impl Progress for Watched {
    fn event(&mut self, event: &Event) {
        if let Event::Step { row, .. } = event
            && self.stop_at.is_some_and(|step| row.step >= step)
        {
            self.stop.request();
        }
        self.events.push(event.clone());
    }
}

/// A metric of a row of metrics.
pub(crate) fn metric(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no `{key}` in {row}"))
}

/// Removes the LOCK of a run once it has resumed.
struct Loses {
    lock: PathBuf,
}

impl Progress for Loses {
    fn event(&mut self, event: &Event) {
        if let Event::StageStarted { .. } = event {
            fsio::remove_file(&self.lock).expect("a lock");
        }
    }
}
