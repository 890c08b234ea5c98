//! A directory with a tiny policy, reward models on it, prompts and a recipe.

use std::path::{Path, PathBuf};

use arch::{Dtype, LoraConfig, ModelConfig, Targets};
use burn::tensor::Device;
use model::{Adaptable, CausalLm, ScalarModel};
use plan::{
    BASE_FILE, BaseFile, Plan, PpoPlan, Request, Stage, StagePlan, Unwatched, weights_hash,
};
use serde_json::Value;
use tokenizer::{Tokenizer, default_special_tokens};
use train::{Context, Event, Outcome, Progress, RunDir, StopFlag};

/// Weights `sft`, an adapter `reward` beside them with dropout from its own training, and whole weights `judge`.
const RECIPE: &str = r#"
seed = 9
[ppo]
policy = { start = "sft", lora = { rank = 2 } }
reward = "reward"
prompts = [{ path = "prompts.jsonl" }]
chat_template = "plain"
max_prompt_tokens = 48
max_new_tokens = 6
temperature = 0.8
episodes_per_step = 8
n_minibatches = 2
n_ppo_epochs = 2
micro_batch = 3
missing_eos_penalty = 1.0
kl = { coef = 0.1, target = 6.0, horizon = 80 }
max_steps = 4
optimizer = { lr = 1e-2 }
eval = { holdout = 0.2, every_steps = 2, max_rows = 4 }
sample_every_steps = 2
save_every_steps = 2
save_every_minutes = 0.0
log_every_steps = 1
"#;

/// The roles of the recipe, and those of one that trains whole weights.
pub(crate) const ROLES: &str =
    "policy = { start = \"sft\", lora = { rank = 2 } }\nreward = \"reward\"\n";
pub(crate) const WHOLE_ROLES: &str = "policy = { start = \"sft\" }\nreward = \"judge\"\n";

/// A directory that is removed after the test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a folder") };
        place.roles(ROLES);
        let prompts =
            (0..30).fold(String::new(), |text, n| text + &format!("{{\"prompt\":\"Say {n}!\"}}\n"));
        fsio::write_atomic(place.path().join("prompts.jsonl"), prompts).expect("prompts");
        place.write_models();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the recipe with these lines for its roles.
    pub(crate) fn roles(&self, roles: &str) {
        assert!(RECIPE.contains(ROLES));
        fsio::write_atomic(self.path().join("r.toml"), RECIPE.replace(ROLES, roles))
            .expect("a recipe");
    }

    /// Writes the recipe with `checkpointing = "block"`.
    pub(crate) fn recomputing(&self) {
        let recipe =
            RECIPE.replace("micro_batch = 3", "micro_batch = 3\ncheckpointing = \"block\"");
        assert_ne!(recipe, RECIPE);
        fsio::write_atomic(self.path().join("r.toml"), recipe).expect("a recipe");
    }

    fn write_models(&self) {
        // Adapters find their base models only within runs.
        fsio::write_atomic(self.path().join("LOCK"), "").expect("a file");
        let device = Device::flex();
        let text = std::iter::once("Say 0123456789!".to_owned());
        let tokenizer = Tokenizer::train_char(text, &default_special_tokens()).expect("one");
        let mut json = testkit::tiny_llama(tokenizer.vocab_size());
        json["hidden_size"] = 16.into();
        json["num_hidden_layers"] = 1.into();
        let config = ModelConfig::from_json(&json, Path::new("tiny")).expect("a config");
        let policy = CausalLm::init(&config, 3, &device);
        let sft = self.path().join("sft");
        export::hugging_face(&policy, &tokenizer, Dtype::F32, &sft).expect("the policy");
        let scorer = ScalarModel::from_backbone(policy.backbone, &config, 4);
        let judge = self.path().join("judge");
        export::hugging_face(&scorer, &tokenizer, Dtype::F32, &judge).expect("a scorer");

        self.write_adapter(scorer, "reward");
    }

    /// Attaches an adapter, as if trained with dropout, to a model with the weights of `sft`, and writes it.
    pub(crate) fn write_adapter<M: Adaptable>(&self, model: M, name: &str) {
        let (sft, dir) = (self.path().join("sft"), self.path().join(name));
        let (targets, rslora) = (Targets::AllLinear, false);
        let settings = LoraConfig {
            rank: 3,
            alpha: 6.0,
            dropout: 0.3,
            rslora,
            targets,
            ..LoraConfig::default()
        };
        let model = lora::attach(model, &settings, 5).expect("attached").model;
        let mut out = fsio::DirWriter::begin(&dir).expect("a folder");
        lora::export(&model, &settings, None, Dtype::F32, &mut out).expect("the adapter");
        let record =
            BaseFile::new(&dir, &sft, &weights_hash(&sft).expect("a hash"), recipe::BaseDtype::F32);
        out.write(BASE_FILE, serde_json::to_string(&record).expect("JSON")).expect("the record");
        let tokenizer = Tokenizer::from_dir_or_file(&sft).expect("a tokenizer");
        for (name, bytes) in tokenizer.files().expect("its files") {
            out.write(&name, bytes).expect("a file");
        }
        out.commit(Value::Null).expect("in place");
    }

    pub(crate) fn plan(&self, name: &str) -> Plan {
        self.try_plan(name).expect("a plan")
    }

    pub(crate) fn try_plan(&self, name: &str) -> plan::Result<Plan> {
        let loaded = recipe::load(&self.path().join("r.toml"), &[]).expect("a recipe");
        let request = Request {
            name: Some(name.to_owned()),
            runs_dir: Some(self.path().join("runs")),
            ..Request::default()
        };
        plan::plan(&loaded, &request, &mut Unwatched)
    }

    /// The directory of the stage of a run.
    pub(crate) fn stage_dir(&self, name: &str) -> PathBuf {
        self.path().join("runs").join(name).join("ppo")
    }

    /// Runs or resumes, up to the end or to an update at which somebody asks to stop.
    pub(crate) fn run(&self, name: &str, stop_at: Option<u64>) -> ppo::Result<Outcome> {
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
        ppo::run(context, ppo_plan(&plan))
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

/// PPO's part of that stage.
pub(crate) fn ppo_plan(plan: &Plan) -> &PpoPlan {
    let Stage::Ppo(ppo) = &stage(plan).kind else { panic!("not a PPO stage") };
    ppo
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
