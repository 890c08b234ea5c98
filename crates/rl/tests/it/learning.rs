//! Updates on scored episodes, and refused inputs.

use burn::tensor::Device;
use recipe::{AdamwKeys, OptimizerKind};
use rl::{ActorCritic, Conventions, Error, Rollouts, Scored, Settings, Updated, weights_hash};
use testkit::{Tolerance, assert_close};
use train::{Checks, FirstLoss, Learner, Optimizer, ParameterNames};

use crate::support::{END, Roles, roles, rollouts, settings};

fn score(roles: &Roles, rollouts: Rollouts, settings: &Settings) -> Scored {
    let device = Device::flex();
    rl::score(rollouts, &roles.actors, &roles.reference, &roles.reward, settings, &device).unwrap()
}

fn update(
    actors: ActorCritic,
    scored: &Scored,
    orders: &[Vec<usize>],
    settings: &Settings,
) -> rl::Result<Updated> {
    let optimizer = recipe::Optimizer {
        kind: OptimizerKind::AdamW(AdamwKeys { betas: [0.9, 0.999], eps: 1e-8 }),
        max_grad_norm: 0.0,
        ..recipe::Optimizer::adamw(1e-2)
    };
    let (names, device) = (ParameterNames::of(&actors), Device::flex());
    let optimizer = Optimizer::new(optimizer, &actors).expect("no groups");
    let mut learner = Learner::unchecked(optimizer, names, &device);
    rl::update(actors, &mut learner, 1e-2, scored, orders, settings)
}

fn orders() -> Vec<Vec<usize>> {
    vec![vec![2, 0, 3, 1], vec![1, 2, 3, 0]]
}

fn weights(actors: &ActorCritic) -> Vec<f32> {
    let mut all = Vec::new();
    model::visit_tensors(actors, |_, _, values| {
        all.extend_from_slice(values);
        Ok::<(), ()>(())
    })
    .unwrap();
    all
}

#[test]
fn micro_batches_change_nothing() {
    let learn = |micro_batch| {
        let (roles, settings) = (roles(), Settings { micro_batch, ..settings() });
        let scored = score(&roles, rollouts(), &settings);
        update(roles.actors, &scored, &orders(), &settings).unwrap()
    };
    let (whole, split) = (learn(4), learn(1));
    assert_eq!((whole.n_steps, split.n_steps), (4, 4));
    for (name, value) in &whole.metrics {
        let close = Tolerance::absolute(1e-4);
        assert_close(name, &[split.metrics[name] as f32], &[*value as f32], close);
    }
    let before = weights(&roles().actors);
    let (whole, split) = (weights(&whole.actors), weights(&split.actors));
    // AdamW turns a gradient that is rounding alone into a step, so single weights may differ.
    let distance = |a: &[f32], b: &[f32]| -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
    };
    let (moved, apart) = (distance(&before, &whole), distance(&whole, &split));
    assert!(apart < 1e-3 * moved, "apart by {apart:e}, moved by {moved:e}");
}

#[test]
fn what_was_sampled_behind_the_end_is_never_learned_from() {
    let learn = |behind: &[u32]| {
        let (roles, settings) = (roles(), settings());
        let mut rollouts = Rollouts::new(crate::support::sampling());
        for prompt in [[5, 6], [7, 8]] {
            rollouts.push(&prompt, &[&[9, END], behind].concat()).unwrap();
        }
        let scored = score(&roles, rollouts, &settings);
        weights(&update(roles.actors, &scored, &[vec![1, 0]], &settings).unwrap().actors)
    };
    assert!(learn(&[]) == learn(&[11, END, 12]));
}

#[test]
fn only_policy_and_value_move() {
    for conventions in [Conventions::RealTokens, Conventions::Trl] {
        let (roles, settings) = (roles(), Settings { conventions, ..settings() });
        let hashes = || [weights_hash(&roles.reference), weights_hash(&roles.reward)];
        let before = hashes();
        let policy_before = weights_hash(&roles.actors.policy);
        let scored = score(&roles, rollouts(), &settings);
        let updated = update(roles.actors.clone(), &scored, &orders(), &settings).unwrap();
        assert_eq!(hashes(), before);
        assert_ne!(weights_hash(&updated.actors.policy), policy_before);
        assert_eq!(updated.metrics["val/num_eos_tokens"], 3.0);
        assert!(updated.metrics["policy/entropy_avg"] > 0.0);
    }
}

#[test]
fn an_update_stops_where_the_policy_has_gone_too_far() {
    let (roles, settings) = (roles(), Settings { target_kl: Some(1e-9), ..settings() });
    let scored = score(&roles, rollouts(), &settings);
    let updated = update(roles.actors, &scored, &orders(), &settings).unwrap();
    assert_eq!(updated.n_steps, 1);
}

/// As after whitening where one completion of one token has a reward: the policy has no gradient for longer than the checks of
/// the first updates wait for one.
#[test]
fn an_update_without_any_advantage_needs_no_gradient() {
    let (roles, settings) = (roles(), settings());
    let mut scored = score(&roles, rollouts(), &settings);
    for (idx, episode) in scored.episodes.iter_mut().enumerate() {
        episode.advantages.fill(0.0);
        if idx > 0 {
            episode.score = f32::NAN;
        }
    }
    let actors = roles.actors;
    let optimizer = Optimizer::new(recipe::Optimizer::adamw(1e-2), &actors).expect("no groups");
    let (names, device) = (ParameterNames::of(&actors), Device::flex());
    let mut learner = Learner::unchecked(optimizer, names.clone(), &device);
    learner.checks =
        Checks::start(recipe::ChecksSection::default(), &actors, &names, FirstLoss::Unknown);
    let orders = [orders(), orders(), orders()].concat();
    let updated = rl::update(actors, &mut learner, 1e-2, &scored, &orders, &settings);
    assert_eq!(updated.unwrap().n_steps, 12);
}

#[test]
fn mistakes_are_refused_before_anything_is_learned() {
    let roles = roles();
    let scored = score(&roles, rollouts(), &settings());
    let learn = |scored: &Scored, orders: &[Vec<usize>], settings: &Settings| {
        update(roles.actors.clone(), scored, orders, settings).unwrap_err()
    };
    let twice = learn(&scored, &[vec![0, 1, 2, 2]], &settings());
    assert!(matches!(twice, Error::Order { epoch: 0, n_episodes: 4 }));
    let uneven = Settings { n_minibatches: 3, ..settings() };
    assert!(matches!(learn(&scored, &orders(), &uneven), Error::Minibatches { .. }));
    let wide = Settings { clip_range: 1.5, ..settings() };
    let error = learn(&scored, &orders(), &wide);
    assert_eq!(error.to_string(), "`clip_range` must be between 0 and 1: `1.5`");
    assert!(error.hint().is_some());

    // Log-probabilities of another policy: the ratio tells.
    let mut other = scored.clone();
    other.episodes[2].logprobs[0] -= 0.01;
    assert!(matches!(learn(&other, &orders(), &settings()), Error::FirstRatio { .. }));
}
