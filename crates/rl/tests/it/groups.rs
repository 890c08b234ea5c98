//! Updates on groups: split into micro-batches, shared among replicas, and refused inputs.

use std::thread;

use burn::tensor::Device;
use loss::{AdvantageKind, Aggregation, GroupLoss, GroupObjective, RatioLevel, RewardScale};
use model::CausalLm;
use recipe::{AdamwKeys, OptimizerKind};
use rl::{
    Conventions, Error, GroupSettings, GroupUpdated, RewardTable, Rollouts, ScoredGroups,
    score_groups, update_groups, weights_hash,
};
use testkit::{Tolerance, assert_close};
use train::{Collective, InProcess, Learner, Optimizer, ParameterNames, SingleReplica};

use crate::support::{END, roles, sampling};

/// Two prompts with four completions each, one of them cut off.
fn rollouts() -> Rollouts {
    let mut rollouts = Rollouts::new(sampling());
    let completions: [&[u32]; 8] = [
        &[8, 9, END],
        &[11, 12, 13, 14, 15, 16],
        &[END],
        &[31, 32, 33, END],
        &[21, END],
        &[22, 23, 24, 25, END],
        &[26, 27, 28, 29, 30, END],
        &[20, 21, END],
    ];
    for (idx, completion) in completions.into_iter().enumerate() {
        let prompt: &[u32] = if idx < 4 { &[5, 6, 7] } else { &[10] };
        rollouts.push(prompt, completion).unwrap();
    }
    rollouts
}

fn rewards(values: [f64; 8]) -> RewardTable {
    RewardTable {
        names: vec!["number".to_owned()],
        weights: vec![1.0],
        values: values.map(|value| vec![value]).to_vec(),
    }
}

const REWARDS: [f64; 8] = [1.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 1.0];

fn settings(loss: GroupLoss) -> GroupSettings {
    GroupSettings {
        conventions: Conventions::RealTokens,
        objective: GroupObjective {
            loss,
            level: RatioLevel::Token,
            epsilon: 0.2,
            epsilon_high: 0.28,
            delta: None,
            beta: 0.04,
            corrects_kl: true,
            off_policy_threshold: None,
            entropy_coef: 0.01,
        },
        advantages: AdvantageKind::Group {
            scale: RewardScale::Group,
            aggregation: Aggregation::SumThenNormalize,
        },
        reward_beta: 0.0,
        num_generations: 4,
        num_iterations: 2,
        n_minibatches: 2,
        mask_truncated_completions: true,
        top_entropy_quantile: 0.7,
        micro_batch: 8,
        shares_prompts: true,
    }
}

fn score(settings: &GroupSettings, replicas: &dyn Collective) -> rl::Result<ScoredGroups> {
    let roles = roles();
    let (policy, reference) = (&roles.actors.policy, Some(&roles.reference));
    let (rewards, device) = (rewards(REWARDS), Device::flex());
    score_groups(rollouts(), rewards, policy, reference, settings, &device, replicas)
}

fn update(
    policy: CausalLm,
    scored: &ScoredGroups,
    settings: &GroupSettings,
    replicas: &dyn Collective,
) -> rl::Result<GroupUpdated> {
    let optimizer = recipe::Optimizer {
        kind: OptimizerKind::AdamW(AdamwKeys { betas: [0.9, 0.999], eps: 1e-8 }),
        max_grad_norm: 0.0,
        ..recipe::Optimizer::adamw(1e-2)
    };
    let (names, device) = (ParameterNames::of(&policy), Device::flex());
    let optimizer = Optimizer::new(optimizer, &policy).expect("no groups");
    let unchecked = Learner::unchecked(optimizer, names, &device);
    let mut learner = Learner { replicas, ..unchecked };
    let orders = vec![vec![2, 0, 7, 3, 1, 5, 6, 4]; settings.num_iterations];
    update_groups(policy, &mut learner, 1e-2, scored, &orders, settings)
}

fn learned(settings: &GroupSettings, replicas: &dyn Collective) -> GroupUpdated {
    let scored = score(settings, replicas).expect("scored");
    update(roles().actors.policy, &scored, settings, replicas).expect("an update")
}

const LOSSES: [GroupLoss; 9] = [
    GroupLoss::Grpo,
    GroupLoss::Bnpo,
    GroupLoss::DrGrpo,
    GroupLoss::Dapo,
    GroupLoss::Cispo,
    GroupLoss::Sapo { temperature_pos: 1.0, temperature_neg: 1.05 },
    GroupLoss::Vespo { pos: (2.0, 3.0), neg: (3.0, 2.0) },
    GroupLoss::Luspo,
    GroupLoss::Rloo,
];

fn assert_same(wanted: &GroupUpdated, found: &GroupUpdated, what: &str) {
    assert_eq!(wanted.steps.len(), found.steps.len());
    for (wanted, found) in wanted.steps.iter().zip(&found.steps) {
        assert_eq!(wanted.len(), found.len());
        for (name, value) in wanted {
            let close = Tolerance { absolute: 2e-4, of_largest: 2e-4 };
            assert_close(&format!("{what} {name}"), &[found[name] as f32], &[*value as f32], close);
        }
    }
}

#[test]
fn micro_batches_change_no_loss_and_no_metric() {
    for loss in LOSSES {
        let whole = learned(&settings(loss), &SingleReplica);
        assert_eq!(whole.steps.len(), 4);
        let split = GroupSettings { micro_batch: 1, ..settings(loss) };
        assert_same(&whole, &learned(&split, &SingleReplica), &format!("{loss:?}"));
    }
}

/// Relative differences of log-probabilities, losses, metrics and gradients between the two layouts.
const ROUNDING: Tolerance = Tolerance { absolute: 1e-6, of_largest: 1e-5 };

/// The difference of each weight after one step that is proportional to its gradient.
fn descent(scored: &ScoredGroups, settings: &GroupSettings) -> (GroupUpdated, Vec<Vec<f32>>) {
    let policy = roles().actors.policy;
    let before = weights(&policy);
    // Beside so large an epsilon, AdamW's second moments do not count.
    let optimizer = recipe::Optimizer {
        kind: OptimizerKind::AdamW(AdamwKeys { betas: [0.9, 0.999], eps: 1e3 }),
        max_grad_norm: 0.0,
        weight_decay: 0.0,
        ..recipe::Optimizer::adamw(1e6)
    };
    let (names, device) = (ParameterNames::of(&policy), Device::flex());
    let optimizer = Optimizer::new(optimizer, &policy).expect("no groups");
    let mut learner = Learner::unchecked(optimizer, names, &device);
    let orders = [vec![2, 0, 7, 3, 1, 5, 6, 4]];
    let updated = update_groups(policy, &mut learner, 1e6, scored, &orders, settings);
    let updated = updated.expect("an update");
    let after = weights(&updated.policy);
    let differences = |(before, after): (&Vec<f32>, &Vec<f32>)| {
        before.iter().zip(after).map(|(before, after)| after - before).collect()
    };
    let differences = before.iter().zip(&after).map(differences).collect();
    (updated, differences)
}

fn weights(policy: &CausalLm) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    let visited = model::visit_tensors(policy, |_, _, values| {
        all.push(values.to_vec());
        Ok::<(), std::convert::Infallible>(())
    });
    assert!(visited.is_ok());
    all
}

#[test]
fn shared_prompts_change_rounding_alone() {
    for loss in LOSSES {
        // Whole groups, parts of groups, and micro-batches that end within a group.
        for micro_batch in [8, 4, 3] {
            let one_step = GroupSettings { num_iterations: 1, n_minibatches: 1, ..settings(loss) };
            let shared = GroupSettings { micro_batch, ..one_step };
            let apart = GroupSettings { shares_prompts: false, ..shared.clone() };
            let what = format!("{loss:?} {micro_batch}");
            let found = score(&shared, &SingleReplica).expect("scored");
            let wanted = score(&apart, &SingleReplica).expect("scored");
            for (found, wanted) in found.episodes.iter().zip(&wanted.episodes) {
                assert!(!wanted.logprobs.is_empty() && !wanted.entropies.is_empty());
                assert_close(&what, &found.logprobs, &wanted.logprobs, ROUNDING);
                assert_close(&what, &found.ref_logprobs, &wanted.ref_logprobs, ROUNDING);
                assert_close(&what, &found.entropies, &wanted.entropies, ROUNDING);
            }
            let ((found, gradients), (wanted, wanted_gradients)) =
                (descent(&found, &shared), descent(&wanted, &apart));
            for (name, wanted) in &wanted.steps[0] {
                let what = format!("{what} {name}");
                assert_close(&what, &[found.steps[0][name] as f32], &[*wanted as f32], ROUNDING);
            }
            assert_eq!(gradients.len(), wanted_gradients.len());
            for (idx, (found, wanted)) in gradients.iter().zip(&wanted_gradients).enumerate() {
                assert!(wanted.iter().any(|value| *value != 0.0));
                assert_close(&format!("{what} gradient {idx}"), found, wanted, ROUNDING);
            }
        }
    }
}

#[test]
fn updates_of_several_steps_have_the_same_losses_with_shared_prompts() {
    for loss in LOSSES {
        for micro_batch in [8, 3] {
            let shared = GroupSettings { micro_batch, ..settings(loss) };
            let apart = GroupSettings { shares_prompts: false, ..shared.clone() };
            let wanted = learned(&apart, &SingleReplica);
            assert_same(&wanted, &learned(&shared, &SingleReplica), &format!("{loss:?}"));
        }
    }
}

#[test]
fn replicas_share_scoring_and_learning() {
    let settings = settings(GroupLoss::Dapo);
    let alone = learned(&settings, &SingleReplica);
    // With three, minibatches of four are split unevenly.
    for world_size in [2, 3] {
        let found: Vec<GroupUpdated> = thread::scope(|scope| {
            let settings = &settings;
            let threads: Vec<_> = InProcess::replicas(world_size)
                .into_iter()
                .map(|replica| scope.spawn(move || learned(settings, &replica)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a replica")).collect()
        });
        for updated in &found {
            assert_same(&alone, updated, &format!("{world_size} replicas"));
            // All replicas have the same weights, to the bit.
            assert_eq!(weights_hash(&updated.policy), weights_hash(&found[0].policy));
        }
    }
}

#[test]
fn a_single_step_needs_no_old_log_probabilities() {
    let mut settings = GroupSettings {
        num_iterations: 1,
        n_minibatches: 1,
        top_entropy_quantile: 1.0,
        ..settings(GroupLoss::Dapo)
    };
    settings.objective.beta = 0.0;
    let scored = score(&settings, &SingleReplica).expect("scored");
    assert!(scored.episodes.iter().all(|e| e.logprobs.is_empty() && e.ref_logprobs.is_empty()));
    let mut with_old = scored.clone();
    let several = GroupSettings { n_minibatches: 2, ..settings.clone() };
    let old = score(&several, &SingleReplica).expect("scored");
    for (episode, old) in with_old.episodes.iter_mut().zip(old.episodes) {
        assert!(!old.logprobs.is_empty());
        episode.logprobs = old.logprobs;
    }
    let without = update(roles().actors.policy, &scored, &settings, &SingleReplica).unwrap();
    let with = update(roles().actors.policy, &with_old, &settings, &SingleReplica).unwrap();
    assert_same(&without, &with, "old log-probabilities");
}

#[test]
fn only_the_policy_that_sampled_can_be_trained() {
    let settings = settings(GroupLoss::Grpo);
    let mut scored = score(&settings, &SingleReplica).expect("scored");
    for episode in &mut scored.episodes {
        for logprob in &mut episode.logprobs {
            *logprob -= 0.01;
        }
    }
    let error = update(roles().actors.policy, &scored, &settings, &SingleReplica).unwrap_err();
    assert!(matches!(error, Error::FirstRatio { .. }), "{error}");
}

#[test]
fn groups_without_differences_change_nothing() {
    let mut settings = settings(GroupLoss::Dapo);
    (settings.objective.beta, settings.objective.entropy_coef) = (0.0, 0.0);
    let roles = roles();
    let (policy, device) = (roles.actors.policy, Device::flex());
    let equal = rewards([0.5; 8]);
    let scored =
        score_groups(rollouts(), equal, &policy, None, &settings, &device, &SingleReplica).unwrap();
    assert_eq!(scored.metrics["frac_reward_zero_std"], 1.0);
    let before = weights_hash(&policy);
    let updated = update(policy, &scored, &settings, &SingleReplica).unwrap();
    assert!(updated.steps.iter().all(|step| step["grad_norm"] == 0.0));
    assert_eq!(weights_hash(&updated.policy), before);
}

#[test]
fn wrong_inputs_are_refused() {
    let settings = settings(GroupLoss::Dapo);
    let three = GroupSettings { num_generations: 3, ..settings.clone() };
    let error = score(&three, &SingleReplica).unwrap_err();
    assert!(matches!(error, Error::Groups { n_episodes: 8, num_generations: 3 }), "{error}");
    let one = GroupSettings { num_generations: 1, ..settings.clone() };
    let error = score(&one, &SingleReplica).unwrap_err();
    assert_eq!(error.to_string(), "`num_generations` must be at least 2: `1`");
    let (roles, device) = (roles(), Device::flex());
    let table = rewards(REWARDS);
    let policy = &roles.actors.policy;
    let error = score_groups(rollouts(), table, policy, None, &settings, &device, &SingleReplica);
    assert!(matches!(error.unwrap_err(), Error::NoReference));
}
