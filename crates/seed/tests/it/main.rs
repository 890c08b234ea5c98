//! Pinned values, bijections, and the statistics of the shuffle and the generator.

use std::collections::BTreeSet;

use proptest::prelude::*;
use seed::{Purpose, Rng, derive, shuffled_index};

/// Changing one of these values changes every run of every user: never update them. They were computed by an independent
/// Python implementation.
#[test]
fn derived_keys_are_pinned() {
    assert_eq!(derive(1, "pretrain", Purpose::Init, 0, 0), PIN_A);
    assert_eq!(derive(1, "pretrain", Purpose::Shuffle, 3, 7), PIN_B);
    assert_eq!(derive(u64::MAX, "", Purpose::Eval, u64::MAX, u64::MAX), PIN_C);
    let order: Vec<u64> = (0..10).map(|i| shuffled_index(42, 10, i)).collect();
    assert_eq!(order, PIN_ORDER);
    let mut rng = Rng::new(42);
    assert_eq!([rng.next_u64(), rng.next_u64(), rng.below(1000)], PIN_RNG);
    assert_eq!(format!("{:.6} {:.6}", rng.normal(), rng.normal()), PIN_NORMAL);
}

const PIN_A: u64 = 16_443_092_251_177_349_676;
const PIN_B: u64 = 11_287_660_174_082_599_607;
const PIN_C: u64 = 7_613_152_641_459_654_270;
const PIN_ORDER: [u64; 10] = [2, 6, 7, 4, 9, 8, 5, 3, 0, 1];
const PIN_RNG: [u64; 3] = [17_722_514_536_119_504_384, 780_345_652_393_288_209, 27];
const PIN_NORMAL: &str = "-0.272632 2.394642";

#[test]
fn every_argument_changes_the_key() {
    let purposes = [
        Purpose::Init,
        Purpose::Shuffle,
        Purpose::Mix,
        Purpose::Split,
        Purpose::Sample,
        Purpose::Dropout,
        Purpose::LoraInit,
        Purpose::Pairs,
        Purpose::Rollout,
        Purpose::Eval,
    ];
    let mut keys = BTreeSet::new();
    let mut n_keys = 0;
    for run_seed in 0..3 {
        for stage in ["", "sft", "pretrain", "sftinit"] {
            for purpose in purposes {
                for step in 0..8 {
                    for index in 0..8 {
                        keys.insert(derive(run_seed, stage, purpose, step, index));
                        n_keys += 1;
                    }
                }
            }
        }
    }
    assert_eq!(keys.len(), n_keys);
}

#[test]
fn small_shuffles_reach_every_permutation() {
    let mut seen = BTreeSet::new();
    for key in 0..2000 {
        seen.insert((0..4).map(|i| shuffled_index(key, 4, i)).collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 24);
}

/// Each item occurs at each position about equally often (chi-squared, 15 degrees of freedom).
#[test]
fn shuffles_are_uniform() {
    const N: usize = 16;
    let mut counts = [[0_u32; N]; N];
    for key in 0..16_000_u64 {
        for i in 0..N {
            counts[i][shuffled_index(key, N as u64, i as u64) as usize] += 1;
        }
    }
    for row in counts {
        let chi: f64 = row.iter().map(|&c| (f64::from(c) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 45.0, "chi-squared {chi}");
    }
}

#[test]
fn normals_have_mean_0_and_variance_1() {
    let mut rng = Rng::new(7);
    let mut values = vec![0.0; 200_000];
    rng.fill_normal(&mut values, 2.0);
    let n = values.len() as f64;
    let mean: f64 = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
    let fourth: f64 = values.iter().map(|&v| f64::from(v).powi(4)).sum::<f64>() / n;
    assert!(mean.abs() < 0.02, "{mean}");
    assert!((variance - 4.0).abs() < 0.05, "{variance}");
    assert!((fourth / variance.powi(2) - 3.0).abs() < 0.05, "{fourth}");
}

#[test]
fn a_stream_can_start_anywhere() {
    let mut whole = Rng::new(9);
    let values: Vec<u64> = (0..20).map(|_| whole.next_u64()).collect();
    for start in 0..20 {
        let mut part = Rng::at(9, start);
        assert_eq!(part.next_u64(), values[start as usize]);
        if start < 19 {
            assert_eq!(part.next_u64(), values[start as usize + 1]);
        }
    }
}

proptest! {
    #[test]
    fn shuffling_is_a_bijection(key: u64, n in 1_u64..3000) {
        let mut seen = vec![false; n as usize];
        for i in 0..n {
            let j = shuffled_index(key, n, i) as usize;
            prop_assert!(!seen[j]);
            seen[j] = true;
        }
    }

    #[test]
    fn large_domains_stay_inside(key: u64, n in 1_u64.., fraction in 0.0..1.0_f64) {
        let i = ((n as f64 * fraction) as u64).min(n - 1);
        prop_assert!(shuffled_index(key, n, i) < n);
    }

    #[test]
    fn uniform_values_stay_inside(key: u64, n in 1_u64..) {
        let mut rng = Rng::new(key);
        prop_assert!(rng.below(n) < n);
        prop_assert!((0.0..1.0).contains(&rng.f64()));
        prop_assert!((0.0..1.0).contains(&rng.f32()));
    }
}
