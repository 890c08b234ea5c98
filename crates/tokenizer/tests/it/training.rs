//! Training of tokenizers: the reference merges, determinism, round trips.

use std::collections::BTreeMap;

use tokenizer::{Tokenizer, default_special_tokens};

use crate::support;

fn specials(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// All 243 merges and all 500 ids, including ties.
#[test]
fn bpe_training_gives_the_reference_merges() {
    let Some(corpus) = support::text("tokenizers/bpe-train-reference/corpus.en") else { return };
    let merges = support::text("tokenizers/bpe-train-reference/merges.txt").expect("next to it");
    let vocab = support::text("tokenizers/bpe-train-reference/vocab.json").expect("next to it");
    let vocab: BTreeMap<String, u32> = serde_json::from_str(&vocab).expect("a vocabulary");

    let tokenizer =
        Tokenizer::train_byte_bpe(std::iter::once(corpus), 500, &specials(&["<|endoftext|>"]))
            .expect("trains");
    let files = tokenizer.files().expect("files");
    let json: serde_json::Value = serde_json::from_slice(&files[0].1).expect("JSON");
    let ours: Vec<String> = json["model"]["merges"]
        .as_array()
        .expect("merges")
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect();
    let theirs: Vec<&str> = merges.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(theirs.len(), 243);
    assert_eq!(ours, theirs);
    for (token, id) in vocab {
        assert_eq!(tokenizer.token_id(&token), Some(id), "{token}");
    }
}

#[test]
fn a_character_tokenizer_has_all_characters_and_an_unknown_token() {
    let text = "To be,\nor not  to be: 再见 🙂\t!";
    let tokenizer =
        Tokenizer::train_char(std::iter::once(text.to_owned()), &default_special_tokens())
            .expect("trains");
    let ids = tokenizer.encode_plain(text).expect("encodes");
    assert_eq!(ids.len(), text.chars().count());
    assert_eq!(tokenizer.decode(&ids, false), text);
    assert_eq!(tokenizer.token_text(tokenizer.unk().expect("unk")).as_deref(), Some("<|unk|>"));
    let unknown = tokenizer.encode_plain("zz").expect("encodes");
    assert_eq!(unknown, [tokenizer.unk().expect("unk"); 2]);
}

/// The tokenizer.json of training on `n` threads.
fn trained(n: usize, texts: Vec<String>) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool");
    let specials = default_special_tokens();
    let tokenizer = pool
        .install(|| Tokenizer::train_byte_bpe(texts.into_iter(), 600, &specials))
        .expect("trains");
    tokenizer.files().expect("files").swap_remove(0).1
}

/// Texts in which many pairs have equal counts.
fn ties() -> Vec<String> {
    let letters: Vec<char> = "abcdefghijklmnopqrstuvwxyzäöü你好🙂".chars().collect();
    let mut texts = Vec::new();
    for (i, a) in letters.iter().enumerate() {
        for b in letters.iter().skip(i % 3).step_by(2) {
            texts.push(format!("{a}{b}{a} {b}{b}{a}{a}{a} <|endoftext|>{a}{b}"));
        }
    }
    texts
}

#[test]
fn training_depends_on_the_texts_alone() {
    let one = trained(1, ties());
    assert_eq!(one, trained(1, ties()));
    assert_eq!(one, trained(2, ties()));
    assert_eq!(one, trained(5, ties()));
    let mut backwards = ties();
    backwards.reverse();
    assert_eq!(one, trained(2, backwards));
}

#[test]
fn special_tokens_in_the_texts_are_skipped() {
    let texts = || std::iter::repeat_n("<|im_start|>hello<|im_end|>".to_owned(), 50);
    let specials = default_special_tokens();
    let tokenizer = Tokenizer::train_byte_bpe(texts(), 300, &specials).expect("trains");
    assert_eq!(tokenizer.encode_plain("hello").expect("ids").len(), 1);
    for id in 0..tokenizer.vocab_size() as u32 {
        let piece = tokenizer.token_text(id).expect("dense ids");
        assert!(!piece.contains("im_") || tokenizer.is_special(id), "{piece}");
    }
    let character = Tokenizer::train_char(texts(), &specials).expect("trains");
    // Four special tokens, one for unknown characters, and h, e, l, o.
    assert_eq!(character.vocab_size(), 9);
}

#[test]
fn small_texts_give_fewer_tokens_and_long_words_are_split() {
    let specials = default_special_tokens();
    let small = Tokenizer::train_byte_bpe(std::iter::once("ab".to_owned()), 5000, &specials);
    assert_eq!(small.expect("trains").vocab_size(), 260);
    let long = std::iter::once("ab".repeat(200_000));
    let tokenizer = Tokenizer::train_byte_bpe(long, 300, &specials).expect("trains");
    assert!(tokenizer.vocab_size() > 265);
}

#[test]
fn invalid_settings_and_empty_texts_are_refused() {
    let texts = || std::iter::once("hello".to_owned());
    let error = |vocab_size, list: &[&str]| {
        let error = Tokenizer::train_byte_bpe(texts(), vocab_size, &specials(list));
        let error = error.expect_err("refused");
        assert!(error.hint().is_some());
        error.to_string()
    };
    assert_eq!(
        error(256, &["<|endoftext|>"]),
        "cannot train a tokenizer: `vocab_size` is `256`, but bytes and special tokens need 257"
    );
    assert_eq!(
        error(300, &["<|pad|>"]),
        "cannot train a tokenizer: no end-of-text token among the special tokens"
    );
    assert_eq!(
        error(300, &["<|endoftext|>", "<|endoftext|>"]),
        "cannot train a tokenizer: special token `<|endoftext|>` is listed twice"
    );
    assert_eq!(
        error(300, &["<|endoftext|>", "x"]),
        "cannot train a tokenizer: special token `x` has fewer than two characters"
    );
    assert_eq!(
        Tokenizer::train_char(std::iter::empty(), &default_special_tokens())
            .expect_err("refused")
            .to_string(),
        "cannot train a tokenizer: the texts are empty"
    );
}
