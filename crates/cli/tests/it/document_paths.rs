//! Every path that the documentation names exists.

use std::path::Path;

use crate::support::root;

/// Pages that name files and directories of the repository.
const PAGES: &[&str] = &["ARCHITECTURE.md", "CONTRIBUTING.md"];

#[test]
fn every_path_that_a_page_names_exists() {
    let root = root();
    let (mut n_paths, mut missing) = (0, Vec::new());
    for page in PAGES {
        // CONTRIBUTING.md may not exist yet.
        let Ok(text) = std::fs::read_to_string(root.join(page)) else { continue };
        for named in code_spans(&text).chain(links(&text)) {
            let Some(path) = repository_path(&root, named) else { continue };
            n_paths += 1;
            if !root.join(&path).exists() && !root.join("crates").join(&path).exists() {
                missing.push(format!("{page}: `{named}`"));
            }
        }
    }
    assert!(missing.is_empty(), "paths that do not exist:\n{}", missing.join("\n"));
    assert!(n_paths > 30, "the paths were not found: {n_paths}");
}

/// Text between backticks within a line.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Targets of Markdown links, without their anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?;
        (!target.contains("://")).then(|| target.split('#').next().unwrap_or_default())
    })
}

/// The part of a named path that must exist: up to a placeholder such as `<family>` or `*`. None for what is no path of
/// the repository, such as `runs/x` or `train::Bases`.
fn repository_path(root: &Path, named: &str) -> Option<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-<>*{},".contains(c);
    if named.is_empty() || !named.chars().all(is_path) {
        return None;
    }
    let segments: Vec<&str> = named.trim_end_matches('/').split('/').collect();
    let fixed: Vec<&str> =
        segments.iter().copied().take_while(|segment| !segment.contains(['<', '*', '{'])).collect();
    let first = *fixed.first()?;
    let is_file = Path::new(named).extension().is_some_and(|extension| {
        ["toml", "md", "sh", "json", "py"].iter().any(|known| extension == *known)
    });
    let in_crate = |name: &str| root.join("crates").join(name).is_dir();
    let is_ours = match fixed.get(1) {
        // A file at the top of the repository; a bare name of a source file follows its directory's.
        None => is_file && segments.len() == 1 && !NOT_OURS.contains(&first),
        Some(second) if in_crate(first) => {
            ["src", "tests", "benches", "Cargo.toml"].contains(second)
        }
        Some(_) => root.join(first).is_dir() && first != "runs",
    };
    is_ours.then(|| fixed.join("/"))
}

/// Names of files that exist in a run or a model's directory, not in the repository.
const NOT_OURS: &[&str] =
    &["config.json", "tokenizer.json", "adapter_config.json", "base.json", "settings.json"];
