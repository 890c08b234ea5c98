//! The loss of a pair: ln 2 where a head is zero, ahead by the margin, drawn to zero.

use burn::tensor::{Device, Tensor};
use nn::Weight;
use reward::Objective;
use testkit::ByteIds;

use crate::support::{scorer, scores};

fn loss(objective: Objective, scores: &[f32]) -> f64 {
    loss_with(objective, scores, &[])
}

fn loss_with(objective: Objective, scores: &[f32], margins: &[f32]) -> f64 {
    let scores_b = Tensor::<1>::from_data(scores, &Device::flex().autodiff());
    let loss = objective.loss(scores_b, margins);
    loss.value() / loss.count as f64
}

#[test]
fn a_zero_head_has_a_loss_of_ln_2() {
    let device = Device::flex();
    let mut model = scorer(&device);
    let zeros = model.score.weight.val().zeros_like();
    model.score.weight = Weight::new(zeros);
    let texts: Vec<Vec<u32>> = ["good", "bad", "better", "worst"].map(ByteIds::encode).into();
    let scores = scores(&model, &texts, ByteIds::PAD);
    assert_eq!(scores, [0.0; 4]);
    let found = loss(Objective::default(), &scores);
    assert!((found - std::f64::consts::LN_2).abs() < 1e-7, "{found}");
}

#[test]
fn chosen_and_rejected_take_turns() {
    let found = loss(Objective::default(), &[2.0, 1.0, -1.0, 3.0]);
    let wanted = f64::midpoint((-1.0_f64).exp().ln_1p(), 4.0_f64.exp().ln_1p());
    assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
}

#[test]
fn the_margin_is_taken_from_the_difference_and_scores_are_drawn_to_zero() {
    let plain = Objective { margin: 0.5, centering: 0.0 };
    let found = loss(plain, &[2.0, 1.0]);
    assert!((found - (-0.5_f64).exp().ln_1p()).abs() < 1e-6, "{found}");
    let centred = loss(Objective { centering: 0.01, ..plain }, &[2.0, 1.0]);
    assert!((centred - found - 0.09).abs() < 1e-6, "{centred}");
}

#[test]
fn a_row_s_own_margin_comes_on_top() {
    let objective = Objective { margin: 0.5, centering: 0.0 };
    let found = loss_with(objective, &[2.0, 1.0, 0.0, 1.0], &[1.5, 0.0]);
    let wanted = f64::midpoint(1.0_f64.exp().ln_1p(), 1.5_f64.exp().ln_1p());
    assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
    assert_eq!(loss_with(objective, &[2.0, 1.0], &[0.0]), loss(objective, &[2.0, 1.0]));
    let equal = loss_with(objective, &[3.0, 3.0, 1.0, 1.0], &[1.5, 0.0]);
    assert!((equal - objective.loss_of_equal_scores(&[1.5, 0.0])).abs() < 1e-6, "{equal}");
}
