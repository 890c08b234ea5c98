//! A directory with a recipe, its chats and a teacher, and a tiny student trained on them.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::CausalLm;
use plan::{DistillPlan, Plan, Request, Stage, StagePlan, Unwatched};
use serde_json::Value;
use train::{Context, Event, Outcome, Progress, RunDir, StopFlag};

/// Answers of different lengths.
pub(crate) fn chats() -> String {
    (0..40).fold(String::new(), |text, n| {
        let more = " so much".repeat(n % 4);
        text + &format!("{{\"prompt\":\"Say {n}.\",\"completion\":\"I like {n}{more}.\"}}\n")
    })
}

/// A student with other sizes than the teacher, which is a directory beside the recipe. Logits of random weights are small;
/// the temperature makes their distributions sharp.
const RECIPE: &str = r#"
seed = 3
[tokenizer]
load = "teacher"
[model]
family = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
intermediate_size = 56
[distill]
teacher = "teacher"
data = [{ path = "chats.jsonl" }]
chat_template = "plain"
sequence_length = 96
tokens_per_step = 384
max_new_tokens = 12
temperature = 0.05
max_steps = 12
optimizer = { lr = 1e-2 }
eval = { holdout = 0.2, every_steps = 6 }
save_every_steps = 3
save_every_minutes = 0.0
log_every_steps = 1
"#;

/// Writes a teacher with random weights.
pub(crate) fn write_teacher(dir: &Path) {
    let text: String = (' '..='~').chain(['\n']).collect();
    let specials = tokenizer::default_special_tokens();
    let tokenizer = tokenizer::Tokenizer::train_char(std::iter::once(text), &specials);
    let tokenizer = tokenizer.expect("a tokenizer");
    let mut config = testkit::tiny_llama(tokenizer.vocab_size());
    config["max_position_embeddings"] = 128.into();
    let config = arch::ModelConfig::from_json(&config, Path::new("teacher")).expect("a config");
    let model = CausalLm::init(&config, 11, &Device::flex());
    let options = export::Options::new(arch::Dtype::F32);
    let architecture = arch::Architecture::CausalLm;
    let files = export::description_files(&config, architecture, &tokenizer, &options);
    train::write_model(dir, &train::SaveFormat::Whole, &model, &files.expect("files"))
        .expect("a teacher");
}

/// A directory that is removed after the test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fsio::write_atomic(dir.path().join("r.toml"), RECIPE).expect("a recipe");
        fsio::write_atomic(dir.path().join("chats.jsonl"), chats()).expect("chats");
        write_teacher(&dir.path().join("teacher"));
        Self { dir }
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

    /// The error of planning the recipe.
    pub(crate) fn refused(&self, set: &[(&str, &str)]) -> String {
        let set: Vec<(String, String)> =
            set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let loaded = recipe::load(&self.path().join("r.toml"), &set).expect("a recipe");
        let runs_dir = Some(self.path().join("runs"));
        let request = Request { runs_dir, ..Request::default() };
        plan::plan(&loaded, &request, &mut Unwatched).expect_err("refused").to_string()
    }

    /// The directory of the stage of a run.
    pub(crate) fn stage_dir(&self, name: &str) -> PathBuf {
        self.path().join("runs").join(name).join("distill")
    }

    /// Runs or resumes, up to the end or to a step at which somebody asks to stop.
    pub(crate) fn run(&self, name: &str, set: &[(&str, &str)], stop_at: Option<u64>) -> Watched {
        let plan = self.plan(name, set);
        let device = Device::flex().autodiff();
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let stop = StopFlag::manual();
        if stop_at == Some(0) {
            stop.request();
        }
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
        watched.outcome = Some(distill::run(context, distill_plan(&plan)).expect("the stage runs"));
        watched
    }

    /// The error of a resumed run whose LOCK is removed once it has resumed, as where another run takes its directory.
    pub(crate) fn loses_its_directory(&self, name: &str, set: &[(&str, &str)]) -> distill::Error {
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
        distill::run(context, distill_plan(&plan)).expect_err("no longer its directory")
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

/// The distillation's part of that stage.
pub(crate) fn distill_plan(plan: &Plan) -> &DistillPlan {
    let Stage::Distill(distill) = &stage(plan).kind else { panic!("not a distillation") };
    distill
}

/// Watches a run, and stops it.
pub(crate) struct Watched {
    stop_at: Option<u64>,
    stop: StopFlag,
    pub(crate) events: Vec<Event>,
    pub(crate) outcome: Option<Outcome>,
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
