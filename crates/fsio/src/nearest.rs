//! The existing path that a path with a spelling mistake may mean.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Entries of a directory that are compared.
const ENTRIES: usize = 10_000;

/// The path with its first missing part replaced by the most similar name of that directory. `None` if the path exists, no name
/// is similar, or the rest of the path does not exist there either.
pub fn nearest_path(path: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    let mut parts = path.components();
    let missing = loop {
        let part = parts.next()?;
        let next = found.join(part);
        if fs::symlink_metadata(&next).is_err() {
            break part;
        }
        found = next;
    };
    let Component::Normal(missing) = missing else { return None };
    let wanted = parts_of(missing.to_str()?);
    let here = if found.as_os_str().is_empty() { Path::new(".") } else { &found };
    let names = fs::read_dir(here).ok()?.take(ENTRIES).filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        (!name.starts_with('.') && !name.chars().any(char::is_control)).then_some(name)
    });
    let distance = |name: &str| {
        let (stem, ending) = parts_of(name);
        // Names of one kind of file differ by their stems; else all of a name counts.
        if ending == wanted.1 {
            (strsim::damerau_levenshtein(&wanted.0, &stem), wanted.0.chars().count())
        } else {
            let whole = |(stem, ending): &(String, String)| format!("{stem}{ending}");
            let (left, right) = (whole(&wanted), whole(&(stem, ending)));
            (strsim::damerau_levenshtein(&left, &right), left.chars().count())
        }
    };
    let ((distance, length), name) = names.map(|name| (distance(&name), name)).min()?;
    let is_similar = distance <= (length / 3).max(1) && distance < length;
    let candidate = found.join(name).join(parts.as_path());
    let candidate: PathBuf = candidate.components().collect();
    (is_similar && fs::symlink_metadata(&candidate).is_ok()).then_some(candidate)
}

/// A name in lower case, as its stem and its ending.
fn parts_of(name: &str) -> (String, String) {
    let name = name.to_lowercase();
    let at = name.find('.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, ending) = name.split_at(at);
    (stem.to_owned(), ending.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_missing_part_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("runs/tiny/sft")).unwrap();
        fs::write(at("chats.jsonl"), "").unwrap();
        assert_eq!(nearest_path(&at("chat.jsonl")), Some(at("chats.jsonl")));
        assert_eq!(nearest_path(&at("Chats.jsonl")), Some(at("chats.jsonl")));
        assert_eq!(nearest_path(&at("runs/tny/sft")), Some(at("runs/tiny/sft")));
        assert_eq!(nearest_path(&at("runs/tny/dpo")), None);
        assert_eq!(nearest_path(&at("pairs.parquet")), None);
        assert_eq!(nearest_path(&at("notes.jsonl")), None);
        assert_eq!(nearest_path(&at("chats.json")), Some(at("chats.jsonl")));
        assert_eq!(nearest_path(&at("chats.jsonl")), None);
    }
}
