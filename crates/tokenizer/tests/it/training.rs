//! Training of tokenizers: the reference merges, determinism, round trips. No chats.

use std::collections::BTreeMap;

use tokenizer::{Tokenizer, default_special_tokens};

use crate::support;

fn specials(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// All 243 merges and all 500 ids, ties included.
#[test]
fn bpe_training_gives_the_reference_merges() {
    let Some(corpus) = support::text("tokenizers/bpe-train-reference/corpus.en") else { return };
    let merges = support::text("tokenizers/bpe-train-reference/merges.txt").expect("beside it");
    let vocab = support::text("tokenizers/bpe-train-reference/vocab.json").expect("beside it");
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
fn a_character_tokenizer_has_every_character_and_one_for_the_others() {
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
