//! Whole generations: the reference's continuations, padding, batches, seeds, and every finish reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use generate::{Completion, FinishReason, Sampling, Settings, Stop, generate};
use model::CausalLm;
use nn::TokenBatch;
use testkit::{ByteIds, Golden, Tolerance, assert_close, golden_dir, tiny_gpt2, values};
use tokenizer::Tokenizer;

use crate::{golden_llama, tiny};

fn greedy(max_new_tokens: usize) -> Settings {
    Settings { sampling: Sampling::greedy(), max_new_tokens, ..Settings::default() }
}

fn run(model: &CausalLm, prompts: &[Vec<u32>], settings: &Settings) -> Vec<Completion> {
    generate(model, prompts, settings, 5, |_| ()).unwrap()
}

fn prompts() -> Vec<Vec<u32>> {
    let ids: Vec<u32> = (0..40).map(|i| 3 + (i * i * 13 + 5 * i) % 300).collect();
    [&ids[..1], &ids[2..30], &ids[7..12], &ids[..9], &ids[1..2]].map(<[u32]>::to_vec).to_vec()
}

#[test]
fn greedy_continuations_equal_those_of_transformers() {
    for name in ["models/llama", "models/llama-tied-rope3", "models/llama-bias-headdim"] {
        let dir = golden_dir(name);
        let model = model::load_causal_lm(&dir, &kernels::device("cpu").unwrap()).unwrap();
        let golden = Golden::open(&dir.join("greedy.safetensors"));
        let settings = Settings { min_new_tokens: 24, eos_ids: vec![2], ..greedy(24) };
        let alone = run(&model, &[golden.ids("prompt")], &settings);
        assert_eq!(alone[0].tokens, golden.ids("sequence")[7..], "{name}");

        let padded = golden.ids("left_padded_prompts");
        let settings = Settings { max_new_tokens: 16, ..settings };
        let both = run(&model, &[padded[..9].to_vec(), padded[13..].to_vec()], &settings);
        let expected = golden.ids("left_padded_sequences");
        assert_eq!(both[0].tokens, expected[9..25], "{name}");
        assert_eq!(both[1].tokens, expected[34..], "{name}");
    }
}

/// Completions end with the token after the request, those that wait too.
#[test]
fn an_interrupted_generation_ends() {
    let (model, flag) = (golden_llama(), Arc::new(AtomicBool::new(false)));
    let settings = Settings { interrupt: Some(Arc::clone(&flag)), batch_rows: 2, ..greedy(20) };
    let mut n_tokens = 0;
    let completions = generate(&model, &prompts(), &settings, 5, |_| {
        n_tokens += 1;
        flag.store(n_tokens >= 6, Ordering::Relaxed);
    });
    let completions = completions.unwrap();
    let lengths: Vec<usize> = completions.iter().map(|c| c.tokens.len()).collect();
    assert_eq!(lengths, [4, 4, 1, 1, 1]);
    assert!(completions.iter().all(|c| c.finish_reason == FinishReason::Length));
}

#[test]
fn the_rest_of_the_batch_and_padding_change_nothing() {
    for model in [golden_llama(), tiny(&tiny_gpt2(310, true))] {
        let sampled = Settings { max_new_tokens: 20, n: 3, ..Settings::default() };
        let cut = Sampling {
            temperature: 0.8,
            top_k: Some(40),
            top_p: Some(0.9),
            min_p: Some(0.01),
            repetition_penalty: 1.2,
            greedy: false,
        };
        let cut = Settings { sampling: cut, ..sampled.clone() };
        for settings in [greedy(20), sampled, cut] {
            let together =
                run(&model, &prompts(), &Settings { batch_rows: 64, ..settings.clone() });
            for batch_rows in [1, 2, 4] {
                let other = run(&model, &prompts(), &Settings { batch_rows, ..settings.clone() });
                assert_eq!(other.len(), together.len());
                for (other, together) in other.iter().zip(&together) {
                    assert_eq!(other.tokens, together.tokens);
                    let tolerance = Tolerance::absolute(5e-5);
                    assert_close("logprobs", &other.logprobs, &together.logprobs, tolerance);
                }
            }
        }
    }
}

/// Two completions at a time: as soon as one ends, the next begins, and every completion is that of a batch of its own.
#[test]
fn a_finished_completion_gives_its_place_to_the_next() {
    let model = golden_llama();
    let settings =
        Settings { max_new_tokens: 25, n: 3, eos_ids: (100..120).collect(), ..Settings::default() };
    let alone = run(&model, &prompts(), &Settings { batch_rows: 1, ..settings.clone() });
    let lengths: Vec<usize> = alone.iter().map(|completion| completion.tokens.len()).collect();
    assert!(lengths.contains(&25) && lengths.iter().min() < Some(&8), "{lengths:?}");
    for batch_rows in [2, 5] {
        let settings = Settings { batch_rows, ..settings.clone() };
        let mut order = Vec::new();
        let together =
            generate(&model, &prompts(), &settings, 5, |token| order.push(*token)).unwrap();
        for (together, alone) in together.iter().zip(&alone) {
            assert_eq!(
                (&together.tokens, together.finish_reason),
                (&alone.tokens, alone.finish_reason)
            );
        }
        // A token that ends a completion is followed by the first token of the next one that waits.
        let number = |token: &generate::NewToken| token.prompt_idx * 3 + token.completion_idx;
        let mut begun = batch_rows;
        for pair in order.windows(2) {
            if pair[0].finish_reason.is_some() && begun < alone.len() {
                assert_eq!(number(&pair[1]), begun, "{pair:?}");
                begun += 1;
            }
        }
        assert_eq!(begun, alone.len());
    }
}

#[test]
fn completions_differ_by_seed_prompt_and_number_and_repeat_by_them() {
    let model = golden_llama();
    let settings = Settings { max_new_tokens: 12, n: 4, ..Settings::default() };
    let twice = vec![prompts()[1].clone(); 2];
    let first = run(&model, &twice, &settings);
    assert_eq!(first, run(&model, &twice, &settings));
    let indices: Vec<_> = first.iter().map(|c| (c.prompt_idx, c.completion_idx)).collect();
    assert_eq!(indices, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]);
    let other = generate(&model, &twice, &settings, 6, |_| ()).unwrap();
    let mut all: Vec<_> = first.iter().chain(&other).map(|c| c.tokens.clone()).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 16);
    // More completions of a prompt do not change the first ones.
    let more = run(&model, &twice[..1], &Settings { n: 6, ..settings });
    let tokens = |completions: &[Completion]| -> Vec<Vec<u32>> {
        completions.iter().map(|completion| completion.tokens.clone()).collect()
    };
    assert_eq!(tokens(&more[..4]), tokens(&first[..4]));
}

#[test]
fn logprobs_equal_those_of_a_whole_forward_pass() {
    let model = golden_llama();
    let sampling = Sampling { temperature: 0.7, top_k: Some(50), ..Sampling::default() };
    let settings = Settings { sampling, max_new_tokens: 30, n: 2, ..Settings::default() };
    for completion in run(&model, &prompts(), &settings) {
        let mut ids = prompts()[completion.prompt_idx].clone();
        let n_prompt = ids.len();
        ids.extend(&completion.tokens);
        let device = kernels::device("cpu").unwrap();
        let logits = model.logits(model.forward(&TokenBatch::of_rows(&ids, 1, &device)).hidden_btd);
        let logits = values(&logits);
        let rows = logits.chunks(model.config().vocab_size()).skip(n_prompt - 1);
        let expected: Vec<f32> = rows
            .zip(&completion.tokens)
            .map(|(row, &id)| generate::logprob(row, id, 0.7))
            .collect();
        assert_close("logprobs", &completion.logprobs, &expected, Tolerance::absolute(5e-5));
    }
}

#[test]
fn several_end_ids_end_a_completion_and_are_not_in_its_text() {
    let model = golden_llama();
    let plain = run(&model, &prompts(), &greedy(20));
    // Ids of the second and the third continuation: each ends at the first of them.
    let eos_ids = vec![plain[1].tokens[6], plain[2].tokens[11]];
    let ended = run(&model, &prompts(), &Settings { eos_ids: eos_ids.clone(), ..greedy(20) });
    for (ended, plain) in ended.iter().zip(&plain) {
        match plain.tokens.iter().position(|id| eos_ids.contains(id)) {
            Some(at) => {
                assert_eq!(ended.finish_reason, FinishReason::Eos);
                assert_eq!(ended.tokens, plain.tokens[..=at]);
                assert_eq!(ended.text_tokens(), &plain.tokens[..at]);
                assert_eq!(ended.logprobs.len(), at + 1);
            }
            None => assert_eq!(
                (ended.finish_reason, &ended.tokens),
                (FinishReason::Length, &plain.tokens)
            ),
        }
    }
    assert_eq!(ended[1].finish_reason, FinishReason::Eos);
    let settings = Settings { eos_ids, min_new_tokens: 20, ..greedy(20) };
    for completion in run(&model, &prompts(), &settings) {
        assert_eq!((completion.tokens.len(), completion.finish_reason), (20, FinishReason::Length));
    }
}

#[test]
fn stop_texts_end_a_completion_and_are_removed() {
    let model = golden_llama();
    let specials = tokenizer::default_special_tokens();
    let texts = std::iter::once("ab".to_owned());
    let tokenizer = Tokenizer::train_byte_bpe(texts, 256 + specials.len(), &specials).unwrap();
    let settings = Settings { vocab_size: Some(tokenizer.vocab_size()), ..greedy(20) };
    let plain = run(&model, &prompts()[1..2], &settings);
    let text = plain[0].text(&tokenizer);
    assert_eq!(text, tokenizer.decode(&plain[0].tokens, true));

    let wanted: String = text.chars().filter(|c| *c != '\u{FFFD}').skip(3).take(1).collect();
    let stop = Some(Stop::new(vec![wanted.clone(), String::new()], &tokenizer));
    let stopped = run(&model, &prompts()[1..2], &Settings { stop, ..settings });
    assert_eq!(stopped[0].finish_reason, FinishReason::Stop);
    let n = stopped[0].tokens.len();
    assert!(n < 20 && stopped[0].tokens == plain[0].tokens[..n]);
    assert_eq!(stopped[0].text(&tokenizer), text[..text.find(&wanted).unwrap()]);
}

#[test]
fn the_context_ends_a_completion() {
    let model = tiny(&tiny_gpt2(ByteIds::VOCAB_SIZE, false));
    let prompts = vec![vec![7; 60], vec![9; 10], vec![1; 63]];
    let completions = run(&model, &prompts, &greedy(30));
    let lengths: Vec<_> = completions.iter().map(|c| (c.tokens.len(), c.finish_reason)).collect();
    assert_eq!(lengths, [4, 30, 1].map(|n| (n, FinishReason::Length)));
}

#[test]
fn ids_beyond_the_tokenizer_are_never_chosen() {
    let model = golden_llama();
    for sampling in [Sampling::greedy(), Sampling { temperature: 5.0, ..Sampling::default() }] {
        let settings = Settings { sampling, vocab_size: Some(20), ..greedy(50) };
        for completion in run(&model, &prompts(), &settings) {
            assert!(completion.tokens.iter().all(|&id| id < 20), "{:?}", completion.tokens);
        }
    }
}

#[test]
fn tokens_are_reported_when_they_are_chosen() {
    let model = golden_llama();
    let settings =
        Settings { max_new_tokens: 6, n: 2, eos_ids: (100..140).collect(), ..Settings::default() };
    let mut seen = Vec::new();
    let completions =
        generate(&model, &prompts(), &settings, 5, |token| seen.push(*token)).unwrap();
    for completion in &completions {
        let of = |t: &&generate::NewToken| {
            (t.prompt_idx, t.completion_idx) == (completion.prompt_idx, completion.completion_idx)
        };
        let mine: Vec<_> = seen.iter().filter(of).collect();
        assert_eq!(mine.iter().map(|t| t.id).collect::<Vec<_>>(), completion.tokens);
        let (last, before) = mine.split_last().unwrap();
        assert!(before.iter().all(|t| t.finish_reason.is_none()));
        assert_eq!(last.finish_reason, Some(completion.finish_reason));
    }
}

#[test]
fn a_model_in_training_generates_the_same() {
    let model = golden_llama();
    let device = kernels::device("cpu").unwrap().autodiff();
    let trained = model::load_causal_lm(&golden_dir("models/llama"), &device).unwrap();
    let settings = Settings { max_new_tokens: 10, ..Settings::default() };
    assert_eq!(run(&model, &prompts(), &settings), run(&trained, &prompts(), &settings));
    assert!(trained.num_params() > 0 && trained.head_weight().is_require_grad());
}

#[test]
fn draws_depend_on_a_prompts_number() {
    let model = golden_llama();
    let settings = Settings { max_new_tokens: 12, n: 2, ..Settings::default() };
    let whole = run(&model, &prompts(), &settings);
    let part = run(&model, &prompts()[2..], &Settings { first_prompt: 2, ..settings.clone() });
    assert!(part.iter().map(|c| &c.tokens).eq(whole[4..].iter().map(|c| &c.tokens)));
    let unnumbered = run(&model, &prompts()[2..], &settings);
    assert!(!unnumbered.iter().map(|c| &c.tokens).eq(whole[4..].iter().map(|c| &c.tokens)));
}
