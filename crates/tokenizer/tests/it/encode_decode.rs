//! Text to ids and back: documents, batches, streams, and directories that are saved and read again.

use proptest::prelude::*;
use tokenizer::{ChatTemplate, Tokenizer, default_special_tokens};

use crate::{published, support};

const CORPUS: &str = "hello there, hello world! naïve 你好 🙂👩\u{200d}👧\n\t 0123";

fn trained() -> [Tokenizer; 2] {
    let specials = default_special_tokens();
    let texts = || std::iter::repeat_n(CORPUS.to_owned(), 3);
    [
        Tokenizer::train_byte_bpe(texts(), 300, &specials).expect("trains"),
        Tokenizer::train_char(texts(), &specials).expect("trains"),
    ]
}

/// A document is end-of-text, text, end-of-text; special tokens have the first ids.
#[test]
fn special_tokens_of_trained_tokenizers() {
    for tokenizer in trained() {
        assert_eq!(
            (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
            (Some(0), Some(0), Some(3))
        );
        assert_eq!(tokenizer.eos_ids(), [0]);
        assert_eq!(tokenizer.prefix_ids(), [0]);
        let plain = tokenizer.encode_plain("hello").expect("ids");
        assert_eq!(tokenizer.encode("hello").expect("ids"), [&[0], plain.as_slice()].concat());
        assert_eq!(tokenizer.encode("").expect("ids"), [0]);
        assert_eq!(tokenizer.encode_plain("").expect("ids"), [0u32; 0]);
        assert_eq!(tokenizer.encode_plain("<|im_start|><|pad|>").expect("ids"), [1, 3]);
        assert_eq!(tokenizer.decode(&[0, 1, 3], true), "");
        let chatml = ChatTemplate::builtin("chatml").expect("a builtin");
        assert_eq!(tokenizer.with_chat_template(chatml).eos_ids(), [0, 2]);
        // Ids beyond the vocabulary decode to an empty text: a model may have spare rows.
        assert_eq!(tokenizer.decode(&[1_000_000], false), "");
    }
}

#[test]
fn batches_keep_their_order() {
    let texts: Vec<String> =
        (0..500).map(|i| format!("hello {i} world{}", "!".repeat(i % 7))).collect();
    for tokenizer in trained() {
        let batch = tokenizer.encode_batch_plain(&texts).expect("ids");
        for (text, ids) in texts.iter().zip(batch) {
            assert_eq!(tokenizer.encode_plain(text).expect("ids"), ids);
        }
    }
}

/// Saving and reading a directory gives the same tokenizer, with the same hash and bytes.
#[test]
fn saved_directories_read_back() {
    let mut all = trained().to_vec();
    all.extend(
        ["gpt2", "phi-3-mini", "t5-small", "oasst-collator"]
            .map(published::load)
            .into_iter()
            .flatten(),
    );
    for tokenizer in all {
        let template = ChatTemplate::builtin("plain").expect("a builtin");
        for tokenizer in [tokenizer.clone(), tokenizer.with_chat_template(template)] {
            let files = tokenizer.files().expect("files");
            let texts: Vec<(&str, &str)> = files
                .iter()
                .map(|(name, bytes)| (name.as_str(), std::str::from_utf8(bytes).expect("UTF-8")))
                .collect();
            let again =
                Tokenizer::from_dir_or_file(support::directory(&texts).path()).expect("reads");
            assert_eq!(again.hash().expect("a hash"), tokenizer.hash().expect("a hash"));
            assert_eq!(again.files().expect("files"), files);
            assert_eq!(again.eos_ids(), tokenizer.eos_ids());
            assert_eq!((again.bos(), again.pad()), (tokenizer.bos(), tokenizer.pad()));
        }
    }
}

#[test]
fn the_hash_covers_everything_that_determines_ids() {
    let [bpe, character] = trained();
    let hash = |tokenizer: &Tokenizer| tokenizer.hash().expect("a hash");
    let chatml = ChatTemplate::builtin("chatml").expect("a builtin");
    let plain = ChatTemplate::builtin("plain").expect("a builtin");
    let mut hashes = vec![
        hash(&bpe),
        hash(&character),
        hash(&bpe.with_chat_template(chatml)),
        hash(&bpe.with_chat_template(plain)),
    ];
    assert_eq!(hash(&bpe), hash(&trained()[0]));
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 4);
}

/// Ids in generation_config.json, or in config.json without one, end texts too.
#[test]
fn end_ids_come_from_every_file() {
    let [bpe, _] = trained();
    let files = bpe.files().expect("files");
    let json = std::str::from_utf8(&files[0].1).expect("UTF-8");
    let load = |more: &[(&str, &str)]| {
        let dir = support::directory(&[&[("tokenizer.json", json)], more].concat());
        Tokenizer::from_dir_or_file(dir.path()).expect("reads")
    };
    assert_eq!(load(&[]).eos_ids(), [0]);
    assert_eq!(
        load(&[("generation_config.json", r#"{"eos_token_id": [2, 0, 999999]}"#)]).eos_ids(),
        [2, 0]
    );
    assert_eq!(
        load(&[("config.json", r#"{"eos_token_id": 2, "pad_token_id": 1}"#)]).eos(),
        Some(2)
    );
    let config = r#"{"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|new|>"}"#;
    let tokenizer = load(&[("tokenizer_config.json", config)]);
    assert_eq!(tokenizer.eos(), Some(2));
    // A token that is only in the config is added, as in transformers.
    assert_eq!(tokenizer.pad(), Some(bpe.vocab_size() as u32));
    assert_eq!(tokenizer.vocab_size(), bpe.vocab_size() + 1);
    // The post-processor of tokenizer.json decides on bos and eos, not the flags, as in transformers 5,
    // except that CodeLlamaTokenizer always adds bos.
    let config = r#"{"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "add_bos_token": true, "add_eos_token": true"#;
    let tokenizer = load(&[("tokenizer_config.json", &format!("{config}}}"))]);
    assert_eq!(tokenizer.encode("<|pad|>").expect("ids"), bpe.encode("<|pad|>").expect("ids"));
    let class = format!(r#"{config}, "tokenizer_class": "CodeLlamaTokenizerFast"}}"#);
    let tokenizer = load(&[("tokenizer_config.json", &class)]);
    assert_eq!(tokenizer.encode("<|pad|>").expect("ids"), [1, 3]);
    assert_eq!(tokenizer.prefix_ids(), [1]);
    let class = format!(r#"{config}, "tokenizer_class": "GPTNeoXTokenizer"}}"#);
    let tokenizer = load(&[("tokenizer_config.json", &class)]);
    assert_eq!(tokenizer.encode("<|pad|>").expect("ids"), [3]);
    // The error names the damaged file.
    let dir = support::directory(&[("tokenizer.json", json), ("tokenizer_config.json", "{")]);
    let error = Tokenizer::from_dir_or_file(dir.path()).expect_err("broken").to_string();
    assert!(error.contains("tokenizer_config.json: not valid JSON: EOF"), "{error}");
}

/// Chat template from its own file, or else from the config, where it may be a list.
#[test]
fn templates_come_from_the_directory() {
    let [bpe, _] = trained();
    let files = bpe.files().expect("files");
    let json = std::str::from_utf8(&files[0].1).expect("UTF-8");
    let source = |more: &[(&str, &str)]| {
        let dir = support::directory(&[&[("tokenizer.json", json)], more].concat());
        let tokenizer = Tokenizer::from_dir_or_file(dir.path()).expect("reads");
        tokenizer.chat_template().map(|template| template.source().to_owned())
    };
    assert_eq!(source(&[]), None);
    let one = ("tokenizer_config.json", r#"{"chat_template": "one"}"#);
    let list = (
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "x", "template": "no"}, {"name": "default", "template": "two"}]}"#,
    );
    assert_eq!(source(&[one]).as_deref(), Some("one"));
    assert_eq!(source(&[list]).as_deref(), Some("two"));
    assert_eq!(source(&[one, ("chat_template.jinja", "three")]).as_deref(), Some("three"));
}

/// The pieces of a decode stream.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.decode_stream(false);
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
    pieces.push(stream.finish());
    pieces
}

#[test]
fn streams_never_split_characters() {
    let mut all = trained().to_vec();
    all.extend(["gpt2", "phi-3-mini"].map(published::load).into_iter().flatten());
    for tokenizer in &all {
        for text in ["hello there, 你好 🙂👩\u{200d}👧 naïve\n", " x", "a  b   c", "🙂", ""]
        {
            let ids = tokenizer.encode_plain(text).expect("ids");
            let pieces = streamed(tokenizer, &ids);
            assert_eq!(pieces.concat(), tokenizer.decode(&ids, false));
            let unknown = tokenizer.unk().is_some_and(|unk| ids.contains(&unk));
            assert!(
                unknown || pieces.iter().all(|piece| !piece.contains('\u{fffd}')),
                "{pieces:?}"
            );
        }
    }
    // Random ids are not all valid UTF-8; the stream still prints what `decode` returns.
    let [bpe, _] = trained();
    let ids = prop::collection::vec(0..bpe.vocab_size() as u32, 0..40);
    proptest!(|(ids in ids)| {
        prop_assert_eq!(streamed(&bpe, &ids).concat(), bpe.decode(&ids, false));
    });
}
