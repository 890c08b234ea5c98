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
    let wanted = missing.to_str()?.to_lowercase();
    let here = if found.as_os_str().is_empty() { Path::new(".") } else { &found };
    let names = fs::read_dir(here).ok()?.take(ENTRIES).filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        (!name.starts_with('.') && !name.chars().any(char::is_control)).then_some(name)
    });
    let distance = |name: &str| strsim::damerau_levenshtein(&wanted, &name.to_lowercase());
    let (distance, name) = names.map(|name| (distance(&name), name)).min()?;
    let is_similar = distance <= (wanted.chars().count().max(name.chars().count()) / 3).max(1);
    let candidate = found.join(name).join(parts.as_path());
    let candidate: PathBuf = candidate.components().collect();
    (is_similar && fs::symlink_metadata(&candidate).is_ok()).then_some(candidate)
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
        assert_eq!(nearest_path(&at("chats.jsonl")), None);
    }
}
