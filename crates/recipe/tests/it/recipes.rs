//! The committed recipes are valid, and a mistake in any key is refused.

use crate::{committed, shown};

#[test]
fn every_committed_recipe_is_right_and_named_after_its_file() {
    for (path, _) in committed() {
        let loaded = recipe::load(&path, &[]).unwrap_or_else(|error| panic!("{}", shown(&error)));
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(loaded.name, stem);
        assert!(!loaded.recipe.stages().is_empty());
    }
}

#[test]
fn shakespeare_char_is_nanogpt_s_cpu_run() {
    let (path, _) =
        committed().into_iter().find(|(path, _)| path.ends_with("shakespeare-char.toml")).unwrap();
    let recipe = recipe::load(&path, &[]).unwrap().recipe;
    let config = recipe.model.as_ref().unwrap().config_json(65, 64).unwrap();
    let expected =
        [("n_layer", 4), ("n_head", 4), ("n_embd", 128), ("n_positions", 64), ("vocab_size", 65)];
    for (key, value) in expected {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(config["bias"], false);
    assert_eq!(config["tie_word_embeddings"], true);
    let pretrain = recipe.pretrain.as_ref().unwrap();
    assert_eq!(pretrain.packing, recipe::Packing::Stream);
    assert_eq!(pretrain.input.rows_per_step(), 12);
    assert_eq!(pretrain.train.max_steps, Some(2000));
    let keys = recipe::AdamwKeys { betas: [0.9, 0.99], ..Default::default() };
    assert_eq!(pretrain.train.optimizer.kind, recipe::OptimizerKind::AdamW(keys));
    let eval = pretrain.train.eval.as_ref().unwrap();
    assert_eq!((eval.holdout, eval.by), (Some(0.1), recipe::SplitBy::Position));
}

/// A wrong letter in any key of any recipe is refused, with the location of the key.
#[test]
fn a_recipe_with_one_letter_of_one_key_changed_is_refused() {
    let mut n_slips = 0;
    for (path, text) in committed() {
        for (line_idx, line) in text.lines().enumerate() {
            for (start, end) in keys(line).into_iter().filter(|(a, b)| !is_column(&line[*a..*b])) {
                for at in start..end {
                    let line_start: usize =
                        text.lines().take(line_idx).map(|line| line.len() + 1).sum();
                    let mut changed = text.clone().into_bytes();
                    let letter = &mut changed[line_start + at];
                    *letter = if *letter == b'q' { b'z' } else { b'q' };
                    let name = &line[start..end];
                    let error = recipe::parse(&changed, &path, &[]).expect_err(&format!(
                        "{}: `{name}` with letter {at} changed",
                        path.display()
                    ));
                    let place = error.location().map(ToString::to_string).unwrap_or_default();
                    let column = line[..start].chars().count() + 1;
                    let expected = format!("{}:{}:{column}", path.display(), line_idx + 1);
                    assert_eq!(place, expected, "{}", shown(&error));
                    n_slips += 1;
                }
            }
        }
    }
    assert!(n_slips > 1000, "only {n_slips} slips were tried");
}

/// Columns that recipes choose rows by: their names depend on the data, and are checked when it is read.
fn is_column(name: &str) -> bool {
    ["emotions", "rating"].contains(&name)
}

/// The byte ranges of the keys in a line: words before `=`, and the names of a section's header.
fn keys(line: &str) -> Vec<(usize, usize)> {
    let code = line.split('#').next().unwrap_or_default();
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut ranges = Vec::new();
    if code.starts_with('[') {
        let mut at = 0;
        for part in code.split(['[', ']', '.']) {
            if !part.trim().is_empty() {
                ranges.push((at, at + part.len()));
            }
            at += part.len() + 1;
        }
        return ranges;
    }
    for (equals, _) in code.match_indices(" = ") {
        let start = code[..equals].rfind(|c| !is_key(c)).map_or(0, |at| at + 1);
        ranges.push((start, equals));
    }
    ranges
}
