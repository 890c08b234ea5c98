//! AdamW against closed forms, clipping against torch's arithmetic, state through a file.

use burn::module::Module;
use burn::tensor::Tensor;
use model::CausalLm;
use testkit::values;
use train::{Error, Gradients, ParameterNames, clip_scale};

use super::toy::{
    Five, Pair, bits, constant, gradients_of, model_of_width, optimizer, param, place, settings,
    tiny_model, update,
};

fn names<M: Module>(model: &M) -> ParameterNames {
    ParameterNames::of(model)
}

/// With a constant gradient the moments' ratio is its sign, so each step has a closed form:
/// w ← w (1 - lr·decay) - lr·c / (|c| + eps).
#[test]
fn three_steps_have_a_closed_form() {
    let (c_matrix, c_vector) = ([1.0, -2.0, 0.5, 4.0, -0.25, 8.0], [3.0, -1.0, 2.0, -0.5]);
    let mut model = Pair::new();
    let names = names(&model);
    assert_eq!(names.iter().collect::<Vec<_>>(), ["matrix", "vector"]);
    let mut optimizer = optimizer(settings(0.1, 0.0), &model);
    let mut want: Vec<f64> = [values(&model.matrix.val()), values(&model.vector.val())]
        .concat()
        .into_iter()
        .map(f64::from)
        .collect();
    for (step, lr) in [(1, 1e-2), (2, 5e-3), (3, 2e-2)] {
        let mut gradients = Gradients::new(&names);
        // Two micro-batches whose sum, over 2 targets, is c.
        for _ in 0..2 {
            gradients.accumulate(&model, || model.linear_loss(&c_matrix, &c_vector).backward());
        }
        let norm = gradients.norm(2, place(step)).expect("finite");
        let all: Vec<f64> = c_matrix.iter().chain(&c_vector).map(|c| f64::from(*c)).collect();
        let expected = all.iter().map(|c| c * c).sum::<f64>().sqrt();
        assert!((norm.value() - expected).abs() < 1e-12, "{} {expected}", norm.value());
        model = optimizer.step(model, gradients, norm, lr);
        for (idx, (w, c)) in want.iter_mut().zip(&all).enumerate() {
            let decay = if idx < 6 { 0.1 } else { 0.0 };
            *w = *w * (1.0 - lr * decay) - lr * c / (c.abs() + 1e-8);
        }
    }
    assert_eq!(optimizer.n_updates(), 3);
    let got = [values(&model.matrix.val()), values(&model.vector.val())].concat();
    for (got, want) in got.iter().zip(&want) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} is not {want}");
    }
    // The optimizer must not have cut the parameters off.
    assert!(model.matrix.val().is_require_grad() && model.vector.val().is_require_grad());
}

/// One counter for the optimizer: with five parameters the bias correction is that of step 3, too.
#[test]
fn the_step_count_does_not_run_ahead() {
    let values_of = |part: usize| vec![part as f32 + 0.5; 3];
    let mut model = Five { parts: (0..5).map(|part| param(values_of(part), [3])).collect() };
    let names = ParameterNames::of(&model);
    let mut optimizer = optimizer(settings(0.0, 0.0), &model);
    let gradient_at = |step: u64, part: usize| (step as f64 - 1.5) * (part as f64 + 1.0);
    for step in 1..=3 {
        let mut loss: Tensor<1> = constant(vec![0.0], [1]);
        for (part, param) in model.parts.iter().enumerate() {
            loss = loss + (param.val() * gradient_at(step, part)).sum();
        }
        let mut gradients = Gradients::new(&names);
        gradients.accumulate(&model, || loss.backward());
        let norm = gradients.norm(1, place(step)).expect("finite");
        model = optimizer.step(model, gradients, norm, 1e-2);
    }
    for (part, param) in model.parts.iter().enumerate() {
        let (mut m, mut v, mut w) = (0.0, 0.0, part as f64 + 0.5);
        for step in 1..=3_i32 {
            let g = gradient_at(step as u64, part);
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.95_f64.powi(step)));
            w -= 1e-2 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        for got in values(&param.val()) {
            assert!((f64::from(got) - w).abs() < 1e-6, "{got} is not {w}");
        }
    }
}

#[test]
fn clipping_is_that_of_torch() {
    for (clip, norm, scale) in [
        (1.0, 4.0, 1.0 / 4.000_001),
        (1.0, 0.5, 1.0),
        (1.0, 1.0, 1.0 / 1.000_001),
        (0.0, 1e9, 1.0),
        (2.0, 0.0, 1.0),
    ] {
        assert_eq!(clip_scale(clip, norm), scale);
    }
}

/// Decay acts on the weights, not through the gradient; with a gradient of 0 it is all there is.
#[test]
fn decay_alone_shrinks_matrices_only() {
    let mut model = Pair::new();
    let names = names(&model);
    let mut optimizer = optimizer(settings(0.1, 1.0), &model);
    let before = (values(&model.matrix.val()), values(&model.vector.val()));
    let mut gradients = Gradients::new(&names);
    gradients.accumulate(&model, || model.linear_loss(&[0.0; 6], &[0.0; 4]).backward());
    let norm = gradients.norm(1, place(1)).expect("finite");
    model = optimizer.step(model, gradients, norm, 0.5);
    let shrunk: Vec<f32> = before.0.iter().map(|w| w * 0.95).collect();
    assert_eq!(values(&model.matrix.val()), shrunk);
    assert_eq!(values(&model.vector.val()), before.1);
}

#[test]
fn a_frozen_parameter_is_left_alone() {
    let mut model = Pair::new();
    model.matrix = model.matrix.set_require_grad(false);
    let names = names(&model);
    let mut optimizer = optimizer(settings(0.1, 1.0), &model);
    let before = values(&model.matrix.val());
    let mut gradients = Gradients::new(&names);
    gradients.accumulate(&model, || model.linear_loss(&[1.0; 6], &[1.0; 4]).backward());
    assert_eq!(gradients.missing().collect::<Vec<_>>(), ["matrix"]);
    let norm = gradients.norm(1, place(1)).expect("finite");
    assert!((norm.value() - 2.0).abs() < 1e-12);
    model = optimizer.step(model, gradients, norm, 0.5);
    assert_eq!(values(&model.matrix.val()), before);
    assert!(!model.matrix.val().is_require_grad());
    assert!(optimizer.state("m", "matrix").is_none() && optimizer.state("m", "vector").is_some());
}

#[test]
fn a_gradient_that_is_not_finite_has_no_norm() {
    let model = Pair::new();
    let names = names(&model);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut gradients = Gradients::new(&names);
        let loss = model.linear_loss(&[1.0; 6], &[1.0, bad, 1.0, 1.0]);
        gradients.accumulate(&model, || loss.backward());
        let error = gradients.norm(1, place(12)).expect_err("no norm, no update");
        assert!(matches!(error, Error::NonFiniteGradient { .. }));
        assert_eq!(
            error.to_string(),
            "step 12, samples 3, 17, 40: gradient is not finite: `vector`; \
             the weights are those before this step"
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn splitting_a_step_changes_nothing_but_rounding() {
    let model = tiny_model(1);
    let names = names(&model);
    let (whole, whole_loss, n_targets) = gradients_of(&model, &names, 0, 1);
    let norm = whole.norm(n_targets, place(1)).expect("finite").value();
    for n_micro in [2, 4, 8] {
        let (split, loss, _) = gradients_of(&model, &names, 0, n_micro);
        assert!((loss / whole_loss - 1.0).abs() < 1e-6, "{loss} {whole_loss}");
        for name in names.iter() {
            let (a, b) = (whole.get(name).expect(name), split.get(name).expect(name));
            let difference = values(&(a.clone() - b.clone()));
            let largest = difference.iter().fold(0.0_f32, |max, d| max.max(d.abs()));
            let bound = 1e-5 * norm * n_targets as f64;
            assert!(f64::from(largest) < bound, "{name}: {largest} {bound}");
        }
    }
}

/// Products of this model are large enough for gemm to use all threads.
#[test]
fn the_number_of_threads_changes_no_bit() {
    let run = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("pool");
        pool.install(|| {
            let mut model = model_of_width(192, 3);
            let names = ParameterNames::of(&model);
            let mut optimizer = optimizer(settings(0.1, 1.0), &model);
            let mut norms = Vec::new();
            for step in 0..3 {
                let (next, loss, norm) = update(model, &mut optimizer, &names, step, 2, 1e-2);
                model = next;
                norms.push((loss.to_bits(), norm.value().to_bits()));
            }
            (bits(&model), norms)
        })
    };
    let one = run(1);
    for n_threads in [2, 3] {
        assert!(run(n_threads) == one, "{n_threads} threads differ from one");
    }
}

/// Copying 3 × the weights a step would be slow, and silent.
#[test]
fn an_update_copies_nothing() {
    let mut model = tiny_model(1);
    let names = names(&model);
    let mut optimizer = optimizer(settings(0.1, 1.0), &model);
    let addresses = |model: &CausalLm| {
        let mut out = Vec::new();
        let seen: Result<(), std::convert::Infallible> =
            model::visit_tensors(model, |name, _, values| {
                out.push((name.to_owned(), values.as_ptr().addr()));
                Ok(())
            });
        assert!(seen.is_ok());
        out
    };
    let before = addresses(&model);
    let mut moments = None;
    for step in 0..3 {
        model = update(model, &mut optimizer, &names, step, 2, 1e-2).0;
        assert_eq!(addresses(&model), before, "step {step}");
        let now = ["m", "v"].map(|prefix| {
            let moment = optimizer.state(prefix, "lm_head.weight").expect("moments");
            kernels::with_host_values(moment, |values| values.as_ptr().addr())
        });
        assert_eq!(*moments.get_or_insert(now), now, "step {step}");
    }
}
