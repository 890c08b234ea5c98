//! The base model of an adapter is found, and other base models are refused: they would give wrong answers without an
//! error (peft#1035, qlora#254).

use std::path::{Path, PathBuf};

use plan::{BASE_FILE, BaseFile, Error, base_of, check_base, weights_hash};

use crate::support::write;

/// A run whose stage `reward` is an adapter on the weights of its stage `sft`.
struct Run {
    dir: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["x/sft/model", "x/reward/model"] {
            fsio::create_dir_all(dir.path().join(folder)).expect("a folder");
        }
        let run = Self { dir };
        write(&run.dir.path().join("x"), "LOCK", "");
        write(&run.base(), "config.json", "{}");
        write(&run.base(), "model.safetensors", "weights");
        write(&run.adapter(), "adapter_config.json", "{}");
        let hash = weights_hash(&run.base()).expect("a hash");
        run.record(&BaseFile::new(&run.adapter(), &run.base(), &hash, recipe::BaseDtype::F32));
        run
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("x/sft/model")
    }

    fn adapter(&self) -> PathBuf {
        self.dir.path().join("x/reward/model")
    }

    fn record(&self, file: &BaseFile) {
        let text = serde_json::to_string(file).expect("JSON");
        write(&self.adapter(), BASE_FILE, &text);
    }
}

fn refused(dir: &Path) -> Error {
    let error = base_of(dir).expect_err("a base that should not be taken");
    assert!(error.hint().is_some(), "{error}");
    error
}

#[test]
fn an_adapter_finds_its_base_and_whole_weights_have_none() {
    let run = Run::new();
    assert_eq!(base_of(&run.adapter()).expect("a base"), Some(run.base()));
    assert_eq!(base_of(&run.base()).expect("whole weights"), None);
    // Within a run the path is relative, so a run can be moved.
    let record = std::fs::read_to_string(run.adapter().join(BASE_FILE)).expect("the record");
    let record: BaseFile = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record.base, Path::new("../../sft/model"));
    let moved = run.dir.path().join("y");
    fsio::rename(run.dir.path().join("x"), &moved).expect("moved");
    let base = base_of(&moved.join("reward/model")).expect("a base");
    assert_eq!(base, Some(moved.join("sft/model")));
}

#[test]
fn other_weights_in_the_same_place_are_refused() {
    let run = Run::new();
    write(&run.base(), "optimizer.safetensors", "moments are no weights");
    assert_eq!(base_of(&run.adapter()).expect("a base"), Some(run.base()));
    write(&run.base(), "model.safetensors", "Weights");
    assert!(matches!(refused(&run.adapter()), Error::BaseChanged { .. }));
    write(&run.base(), "model.safetensors", "weights");
    write(&run.base(), "model-00002-of-00002.safetensors", "more");
    assert!(matches!(refused(&run.adapter()), Error::BaseChanged { .. }));
}

#[test]
fn a_base_that_is_gone_or_not_recorded_is_named() {
    let run = Run::new();
    fsio::rename(run.base(), run.dir.path().join("elsewhere")).expect("moved");
    let error = refused(&run.adapter());
    assert!(matches!(&error, Error::BaseGone { base, .. } if *base == run.base()), "{error}");
    fsio::remove_file(run.adapter().join(BASE_FILE)).expect("removed");
    assert!(matches!(refused(&run.adapter()), Error::NoBase { .. }));
    for damaged in ["", "{}", "{\"base\": \"x\", \"weights_sha256\": \"y\", \"more\": 1}"] {
        write(&run.adapter(), BASE_FILE, damaged);
        assert!(matches!(refused(&run.adapter()), Error::BaseFile { .. }), "{damaged}");
    }
}

#[test]
fn a_base_that_is_given_must_be_the_recorded_one() {
    let run = Run::new();
    let copy = run.dir.path().join("copy");
    fsio::create_dir_all(&copy).expect("a folder");
    write(&copy, "model.safetensors", "weights");
    check_base(&run.adapter(), &copy).expect("the same weights elsewhere");
    write(&copy, "model.safetensors", "others");
    let error = check_base(&run.adapter(), &copy).expect_err("other weights");
    assert!(matches!(error, Error::BaseChanged { .. }), "{error}");
    // A PEFT adapter has no record of its base model.
    fsio::remove_file(run.adapter().join(BASE_FILE)).expect("removed");
    check_base(&run.adapter(), &copy).expect("not known to be another");
}

#[test]
fn a_folder_without_weights_has_no_hash() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(matches!(weights_hash(dir.path()), Err(Error::NoWeights { .. })));
    assert!(matches!(weights_hash(&dir.path().join("none")), Err(Error::NoWeights { .. })));
}
