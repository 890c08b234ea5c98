//! A tiny policy with its reference, reward and value model, and rollouts by hand.

use std::path::Path;

use arch::ModelConfig;
use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use rl::{ActorCritic, Conventions, KlEstimator, Rollouts, Sampling, Settings};
use testkit::tiny_llama;

/// Ids of the tiny models, and the one that ends an answer.
pub(crate) const VOCAB_SIZE: usize = 40;
pub(crate) const END: u32 = 2;

pub(crate) struct Roles {
    pub(crate) actors: ActorCritic,
    pub(crate) reference: CausalLm,
    pub(crate) reward: ScalarModel,
}

fn config() -> ModelConfig {
    ModelConfig::from_json(&tiny_llama(VOCAB_SIZE), Path::new("config.json")).unwrap()
}

/// A reward model with weights of this seed.
pub(crate) fn scorer(seed: u64) -> ScalarModel {
    let backbone = CausalLm::init(&config(), seed, &Device::flex()).backbone;
    ScalarModel::from_backbone(backbone, &config(), seed)
}

/// Policy and reference differ, so that the KL is not zero.
pub(crate) fn roles() -> Roles {
    let training = Device::flex().autodiff();
    let head = |seed, device: &Device| {
        ScalarModel::from_backbone(
            CausalLm::init(&config(), seed, device).backbone,
            &config(),
            seed,
        )
    };
    Roles {
        actors: ActorCritic {
            policy: CausalLm::init(&config(), 1, &training),
            value: head(3, &training),
        },
        reference: CausalLm::init(&config(), 2, &Device::flex()),
        reward: head(4, &Device::flex()),
    }
}

pub(crate) fn sampling() -> Sampling {
    Sampling { temperature: 0.7, end_ids: vec![END], max_new_tokens: 6, vocab_size: None }
}

/// Four episodes: ends early, never, at once, with its last token; the last has an end in its prompt.
pub(crate) fn rollouts() -> Rollouts {
    let mut rollouts = Rollouts::new(sampling());
    for (prompt, answer) in [
        (&[5, 6, 7][..], &[8, 9, END][..]),
        (&[10], &[11, 12, 13, 14, 15, 16]),
        (&[20, 21, 22, 23, 24], &[END]),
        (&[END, 30], &[31, 32, 33, 34, 35, END]),
    ] {
        rollouts.push(prompt, answer).unwrap();
    }
    rollouts
}

pub(crate) fn settings() -> Settings {
    Settings {
        conventions: Conventions::RealTokens,
        kl_estimator: KlEstimator::K1,
        kl_coef: 0.05,
        missing_eos_penalty: Some(1.0),
        whiten_rewards: false,
        gamma: 1.0,
        lambda: 0.95,
        clip_range: 0.2,
        clip_range_value: 0.2,
        vf_coef: 0.1,
        n_minibatches: 2,
        target_kl: None,
        micro_batch: 4,
    }
}
