//! Files of a crate import each other without cycles, so that each can be read after those below it.
//!
//! A path such as `crate::batch::Batch` or `super::Row` counts as an import of the file that defines
//! the item: re-exports are followed. A module and its own children aside: a file may use the modules around it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::root;

/// Crates whose files still import each other in cycles. A crate that has none leaves this list.
const REMAINING: &[&str] = &[];

/// A path of code as segments; `*` ends a glob import.
type Segments = Vec<String>;

/// One source file of a crate.
#[derive(Debug, Default)]
struct SourceFile {
    /// Module path within the crate; empty for `lib.rs` and `main.rs`.
    module: Segments,
    /// Absolute paths that the file mentions.
    paths: Vec<Segments>,
    /// Names that the file re-exports, with the paths they stand for.
    exports: Vec<(String, Segments)>,
}

#[test]
fn files_import_each_other_without_cycles() {
    let (mut n_files, mut report) = (0, String::new());
    for (name, src) in crates() {
        let files = source_files(&src);
        n_files += files.len();
        let cycles = cycles(&files);
        match (REMAINING.contains(&name.as_str()), cycles.is_empty()) {
            (false, false) => report += &format!("{name}:\n{}\n", cycles.join("\n  and\n")),
            (true, true) => report += &format!("{name} has none: take it out of REMAINING\n"),
            (true, false) | (false, true) => {}
        }
    }
    assert!(report.is_empty(), "files that import each other in cycles:\n{report}");
    assert!(n_files > 200, "the sources were not found: {n_files} files");
}

/// Every crate of the repository with its `src`.
fn crates() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for parent in ["crates", "tools"] {
        let Ok(entries) = std::fs::read_dir(root().join(parent)) else { continue };
        for entry in entries.flatten() {
            let src = entry.path().join("src");
            if src.is_dir() {
                found.push((entry.file_name().to_string_lossy().into_owned(), src));
            }
        }
    }
    found.sort();
    found
}

fn source_files(src: &Path) -> Vec<SourceFile> {
    let mut pending = vec![(src.to_owned(), Segments::new())];
    let mut files = Vec::new();
    while let Some((dir, module)) = pending.pop() {
        let entries = std::fs::read_dir(&dir).expect("a source directory");
        for path in entries.flatten().map(|entry| entry.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
            let mut own = module.clone();
            if !["lib", "main", "mod"].contains(&stem.as_str()) {
                own.push(stem);
            }
            if path.is_dir() {
                pending.push((path, own));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                files.push(SourceFile::read(own, &text));
            }
        }
    }
    files
}

impl SourceFile {
    fn read(module: Segments, text: &str) -> Self {
        // Unit tests come last and may look at anything.
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let tokens = tokens(text);
        let mut file = Self { module, ..Self::default() };
        let declared = |words: &[String]| words[0] == "mod" && words[2] == ";";
        let children: BTreeSet<&str> = tokens
            .windows(3)
            .filter(|words| declared(words))
            .map(|words| words[1].as_str())
            .collect();
        let mut inline: Vec<(String, usize)> = Vec::new();
        let mut depth = 0;
        for (at, token) in tokens.iter().enumerate() {
            let before = |n: usize| at.checked_sub(n).and_then(|at| tokens.get(at));
            match token.as_str() {
                "{" => {
                    depth += 1;
                    if before(2).is_some_and(|word| word == "mod") {
                        inline.push((tokens[at - 1].clone(), depth));
                    }
                }
                "}" => {
                    inline.pop_if(|(_, opened)| *opened == depth);
                    depth -= 1;
                }
                // A path starts here unless it continues one.
                word if before(1).is_none_or(|word| word != "::")
                    && (["crate", "super", "self"].contains(&word) || children.contains(word)) =>
                {
                    let inner = inline.iter().map(|(name, _)| name.clone());
                    let here: Segments = file.module.iter().cloned().chain(inner).collect();
                    let mut found = Vec::new();
                    expand(&tokens, at, Vec::new(), &mut found);
                    let is_export = is_public_use(&tokens, at);
                    for (path, name) in found {
                        let Some(path) = absolute(&path, &here) else { continue };
                        if is_export {
                            file.exports.push((name, path.clone()));
                        }
                        file.paths.push(path);
                    }
                }
                _ => {}
            }
        }
        file
    }
}

/// Identifiers and the marks that paths and modules are made of; comments and literals left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if c == '"' {
            string(rest)
        } else if c == '\'' {
            char_literal(rest)
        } else if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if "{}*,;()".contains(c) {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[taken..];
    }
    tokens
}

/// Length of a raw string at the start of a text.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let n_marks = after.find(|c| c != '#')?;
    let body = after[n_marks..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(n_marks));
    let end = body.find(&close)?;
    Some(text.len() - body.len() + end + close.len())
}

/// Length of a string literal at the start of a text.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal, or of the mark that opens a lifetime.
fn char_literal(text: &str) -> usize {
    let inner = &text[1..];
    if let Some(escape) = inner.strip_prefix('\\') {
        let start = 2 + escape.chars().next().map_or(0, char::len_utf8);
        return text[start..].find('\'').map_or(1, |at| start + at + 1);
    }
    let end = 1 + inner.chars().next().map_or(0, char::len_utf8);
    if text[end..].starts_with('\'') { end + 1 } else { 1 }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Whether the path that starts at a token belongs to a `pub use` or `pub(crate) use`.
fn is_public_use(tokens: &[String], at: usize) -> bool {
    let mut before = tokens[..at].iter().rev().map(String::as_str);
    if before.next() != Some("use") {
        return false;
    }
    match before.next() {
        Some("pub") => true,
        Some(")") => before.take(4).any(|word| word == "pub"),
        _ => false,
    }
}

/// Every path of a `use` tree or expression that starts at a token, with the name it binds; returns the token after it.
fn expand(
    tokens: &[String],
    mut at: usize,
    mut path: Segments,
    found: &mut Vec<(Segments, String)>,
) -> usize {
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while let Some(token) = tokens.get(at).map(String::as_str) {
                    match token {
                        "}" => return at + 1,
                        "," => at += 1,
                        _ => at = expand(tokens, at, path.clone(), found),
                    }
                }
                return at;
            }
            Some(word) if word == "*" || is_word(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => return at.max(1) + usize::from(path.is_empty()),
        }
        if tokens.get(at).is_some_and(|token| token == "::") {
            at += 1;
            continue;
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if tokens.get(at).is_some_and(|token| token == "as") {
            name = tokens.get(at + 1).cloned().unwrap_or_default();
            at += 2;
        }
        if name == "self" {
            path.pop();
            name = path.last().cloned().unwrap_or_default();
        }
        found.push((path, name));
        return at;
    }
}

/// A path from the crate's root; none for a bare `crate`, `super`, `self` or module name.
fn absolute(path: &[String], here: &[String]) -> Option<Segments> {
    let n_up = path.iter().take_while(|word| *word == "super").count();
    let mut base = here.to_vec();
    let rest = match path.first()?.as_str() {
        "crate" => {
            base.clear();
            &path[1..]
        }
        "self" => &path[1..],
        "super" => {
            base.truncate(here.len().saturating_sub(n_up));
            &path[n_up..]
        }
        _ if path.len() == 1 => return None,
        _ => path,
    };
    base.extend(rest.iter().cloned());
    (!rest.is_empty()).then_some(base)
}

/// Groups of files that import each other, as text.
fn cycles(files: &[SourceFile]) -> Vec<String> {
    let by_module: BTreeMap<&[String], usize> =
        files.iter().enumerate().map(|(idx, file)| (file.module.as_slice(), idx)).collect();
    let mut imports = vec![BTreeSet::new(); files.len()];
    for (idx, file) in files.iter().enumerate() {
        for path in &file.paths {
            let Some(target) = defining_file(path, files, &by_module, 8) else { continue };
            // Everything may use the modules around it.
            if !file.module.starts_with(&files[target].module) {
                imports[idx].insert(target);
            }
        }
    }
    let reaches: Vec<BTreeSet<usize>> =
        (0..files.len()).map(|idx| reachable(idx, &imports)).collect();
    let mut seen = BTreeSet::new();
    let mut groups = Vec::new();
    for idx in 0..files.len() {
        if !reaches[idx].contains(&idx) || !seen.insert(idx) {
            continue;
        }
        let group: Vec<usize> =
            reaches[idx].iter().copied().filter(|other| reaches[*other].contains(&idx)).collect();
        seen.extend(&group);
        let lines: Vec<String> = group
            .iter()
            .map(|from| {
                let to = imports[*from].iter().filter(|to| group.contains(to));
                let to: Vec<String> = to.map(|to| files[*to].module.join("/")).collect();
                format!("  {} -> {}", files[*from].module.join("/"), to.join(", "))
            })
            .collect();
        groups.push(lines.join("\n"));
    }
    groups
}

/// The file that defines the item of a path; re-exports are followed at most `depth` times.
fn defining_file(
    path: &[String],
    files: &[SourceFile],
    by_module: &BTreeMap<&[String], usize>,
    depth: usize,
) -> Option<usize> {
    let (n, idx) =
        (0..=path.len()).rev().find_map(|n| by_module.get(&path[..n]).map(|idx| (n, *idx)))?;
    let Some(name) = path.get(n) else { return Some(idx) };
    let export = files[idx].exports.iter().find(|(exported, _)| exported == name);
    match export {
        Some((_, target)) if depth > 0 => {
            let target: Segments = target.iter().chain(&path[n + 1..]).cloned().collect();
            defining_file(&target, files, by_module, depth - 1)
        }
        _ => Some(idx),
    }
}

/// Files that a file imports, directly or through others.
fn reachable(from: usize, imports: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<usize> = imports[from].iter().copied().collect();
    while let Some(next) = pending.pop() {
        if seen.insert(next) {
            pending.extend(&imports[next]);
        }
    }
    seen
}

#[test]
fn a_cycle_through_a_re_export_is_found() {
    let file = |module: &[&str], text: &str| {
        SourceFile::read(module.iter().map(|word| (*word).to_owned()).collect(), text)
    };
    let files = |c: &str| {
        [
            file(&[], "mod a;\nmod b;\nmod c;\npub use a::One;\npub use c::{Three as Third, *};\n"),
            file(&["a"], "use crate::{b::Two, Nothing};\npub struct One; // crate::c::Three\n"),
            file(&["b"], "pub struct Two;\nfn f() -> super::Third { '\"' }\n"),
            file(&["c"], c),
            file(&["c", "inner"], "use super::Three;\nuse crate::c::Three as T;\n"),
        ]
    };
    let free = "mod inner;\nuse inner::X;\nconst TEXT: &str = \"crate::One\";\npub struct Three;\n";
    assert_eq!(cycles(&files(free)), Vec::<String>::new());
    let found = cycles(&files("mod inner;\npub struct Three(crate::One);\n"));
    assert_eq!(found, ["  a -> b\n  b -> c\n  c -> a"]);
    let tests = "pub struct Three;\n#[cfg(test)]\nmod tests {\n    use crate::One;\n}\n";
    assert_eq!(cycles(&files(tests)), Vec::<String>::new());
}
