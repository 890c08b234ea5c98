//! Models and weights of other projects, read by path: they are not in the repository.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Place, root};

/// The directory of published models, if it is on this machine.
fn models() -> Option<PathBuf> {
    let default = root().join("../shared/data");
    let data = std::env::var_os("TEMPER_DATA").map_or(default, PathBuf::from);
    let models = data.join("models");
    if !models.is_dir() {
        #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
        {
            println!("skipped: no {}; set TEMPER_DATA to the data directory", models.display());
        }
        return None;
    }
    // Commands run in directories of their own.
    Some(models.canonicalize().expect("a directory"))
}

#[test]
fn weights_in_pickle_format_are_refused() {
    let Some(models) = models() else { return };
    let files = |dir: &str| {
        let entries = std::fs::read_dir(models.join(dir)).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let place = Place::new();
    let mut n_refused = 0;
    for path in [files("torch"), files("lora")].concat() {
        let name = path.display().to_string();
        let outcome = place.temper(&["generate", &name, "--prompt", "a"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{name}");
        let is_pickled = [".pt", ".pth", ".bin"].iter().any(|ending| name.ends_with(ending));
        assert_eq!(
            outcome.stderr.contains("convert to safetensors"),
            is_pickled,
            "{}",
            outcome.stderr
        );
        n_refused += usize::from(is_pickled);
    }
    assert!(n_refused >= 22, "{n_refused}");
}

/// A trained model of 260,000 parameters continues texts as its reference does.
#[test]
fn a_published_model_writes_the_reference_text() {
    let Some(models) = models() else { return };
    let model = models.join("stories260k");
    let text = std::fs::read_to_string(model.join("expected.json")).expect("a file");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    let (place, model) = (Place::new(), model.display().to_string());
    let cases = expected["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let prompt = case["text"].as_str().expect("a prompt");
        let args = ["generate", &model, "--prompt", prompt, "--greedy", "--max-new-tokens", "40"];
        let outcome = place.temper(&args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let row: Value = serde_json::from_str(outcome.stdout.trim()).expect("one JSON line");
        assert_eq!(row["tokens"], case["greedy_40"], "{prompt}");
    }
}
