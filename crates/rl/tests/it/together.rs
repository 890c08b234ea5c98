//! An update that is shared among replicas is the update of one.

use std::thread;

use burn::tensor::Device;
use recipe::{AdamwKeys, OptimizerKind};
use rl::{Scored, Settings, Updated};
use testkit::{Tolerance, assert_close};
use train::{Collective, InProcess, Learner, Optimizer, ParameterNames};

use crate::support::{roles, rollouts, settings};

fn scored_and_learned(replicas: &dyn Collective, settings: &Settings) -> (Scored, Updated) {
    let (roles, device) = (roles(), Device::flex());
    let (actors, reference, reward) = (&roles.actors, &roles.reference, &roles.reward);
    let scored =
        rl::score_together(rollouts(), actors, reference, reward, settings, &device, replicas);
    let scored = scored.expect("scored");
    let optimizer = recipe::Optimizer {
        kind: OptimizerKind::AdamW(AdamwKeys { betas: [0.9, 0.999], eps: 1e-8 }),
        max_grad_norm: 0.0,
        ..recipe::Optimizer::adamw(1e-2)
    };
    let names = ParameterNames::of(&roles.actors);
    let optimizer = Optimizer::new(optimizer, &roles.actors).expect("no groups");
    let unchecked = Learner::unchecked(optimizer, names, &device);
    let mut learner = Learner { replicas, ..unchecked };
    let orders = [vec![2, 0, 3, 1], vec![1, 2, 3, 0]];
    let updated = rl::update(roles.actors, &mut learner, 1e-2, &scored, &orders, settings);
    (scored, updated.expect("an update"))
}

#[test]
fn replicas_share_scoring_and_learning() {
    let settings = Settings { whiten_rewards: true, target_kl: Some(10.0), ..settings() };
    let (wanted, alone) = scored_and_learned(&train::SingleReplica, &settings);
    // With three, one of them has no episode of a minibatch of two.
    for world_size in [2, 3] {
        let found: Vec<(Scored, Updated)> = thread::scope(|scope| {
            let settings = &settings;
            let threads: Vec<_> = InProcess::replicas(world_size)
                .into_iter()
                .map(|replica| scope.spawn(move || scored_and_learned(&replica, settings)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a replica")).collect()
        });
        for (scored, updated) in &found {
            for (episode, wanted) in scored.episodes.iter().zip(&wanted.episodes) {
                let close = Tolerance::absolute(1e-5);
                assert_close("advantages", &episode.advantages, &wanted.advantages, close);
                assert_close("returns", &episode.returns, &wanted.returns, close);
            }
            assert_eq!(updated.n_steps, alone.n_steps);
            for (name, value) in &alone.metrics {
                let close = Tolerance::absolute(1e-4);
                assert_close(name, &[updated.metrics[name] as f32], &[*value as f32], close);
            }
            // All replicas have the same weights, to the bit.
            let hash = |updated: &Updated| rl::weights_hash(&updated.actors.policy);
            assert_eq!(hash(updated), hash(&found[0].1));
            assert_eq!(updated.metrics, found[0].1.metrics);
        }
    }
}
