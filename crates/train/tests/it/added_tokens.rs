//! Tokens added to existing weights: the new rows, adapters that train them, resumed runs, and models that are opened again.

use std::fs;

use arch::ModelInfo;
use burn::module::Module;
use model::{CausalLm, ScalarModel, load_causal_lm};
use nn::TokenBatch;
use serde_json::Value;
use testkit::values;
use tokenizer::Tokenizer;
use train::{BaseModelCache, ModelSource, RunDir, WeightSource, first_weights};

use super::adapters::{ADAPTER, Place, names_in, stage_of};
use super::toy::{bits, device};

const LORA: &str = "lora = { rank = 3, dropout = 0.2, rslora = true }\n";
const ADDED: &str = "add_tokens = [\"<think>\"]\nadd_special_tokens = [\"<|eot|>\"]\n";

/// A place whose fine-tuning adds two tokens, after pretraining; `{n}` and `{m}` in `lora` are their ids. Returns the number
/// of rows before.
fn place(lora: &str, tied: bool) -> (Place, usize) {
    let place = Place::new();
    place.replace("[model]\n", &format!("[model]\ntie_word_embeddings = {tied}\n"));
    let n = place.plan("x").stages[0].tokenizer.vocab_size();
    let lora = lora.replace("{n}", &n.to_string()).replace("{m}", &(n + 1).to_string());
    place.replace(LORA, &format!("{lora}{ADDED}"));
    let chat = |n| format!("{{\"prompt\":\"Is {n}?\",\"completion\":\"<think>It is {n}.\"}}\n");
    let chats = (0..40).map(chat).collect::<String>();
    fsio::write_atomic(place.path().join("chats.jsonl"), chats).expect("a file");
    place.run("x", "pretrain");
    (place, n)
}

fn of(model: &[(String, Vec<u32>)], name: &str) -> Vec<f32> {
    let (_, bits) = model.iter().find(|(of, _)| of.ends_with(name)).expect(name);
    bits.iter().map(|bits| f32::from_bits(*bits)).collect()
}

/// Old rows keep their bits, and each new one is the mean of the old ones: embeddings and output layer of a language model,
/// tied or not, and embeddings of a reward model.
#[test]
fn new_rows_are_the_mean_of_the_old_ones() {
    const WIDTH: usize = 16;
    for tied in [true, false] {
        let (place, n) = place("", tied);
        let old = load_causal_lm(&place.stage_dir("x", "pretrain").join("model"), &device());
        let old = bits(&old.expect("a model"));
        let plan = place.plan("x");
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let source = ModelSource::of(stage_of(&plan, "sft"));
        let bases = || BaseModelCache::new(&device());
        let language = first_weights::<CausalLm>(&plan, source, &run_dir, &mut bases());
        let language = language.expect("weights");
        let scalar = first_weights::<ScalarModel>(&plan, source, &run_dir, &mut bases());
        let scalar = scalar.expect("weights");
        assert_eq!(language.model.config().vocab_size(), n + 2);
        assert_eq!(scalar.source, WeightSource::NewHead);
        let base = place.stage_dir("x", "sft").join("base");
        assert!(!base.exists(), "a copy that nothing reads");
        let (language, scalar) = (bits(&language.model), bits(&scalar.model));
        let mut tables = vec![(&language, "embed_tokens.weight"), (&scalar, "embed_tokens.weight")];
        if !tied {
            tables.push((&language, "lm_head.weight"));
        }
        for (model, name) in tables {
            let (got, want) = (of(model, name), of(&old, name));
            assert_eq!((want.len(), got.len()), (n * WIDTH, (n + 2) * WIDTH), "{name}");
            assert!(got[..n * WIDTH] == want[..], "{name}: old rows");
            let mean: Vec<f64> = (0..WIDTH)
                .map(|column| {
                    let column = want.iter().skip(column).step_by(WIDTH);
                    column.map(|x| f64::from(*x)).sum::<f64>() / n as f64
                })
                .collect();
            for row in got[n * WIDTH..].chunks(WIDTH) {
                for (got, want) in row.iter().zip(&mean) {
                    assert!((f64::from(*got) - want).abs() < 1e-7, "{name}: {got} {want}");
                }
            }
        }
        // All other weights are those of pretraining.
        for (name, before) in &old {
            if !name.contains("embed_tokens") && !name.contains("lm_head") {
                let (_, now) = language.iter().find(|(now, _)| now == name).expect(name);
                assert!(now == before, "{name}");
            }
        }
    }
}

/// The kinds of training that change new rows.
const KINDS: [(&str, bool); 4] = [
    ("", true),
    ("lora = { rank = 3, dropout = 0.2, trainable_token_indices = [{n}, {m}] }\n", true),
    ("lora = { rank = 3, modules_to_save = [\"embed_tokens\", \"lm_head\"] }\n", false),
    (
        "lora = { rank = 3, trainable_token_indices = [{n}, {m}], modules_to_save = [\"lm_head\"] }\n",
        false,
    ),
];

fn logits(model: &CausalLm, ids: &[u32]) -> Vec<f32> {
    let model = model.valid();
    let tokens = TokenBatch::of_rows(ids, 1, &burn::tensor::Device::flex());
    values(&model.logits(model.forward(&tokens).hidden_btd))
}

/// The trained model is opened again with the same logits: config.json and tokenizer.json have the new tokens, and an
/// adapter has their rows and PEFT's keys.
#[test]
fn what_was_trained_is_opened_again() {
    for (lora, tied) in KINDS {
        let (place, n) = place(lora, tied);
        place.replace("ema = 0.6\n", "");
        let trained = place.run("x", "sft");
        let dir = place.stage_dir("x", "sft").join("model");
        let opened: CausalLm = BaseModelCache::new(&device()).open(&dir).expect("opened");
        let ids = [3, n as u32, 5, n as u32 + 1, 7];
        let (got, want) = (logits(&opened, &ids), logits(&without_dropout(trained), &ids));
        assert_eq!(got.len(), ids.len() * (n + 2));
        testkit::assert_close(lora, &got, &want, testkit::Tolerance::absolute(1e-5));
        let tokenizer = Tokenizer::from_dir_or_file(&dir).expect("a tokenizer");
        let id = |token| tokenizer.token_id(token).expect("an id") as usize;
        assert_eq!((id("<think>"), id("<|eot|>")), (n, n + 1));
        assert_eq!(tokenizer.encode_plain("a<think>b").expect("ids").len(), 3);
        let whole =
            if lora.is_empty() { dir.clone() } else { dir.parent().expect("one").join("base") };
        let info = ModelInfo::read(&whole).expect("config.json");
        assert_eq!(info.config.vocab_size(), n + 2);
        // The rows have moved away from the mean that they were set to.
        let mean = of(&bits(&opened), "embed_tokens.weight");
        let width = mean.len() / (n + 2);
        if lora.is_empty() {
            assert!(mean[n * width..(n + 1) * width] != mean[(n + 1) * width..], "{lora}");
            continue;
        }
        let config = fs::read(dir.join("adapter_config.json")).expect("a file");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        for key in ["trainable_token_indices", "modules_to_save"] {
            assert_eq!(!config[key].is_null(), lora.contains(key), "{key}: {config}");
        }
        let names = tensor_file_names(&dir);
        let has = |part: &str| names.iter().any(|name| name.contains(part));
        assert_eq!(has("trainable_tokens_delta"), lora.contains("trainable_token"), "{names:?}");
        assert_eq!(has("lm_head.weight"), lora.contains("lm_head"), "{names:?}");
    }
}

fn without_dropout(model: CausalLm) -> CausalLm {
    lora::without_dropout(model)
}

fn tensor_file_names(dir: &std::path::Path) -> Vec<String> {
    let bytes = fs::read(dir.join("adapter_model.safetensors")).expect("a file");
    let n = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + n]).expect("JSON");
    header.as_object().expect("an object").keys().cloned().collect()
}

/// A run that is killed before or after its first checkpoint gives the bytes of one that is not.
#[test]
fn a_killed_and_resumed_run_is_the_uninterrupted_one() {
    for (lora, tied) in KINDS {
        let (place, _) = place(lora, tied);
        let files: &[&str] = if lora.is_empty() {
            &["model/model.safetensors", "model/tokenizer.json", "model/config.json"]
        } else {
            &[ADAPTER, "base/model.safetensors", "base/tokenizer.json"]
        };
        place.run("x", "sft");
        for until in [1, 3] {
            let cut = format!("cut-{until}");
            let copy = place.stage_dir(&cut, "pretrain").join("model");
            fsio::create_dir_all(&copy).expect("a folder");
            for name in names_in(&place.stage_dir("x", "pretrain").join("model")) {
                let bytes = place.bytes("x", &format!("pretrain/model/{name}"));
                fsio::write_atomic(copy.join(name), bytes).expect("a file");
            }
            assert!(place.run_until(&cut, "sft", until).is_none());
            place.run(&cut, "sft");
            for file in
                files.iter().copied().chain(["checkpoints/step-000006/optimizer.safetensors"])
            {
                let file = format!("sft/{file}");
                assert!(
                    place.bytes(&cut, &file) == place.bytes("x", &file),
                    "{file} {until} {lora}"
                );
            }
        }
    }
}
