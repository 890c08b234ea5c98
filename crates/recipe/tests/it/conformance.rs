//! The public TOML test suite: valid files are refused because they are not recipes, invalid ones
//! because they are not TOML.

use std::path::{Path, PathBuf};

use recipe::Error;

use crate::shown;

/// The directory of shared test data, if it exists.
fn suite() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let data = std::env::var_os("TEMPER_DATA").unwrap_or_else(|| default.into());
    let suite = Path::new(&data).join("conformance/toml-test");
    if suite.is_dir() {
        return Some(suite);
    }
    eprintln!("skipped: no conformance/toml-test in the data folder");
    None
}

/// The files of TOML 1.1 under `folder`, that exist.
fn files(suite: &Path, folder: &str) -> Vec<PathBuf> {
    let list = std::fs::read_to_string(suite.join("files-toml-1.1.0")).unwrap();
    let names = list.lines().map(Path::new);
    let names = names.filter(|name| name.extension().is_some_and(|extension| extension == "toml"));
    names
        .filter(|name| name.starts_with(folder))
        .map(|name| suite.join(name))
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn valid_toml_is_refused_as_no_recipe_and_never_as_no_toml() {
    let Some(suite) = suite() else { return };
    let files = files(&suite, "valid");
    assert!(files.len() > 150, "only {} valid files", files.len());
    for path in files {
        let error = recipe::load(&path, &[]).expect_err("the suite holds no recipe");
        assert!(matches!(error, Error::Invalid(_)), "{}", shown(&error));
    }
}

#[test]
fn invalid_toml_is_refused_with_a_place() {
    let Some(suite) = suite() else { return };
    let files = files(&suite, "invalid");
    assert!(files.len() > 300, "only {} invalid files", files.len());
    for path in files {
        let error = recipe::load(&path, &[]).expect_err("the suite holds no recipe");
        let has_place = match &error {
            Error::NotUtf8 { .. } => true,
            Error::Syntax(diagnostic) => diagnostic.location.is_some(),
            Error::Read(_) | Error::Invalid(_) | Error::Override { .. } => false,
        };
        assert!(has_place, "{}: {}", path.display(), shown(&error));
    }
}
