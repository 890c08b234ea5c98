//! The files of a repository at one commit, from the hub's API. Every name and number comes from a server and is checked.

use std::collections::BTreeSet;
use std::io::Read;

use hub_local::{RECORD_FILE, Reference};
use serde_json::Value;

use crate::client::Client;
use crate::hash::Expected;
use crate::{Error, Result, Watch, url};

/// Largest answer of the API, in bytes.
const ANSWER_BYTES: u64 = 64 << 20;
/// Most files of a repository.
const FILES: usize = 100_000;
/// Most pages of a listing. The hub's have 1,000 files.
const PAGES: usize = 200;
/// Deepest path.
const DEPTH: usize = 32;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// Path in the repository, confined to it.
    pub(crate) path: String,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Hash of the content.
    pub(crate) expected: Expected,
}

/// The commit of a revision.
pub(crate) fn commit(
    client: &Client,
    reference: &Reference,
    revision: &str,
    watch: &mut dyn Watch,
) -> Result<String> {
    if is_hex(revision, 40) {
        return Ok(revision.to_owned());
    }
    let path = format!("api/{}/revision/{}", reference.directory(), url::segment(revision));
    let address = client.address(&path);
    let (value, address, _) =
        json(client, &address, watch).map_err(|error| error.at_revision(revision))?;
    match value.get("sha").and_then(Value::as_str) {
        Some(commit) if is_hex(commit, 40) => Ok(commit.to_owned()),
        _ => Err(Error::BadAnswer { address, problem: "no commit in `sha`".to_owned() }),
    }
}

/// All files at a commit, sorted by path. Pages of the listing follow one another in `Link` headers.
pub(crate) fn files(
    client: &Client,
    reference: &Reference,
    commit: &str,
    watch: &mut dyn Watch,
) -> Result<Vec<RemoteFile>> {
    let path = format!("api/{}/tree/{commit}?recursive=true&expand=false", reference.directory());
    let mut next = Some(client.address(&path));
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..PAGES {
        let Some(address) = next.take() else {
            if files.is_empty() {
                let problem = "the repository has no files".to_owned();
                return Err(Error::BadAnswer { address: client.address(&path), problem });
            }
            return check_names(files);
        };
        if !seen.insert(address.clone()) {
            let problem = "the listing's next page is one that was read before".to_owned();
            return Err(Error::BadAnswer { address, problem });
        }
        let (value, shown, link) =
            json(client, &address, watch).map_err(|error| error.at_revision(commit))?;
        let bad = |problem: String| Error::BadAnswer { address: shown.clone(), problem };
        let entries = value.as_array().ok_or_else(|| bad("the listing is no list".to_owned()))?;
        if entries.is_empty() && link.is_some() {
            return Err(bad("an empty page of the listing has a next page".to_owned()));
        }
        for entry in entries {
            if let Some(file) = file(entry).map_err(&bad)? {
                files.push(file);
            }
        }
        if files.len() > FILES {
            return Err(bad(format!("more than {FILES} files")));
        }
        if let Some(link) = &link {
            if !client.is_own(link) {
                return Err(bad("the next page of the listing is on another server".to_owned()));
            }
            next = Some(link.clone());
        }
    }
    Err(Error::BadAnswer {
        address: client.address(&path),
        problem: format!("more than {PAGES} pages"),
    })
}

/// A JSON answer with its address, and the address of the next page.
fn json(
    client: &Client,
    address: &str,
    watch: &mut dyn Watch,
) -> Result<(Value, String, Option<String>)> {
    let mut failures = 0;
    loop {
        let answer = client.get(address, &[], watch)?;
        let shown = answer.address.clone();
        let next = answer.header("link").and_then(next_page);
        let bad = |problem: String| Error::BadAnswer { address: shown.clone(), problem };
        let mut body = Vec::new();
        if let Err(error) = answer.into_reader().take(ANSWER_BYTES + 1).read_to_end(&mut body) {
            failures += 1;
            client.pause(crate::client::broken(&shown, &error), failures, watch)?;
            continue;
        }
        if body.len() as u64 > ANSWER_BYTES {
            return Err(bad(format!("more than {ANSWER_BYTES} bytes")));
        }
        if fsio::json_shape(&body).memory > fsio::limits::JSON_MEMORY {
            return Err(bad("too many values".to_owned()));
        }
        let value = serde_json::from_slice(&body).map_err(|e| bad(format!("not JSON: {e}")))?;
        return Ok((value, shown, next));
    }
}

/// The address with `rel="next"` in a `Link` header.
fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (address, parameters) = part.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| matches!(parameter.trim(), "rel=\"next\"" | "rel=next");
        parameters.split(';').any(is_next).then(|| address.to_owned())
    })
}

/// A file of the listing; `None` for a directory.
fn file(entry: &Value) -> std::result::Result<Option<RemoteFile>, String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let path = text(entry, "path").ok_or("an entry without `path`")?;
    match text(entry, "type").as_deref() {
        Some("directory") => return Ok(None),
        Some("file") => {}
        other => return Err(format!("`{}` has the type `{other:?}`", path.escape_debug())),
    }
    let of_lfs = entry.get("lfs").filter(|lfs| !lfs.is_null());
    let size = of_lfs.unwrap_or(entry).get("size").and_then(Value::as_u64);
    let size = size.ok_or_else(|| format!("`{}` has no size", path.escape_debug()))?;
    let oid = text(of_lfs.unwrap_or(entry), "oid").unwrap_or_default();
    let expected = match of_lfs {
        Some(_) if is_hex(&oid, 64) => Expected::Sha256(oid),
        None if is_hex(&oid, 40) => Expected::GitBlob(oid),
        Some(_) | None => return Err(format!("`{}` has no hash", path.escape_debug())),
    };
    Ok(Some(RemoteFile { path, size, expected }))
}

/// Checks that every name can be a file below one directory, that no two collide, and sorts them.
fn check_names(mut files: Vec<RemoteFile>) -> Result<Vec<RemoteFile>> {
    let bad =
        |name: &str, problem| Error::BadName { name: name.chars().take(300).collect(), problem };
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut paths = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for file in &files {
        let path = file.path.as_str();
        if let Some(problem) = name_problem(path) {
            return Err(bad(path, problem));
        }
        if !paths.insert(path) {
            return Err(bad(path, "two files have it"));
        }
        directories.extend(path.match_indices('/').filter_map(|(at, _)| path.get(..at)));
    }
    if let Some(both) = paths.intersection(&directories).next() {
        return Err(bad(both, "it is a file and a directory"));
    }
    Ok(files)
}

fn name_problem(path: &str) -> Option<&'static str> {
    if path == RECORD_FILE {
        return Some("it is the name of the record that `temper get` writes");
    }
    if path.split('/').count() > DEPTH {
        return Some("it has too many directories");
    }
    let is_bad = |part: &str| fsio::basename_only(part).is_err();
    path.split('/').any(is_bad).then_some("it would leave the directory, or is no file name")
}

/// Whether a text is lower-case hex of a length.
pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> RemoteFile {
        RemoteFile { path: path.to_owned(), size: 1, expected: Expected::GitBlob("0".repeat(40)) }
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(256);
        let deep = vec!["d"; 40].join("/");
        let hostile = [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/./b",
            "a//b",
            "a/",
            "..",
            ".",
            "a\\b",
            "C:\\x",
            "a\0b",
            "a\nb",
            "a\u{1b}[2Jb",
            RECORD_FILE,
            &long,
            &deep,
        ];
        for path in hostile {
            assert!(check_names(vec![named(path)]).is_err(), "{path:?}");
        }
        for pair in [["a", "a"], ["a", "a/b"]] {
            assert!(check_names(pair.map(named).to_vec()).is_err(), "{pair:?}");
        }
        let fine = [
            "data/train-00000-of-00001.parquet",
            "a b.json",
            ".gitattributes",
            "é.json",
            "a..b",
            "a.json/b",
        ];
        assert!(check_names(fine.map(named).to_vec()).is_ok());
    }

    #[test]
    fn the_next_page_is_in_the_link() {
        let link = "<https://x/a?cursor=1>; rel=\"prev\", <https://x/a?cursor=2>; rel=\"next\"";
        assert_eq!(next_page(link).as_deref(), Some("https://x/a?cursor=2"));
        assert_eq!(next_page("<https://x/a>; rel=\"last\""), None);
    }
}
