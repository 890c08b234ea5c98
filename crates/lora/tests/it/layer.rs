//! A layer with an adapter against the same layer with a dense weight: values and gradients.

use burn::tensor::{Device, Tensor};
use nn::{
    Adapter, Conv1d, DoraAdapter, DropoutKey, Linear, LoraAdapter, LoraDropout, PackedFormat,
    Projection,
};
use testkit::{Tolerance, assert_close, values};

const CLOSE: Tolerance = Tolerance { absolute: 1e-6, of_largest: 1e-6 };
const SCALE: f64 = 1.5;

fn wave<const D: usize>(shape: [usize; D], factor: f32, device: &Device) -> Tensor<D> {
    Tensor::from_data(testkit::wave(shape, factor).into_data(), device)
}

fn adapter(device: &Device) -> Adapter {
    let (a, b) = (wave([3, 7], 0.3, device), wave([5, 3], 0.9, device));
    Adapter::Lora(LoraAdapter::new(a, b, SCALE, None))
}

#[test]
fn both_layouts_equal_a_dense_weight() {
    let device = Device::flex().autodiff();
    let (w, x) = (wave([5, 7], 1.1, &device), wave([2, 4, 7], 0.6, &device).set_require_grad(true));
    let dense_oi = (wave([5, 7], 1.1, &device)
        + wave([5, 3], 0.9, &device).matmul(wave([3, 7], 0.3, &device)).mul_scalar(SCALE))
    .detach()
    .set_require_grad(true);
    let expected = kernels::linear(x.clone(), dense_oi.clone(), None);
    let weight = wave([2, 4, 5], 2.3, &device);
    let gradients = (expected.clone() * weight.clone()).sum().backward();
    let dense_gradient = dense_oi.grad(&gradients).expect("a gradient");
    let dx = values(&x.grad(&gradients).expect("a gradient"));
    // d loss / dA = s Bᵀ G and d loss / dB = s G Aᵀ, from the dense gradient G.
    let (a, b) = (testkit::wave([3, 7], 0.3), testkit::wave([5, 3], 0.9));
    let da = b.transpose().matmul(dense_gradient.clone()).mul_scalar(SCALE);
    let db = dense_gradient.matmul(a.transpose()).mul_scalar(SCALE);

    let mut linear = Linear::new(w.clone(), None);
    let mut conv = Conv1d::new(w.transpose(), None);
    linear.set_adapter(Some(adapter(&device)));
    conv.set_adapter(Some(adapter(&device)));
    for (y, layer) in
        [(linear.forward(x.clone()), &linear as &dyn Projection), (conv.forward(x.clone()), &conv)]
    {
        assert_close("y", &values(&y), &values(&expected), CLOSE);
        let gradients = (y * weight.clone()).sum().backward();
        let Some(Adapter::Lora(slot)) = layer.adapter() else { panic!("an adapter") };
        let of =
            |factor: &nn::LoraFactor| values(&factor.weight.val().grad(&gradients).expect("one"));
        assert_close("dA", &of(&slot.lora_A), &values(&da), CLOSE);
        assert_close("dB", &of(&slot.lora_B), &values(&db), CLOSE);
        assert_close("dx", &values(&x.grad(&gradients).expect("one")), &dx, CLOSE);
        assert_eq!(layer.widths(), (7, 5));
        assert_eq!(slot.rank(), 3);
    }
}

fn dropping(device: &Device, layer: &str) -> (Linear, DropoutKey) {
    let key = DropoutKey::default();
    let dropout = LoraDropout::new(0.5, layer.to_owned(), key.clone());
    let (a, b) = (wave([3, 7], 0.3, device), wave([5, 3], 0.9, device));
    let mut layer = Linear::new(wave([5, 7], 1.1, device), None);
    layer.set_adapter(Some(Adapter::Lora(LoraAdapter::new(a, b, SCALE, Some(dropout)))));
    (layer, key)
}

#[test]
fn masks_follow_from_key_and_layer() {
    let device = Device::flex().autodiff();
    let x = wave([40, 7], 0.6, &device);
    let (layer, key) = dropping(&device, "a");
    key.set(5);
    let first = values(&layer.forward(x.clone()));
    assert_eq!(values(&layer.forward(x.clone())), first);
    key.set(6);
    assert_ne!(values(&layer.forward(x.clone())), first);
    let (other, key) = dropping(&device, "b");
    key.set(5);
    assert_ne!(values(&other.forward(x.clone())), first);

    // Scaled up where kept: over many masks the mean is the output without dropout.
    let mut plain = Linear::new(wave([5, 7], 1.1, &device), None);
    plain.set_adapter(Some(adapter(&device)));
    let x = wave([1, 7], 0.6, &device);
    let expected = values(&plain.forward(x.clone()));
    let mut mean = vec![0.0_f32; expected.len()];
    for number in 0..4000 {
        key.set(seed::derive(1, "lora", seed::Purpose::Dropout, number, 0));
        let y = other.forward(x.clone());
        mean.iter_mut().zip(values(&y)).for_each(|(m, y)| *m += y / 4000.0);
        // Removes the graph of this forward pass. Thousands of abandoned ones would slow every later backward pass down.
        drop(y.sum().backward());
    }
    assert_close("mean", &mean, &expected, Tolerance { absolute: 0.0, of_largest: 0.05 });
}

#[test]
fn no_dropout_off_training() {
    let plain = Device::flex();
    let (layer, _) = dropping(&plain, "a");
    let mut expected = Linear::new(wave([5, 7], 1.1, &plain), None);
    expected.set_adapter(Some(adapter(&plain)));
    let x = wave([4, 7], 0.6, &plain);
    assert_eq!(values(&layer.forward(x.clone())), values(&expected.forward(x)));
}

#[test]
#[should_panic(expected = "need the key")]
fn training_without_a_key_is_refused() {
    let device = Device::flex().autodiff();
    let (layer, _) = dropping(&device, "a");
    layer.forward(wave([4, 7], 0.6, &device));
}

/// Gradients of the factors and of the input beside a packed weight, which equal those beside its unpacked values.
#[test]
fn a_packed_base_is_frozen_and_passes_gradients_on() {
    let device = Device::flex().autodiff();
    let upstream = wave([2, 4, 5], 2.3, &device);
    for format in [PackedFormat::Int8, PackedFormat::Nf4] {
        let mut packed = Linear::new(wave([5, 7], 1.1, &device), Some(wave([5], 0.4, &device)));
        packed.weight = packed.weight.pack(format);
        let mut dense = Linear::new(packed.weight.val().autodiff(), Some(wave([5], 0.4, &device)));
        let run = |layer: &mut Linear| {
            layer.set_adapter(Some(adapter(&device)));
            let x = wave([2, 4, 7], 0.6, &device).set_require_grad(true);
            let y = nn::fused_linear(kernels::LinearInput::Plain(x.clone()), &[&*layer], None);
            let found = values(&y);
            let gradients = (y * upstream.clone()).sum().backward();
            let Some(Adapter::Lora(lora)) = layer.adapter() else { panic!("an adapter") };
            let of = |x: Option<Tensor<2>>| values(&x.expect("a gradient"));
            let dx = values(&x.grad(&gradients).expect("a gradient"));
            let factors = [&lora.lora_A, &lora.lora_B].map(|f| of(f.weight.val().grad(&gradients)));
            let bias = layer.bias.as_ref().expect("a bias").val().grad(&gradients);
            (found, dx, factors, values(&bias.expect("a gradient")))
        };
        let (got, want) = (run(&mut packed), run(&mut dense));
        assert!(!packed.weight.val().is_require_grad());
        assert_close("y", &got.0, &want.0, CLOSE);
        assert_close("dx", &got.1, &want.1, CLOSE);
        assert_close("dA", &got.2[0], &want.2[0], CLOSE);
        assert_close("dB", &got.2[1], &want.2[1], CLOSE);
        assert_close("dbias", &got.3, &want.3, CLOSE);
        // Merging unpacks the weight.
        let before = values(&packed.forward(wave([3, 7], 0.2, &device)));
        assert!(packed.merge_adapter().is_some() && packed.weight.dense().is_some());
        let merged = values(&packed.forward(wave([3, 7], 0.2, &device)));
        assert_close("merged", &merged, &before, Tolerance { absolute: 1e-6, of_largest: 2e-6 });
    }
}

/// DoRA (Liu et al. 2024, equation 5): with y = W·x + bias, the output is m / ‖W + s·B·A‖ · (W·x + s·B·A·x) + bias, norms
/// over rows. Values by plain loops over the dense weight; gradients from the same formula with the norms as constants.
#[test]
fn dora_scales_the_rows_of_the_adapted_weight() {
    let device = Device::flex().autodiff();
    let (w, bias) = (wave([5, 7], 1.1, &device), wave::<1>([5], 0.4, &device));
    let (a, b) = (wave::<2>([3, 7], 0.3, &device), wave::<2>([5, 3], 0.9, &device));
    let (x, m) = (wave::<2>([4, 7], 0.6, &device), wave::<1>([5], 0.8, &device));
    let delta = values(&b.clone().matmul(a.clone()).mul_scalar(SCALE));
    let dense: Vec<f32> = values(&w).iter().zip(&delta).map(|(w, d)| w + d).collect();
    let (xs, biases, ms) = (values(&x), values(&bias), values(&m));
    let norms: Vec<f32> =
        dense.chunks(7).map(|row| row.iter().map(|d| d * d).sum::<f32>().sqrt()).collect();
    let mut want = Vec::new();
    for row in xs.chunks(7) {
        for (o, direction) in dense.chunks(7).enumerate() {
            let dot: f32 = direction.iter().zip(row).map(|(d, x)| d * x).sum();
            want.push(ms[o] / norms[o] * dot + biases[o]);
        }
    }
    // The same as a dense weight with autodiff.
    let leaf = |x: &Tensor<2>| x.clone().detach().set_require_grad(true);
    let (a2, b2) = (leaf(&a), leaf(&b));
    let m2 = m.clone().detach().set_require_grad(true);
    let norms_o = Tensor::<1>::from_data(norms.as_slice(), &device);
    let dense_oi = (w.clone() + b2.clone().matmul(a2.clone()).mul_scalar(SCALE))
        * (m2.clone() / norms_o).unsqueeze_dim(1);
    let upstream = wave::<2>([4, 5], 2.3, &device);
    let y = x.clone().matmul(dense_oi.transpose());
    let wanted = (y * upstream.clone()).sum().backward();
    let linear = Linear::new(w.clone(), Some(bias.clone()));
    let conv = Conv1d::new(w.transpose(), Some(bias));
    for layer in [Box::new(linear) as Box<dyn Projection>, Box::new(conv)] {
        let mut layer = layer;
        let lora = LoraAdapter::new(a.clone(), b.clone(), SCALE, None);
        layer.set_adapter(Some(Adapter::Dora(DoraAdapter::new(lora, m.clone()))));
        let y = layer.apply(x.clone().unsqueeze()).reshape([4, 5]);
        assert_close("DoRA", &values(&y), &want, Tolerance::absolute(1e-5));
        let gradients = (y * upstream.clone()).sum().backward();
        let Some(Adapter::Dora(dora)) = layer.adapter() else { panic!("an adapter") };
        let of = |x: Option<Tensor<2>>| values(&x.expect("a gradient"));
        let dm = dora.lora_magnitude_vector.val().grad(&gradients).expect("a gradient");
        let wanted_dm = m2.grad(&wanted).expect("a gradient");
        assert_close("dm", &values(&dm), &values(&wanted_dm), Tolerance::absolute(1e-4));
        let factors = [&dora.lora().lora_A, &dora.lora().lora_B];
        for (factor, want) in factors.into_iter().zip([&a2, &b2]) {
            let got = of(factor.weight.val().grad(&gradients));
            assert_close("factor", &got, &of(want.grad(&wanted)), Tolerance::absolute(1e-4));
        }
        assert!(layer.linear_map().is_none());
        assert!(layer.merge_adapter().is_some());
        let merged = layer.apply(x.clone().unsqueeze()).reshape([4, 5]);
        assert_close("merged", &values(&merged), &want, Tolerance::absolute(1e-5));
    }
}
