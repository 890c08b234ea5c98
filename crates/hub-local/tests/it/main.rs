//! References, and copies of repositories in directories and in a cache of huggingface_hub.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hub_local::{
    Environment, Error, Kind, Need, RECORD_FILE, Record, Reference, cache_dir, get_hint, locate,
    origin, read_record,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn parse(text: &str) -> Reference {
    Reference::parse(text).expect("the prefix").unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The forms that huggingface_hub 2.4 reads after `hf://`, with their parts.
#[test]
fn references_have_parts() {
    let cases = [
        ("hf:o/m", Kind::Model, "o/m", None, None),
        ("hf://o/m", Kind::Model, "o/m", None, None),
        ("hf:models/o/m", Kind::Model, "o/m", None, None),
        ("hf:datasets/o/n@v1", Kind::Dataset, "o/n", Some("v1"), None),
        ("hf:o/m@main/a/b.json", Kind::Model, "o/m", Some("main"), Some("a/b.json")),
        ("hf:o/m/x.gguf", Kind::Model, "o/m", None, Some("x.gguf")),
        ("hf:o/m@refs/pr/10/x.gguf", Kind::Model, "o/m", Some("refs/pr/10"), Some("x.gguf")),
        (
            "hf:datasets/o/n@refs/convert/parquet-v2/a/0.parquet",
            Kind::Dataset,
            "o/n",
            Some("refs/convert/parquet-v2"),
            Some("a/0.parquet"),
        ),
        ("hf:o/m@feature%2Fx/y", Kind::Model, "o/m", Some("feature/x"), Some("y")),
        ("hf:Qwen/Qwen2.5-0.5B_v1.0", Kind::Model, "Qwen/Qwen2.5-0.5B_v1.0", None, None),
    ];
    for (text, kind, id, revision, path) in cases {
        let reference = parse(text);
        assert_eq!(reference.kind, kind, "{text}");
        assert_eq!(reference.id(), id, "{text}");
        assert_eq!(
            (reference.revision.as_deref(), reference.path.as_deref()),
            (revision, path),
            "{text}"
        );
        assert_eq!(parse(&reference.to_string()), reference, "{text}");
    }
    assert!(Reference::parse("o/m").is_none() && Reference::parse("runs/x/sft").is_none());
}

#[test]
fn bad_references_are_refused() {
    let bad = [
        "hf:",
        "hf:m",
        "hf:/m",
        "hf:o/",
        "hf:spaces/o/m",
        "hf:o--x/m",
        "hf:o/m..",
        "hf:../m",
        "hf:o/..",
        "hf:-o/m",
        "hf:o/m@",
        "hf:o/m@..",
        "hf:o/m@../../x",
        "hf:o/m@a%2F..%2F..%2Fb",
        "hf:o/m/../x",
        "hf:o/m//x",
        "hf:o/m/a/./b",
        "hf:o/m/a\nb",
        "hf:o/m@a b",
        "hf:o/mé",
        "hf:o m/x",
    ];
    for text in bad {
        let error = Reference::parse(text).expect("the prefix").expect_err(text);
        assert!(error.hint().expect("a hint").contains("hf:datasets/OWNER/NAME"), "{text}");
    }
    let long = format!("hf:o/{}", "m".repeat(97));
    assert!(Reference::parse(&long).expect("the prefix").is_err());
}

#[test]
fn commands_name_the_repository() {
    assert_eq!(parse("hf:o/m@v1").get_command(), "temper get hf:o/m@v1");
    assert_eq!(parse("hf:o/m/x y.gguf").get_command(), "temper get hf:o/m --file 'x y.gguf'");
    let hint = get_hint(Kind::Model, Path::new("Qwen/Qwen3-0.6B")).expect("a repository");
    assert!(hint.contains("`temper get hf:Qwen/Qwen3-0.6B`"), "{hint}");
    let hint = get_hint(Kind::Dataset, Path::new("o/n")).expect("a repository");
    assert!(hint.contains("`temper get hf:datasets/o/n`"), "{hint}");
    for path in ["runs/x", "runs/x/sft", "model", "/o/m", "../o/m", "o/m/", "data/x", "a/b/c"] {
        let hint = get_hint(Kind::Model, Path::new(path));
        assert!(hint.is_none() || path == "o/m/", "{path}: {hint:?}");
    }
}

/// A working directory, a recipe's directory and a cache.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fsio::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fsio::write_atomic(path, text).expect("a file");
    }

    /// A file of a snapshot, as a link to a blob.
    fn link(&self, snapshot: &str, name: &str, blob: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.write(&format!("{snapshot}/../../blobs/{blob}"), text);
        }
        let path = self.at(&format!("{snapshot}/{name}"));
        fsio::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let up = "../".repeat(2 + name.matches('/').count());
        std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), path).expect("a link");
    }

    fn locate(&self, reference: &str, need: Need) -> hub_local::Result<PathBuf> {
        let cache = self.at("hub").display().to_string();
        let variable = |name: &str| (name == "HF_HUB_CACHE").then(|| cache.clone());
        let (recipe, working) = (self.at("recipes"), self.at("work"));
        locate(&parse(reference), need, &[&recipe, &working], &Environment::new(&variable))
    }

    fn missing(&self, reference: &str, need: Need) -> (String, String) {
        let error = self.locate(reference, need).expect_err("not there");
        (error.to_string(), error.hint().expect("a hint"))
    }
}

#[test]
fn a_missing_repository_names_the_command() {
    let place = Place::new();
    let (message, hint) = place.missing("hf:o/m@v1", Need::Model);
    assert_eq!(message, "`hf:o/m@v1` is not on this machine");
    assert!(hint.starts_with("`temper get hf:o/m@v1` downloads it"), "{hint}");
    let (_, hint) = place.missing("hf:datasets/o/n", Need::Data);
    assert!(hint.starts_with("`temper get hf:datasets/o/n` downloads it"), "{hint}");
    let (message, _) = place.missing("hf:o/n", Need::Data);
    assert!(message.contains("hf:datasets/OWNER/NAME"), "{message}");
    assert!(place.locate("hf:datasets/o/n", Need::Model).is_err());
}

#[test]
fn directories_come_first() {
    let place = Place::new();
    place.write("work/models/o/m/config.json", "{}");
    assert_eq!(place.locate("hf:o/m", Need::Model).expect("there"), place.at("work/models/o/m"));
    place.write("recipes/models/o/m/config.json", "{}");
    assert_eq!(place.locate("hf:o/m", Need::Model).expect("there"), place.at("recipes/models/o/m"));
    place.write("work/datasets/o/n/a.jsonl", "{}");
    assert_eq!(
        place.locate("hf:datasets/o/n/a.jsonl", Need::Data).expect("there"),
        place.at("work/datasets/o/n/a.jsonl")
    );
    assert_eq!(
        place.locate("hf:datasets/o/n/*.jsonl", Need::Data).expect("a pattern"),
        place.at("work/datasets/o/n/*.jsonl")
    );
    let (message, hint) = place.missing("hf:datasets/o/n/b.jsonl", Need::Data);
    assert!(message.contains("`b.jsonl`") && hint.contains("--file b.jsonl"), "{message} {hint}");
}

#[test]
fn a_revision_must_be_the_recorded_one() {
    let place = Place::new();
    place.write("work/models/o/m/config.json", "{}");
    let (message, _) = place.missing("hf:o/m@v1", Need::Model);
    assert!(message.contains("no record of its revision"), "{message}");
    let record = Record::new("hf:o/m".into(), "https://x".into(), "v1".into(), COMMIT.into());
    place.write(&format!("work/models/o/m/{RECORD_FILE}"), &record.to_json());
    for revision in ["v1", COMMIT] {
        assert!(place.locate(&format!("hf:o/m@{revision}"), Need::Model).is_ok(), "{revision}");
    }
    let (message, hint) = place.missing("hf:o/m@v2", Need::Model);
    assert!(message.contains("has the revision `v1` (0123456)"), "{message}");
    assert!(hint.contains("temper get hf:o/m@v2"), "{hint}");
    let dir = place.at("work/models/o/m");
    assert_eq!(read_record(&dir).expect("readable").expect("a record"), record);
    assert_eq!(origin(&dir).as_deref(), Some("hf:o/m at revision 0123456"));
    let newer = record.to_json().replace("\"format\": 1", "\"format\": 2");
    place.write(&format!("work/models/o/m/{RECORD_FILE}"), &newer);
    assert!(matches!(read_record(&dir), Err(Error::BadRecord { .. })));
}

#[test]
fn snapshots_of_the_cache_are_found() {
    let place = Place::new();
    let snapshot = format!("hub/models--o--m/snapshots/{COMMIT}");
    place.write("hub/models--o--m/refs/main", COMMIT);
    place.write("hub/models--o--m/refs/refs/pr/1", COMMIT);
    place.link(&snapshot, "config.json", "aa", Some("{}"));
    place.link(&snapshot, "tokenizer.json", "bb", Some("{}"));
    // Without weights it serves as a tokenizer alone.
    let (message, hint) = place.missing("hf:o/m", Need::Model);
    assert!(message.contains("is partial: `model.safetensors` is missing"), "{message}");
    assert!(hint.contains("temper get hf:o/m"), "{hint}");
    assert_eq!(place.locate("hf:o/m", Need::Tokenizer).expect("there"), place.at(&snapshot));
    place.link(&snapshot, "model.safetensors", "cc", Some("weights"));
    for reference in [
        "hf:o/m".to_owned(),
        "hf:o/m@main".to_owned(),
        format!("hf:o/m@{COMMIT}"),
        "hf:o/m@refs/pr/1".to_owned(),
    ] {
        assert_eq!(place.locate(&reference, Need::Model).expect(&reference), place.at(&snapshot));
    }
    assert_eq!(origin(&place.at(&snapshot)).as_deref(), Some("hf:o/m at revision 0123456"));
    let (message, _) = place.missing("hf:o/m@v2", Need::Model);
    assert!(message.contains("no snapshot of the revision `v2`"), "{message}");
    // A link to a blob that never arrived.
    place.link(&snapshot, "sub/extra.json", "dd", None);
    let (message, _) = place.missing("hf:o/m", Need::Model);
    assert!(message.contains("is partial: `sub/extra.json` is missing"), "{message}");
}

#[test]
fn a_missing_shard_is_named() {
    let place = Place::new();
    let snapshot = format!("hub/models--o--m/snapshots/{COMMIT}");
    place.write("hub/models--o--m/refs/main", &format!("{COMMIT}\n"));
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    place.link(&snapshot, "config.json", "aa", Some("{}"));
    place.link(&snapshot, "model.safetensors.index.json", "bb", Some(index));
    place.link(&snapshot, "model-00001-of-00002.safetensors", "cc", Some("weights"));
    let (message, _) = place.missing("hf:o/m", Need::Model);
    assert!(message.contains("`model-00002-of-00002.safetensors` is missing"), "{message}");
    place.link(&snapshot, "model-00002-of-00002.safetensors", "dd", Some("weights"));
    assert!(place.locate("hf:o/m", Need::Model).is_ok());
}

/// A name in `refs` is a file's content, and must not lead out of the cache.
#[test]
fn refs_do_not_lead_out() {
    let place = Place::new();
    place.write("hub/models--o--m/refs/main", "../../../elsewhere");
    place.write("elsewhere/config.json", "{}");
    place.write("hub/models--o--m/snapshots/x/config.json", "{}");
    assert!(place.locate("hf:o/m", Need::Tokenizer).is_err());
}

/// The values that huggingface_hub 2.4 computes for the same variables.
#[test]
fn the_cache_is_where_huggingface_hub_has_it() {
    let cache = |variables: &[(&str, &str)]| {
        let mut all: BTreeMap<&str, &str> = variables.iter().copied().collect();
        all.entry("HOME").or_insert("/home/u");
        let variable = |name: &str| all.get(name).map(|value| (*value).to_owned());
        cache_dir(&Environment::new(&variable)).display().to_string()
    };
    assert_eq!(cache(&[]), "/home/u/.cache/huggingface/hub");
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]), "/home/u/hf/hub");
    assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")]), "/old");
    assert_eq!(
        cache(&[("HF_HUB_CACHE", "$BIG/c"), ("BIG", "/b"), ("HUGGINGFACE_HUB_CACHE", "/old")]),
        "/b/c"
    );
    assert_eq!(cache(&[("HF_HUB_CACHE", "${NONE}/c$")]), "${NONE}/c$");
    assert_eq!(cache(&[("HF_HUB_CACHE", "~other/c")]), "~other/c");
}
