//! The head with its loss, and log-probabilities.

use burn::tensor::{Device, Tensor};
use kernels::{LogProbs, linear_cross_entropy, linear_logprobs};
use testkit::{Tolerance, assert_close, values};

use crate::support::{cpu_against_generic, f32s, f64s, ints, random};

const CLOSE: Tolerance = Tolerance { absolute: 2e-6, of_largest: 2e-6 };

struct Head {
    n: usize,
    d: usize,
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Vec<i32>,
    scale: f64,
    soft_cap: Option<f64>,
}

impl Head {
    fn new(n: usize, d: usize, v: usize, ignore: impl Fn(usize) -> bool) -> Self {
        let target = |i: usize| if ignore(i) { -1 - i as i32 % 100 } else { (i * 7 % v) as i32 };
        let device = Device::flex().autodiff();
        Self {
            n,
            d,
            hidden: random([n, d], 1, &device).require_grad(),
            weight: random([v, d], 2, &device).require_grad(),
            targets: (0..n).map(target).collect(),
            scale: 1.0,
            soft_cap: None,
        }
    }

    /// The same rows under a factor and a soft cap of the logits.
    fn capped(self, scale: f64, soft_cap: f64) -> Self {
        Self { scale, soft_cap: Some(soft_cap), ..self }
    }

    fn kernel(&self) -> kernels::Head {
        let weight_vd = self.weight.clone();
        kernels::Head { weight_vd: weight_vd.into(), scale: self.scale, soft_cap: self.soft_cap }
    }

    /// A logit from the product of a row with the weight, and its derivative.
    fn logit(&self, product: f64) -> (f64, f64) {
        let scaled = product * self.scale;
        match self.soft_cap {
            None => (scaled, self.scale),
            Some(cap) => {
                let tanh = (scaled / cap).tanh();
                (cap * tanh, self.scale * (1.0 - tanh * tanh))
            }
        }
    }

    fn targets(&self) -> burn::tensor::Tensor<1, burn::tensor::Int> {
        ints(&self.targets, [self.n])
    }

    /// log-probabilities of the targets, entropies, and the probabilities of each row.
    fn oracle(&self, temperature: f64) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
        let (hidden, weight) = (f64s(&self.hidden), f64s(&self.weight));
        let (mut logprobs, mut entropies, mut all) = (vec![], vec![], vec![]);
        for (h, target) in hidden.chunks(self.d).zip(&self.targets) {
            let logits: Vec<f64> = weight
                .chunks(self.d)
                .map(|w| self.logit(h.iter().zip(w).map(|(h, w)| h * w).sum()).0 / temperature)
                .collect();
            let sum = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
            let p: Vec<f64> = logits.iter().map(|z| (z - sum).exp()).collect();
            let counted = *target >= 0;
            logprobs.push(if counted { logits[*target as usize] - sum } else { 0.0 });
            let entropy = -p.iter().map(|p| p * p.ln()).sum::<f64>();
            entropies.push(if counted { entropy } else { 0.0 });
            all.push(p);
        }
        (logprobs, entropies, all)
    }

    /// Gradients of the summed cross-entropy by hidden and weight.
    fn gradients(&self) -> (Vec<f64>, Vec<f64>) {
        let (hidden, weight) = (f64s(&self.hidden), f64s(&self.weight));
        let (_, _, p) = self.oracle(1.0);
        let (mut dh, mut dw) = (vec![0.0; hidden.len()], vec![0.0; weight.len()]);
        for (row, target) in self.targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
            for (id, p) in p[row].iter().enumerate() {
                let (h, w) = (&hidden[row * self.d..], &weight[id * self.d..]);
                let product = (0..self.d).map(|j| h[j] * w[j]).sum();
                let dz = (p - f64::from(u8::from(id == *target as usize))) * self.logit(product).1;
                for j in 0..self.d {
                    dh[row * self.d + j] += dz * weight[id * self.d + j];
                    dw[id * self.d + j] += dz * hidden[row * self.d + j];
                }
            }
        }
        (dh, dw)
    }
}

fn heads() -> Vec<Head> {
    vec![
        Head::new(7, 5, 11, |_| false),
        Head::new(7, 5, 11, |i| i % 3 == 0),
        Head::new(9, 4, 6, |i| i != 4),
        // More than one chunk of rows.
        Head::new(1300, 3, 8, |i| i % 5 == 2),
        Head::new(7, 5, 11, |i| i % 3 == 0).capped(0.7, 1.3),
        Head::new(1300, 3, 8, |i| i % 5 == 2).capped(1.0, 0.9),
    ]
}

#[test]
fn cross_entropy_and_its_gradients() {
    for head in heads() {
        let loss = linear_cross_entropy(head.hidden.clone(), head.kernel(), head.targets()).sum;
        let (logprobs, _, _) = head.oracle(1.0);
        let want = -logprobs.iter().sum::<f64>();
        assert_close("loss", &values(&loss), &[want as f32], CLOSE);
        // A loss is scaled before backward; the gradients must be too.
        let gradients = loss.mul_scalar(0.5).backward();
        let (dh, dw) = head.gradients();
        let half = |x: &[f64]| f32s(&x.iter().map(|x| x * 0.5).collect::<Vec<_>>());
        let got = values(&head.hidden.grad(&gradients).expect("a gradient"));
        assert_close("hidden", &got, &half(&dh), CLOSE);
        let got = values(&head.weight.grad(&gradients).expect("a gradient"));
        assert_close("weight", &got, &half(&dw), CLOSE);
    }
}

#[test]
fn right_first_choices_are_counted() {
    for (idx, mut head) in heads().into_iter().enumerate() {
        // Every third row with a target gets the id that is most probable, the others another one.
        let (_, _, p) = head.oracle(1.0);
        let mut want = 0.0;
        for (row, target) in head.targets.iter_mut().enumerate().filter(|(_, id)| **id >= 0) {
            let best = (0..p[row].len()).max_by(|a, b| p[row][*a].total_cmp(&p[row][*b]));
            let best = best.expect("a vocabulary");
            let is_right = row % 3 == 0;
            *target = if is_right { best } else { (best + 1) % p[row].len() } as i32;
            want += f32::from(u8::from(is_right));
        }
        cpu_against_generic(&format!("first choices {idx}"), Tolerance::absolute(0.0), || {
            let loss = linear_cross_entropy(head.hidden.clone(), head.kernel(), head.targets());
            assert_eq!(values(&loss.n_correct), [want]);
            vec![values(&loss.n_correct)]
        });
    }
    // NaN is no choice.
    let head = Head::new(2, 5, 11, |_| false);
    let spoiled = head.hidden.clone().inner().slice_fill([0..2, 0..5], f32::NAN);
    let loss = linear_cross_entropy(spoiled, head.weight.clone().inner(), head.targets());
    assert_eq!(values(&loss.n_correct), [0.0]);
}

#[test]
fn rows_without_a_target_do_not_matter() {
    let head = Head::new(8, 5, 11, |i| i % 2 == 0);
    let spoiled = head.hidden.clone().inner().slice_fill([0..1, 0..5], f32::NAN);
    let loss = linear_cross_entropy(spoiled, head.weight.clone().inner(), head.targets()).sum;
    let want = linear_cross_entropy(
        head.hidden.clone().inner(),
        head.weight.clone().inner(),
        head.targets(),
    )
    .sum;
    assert_eq!(values(&loss), values(&want));
}

#[test]
fn a_batch_without_targets_has_a_loss_and_gradients_of_zero() {
    let head = Head::new(4, 5, 11, |_| true);
    let loss = linear_cross_entropy(head.hidden.clone(), head.weight.clone(), head.targets()).sum;
    assert_eq!(values(&loss), [0.0]);
    let gradients = loss.backward();
    for gradient in [head.hidden.grad(&gradients), head.weight.grad(&gradients)] {
        assert!(values(&gradient.expect("a gradient")).iter().all(|value| *value == 0.0));
    }
}

#[test]
fn a_frozen_side_is_left_alone() {
    let head = Head::new(7, 5, 11, |i| i % 3 == 0);
    let (dh, dw) = head.gradients();
    let frozen = head.weight.clone().inner();
    let gradients =
        linear_cross_entropy(head.hidden.clone(), frozen, head.targets()).sum.backward();
    let got = values(&head.hidden.grad(&gradients).expect("a gradient"));
    assert_close("hidden", &got, &f32s(&dh), CLOSE);
    let frozen = head.hidden.clone().inner();
    let gradients =
        linear_cross_entropy(frozen, head.weight.clone(), head.targets()).sum.backward();
    let got = values(&head.weight.grad(&gradients).expect("a gradient"));
    assert_close("weight", &got, &f32s(&dw), CLOSE);
}

#[test]
fn huge_logits_stay_finite() {
    let device = Device::flex();
    let hidden = Tensor::<2>::from_data([[1e4_f32, -1e4], [1e4, 1e4]], &device);
    let weight = Tensor::<2>::from_data([[1.0_f32, 0.0], [0.0, 1.0], [0.5, 0.5]], &device);
    let loss = linear_cross_entropy(hidden, weight, ints(&[1, 2], [2])).sum;
    assert_close("loss", &values(&loss), &[2e4 + 3.0_f32.ln()], Tolerance::absolute(1e-2));
}

#[test]
fn logprobs_and_entropy() {
    for head in heads() {
        for temperature in [1.0, 0.7, 2.5] {
            let (logprobs, entropies, _) = head.oracle(temperature);
            let got =
                linear_logprobs(head.hidden.clone(), head.kernel(), head.targets(), temperature);
            let LogProbs { logprobs_n, entropy_n } = got;
            assert_close("logprobs", &values(&logprobs_n), &f32s(&logprobs), CLOSE);
            assert_close("entropy", &values(&entropy_n), &f32s(&entropies), CLOSE);
        }
        let got = linear_logprobs(head.hidden.clone(), head.kernel(), head.targets(), 1.0);
        let gradients = got.logprobs_n.sum().backward();
        let (dh, dw) = head.gradients();
        let negative = |x: &[f64]| f32s(&x.iter().map(|x| -x).collect::<Vec<_>>());
        let found = values(&head.hidden.grad(&gradients).expect("a gradient"));
        assert_close("hidden", &found, &negative(&dh), CLOSE);
        let found = values(&head.weight.grad(&gradients).expect("a gradient"));
        assert_close("weight", &found, &negative(&dw), CLOSE);
    }
    let none = Head::new(4, 5, 11, |_| true);
    let got = linear_logprobs(none.hidden.clone(), none.weight.clone(), none.targets(), 1.0);
    assert_eq!(values(&got.logprobs_n), [0.0; 4]);
    assert_eq!(values(&got.entropy_n), [0.0; 4]);
}

#[test]
fn losses_agree_with_the_generic_kernels() {
    for (idx, head) in heads().into_iter().enumerate() {
        cpu_against_generic(&format!("cross-entropy {idx}"), CLOSE, || {
            let loss = linear_cross_entropy(head.hidden.clone(), head.kernel(), head.targets()).sum;
            let found = values(&loss);
            let gradients = loss.mul_scalar(0.3).backward();
            let of = |x: &Tensor<2>| values(&x.grad(&gradients).expect("a gradient"));
            vec![found, of(&head.hidden), of(&head.weight)]
        });
        for weight_of_entropy in [0.0, 0.7] {
            cpu_against_generic(&format!("log-probabilities {idx}"), CLOSE, || {
                let hidden = head.hidden.clone();
                let found = linear_logprobs(hidden, head.kernel(), head.targets(), 0.8);
                let upstream = random([head.n], 5, &Device::flex());
                let both = found.logprobs_n.clone() * upstream.clone()
                    + found.entropy_n.clone() * upstream.square().mul_scalar(weight_of_entropy);
                let gradients = both.sum().backward();
                let of = |x: &Tensor<2>| values(&x.grad(&gradients).expect("a gradient"));
                let (logprobs, entropy) = (values(&found.logprobs_n), values(&found.entropy_n));
                vec![logprobs, entropy, of(&head.hidden), of(&head.weight)]
            });
        }
    }
}

#[test]
fn gradients_of_a_frozen_head_or_of_constant_rows_are_not_made() {
    for (hidden_tracked, weight_tracked) in [(true, false), (false, true)] {
        cpu_against_generic("one of two", CLOSE, || {
            let device = Device::flex().autodiff();
            let hidden = random([6, 4], 1, &device).set_require_grad(hidden_tracked);
            let weight = random([9, 4], 2, &device).set_require_grad(weight_tracked);
            let targets = ints(&[3, -1, 8, 0, 2, -100], [6]);
            let loss = linear_cross_entropy(hidden.clone(), weight.clone(), targets).sum;
            let gradients = loss.backward();
            let of = |x: &Tensor<2>| x.grad(&gradients).map(|x| values(&x)).unwrap_or_default();
            vec![of(&hidden), of(&weight)]
        });
    }
}

#[test]
fn log_probabilities_without_targets_have_gradients_of_zero_too() {
    let head = Head::new(4, 5, 11, |_| true);
    cpu_against_generic("no targets", Tolerance::absolute(0.0), || {
        let (hidden, weight) = (head.hidden.clone(), head.weight.clone());
        let found = linear_logprobs(hidden, weight, head.targets(), 0.7);
        let gradients = (found.logprobs_n + found.entropy_n).sum().backward();
        let of = |x: &Tensor<2>| values(&x.grad(&gradients).expect("a gradient"));
        vec![of(&head.hidden), of(&head.weight), vec![0.0; 75]]
    });
}
