//! Copies of a stage that is killed after its checkpoint and resumed: every row once, under one identity.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::proto::{Field, fields};
use super::record_log::records;
use super::*;

fn tracking() -> Tracking {
    Tracking {
        trackers: vec![Tracker::Tensorboard, Tracker::Wandb, Tracker::Mlflow],
        run: "kind".into(),
        stage: "sft".into(),
        max_steps: 8,
        epochs: 2.0,
        recipe: json!({
            "seed": 1, "model": null,
            "sft": { "optimizer": { "lr": 0.5 }, "data": [{ "path": "a: b" }] },
            "ppo": { "gamma": 1.0 },
        }),
        recipe_toml: "seed = 1\n".into(),
    }
}

fn step(step: u64) -> Value {
    json!({"step": step, "loss": 10.0 - step as f64, "lr": 0.5, "tokens": 100 * step, "grad_norm": null})
}

fn eval(step: u64) -> Value {
    json!({"step": step, "eval_loss": 9.5 - step as f64, "n_targets": 7})
}

fn sample(step: u64) -> SampleRow {
    SampleRow { step, prompt: "Hi?".into(), text: format!("{step}!"), ..SampleRow::default() }
}

/// Everything up to `last`, evaluated and sampled at even steps.
fn log(trackers: &mut Trackers, steps: std::ops::RangeInclusive<u64>) {
    for at in steps {
        if at > 0 {
            trackers.row(&step(at));
        }
        if at.is_multiple_of(2) {
            trackers.row(&eval(at));
            trackers.sample(&sample(at));
        }
    }
}

fn history(trackers: &Trackers, last: u64) -> History {
    let mut history = History::default();
    for at in 0..=last {
        let rows = (at > 0).then(|| step(at)).into_iter();
        for row in rows.chain(at.is_multiple_of(2).then(|| eval(at))) {
            history.add(trackers.values_of(row.as_object().unwrap()).unwrap());
        }
        history.samples.extend(at.is_multiple_of(2).then(|| sample(at)));
    }
    history
}

fn only(dir: &Path, prefix: &str) -> PathBuf {
    let found = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let starts = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let found: Vec<PathBuf> = found.filter(starts).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The contents of the records of a kind.
fn of_kind(file: &Path, kind: u64) -> Vec<Vec<u8>> {
    let all = records(&std::fs::read(file).unwrap());
    let numbers: Vec<_> = all.iter().map(|record| fields(record).next().unwrap()).collect();
    let wanted: Vec<_> = (1..=all.len() as u64).map(|n| (1, Field::Int(n))).collect();
    assert_eq!(numbers, wanted);
    let of = |record: &Vec<u8>| {
        fields(record).find(|(at, _)| *at == kind)?.1.bytes().map(<[u8]>::to_vec)
    };
    all.iter().filter_map(of).collect()
}

/// Keys and values of the items of a history or summary.
fn items(message: &[u8]) -> BTreeMap<String, Value> {
    let items = fields(message).filter(|(at, _)| *at == 1).filter_map(|(_, field)| field.bytes());
    let pair = |item: &[u8]| {
        let of = |number| fields(item).find(|(at, _)| *at == number).unwrap().1.bytes().unwrap();
        let key = String::from_utf8(of(1).to_vec()).unwrap();
        (key, serde_json::from_slice(of(16)).unwrap())
    };
    items.map(pair).collect()
}

#[test]
fn a_resumed_stage_has_every_row_once() {
    let run = tempfile::tempdir().unwrap();
    let stage = run.path().join("sft");
    fsio::create_dir_all(&stage).unwrap();
    let mut first = Trackers::new(&stage, tracking());
    first.start(0, &History::default());
    log(&mut first, 0..=4);
    first.flush();
    first.checkpoint_saved();
    log(&mut first, 5..=6);
    // Killed while the checkpoint of step 6 is saved.
    first.flush();
    assert_eq!(first.take_warnings(), Vec::<String>::new());
    drop(first);
    let wandb = only(&only(&run.path().join("wandb"), "offline-run-"), "run-");
    let before: Vec<_> = of_kind(&wandb, 2).iter().map(|row| items(row)).collect();
    assert_eq!(before.len(), 7);

    // The checkpoint is that of step 4.
    let mut second = Trackers::new(&stage, tracking());
    let old = history(&second, 4);
    second.start(4, &old);
    log(&mut second, 5..=8);
    second.finish();
    assert_eq!(second.take_warnings(), Vec::<String>::new());

    assert_eq!(only(&only(&run.path().join("wandb"), "offline-run-"), "run-"), wandb);
    let rows: Vec<_> = of_kind(&wandb, 2).iter().map(|row| items(row)).collect();
    let steps: Vec<_> = rows.iter().map(|row| row["_step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for (at, row) in rows.iter().enumerate() {
        let at = at as f64;
        assert_eq!(row.get("train/loss").is_some(), at > 0.0);
        assert_eq!(row.get("train/epoch").cloned(), (at > 0.0).then(|| json!(at / 4.0)));
        assert_eq!(row.get("eval/loss").is_some(), at % 2.0 == 0.0);
        assert_eq!(row.get("samples").is_some(), at % 2.0 == 0.0);
        assert!(row.get("train/grad_norm").is_none());
    }
    // Rows before the checkpoint keep their times.
    for (old, new) in before.iter().zip(&rows).take(5) {
        assert_eq!(old["_timestamp"], new["_timestamp"]);
    }
    let path = rows[4]["samples"]["path"].as_str().unwrap();
    let table = std::fs::read_to_string(wandb.parent().unwrap().join("files").join(path)).unwrap();
    assert!(table.contains("\"data\":[[4,\"Hi?\",\"4!\",null,null]]"), "{table}");
    assert_eq!((of_kind(&wandb, 17).len(), of_kind(&wandb, 18).len()), (1, 1));
    let summary = of_kind(&wandb, 3);
    assert_eq!(items(summary.last().unwrap())["eval/loss"], json!(1.5));

    // Field 5 of an event is its summary, whose values have tags and plugins; texts are never dropped by TensorBoard.
    let events = std::fs::read_dir(&stage).unwrap().map(|entry| entry.unwrap().path());
    let events = events.filter(|path| path.display().to_string().contains("tfevents"));
    let bytes: Vec<u8> = events.flat_map(|path| std::fs::read(path).unwrap()).collect();
    for at in [0, 2, 4, 6, 8] {
        let text = format!("    Hi?\n\nAnswer:\n\n    {at}!");
        assert_eq!(bytes.windows(text.len()).filter(|part| *part == text.as_bytes()).count(), 1);
    }

    let mlruns = run.path().join("mlruns/0");
    let dirs = std::fs::read_dir(&mlruns).unwrap().map(|entry| entry.unwrap().path());
    let dirs: Vec<PathBuf> = dirs.filter(|path| path.is_dir()).collect();
    let [mlflow] = &dirs[..] else { panic!("{dirs:?}") };
    let read = |name: &str| std::fs::read_to_string(mlflow.join(name)).unwrap();
    let lines = |name: &str| -> Vec<String> {
        let text = read(name);
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    };
    let wanted: Vec<String> = (1..=8).map(|at| format!("{} {at}", 10 - at)).collect();
    assert_eq!(lines("metrics/train/loss"), wanted);
    assert_eq!(lines("metrics/eval/loss"), ["9.5 0", "7.5 2", "5.5 4", "3.5 6", "1.5 8"]);
    assert_eq!(read("params/sft.optimizer.lr"), "0.5");
    assert_eq!(read("params/sft.data.0.path"), "a: b");
    assert!(!mlflow.join("params/ppo.gamma").exists());
    assert!(read("meta.yaml").contains("status: 3\n"), "{}", read("meta.yaml"));
    assert_eq!(read("artifacts/samples.jsonl").lines().count(), 5);
}

#[test]
fn a_failing_copy_is_one_warning_and_the_others_go_on() {
    let run = tempfile::tempdir().unwrap();
    let stage = run.path().join("sft");
    fsio::create_dir_all(&stage).unwrap();
    fsio::write_atomic(run.path().join("wandb"), "a file in place of the directory").unwrap();
    let mut trackers = Trackers::new(&stage, tracking());
    trackers.start(0, &History::default());
    log(&mut trackers, 0..=8);
    trackers.finish();
    let warnings = trackers.take_warnings();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.starts_with("no more files for Weights & Biases in this run: "), "{warning}");
    assert!(run.path().join("mlruns/0").is_dir());
}

/// TensorBoard has the rows of processes that did not write it, or that were killed before they did, and no row twice.
#[test]
fn tensorboard_gets_the_rows_that_its_files_lack() {
    let run = tempfile::tempdir().unwrap();
    let stage = run.path().join("sft");
    fsio::create_dir_all(&stage).unwrap();
    let shows = |last: u64| {
        let shown = Shown::read(&stage);
        for at in 0..=10 {
            let (is_row, is_eval) = (at <= last, at <= last && at % 2 == 0);
            assert_eq!(shown.has("train/loss", at), is_row && at > 0, "step {at} of {last}");
            assert_eq!(shown.has("eval/loss", at), is_eval, "step {at} of {last}");
            assert_eq!(shown.has("samples/1", at), is_eval, "step {at} of {last}");
        }
    };
    let n_files = || {
        let names = std::fs::read_dir(&stage).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.display().to_string().contains("tfevents")).count()
    };
    let resumed = |trackers: &[Tracker], step: u64| {
        let mut next =
            Trackers::new(&stage, Tracking { trackers: trackers.to_vec(), ..tracking() });
        let old = history(&next, step);
        next.start(step, &old);
        next
    };
    let mut first = Trackers::new(&stage, tracking());
    first.start(0, &History::default());
    log(&mut first, 0..=2);
    first.flush();
    // Killed after the checkpoint of step 2, before its texts are written.
    drop(first);
    let mut second = resumed(&[Tracker::Tensorboard], 2);
    shows(2);
    log(&mut second, 3..=4);
    second.flush();
    second.checkpoint_saved();
    shows(4);
    // Without the tracker.
    log(&mut resumed(&[Tracker::Mlflow], 4), 5..=6);
    shows(4);
    let before = n_files();
    let mut fourth = resumed(&[Tracker::Tensorboard], 6);
    shows(6);
    log(&mut fourth, 7..=8);
    fourth.finish();
    shows(8);
    assert_eq!(n_files(), before + 1);
    // Rows that a file has are not written again.
    drop(resumed(&[Tracker::Tensorboard], 8));
    shows(8);
    let newest = event_files_of(&stage).pop().unwrap();
    assert!(!String::from_utf8_lossy(&std::fs::read(&newest).unwrap()).contains("train/loss"));
    // The clock was set back, or was ahead on another machine.
    fsio::rename(newest, stage.join("events.out.tfevents.4102444800.temper.000")).unwrap();
    let mut last = resumed(&[Tracker::Tensorboard], 8);
    log(&mut last, 9..=10);
    last.finish();
    shows(10);
}

fn event_files_of(stage: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(stage).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.display().to_string().contains("tfevents")).collect();
    paths.sort();
    paths
}

/// A stage whose trackers were not those of its first process has all of its rows.
#[test]
fn a_tracker_may_come_later() {
    let run = tempfile::tempdir().unwrap();
    let stage = run.path().join("sft");
    fsio::create_dir_all(&stage).unwrap();
    let mut trackers = Trackers::new(&stage, tracking());
    let old = history(&trackers, 4);
    trackers.start(4, &old);
    trackers.flush();
    let wandb = only(&only(&run.path().join("wandb"), "offline-run-"), "run-");
    assert_eq!(of_kind(&wandb, 2).len(), 5);
}
