//! Splits of a directory, recognized by the names of files and sub-directories as in Hugging Face's `datasets`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::row_problem::name_list;

/// Split that a source uses unless it names one.
pub(crate) const TRAIN: &str = "train";

/// Names of the usual splits, each with the words that stand for it.
const WORDS: [(&str, &[&str]); 3] = [
    (TRAIN, &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Name of the split that a word stands for; other words are their own split.
fn canonical(word: &str) -> String {
    usual(word).map_or_else(|| word.to_owned(), str::to_owned)
}

fn usual(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    WORDS.iter().find(|(_, words)| words.contains(&word.as_str())).map(|(split, _)| *split)
}

/// First usual split among the words of a name, which end at any character that is not a letter.
fn usual_in(name: &str) -> Option<&'static str> {
    name.split(|c: char| !c.is_alphabetic()).find_map(usual)
}

/// Split of a file by its path in a directory: by the name of the file, or else of the nearest sub-directory.
///
/// The shards of a directory `data`, such as `data/train_sft-00000-of-00003.parquet`, have the split `train_sft`.
fn split_of(path: &Path, in_data: bool) -> Option<String> {
    let mut names: Vec<String> =
        path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let file = names.pop()?;
    let in_data = names.last().map_or(in_data, |directory| directory == "data");
    if let (true, Some(shards)) = (in_data, shards_of(&file))
        && usual_in(shards).is_some()
    {
        return Some(canonical(shards));
    }
    let split = usual_in(&file).or_else(|| names.iter().rev().find_map(|name| usual_in(name)));
    split.map(str::to_owned)
}

/// Name before the number of a shard: `train` of `train-00000-of-00003.parquet`.
fn shards_of(file: &str) -> Option<&str> {
    let (before, total) = file.split_once("-of-")?;
    let (name, number) = before.rsplit_once('-')?;
    let n_digits = total.bytes().take_while(u8::is_ascii_digit).count();
    let is_number = number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && n_digits == 5).then_some(name)
}

/// Files of one split, and a sentence about the choice. Without any split name all files are used.
pub(crate) fn choose(
    directory: &Path,
    files: Vec<PathBuf>,
    wanted: Option<&str>,
) -> Result<(Vec<PathBuf>, Option<String>)> {
    let in_data = directory.file_name().is_some_and(|name| name == "data");
    let split = |file: &PathBuf| split_of(file.strip_prefix(directory).ok()?, in_data);
    let splits: Vec<Option<String>> = files.iter().map(split).collect();
    if splits.iter().all(Option::is_none) && wanted.is_none() {
        return Ok((files, None));
    }
    let names = splits.iter().flatten().cloned().collect();
    let wanted = choose_name(directory, names, wanted)?;
    let n_files = files.len();
    let chosen: Vec<PathBuf> = files
        .into_iter()
        .zip(splits)
        .filter(|(_, split)| split.as_deref() == Some(&wanted))
        .map(|(file, _)| file)
        .collect();
    let choice = format!("split `{wanted}`: {} of {n_files} files", chosen.len());
    Ok((chosen, Some(choice)))
}

/// The wanted split, by default that of training, if it is among the existing ones.
pub(crate) fn choose_name(
    directory: &Path,
    mut names: Vec<String>,
    wanted: Option<&str>,
) -> Result<String> {
    // A split is first looked up as it is written: `eval` may be one beside `test`.
    if let Some(wanted) = wanted.filter(|wanted| names.iter().any(|name| name == wanted)) {
        return Ok(wanted.to_owned());
    }
    let wanted = canonical(wanted.unwrap_or(TRAIN));
    if names.contains(&wanted) {
        return Ok(wanted);
    }
    names.sort();
    names.dedup();
    let found = name_list(names.iter().map(String::as_str));
    Err(Error::NoSplit { path: directory.to_path_buf(), wanted, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_their_split() {
        let cases = [
            ("train.jsonl", Some("train")),
            ("training/part-1.txt", Some("train")),
            ("data/train-00000-of-00003.parquet", Some("train")),
            ("data/train_sft-00000-of-00003-a1b2.parquet", Some("train_sft")),
            ("data/wiki-00000-of-00003.parquet", None),
            ("wiki_train-00000-of-00003.parquet", Some("train")),
            ("my-dev2.csv", Some("validation")),
            ("valid/train.csv", Some("train")),
            ("en/test/a/b.txt", Some("test")),
            ("Eval.json", Some("test")),
            ("pretraining.txt", None),
            ("constraint/latest.txt", None),
        ];
        for (path, split) in cases {
            assert_eq!(split_of(Path::new(path), false).as_deref(), split, "{path}");
        }
        let shard = Path::new("test_gen-00000-of-00001.parquet");
        assert_eq!(split_of(shard, true).as_deref(), Some("test_gen"));
    }
}
