//! Loss, perplexity and bits per byte over batches, against plain sums.

use std::path::Path;

use arch::ModelConfig;
use data::Batch;
use evaluate::{Error, Measured, measure};
use model::CausalLm;
use nn::TokenBatch;
use testkit::{golden_dir, tiny_llama, values};
use tokenizer::{Tokenizer, default_special_tokens};

const TEXT: &str = "Zwei Flüsse, ein Fluß; and then some more text than one row holds.";

fn tokenizer() -> Tokenizer {
    let specials = default_special_tokens();
    Tokenizer::train_byte_bpe(std::iter::once(TEXT.to_owned()), 260, &specials).unwrap()
}

fn model() -> CausalLm {
    let config = ModelConfig::from_json(&tiny_llama(260), Path::new("tiny")).unwrap();
    CausalLm::init(&config, 1, &kernels::device("cpu").unwrap())
}

/// Rows of `t` positions over ids in order; the last row is padded.
fn batch(ids: &[u32], t: usize) -> Batch {
    let mut batch = Batch { sequence_length: t, ..Batch::default() };
    for row in ids[..ids.len() - 1].chunks(t) {
        let start = batch.rows * t;
        for at in 0..t {
            let real = at < row.len();
            batch.ids.push(row.get(at).copied().unwrap_or(0));
            batch.positions.push(if real { at as u32 } else { 0 });
            batch.segments.push(if real { 0 } else { -1 });
            batch.targets.push(if real { ids[start + at + 1] as i32 } else { -1 });
        }
        batch.rows += 1;
        batch.n_targets += row.len();
    }
    batch.sample_starts = vec![0; batch.rows + 1];
    batch
}

fn measured(batches: Vec<Batch>) -> Measured {
    measure(&model(), &tokenizer(), batches, &kernels::device("cpu").unwrap()).unwrap()
}

#[test]
fn the_loss_is_one_sum_over_one_count() {
    let ids = tokenizer().encode(TEXT).unwrap();
    let whole = batch(&ids, 11);
    let (mut expected, mut n_correct) = (0.0, 0);
    let device = kernels::device("cpu").unwrap();
    for (row, start) in ids[..ids.len() - 1].chunks(11).zip((0..).step_by(11)) {
        let model = model();
        let logits = model.logits(model.forward(&TokenBatch::of_rows(row, 1, &device)).hidden_btd);
        for (at, logits) in values(&logits).chunks(260).enumerate() {
            let target = ids[start + at + 1];
            expected -= f64::from(generate::logprob(logits, target, 1.0));
            n_correct += u64::from(logits.iter().all(|logit| *logit <= logits[target as usize]));
        }
    }
    let n = (ids.len() - 1) as f64;
    let got = measured(vec![whole.clone()]);
    assert_eq!(got.n_targets, ids.len() as u64 - 1);
    assert_eq!(got.n_correct, n_correct);
    assert_eq!(got.mean_token_accuracy(), n_correct as f64 / n);
    assert!((got.loss() - expected / n).abs() < 1e-6, "{} and {}", got.loss(), expected / n);
    assert!((got.perplexity() - (expected / n).exp()).abs() < 1e-3);
    // The mean does not depend on the batches; a batch of padding alone changes nothing.
    let mut pieces: Vec<Batch> = whole.micro_batches(2).collect();
    let mut pads = whole.micro_batches(1).next().unwrap();
    (pads.n_targets, pads.targets) = (0, vec![-1; 11]);
    pieces.push(pads);
    let in_pieces = measured(pieces);
    assert_eq!(in_pieces.n_targets, got.n_targets);
    assert!((in_pieces.loss() - got.loss()).abs() < 1e-6);
}

#[test]
fn bits_per_byte_counts_the_bytes_of_the_text() {
    let tokenizer = tokenizer();
    // The end-of-text token before the text is context, the one after it a target without bytes.
    let mut ids = tokenizer.encode(TEXT).unwrap();
    ids.push(tokenizer.eos().unwrap());
    let got = measured(vec![batch(&ids, 16)]);
    assert_eq!(got.n_bytes, TEXT.len() as u64);
    let expected = got.loss() * got.n_targets as f64 / 2.0_f64.ln() / TEXT.len() as f64;
    assert!((got.bits_per_byte().unwrap() - expected).abs() < 1e-12);
}

#[test]
fn nothing_to_measure_is_an_error() {
    let device = kernels::device("cpu").unwrap();
    let mut empty = batch(&tokenizer().encode(TEXT).unwrap(), 16);
    (empty.n_targets, empty.targets) = (0, vec![-1; empty.ids.len()]);
    for batches in [vec![], vec![empty]] {
        let error = measure(&model(), &tokenizer(), batches, &device).unwrap_err();
        assert!(matches!(error, Error::NoTargets), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_model_in_training_gives_the_same_loss_without_a_graph() {
    let device = kernels::device("cpu").unwrap();
    let dir = golden_dir("models/llama");
    let plain = model::load_causal_lm(&dir, &device).unwrap();
    let trained = model::load_causal_lm(&dir, &device.clone().autodiff()).unwrap();
    let batch = batch(&tokenizer().encode(TEXT).unwrap(), 16);
    let of = |model: &CausalLm, device| {
        measure(model, &tokenizer(), vec![batch.clone()], device).unwrap()
    };
    assert_eq!(of(&plain, &device), of(&trained, &device.clone().autodiff()));
}
