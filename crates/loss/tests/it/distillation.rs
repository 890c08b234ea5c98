//! Divergences of distributions against plain loops in f64, with extreme logits. `temper verify` compares them with the
//! reference's vectors.

use burn::tensor::{Device, Tensor, TensorData};
use loss::{Distillation, HostTopTokens};
use testkit::{Tolerance, assert_close, values};

use super::support::wave;

const SHAPE: [usize; 2] = [300, 7];

fn logits(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let rows = values.len() / SHAPE[1];
    Tensor::from_data(TensorData::new(values, [rows, SHAPE[1]]), device)
}

/// The divergence of a row, in f64.
fn by_hand(student: &[f64], teacher: &[f64], beta: f64, temperature: f64) -> f64 {
    let softmax = |logits: &[f64]| -> Vec<f64> {
        let exps: Vec<f64> = logits.iter().map(|x| (x / temperature).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.into_iter().map(|x| x / sum).collect()
    };
    let kl = |p: &[f64], q: &[f64]| -> f64 { p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum() };
    let (s, t) = (softmax(student), softmax(teacher));
    if beta == 0.0 {
        return kl(&t, &s);
    }
    if beta == 1.0 {
        return kl(&s, &t);
    }
    let m: Vec<f64> = s.iter().zip(&t).map(|(s, t)| beta * t + (1.0 - beta) * s).collect();
    beta * kl(&t, &m) + (1.0 - beta) * kl(&s, &m)
}

#[test]
fn values_and_gradients_equal_the_formula() {
    let n = SHAPE[0] * SHAPE[1];
    let (student, teacher) = (wave(n, 0.37), wave(n, 1.91));
    let device = Device::flex();
    let in_f64 = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    let (student_f64, teacher_f64) = (in_f64(&student), in_f64(&teacher));
    for beta in [0.0, 0.1, 0.5, 0.9, 1.0] {
        for temperature in [0.7, 1.0, 2.0] {
            let loss = Distillation { beta, temperature };
            let of_rows = |student: &[f64]| -> Vec<f64> {
                let rows = student.chunks(SHAPE[1]).zip(teacher_f64.chunks(SHAPE[1]));
                rows.map(|(s, t)| by_hand(s, t, beta, temperature)).collect()
            };
            let (found, gradient) = loss.with_gradient(
                &logits(student.clone(), &device),
                &logits(teacher.clone(), &device),
            );
            let expected: Vec<f32> = of_rows(&student_f64).into_iter().map(|x| x as f32).collect();
            let name = format!("β {beta}, T {temperature}");
            assert_close(&name, &values(&found), &expected, Tolerance::absolute(2e-6));
            // Central differences of the formula in f64, one logit of every row at a time.
            let gradient = values(&gradient);
            for logit in 0..SHAPE[1] {
                let moved = |step: f64| {
                    let mut student = student_f64.clone();
                    student.iter_mut().skip(logit).step_by(SHAPE[1]).for_each(|x| *x += step);
                    of_rows(&student)
                };
                let step = 1e-4;
                let slopes = moved(step).into_iter().zip(moved(-step));
                let expected: Vec<f32> =
                    slopes.map(|(up, down)| ((up - down) / (2.0 * step)) as f32).collect();
                let found: Vec<f32> =
                    gradient.iter().skip(logit).step_by(SHAPE[1]).copied().collect();
                assert_close(&name, &found, &expected, Tolerance::absolute(2e-6));
            }
        }
    }
}

#[test]
fn the_loss_is_the_sum_with_its_gradient() {
    let n = SHAPE[0] * SHAPE[1];
    let device = Device::flex().autodiff();
    let student = logits(wave(n, 0.37), &device).set_require_grad(true);
    let teacher = logits(wave(n, 1.91), &Device::flex());
    let loss = Distillation { beta: 0.5, temperature: 1.5 };
    let (expected, slopes) = loss.with_gradient(&student, &teacher);
    let sum = loss.loss(student.clone(), &teacher);
    assert_eq!(sum.count, SHAPE[0] as u64);
    let total: f64 = values(&expected).into_iter().map(f64::from).sum();
    assert!((sum.value() - total).abs() < 1e-4 * total, "{} not {total}", sum.value());
    // The sum of a loss is divided by the number of positions of its step.
    let gradient = student.grad(&sum.mean_over(600).backward()).expect("a gradient");
    let slopes: Vec<f32> = values(&slopes).into_iter().map(|x| x / 600.0).collect();
    assert_close("gradient", &values(&gradient), &slopes, Tolerance::absolute(1e-9));
}

/// A student equal to its teacher has neither loss nor gradient; certain distributions give no NaN.
#[test]
fn equal_and_certain_distributions() {
    let device = Device::flex();
    let certain = |at: usize| {
        let mut row = vec![-1e4_f32; SHAPE[1]];
        row[at] = 1e4;
        logits(row, &device)
    };
    for beta in [0.0, 0.3, 1.0] {
        let loss = Distillation { beta, temperature: 1.0 };
        for row in [logits(wave(SHAPE[1], 0.4), &device), certain(2)] {
            let (value, gradient) = loss.with_gradient(&row, &row);
            assert_close("value", &values(&value), &[0.0], Tolerance::absolute(1e-6));
            assert_close("gradient", &values(&gradient), &[0.0; 7], Tolerance::absolute(1e-6));
        }
        let (value, gradient) = loss.with_gradient(&certain(1), &certain(5));
        assert!(values(&value).iter().all(|x| x.is_finite() && *x > 0.0), "{value}");
        assert!(values(&gradient).iter().all(|x| x.is_finite()), "{gradient}");
        let (none, _) =
            loss.with_gradient(&logits(Vec::new(), &device), &logits(Vec::new(), &device));
        assert_eq!(none.dims(), [0]);
    }
}

/// The divergence over some tokens and the rest, in f64.
fn of_top_by_hand(
    student: &[f64],
    teacher: &[f64],
    k: usize,
    (beta, temperature): (f64, f64),
) -> f64 {
    let mut order: Vec<usize> = (0..teacher.len()).collect();
    order.sort_by(|a, b| teacher[*b].total_cmp(&teacher[*a]));
    let outcomes = |logits: &[f64]| -> Vec<f64> {
        let exps: Vec<f64> = logits.iter().map(|x| (x / temperature).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let top = order[..k].iter().map(|id| exps[*id] / sum);
        top.chain([order[k..].iter().map(|id| exps[*id]).sum::<f64>() / sum]).map(f64::ln).collect()
    };
    // Logits whose softmax are these outcomes.
    by_hand(&outcomes(student), &outcomes(teacher), beta, 1.0)
}

#[test]
fn the_rest_is_one_outcome() {
    let n = SHAPE[0] * SHAPE[1];
    let (student, teacher) = (wave(n, 0.37), wave(n, 1.91));
    let device = Device::flex();
    let in_f64 = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    let (student_f64, teacher_f64) = (in_f64(&student), in_f64(&teacher));
    let near = Tolerance::absolute(2e-6);
    for (k, beta, temperature) in [(1, 0.5, 1.0), (3, 0.0, 0.7), (3, 0.5, 2.0), (5, 1.0, 1.0)] {
        let loss = Distillation { beta, temperature };
        let of_rows = |student: &[f64]| -> Vec<f64> {
            let rows = student.chunks(SHAPE[1]).zip(teacher_f64.chunks(SHAPE[1]));
            rows.map(|(s, t)| of_top_by_hand(s, t, k, (beta, temperature))).collect()
        };
        let logprobs = loss.log_probabilities(logits(teacher.clone(), &device));
        let top = HostTopTokens::select(&logprobs, k).to_device(k, &device);
        let (found, gradient) = loss.with_gradient_of_top(&logits(student.clone(), &device), &top);
        let expected: Vec<f32> = of_rows(&student_f64).into_iter().map(|x| x as f32).collect();
        let name = format!("k {k}, β {beta}, T {temperature}");
        assert_close(&name, &values(&found), &expected, near);
        let gradient = values(&gradient);
        for logit in 0..SHAPE[1] {
            let moved = |step: f64| {
                let mut student = student_f64.clone();
                student.iter_mut().skip(logit).step_by(SHAPE[1]).for_each(|x| *x += step);
                of_rows(&student)
            };
            let slopes = moved(1e-4).into_iter().zip(moved(-1e-4));
            let expected: Vec<f32> = slopes.map(|(up, down)| ((up - down) / 2e-4) as f32).collect();
            let found: Vec<f32> = gradient.iter().skip(logit).step_by(SHAPE[1]).copied().collect();
            assert_close(&name, &found, &expected, near);
        }
    }
}

#[test]
fn the_most_probable_tokens_are_selected_in_order() {
    let rows = logits(
        vec![0.0, 3.0, 1.0, 3.0, -1.0, 2.0, 0.5, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0],
        &Device::flex(),
    );
    let top = HostTopTokens::select(&rows, 3);
    assert_eq!(top.ids, [1, 3, 5, 0, 1, 2]);
    let rest = |row: [f64; 4]| row.map(f64::exp).iter().sum::<f64>().ln() as f32;
    let rests = [rest([0.0, 1.0, -1.0, 0.5]), rest([2.0, 1.0, 0.0, -1.0])];
    assert_eq!(top.logprobs, [3.0, 3.0, 2.0, rests[0], 5.0, 4.0, 3.0, rests[1]]);
    assert_eq!(HostTopTokens::select(&rows, 7).ids[..7], [1, 3, 5, 2, 6, 0, 4]);
}

/// A certain student and a teacher that puts everything elsewhere: finite values, and no gradient at the teacher's token that
/// rounding made up.
#[test]
fn certain_distributions_over_few_tokens_are_finite() {
    let device = Device::flex();
    let certain = |at: usize| {
        let mut row = vec![-40.0_f32; SHAPE[1]];
        row[at] = 40.0;
        logits(row, &device)
    };
    for beta in [0.0, 0.3, 1.0] {
        let loss = Distillation { beta, temperature: 1.0 };
        for (student, teacher) in [(1, 5), (5, 1), (2, 2)] {
            let logprobs = loss.log_probabilities(certain(teacher));
            let top = HostTopTokens::select(&logprobs, 2).to_device(2, &device);
            let (value, gradient) = loss.with_gradient_of_top(&certain(student), &top);
            assert!(values(&value)[0].is_finite(), "{value}");
            assert!(values(&gradient).iter().all(|x| x.abs() <= 1.001), "{gradient}");
            if student == teacher {
                assert_close("value", &values(&value), &[0.0], Tolerance::absolute(1e-5));
            }
        }
    }
}
