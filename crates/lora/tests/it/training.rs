//! Adapters trained with train's own gradients, optimizer and checks: frozen parameters cost nothing
//! and keep every bit.

use burn::tensor::{Device, Int, Tensor, TensorData};
use lora::{LoraConfig, Targets, attach, layout_of, train_adapters_only};
use loss::{LossSum, pairwise_reward};
use model::{Adaptable, CausalLm, ScalarModel};
use nn::TokenBatch;
use recipe::ChecksSection;
use train::{Checks, FirstLoss, Gradients, Optimizer, ParameterNames, StepPlace};

use super::support::{device, settings, tiny_gpt2, tiny_llama, weights};

const N_STEPS: u64 = 10;

fn optimizer() -> recipe::Optimizer {
    recipe::Optimizer { weight_decay: 0.1, ..recipe::Optimizer::adamw(1e-2) }
}

fn tokens(step: u64) -> (TokenBatch, Vec<i32>) {
    let ids: Vec<u32> = (0..24).map(|i| ((i * 7 + step * 13) % 96) as u32).collect();
    let targets = ids.iter().map(|id| ((id + 7) % 96) as i32).collect();
    (TokenBatch::of_rows(&ids, 2, &Device::flex()), targets)
}

fn next_token_loss(model: &CausalLm, step: u64) -> LossSum {
    let (tokens, targets) = tokens(step);
    let n = targets.len();
    let hidden_nd = model.forward(&tokens).hidden_nd();
    let targets_n = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), &Device::flex());
    loss::cross_entropy(hidden_nd, model.head_weight(), targets_n, n as u64)
}

fn pair_loss(model: &ScalarModel, step: u64) -> LossSum {
    let (tokens, _) = tokens(step);
    let scores = model.scores_at(&tokens, &[11, 8]);
    pairwise_reward(scores.clone().narrow(0, 0, 1), scores.narrow(0, 1, 1), None)
}

/// Trains with every check on; returns the losses of all steps.
fn train<M: Adaptable>(mut model: M, loss_of: fn(&M, u64) -> LossSum) -> (M, Vec<f64>) {
    let names = ParameterNames::of(&model);
    let mut adamw = Optimizer::new(optimizer(), &model).expect("no groups");
    let checks = ChecksSection::default();
    let mut checks = Checks::start(checks, &model, &names, FirstLoss::Unknown);
    let trained: Vec<String> = model::named_parameters(&model)
        .into_iter()
        .filter(|parameter| parameter.requires_grad)
        .map(|parameter| parameter.name)
        .collect();
    let mut losses = Vec::new();
    for step in 0..N_STEPS {
        let place = StepPlace { step: step + 1, samples: &[] };
        let loss = loss_of(&model, step % 2);
        let (value, count) = (loss.value(), loss.count);
        losses.push(value / count as f64);
        let mut gradients = Gradients::new(&names);
        gradients.accumulate(&model, || loss.sum.backward());
        // Gradients exist for what is trained, and for nothing else.
        let missing: Vec<&str> = gradients.missing().collect();
        assert!(
            names.iter().all(|name| missing.contains(&name) != trained.iter().any(|t| t == name))
        );
        let norm = gradients.norm(count, place).expect("finite");
        checks.loss(value, place).expect("a good loss");
        checks.gradients(&gradients);
        model = adamw.step(model, gradients, norm, 1e-2);
        checks.updated(&model, 1e-2, place).expect("trained moved, frozen did not");
    }
    for name in names.iter() {
        assert_eq!(adamw.state("m", name).is_some(), trained.iter().any(|t| t == name), "{name}");
    }
    (model, losses)
}

/// Trains, and checks that only what is named moved.
fn train_and_compare<M: Adaptable>(
    base: M,
    config: &LoraConfig,
    loss_of: fn(&M, u64) -> LossSum,
    least: f64,
) {
    let adapted = attach(base, config, 7).expect("attached");
    let before = weights(&adapted.model);
    let layout = layout_of(&adapted.model, config).expect("a layout");
    let trained: Vec<String> = layout.trained().into_iter().map(|(name, _)| name).collect();
    let (model, losses) = train(adapted.model, loss_of);
    for (name, values) in weights(&model) {
        let is_trained = trained.contains(&name) || name.starts_with("score.");
        assert_eq!(before[&name] != values, is_trained, "{name}");
    }
    let (first, last) = (losses[0], losses[losses.len() - 2]);
    assert!(last < first - least, "{losses:?}");
    // Frozen before a round trip through the inner model, frozen after it.
    let requires = |model: &M| -> Vec<bool> {
        model::named_parameters(model).iter().map(|p| p.requires_grad).collect()
    };
    let round_trip = model.valid().train();
    assert_eq!(requires(&round_trip), requires(&model));
    let layout = layout_of(&model, config).expect("a layout");
    assert_eq!(requires(&train_adapters_only(model.clone(), &layout)), requires(&model));
    assert_eq!(weights(&round_trip), weights(&model));
}

#[test]
fn adapters_alone_learn() {
    train_and_compare(tiny_llama(&device()), &settings(Targets::AllLinear), next_token_loss, 0.05);
    train_and_compare(tiny_gpt2(&device()), &settings(Targets::AllLinear), next_token_loss, 0.05);
}

#[test]
fn every_variant_learns() {
    for (config, model) in super::support::variants() {
        println!("{config:?}");
        // One small layer learns little in so few steps.
        train_and_compare(model, &config, next_token_loss, 3e-4);
    }
}

#[test]
fn a_score_head_learns_beside_adapters() {
    let lm = tiny_llama(&device());
    let config = lm.config().clone();
    let scalar = ScalarModel::from_backbone(lm.backbone, &config, 5);
    train_and_compare(scalar, &settings(Targets::AllLinear), pair_loss, 0.05);
}

#[test]
fn two_models_share_one_base() {
    let base = tiny_llama(&device());
    let before = weights(&base);
    let config = settings(Targets::AllLinear);
    let adapted = attach(base.clone(), &config, 7).expect("attached");
    let (trained, _) = train(adapted.model, next_token_loss);
    assert_eq!(weights(&base), before);
    assert_eq!(weights(&lora::detach(trained).0), before);
}
