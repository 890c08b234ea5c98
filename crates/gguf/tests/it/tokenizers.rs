//! Tokenizers written as metadata and read again.

use gguf::{FileType, ModelExport, TokenizerFile, TokenizerSource, Value as Metadata};
use serde_json::{Value, json};

use crate::models::byte_tokenizer;
use crate::support::file;

/// A model of one tensor whose embedding has `rows` rows.
fn write(source: &TokenizerSource, rows: usize) -> Result<Vec<u8>, gguf::Error> {
    let config = json!({
        "model_type": "llama",
        "vocab_size": rows,
        "hidden_size": 2,
        "intermediate_size": 2,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 8,
        "rms_norm_eps": 1e-5,
    });
    let tensors = [("model.embed_tokens.weight".to_owned(), vec![rows, 2])];
    let mut bytes = Vec::new();
    let export = ModelExport::new(&config, source, &tensors, FileType::F32, "test")?;
    let mut writer = export.begin(&mut bytes)?;
    writer.tensor("model.embed_tokens.weight", &vec![0.0; rows * 2])?;
    writer.finish()?;
    Ok(bytes)
}

fn plain(json: &Value) -> TokenizerSource<'_> {
    TokenizerSource {
        json,
        bos: None,
        eos: None,
        end_of_turn: None,
        pad: None,
        adds_bos: false,
        adds_eos: false,
        template: None,
    }
}

fn open(bytes: &[u8]) -> (tempfile::TempDir, TokenizerFile) {
    let (dir, path) = file(bytes);
    (dir, TokenizerFile::open(&path).unwrap())
}

fn tokenizer_json(file: &TokenizerFile) -> Value {
    serde_json::from_str(&file.tokenizer_json().unwrap().unwrap()).unwrap()
}

#[test]
fn byte_level_bpe_comes_back() {
    let mut json = byte_tokenizer();
    json["model"]["vocab"]["Āā"] = json!(258);
    json["model"]["merges"] = json!([["Ā", "ā"]]);
    let source = TokenizerSource {
        bos: Some(256),
        eos: Some(256),
        end_of_turn: Some(257),
        pad: Some(256),
        adds_bos: true,
        template: Some("{{ x }}"),
        ..plain(&json)
    };
    let (_dir, read) = open(&write(&source, 300).unwrap());
    let found = tokenizer_json(&read);
    assert_eq!(found["model"]["merges"], json["model"]["merges"]);
    let vocab = found["model"]["vocab"].as_object().unwrap();
    // Rows of the embedding without a token are left out.
    assert_eq!(vocab.len(), 259);
    assert_eq!(vocab["Āā"], json!(258));
    let added = found["added_tokens"].as_array().unwrap();
    let added: Vec<&str> = added.iter().map(|token| token["content"].as_str().unwrap()).collect();
    assert_eq!(added, ["<|endoftext|>", "<|im_end|>"]);
    assert_eq!(found["pre_tokenizer"]["type"], "ByteLevel");
    assert_eq!(found["post_processor"]["single"][0]["SpecialToken"]["id"], "<|endoftext|>");
    assert_eq!(found["post_processor"]["single"].as_array().unwrap().len(), 2);
    assert_eq!(read.chat_template().unwrap().as_deref(), Some("{{ x }}"));
    let ids = Value::Object(read.token_ids().unwrap());
    let expected = json!({ "bos_token_id": 256, "eos_token_id": [256, 257], "pad_token_id": 256 });
    assert_eq!(ids, expected);
    let config = read.config().unwrap();
    assert_eq!(config["eos_token"], "<|endoftext|>");
}

/// A sentencepiece tokenizer as a tokenizer.json of transformers.
fn sentencepiece() -> Value {
    let vocab = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "ab", "▁ab"];
    let vocab: serde_json::Map<String, Value> =
        vocab.iter().enumerate().map(|(id, text)| ((*text).to_owned(), json!(id))).collect();
    let special = |id: u32, text: &str| json!({ "id": id, "content": text, "special": true });
    json!({
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                { "type": "Prepend", "prepend": "▁" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
            ],
        },
        "pre_tokenizer": null,
        "model": {
            "type": "BPE",
            "byte_fallback": true,
            "unk_token": "<unk>",
            "vocab": vocab,
            "merges": ["a b", "▁ ab"],
        },
    })
}

#[test]
fn sentencepiece_comes_back() {
    let json = sentencepiece();
    let source = TokenizerSource { bos: Some(1), eos: Some(2), adds_bos: true, ..plain(&json) };
    let bytes = write(&source, 9).unwrap();
    let (_dir, read) = open(&bytes);
    let found = tokenizer_json(&read);
    assert_eq!(found["model"]["merges"], json!([["a", "b"], ["▁", "ab"]]));
    assert_eq!(found["model"]["vocab"], json["model"]["vocab"]);
    assert_eq!(found["model"]["byte_fallback"], json!(true));
    assert_eq!(found["normalizer"], json["normalizer"]);
    let (_dir, path) = file(&bytes);
    let metadata = gguf::GgufFile::open(&path).unwrap();
    let get = |key: &str| metadata.metadata().get(&format!("tokenizer.ggml.{key}")).cloned();
    assert_eq!(get("model"), Some(Metadata::string("llama")));
    let kinds = vec![2, 3, 3, 6, 1, 1, 1, 1, 1];
    assert_eq!(get("token_type"), Some(Metadata::Array(gguf::Array::I32(kinds))));
    let scores = vec![0.0, 0.0, 0.0, 0.0, -1e6, -1e6, -1e6, 0.0, -1.0];
    assert_eq!(get("scores"), Some(Metadata::Array(gguf::Array::F32(scores))));
    assert_eq!(get("add_space_prefix"), Some(Metadata::Bool(true)));
}

#[test]
fn tokenizers_without_a_counterpart_are_refused() {
    let refused = |key: &str, value: Value| {
        let mut json = byte_tokenizer();
        json[key] = value;
        write(&plain(&json), 300).unwrap_err().to_string()
    };
    let prefix = "cannot be written as GGUF: llama.cpp ";
    assert_eq!(
        refused("pre_tokenizer", json!({ "type": "Whitespace" })),
        format!("{prefix}has no pre-tokenizer like the one of tokenizer.json")
    );
    assert_eq!(
        refused("normalizer", json!({ "type": "Lowercase" })),
        format!("{prefix}has no normalizer like the one of tokenizer.json")
    );
    assert_eq!(
        refused("model", json!({ "type": "WordLevel", "vocab": {} })),
        format!("{prefix}reads byte-level and sentencepiece BPE; this tokenizer is another")
    );
}
