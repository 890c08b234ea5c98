//! A directory with a tiny policy, prompts with answers and a recipe.

use std::path::{Path, PathBuf};

use arch::{Dtype, ModelConfig};
use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use plan::{GrpoPlan, Plan, Request, Stage, StagePlan, Unwatched};
use serde_json::Value;
use tokenizer::{Tokenizer, default_special_tokens};
use train::{Context, Event, Outcome, Progress, RunDir, StopFlag};

const RECIPE: &str = r#"
seed = 9
[grpo]
policy = { start = "sft"LORA }
rewards = [
    { kind = "number", answer = "{answer}", weight = 2.0 },
    { kind = "regex", pattern = "[0-9]" },
    { kind = "length", cache_tokens = 3, weight = 0.5 },
    { kind = "model", start = "judge", weight = 0.1 },
]
prompts = [{ path = "prompts.jsonl" }]
chat_template = "plain"
max_prompt_tokens = 48
max_new_tokens = 6
temperature = 0.8
prompts_per_step = 2
num_generations = 4
n_minibatches = 2
num_iterations = 2
micro_batch = 3
missing_eos_penalty = 1.0
KEYS
max_steps = 4
optimizer = { lr = 1e-2 }
eval = { holdout = 0.2, every_steps = 2, max_rows = 4 }
sample_every_steps = 2
save_every_steps = 2
save_every_minutes = 0.0
log_every_steps = 1
"#;

/// A directory that is removed after the test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// `keys` are lines of the section; with `lora`, the policy trains an adapter.
    pub(crate) fn new(keys: &str, lora: bool) -> Self {
        Self::of(RECIPE, keys, lora)
    }

    /// As [`Self::new`], with other rewards.
    pub(crate) fn with_rewards(rewards: &str, keys: &str) -> Self {
        let (before, rest) = RECIPE.split_once("rewards = [").expect("rewards");
        let (_, after) = rest.split_once("\n]\n").expect("their end");
        Self::of(&format!("{before}{rewards}\n{after}"), keys, false)
    }

    fn of(recipe: &str, keys: &str, lora: bool) -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a folder") };
        let lora = if lora { ", lora = { rank = 2 }" } else { "" };
        let recipe = recipe.replace("LORA", lora).replace("KEYS", keys);
        fsio::write_atomic(place.path().join("r.toml"), recipe).expect("a recipe");
        // Every fourth prompt has no answer.
        let row = |n: usize| match n % 4 {
            0 => format!("{{\"prompt\":\"Say {n}!\"}}\n"),
            _ => format!("{{\"prompt\":\"Say {n}!\",\"answer\":{}}}\n", n % 10),
        };
        let rows: String = (0..30).map(row).collect();
        fsio::write_atomic(place.path().join("prompts.jsonl"), rows).expect("prompts");
        place.write_models();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write_models(&self) {
        // Adapters find their base models only within runs.
        fsio::write_atomic(self.path().join("LOCK"), "").expect("a file");
        let text = std::iter::once("Say 0123456789!".to_owned());
        let tokenizer = Tokenizer::train_char(text, &default_special_tokens()).expect("one");
        let mut json = testkit::tiny_llama(tokenizer.vocab_size());
        json["hidden_size"] = 16.into();
        json["num_hidden_layers"] = 1.into();
        let config = ModelConfig::from_json(&json, Path::new("tiny")).expect("a config");
        let policy = CausalLm::init(&config, 3, &Device::flex());
        let sft = self.path().join("sft");
        export::hugging_face(&policy, &tokenizer, Dtype::F32, &sft).expect("the policy");
        let scorer = ScalarModel::from_backbone(policy.backbone, &config, 4);
        let judge = self.path().join("judge");
        export::hugging_face(&scorer, &tokenizer, Dtype::F32, &judge).expect("a scorer");
    }

    pub(crate) fn plan(&self, name: &str) -> Plan {
        let loaded = recipe::load(&self.path().join("r.toml"), &[]).expect("a recipe");
        let request = Request {
            name: Some(name.to_owned()),
            runs_dir: Some(self.path().join("runs")),
            ..Request::default()
        };
        plan::plan(&loaded, &request, &mut Unwatched).expect("a plan")
    }

    /// The directory of the stage of a run.
    pub(crate) fn stage_dir(&self, name: &str) -> PathBuf {
        self.path().join("runs").join(name).join("grpo")
    }

    /// Runs or resumes, up to the end or to an update at which a stop is requested.
    pub(crate) fn run(&self, name: &str, stop_at: Option<u64>) -> grpo::Result<Outcome> {
        let plan = self.plan(name);
        let device = Device::flex().autodiff();
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let stop = StopFlag::manual();
        let mut watched = Watched { stop_at, stop: stop.clone() };
        let context = Context {
            plan: &plan,
            stage: stage(&plan),
            run_dir: &run_dir,
            device: &device,
            progress: &mut watched,
            stop,
            replicas: &train::SingleReplica,
        };
        grpo::run(context, grpo_plan(&plan))
    }

    /// Rows of a log without the metrics that depend on the clock.
    pub(crate) fn rows(&self, name: &str, log: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.stage_dir(name).join(log)).expect(log);
        let row = |line: &str| {
            let mut row: Value = serde_json::from_str(line).expect("JSON");
            row.as_object_mut().expect("an object").remove("tokens_per_s");
            row
        };
        text.lines().map(row).collect()
    }

    /// A file of a stage, as bytes.
    pub(crate) fn bytes(&self, name: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.stage_dir(name).join(file)).expect(file)
    }

    /// The result of the finished stage.
    pub(crate) fn result(&self, name: &str) -> Value {
        let finished: Value =
            serde_json::from_slice(&self.bytes(name, "finished.json")).expect("JSON");
        finished["result"].clone()
    }
}

/// The one stage of a plan.
pub(crate) fn stage(plan: &Plan) -> &StagePlan {
    plan.stages.first().expect("a stage")
}

/// GRPO's part of that stage.
pub(crate) fn grpo_plan(plan: &Plan) -> &GrpoPlan {
    let Stage::Grpo(grpo) = &stage(plan).kind else { panic!("not a GRPO stage") };
    grpo
}

/// Stops a run.
struct Watched {
    stop_at: Option<u64>,
    stop: StopFlag,
}

impl Progress for Watched {
    fn event(&mut self, event: &Event) {
        if let Event::Step { row, .. } = event
            && self.stop_at.is_some_and(|step| row.step >= step)
        {
            self.stop.request();
        }
    }
}
