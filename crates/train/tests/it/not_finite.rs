//! Evaluations that are not finite, completions without a reward, and a run's directory that goes away.

use std::collections::BTreeMap;
use std::path::Path;

use train::{EvalRow, Event, Recorder, RunDir, StageRun, StepReport, StopFlag};

use super::stage_run::{RECIPE, settings};

const METRIC: &str = "task/roll/word_perplexity";

fn eval(step: u64, loss: f64, metric: f64) -> EvalRow {
    let extra = BTreeMap::from([(METRIC.to_owned(), metric)]);
    EvalRow { step, eval_loss: Some(loss), n_targets: 1, extra }
}

fn open<'a>(run_dir: &RunDir, seen: &'a mut Recorder) -> StageRun<'a> {
    StageRun::open(run_dir, settings(RECIPE), seen, StopFlag::manual()).expect("open")
}

fn step(run: &mut StageRun<'_>) {
    run.log_step(StepReport { loss: 2.0, grad_norm: 1.0, ..StepReport::default() })
        .expect("a step");
}

fn warnings(seen: &Recorder) -> Vec<String> {
    let warning = |event: &Event| {
        if let Event::Warning { message } = event { Some(message.clone()) } else { None }
    };
    seen.events.iter().filter_map(warning).collect()
}

#[test]
fn a_checkpoint_with_any_number_is_read_again() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let root = tempfile::tempdir().expect("tempdir");
        let run_dir = RunDir::open(root.path()).expect("open");
        let mut seen = Recorder::default();
        let mut run = open(&run_dir, &mut seen);
        run.resume().expect("new");
        run.log_first_eval(eval(0, value, value)).expect("logged");
        step(&mut run);
        run.log_eval(eval(1, value, value)).expect("logged");
        run.extra_state().insert("kl_coef".to_owned(), value);
        run.save(|_| Ok(())).expect("saved");
        drop(run);
        let named = |name: &str| warnings(&seen).iter().filter(|text| text.contains(name)).count();
        assert_eq!((named("`eval_loss` is"), named(METRIC)), (1, 1), "{:?}", seen.events);

        let mut again = Recorder::default();
        let mut run = open(&run_dir, &mut again);
        run.resume().expect("resumed").expect("a checkpoint");
        let state = run.state();
        assert!(state.best.is_none(), "{state:?}");
        let last = state.last_eval.as_ref().expect("an evaluation");
        assert!(!last.extra[METRIC].is_finite() && !last.eval_loss.expect("a loss").is_finite());
        let kept = state.extra["kl_coef"];
        assert!(kept.to_bits() == value.to_bits() || kept.is_nan() && value.is_nan());
    }
}

#[test]
fn the_best_evaluation_is_a_finite_one() {
    let root = tempfile::tempdir().expect("tempdir");
    let run_dir = RunDir::open(root.path()).expect("open");
    let mut seen = Recorder::default();
    let mut run = open(&run_dir, &mut seen);
    run.resume().expect("new");
    let evals =
        [(1, f64::NAN, false), (2, 3.0, true), (3, f64::NEG_INFINITY, false), (4, 2.0, true)];
    for (number, loss, is_best) in evals {
        step(&mut run);
        assert_eq!(run.log_eval(eval(number, loss, 1.0)).expect("logged"), is_best, "{number}");
    }
    assert_eq!(run.exported_eval().map(|row| row.step), Some(4));
}

/// Without a finite evaluation the last weights are exported, and early stopping counts what measured nothing.
#[test]
fn without_a_finite_evaluation_the_last_weights_are_exported() {
    let root = tempfile::tempdir().expect("tempdir");
    let run_dir = RunDir::open(root.path()).expect("open");
    let mut seen = Recorder::default();
    let mut run = open(&run_dir, &mut seen);
    run.resume().expect("new");
    for number in 1..=2 {
        step(&mut run);
        run.log_eval(eval(number, f64::NAN, 1.0)).expect("logged");
        run.save(|_| Ok(())).expect("saved");
    }
    assert!(run.is_done(), "stopped early");
    assert_eq!(run.best_checkpoint().expect("none to read"), None);
    let finished = run.finish(serde_json::json!({"eval_loss": f64::NAN})).expect("finished");
    assert_eq!((finished.exported_step, finished.steps), (2, 2));
    let warnings = warnings(&seen);
    let last = "the validation loss was never a finite number, so the weights of the last step, 2, are exported";
    assert!(warnings.iter().any(|text| text.contains(last)), "{warnings:?}");
    // The file is read as it was written.
    let status = run_dir.stage("pretrain").status().expect("a status");
    assert!(matches!(status, train::StageStatus::Finished(_)), "{status:?}");
}

/// Older versions wrote null for such a number, and took the first evaluation for the best one whatever it was.
#[test]
fn checkpoints_of_older_versions_are_read() {
    let state: train::TrainState = serde_json::from_str(
        r#"{"step":4,"seconds":1.5,"best":{"step":2,"eval_loss":null,"n_targets":3,"reward":null},
            "last_eval":{"step":4,"eval_loss":null,"reward":null},"extra":{"kl_coef":null}}"#,
    )
    .expect("a state");
    let best = state.best.expect("an evaluation");
    assert!(best.eval_loss.expect("a loss").is_nan() && best.extra["reward"].is_nan());
    assert!(state.extra["kl_coef"].is_nan());
}

#[test]
fn completions_without_a_reward_are_counted() {
    let root = tempfile::tempdir().expect("tempdir");
    let run_dir = RunDir::open(root.path()).expect("open");
    let mut seen = Recorder::default();
    let mut run = open(&run_dir, &mut seen);
    run.resume().expect("new");
    let names = ["judge".to_owned()];
    for n in [0, 1, 4, 2, 4] {
        step(&mut run);
        run.count_unrewarded(n, 4, &names);
    }
    run.warn_unrewarded_eval(&names);
    run.warn_unrewarded_eval(&names);
    run.save(|_| Ok(())).expect("saved");
    drop(run);
    let found = warnings(&seen);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("step 2: 1 of 4 completions have no reward (`judge` gave no value)")
    );
    assert!(found[1].starts_with("step 3: no completion has a reward (`judge`"));
    assert!(found[2].starts_with("the evaluation at step 5 has no reward: `judge` gave no value"));
    // Warnings are not repeated after a resume, and the end counts all.
    let mut again = Recorder::default();
    let mut run = open(&run_dir, &mut again);
    run.resume().expect("resumed").expect("a checkpoint");
    step(&mut run);
    run.count_unrewarded(4, 4, &names);
    run.warn_of_unrewarded(&names);
    drop(run);
    let found = warnings(&again);
    assert_eq!(found.len(), 1, "{found:?}");
    let end = "[pretrain] 15 completions had no reward (`judge` gave no value), among them all of 3 of 6 updates";
    assert!(found[0].starts_with(end), "{found:?}");
}

#[test]
fn nothing_is_written_into_another_directory_of_the_name() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = |name: &str| root.path().join(name);
    let run_dir = RunDir::open(path("run")).expect("open");
    let mut seen = Recorder::default();
    let mut run = open(&run_dir, &mut seen);
    run.resume().expect("new");
    step(&mut run);
    run.save(|_| Ok(())).expect("saved");
    fsio::rename(path("run"), path("moved")).expect("moved");
    let is_refused = |result: train::Result<()>| {
        let error = result.expect_err("refused");
        assert!(matches!(error, train::Error::RunDirMoved { .. }), "{error}");
        assert!(!error.is_wrong_input());
    };
    let report = || StepReport { loss: 2.0, grad_norm: 1.0, ..StepReport::default() };
    is_refused(run.log_step(report()));
    is_refused(run.save(|_| Ok(())).map(drop));
    is_refused(run.check_dir());
    assert!(!path("run").exists());
    // Another run takes the name.
    let other = RunDir::open(path("run")).expect("free");
    is_refused(run.log_eval(eval(2, 1.0, 1.0)).map(drop));
    is_refused(run.save(|_| Ok(())).map(drop));
    is_refused(run.finish(serde_json::Value::Null).map(drop));
    assert_eq!(names_in(&path("run")), ["LOCK"]);
    other.guard().check().expect("its own");
    // It went away while the checkpoint was written.
    let mut seen = Recorder::default();
    let mut run = open(&other, &mut seen);
    run.resume().expect("new");
    step(&mut run);
    let gone = run.save(|_| Ok(fsio::remove_file(path("run/LOCK"))?));
    is_refused(gone.map(drop));
    assert_eq!(names_in(&path("run/pretrain/checkpoints")), [""; 0]);
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}
