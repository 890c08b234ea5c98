//! Directories of MODEL arguments.

use plan::{Error, locate_model};

use crate::support::write;

#[test]
fn a_stage_a_checkpoint_and_a_directory() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let make = |name: &str| {
        fsio::create_dir_all(at(name)).expect("a folder");
        write(&at(name), "config.json", "{}");
    };
    make("run/sft/checkpoints/step-000020");
    make("run/sft/checkpoints/step-000100");
    assert_eq!(
        locate_model(&at("run/sft")).expect("newest"),
        at("run/sft/checkpoints/step-000100")
    );
    make("run/sft/model");
    assert_eq!(locate_model(&at("run/sft")).expect("finished"), at("run/sft/model"));
    let checkpoint = at("run/sft/checkpoints/step-000020");
    assert_eq!(locate_model(&checkpoint).expect("itself"), checkpoint);
    let of_run = locate_model(&at("run")).expect_err("a run");
    assert!(matches!(&of_run, Error::RunNotStage { stages, .. } if stages == &["sft"]), "{of_run}");
    fsio::create_dir_all(at("other")).expect("a folder");
    fsio::write_atomic(at("other/model.pt"), "x").expect("a file");
    for path in ["other", "other/model.pt"] {
        let error = locate_model(&at(path)).expect_err("pickled");
        assert!(matches!(&error, Error::Pickled { path } if *path == at("other/model.pt")));
        assert!(error.hint().expect("a hint").starts_with("convert to safetensors"));
    }
    assert!(matches!(locate_model(&at("none")), Err(Error::NoSuchModel { .. })));
    fsio::create_dir_all(at("empty")).expect("a folder");
    assert!(matches!(locate_model(&at("empty")), Err(Error::NotAModel { .. })));
}
