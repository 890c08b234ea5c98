//! The files of a repository that are downloaded, and the reason for each one that is not.

use glob::Pattern;
use hub_local::Kind;

use crate::listing::RemoteFile;
use crate::{Error, Result};

/// Most names in an error.
const NAMES: usize = 5;
/// Endings of weights in formats that can carry code or that Temper cannot read.
const FOREIGN_WEIGHTS: [&str; 8] =
    [".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".pkl"];
/// Files of tokenizers besides JSON.
const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.bpe",
];
/// Words that names of documents start with.
const DOCUMENTS: [&str; 6] = ["README", "LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY"];

/// A file that is not downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Path in the repository.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// The reason.
    pub reason: Reason,
}

/// Reason for leaving a file out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A format that Temper does not read; not downloaded even if it is named.
    Format,
    /// Weights that the chosen files have already, in another precision or layout.
    Copy,
    /// A format that is downloaded only if the file is named.
    OnRequest,
}

impl Reason {
    /// The reason in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Format => "formats that Temper does not read",
            Self::Copy => "further copies of the weights; --file NAME downloads one",
            Self::OnRequest => "--file NAME downloads one",
        }
    }
}

/// Files to download, and the others.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) files: Vec<RemoteFile>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// The files that Temper reads: weights in safetensors, JSON, JSONL, parquet, files of tokenizers, README and licences.
pub(crate) fn by_default(files: Vec<RemoteFile>, kind: Kind) -> Result<Selection> {
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let mut chosen = Selection { files: Vec::new(), left_out: Vec::new() };
    for file in files {
        match reason(&file.path, kind, &paths) {
            None => chosen.files.push(file),
            Some(reason) => {
                chosen.left_out.push(LeftOut { path: file.path, bytes: file.size, reason });
            }
        }
    }
    match kind {
        Kind::Model => check_weights(&chosen)?,
        Kind::Dataset => check_data(&chosen)?,
    }
    Ok(chosen)
}

/// The files whose paths match one of the names, in which `*` stands for any characters.
pub(crate) fn by_name(files: Vec<RemoteFile>, names: &[String]) -> Result<Selection> {
    let mut chosen: Vec<RemoteFile> = Vec::new();
    for name in names {
        let pattern = Pattern::new(name).map_err(|error| Error::BadRequest {
            problem: format!("--file `{}`: {}", name.escape_debug(), error.msg),
            hint: "write the path of a file in the repository; `*` stands for any characters"
                .to_owned(),
        })?;
        let matches = |file: &&RemoteFile| file.path == *name || pattern.matches(&file.path);
        let matching: Vec<&RemoteFile> = files.iter().filter(matches).collect();
        if matching.is_empty() {
            let all = list(files.iter().map(|file| file.path.as_str()));
            return Err(Error::BadRequest {
                problem: format!("the repository has no file `{}`", name.escape_debug()),
                hint: format!("it has: {all}"),
            });
        }
        for file in matching {
            if is_foreign(&file.path) {
                return Err(Error::BadRequest {
                    problem: format!("`{}`: Temper does not read this format", file.path),
                    hint: "files in pickle-like formats can run code; name a file in safetensors or GGUF".to_owned(),
                });
            }
            chosen.push(file.clone());
        }
    }
    chosen.sort_by(|a, b| a.path.cmp(&b.path));
    chosen.dedup_by(|a, b| a.path == b.path);
    Ok(Selection { files: chosen, left_out: Vec::new() })
}

/// Why a file is left out by default; `None` if it is not.
fn reason(path: &str, kind: Kind, all: &[String]) -> Option<Reason> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let lower = name.to_ascii_lowercase();
    let plain = lower.trim_end_matches(".gz").trim_end_matches(".zst");
    let ends = |endings: &[&str]| endings.iter().any(|ending| plain.ends_with(ending));
    if lower.starts_with('.') {
        return Some(Reason::OnRequest);
    }
    if lower.ends_with(".safetensors") {
        return is_copy(path, all).then_some(Reason::Copy);
    }
    let is_tokenizer = TOKENIZER_FILES.contains(&lower.as_str()) || ends(&[".jinja", ".tiktoken"]);
    let is_document = DOCUMENTS.iter().any(|word| name.to_ascii_uppercase().starts_with(word));
    let is_read = match kind {
        Kind::Model => ends(&[".json"]) || is_tokenizer,
        Kind::Dataset => ends(&[".json", ".jsonl", ".ndjson", ".parquet"]),
    };
    if is_read || is_document {
        return None;
    }
    if is_foreign(path) {
        return Some(Reason::Format);
    }
    let on_request = match kind {
        Kind::Model => ends(&[".gguf", ".jsonl", ".parquet", ".md", ".txt"]),
        Kind::Dataset => {
            ends(&[".csv", ".tsv", ".txt", ".text", ".arrow", ".ipc", ".feather", ".md"])
        }
    };
    Some(if on_request { Reason::OnRequest } else { Reason::Format })
}

/// Whether weights are there a second time: `consolidated.safetensors`, a variant such as `model.fp16.safetensors`, or a
/// subdirectory beside weights at the root.
fn is_copy(path: &str, all: &[String]) -> bool {
    let is_main = |path: &String| {
        let stem = path.strip_suffix(".safetensors").unwrap_or_default();
        stem == "model" || is_shard(stem, "model")
    };
    if !all.iter().any(is_main) || is_main(&path.to_owned()) {
        return false;
    }
    let stem = path.strip_suffix(".safetensors").unwrap_or(path);
    path.contains('/') || stem.starts_with("consolidated") || stem.starts_with("model.")
}

/// Whether a name is `STEM-00001-of-00002`.
fn is_shard(name: &str, stem: &str) -> bool {
    let numbers = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(n, of)| is_number(n) && is_number(of))
}

fn is_foreign(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    FOREIGN_WEIGHTS.iter().any(|ending| lower.ends_with(ending))
}

/// A model whose weights are all left out is an error: the directory would be of no use.
fn check_weights(chosen: &Selection) -> Result<()> {
    if chosen.files.iter().any(|file| file.path.ends_with(".safetensors")) {
        return Ok(());
    }
    let left_out = |ending: &[&str]| -> Vec<&str> {
        let paths = chosen.left_out.iter().map(|file| file.path.as_str());
        paths
            .filter(|path| ending.iter().any(|ending| path.to_ascii_lowercase().ends_with(ending)))
            .collect()
    };
    let gguf = left_out(&[".gguf"]);
    if let Some(first) = gguf.first() {
        return Err(Error::BadRequest {
            problem: format!(
                "the repository has its weights as GGUF files: {}",
                list(gguf.iter().copied())
            ),
            hint: format!("choose one, as in `--file {first}`"),
        });
    }
    let foreign = left_out(&FOREIGN_WEIGHTS);
    if foreign.is_empty() {
        // A repository of a tokenizer alone.
        return Ok(());
    }
    Err(Error::BadRequest {
        problem: format!("the repository has no weights in safetensors, only {}", list(foreign.into_iter())),
        hint: "files in pickle-like formats can run code, so Temper does not read them; the repository's pull requests may \
               have a conversion (@refs/pr/N)"
            .to_owned(),
    })
}

fn check_data(chosen: &Selection) -> Result<()> {
    let is_data =
        |path: &str| !DOCUMENTS.iter().any(|word| path.to_ascii_uppercase().starts_with(word));
    if chosen.files.iter().any(|file| is_data(&file.path)) {
        return Ok(());
    }
    let others = list(chosen.left_out.iter().map(|file| file.path.as_str()));
    Err(Error::BadRequest {
        problem: format!("the repository has no JSON, JSONL or parquet files, only {others}"),
        hint: "name the files to download with --file, as in `--file '*.csv'`; the branch @refs/convert/parquet may have them \
               as parquet"
            .to_owned(),
    })
}

/// The first names of a list, with the number of the others.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 if names.is_empty() => "nothing".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Expected;

    fn files(paths: &[&str]) -> Vec<RemoteFile> {
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            size: 1,
            expected: Expected::GitBlob("0".repeat(40)),
        };
        paths.iter().map(file).collect()
    }

    fn paths(selection: &Selection) -> Vec<&str> {
        selection.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn a_model_without_its_second_copies() {
        let all = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "chat_template.jinja",
            "config.json",
            "consolidated.safetensors",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.fp16.safetensors",
            "model.safetensors.index.json",
            "model.q4.gguf",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "original/params.json",
            "pytorch_model.bin",
            "run.py",
            "tokenizer.model",
            "vocoder/model.safetensors",
        ];
        let chosen = by_default(files(&all), Kind::Model).expect("a model");
        assert_eq!(
            paths(&chosen),
            [
                "LICENSE",
                "README.md",
                "chat_template.jinja",
                "config.json",
                "merges.txt",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "original/params.json",
                "tokenizer.model",
            ]
        );
        let of = |reason: Reason| -> Vec<&str> {
            let left_out = chosen.left_out.iter().filter(|file| file.reason == reason);
            left_out.map(|file| file.path.as_str()).collect()
        };
        assert_eq!(of(Reason::OnRequest), [".gitattributes", "model.q4.gguf"]);
        assert_eq!(
            of(Reason::Copy),
            ["consolidated.safetensors", "model.fp16.safetensors", "vocoder/model.safetensors"]
        );
        assert_eq!(
            of(Reason::Format),
            ["onnx/model.onnx", "original/consolidated.00.pth", "pytorch_model.bin", "run.py"]
        );
    }

    #[test]
    fn weights_of_another_name_are_the_weights() {
        let all = files(&[
            "adapter_config.json",
            "adapter_model.safetensors",
            "consolidated.safetensors",
        ]);
        assert_eq!(by_default(all.clone(), Kind::Model).expect("a model").files, all);
    }

    #[test]
    fn useless_downloads_are_refused() {
        let problem = |paths: &[&str], kind| {
            let error = by_default(files(paths), kind).expect_err("of no use");
            (error.to_string(), error.hint().unwrap_or_default())
        };
        let (pickle, _) = problem(&["config.json", "pytorch_model.bin"], Kind::Model);
        assert!(pickle.contains("pytorch_model.bin"), "{pickle}");
        let (gguf, hint) = problem(&["README.md", "m-q4_0.gguf", "m-q8_0.gguf"], Kind::Model);
        assert!(
            gguf.contains("m-q8_0.gguf") && hint.contains("--file m-q4_0.gguf"),
            "{gguf} {hint}"
        );
        let (csv, hint) = problem(&["README.md", "a.csv"], Kind::Dataset);
        assert!(csv.contains("a.csv") && hint.contains("--file"), "{csv} {hint}");
        assert!(by_default(files(&["tokenizer.json"]), Kind::Model).is_ok());
    }

    #[test]
    fn named_files_only() {
        let all = files(&["a.csv", "b.csv", "c.gguf", "d.bin", "sub/e.csv"]);
        let chosen = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            by_name(all.clone(), &names)
        };
        assert_eq!(
            paths(&chosen(&["c.gguf", "*.csv"]).expect("files")),
            ["a.csv", "b.csv", "c.gguf", "sub/e.csv"]
        );
        for bad in ["x.csv", "d.bin", "a[", "*.bin"] {
            assert!(chosen(&[bad]).is_err(), "{bad}");
        }
    }
}
