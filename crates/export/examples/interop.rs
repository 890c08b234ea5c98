//! Temper's logits and completions for an exported directory, as JSON for `tests/interop/check_transformers.py`.
//!
//! `interop make DIR` exports small random models of every family and both kinds of tokenizer, each with its
//! expected.json; `interop describe DIR` writes expected.json into a directory of `temper export`. Weights are random,
//! because they show errors sooner than trained ones.

use std::error::Error;
use std::path::{Path, PathBuf};

use arch::{Dtype, Family, ModelConfig};
use export::{Options, hugging_face_with};
use model::{CausalLm, ScalarModel, load_causal_lm};
use nn::TokenBatch;
use serde_json::{Value, json};
use tokenizer::{ChatTemplate, Message, Role, Tokenizer, default_special_tokens};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TEXTS: &[&str] = &[
    "",
    " ",
    "the cat sat on the mat",
    "  two spaces, a tab\tand\n\n\nline feeds \n",
    "Ünïcödé, 日本語, emoji 🦜🏽 and a combining e\u{301}",
    "<|endoftext|>the cat<|im_start|>user\nthe dog<|im_end|> <|pad|>",
    "1234567890 don't we'll I'M x==y; {}[]",
    "unseen: ж\u{0}\u{7f}",
];
const PROMPTS: &[&str] = &["the cat", "the dog sat on", "a"];
/// Long enough to use every position of the small models.
const LONG: &str = "the cat sat on the mat, the dog sat on the cat; a cat and a dog; the end of it";
/// Number of tokens of a greedy completion, and of positions whose logits are compared.
const N_NEW: usize = 24;
const N_LOGITS: usize = 60;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["make", dir] => make(Path::new(dir)),
        ["describe", dir] => describe(Path::new(dir)),
        _ => Err("usage: interop make DIR | interop describe DIR".into()),
    }
}

/// One directory per case: families, tokenizers, dtypes, and the keys that change the computation.
fn make(dir: &Path) -> Result<()> {
    let bytes = byte_tokenizer()?;
    let chat = bytes.with_chat_template(ChatTemplate::builtin("chatml")?);
    let plain = bytes.with_chat_template(ChatTemplate::builtin("plain")?);
    let chars = char_tokenizer()?;
    let llama = |more| config(Family::Llama, more);
    let gpt2 = |more| config(Family::Gpt2, more);
    let biases = json!({ "attention_bias": true, "mlp_bias": true, "head_dim": 12 });
    let scaled = json!({ "scale_attn_by_inverse_layer_idx": true, "activation_function": "gelu",
        "tie_word_embeddings": false });
    let f32 = Options::new(Dtype::F32);
    let small_shards = Options { shard_bytes: 20_000, ..Options::new(Dtype::Bf16) };
    for (name, tokenizer, keys, options) in [
        ("llama-chatml", &chat, llama(json!({ "tie_word_embeddings": true })), f32.clone()),
        ("llama-plain-bf16-shards", &plain, llama(json!({})), small_shards.clone()),
        ("llama-biases-f16", &bytes, llama(biases), Options::new(Dtype::F16)),
        ("llama-char", &chars, llama(json!({})), f32.clone()),
        ("gpt2-chatml", &chat, gpt2(json!({})), f32.clone()),
        ("gpt2-no-bias-char", &chars, gpt2(json!({ "bias": false })), f32.clone()),
        ("gpt2-no-bias-shards", &bytes, gpt2(json!({ "bias": false })), small_shards),
        ("gpt2-scaled", &bytes, gpt2(scaled), f32.clone()),
    ] {
        write_language_model(&dir.join(name), tokenizer, keys, options)?;
    }
    for (name, family, more) in variants() {
        write_language_model(&dir.join(name), &chat, config(family, more.clone()), f32.clone())?;
        if ["llama-llama3", "gpt2", "gemma3_text", "phi3-longrope", "qwen3"].contains(&name) {
            let out = dir.join(format!("{name}-score"));
            write_classifier(&out, &chat, config(family, more))?;
        }
    }
    Ok(())
}

/// Every family with the keys that its readers in other programs must understand.
fn variants() -> Vec<(&'static str, Family, Value)> {
    let rope = |parameters: Value| json!({ "rope_parameters": parameters, "rope_theta": null });
    let llama3 = json!({ "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16 });
    let yarn = |original: usize| {
        json!({ "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
            "original_max_position_embeddings": original })
    };
    let linear = json!({ "rope_type": "linear", "rope_theta": 2e4, "factor": 4.0 });
    let dynamic = json!({ "rope_type": "dynamic", "rope_theta": 2e4, "factor": 4.0 });
    let lists = |n: usize| {
        let list = |step: f64| (0..n).map(|i| 1.0 + step * i as f64).collect::<Vec<f64>>();
        json!({ "rope_type": "longrope", "rope_theta": 1e4, "short_factor": list(0.2),
            "long_factor": list(0.9), "original_max_position_embeddings": 32 })
    };
    let partial = json!({ "partial_rotary_factor": 0.75, "original_max_position_embeddings": 32 });
    let by_type = |full: Value| {
        json!({ "rope_parameters": { "full_attention": full,
            "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 } },
            "rope_theta": null, "sliding_window": 12 })
    };
    let window = json!({ "sliding_window": 12 });
    let upper = json!({ "use_sliding_window": true, "sliding_window": 12, "max_window_layers": 1 });
    let plain = |theta: f64| json!({ "rope_type": "default", "rope_theta": theta });
    let scaled_full = json!({ "rope_type": "linear", "rope_theta": 1e6, "factor": 8.0 });
    vec![
        ("llama-theta", Family::Llama, json!({ "rope_theta": 5e5 })),
        ("llama-linear", Family::Llama, rope(linear)),
        ("llama-dynamic", Family::Llama, rope(dynamic)),
        ("llama-llama3", Family::Llama, rope(llama3)),
        ("llama-yarn", Family::Llama, rope(yarn(16))),
        ("llama-yarn-same-context", Family::Llama, rope(yarn(64))),
        ("llama-longrope", Family::Llama, rope(lists(4))),
        ("gpt2", Family::Gpt2, json!({})),
        ("mistral", Family::Mistral, window.clone()),
        ("qwen2", Family::Qwen2, json!({ "rope_theta": 1e6 })),
        ("qwen2-window", Family::Qwen2, upper.clone()),
        ("qwen3", Family::Qwen3, json!({ "head_dim": 16, "rope_theta": 1e6 })),
        ("qwen3-window", Family::Qwen3, upper),
        ("gemma2", Family::Gemma2, merged(window.clone(), json!({ "head_dim": 16 }))),
        ("gemma3_text", Family::Gemma3Text, merged(by_type(plain(1e6)), gemma3_blocks())),
        ("gemma3_text-linear", Family::Gemma3Text, merged(by_type(scaled_full), gemma3_blocks())),
        ("phi3", Family::Phi3, json!({ "rope_theta": 2e4 })),
        ("phi3-longrope", Family::Phi3, merged(rope(lists(3)), partial)),
        ("olmo2", Family::Olmo2, json!({ "rope_theta": 5e5 })),
        (
            "exaone4",
            Family::Exaone4,
            merged(
                json!({ "rope_theta": 1e6, "sliding_window_pattern": 2 }),
                blocks(4, window.clone()),
            ),
        ),
        ("olmo3", Family::Olmo3, merged(json!({ "rope_theta": 5e5 }), blocks(4, window.clone()))),
        ("smollm3", Family::SmolLm3, blocks(4, json!({ "rope_theta": 2e6 }))),
        (
            "granite",
            Family::Granite,
            json!({ "attention_multiplier": 0.2, "logits_scaling": 3.0,
            "embedding_multiplier": 5.0, "residual_multiplier": 0.4, "rope_theta": 5e5 }),
        ),
        (
            "mixtral",
            Family::Mixtral,
            json!({ "num_local_experts": 4, "num_experts_per_tok": 2,
            "rope_theta": 1e6 }),
        ),
        ("qwen2_moe", Family::Qwen2Moe, experts(json!({ "shared_expert_intermediate_size": 40 }))),
        ("qwen3_moe", Family::Qwen3Moe, experts(json!({ "norm_topk_prob": true }))),
    ]
}

fn experts(more: Value) -> Value {
    let keys = json!({ "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "rope_theta": 1e6 });
    merged(keys, more)
}

fn blocks(n: usize, more: Value) -> Value {
    merged(json!({ "num_hidden_layers": n }), more)
}

fn gemma3_blocks() -> Value {
    blocks(4, json!({ "sliding_window_pattern": 2, "head_dim": 16, "query_pre_attn_scalar": 20 }))
}

fn merged(mut keys: Value, more: Value) -> Value {
    if let (Value::Object(keys), Value::Object(more)) = (&mut keys, more) {
        keys.extend(more);
    }
    keys
}

fn write_language_model(
    out: &Path,
    tokenizer: &Tokenizer,
    mut keys: Value,
    options: Options,
) -> Result<()> {
    keys["vocab_size"] = json!(tokenizer.vocab_size());
    let config = ModelConfig::from_json(&keys, out)?;
    let model = CausalLm::init(&config, 1, &kernels::device("cpu")?);
    hugging_face_with(&model, tokenizer, options, out)?;
    describe(out)
}

/// A reward model; its expected.json has scores.
fn write_classifier(out: &Path, tokenizer: &Tokenizer, mut keys: Value) -> Result<()> {
    keys["vocab_size"] = json!(tokenizer.vocab_size());
    let config = ModelConfig::from_json(&keys, out)?;
    let device = kernels::device("cpu")?;
    let backbone = CausalLm::init(&config, 1, &device).backbone;
    let model = ScalarModel::from_backbone(backbone, &config, 2);
    hugging_face_with(&model, tokenizer, Options::new(Dtype::F32), out)?;
    let scores: Result<Vec<Value>> = PROMPTS
        .iter()
        .chain([&LONG])
        .map(|text| {
            let mut ids = tokenizer.encode(text)?;
            ids.truncate(N_LOGITS);
            let batch = TokenBatch::of_rows(&ids, 1, &device);
            let score = model.scores_at(&batch, &[ids.len() - 1]).into_scalar::<f32>();
            Ok(json!({ "ids": ids, "score": score }))
        })
        .collect();
    let path: PathBuf = out.join("expected.json");
    Ok(fsio::write_atomic(&path, json!({ "scores": scores? }).to_string().as_bytes())?)
}

fn config(family: Family, more: Value) -> Value {
    // A large standard deviation: with the usual 0.02 all logits would be near 0, and errors would not show.
    // Decoders with rotary positions have the same keys.
    let mut keys = if family == Family::Gpt2 {
        json!({
            "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.3,
            "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        })
    } else {
        json!({
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
            "initializer_range": 0.3, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        })
    };
    keys["model_type"] = json!(family.name());
    merged(keys, more)
}

fn byte_tokenizer() -> Result<Tokenizer> {
    let text = "the cat sat on the mat, the dog sat on the cat; a cat and a dog; ".repeat(8);
    Ok(Tokenizer::train_byte_bpe(std::iter::once(text), 300, &default_special_tokens())?)
}

fn char_tokenizer() -> Result<Tokenizer> {
    let text = "the cat sat on the mat,\nthe dog sat on it; Ünïcödé 日本 🦜 0123456789 .:!?'";
    Ok(Tokenizer::train_char(std::iter::once(text.to_owned()), &default_special_tokens())?)
}

/// Writes expected.json into the directory.
fn describe(dir: &Path) -> Result<()> {
    let tokenizer = Tokenizer::from_dir_or_file(dir)?;
    let model = load_causal_lm(dir, &kernels::device("cpu")?)?;
    let greedy: Result<Vec<Value>> =
        PROMPTS.iter().map(|text| greedy(&model, &tokenizer, text)).collect();
    let greedy = greedy?;
    let expected = json!({
        "texts": texts(&tokenizer)?,
        "chats": chats(&tokenizer)?,
        "bos": tokenizer.bos(),
        "eos": tokenizer.eos(),
        "pad": tokenizer.pad(),
        "eos_ids": tokenizer.eos_ids(),
        "n_ids": tokenizer.vocab_size(),
        "logits": [logits(&model, &tokenizer, PROMPTS[0])?, logits(&model, &tokenizer, LONG)?],
        "greedy": greedy,
    });
    let path: PathBuf = dir.join("expected.json");
    Ok(fsio::write_atomic(&path, expected.to_string().as_bytes())?)
}

fn texts(tokenizer: &Tokenizer) -> Result<Vec<Value>> {
    let mut cases = Vec::new();
    for text in TEXTS {
        let ids = tokenizer.encode(text)?;
        cases.push(json!({
            "text": text,
            "plain_ids": tokenizer.encode_plain(text)?,
            "decoded": tokenizer.decode(&ids, false),
            "decoded_plain": tokenizer.decode(&ids, true),
            "ids": ids,
        }));
    }
    Ok(cases)
}

fn chats(tokenizer: &Tokenizer) -> Result<Vec<Value>> {
    let Some(template) = tokenizer.chat_template() else { return Ok(Vec::new()) };
    let question =
        [Message::new(Role::System, "the dog sat"), Message::new(Role::User, "the cat sat on?")];
    let answered = [question.to_vec(), vec![Message::new(Role::Assistant, "the mat.\n")]].concat();
    let case = |messages: &[Message], add_generation_prompt: bool, ids: Vec<u32>| {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| json!({ "role": message.role.as_str(), "content": message.content }))
            .collect();
        json!({ "messages": messages, "add_generation_prompt": add_generation_prompt, "ids": ids })
    };
    Ok(vec![
        case(&question, true, tokenizer.encode_prompt(&question, template)?),
        case(&answered, false, tokenizer.encode_chat(&answered, template)?.ids),
    ])
}

fn logits(model: &CausalLm, tokenizer: &Tokenizer, text: &str) -> Result<Value> {
    let mut ids = tokenizer.encode(text)?;
    ids.truncate(N_LOGITS);
    let rows = all_logits(model, &ids)?;
    Ok(json!({ "ids": ids, "logits": rows }))
}

/// Greedy decoding without a cache: a forward pass over the whole text for each token.
fn greedy(model: &CausalLm, tokenizer: &Tokenizer, text: &str) -> Result<Value> {
    let prompt_ids = tokenizer.encode(text)?;
    let mut ids = prompt_ids.clone();
    for _ in 0..N_NEW {
        let rows = all_logits(model, &ids)?;
        let last = rows.last().ok_or("a prompt has at least one token")?;
        let best =
            last.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |best| best.0);
        ids.push(best as u32);
        if tokenizer.eos_ids().contains(&(best as u32)) {
            break;
        }
    }
    let completion_ids = ids.split_off(prompt_ids.len());
    Ok(json!({
        "prompt": text,
        "prompt_ids": prompt_ids,
        "max_new_tokens": N_NEW,
        "completion": tokenizer.decode(&completion_ids, true),
        "completion_ids": completion_ids,
    }))
}

/// Logits of every position of one text.
fn all_logits(model: &CausalLm, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
    let batch = TokenBatch::of_rows(ids, 1, &kernels::device("cpu")?);
    let logits = model.logits(model.forward(&batch).hidden_btd);
    let values: Vec<f32> =
        logits.into_data().try_into_vec().map_err(|error| format!("{error:?}"))?;
    Ok(values.chunks(model.config().vocab_size()).map(<[f32]>::to_vec).collect())
}
