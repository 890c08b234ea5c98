//! Decoding with a cache: one token or several at a time, with padding on the left.

use burn::tensor::{Device, Tensor};
use model::{CausalLm, load_causal_lm};
use nn::{KvCache, TokenBatch};
use testkit::{Golden, Tolerance, assert_close, values};

use crate::support::golden_models;

/// Largest difference allowed from the same result computed with other shapes.
const SAME: Tolerance = Tolerance { absolute: 1e-5, of_largest: 3e-6 };

fn steps(model: &CausalLm, ids: &[u32], step: usize, cache: &mut KvCache) -> Vec<f32> {
    let device = Device::flex();
    let mut logits = Vec::new();
    for (idx, chunk) in ids.chunks(step).enumerate() {
        let start = (idx * step) as u32;
        let positions: Vec<u32> = (start..start + chunk.len() as u32).collect();
        let segments = vec![0; chunk.len()];
        let tokens = TokenBatch::new(chunk, &positions, &segments, 1, chunk.len(), &device);
        let hidden = model.backbone.forward_cached(&tokens, cache).hidden_btd;
        logits.extend(values(&model.logits(hidden)));
    }
    logits
}

#[test]
fn cached_logits_equal_those_of_the_whole_text() {
    for dir in golden_models() {
        let golden = Golden::open(&dir.join("long.safetensors"));
        let model = load_causal_lm(&dir, &Device::flex()).expect("a golden model");
        let (ids, want) = (golden.ids("input_ids"), golden.f32("logits"));
        let whole = TokenBatch::of_rows(&ids, 1, &Device::flex());
        let got = values(&model.logits(model.forward(&whole).hidden_btd));
        assert_close("at once", &got, &want, Tolerance::LOGITS);
        for step in [1, 2, 7, 50, 120] {
            let mut cache = model.new_cache(1, ids.len());
            let got = steps(&model, &ids, step, &mut cache);
            let name = format!("{} {step} at a time", dir.display());
            let difference = assert_close(&name, &got, &want, Tolerance::LOGITS);
            println!("{name}: {difference:e}");
            assert_eq!(cache.len(), ids.len());
        }
    }
}

/// The newest tokens of each row and where they stand.
fn continue_greedily(
    model: &CausalLm,
    prompt: &TokenBatch,
    n_new: usize,
    end_token: usize,
) -> (Vec<Vec<u32>>, Vec<Vec<f32>>) {
    let [rows, t] = prompt.dims();
    let device = Device::flex();
    let mut cache = model.new_cache(rows, t + n_new);
    let positions: Vec<i32> = prompt.positions_bt.to_data().convert::<i32>().iter().collect();
    let mut next: Vec<u32> = positions.chunks(t).map(|row| row[t - 1] as u32 + 1).collect();
    let mut hidden = model.backbone.forward_cached(prompt, &mut cache).hidden_btd;
    let (mut ids, mut all_logits) = (vec![Vec::new(); rows], vec![Vec::new(); rows]);
    for _ in 0..n_new {
        let last = last_position(hidden);
        let logits = values(&model.logits(last));
        let v = logits.len() / rows;
        let mut newest = Vec::new();
        for (row, logits) in logits.chunks(v).enumerate() {
            let mut masked = logits.to_vec();
            masked[end_token] = f32::NEG_INFINITY;
            let best = (0..v).max_by(|a, b| masked[*a].total_cmp(&masked[*b])).expect("a token");
            newest.push(best as u32);
            ids[row].push(best as u32);
            all_logits[row].extend_from_slice(logits);
        }
        let tokens = TokenBatch::new(&newest, &next, &vec![0; rows], rows, 1, &device);
        for position in &mut next {
            *position += 1;
        }
        if cache.len() == cache.capacity() {
            break;
        }
        hidden = model.backbone.forward_cached(&tokens, &mut cache).hidden_btd;
    }
    (ids, all_logits)
}

fn last_position(hidden_btd: Tensor<3>) -> Tensor<2> {
    let [b, t, d] = hidden_btd.dims();
    hidden_btd.slice([0..b, t - 1..t, 0..d]).reshape([b, d])
}

#[test]
fn greedy_continuation() {
    for dir in golden_models() {
        let golden = Golden::open(&dir.join("greedy.safetensors"));
        let device = Device::flex();
        let model = load_causal_lm(&dir, &device).expect("a golden model");
        let prompt = golden.ids("prompt");
        let (ids, logits) =
            continue_greedily(&model, &TokenBatch::of_rows(&prompt, 1, &device), 24, 2);
        assert_eq!(ids[0], golden.ids("sequence")[prompt.len()..], "{}", dir.display());
        assert_close("logits", &logits[0], &golden.f32("logits"), Tolerance::LOGITS);
    }
}

#[test]
fn padding_on_the_left_changes_nothing() {
    for dir in golden_models() {
        let golden = Golden::open(&dir.join("greedy.safetensors"));
        let device = Device::flex();
        let model = load_causal_lm(&dir, &device).expect("a golden model");
        let ids = golden.ids("left_padded_prompts");
        let mask: Vec<bool> =
            golden.i64("left_padded_mask").into_iter().map(|value| value != 0).collect();
        let (rows, t) = (2, ids.len() / 2);
        let prompts = TokenBatch::padded(&ids, &mask, rows, &device);
        let (together, logits) = continue_greedily(&model, &prompts, 16, 2);
        let want = golden.ids("left_padded_sequences");
        let want_logits = golden.f32("left_padded_logits");
        for row in 0..rows {
            let want = &want[row * (t + 16) + t..(row + 1) * (t + 16)];
            assert_eq!(together[row], want, "{} row {row}", dir.display());
            let n = want_logits.len() / rows;
            let want_logits = &want_logits[row * n..(row + 1) * n];
            assert_close("logits", &logits[row], want_logits, Tolerance::LOGITS);
            let real: Vec<u32> =
                (row * t..(row + 1) * t).filter(|idx| mask[*idx]).map(|idx| ids[idx]).collect();
            let (alone, logits_alone) =
                continue_greedily(&model, &TokenBatch::of_rows(&real, 1, &device), 16, 2);
            assert_eq!(alone[0], together[row]);
            assert_close("alone", &logits[row], &logits_alone[0], SAME);
        }
    }
}

#[test]
fn rows_of_a_cache_can_be_chosen_and_repeated() {
    let dir = testkit::golden_dir("models/llama");
    let device = Device::flex();
    let model = load_causal_lm(&dir, &device).expect("a golden model");
    let ids = [7, 8, 9, 30, 31, 32];
    let mut cache = model.new_cache(2, 5);
    model.backbone.forward_cached(&TokenBatch::of_rows(&ids, 2, &device), &mut cache);
    let mut chosen = cache.select_rows(&[1, 0, 1]);
    let next = TokenBatch::new(&[40, 41, 42], &[3; 3], &[0; 3], 3, 1, &device);
    let got = values(&model.backbone.forward_cached(&next, &mut chosen).hidden_btd);
    let d = got.len() / 3;
    for (row, text) in [[30, 31, 32, 40], [7, 8, 9, 41], [30, 31, 32, 42]].iter().enumerate() {
        let whole = values(&model.forward(&TokenBatch::of_rows(text, 1, &device)).hidden_btd);
        assert_close("row", &got[row * d..(row + 1) * d], &whole[3 * d..], SAME);
    }
    assert_eq!(cache.len(), 3, "the cache chosen from is as it was");
}
