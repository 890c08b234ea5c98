//! Scores of a sequence classifier against the reference implementation.

use burn::tensor::Device;
use model::{Dtype, load_causal_lm, load_scalar_model};
use testkit::{Tolerance, assert_close, golden_dir, values};

use crate::support::Io;

#[test]
fn scores_at_the_last_token() {
    let dir = golden_dir("reward/llama");
    let device = Device::flex();
    let model = load_scalar_model(&dir, &device).expect("a golden model");
    let io = Io::open(&dir);
    let tokens = io.tokens(&device);
    let last = |row: &[bool]| row.iter().rposition(|real| *real).expect("a token");
    let at: Vec<usize> = io.mask.chunks(io.t).map(last).collect();
    let got = values(&model.scores_at(&tokens, &at));
    let want = io.golden.f32("scores");
    let difference = assert_close("scores", &got, &want, Tolerance::LOGITS);
    println!("{} scores: {difference:e}", dir.display());
    let all = values(&model.values(&tokens));
    for (row, at) in at.iter().enumerate() {
        let close = Tolerance::absolute(1e-5);
        assert_close("values", &all[row * io.t + at..][..1], &got[row..=row], close);
    }
    let mut bytes = Vec::new();
    model.write_safetensors(&mut bytes, Dtype::F32).expect("bytes");
    let copy = tempfile::tempdir().expect("a folder");
    std::fs::copy(dir.join("config.json"), copy.path().join("config.json")).expect("a copy");
    std::fs::write(copy.path().join("model.safetensors"), bytes).expect("a file");
    let again = load_scalar_model(copy.path(), &device).expect("the model");
    assert_eq!(values(&again.scores_at(&tokens, &at)), got);
    let error = load_causal_lm(&dir, &device).expect_err("another head").to_string();
    assert!(error.ends_with("holds a sequence classifier, not a language model"), "{error}");
}
