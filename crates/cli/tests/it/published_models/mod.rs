//! Directories like those of published models: their configuration and the shapes of their tensors, without their weights.
//!
//! The weights are sparse files, so a directory takes a few megabytes. The tokenizers have the published special tokens
//! and sizes, and otherwise one token per byte. Chat templates are shortened to what they write for plain chats.

mod list;

use std::fs::File;

use serde_json::{Map, Value, json};

use crate::support::Place;

pub(crate) use list::published;

/// A published model.
pub(crate) struct Published {
    /// Repository on the hub, `OWNER/NAME`.
    pub(crate) repository: &'static str,
    /// Number of parameters that the repository's page gives.
    pub(crate) n_parameters: u64,
    /// Its config.json.
    pub(crate) config: Value,
    /// Tensors besides those of every Llama-like model.
    extra: Extra,
    vocabulary: Vocabulary,
    chat_template: &'static str,
}

/// Differences from Llama's tensors.
#[derive(Default)]
struct Extra {
    qkv_bias: bool,
    qk_norm: bool,
    norms_after: bool,
    /// The file repeats the embedding as the output layer although both are tied.
    repeated_head: bool,
}

/// The tokens of a model.
struct Vocabulary {
    n_tokens: u64,
    /// Special tokens with their ids.
    special: &'static [(u64, &'static str)],
    eos: &'static str,
    /// Spaces are written as `▁` and bytes as `<0x0A>`, as in sentencepiece; otherwise as in GPT-2.
    sentencepiece: bool,
}

impl Published {
    /// Shapes of all tensors by name, from the published configuration.
    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let key = |name: &str| self.config[name].as_u64();
        let size = |name: &str| key(name).expect("a size in config.json");
        let (d, f, vocab) = (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
        let (heads, kv_heads) = (size("num_attention_heads"), size("num_key_value_heads"));
        let head_dim = key("head_dim").unwrap_or(d / heads);
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![vocab, d]),
            ("model.norm.weight".to_owned(), vec![d]),
        ];
        if self.extra.repeated_head || self.config["tie_word_embeddings"] == json!(false) {
            tensors.push(("lm_head.weight".to_owned(), vec![vocab, d]));
        }
        let mut block = vec![
            ("self_attn.q_proj.weight", vec![q, d]),
            ("self_attn.k_proj.weight", vec![kv, d]),
            ("self_attn.v_proj.weight", vec![kv, d]),
            ("self_attn.o_proj.weight", vec![d, q]),
            ("mlp.gate_proj.weight", vec![f, d]),
            ("mlp.up_proj.weight", vec![f, d]),
            ("mlp.down_proj.weight", vec![d, f]),
            ("input_layernorm.weight", vec![d]),
            ("post_attention_layernorm.weight", vec![d]),
        ];
        if self.extra.qkv_bias {
            block.push(("self_attn.q_proj.bias", vec![q]));
            block.push(("self_attn.k_proj.bias", vec![kv]));
            block.push(("self_attn.v_proj.bias", vec![kv]));
        }
        if self.extra.qk_norm {
            block.push(("self_attn.q_norm.weight", vec![head_dim]));
            block.push(("self_attn.k_norm.weight", vec![head_dim]));
        }
        if self.extra.norms_after {
            block.push(("pre_feedforward_layernorm.weight", vec![d]));
            block.push(("post_feedforward_layernorm.weight", vec![d]));
        }
        for layer in 0..size("num_hidden_layers") {
            for (name, shape) in &block {
                tensors.push((format!("model.layers.{layer}.{name}"), shape.clone()));
            }
        }
        tensors
    }

    /// Number of elements of all tensors in the file.
    pub(crate) fn n_stored(&self) -> u64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<u64>()).sum()
    }

    /// Number of elements that the file has twice.
    pub(crate) fn n_repeated(&self) -> u64 {
        let size = |name: &str| self.config[name].as_u64().expect("a size in config.json");
        if self.extra.repeated_head { size("vocab_size") * size("hidden_size") } else { 0 }
    }

    /// Writes the directory `models/OWNER/NAME`, where `hf:OWNER/NAME` is looked for. Without `all_tokens`, the tokenizer
    /// lacks the tokens that no text has, which makes it faster to read.
    pub(crate) fn write(&self, place: &Place, all_tokens: bool) {
        let dir = format!("models/{}", self.repository);
        let text = |value: &Value| serde_json::to_string_pretty(value).expect("JSON");
        let settings = json!({
            "eos_token": self.vocabulary.eos,
            "chat_template": self.chat_template,
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        place
            .write(&format!("{dir}/config.json"), text(&self.config))
            .write(
                &format!("{dir}/tokenizer.json"),
                self.vocabulary.tokenizer(all_tokens).to_string(),
            )
            .write(&format!("{dir}/tokenizer_config.json"), text(&settings));
        let (header, n_bytes) = header(&self.tensors());
        let name = format!("{dir}/model.safetensors");
        place.write(&name, header);
        let file = File::options().write(true).open(place.path().join(name)).expect("the file");
        file.set_len(n_bytes).expect("a sparse file");
    }
}

/// The header of a safetensors file of bf16 tensors, and the length of the whole file.
fn header(tensors: &[(String, Vec<u64>)]) -> (Vec<u8>, u64) {
    let (mut entries, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        entries.insert(name.clone(), entry);
    }
    let mut text = Value::Object(entries).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    let n_bytes = bytes.len() as u64 + end;
    (bytes, n_bytes)
}

impl Vocabulary {
    /// A tokenizer.json of the special tokens, one token per byte, and with `all_tokens` others that no text has.
    fn tokenizer(&self, all_tokens: bool) -> Value {
        // Ids have to be dense: without the other tokens, the special ones follow the bytes.
        let special: Vec<(u64, &str)> = if all_tokens {
            self.special.to_vec()
        } else {
            (256..).zip(self.special.iter().map(|(_, text)| *text)).collect()
        };
        let n_tokens = if all_tokens { self.n_tokens } else { 256 + special.len() as u64 };
        let mut bytes = (0..=255).map(|byte| self.byte(byte));
        let mut vocab = Map::new();
        for id in 0..n_tokens {
            let token = match special.iter().find(|(special, _)| *special == id) {
                Some((_, text)) => (*text).to_owned(),
                None => bytes.next().unwrap_or_else(|| format!("unused-{id}")),
            };
            vocab.insert(token, json!(id));
        }
        let added: Vec<Value> = special
            .iter()
            .map(|(id, text)| {
                json!({ "id": id, "content": text, "special": true, "normalized": false,
                        "single_word": false, "lstrip": false, "rstrip": false })
            })
            .collect();
        let steps = if self.sentencepiece {
            let spaces = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
            let decoders =
                [spaces("▁", " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
            (spaces(" ", "▁"), Value::Null, json!({ "type": "Sequence", "decoders": decoders }))
        } else {
            let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
            (Value::Null, bytes.clone(), bytes)
        };
        json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": steps.0,
            "pre_tokenizer": steps.1,
            "post_processor": null,
            "decoder": steps.2,
            "model": { "type": "BPE", "vocab": vocab, "merges": [],
                       "byte_fallback": self.sentencepiece, "fuse_unk": self.sentencepiece },
        })
    }

    /// The token of a byte.
    fn byte(&self, byte: u8) -> String {
        if self.sentencepiece {
            return format!("<0x{byte:02X}>");
        }
        let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let character = if printable(byte) {
            u32::from(byte)
        } else {
            256 + (0..byte).filter(|&earlier| !printable(earlier)).count() as u32
        };
        char::from_u32(character).expect("a character").to_string()
    }
}
