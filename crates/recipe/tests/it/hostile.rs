//! No input causes a panic, a hang or a stack overflow.

use std::path::Path;

use proptest::prelude::*;

use crate::{GOOD, committed, shown};

#[test]
fn deep_nesting_is_refused_before_the_parser_runs() {
    for deep in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("a = {}1", "a.".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        format!("[[{}a]]", "a.".repeat(100_000)),
        format!("a = {}1{}", "[".repeat(33), "]".repeat(33)),
    ] {
        let error = recipe::parse(deep.as_bytes(), Path::new("deep.toml"), &[]).unwrap_err();
        assert!(matches!(error, recipe::Error::Syntax(_)), "{}", shown(&error));
    }
    let deep = "[".repeat(100_000);
    for (key, value) in
        [("seed", deep.as_str()), (&"a.".repeat(100_000), "1"), (&"[0]".repeat(1000), "1")]
    {
        let set = [(key.to_owned(), value.to_owned())];
        assert!(recipe::parse(GOOD.as_bytes(), Path::new("r.toml"), &set).is_err());
    }
}

#[test]
fn a_recipe_of_more_than_a_mebibyte_is_refused() {
    let large = format!("{GOOD}#{}", "x".repeat(1 << 20));
    let error = recipe::parse(large.as_bytes(), Path::new("large.toml"), &[]).unwrap_err();
    insta::assert_snapshot!(shown(&error), @r"
    error: large.toml: file is larger than 1048576 bytes
      hint: a recipe contains paths of data, not the data
    ");
}

#[test]
fn a_recipe_full_of_mistakes_is_refused_without_a_long_look() {
    let many = |line: fn(usize) -> String| (0..60_000).map(line).collect::<String>();
    let tokens = many(|_| "\"a\",".to_owned());
    for text in [
        format!("{GOOD}{}", many(|n| format!("k{n} = 1\n"))),
        format!("{GOOD}{}", many(|n| format!("[k{n}]\n"))),
        format!("{GOOD}{}", many(|_| "[[k]]\n".to_owned())),
        format!("seed = [{}]", many(|_| "1,".to_owned())),
        GOOD.replace("vocab_size = 512", &format!("vocab_size = 512, special_tokens = [{tokens}]")),
    ] {
        let start = std::time::Instant::now();
        assert!(recipe::parse(text.as_bytes(), Path::new("r.toml"), &[]).is_err());
        // The limit of a release build is one second; this build may be slower.
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    let error =
        recipe::parse(b"# \xc3\xa9\nname = \"\xff\"", Path::new("r.toml"), &[]).unwrap_err();
    insta::assert_snapshot!(shown(&error), @r"
    error: r.toml:2:9: the recipe is not UTF-8 text: `\xff`
      hint: save the file as UTF-8
    ");
}

#[test]
fn escape_sequences_in_keys_and_values_do_not_reach_the_terminal() {
    for line in [
        "\"\\u001b[31m\" = 1",
        "device = \"\\u001b]0;x\\u0007\"",
        "[\"a\\nb\"]",
        "name = \"\u{202e}\"",
    ] {
        let text = format!("{line}\n");
        let error = recipe::parse(text.as_bytes(), Path::new("r.toml"), &[]).unwrap_err();
        let shown = shown(&error);
        assert!(
            shown.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'),
            "{shown:?}"
        );
    }
}

/// Pieces of TOML texts.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "[",
            "]",
            "{",
            "}",
            "=",
            ".",
            ",",
            "\n",
            " ",
            "\"",
            "'",
            "\"\"\"",
            "'''",
            "#",
            "\\",
            "[[",
            "]]",
            "1",
            "-",
            "e9",
            "true",
            "inf",
            "nan",
            "1979-05-27",
            "pretrain",
            "sft",
            "model",
            "data",
            "path",
            "optimizer",
            "lr",
            "train",
            "family",
            "\"llama\"",
            "start",
            "\u{feff}",
            "\r\n",
            "é",
            "0x",
            "_",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = recipe::parse(&bytes, Path::new("r.toml"), &[]).map_err(|error| shown(&error));
    }

    #[test]
    fn any_pieces_of_toml_are_taken_or_refused(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        let _ = recipe::parse(text.as_bytes(), Path::new("r.toml"), &[]).map_err(|error| shown(&error));
    }

    #[test]
    fn a_damaged_recipe_is_taken_or_refused(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), cut in 0usize..40, put in prop::collection::vec(piece(), 0..4)) {
        let recipes = committed();
        let (path, text) = which.get(&recipes);
        let mut bytes = text.clone().into_bytes();
        let start = at.index(bytes.len());
        let end = (start + cut).min(bytes.len());
        bytes.splice(start..end, put.concat().into_bytes());
        let _ = recipe::parse(&bytes, path, &[]).map_err(|error| shown(&error));
    }

    #[test]
    fn any_override_is_taken_or_refused(key in prop::collection::vec(piece(), 0..6), value in prop::collection::vec(piece(), 0..8)) {
        let set = [(key.concat(), value.concat())];
        let _ = recipe::parse(GOOD.as_bytes(), Path::new("r.toml"), &set).map_err(|error| shown(&error));
    }

    /// The resolved text of an accepted recipe reads back as the same recipe.
    #[test]
    fn a_resolved_recipe_reads_back(key in prop::sample::select(vec!["seed", "pretrain.max_steps", "pretrain.data[1].limit", "sft.eval.holdout", "sft.schedule.warmup_steps", "model.tie_word_embeddings", "name", "threads"]), value in piece()) {
        let set = [(key.to_owned(), value)];
        if let Ok(loaded) = recipe::parse(GOOD.as_bytes(), Path::new("r.toml"), &set) {
            let again = recipe::parse(loaded.resolved_toml.as_bytes(), Path::new("r.toml"), &[]).unwrap();
            prop_assert_eq!(again.recipe, loaded.recipe);
        }
    }
}
