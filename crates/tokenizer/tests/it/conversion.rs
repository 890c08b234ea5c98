//! Tokenizers without a tokenizer.json: sentencepiece, vocab.json with merges.txt, vocab.txt; and settings of added
//! tokens in tokenizer_config.json.
//!
//! The expected ids in tests/golden/tokenizers/sentencepiece.json are those of sentencepiece itself, and of transformers
//! 5.23 where it differs (`bpe_transformers`).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use crate::support::{self, directory};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers").join(name)
}

/// Compares the ids of a model with the expected ones. With `lossless`, decoding must return the text.
fn check_ids(name: &str, tokenizer: &Tokenizer, lossless: bool) {
    let cases: Value =
        serde_json::from_slice(&std::fs::read(golden("sentencepiece.json")).expect("cases"))
            .expect("JSON");
    let cases = cases[name].as_array().expect("cases");
    assert!(cases.len() >= 10);
    for case in cases {
        let text = case[0].as_str().expect("a text");
        let expected: Vec<u32> = serde_json::from_value(case[1].clone()).expect("ids");
        let ids = tokenizer.encode_plain(text).expect("ids");
        assert_eq!(ids, expected, "{name}: {text:?}");
        if lossless {
            assert_eq!(tokenizer.decode(&ids, false), text.replace('▁', " "), "{name}");
        }
    }
}

#[test]
fn ids_of_sentencepiece_bpe() {
    let open = |legacy: bool| {
        let config = json!({
            "tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": true,
        });
        let dir = directory(&[("tokenizer_config.json", config.to_string())]);
        std::fs::copy(golden("bpe.model"), dir.path().join("tokenizer.model")).expect("copied");
        Tokenizer::from_dir_or_file(dir.path()).expect("loads")
    };
    check_ids("bpe", &open(true), true);
    // In its newer form the class writes no further mark before a space, unlike sentencepiece.
    let tokenizer = open(false);
    check_ids("bpe_transformers", &tokenizer, false);
    // Special tokens are in the text, and the flag adds bos.
    let bos = tokenizer.bos().expect("bos");
    assert_eq!(
        (tokenizer.token_text(bos).as_deref(), tokenizer.prefix_ids()),
        (Some("<s>"), vec![bos])
    );
    let ids = tokenizer.encode_plain("a<|im_end|>b</s>").expect("ids");
    let tokens: Vec<_> = ids.iter().filter_map(|id| tokenizer.token_text(*id)).collect();
    assert_eq!(tokens, ["▁a", "<|im_end|>", "b", "</s>"]);
    assert!(!tokenizer.is_special(tokenizer.token_id("<|im_end|>").expect("an id")));
    // The saved form is a tokenizer.json with the same ids.
    let saved: Vec<(String, String)> = tokenizer
        .files()
        .expect("files")
        .into_iter()
        .map(|(name, bytes)| (name, String::from_utf8(bytes).expect("UTF-8")))
        .collect();
    let saved: Vec<(&str, &String)> =
        saved.iter().map(|(name, text)| (name.as_str(), text)).collect();
    let again = Tokenizer::from_dir_or_file(directory(&saved).path()).expect("loads");
    check_ids("bpe_transformers", &again, false);
    assert_eq!(again.prefix_ids(), [bos]);
}

#[test]
fn ids_of_sentencepiece_unigram() {
    let tokenizer = Tokenizer::from_dir_or_file(golden("unigram.model")).expect("loads");
    check_ids("unigram", &tokenizer, false);
    assert_eq!((tokenizer.unk(), tokenizer.eos(), tokenizer.pad()), (Some(0), Some(2), Some(3)));
    for name in ["m", "test_model"] {
        let path = format!("tokenizers/sentencepiece/{name}.model");
        let Some(path) = support::data(&path) else { return };
        check_ids(name, &Tokenizer::from_dir_or_file(path).expect("loads"), false);
    }
}

#[test]
fn damaged_models_are_refused() {
    let model = std::fs::read(golden("bpe.model")).expect("a model");
    let refused = |bytes: &[u8]| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.model");
        fsio::write_atomic(&path, bytes).expect("written");
        let error = Tokenizer::from_dir_or_file(&path).err();
        error.map(|error| error.to_string().replace(&path.display().to_string(), "x.model"))
    };
    assert_eq!(refused(b"[]").as_deref(), Some("x.model: not a sentencepiece model"));
    assert_eq!(refused(b"").as_deref(), Some("x.model: not a sentencepiece model"));
    let tiktoken = "x.model: no token for the byte `0x00`";
    assert_eq!(refused(b"IQ== 0\nIg== 1\n").as_deref(), Some(tiktoken));
    // Truncated anywhere, the file is refused or a smaller model, but never a panic.
    for length in (0..model.len()).step_by(97) {
        let _ = refused(&model[..length]);
    }
    for at in (0..model.len()).step_by(61) {
        let mut damaged = model.clone();
        damaged[at] ^= 0x55;
        let _ = refused(&damaged);
    }
}

/// A BPE model of sentencepiece with these pieces.
fn sentencepiece_bpe(pieces: &[String]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length > 0x7f {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    };
    let mut model: Vec<u8> =
        pieces.iter().flat_map(|piece| field(1, &field(1, piece.as_bytes()))).collect();
    // Its trainer's kind of model, BPE.
    model.extend(field(2, &[3 << 3, 2]));
    model
}

/// Files without merges, which are found by trying every way to build a token: 500 kB of `a`, `aa`, `aaa`, … had a gigabyte of
/// them, and one token of 300 kB took ten seconds.
#[test]
fn tokens_with_too_many_merges_are_refused() {
    let refused = |name: &str, bytes: &[u8]| {
        let dir = directory(&[("tokenizer_config.json", r#"{"pat_str": "a+"}"#)]);
        fsio::write_atomic(dir.path().join(name), bytes).expect("written");
        Tokenizer::from_dir_or_file(dir.path()).expect_err("refused").to_string()
    };
    let pieces: Vec<String> = (0..1000).map(|n| "a".repeat(n + 1)).collect();
    let error = refused("tokenizer.model", &sentencepiece_bpe(&pieces));
    assert!(error.contains("too many ways to build its tokens"), "{error}");
    let error = refused("tokenizer.model", &sentencepiece_bpe(&["a".repeat(300_000)]));
    assert!(error.contains("a token of 300000 bytes"), "{error}");

    let bytes = (0..=u8::MAX).map(|byte| vec![byte]);
    let tokens = bytes.chain((2..1000).map(|n| vec![0xff; n]));
    let lines = tokens.enumerate().map(|(rank, token)| {
        format!("{} {rank}\n", base64::prelude::BASE64_STANDARD.encode(token))
    });
    let error = refused("x.tiktoken", lines.collect::<String>().as_bytes());
    assert!(error.contains("too many ways to build its tokens"), "{error}");
}

/// They are counted before anything is built of them, which would take a kilobyte each.
#[test]
fn files_with_too_many_entries_are_refused() {
    let lines = "a\n".repeat(1_000_001);
    let error = |files: &[(&str, &str)]| {
        Tokenizer::from_dir_or_file(directory(files).path()).expect_err("refused").to_string()
    };
    let limit = "1000001 entries, more than the limit of 1000000";
    let words = error(&[("vocab.txt", &lines)]);
    assert!(words.ends_with(&format!("vocab.txt: {limit}")), "{words}");
    let vocab = "{\"a\": 0, \"b\": 1, \"ab\": 2}";
    let pairs = error(&[("vocab.json", vocab), ("merges.txt", &lines)]);
    assert!(pairs.ends_with(&format!("merges.txt: {limit}")), "{pairs}");
    let many: Vec<String> = (0..1_000_001).map(|id| format!("\"{id}\":{id}")).collect();
    let many = format!("{{{}}}", many.join(","));
    let tokens = error(&[("vocab.json", &many), ("merges.txt", "a b\n")]);
    assert!(tokens.ends_with(&format!("vocab.json: {limit}")), "{tokens}");
    let ranks = error(&[("x.tiktoken", &lines)]);
    assert!(ranks.ends_with(&format!("x.tiktoken: {limit}")), "{ranks}");
    let pieces = error(&[("tokenizer.model", &"\n\u{3}\n\u{1}a".repeat(1_000_001))]);
    assert!(pieces.ends_with(&format!("tokenizer.model: {limit}")), "{pieces}");
    for (merges, reason) in [
        ("a b\na zz\n", "merges.txt: line 2: `zz` is not a token of vocab.json"),
        ("a b c\n", "merges.txt: line 1: `a b c` is not two tokens"),
        ("\n#version: 0.2\nab\n", "merges.txt: line 3: `ab` is not two tokens"),
        ("b a\n", "merges.txt: line 1: `ba` is not a token of vocab.json"),
    ] {
        let said = error(&[("vocab.json", vocab), ("merges.txt", merges)]);
        assert!(said.ends_with(reason), "{said}");
    }
}

/// vocab.json and merges.txt of a trained tokenizer.
fn two_files(tokenizer: &Tokenizer) -> [(&'static str, String); 2] {
    let files = tokenizer.files().expect("files");
    let (_, json) = files.iter().find(|(name, _)| name == "tokenizer.json").expect("one");
    let json: Value = serde_json::from_slice(json).expect("JSON");
    let merges = json["model"]["merges"].as_array().expect("merges").iter().map(|merge| {
        let part = |at: usize| merge[at].as_str().expect("a part").to_owned();
        format!("{} {}\n", part(0), part(1))
    });
    let merges = std::iter::once("#version: 0.2\n".to_owned()).chain(merges).collect();
    [("vocab.json", json["model"]["vocab"].to_string()), ("merges.txt", merges)]
}

#[test]
fn vocabulary_and_merges_are_a_byte_level_tokenizer() {
    let corpus = "the cat sat on the mat, and the hat isn't the cat's. ".repeat(20);
    let specials = vec!["<|endoftext|>".to_owned()];
    let trained =
        Tokenizer::train_byte_bpe(std::iter::once(corpus), 300, &specials).expect("trains");
    let [vocab, merges] = two_files(&trained);
    let open = |class: &str| {
        let config = ("tokenizer_config.json", format!("{{\"tokenizer_class\": \"{class}\"}}"));
        Tokenizer::from_dir_or_file(directory(&[vocab.clone(), merges.clone(), config]).path())
    };
    let texts = ["the cat's hat  isn't", " on\n\nthe mat <|endoftext|> ü"];
    let gpt2 = open("GPT2TokenizerFast").expect("loads");
    for text in texts {
        let ids = trained.encode_plain(text).expect("ids");
        assert_eq!(gpt2.encode(text).expect("ids"), ids, "{text:?}");
        assert_eq!(gpt2.decode(&ids, false), text);
    }
    assert_eq!((gpt2.bos(), gpt2.eos(), gpt2.unk()), (Some(0), Some(0), Some(0)));
    // Qwen2 normalizes characters and has no bos.
    let qwen2 = open("Qwen2Tokenizer").expect("loads");
    assert_eq!((qwen2.bos(), qwen2.eos(), qwen2.pad()), (None, Some(0), Some(0)));
    let (composed, decomposed) = ("\u{fc}", "u\u{308}");
    assert_eq!(
        qwen2.encode(decomposed).expect("ids"),
        trained.encode_plain(composed).expect("ids")
    );
    assert_ne!(gpt2.encode(decomposed).expect("ids"), gpt2.encode(composed).expect("ids"));
    let error = open("RobertaTokenizer").expect_err("refused");
    assert!(
        error.to_string().ends_with("no conversion for the tokenizer class `RobertaTokenizer`")
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("save_pretrained")));
}

/// The ids of vocab.txt equal those of the published tokenizer.json.
#[test]
fn words_of_bert() {
    let Some(published) = support::text("tokenizers/bert-base-uncased/tokenizer.json") else {
        return;
    };
    let json: Value = serde_json::from_str(&published).expect("JSON");
    let vocab = json["model"]["vocab"].as_object().expect("a vocabulary");
    let mut tokens: Vec<(u64, &str)> =
        vocab.iter().map(|(token, id)| (id.as_u64().expect("an id"), token.as_str())).collect();
    tokens.sort_unstable();
    let tokens: Vec<&str> = tokens.iter().map(|(_, token)| *token).collect();
    let text = tokens.join("\n");
    let converted =
        Tokenizer::from_dir_or_file(directory(&[("vocab.txt", text)]).path()).expect("loads");
    let published = crate::published::load("bert-base-uncased").expect("loads");
    for text in ["Hello, Wörld! 你好", "unaffable [MASK] tokens'", "  a\tb\n"] {
        assert_eq!(
            converted.encode(text).expect("ids"),
            published.encode(text).expect("ids"),
            "{text:?}"
        );
    }
}

/// Settings of added tokens in tokenizer_config.json override those of tokenizer.json, as in transformers.
#[test]
fn settings_of_added_tokens_are_those_of_the_config() {
    let characters = "abc \n".to_owned();
    let trained =
        Tokenizer::train_char(std::iter::once(characters), &tokenizer::default_special_tokens())
            .expect("trains");
    let files = trained.files().expect("files");
    let (_, json) = files.iter().find(|(name, _)| name == "tokenizer.json").expect("one");
    let json = String::from_utf8(json.clone()).expect("UTF-8");
    let tokens_of = |config: Value| {
        let files =
            [("tokenizer.json", json.clone()), ("tokenizer_config.json", config.to_string())];
        let tokenizer = Tokenizer::from_dir_or_file(directory(&files).path()).expect("loads");
        let ids = tokenizer.encode_plain("a <|im_end|> \n b").expect("ids");
        let tokens: Vec<String> = ids.iter().filter_map(|id| tokenizer.token_text(*id)).collect();
        (tokens.concat(), tokenizer.is_special(tokenizer.token_id("<|im_end|>").expect("an id")))
    };
    let plain = tokens_of(json!({}));
    assert_eq!(plain, ("a <|im_end|> \n b".to_owned(), true));
    let token = |flags: &[(&str, bool)]| {
        let mut token = json!({"content": "<|im_end|>", "special": true, "normalized": false});
        for (key, value) in flags {
            token[*key] = (*value).into();
        }
        json!({"added_tokens_decoder": {"2": token}})
    };
    assert_eq!(tokens_of(token(&[("rstrip", true)])).0, "a <|im_end|>b");
    assert_eq!(tokens_of(token(&[("lstrip", true)])).0, "a<|im_end|> \n b");
    assert!(!tokens_of(token(&[("special", false)])).1);
    // A token that the config names is special.
    let mut named = token(&[("special", false)]);
    named["eos_token"] = "<|im_end|>".into();
    assert!(tokens_of(named).1);
}

/// The ids of a tiktoken file equal those of the package tiktoken, whatever tells the pattern.
#[test]
fn ids_of_tiktoken() {
    let cases: Value =
        serde_json::from_slice(&std::fs::read(golden("tiktoken.json")).expect("cases"))
            .expect("JSON");
    let ranks = std::fs::read_to_string(golden("small.tiktoken")).expect("ranks");
    let open = |name: &str, more: &[(&str, &str)]| {
        let files: Vec<(&str, &str)> =
            std::iter::once((name, ranks.as_str())).chain(more.iter().copied()).collect();
        Tokenizer::from_dir_or_file(directory(&files).path())
    };
    let config = "tokenizer_config.json";
    let r50k = json!({"pat_str": cases["patterns"]["r50k_base"]}).to_string();
    let cl100k = json!({"pat_str": cases["patterns"]["cl100k_base"]}).to_string();
    let ways: [(&str, &str, &[(&str, &str)]); 6] = [
        ("llama3", "tokenizer.model", &[("config.json", r#"{"model_type": "llama"}"#)]),
        ("llama3", "tokenizer.model", &[("params.json", r#"{"rope_theta": 500000.0}"#)]),
        ("llama3", "x.tiktoken", &[(config, r#"{"tokenizer_class": "ChatGLM4Tokenizer"}"#)]),
        ("qwen", "qwen.tiktoken", &[(config, r#"{"tokenizer_class": "QWenTokenizer"}"#)]),
        ("r50k_base", "x.tiktoken", &[(config, &r50k)]),
        ("cl100k_base", "x.tiktoken", &[(config, &cl100k)]),
    ];
    let texts = cases["texts"].as_array().expect("texts");
    let check = |name: &str, tokenizer: &Tokenizer| {
        for (text, expected) in texts.iter().zip(cases["ids"][name].as_array().expect("ids")) {
            let text = text.as_str().expect("a text");
            let expected: Vec<u32> = serde_json::from_value(expected.clone()).expect("ids");
            let ids = tokenizer.encode_plain(text).expect("ids");
            assert_eq!(ids, expected, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids, false), text, "{name}");
        }
    };
    for (name, file, more) in ways {
        check(name, &open(file, more).unwrap_or_else(|error| panic!("{name}: {error}")));
    }
    // OpenAI's encodings are known by the names of their files. Their special tokens have fixed ids,
    // so the small ranks get others here.
    let own = r#"{"added_tokens_decoder": {"1000": {"content": "<|endoftext|>"}}}"#;
    for name in ["cl100k_base", "o200k_base"] {
        let tokenizer = open(&format!("{name}.tiktoken"), &[(config, own)]).expect("loads");
        check(name, &tokenizer);
        assert_eq!(tokenizer.eos(), Some(1000));
    }
    let llama = open("tokenizer.model", &[("config.json", r#"{"model_type": "llama"}"#)]);
    let llama = llama.expect("loads");
    assert_eq!((llama.bos(), llama.eos(), llama.vocab_size()), (Some(520), Some(521), 776));
    assert_eq!(llama.encode_plain("<|eot_id|>").expect("ids"), [529]);
    assert_eq!(llama.prefix_ids(), [520]);
    // Nothing tells the pattern.
    let error = open("tokenizer.model", &[]).expect_err("refused");
    assert!(error.to_string().contains("no configuration tells the pattern"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("`pat_str`")));
    // Damaged lines are named.
    for (line, reason) in [
        ("IQ==", "line 521: not a token in base64, a space and a rank"),
        ("!!!! 600", "line 521: the token is not base64, or is empty or too long"),
        ("IQ== 600", "line 521: a token that an earlier line has as well"),
        ("ISEhISE= 5", "line 521: a second token with the rank `5`"),
        ("ISEhISE= x", "line 521: the rank is not a number"),
    ] {
        let dir = directory(&[("x.tiktoken", format!("{ranks}{line}\n"))]);
        let error = Tokenizer::from_dir_or_file(dir.path()).expect_err("refused").to_string();
        assert!(error.ends_with(reason), "{error}");
    }
    for name in ["tiktoken_invalid_base64", "tiktoken_no_space"] {
        let Some(path) = support::data(&format!("tokenizers/hostile/{name}.model")) else { return };
        assert!(Tokenizer::from_dir_or_file(path).is_err(), "{name}");
    }
}
