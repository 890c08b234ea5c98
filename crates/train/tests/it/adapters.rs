//! A stage that trains an adapter: what it writes, what stays as it was, what it is after a cut, and what a later stage
//! makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use arch::Dtype;
use burn::tensor::{Int, Tensor};
use lora::Adapted;
use model::{CausalLm, load_causal_lm};
use nn::TokenBatch;
use plan::{Plan, Request, StagePlan, Unwatched, base_of};
use train::{
    AVERAGE_FILE, BaseModelCache, Context, Error, ModelSource, RunDir, SaveFormat, Silent,
    StageState, StepPlace, StepReport, StopFlag, Weights, apply_update, first_weights,
    load_trained, lr, save_trained, start_or_resume, write_checkpoint, write_model,
};

use super::toy::{bits, device, model_of_width, tiny_model};

const RECIPE: &str = r#"
seed = 5
[tokenizer]
train = { kind = "byte-bpe", vocab_size = 280 }
[model]
family = "llama"
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 28
[pretrain]
data = [{ path = "rows.jsonl" }]
sequence_length = 32
tokens_per_step = 128
max_steps = 2
optimizer = { lr = 1e-2 }
[sft]
start = "pretrain"
lora = { rank = 3, dropout = 0.2, rslora = true }
data = [{ path = "chats.jsonl" }]
chat_template = "plain"
sequence_length = 32
tokens_per_step = 128
micro_batch = 2
max_steps = 6
optimizer = { lr = 1e-2, weight_decay = 0.1 }
ema = 0.6
save_every_steps = 2
save_every_minutes = 0.0
[dpo]
start = "sft"
data = [{ path = "pairs.jsonl" }]
chat_template = "plain"
sequence_length = 32
pairs_per_step = 2
max_steps = 2
optimizer = { lr = 1e-2 }
"#;

/// A directory with the recipe, its data and the runs.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a folder") };
        place.recipe("");
        let numbered = |row: fn(u32) -> String| (0..40).map(row).collect::<String>();
        let rows = numbered(|n| format!("{{\"text\":\"row {n} of a text on {n}\"}}\n"));
        let chats =
            numbered(|n| format!("{{\"prompt\":\"Is {n}?\",\"completion\":\"It is {n}.\"}}\n"));
        let pairs = numbered(|n| {
            format!("{{\"prompt\":\"Say {n}\",\"chosen\":\"Yes {n}.\",\"rejected\":\"No {n}\"}}\n")
        });
        for (name, text) in [("rows.jsonl", rows), ("chats.jsonl", chats), ("pairs.jsonl", pairs)] {
            fsio::write_atomic(place.path().join(name), text).expect("a file");
        }
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The recipe with more keys for its last stage; a `start` among them replaces its own.
    fn recipe(&self, keys: &str) {
        let recipe = if keys.contains("start = ") {
            RECIPE.replace("start = \"sft\"\n", "")
        } else {
            RECIPE.to_owned()
        };
        fsio::write_atomic(self.path().join("r.toml"), recipe + keys).expect("a recipe");
    }

    /// Replaces a text of the recipe.
    pub(crate) fn replace(&self, from: &str, to: &str) {
        let recipe = fs::read_to_string(self.path().join("r.toml")).expect("a recipe");
        assert!(recipe.contains(from), "{from}");
        fsio::write_atomic(self.path().join("r.toml"), recipe.replace(from, to)).expect("a recipe");
    }

    pub(crate) fn plan(&self, name: &str) -> Plan {
        let loaded = recipe::load(&self.path().join("r.toml"), &[]).expect("a recipe");
        let (name, runs_dir) = (Some(name.to_owned()), Some(self.path().join("runs")));
        let request = Request { name, runs_dir, ..Request::default() };
        plan::plan(&loaded, &request, &mut Unwatched).expect("a plan")
    }

    pub(crate) fn stage_dir(&self, name: &str, stage: &str) -> PathBuf {
        self.path().join("runs").join(name).join(stage)
    }

    /// A file of a stage, as bytes.
    pub(crate) fn bytes(&self, name: &str, file: &str) -> Vec<u8> {
        fs::read(self.path().join("runs").join(name).join(file)).expect(file)
    }

    /// Runs a stage to its end.
    pub(crate) fn run(&self, name: &str, stage: &str) -> CausalLm {
        self.run_until(name, stage, u64::MAX).expect("the end")
    }

    /// Runs or resumes a stage; cut after a step without a word, as a killed process is.
    pub(crate) fn run_until(&self, name: &str, stage: &str, until: u64) -> Option<CausalLm> {
        let plan = self.plan(name);
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        run_stage(&plan, stage_of(&plan, stage), &run_dir, until).expect("the stage runs")
    }

    /// A run with its first two stages finished.
    fn tuned(name: &str) -> Self {
        let place = Self::new();
        place.run(name, "pretrain");
        place.run(name, "sft");
        place
    }

    /// A directory with the adapter of fine-tuning merged into its base model by hand.
    fn merged_by_hand(&self, name: &str) -> PathBuf {
        let plan = self.plan(name);
        let out = self.path().join("merged");
        let base = load_causal_lm(&self.stage_dir(name, "pretrain").join("model"), &device());
        let adapter = self.stage_dir(name, "sft").join("model");
        let (Adapted { model, .. }, _) = lora::load(base.expect("a model"), &adapter).expect("one");
        let (model, _) = lora::merge(model).expect("merged");
        let tokenizer = &stage_of(&plan, "sft").tokenizer;
        export::hugging_face(&model, tokenizer, Dtype::F32, &out).expect("written");
        out
    }
}

pub(crate) fn stage_of<'a>(plan: &'a Plan, name: &str) -> &'a StagePlan {
    plan.stages.iter().find(|stage| stage.name == name).expect("a stage")
}

/// A loop over next tokens, as stages have it.
fn run_stage(
    plan: &Plan,
    stage: &StagePlan,
    run_dir: &RunDir,
    until: u64,
) -> train::Result<Option<CausalLm>> {
    let (device, mut silent) = (device(), Silent);
    let progress = &mut silent;
    let stop = StopFlag::manual();
    let context = Context {
        plan,
        stage,
        run_dir,
        device: &device,
        progress,
        stop,
        replicas: &train::SingleReplica,
    };
    let StageState { mut run, mut model, mut learner, save_format, dropout } =
        start_or_resume(context)?;
    while run.has_next_step() {
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };
        let mut sums = learner.begin_step(batch.n_targets as u64, place)?;
        for (idx, micro) in batch.micro_batches(stage.micro_batch).enumerate() {
            dropout.draw(step, idx);
            let (b, t) = (micro.rows, micro.sequence_length);
            let tokens =
                TokenBatch::new(&micro.ids, &micro.positions, &micro.segments, b, t, &device);
            let targets_n = Tensor::<1, Int>::from_data(micro.targets.as_slice(), &device);
            let hidden_nd = model.forward(&tokens).hidden_nd();
            let count = micro.n_targets as u64;
            let loss = loss::cross_entropy(hidden_nd, model.head_weight(), targets_n, count);
            sums.loss += loss.value();
            sums.gradients.accumulate(&model, || loss.sum.backward());
        }
        let rate = lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        let report;
        (model, report) = apply_update(model, &mut learner, sums, rate)?;
        run.log_step(StepReport { tokens: 1, ..report })?;
        if run.step() == until {
            return Ok(None);
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    write_model(&run.dir().model(), &save_format, &learner.evaluated(&model), run.side_files())?;
    run.finish(serde_json::Value::Null)?;
    Ok(Some(model))
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) const ADAPTER: &str = "model/adapter_model.safetensors";

/// Masks of dropout, moments, factors and their average: a run that was cut anywhere is the run that was not.
#[test]
fn an_adapter_that_is_cut_and_resumed_is_the_same_adapter() {
    let place = Place::tuned("whole");
    let file = format!("sft/{ADAPTER}");
    let last = "sft/checkpoints/step-000006";
    for until in [1, 3, 4] {
        let cut = format!("cut-{until}");
        let copy = place.stage_dir(&cut, "pretrain").join("model");
        fsio::create_dir_all(&copy).expect("a folder");
        for name in names_in(&place.stage_dir("whole", "pretrain").join("model")) {
            let bytes = place.bytes("whole", &format!("pretrain/model/{name}"));
            fsio::write_atomic(copy.join(name), bytes).expect("a file");
        }
        assert!(place.run_until(&cut, "sft", until).is_none());
        place.run(&cut, "sft");
        assert!(place.bytes(&cut, &file) == place.bytes("whole", &file), "cut after {until}");
        for name in ["adapter_model.safetensors", "optimizer.safetensors", AVERAGE_FILE] {
            let name = format!("{last}/{name}");
            assert!(place.bytes(&cut, &name) == place.bytes("whole", &name), "{name}, {until}");
        }
    }
}

/// The average of `ema`, computed from the factors of the checkpoints, is in the last one and in `model/`.
#[test]
fn the_exported_adapter_is_the_average_of_its_factors() {
    let place = Place::new();
    let recipe = fs::read_to_string(place.path().join("r.toml")).expect("a recipe");
    let every_step = "save_every_steps = 1\nkeep_checkpoints = 9";
    let recipe = recipe.replace("save_every_steps = 2", every_step);
    fsio::write_atomic(place.path().join("r.toml"), recipe).expect("a recipe");
    place.run("x", "pretrain");
    place.run("x", "sft");
    let stage = place.stage_dir("x", "sft");
    let read = |file: &str, name: &str| -> Vec<f64> {
        let file = tensor_file::TensorFile::open(&stage.join(file)).expect("a file");
        let values: Vec<f32> = file.tensor(name).expect("a tensor").values().expect("f32");
        values.into_iter().map(f64::from).collect()
    };
    let in_checkpoint = |step: u64, file: &str, name: &str| {
        read(&format!("checkpoints/step-00000{step}/{file}"), name)
    };
    let near = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-7)
    };
    let name = "model.layers.0.mlp.down_proj.lora_B.weight";
    let peft = format!("base_model.model.{name}");
    let mut average = in_checkpoint(1, "adapter_model.safetensors", &peft);
    for step in 1..=6 {
        let factors = in_checkpoint(step, "adapter_model.safetensors", &peft);
        for (average, factor) in average.iter_mut().zip(&factors) {
            *average += 0.4 * (factor - *average);
        }
        assert!(near(&in_checkpoint(step, AVERAGE_FILE, name), &average), "step {step}");
        assert_eq!(near(&factors, &average), step == 1, "step {step}");
    }
    assert!(near(&read(ADAPTER, &peft), &average));
}

/// peft#453 and peft#2500 (a file of 443 bytes), nanoGPT#325 (names of a wrapper): the file holds every factor by PEFT's
/// name, and no whole weights beside them.
#[test]
fn checkpoints_hold_the_adapter_and_no_whole_weights() {
    let place = Place::tuned("x");
    let stage = place.stage_dir("x", "sft");
    let wanted = ["adapter_config.json", "adapter_model.safetensors", "base.json"];
    for dir in ["checkpoints/step-000004", "checkpoints/step-000006", "model"] {
        let names = names_in(&stage.join(dir));
        assert!(wanted.iter().all(|name| names.iter().any(|n| n == name)), "{dir}: {names:?}");
        let whole = ["model.safetensors", "config.json"];
        assert!(whole.iter().all(|name| names.iter().all(|n| n != name)), "{dir}: {names:?}");
        let base = base_of(&stage.join(dir)).expect("a base");
        assert_eq!(base, Some(place.stage_dir("x", "pretrain").join("model")));
    }
    // Its base was there before: nothing of it is copied.
    assert!(!stage.join("base").exists());
    let file = tensor_file::TensorFile::open(&stage.join(ADAPTER)).expect("a file");
    assert_eq!(file.n_tensors(), 2 * 2 * 7);
    let down = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
    assert_eq!(file.tensor(down).expect("a factor").shape(), [3, 28]);
}

/// microsoft/LoRA#120 (B stays zero), burn PR #5537 (frozen weights that move).
#[test]
fn frozen_weights_keep_every_bit_and_every_factor_moves() {
    let place = Place::new();
    place.run("x", "pretrain");
    let plan = place.plan("x");
    let stage = stage_of(&plan, "sft");
    let first = {
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let bases = &mut BaseModelCache::new(&device());
        let first = first_weights::<CausalLm>(&plan, ModelSource::of(stage), &run_dir, bases);
        bits(&first.expect("weights").model)
    };
    let last = bits(&place.run("x", "sft"));
    assert_eq!(first.len(), last.len());
    let mut n_factors = 0;
    for ((name, before), (_, after)) in first.iter().zip(&last) {
        let is_factor = name.contains("lora_");
        n_factors += usize::from(is_factor);
        assert_eq!(before == after, !is_factor, "{name}");
    }
    assert_eq!(n_factors, 2 * 2 * 7);
}

/// qlora#28, peft#1035: a stage behind an adapter starts from exactly what merging gives.
#[test]
fn whole_weights_behind_an_adapter_start_from_the_merged_ones() {
    let place = Place::tuned("x");
    place.run("x", "dpo");
    let by_hand = place.merged_by_hand("x");
    place.recipe(&format!("start = \"{}\"\n", by_hand.display()));
    place.run("y", "dpo");
    let file = "dpo/model/model.safetensors";
    assert!(place.bytes("x", file) == place.bytes("y", file));
    assert!(!place.stage_dir("x", "dpo").join("base").exists());
}

#[test]
fn an_adapter_behind_an_adapter_keeps_its_merged_base_in_its_own_folder() {
    let place = Place::tuned("x");
    place.recipe("lora = { rank = 2 }\n");
    place.run("x", "dpo");
    let base = place.stage_dir("x", "dpo").join("base");
    assert_eq!(
        base_of(&place.stage_dir("x", "dpo").join("model")).expect("one"),
        Some(base.clone())
    );
    let merged = place.merged_by_hand("x").join("model.safetensors");
    assert!(place.bytes("x", "dpo/base/model.safetensors") == fs::read(merged).expect("weights"));
    // A fresh adapter changes nothing, so the stage began where fine-tuning ended.
    let plan = place.plan("x");
    let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
    let role = ModelSource::of(stage_of(&plan, "dpo"));
    let again =
        first_weights::<CausalLm>(&plan, role, &run_dir, &mut BaseModelCache::new(&device()));
    let SaveFormat::Adapter { config, base: save_format, .. } = again.expect("weights").save_format
    else {
        panic!("an adapter")
    };
    assert_eq!((config.rank, save_format), (2, base));
}

#[test]
fn an_adapter_goes_on_beside_the_same_base() {
    let place = Place::tuned("x");
    place.recipe("lora = { adapter = \"sft\" }\n");
    let plan = place.plan("x");
    let stage = stage_of(&plan, "dpo");
    {
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let bases = &mut BaseModelCache::new(&device());
        let first: Weights<CausalLm> =
            first_weights(&plan, ModelSource::of(stage), &run_dir, bases).expect("weights");
        let sft = place.stage_dir("x", "sft").join("model");
        first.save_format.compare(&sft, &first.model).expect("fine-tuning's factors, to the bit");
        let SaveFormat::Adapter { config, .. } = &first.save_format else { panic!("an adapter") };
        assert_eq!((config.rank, config.dropout, config.rslora), (3, 0.2, true));
        let SaveFormat::Adapter { config, .. } = first.without_dropout().save_format else {
            panic!()
        };
        assert_eq!((config.rank, config.dropout), (3, 0.0));
    }
    place.run("x", "dpo");
    let model = place.stage_dir("x", "dpo").join("model");
    let base = place.stage_dir("x", "pretrain").join("model");
    assert_eq!(base_of(&model).expect("a base"), Some(base));
    assert!(!place.stage_dir("x", "dpo").join("base").exists());
    assert!(
        place.bytes("x", &format!("sft/{ADAPTER}")) != place.bytes("x", &format!("dpo/{ADAPTER}"))
    );
}

/// peft#1035: the adapter of one base beside another loads, runs and answers wrongly.
#[test]
fn an_adapter_beside_other_weights_than_its_own_is_refused() {
    let place = Place::tuned("x");
    let other = place.merged_by_hand("x");
    let keys = format!("start = \"{}\"\nlora = {{ adapter = \"sft\" }}\n", other.display());
    place.recipe(&keys);
    let plan = place.plan("x");
    let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
    let refused = run_stage(&plan, stage_of(&plan, "dpo"), &run_dir, u64::MAX);
    let error = refused.expect_err("another base");
    assert!(matches!(error, Error::Plan(plan::Error::BaseChanged { .. })), "{error}");
    let adapter = place.stage_dir("x", "sft").join("model");
    let opened = BaseModelCache::new(&device()).open_on_base::<CausalLm>(&other, &adapter);
    assert!(matches!(opened, Err(Error::Plan(plan::Error::BaseChanged { .. }))));
    let own = place.stage_dir("x", "pretrain").join("model");
    BaseModelCache::new(&device()).open_on_base::<CausalLm>(&own, &adapter).expect("its own base");
}

/// A checkpoint has all trainable parameters of a second model, or loading fails (trl#1379, LlamaFactory#9369: heads
/// that came back random).
#[test]
fn a_second_models_file_holds_all_that_is_trained_or_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("saved/value.safetensors");
    let is_trained = |name: &str| name.contains("q_proj") || name.contains("lm_head");
    let saved = model::train_only(tiny_model(1), &is_trained);
    let mut out = fsio::DirWriter::begin(dir.path().join("saved")).expect("a folder");
    save_trained(&mut out, "value.safetensors", &saved).expect("written");
    out.commit(serde_json::Value::Null).expect("in place");

    // Trained values come from the file, frozen ones stay.
    let other = model::train_only(tiny_model(2), &is_trained);
    let (wanted, before) = (bits(&saved), bits(&other));
    let loaded = load_trained(other, &path, &str::to_owned).expect("loaded");
    train::compare_trained(&path, &str::to_owned, &loaded).expect("the same bits");
    for (((name, now), (_, saved)), (_, own)) in bits(&loaded).iter().zip(&wanted).zip(&before) {
        assert!(now == if is_trained(name) { saved } else { own }, "{name}");
    }
    let more = |name: &str| is_trained(name) || name.contains("k_proj");
    let error = load_trained(model::train_only(tiny_model(2), &more), &path, &str::to_owned)
        .expect_err("a gap");
    assert!(error.to_string().contains("tensor missing: `"), "{error}");
    let wide = model::train_only(model_of_width(40, 2), &is_trained);
    let error = load_trained(wide, &path, &str::to_owned).expect_err("another width");
    assert!(error.to_string().contains("has shape ["), "{error}");
}
