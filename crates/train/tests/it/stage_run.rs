//! The bookkeeping of a stage: a run that is interrupted anywhere and resumed ends as one that never was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use arch::Dtype;
use fsio::DirWriter;
use model::{CausalLm, load_causal_lm};
use recipe::Recipe;
use serde_json::{Value, json};
use train::{
    Checks, Error, EvalRow, Event, FirstLoss, Learner, Optimizer, ParameterNames, Progress,
    Recorder, RunDir, SampleRow, SaveFormat, Silent, SingleReplica, StageDir, StageRun,
    StageSettings, StageStatus, StepReport, StopFlag, Tracking, apply_update, checkpoint_name,
    checkpoint_steps, lr, save_model, weights_to_export,
};

use super::toy::{bits, device, gradients_of, place, tiny_model};

pub(crate) const RECIPE: &str = r#"
seed = 1
[tokenizer]
train = { kind = "char" }
[model]
family = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
intermediate_size = 56
[pretrain]
data = [{ path = "a.txt" }]
sequence_length = 32
tokens_per_step = 256
max_steps = 12
optimizer = { lr = 1e-2, weight_decay = 0.1 }
schedule = { warmup_steps = 3 }
eval = { holdout = 0.1, every_steps = 4, early_stopping = { patience = 2 } }
save_every_steps = 3
save_every_minutes = 0.0
log_every_steps = 1
"#;

fn parse(text: &str) -> Recipe {
    recipe::parse(text.as_bytes(), Path::new("test.toml"), &[]).expect("recipe").recipe
}

pub(crate) fn settings(text: &str) -> StageSettings {
    StageSettings {
        stage: "pretrain".into(),
        max_steps: 12,
        n_parameters: 1,
        n_trained: 1,
        keys: parse(text).pretrain.expect("section").train,
        validates: true,
        best_metric: None,
        recipe_toml: text.into(),
        side_files: vec![("config.json".into(), config_json())],
        inputs: BTreeMap::from([("data".into(), "abc".into())]),
        input_dirs: BTreeMap::new(),
        tracking: Tracking {
            trackers: parse(text).trackers,
            run: "run".into(),
            stage: "pretrain".into(),
            max_steps: 12,
            epochs: 2.0,
            recipe: serde_json::to_value(parse(text)).expect("JSON"),
            recipe_toml: text.into(),
        },
    }
}

fn config_json() -> Vec<u8> {
    testkit::tiny_llama(testkit::ByteIds::VOCAB_SIZE).to_string().into_bytes()
}

/// The loop of a stage as the stage crates have it; cut after `until` steps without a word.
pub(crate) fn run_stage(
    root: &Path,
    until: u64,
    stop: StopFlag,
    eval_loss: fn(u64) -> f64,
    progress: &mut dyn Progress,
) -> train::Result<Option<CausalLm>> {
    let run_dir = RunDir::open(root)?;
    let recipe = parse(RECIPE);
    run_dir.adopt_recipe(RECIPE, &recipe)?;
    let section = recipe.pretrain.expect("section");
    let mut run = StageRun::open(&run_dir, settings(RECIPE), progress, stop)?;
    let optimizer_settings = section.train.optimizer.clone();
    let (mut model, optimizer, names, first_loss);
    if let Some(checkpoint) = run.resume()? {
        model = load_causal_lm(&checkpoint.dir, &device())?;
        names = ParameterNames::of(&model);
        optimizer = Optimizer::load(&checkpoint.dir, optimizer_settings, &model, &device())?;
        first_loss = FirstLoss::Unknown;
    } else {
        model = tiny_model(1);
        names = ParameterNames::of(&model);
        optimizer = Optimizer::new(optimizer_settings, &model)?;
        first_loss = FirstLoss::Fresh { vocab_size: testkit::ByteIds::VOCAB_SIZE };
        run.dry_save(
            |dir| save_model(dir, |out| model.write_safetensors(out, Dtype::F32)),
            |dir| SaveFormat::Whole.compare(dir, &model),
        )?;
    }
    let checks = Checks::start(recipe.checks, &model, &names, first_loss);
    let (device, replicas) = (&device(), &SingleReplica);
    let average = None;
    let mut learner = Learner { optimizer, names, checks, average, replicas, device };
    while run.has_next_step() {
        let (gradients, loss, n_targets) = gradients_of(&model, &learner.names, run.step(), 2);
        let mut sums = learner.begin_step(n_targets, place(run.step() + 1))?;
        (sums.gradients, sums.loss) = (gradients, loss * n_targets as f64);
        let rate = lr(&section.train.schedule, section.train.optimizer.lr, run.step(), 12);
        let report;
        (model, report) = apply_update(model, &mut learner, sums, rate)?;
        run.log_step(StepReport { tokens: 256, ..report })?;
        if run.eval_due() {
            let step = run.step();
            let extra = BTreeMap::from([("perplexity".into(), eval_loss(step).exp())]);
            run.log_eval(EvalRow { step, eval_loss: Some(eval_loss(step)), n_targets: 9, extra })?;
            run.log_sample(SampleRow {
                step,
                prompt: "a".into(),
                text: "b".into(),
                ..SampleRow::default()
            })?;
        }
        if run.step() == until {
            return Ok(None);
        }
        run.save_if_due(|dir| {
            save_model(dir, |out| model.write_safetensors(out, Dtype::F32))?;
            learner.optimizer.save(dir)
        })?;
    }
    if !run.is_done() || until == BEFORE_EXPORT {
        return Ok(None);
    }
    let exported = weights_to_export(&mut run, model, &learner, |dir, model| {
        SaveFormat::Whole.load_into(dir, model)
    })?;
    let mut writer = DirWriter::begin(run.dir().model())?;
    SaveFormat::Whole.write(&mut writer, &exported)?;
    writer.commit(Value::Null)?;
    let result = json!(run.exported_eval());
    run.finish(result)?;
    Ok(Some(exported))
}

/// As `until`: all steps are made and saved, and the process is killed before it exports the model.
const BEFORE_EXPORT: u64 = 13;

pub(crate) fn falling(step: u64) -> f64 {
    5.0 - step as f64 * 0.1
}

fn rising(step: u64) -> f64 {
    5.0 + step as f64 * 0.1
}

pub(crate) fn run_to_end(root: &Path) -> CausalLm {
    run_stage(root, u64::MAX, StopFlag::manual(), falling, &mut Silent).expect("run").expect("end")
}

/// Rows of a log without the metric that depends on the clock.
fn rows(root: &Path, log: &str) -> Vec<Value> {
    let text = fs::read_to_string(root.join("pretrain").join(log)).expect("log");
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).expect("a row");
        row.as_object_mut().expect("an object").remove("tokens_per_s");
        row
    };
    text.lines().map(row).collect()
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("list")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_cut_anywhere_ends_the_same() {
    let whole = tempfile::tempdir().expect("tempdir");
    let want = bits(&run_to_end(whole.path()));
    assert_eq!(rows(whole.path(), "metrics.jsonl").len(), 12 + 3);
    for until in 1..=12 {
        let cut = tempfile::tempdir().expect("tempdir");
        let unfinished =
            run_stage(cut.path(), until, StopFlag::manual(), falling, &mut Silent).expect("run");
        assert!(unfinished.is_none());
        let model = run_to_end(cut.path());
        assert!(bits(&model) == want, "cut after step {until}");
        for log in ["metrics.jsonl", "samples.jsonl"] {
            assert_eq!(rows(cut.path(), log), rows(whole.path(), log), "cut after step {until}");
        }
    }
}

const CHILD: &str = "TRAIN_TEST_KILLED_CHILD";

/// Runs in a child process only, to be killed.
#[test]
fn killed_child() {
    if let Ok(root) = std::env::var(CHILD) {
        run_to_end(Path::new(&root));
    }
}

#[test]
fn a_killed_process_is_resumed_to_the_same_bits() {
    let whole = tempfile::tempdir().expect("tempdir");
    let want = bits(&run_to_end(whole.path()));
    let killed = tempfile::tempdir().expect("tempdir");
    for delay_ms in [30, 90, 50, 170] {
        let mut child = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "stage_run::killed_child"])
            .env(CHILD, killed.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("child");
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        child.kill().expect("kill -9");
        child.wait().expect("wait");
        if StageDir::in_run(killed.path(), "pretrain").finished().exists() {
            break;
        }
    }
    let finished = StageDir::in_run(killed.path(), "pretrain").finished();
    if !finished.exists() {
        assert!(bits(&run_to_end(killed.path())) == want);
    }
    let last = killed.path().join("pretrain/checkpoints/step-000012");
    assert!(bits(&load_causal_lm(&last, &device()).expect("checkpoint")) == want);
    assert_eq!(rows(killed.path(), "metrics.jsonl"), rows(whole.path(), "metrics.jsonl"));
}

#[test]
fn folders_are_as_the_documentation_draws_them() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut seen = Recorder::default();
    run_stage(root.path(), u64::MAX, StopFlag::manual(), falling, &mut seen).expect("run");
    assert_eq!(names_in(root.path()), ["LOCK", "pretrain", "recipe.toml"]);
    let stage = root.path().join("pretrain");
    let mut names = names_in(&stage);
    assert!(names.remove(1).starts_with("events.out.tfevents."));
    assert_eq!(names, ["checkpoints", "finished.json", "metrics.jsonl", "model", "samples.jsonl"]);
    assert_eq!(names_in(&stage.join("checkpoints")), ["step-000009", "step-000012"]);
    assert_eq!(
        names_in(&stage.join("checkpoints/step-000012")),
        [
            "MANIFEST",
            "config.json",
            "model.safetensors",
            "optimizer.safetensors",
            "recipe.toml",
            "state.json"
        ]
    );
    let status = StageDir::in_run(root.path(), "pretrain").status().expect("status");
    let StageStatus::Finished(finished) = status else { panic!("{status:?}") };
    assert_eq!((finished.steps, finished.tokens), (12, 12 * 256));
    let saved: Vec<u64> = seen
        .events
        .iter()
        .filter_map(
            |e| if let Event::CheckpointSaved { step, .. } = e { Some(*step) } else { None },
        )
        .collect();
    // Every third step, and with early stopping each best measurement.
    assert_eq!(saved, [3, 4, 6, 8, 9, 12]);
}

#[test]
fn a_signal_saves_and_the_run_goes_on() {
    let whole = tempfile::tempdir().expect("tempdir");
    let want = bits(&run_to_end(whole.path()));
    let root = tempfile::tempdir().expect("tempdir");
    let stop = StopFlag::manual();
    stop.request();
    for step in 1..=11 {
        let mut seen = Recorder::default();
        let stopped = run_stage(root.path(), u64::MAX, stop.clone(), falling, &mut seen);
        assert!(stopped.expect("run").is_none());
        let status = StageDir::in_run(root.path(), "pretrain").status().expect("status");
        assert_eq!(status, StageStatus::Interrupted { step });
        assert!(seen.events.contains(&Event::Stopping { step }));
    }
    assert!(bits(&run_to_end(root.path())) == want);
}

/// Measured at 4 (the best), 8 and 12: patience 2 ends the stage at 12, and `model/` has the weights of step 4.
#[test]
fn early_stopping_exports_the_best_weights_wherever_it_is_cut() {
    let whole = tempfile::tempdir().expect("tempdir");
    let mut seen = Recorder::default();
    let best = run_stage(whole.path(), u64::MAX, StopFlag::manual(), rising, &mut seen);
    let best = bits(&best.expect("run").expect("end"));
    let checkpoints = whole.path().join("pretrain/checkpoints");
    assert_eq!(names_in(&checkpoints), ["step-000004", "step-000009", "step-000012"]);
    let weights = |dir: &Path| bits(&load_causal_lm(dir, &device()).expect("checkpoint"));
    assert!(best == weights(&checkpoints.join("step-000004")));
    assert!(best != weights(&checkpoints.join("step-000012")));
    let noted = |event: &Event| matches!(event, Event::Note { message } if message.contains("step 4, the best evaluation"));
    assert!(seen.events.iter().any(noted), "{:?}", seen.events);
    let newest = train::load_newest(&checkpoints, &mut Silent).expect("load").expect("one");
    assert!(newest.state.stopped_early);
    assert_eq!(newest.state.best.map(|best| best.step), Some(4));
    for until in [4, 5, 10, 12, BEFORE_EXPORT] {
        let cut = tempfile::tempdir().expect("tempdir");
        for until in [until, u64::MAX] {
            run_stage(cut.path(), until, StopFlag::manual(), rising, &mut Silent).expect("run");
        }
        let stage = StageDir::in_run(cut.path(), "pretrain");
        let StageStatus::Finished(finished) = stage.status().expect("status") else {
            panic!("not finished")
        };
        assert_eq!((finished.steps, finished.best_step()), (12, Some(4)), "cut at {until}");
        assert_eq!(finished.result["step"], 4);
        let exported = stage.model().join("model.safetensors");
        let saved = fs::read(exported).expect("the model");
        assert!(
            saved == fs::read(checkpoints.join("step-000004/model.safetensors")).expect("best")
        );
    }
}

#[test]
fn a_missing_or_damaged_best_checkpoint_is_an_error() {
    for damage in [true, false] {
        let root = tempfile::tempdir().expect("tempdir");
        run_stage(root.path(), BEFORE_EXPORT, StopFlag::manual(), rising, &mut Silent)
            .expect("cut");
        let best = root.path().join("pretrain/checkpoints/step-000004");
        if damage {
            fs::write(best.join("model.safetensors"), b"x").expect("damage");
        } else {
            fs::remove_dir_all(&best).expect("remove");
        }
        let error = run_stage(root.path(), u64::MAX, StopFlag::manual(), rising, &mut Silent);
        let error = error.expect_err("the best is lost");
        assert!(matches!(error, Error::BestCheckpoint { .. }), "{error}");
        assert!(error.hint().is_some());
        assert!(!root.path().join("pretrain/finished.json").exists());
    }
}

/// Checkpoints and `finished.json` as format 1 had them: refused before anything is changed.
#[test]
fn a_run_of_another_format_is_refused_and_stays() {
    let format_1 = r#"{"steps":3,"tokens":9,"seconds":1.0,"result":null}"#;
    let newer = r#"{"steps":3,"tokens":9,"seconds":1.0,"result":null,"format":99}"#;
    for (finished, who) in [(None, "older"), (Some(format_1), "older"), (Some(newer), "newer")] {
        let root = tempfile::tempdir().expect("tempdir");
        let checkpoint = root.path().join("pretrain/checkpoints/step-000003");
        let mut writer = DirWriter::begin(&checkpoint).expect("a directory");
        writer.write("recipe.toml", "optimizer = { lr = 1e-3, clip = 1.0 }").expect("a file");
        writer.write("state.json", r#"{"step":3,"best":{"step":3,"metric":2.5}}"#).expect("a file");
        let info = json!({"checkpoint_format": 1, "machine": {}, "previous": null, "inputs": {}});
        writer.commit(info).expect("a checkpoint");
        if let Some(text) = finished {
            fs::write(root.path().join("pretrain/finished.json"), text).expect("a file");
        }
        fs::create_dir(root.path().join("left.tmp-1")).expect("a leftover");
        let error = RunDir::open(root.path()).expect_err("another format");
        assert!(
            error
                .to_string()
                .contains(&format!("made by an {who} Temper").replace("an newer", "a newer")),
            "{error}"
        );
        assert!(matches!(error, Error::Format { .. }) && error.hint().is_some());
        assert_eq!(names_in(root.path()), ["LOCK", "left.tmp-1", "pretrain"]);
        assert_eq!(names_in(&root.path().join("pretrain/checkpoints")), ["step-000003"]);
        assert!(fsio::verify_dir(&checkpoint).is_ok());
    }
}

#[test]
fn two_processes_never_share_a_run() {
    let root = tempfile::tempdir().expect("tempdir");
    let held = RunDir::open(root.path()).expect("free");
    let error = RunDir::open(root.path()).expect_err("held");
    assert!(matches!(error, Error::File(fsio::Error::Locked { .. })), "{error}");
    drop(held);
    RunDir::open(root.path()).expect("free again");
}

/// A damaged recipe is no leave to change it: that of the checkpoint before is compared, and without any the run stops.
#[test]
fn a_changed_recipe_is_refused_after_damage() {
    let root = tempfile::tempdir().expect("tempdir");
    run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
    let run_dir = RunDir::open(root.path()).expect("open");
    let checkpoints = run_dir.stage("pretrain").checkpoints();
    let steps = checkpoint_steps(&checkpoints).expect("checkpoints");
    assert!(steps.len() > 1, "{steps:?}");
    let changed = RECIPE.replace("lr = 1e-2", "lr = 2e-2");
    for (n_damaged, step) in steps.iter().rev().enumerate() {
        fs::write(checkpoints.join(checkpoint_name(*step)).join("recipe.toml"), "[pretrain\n")
            .expect("damage");
        let error = run_dir.adopt_recipe(&changed, &parse(&changed)).expect_err("refused");
        if n_damaged + 1 < steps.len() {
            assert!(matches!(error, Error::RecipeChanged { .. }), "{error}");
            run_dir.adopt_recipe(RECIPE, &parse(RECIPE)).expect("the run's own recipe");
        } else {
            assert!(matches!(error, Error::NoRecordedRecipe { .. }), "{error}");
        }
        assert_eq!(checkpoint_steps(&checkpoints).expect("checkpoints"), steps);
        assert_eq!(fs::read_to_string(run_dir.recipe_path()).expect("recipe"), RECIPE);
    }
}

#[test]
fn changed_recipes_and_inputs_are_refused() {
    let root = tempfile::tempdir().expect("tempdir");
    run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
    let run_dir = RunDir::open(root.path()).expect("open");
    let changed = RECIPE.replace("lr = 1e-2", "lr = 2e-2").replace("seed = 1", "seed = 2");
    let error = run_dir.adopt_recipe(&changed, &parse(&changed)).expect_err("another run");
    let text = error.to_string();
    assert!(text.contains("\n  seed: was `1`, is now `2`"), "{text}");
    assert!(text.contains("\n  pretrain.optimizer.lr: was `0.01`, is now `0.02`"), "{text}");
    assert_eq!(fs::read_to_string(run_dir.recipe_path()).expect("recipe"), RECIPE);
    let slower = RECIPE.replace("tokens_per_step = 256", "tokens_per_step = 256\nmicro_batch = 2");
    let warnings = run_dir.adopt_recipe(&slower, &parse(&slower)).expect("the same mathematics");
    assert_eq!(
        warnings,
        ["results may differ in the last bits: pretrain.micro_batch: was unset, is now `2`"]
    );
    assert_eq!(fs::read_to_string(run_dir.recipe_path()).expect("recipe"), slower);

    let mut other = settings(RECIPE);
    other.inputs.insert("data".into(), "xyz".into());
    let mut silent = Silent;
    let mut run = StageRun::open(&run_dir, other, &mut silent, StopFlag::manual()).expect("open");
    let error = run.resume().expect_err("other data");
    assert!(
        error.to_string().ends_with("inputs changed since this run started:\n  data"),
        "{error}"
    );
}

#[test]
fn a_log_cut_by_hand_is_a_warning() {
    let root = tempfile::tempdir().expect("tempdir");
    run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
    fs::write(root.path().join("pretrain/metrics.jsonl"), b"").expect("cut");
    let mut seen = Recorder::default();
    run_stage(root.path(), u64::MAX, StopFlag::manual(), falling, &mut seen).expect("run");
    let warned = seen.events.iter().any(|event| {
        matches!(event, Event::Warning { message } if message.ends_with("rows before step 6 are missing"))
    });
    assert!(warned);
}

#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    // The write fails as on a full disk.
    let root = tempfile::tempdir().expect("tempdir");
    run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
    let checkpoints = root.path().join("pretrain/checkpoints");
    let before = names_in(&checkpoints);
    let run_dir = RunDir::open(root.path()).expect("open");
    let mut silent = Silent;
    let mut run =
        StageRun::open(&run_dir, settings(RECIPE), &mut silent, StopFlag::manual()).expect("open");
    run.resume().expect("resume");
    run.log_step(StepReport::default()).expect("step");
    let error = run
        .save(|dir| {
            dir.write("model.safetensors", vec![0; 100])?;
            let path = dir.final_dir().join("optimizer.safetensors");
            let full = std::io::ErrorKind::StorageFull.into();
            Err(fsio::Error::of_writer(full, &path).into())
        })
        .expect_err("full");
    assert!(error.to_string().contains("optimizer.safetensors: cannot write"), "{error}");
    assert!(error.hint().expect("hint").contains("files saved before are intact"));
    assert_eq!(names_in(&checkpoints), before);
}

/// The evaluation before the first update is a start: it is no candidate for the best one, and what is worse is not called
/// the best so far.
#[test]
fn the_evaluation_before_training_is_only_compared_with() {
    let root = tempfile::tempdir().expect("tempdir");
    let run_dir = RunDir::open(root.path()).expect("open");
    let mut seen = Recorder::default();
    let eval =
        |step, loss| EvalRow { step, eval_loss: Some(loss), n_targets: 1, ..EvalRow::default() };
    let mut run =
        StageRun::open(&run_dir, settings(RECIPE), &mut seen, StopFlag::manual()).expect("open");
    run.resume().expect("nothing to resume");
    assert!(run.first_eval_due());
    run.log_first_eval(eval(0, 2.0)).expect("logged");
    assert!(!run.first_eval_due());
    for (step, loss, is_best) in [(1, 9.0, true), (2, 3.0, true), (3, 1.0, true), (4, 1.5, false)] {
        run.log_step(StepReport { loss: 2.0, grad_norm: 1.0, ..StepReport::default() })
            .expect("step");
        assert_eq!(run.log_eval(eval(step, loss)).expect("logged"), is_best, "step {step}");
    }
    assert_eq!(run.state().best.as_ref().map(|best| best.step), Some(3));
    assert_eq!(run.first_eval(), Some(&eval(0, 2.0)));
    run.save(|_| Ok(())).expect("saved");
    drop(run);
    let called_best: Vec<bool> = seen
        .events
        .iter()
        .filter_map(
            |event| if let Event::Eval { is_best, .. } = event { Some(*is_best) } else { None },
        )
        .collect();
    assert_eq!(called_best, [false, false, false, true, false]);
    let warnings = seen.events.iter().filter(|event| matches!(event, Event::Warning { .. }));
    assert_eq!(warnings.count(), 1, "of the validation loss");
    // It is not measured again, and its warning is not repeated.
    let mut again = Recorder::default();
    let mut run =
        StageRun::open(&run_dir, settings(RECIPE), &mut again, StopFlag::manual()).expect("open");
    run.resume().expect("resumed").expect("a checkpoint");
    assert!(!run.first_eval_due());
    assert_eq!(run.first_eval(), Some(&eval(0, 2.0)));
    run.log_eval(eval(5, 9.0)).expect("logged");
    drop(run);
    assert!(!again.events.iter().any(|event| matches!(event, Event::Warning { .. })));
}
