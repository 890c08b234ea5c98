//! Leftovers of killed processes in a run's directory, and what only looks like them.

use std::fs;

use train::{Error, Silent, StopFlag};

use crate::stage_run::{falling, names_in, run_stage, run_to_end};

#[test]
fn leftovers_of_a_killed_process_are_removed() {
    let root = tempfile::tempdir().expect("tempdir");
    run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
    let stage = root.path().join("pretrain");
    for leftover in [
        "checkpoints/step-000009.tmp-1",
        "checkpoints/step-000005.old.tmp-1",
        "checkpoints/dry-save.tmp-2",
        "checkpoints/dry-save.old.tmp-2",
        "model.tmp-3",
        "model.old.tmp-3",
        "reference.tmp-3",
        "base.tmp-3",
    ] {
        fs::create_dir_all(stage.join(leftover)).expect("mkdir");
        fs::write(stage.join(leftover).join("half"), b"x").expect("write");
    }
    // As where the process was killed between the dry save and its removal.
    let mut dry_save = fsio::DirWriter::begin(stage.join("checkpoints/dry-save")).expect("none");
    dry_save.write("state.json", b"{}").expect("write");
    dry_save.commit(serde_json::Value::Null).expect("commit");
    fs::write(stage.join(".finished.json.2.tmp-77"), b"x").expect("write");
    // As where the process was killed between the model and `finished.json`.
    let mut model = fsio::DirWriter::begin(stage.join("model")).expect("none");
    model.write("config.json", b"{}").expect("write");
    model.commit(serde_json::Value::Null).expect("commit");
    fs::write(root.path().join(".recipe.toml.0.tmp-77"), b"x").expect("write");
    run_to_end(root.path());
    assert_eq!(names_in(&stage.join("checkpoints")), ["step-000009", "step-000012"]);
    assert_eq!(names_in(&stage.join("model")), ["MANIFEST", "model.safetensors"]);
    assert_eq!(names_in(root.path()), ["LOCK", "pretrain", "recipe.toml"]);
    assert!(names_in(&stage).iter().all(|name| !name.contains(".tmp-")));
}

#[test]
fn what_only_looks_like_a_leftover_stays() {
    let root = tempfile::tempdir().expect("tempdir");
    run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
    let dirs = [
        "notes.tmp-1",
        "recipe.toml.tmp-1",
        "pretrain/notes.tmp-1",
        "pretrain/checkpoints/notes.tmp-1",
        "pretrain/checkpoints/step-9.tmp-1",
        "pretrain/checkpoints/model.tmp-1",
    ];
    let files = [
        "f.tmp-3",
        ".notes.txt.0.tmp-3",
        "pretrain/model.tmp-3",
        "pretrain/checkpoints/step-000009.tmp-3",
        "pretrain/checkpoints/.plan.json.0.tmp-3",
    ];
    let inner = dirs.map(|dir| format!("{dir}/mine"));
    for dir in dirs {
        fs::create_dir(root.path().join(dir)).expect("mkdir");
    }
    let all: Vec<&str> = files.into_iter().chain(inner.iter().map(String::as_str)).collect();
    for file in &all {
        fs::write(root.path().join(file), b"mine").expect("write");
    }
    run_to_end(root.path());
    for file in &all {
        assert_eq!(fs::read(root.path().join(file)).expect(file), b"mine");
    }
}

#[test]
fn a_foreign_dry_save_is_named_and_stays() {
    let root = tempfile::tempdir().expect("tempdir");
    run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
    let mine = root.path().join("pretrain/checkpoints/dry-save/mine");
    fs::create_dir(mine.parent().expect("a directory")).expect("mkdir");
    fs::write(&mine, b"mine").expect("write");
    let error = run_stage(root.path(), u64::MAX, StopFlag::manual(), falling, &mut Silent);
    let error = error.expect_err("in the way");
    assert!(matches!(&error, Error::ForeignFile { path } if *path == mine), "{error}");
    assert_eq!(fs::read(&mine).expect("read"), b"mine");
}

#[test]
fn a_file_in_the_place_of_a_directory_is_named_and_stays() {
    for place in ["pretrain/checkpoints/dry-save", "pretrain/model"] {
        let root = tempfile::tempdir().expect("tempdir");
        run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
        let mine = root.path().join(place);
        fs::write(&mine, b"mine").expect("write");
        let error = run_stage(root.path(), u64::MAX, StopFlag::manual(), falling, &mut Silent);
        let error = error.expect_err("in the way");
        assert!(matches!(&error, Error::ForeignFile { path } if *path == mine), "{error}");
        assert!(error.is_wrong_input());
        assert_eq!(fs::read(&mine).expect("kept"), b"mine");
    }
}

#[test]
fn a_foreign_file_in_the_place_of_the_model_is_not_lost() {
    for has_manifest in [false, true] {
        let root = tempfile::tempdir().expect("tempdir");
        run_stage(root.path(), 7, StopFlag::manual(), falling, &mut Silent).expect("cut");
        let model = root.path().join("pretrain/model");
        if has_manifest {
            let mut writer = fsio::DirWriter::begin(&model).expect("none");
            writer.write("config.json", b"{}").expect("write");
            writer.commit(serde_json::Value::Null).expect("commit");
        } else {
            fs::create_dir(&model).expect("mkdir");
        }
        fs::write(model.join("notes.txt"), b"mine").expect("write");
        let error = run_stage(root.path(), u64::MAX, StopFlag::manual(), falling, &mut Silent);
        let error = error.expect_err("a foreign file");
        assert!(matches!(&error, Error::ForeignFile { path } if path.ends_with("model/notes.txt")));
        assert!(error.hint().is_some());
        assert_eq!(fs::read(model.join("notes.txt")).expect("kept"), b"mine");
        fs::rename(model.join("notes.txt"), root.path().join("notes.txt")).expect("moved");
        run_to_end(root.path());
    }
}
