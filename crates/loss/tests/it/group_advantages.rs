//! Advantages of groups against plain loops, with rewards that are missing.

use loss::{
    AdvantageKind, Aggregation, GroupRewards, RewardScale, entropy_threshold, group_advantages,
};

/// Two groups of four; the last completion of the second has no reward, and the one before it lacks the second.
const VALUES: [[f64; 2]; 8] = [
    [1.0, 0.5],
    [0.0, -1.0],
    [0.0, 0.25],
    [1.0, 0.0],
    [1.0, 2.0],
    [0.0, 1.0],
    [0.0, f64::NAN],
    [f64::NAN, f64::NAN],
];
const WEIGHTS: [f64; 2] = [1.0, 0.5];
const TOTALS: [f64; 7] = [1.25, -0.5, 0.125, 1.0, 2.0, 0.5, 0.0];

fn advantages(kind: AdvantageKind, penalties: &[f64]) -> loss::GroupAdvantages {
    let values: Vec<Vec<f64>> = VALUES.iter().map(|row| row.to_vec()).collect();
    group_advantages(
        &GroupRewards { values: &values, weights: &WEIGHTS, group_size: 4, penalties },
        kind,
    )
}

fn assert_near(got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} is not {expected}");
    }
}

fn group(scale: RewardScale) -> AdvantageKind {
    AdvantageKind::Group { scale, aggregation: Aggregation::SumThenNormalize }
}

#[test]
fn a_completion_without_rewards_counts_in_no_mean() {
    let got = advantages(group(RewardScale::None), &[]);
    let (first, second) = (TOTALS[..4].iter().sum::<f64>() / 4.0, 2.5 / 3.0);
    let mut expected: Vec<f64> = TOTALS[..4].iter().map(|total| total - first).collect();
    expected.extend(TOTALS[4..].iter().map(|total| total - second));
    expected.push(0.0);
    assert_near(&got.advantages, &expected);
    assert!(got.totals[7].is_nan());
    assert_eq!(got.frac_zero_std, 0.0);
}

#[test]
fn deviations_are_those_of_the_group_or_of_the_update() {
    let deviation = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        (squares / (values.len() - 1) as f64).sqrt()
    };
    let plain = advantages(group(RewardScale::None), &[]).advantages;
    let stds = [deviation(&TOTALS[..4]), deviation(&TOTALS[4..])];
    let scaled = |std: [f64; 2]| -> Vec<f64> {
        plain.iter().enumerate().map(|(i, x)| f64::from(*x) / (std[i / 4] + 1e-4)).collect()
    };
    assert_near(&advantages(group(RewardScale::Group), &[]).advantages, &scaled(stds));
    let all = deviation(&TOTALS);
    assert_near(&advantages(group(RewardScale::Batch), &[]).advantages, &scaled([all, all]));
}

#[test]
fn leave_one_out_compares_with_the_others() {
    let kind =
        AdvantageKind::LeaveOneOut { normalize: false, reward_clip_range: Some((-0.25, 1.0)) };
    let penalties = [0.1, 0.0, 0.0, -0.2, 0.0, 0.3, 0.0, 9.0];
    let got = advantages(kind, &penalties);
    let mut rewards: Vec<f64> = TOTALS.iter().map(|total| total.clamp(-0.25, 1.0)).collect();
    for (reward, penalty) in rewards.iter_mut().zip(penalties) {
        *reward -= penalty;
    }
    let others = |i: usize, group: &[f64]| {
        let sum: f64 = group.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, x)| x).sum();
        group[i] - sum / (group.len() - 1) as f64
    };
    let mut expected: Vec<f64> = (0..4).map(|i| others(i, &rewards[..4])).collect();
    expected.extend((0..3).map(|i| others(i, &rewards[4..])));
    expected.push(0.0);
    assert_near(&got.advantages, &expected);
    // Totals are those before clipping.
    assert_eq!(&got.totals[..7], &TOTALS);

    let normalize =
        AdvantageKind::LeaveOneOut { normalize: true, reward_clip_range: Some((-0.25, 1.0)) };
    let known = &expected[..7];
    let mean = known.iter().sum::<f64>() / 7.0;
    let std = (known.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 6.0).sqrt();
    let mut normal: Vec<f64> = known.iter().map(|x| (x - mean) / (std + 1e-4)).collect();
    normal.push(0.0);
    assert_near(&advantages(normalize, &penalties).advantages, &normal);
}

#[test]
fn equal_rewards_have_no_advantage() {
    let values = vec![vec![0.3]; 6];
    let rewards = GroupRewards { values: &values, weights: &[1.0], group_size: 3, penalties: &[] };
    for scale in [RewardScale::Group, RewardScale::Batch, RewardScale::None] {
        let got = group_advantages(&rewards, group(scale));
        assert_eq!(got.advantages, [0.0; 6]);
        assert_eq!(got.frac_zero_std, 1.0);
    }
}

#[test]
fn thresholds_of_entropy_lie_between_neighbours() {
    let entropies = [4.0, 0.0, 2.0, 1.0, 3.0];
    assert_eq!(entropy_threshold(&entropies, 0.5), 2.0);
    assert_eq!(entropy_threshold(&entropies, 0.25), 3.0);
    assert_eq!(entropy_threshold(&entropies, 0.4), 2.4);
    assert_eq!(entropy_threshold(&entropies, 1.0), 0.0);
    assert_eq!(entropy_threshold(&[], 0.5), f32::INFINITY);
}
