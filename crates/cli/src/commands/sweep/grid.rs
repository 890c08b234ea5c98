//! The grid of a sweep: the values of its keys, their combinations, and a name for the run of each.

use crate::failure::{Failure, Result};

/// Most runs of a sweep.
const MOST_RUNS: usize = 1000;
/// Characters of the name of a run.
const NAME_CHARS: usize = 64;
/// Characters of one value in a name.
const VALUE_CHARS: usize = 20;
/// Characters of a hash in a name.
const HASH_CHARS: usize = 6;

/// Keys with their values. A key with one value is the same in all runs.
#[derive(Debug)]
pub(super) struct Grid {
    axes: Vec<Axis>,
    fixed: Vec<(String, String)>,
}

/// A key with several values.
#[derive(Debug)]
struct Axis {
    key: String,
    /// Short name of the key, of this key alone.
    label: String,
    values: Vec<String>,
}

/// One value of each key.
#[derive(Debug, PartialEq)]
pub(super) struct Combination {
    /// Value of each axis, as written.
    pub(super) values: Vec<String>,
    /// All keys, as `--set` of `temper run` takes them.
    pub(super) set: Vec<(String, String)>,
}

impl Grid {
    /// Reads `KEY=A,B,C` of the command line.
    ///
    /// Errors: a key without a value or twice, an open bracket or quote, no key with several values, too many runs.
    pub(super) fn new(set: &[(String, String)]) -> Result<Self> {
        let mut grid = Self { axes: Vec::new(), fixed: Vec::new() };
        for (idx, (key, text)) in set.iter().enumerate() {
            if set.iter().skip(idx + 1).any(|(other, _)| other == key) {
                return Err(Failure::input(
                    format!("`{key}` is set twice"),
                    format!("list its values once: --set {key}={text},…"),
                ));
            }
            let values = split(key, text)?;
            if values.len() == 1 {
                grid.fixed.push((key.clone(), text.clone()));
            } else {
                grid.axes.push(Axis { key: key.clone(), label: String::new(), values });
            }
        }
        if grid.axes.is_empty() {
            return Err(Failure::input(
                "no key has several values",
                "list values with commas, as in `--set sft.optimizer.lr=1e-4,3e-4`; a single run is `temper run`",
            ));
        }
        let n_runs = grid.axes.iter().try_fold(1_usize, |n, axis| n.checked_mul(axis.values.len()));
        if n_runs.is_none_or(|n| n > MOST_RUNS) {
            return Err(Failure::input(
                format!("the sweep has more than {MOST_RUNS} runs"),
                "list fewer values, or sweep one key after the other",
            ));
        }
        grid.set_labels();
        Ok(grid)
    }

    /// Short names of the keys: the last part, with the section where two keys end alike.
    fn set_labels(&mut self) {
        let keys: Vec<String> = self.axes.iter().map(|axis| axis.key.clone()).collect();
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let with_section = |key: &str| match key.split_once('.') {
            Some((section, rest)) => format!("{section}.{}", last(rest)),
            None => key.to_owned(),
        };
        let is_unique = |label: &dyn Fn(&str) -> String, key: &str| {
            keys.iter().filter(|other| label(other) == label(key)).count() == 1
        };
        for axis in &mut self.axes {
            axis.label = if is_unique(&last, &axis.key) {
                last(&axis.key)
            } else if is_unique(&with_section, &axis.key) {
                with_section(&axis.key)
            } else {
                axis.key.clone()
            };
        }
    }

    /// Short names of the keys that have several values.
    pub(super) fn labels(&self) -> Vec<String> {
        self.axes.iter().map(|axis| axis.label.clone()).collect()
    }

    /// All combinations; the last key changes fastest.
    pub(super) fn combinations(&self) -> Vec<Combination> {
        let mut all: Vec<Vec<String>> = vec![Vec::new()];
        for axis in &self.axes {
            let with = |before: &Vec<String>, value: &String| {
                before.iter().cloned().chain([value.clone()]).collect()
            };
            all = all
                .iter()
                .flat_map(|before| axis.values.iter().map(move |value| with(before, value)))
                .collect();
        }
        let combination = |values: Vec<String>| {
            let keys = self.axes.iter().map(|axis| axis.key.clone());
            let set = self.fixed.iter().cloned().chain(keys.zip(values.iter().cloned())).collect();
            Combination { values, set }
        };
        all.into_iter().map(combination).collect()
    }

    /// The name of a combination's run: that of the recipe, and each key with its value.
    pub(super) fn name(&self, recipe: &str, combination: &Combination) -> String {
        let mut name = recipe.to_owned();
        for (axis, value) in self.axes.iter().zip(&combination.values) {
            name += &format!("-{}-{}", plain(&axis.label), value_in_name(value));
        }
        if name.len() <= NAME_CHARS {
            return name;
        }
        let kept: String = name.chars().take(NAME_CHARS - HASH_CHARS - 1).collect();
        format!("{}-{}", kept.trim_end_matches('-'), hash(&name))
    }
}

/// A value as part of a name. A value that is not shown as it is written has a hash, so that no two values share a name.
fn value_in_name(value: &str) -> String {
    let bare = unquoted(value);
    let shown = plain(bare);
    if shown == bare && shown.len() <= VALUE_CHARS {
        return shown;
    }
    let kept: String = shown.chars().take(VALUE_CHARS - HASH_CHARS - 1).collect();
    format!("{}-{}", kept.trim_end_matches('-'), hash(value)).trim_start_matches('-').to_owned()
}

/// A text with hyphens in place of characters that names of runs do not have.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') {
            plain.push(c);
        } else if !plain.is_empty() && !plain.ends_with('-') {
            plain.push('-');
        }
    }
    plain.trim_end_matches('-').to_owned()
}

fn hash(text: &str) -> String {
    fsio::sha256_hex(text.as_bytes()).chars().take(HASH_CHARS).collect()
}

fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// Splits values at commas outside of brackets and quotes.
fn split(key: &str, text: &str) -> Result<Vec<String>> {
    let mut values = vec![String::new()];
    let mut open = Vec::new();
    let mut is_escaped = false;
    for c in text.chars() {
        let quote = open.last().copied().filter(|c| matches!(c, '"' | '\''));
        match (c, quote) {
            (_, Some('"')) if is_escaped => is_escaped = false,
            ('\\', Some('"')) => is_escaped = true,
            (c, Some(quote)) if c == quote => drop(open.pop()),
            (_, Some(_)) => {}
            ('"' | '\'', None) => open.push(c),
            ('[' | '{', None) => open.push(c),
            (']' | '}', None) => drop(open.pop()),
            (',', None) if open.is_empty() => {
                values.push(String::new());
                continue;
            }
            (_, None) => {}
        }
        if let Some(value) = values.last_mut() {
            value.push(c);
        }
    }
    if let Some(open) = open.first() {
        return Err(Failure::input(
            format!("`--set {key}={text}`: `{open}` has no end"),
            "close the bracket or the quote; put a text with quotes in quotes of the other kind",
        ));
    }
    let values: Vec<String> = values.iter().map(|value| value.trim().to_owned()).collect();
    let twice = values.iter().enumerate().find(|(idx, value)| {
        values.iter().skip(idx + 1).any(|other| unquoted(other) == unquoted(value))
    });
    if values.len() > 1 && values.iter().any(String::is_empty) {
        return Err(Failure::input(
            format!("`--set {key}={text}`: a value is empty"),
            "write one comma between two values, and none at the end",
        ));
    }
    match twice {
        Some((_, value)) => Err(Failure::input(
            format!("`--set {key}={text}`: `{value}` is listed twice"),
            "list each value once",
        )),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::{Combination, Grid, NAME_CHARS, split};

    fn grid(set: &[(&str, &str)]) -> Grid {
        let set: Vec<(String, String)> =
            set.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        Grid::new(&set).unwrap_or_else(|failure| panic!("{}", failure.text()))
    }

    fn names(grid: &Grid) -> Vec<String> {
        grid.combinations().iter().map(|of| grid.name("chats", of)).collect()
    }

    #[test]
    fn commas_in_brackets_and_quotes_do_not_split() {
        for (text, values) in [
            ("1,2", vec!["1", "2"]),
            ("1e-4, 3e-4", vec!["1e-4", "3e-4"]),
            ("[\"a\", \"b\"],[\"c\"]", vec!["[\"a\", \"b\"]", "[\"c\"]"]),
            ("{ a = [1, 2], b = \"},\" },'x,y'", vec!["{ a = [1, 2], b = \"},\" }", "'x,y'"]),
            ("\"a\\\",b\",c", vec!["\"a\\\",b\"", "c"]),
            ("", vec![""]),
        ] {
            let found = split("k", text).unwrap_or_else(|failure| panic!("{}", failure.text()));
            assert_eq!(found, values, "{text}");
        }
        for text in ["1,,2", "1,2,", ",1", "[1,2", "\"a,b", "1,1", "\"a\",a"] {
            assert!(split("k", text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_combination_has_a_legible_name() {
        let grid =
            grid(&[("sft.optimizer.lr", "1e-4,3e-4"), ("seed", "7"), ("sft.lora.rank", "8,16")]);
        assert_eq!(grid.labels(), ["lr", "rank"]);
        assert_eq!(
            names(&grid),
            [
                "chats-lr-1e-4-rank-8",
                "chats-lr-1e-4-rank-16",
                "chats-lr-3e-4-rank-8",
                "chats-lr-3e-4-rank-16"
            ]
        );
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            grid.combinations().first(),
            Some(&Combination {
                values: vec!["1e-4".to_owned(), "8".to_owned()],
                set: vec![
                    pair("seed", "7"),
                    pair("sft.optimizer.lr", "1e-4"),
                    pair("sft.lora.rank", "8")
                ],
            })
        );
    }

    #[test]
    fn names_are_short_and_differ() {
        let long = format!("\"{0}/a\",\"{0}/b\"", "x".repeat(200));
        let grid = grid(&[
            ("sft.optimizer.lr", "1e-4,3e-4"),
            ("reward.optimizer.lr", "1e-5,-1"),
            ("sft.lora.target_modules", "[\"q_proj\"],[\"q_proj\", \"v_proj\"]"),
            ("sft.data[0].path", &long),
        ]);
        assert_eq!(grid.labels(), ["sft.lr", "reward.lr", "target_modules", "path"]);
        let mut names = names(&grid);
        for name in &names {
            assert!(recipe::run_name(name).is_ok() && name.len() <= NAME_CHARS, "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 16);
    }

    #[test]
    fn a_sweep_has_a_few_runs() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> =
                set.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            Grid::new(&set).map(|_| ()).map_err(|failure| failure.text())
        };
        let many = (0..40).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        for (set, part) in [
            (&[][..], "no key has several values"),
            (&[("a", "1")], "no key has several values"),
            (&[("a", "1"), ("a", "2")], "`a` is set twice"),
            (&[("a", &many), ("b", &many)], "more than 1000 runs"),
        ] {
            let error = of(set).expect_err("refused");
            assert!(error.contains(part), "{error}");
        }
    }
}
