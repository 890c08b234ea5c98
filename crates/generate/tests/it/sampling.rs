//! The filters against transformers' distributions, and against a plain definition of each.

use generate::Sampling;
use seed::Rng;
use testkit::{Golden, golden_dir};

#[test]
fn distributions_equal_those_of_transformers() {
    let file = Golden::open(&golden_dir("sampling.safetensors"));
    let (logits, seen) = (file.f32("logits"), file.ids("input_ids"));
    let plain = Sampling::default();
    let cases = [
        ("temperature_0_7", Sampling { temperature: 0.7, ..plain.clone() }),
        ("top_k_5", Sampling { top_k: Some(5), ..plain.clone() }),
        ("top_p_0_9", Sampling { top_p: Some(0.9), ..plain.clone() }),
        ("min_p_0_1", Sampling { min_p: Some(0.1), ..plain.clone() }),
        ("repetition_1_3", Sampling { repetition_penalty: 1.3, ..plain }),
        (
            "all",
            Sampling {
                temperature: 0.7,
                top_k: Some(20),
                top_p: Some(0.9),
                min_p: Some(0.02),
                repetition_penalty: 1.3,
                greedy: false,
            },
        ),
    ];
    for (name, sampling) in cases {
        let expected = file.f32(&format!("probs.{name}"));
        let rows = logits.chunks(50).zip(seen.chunks(6)).zip(expected.chunks(50));
        for (row, ((logits, seen), expected)) in rows.enumerate() {
            for (got, expected) in sampling.probabilities(logits, seen).iter().zip(expected) {
                assert!((got - expected).abs() <= 1e-6, "{name}, row {row}: {got} and {expected}");
            }
        }
    }
}

/// The definition: sort in ascending order, stably, and remove while the sum from below is at most 1 - p.
fn top_p_by_definition(logits: &[f32], p: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    let (mut sum, mut kept) = (0.0, vec![true; logits.len()]);
    for &id in &order[..order.len() - 1] {
        sum += f64::from(logits[id]).exp() / total;
        kept[id] = sum > 1.0 - p;
    }
    kept
}

#[test]
fn top_p_finds_the_border_at_any_position() {
    let mut rng = Rng::new(7);
    for (size, spread) in [(3, 1.0), (300, 0.1), (5_000, 0.01), (5_000, 4.0)] {
        let mut logits = vec![0.0; size];
        rng.fill_normal(&mut logits, spread);
        for p in [0.05, 0.5, 0.9, 0.999] {
            let mut got = logits.clone();
            Sampling { top_p: Some(p), ..Sampling::default() }.filter(&mut got, &[]);
            let kept: Vec<bool> = got.iter().map(|x| x.is_finite()).collect();
            assert_eq!(kept, top_p_by_definition(&logits, p), "size {size}, p {p}");
        }
    }
}

#[test]
fn top_p_keeps_the_higher_id_of_equals() {
    let mut logits = [0.0; 4];
    Sampling { top_p: Some(0.4), ..Sampling::default() }.filter(&mut logits, &[]);
    assert_eq!(logits.map(f32::is_finite), [false, false, true, true]);
}

#[test]
fn top_k_keeps_tokens_equal_to_the_last_kept() {
    let mut logits = [1.0, 3.0, 2.0, 2.0];
    Sampling { top_k: Some(2), ..Sampling::default() }.filter(&mut logits, &[]);
    assert_eq!(logits, [f32::NEG_INFINITY, 3.0, 2.0, 2.0]);
    let mut all = [1.0, 3.0];
    Sampling { top_k: Some(9), ..Sampling::default() }.filter(&mut all, &[]);
    assert_eq!(all, [1.0, 3.0]);
}

#[test]
fn greedy_ignores_every_filter_except_the_penalty() {
    let sampling = Sampling { temperature: 0.1, repetition_penalty: 2.0, ..Sampling::greedy() };
    let mut logits = [3.0, 2.0, -1.0, 2.0];
    sampling.filter(&mut logits, &[0, 0, 2]);
    assert_eq!(logits, [1.5, 2.0, -2.0, 2.0]);
    assert_eq!(sampling.choose(&logits, &mut Rng::new(0)), Some(1));
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.5_f32, -1.0, f32::NEG_INFINITY, 1.5, 0.0];
    let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
    let expected = sampling.probabilities(&logits, &[]);
    let mut filtered = logits;
    sampling.filter(&mut filtered, &[]);
    let n = 100_000_u32;
    let mut counts = [0_u32; 5];
    for key in 0..n {
        let id = sampling.choose(&filtered, &mut Rng::new(u64::from(key))).unwrap();
        counts[id as usize] += 1;
    }
    assert_eq!(counts[2], 0);
    for (count, p) in counts.iter().zip(expected) {
        let (p, n) = (f64::from(p), f64::from(n));
        let sigma = (p * (1.0 - p) / n).sqrt();
        let share = f64::from(*count) / n;
        assert!((share - p).abs() <= 4.5 * sigma, "{share} instead of {p}");
    }
}

#[test]
fn logprobs_are_at_the_temperature_and_unfiltered() {
    let logits = [1.0, 2.0, 3.0];
    let total: f64 = logits.iter().map(|x| f64::from(x / 0.5_f32).exp()).sum();
    let expected = (2.0 / 0.5 - total.ln()) as f32;
    assert!((generate::logprob(&logits, 1, 0.5) - expected).abs() < 1e-6);
}

#[test]
fn logits_that_are_not_finite_choose_nothing() {
    for sampling in [Sampling::default(), Sampling::greedy()] {
        for logits in [[1.0, f32::NAN], [f32::NEG_INFINITY; 2], [0.0, f32::INFINITY]] {
            assert_eq!(sampling.choose(&logits, &mut Rng::new(1)), None, "{logits:?}");
        }
    }
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let plain = Sampling::default();
    let cases = [
        (
            Sampling { temperature: 0.0, ..plain.clone() },
            "temperature must be at least 0.0001: `0`",
        ),
        (
            Sampling { temperature: f64::NAN, ..plain.clone() },
            "temperature must be at least 0.0001: `NaN`",
        ),
        (Sampling { top_k: Some(0), ..plain.clone() }, "top-k must be at least 1: `0`"),
        (
            Sampling { top_p: Some(1.5), ..plain.clone() },
            "top-p must be above 0 and at most 1: `1.5`",
        ),
        (Sampling { min_p: Some(-0.1), ..plain.clone() }, "min-p must be between 0 and 1: `-0.1`"),
        (
            Sampling { repetition_penalty: -1.0, ..plain },
            "repetition-penalty must be above 0: `-1`",
        ),
    ];
    for (sampling, message) in cases {
        let error = sampling.check().unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some());
    }
}
