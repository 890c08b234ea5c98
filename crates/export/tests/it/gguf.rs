//! GGUF files: read back they are the same model and the same tokenizer.

use std::path::Path;

use ::gguf::{FileType, GgufFile};
use arch::Family;
use export::{Error, MODELFILE, gguf};
use model::{Adaptable, CausalLm, load_causal_lm, load_causal_lm_in_blocks, visit_tensors};
use nn::{TokenBatch, Weight};
use serde_json::json;
use tokenizer::Tokenizer;

use crate::{byte_tokenizer, chat_tokenizer, model};

fn weights(model: &CausalLm) -> Vec<(String, Vec<f32>)> {
    let mut weights = Vec::new();
    let visit = |name: &str, _: &[usize], values: &[f32]| {
        weights.push((name.to_owned(), values.to_vec()));
        Ok::<(), ()>(())
    };
    visit_tensors(model, visit).expect("nothing fails");
    weights
}

fn load(path: &Path) -> CausalLm {
    let device = kernels::device("cpu").expect("every machine has one");
    load_causal_lm(path, &device).expect("a model")
}

#[test]
fn every_family_comes_back() {
    let tokenizer = chat_tokenizer();
    for family in Family::ALL {
        let model = model(*family, tokenizer.vocab_size() + 5, json!({}));
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("a/model.gguf");
        let written = gguf(&model, &tokenizer, FileType::F32, &path);
        if *family == Family::Exaone4 {
            // llama.cpp knows windows of this family in models of 64 blocks only.
            let error = written.expect_err("refused");
            assert!(error.to_string().contains("`sliding_window`"), "{error}");
            assert!(!path.exists());
            continue;
        }
        let written = written.expect("exported");
        assert_eq!(path.metadata().expect("a file").len(), written.n_bytes);
        let again = load(&path);
        assert_eq!(weights(&again), weights(&model), "{}", family.name());
        assert_eq!(again.config().vocab_size(), model.config().vocab_size());

        let read = Tokenizer::from_dir_or_file(&path).expect("a tokenizer");
        assert_eq!(read.eos_ids(), tokenizer.eos_ids());
        assert_eq!((read.bos(), read.pad()), (tokenizer.bos(), tokenizer.pad()));
        for text in ["", "the cat", "Ünï <|im_end|> 日本\n\n  x 123", "don't we'll"] {
            let ids = tokenizer.encode(text).expect("bytes");
            assert_eq!(read.encode(text).expect("bytes"), ids, "{text}");
            assert_eq!(read.decode(&ids, false), tokenizer.decode(&ids, false));
        }
        let source =
            |tokenizer: &Tokenizer| tokenizer.chat_template().map(|t| t.source().to_owned());
        assert_eq!(source(&read), source(&tokenizer));
    }
}

#[test]
fn absent_biases_are_zeros() {
    let tokenizer = byte_tokenizer();
    let model = model(Family::Gpt2, tokenizer.vocab_size(), json!({ "bias": false }));
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("model.gguf");
    gguf(&model, &tokenizer, FileType::F32, &path).expect("exported");
    let file = GgufFile::open(&path).expect("a file");
    let bias = file.read("blk.1.attn_qkv.bias").expect("a bias");
    assert_eq!(bias, vec![0.0; 48]);
}

#[test]
fn every_type_opens() {
    let tokenizer = byte_tokenizer();
    let sizes = json!({ "hidden_size": 256, "intermediate_size": 512 });
    let model = model(Family::Llama, tokenizer.vocab_size(), sizes);
    let place = tempfile::tempdir().expect("a temporary directory");
    let expected = weights(&model);
    for file_type in FileType::ALL {
        let path = place.path().join(file_type.name()).join("model.gguf");
        gguf(&model, &tokenizer, file_type, &path).expect("exported");
        for ((name, found), (_, expected)) in weights(&load(&path)).iter().zip(&expected) {
            let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 0.14 * largest, "{file_type} {name}: {worst} of {largest}");
        }
    }
}

/// Quantised matrices that stay in their blocks: the bytes of the file, and the logits of weights in f32.
#[test]
fn blocks_stay_as_they_are() {
    let tokenizer = byte_tokenizer();
    let device = kernels::device("cpu").expect("every machine has one");
    for family in [Family::Llama, Family::Qwen2, Family::Mixtral] {
        let sizes = json!({ "hidden_size": 256, "intermediate_size": 512 });
        let model = model(family, tokenizer.vocab_size(), sizes);
        let place = tempfile::tempdir().expect("a temporary directory");
        for file_type in FileType::ALL {
            let path = place.path().join(file_type.name()).join("model.gguf");
            gguf(&model, &tokenizer, file_type, &path).expect("exported");
            let dense = load(&path);
            let mut blocks = load_causal_lm_in_blocks(&path, &device).expect("a model");
            assert_eq!(stays(&mut blocks), stays_in_file(&path), "{file_type}");
            for (rows, n) in [(1, 1), (1, 3), (1, 40), (2, 100)] {
                let ids: Vec<u32> = (0..n).map(|idx| idx * 7 % 200).collect();
                let batch = TokenBatch::of_rows(&ids, rows, &device);
                let [got, want] = [&blocks, &dense].map(|model| {
                    let logits = model.logits(model.forward(&batch).hidden_btd);
                    testkit::values(&logits).into_iter().map(f32::to_bits).collect::<Vec<_>>()
                });
                assert!(got == want, "{file_type}, {n} tokens");
            }
        }
    }
}

/// Number of bytes of the linear layers and the embedding that are in blocks.
fn stays(model: &mut CausalLm) -> usize {
    let bytes = |weight: &Weight| match weight {
        Weight::Blocks(blocks) => blocks.bytes.dims()[0],
        Weight::Dense(_) | Weight::Packed(_) => 0,
    };
    let layers = model.backbone_mut().projections_mut();
    let n_bytes = layers.iter().map(|(_, layer)| bytes(layer.base().weight)).sum::<usize>();
    let head = model.lm_head.as_ref().map_or(0, |head| bytes(&head.weight));
    n_bytes + head + bytes(&model.backbone.embedding_mut().1.weight)
}

/// Number of bytes of the file's quantised matrices.
fn stays_in_file(path: &Path) -> usize {
    let file = GgufFile::open(path).expect("a file");
    let blocks = file.tensors().iter().filter(|info| info.ty.block_elements() > 1);
    blocks.map(|info| info.ty.bytes(info.n_elements() as u64).expect("blocks") as usize).sum()
}

#[test]
fn a_modelfile_is_written_beside_it() {
    let tokenizer = chat_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("chat.gguf");
    gguf(&model, &tokenizer, FileType::F16, &path).expect("exported");
    let text = std::fs::read_to_string(place.path().join(MODELFILE)).expect("a Modelfile");
    assert!(text.starts_with("FROM ./chat.gguf\nTEMPLATE \"\"\""), "{text}");
    // Beside another model's, it is named after its own.
    let other = gguf(&model, &tokenizer, FileType::F16, &place.path().join("other.gguf"));
    assert_eq!(other.expect("exported").modelfile, place.path().join("other.Modelfile"));
    let text = std::fs::read_to_string(place.path().join("other.Modelfile")).expect("a Modelfile");
    assert!(text.starts_with("FROM ./other.gguf\n"), "{text}");
    // Nothing is overwritten, and a failure leaves nothing behind.
    fsio::write_atomic(place.path().join("third.Modelfile"), "FROM mine").expect("written");
    let again = gguf(&model, &tokenizer, FileType::F16, &place.path().join("third.gguf"));
    assert!(matches!(again, Err(Error::File(_))), "{again:?}");
    assert!(!place.path().join("third.gguf").exists());
}

#[test]
fn a_failed_export_leaves_no_file() {
    let tokenizer = byte_tokenizer();
    let text = "the cat".to_owned();
    let chars = Tokenizer::train_char(std::iter::once(text), &["<|endoftext|>".to_owned()]);
    let chars = chars.expect("trained");
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("model.gguf");
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let error = gguf(&model, &chars, FileType::F32, &path).expect_err("no such tokenizer");
    assert!(error.to_string().starts_with("cannot be written as GGUF: llama.cpp "), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 0);
}
