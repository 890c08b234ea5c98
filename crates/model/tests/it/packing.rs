//! Packed samples read as if each were alone; padding changes nothing, on either side.

use arch::ModelConfig;
use burn::tensor::Device;
use model::CausalLm;
use nn::{PAD_SEGMENT, TokenBatch};
use testkit::{Tolerance, assert_close, tiny_decoders, tiny_gpt2, tiny_llama};

use crate::support::{config, logits};

const V: usize = 70;
const CLOSE: Tolerance = Tolerance::absolute(1e-5);

fn models() -> Vec<CausalLm> {
    let few = [tiny_llama(V), tiny_gpt2(V, true), tiny_gpt2(V, false)];
    few.iter()
        .chain(&tiny_decoders(V))
        .map(|value| CausalLm::init(&config(value), 3, &Device::flex()))
        .map(louder)
        .collect()
}

/// Weights ten times as large, so that whatever is read where it should not be shows.
fn louder(model: CausalLm) -> CausalLm {
    struct Scaled(Vec<(String, Vec<f32>)>);
    impl model::ParameterSource for Scaled {
        fn values(&mut self, name: &str, _: &[usize]) -> model::Result<Vec<f32>> {
            let (known, values) = self.0.remove(0);
            assert_eq!(known, name);
            Ok(values)
        }
    }
    let mut all = Vec::new();
    let visit = |name: &str, shape: &[usize], values: &[f32]| {
        let factor = if shape.len() > 1 { 10.0 } else { 1.0 };
        all.push((name.to_owned(), values.iter().map(|value| value * factor).collect()));
        Ok::<(), model::Error>(())
    };
    model::visit_tensors(&model, visit).expect("values");
    model::load_state_dict(model, &mut Scaled(all)).expect("the same names")
}

fn sample(n: u32, seed: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 7 + i * seed + seed) % V as u32).collect()
}

#[test]
fn packed_samples_are_as_each_alone() {
    let samples = [sample(5, 3), sample(1, 5), sample(9, 11), sample(7, 2)];
    let (mut ids, mut positions, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for (number, sample) in samples.iter().enumerate() {
        ids.extend_from_slice(sample);
        positions.extend(0..sample.len() as u32);
        segments.extend(vec![number as i32; sample.len()]);
    }
    // Padding at the end; its id occurs in the samples too.
    ids.extend([1, 1]);
    positions.extend([0, 1]);
    segments.extend([PAD_SEGMENT; 2]);
    let t = ids.len();
    // A second row, packed otherwise, so that rows cannot be mixed up either.
    ids.extend(sample(t as u32, 13));
    positions.extend(0..t as u32);
    segments.extend(vec![0; t]);
    let packed = TokenBatch::new(&ids, &positions, &segments, 2, t, &Device::flex());
    for model in models() {
        let together = logits(&model, &packed);
        let mut start = 0;
        for sample in samples.iter().chain([&sample(t as u32, 13)]) {
            let alone = logits(&model, &TokenBatch::of_rows(sample, 1, &Device::flex()));
            if start == t - 2 {
                start = t;
            }
            let packed = &together[start * V..(start + sample.len()) * V];
            assert_close("packed", packed, &alone, CLOSE);
            start += sample.len();
        }
        assert_eq!(start, 2 * t);
    }
}

#[test]
fn the_order_of_packed_samples_does_not_matter() {
    let (a, b) = (sample(6, 3), sample(8, 5));
    let pack = |first: &[u32], second: &[u32]| {
        let ids = [first, second].concat();
        let positions: Vec<u32> = (0..first.len() as u32).chain(0..second.len() as u32).collect();
        let segments: Vec<i32> =
            ids.iter().enumerate().map(|(i, _)| i32::from(i >= first.len())).collect();
        TokenBatch::new(&ids, &positions, &segments, 1, ids.len(), &Device::flex())
    };
    for model in models() {
        let (ab, ba) = (logits(&model, &pack(&a, &b)), logits(&model, &pack(&b, &a)));
        assert_close("a", &ab[..6 * V], &ba[8 * V..], CLOSE);
        assert_close("b", &ab[6 * V..], &ba[..8 * V], CLOSE);
    }
}

#[test]
fn padding_on_either_side_changes_nothing() {
    let text = sample(7, 9);
    for model in models() {
        let alone = logits(&model, &TokenBatch::of_rows(&text, 1, &Device::flex()));
        for (left, right) in [(0, 4), (4, 0), (3, 2), (1, 0)] {
            // What pads are must not matter, so they are taken from the text.
            let ids = [&text[..left], &text, &text[..right]].concat();
            let real = |i: usize| i >= left && i < left + text.len();
            let mask: Vec<bool> = (0..ids.len()).map(real).collect();
            let padded = TokenBatch::padded(&ids, &mask, 1, &Device::flex());
            let got = logits(&model, &padded);
            assert!(got.iter().all(|value| value.is_finite()));
            assert_close("padded", &got[left * V..(left + text.len()) * V], &alone, CLOSE);
        }
    }
}

#[test]
fn a_later_token_changes_nothing_before_it() {
    let mut text = sample(9, 4);
    for model in models() {
        let before = logits(&model, &TokenBatch::of_rows(&text, 1, &Device::flex()));
        text[8] = (text[8] + 1) % V as u32;
        let after = logits(&model, &TokenBatch::of_rows(&text, 1, &Device::flex()));
        assert_eq!(before[..8 * V], after[..8 * V]);
        assert_ne!(before[8 * V..], after[8 * V..]);
    }
}

#[test]
#[should_panic(expected = "position 64 of a model that reads 64")]
fn a_text_longer_than_the_model_reads_is_refused() {
    let model = CausalLm::init(&config(&tiny_llama(V)), 3, &Device::flex());
    model.forward(&TokenBatch::of_rows(&sample(65, 2), 1, &Device::flex()));
}

/// The longest answer is longer than the windows of families that have them.
#[test]
fn answers_that_share_a_prompt_are_as_each_alone() {
    let prompt = sample(6, 3);
    let answers = [sample(4, 5), sample(1, 7), sample(9, 11), sample(16, 2)];
    let (mut ids, mut positions) = (Vec::new(), Vec::new());
    let (mut segments, mut prefixes) = (Vec::new(), Vec::new());
    let mut add = |text: &[u32], position: u32, segment: i32, prefix: i32| {
        ids.extend_from_slice(text);
        positions.extend(position..position + text.len() as u32);
        segments.extend(vec![segment; text.len()]);
        prefixes.extend(vec![prefix; text.len()]);
    };
    // The second row has another text before the group, the first one padding behind it.
    let other = sample(3, 8);
    for row in 0..2 {
        if row == 1 {
            add(&other, 0, 99, 99);
        }
        add(&prompt, 0, 0, 0);
        for (number, answer) in answers.iter().enumerate() {
            add(answer, prompt.len() as u32, number as i32 + 1, 0);
        }
        if row == 0 {
            add(&other, 0, PAD_SEGMENT, PAD_SEGMENT);
        }
    }
    let t = ids.len() / 2;
    let packed = TokenBatch::new(&ids, &positions, &segments, 2, t, &Device::flex());
    let packed = packed.with_prefixes(prefixes);
    // LongRoPE and dynamic scaling give a prompt other angles in a long text.
    let is_fixed = |model: &CausalLm| match model.config() {
        ModelConfig::Decoder(config) => config.ropes.iter().all(|it| it.fixed_up_to().is_none()),
        ModelConfig::Gpt2(_) => true,
    };
    for model in models().into_iter().filter(is_fixed) {
        let all = logits(&model, &packed);
        for start in [0, t + other.len()] {
            let mut at = start + prompt.len();
            for answer in &answers {
                let text = [prompt.as_slice(), answer.as_slice()].concat();
                let alone = logits(&model, &TokenBatch::of_rows(&text, 1, &Device::flex()));
                let (of_prompt, of_answer) = alone.split_at(prompt.len() * V);
                let name = format!("{:?} {start} {}", model.config(), answer.len());
                assert_close(&name, &all[start * V..][..of_prompt.len()], of_prompt, CLOSE);
                assert_close(&name, &all[at * V..][..of_answer.len()], of_answer, CLOSE);
                at += answer.len();
            }
        }
    }
}
