//! A batch that sequences join and leave: every completion is that of a batch of its own.

use std::sync::Arc;

use arch::ModelConfig;
use generate::{
    FinishReason, LiveBatch, LiveToken, Prefixes, Prompt, PromptReader, Sampling, Sequence,
    Settings, generate,
};
use model::CausalLm;
use testkit::{tiny_decoders, tiny_gpt2};

use crate::{golden_llama, tiny};

/// A request: a prompt, its settings, and the number of tokens of others after which it arrives.
struct Request {
    prompt: Vec<u32>,
    settings: Settings,
    seed: u64,
}

fn requests(n: usize, longest: u32, vocab_size: u32) -> Vec<Request> {
    let ids = |idx: u32| {
        let n_ids = 1 + (idx * 37) % longest;
        (0..n_ids).map(|i| (i * i * 13 + 5 * i + idx) % vocab_size).collect()
    };
    let request = |idx: u32| {
        let sampling = match idx % 3 {
            0 => Sampling::greedy(),
            1 => Sampling::default(),
            _ => Sampling { temperature: 0.7, top_p: Some(0.9), ..Sampling::default() },
        };
        let settings = Settings {
            sampling,
            n: 1 + idx as usize % 3,
            max_new_tokens: 3 + (idx as usize * 11) % 29,
            frequency_penalty: f64::from(idx % 2) * 0.5,
            presence_penalty: f64::from(idx % 4) * 0.25,
            ..Settings::default()
        };
        Request { prompt: ids(idx), settings, seed: u64::from(idx) }
    };
    (0..n as u32).map(request).collect()
}

/// Decodes all requests in one batch: request `i` joins after `i` steps, or later where `max_rows` sequences are in it.
fn together(model: &CausalLm, requests: &[Request], max_rows: usize) -> Vec<Vec<Vec<u32>>> {
    let empty = |request: &Request| vec![Vec::new(); request.settings.n];
    let mut tokens: Vec<Vec<Vec<u32>>> = requests.iter().map(empty).collect();
    let mut batch: LiveBatch<'_, (usize, usize)> = LiveBatch::new(model);
    let mut known = Prefixes::new(1 << 20);
    let mut waiting = requests.iter().enumerate().peekable();
    while waiting.peek().is_some() || !batch.is_empty() {
        let mut on_token = |place: &mut (usize, usize), token: generate::Result<LiveToken>| {
            tokens[place.0][place.1].push(token.unwrap().choice.id);
            true
        };
        if let Some((idx, request)) = waiting.next_if(|_| batch.len() < max_rows) {
            let mut reader = PromptReader::new(model, None, request.prompt.clone(), &mut known);
            let prompt = loop {
                if let Some(prompt) = reader.read_piece(&mut known) {
                    break Arc::new(prompt);
                }
                // Others go on between the pieces of a prompt.
                batch.step(&mut on_token);
            };
            let settings = Arc::new(request.settings.clone());
            for completion_idx in 0..request.settings.n {
                let place = (0, completion_idx);
                let sequence =
                    Sequence::new(model, &settings, &request.prompt, place, request.seed);
                batch.add(sequence, (idx, completion_idx), &prompt, &mut on_token);
            }
        }
        batch.step(&mut on_token);
    }
    tokens
}

/// A prompt, and the number of its tokens that were known.
fn read<'a>(
    model: &'a CausalLm,
    ids: &[u32],
    known: &mut Prefixes<'a>,
) -> (Arc<Prompt<'a>>, usize) {
    let mut reader = PromptReader::new(model, None, ids.to_vec(), known);
    loop {
        if let Some(prompt) = reader.read_piece(known) {
            return (Arc::new(prompt), reader.n_shared());
        }
    }
}

fn check(name: &str, model: &CausalLm, requests: &[Request], max_rows: usize) {
    let together = together(model, requests, max_rows);
    for (idx, (request, together)) in requests.iter().zip(together).enumerate() {
        let prompts = std::slice::from_ref(&request.prompt);
        let alone = generate(model, prompts, &request.settings, request.seed, |_| ()).unwrap();
        let alone: Vec<Vec<u32>> = alone.into_iter().map(|completion| completion.tokens).collect();
        assert_eq!(together, alone, "{name}: request {idx}");
    }
}

#[test]
fn sequences_that_join_and_leave_are_those_of_batches_of_their_own() {
    let requests = requests(14, 60, 300);
    for max_rows in [1, 4, 64] {
        check("llama", &golden_llama(), &requests, max_rows);
        check("gpt2", &tiny(&tiny_gpt2(310, true)), &requests[..6], max_rows);
    }
}

/// Prompts of several pieces, layers with windows, and caches that grow and shrink.
#[test]
fn long_and_short_texts_share_a_batch() {
    let device = kernels::device("cpu").unwrap();
    for keys in tiny_decoders(50) {
        let mut keys = keys;
        let family = keys["model_type"].as_str().unwrap_or_default().to_owned();
        let config = ModelConfig::from_json(&keys, std::path::Path::new("tiny")).unwrap();
        if config.rope_depends_on_length() {
            continue;
        }
        keys["max_position_embeddings"] = 2000.into();
        if !keys["sliding_window"].is_null() {
            keys["sliding_window"] = 20.into();
        }
        let config = ModelConfig::from_json(&keys, std::path::Path::new("tiny")).unwrap();
        let model = CausalLm::init(&config, 3, &device);
        let mut requests = requests(8, 30, 50);
        requests[3].prompt = (0..1100).map(|i| (i * i + 7 * i) % 50).collect();
        requests[5].prompt = (0..700).map(|i| (i * i + 3 * i) % 50).collect();
        check(&family, &model, &requests, 6);
    }
}

#[test]
fn a_sequence_that_nobody_waits_for_leaves() {
    let model = golden_llama();
    let settings = Arc::new(Settings { max_new_tokens: 50, ..Settings::default() });
    let mut batch: LiveBatch<'_, usize> = LiveBatch::new(&model);
    let prompt = read(&model, &[5, 6, 7], &mut Prefixes::new(0)).0;
    let mut counts = [0; 3];
    let mut on_token = |idx: &mut usize, _: generate::Result<LiveToken>| {
        counts[*idx] += 1;
        *idx != 1 || counts[1] < 4
    };
    for idx in 0..3 {
        let sequence = Sequence::new(&model, &settings, &[5, 6, 7], (0, idx), 1);
        batch.add(sequence, idx, &prompt, &mut on_token);
    }
    for _ in 0..6 {
        batch.step(&mut on_token);
    }
    batch.retain(|idx| *idx != 2);
    assert_eq!(batch.len(), 1);
    while !batch.is_empty() {
        batch.step(&mut on_token);
    }
    assert_eq!(counts, [50, 4, 7]);
}

#[test]
fn penalties_and_biases_change_the_logits_of_their_tokens() {
    let model = golden_llama();
    let run = |settings: Settings| {
        generate(&model, &[vec![9, 8, 7]], &settings, 3, |_| ()).unwrap().remove(0).tokens
    };
    let plain =
        Settings { sampling: Sampling::greedy(), max_new_tokens: 40, ..Settings::default() };
    let first = run(plain.clone())[0];
    let biased = run(Settings { logit_bias: vec![(7, 1e4)], ..plain.clone() });
    assert_eq!(biased, vec![7; 40]);
    let banned = run(Settings { logit_bias: vec![(first, -1e4)], ..plain.clone() });
    assert!(!banned.contains(&first));
    // A penalty that no difference of logits outweighs: no token twice.
    for (presence_penalty, frequency_penalty) in [(1e4, 0.0), (0.0, 1e4)] {
        let mut ids = run(Settings { presence_penalty, frequency_penalty, ..plain.clone() });
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 40);
    }
    // With a count, a token that has been there twice is less likely than one that has been there once.
    let settings =
        Settings { logit_bias: vec![(7, 2e4), (8, 2e4 - 0.5)], frequency_penalty: 1.0, ..plain };
    let ids = run(settings);
    let n_sevens = ids.iter().filter(|&&id| id == 7).count();
    assert!((15..=25).contains(&n_sevens), "{ids:?}");
}

#[test]
fn the_models_own_logprobs_are_reported() {
    let model = golden_llama();
    let sampling = Sampling { temperature: 0.5, top_k: Some(3), ..Sampling::default() };
    let settings = Settings {
        sampling,
        max_new_tokens: 12,
        top_logprobs: Some(4),
        presence_penalty: 2.0,
        ..Settings::default()
    };
    let mut batch: LiveBatch<'_, ()> = LiveBatch::new(&model);
    let prompt = read(&model, &[3, 1, 4], &mut Prefixes::new(0)).0;
    let mut ids = vec![3, 1, 4];
    let mut reported = Vec::new();
    let mut on_token = |(): &mut (), token: generate::Result<LiveToken>| {
        let token = token.unwrap();
        ids.push(token.choice.id);
        reported.push(token.choice.of_model.unwrap());
        if ids.len() == 15 {
            assert_eq!(token.finish_reason, Some(FinishReason::Length));
        }
        true
    };
    let sequence = Sequence::new(&model, &Arc::new(settings), &[3, 1, 4], (0, 0), 2);
    batch.add(sequence, (), &prompt, &mut on_token);
    while !batch.is_empty() {
        batch.step(&mut on_token);
    }
    assert_eq!(reported.len(), 12);
    let device = kernels::device("cpu").unwrap();
    let logits = model.logits(model.forward(&nn::TokenBatch::of_rows(&ids, 1, &device)).hidden_btd);
    let logits = testkit::values(&logits);
    let rows = logits.chunks(model.config().vocab_size()).skip(2);
    for ((row, &id), reported) in rows.zip(&ids[3..]).zip(reported) {
        let of = |id: u32| generate::logprob(row, id, 1.0);
        assert!((reported.chosen - of(id)).abs() < 5e-5);
        assert_eq!(reported.top.len(), 4);
        for (id, logprob) in &reported.top {
            assert!((logprob - of(*id)).abs() < 5e-5);
        }
        assert!(reported.top.is_sorted_by(|a, b| a.1 >= b.1));
        assert_eq!(reported.top.first().map(|top| top.0), generate::argmax(row));
    }
}

/// The logits of a prompt whose beginning is known are those without it, to the bit.
#[test]
fn known_beginnings_change_no_bit() {
    let device = kernels::device("cpu").unwrap();
    let mut n_shared_in_all = 0;
    for mut keys in tiny_decoders(50) {
        keys["max_position_embeddings"] = 2000.into();
        if !keys["sliding_window"].is_null() {
            keys["sliding_window"] = 20.into();
        }
        let config = ModelConfig::from_json(&keys, std::path::Path::new("tiny")).unwrap();
        let model = CausalLm::init(&config, 3, &device);
        let ids = |n: u32, factor: u32| -> Vec<u32> {
            (0..n).map(|i| (i * i + factor * i) % 50).collect()
        };
        let long = ids(700, 7);
        let other = [&long[..300], &ids(200, 11)].concat();
        let longer = [&long[..], &ids(100, 3)].concat();
        let mut known = Prefixes::new(1 << 24);
        for prompt in [&long, &other, &longer, &long, &ids(90, 7), &long[..257].to_vec()] {
            let (shared, n_shared) = read(&model, prompt, &mut known);
            let (alone, none) = read(&model, prompt, &mut Prefixes::new(0));
            assert_eq!((shared.logits(), none), (alone.logits(), 0), "{}", keys["model_type"]);
            n_shared_in_all += n_shared;
        }
    }
    // Of each model: nothing, 256 (a power of two), 640, 640, nothing and 256 tokens.
    let n_models = tiny_decoders(50).len();
    assert!(n_shared_in_all > 1500 * n_models / 2, "{n_shared_in_all}");
}
