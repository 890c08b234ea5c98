//! One layer with an adapter against the same layer with a dense weight: values and gradients.

use burn::tensor::{Device, Tensor};
use nn::{Conv1d, DropoutKey, Linear, LoraAdapter, LoraDropout, Projection};
use testkit::{Tolerance, assert_close, values};

const CLOSE: Tolerance = Tolerance { absolute: 1e-6, of_largest: 1e-6 };
const SCALE: f64 = 1.5;

fn wave<const D: usize>(shape: [usize; D], factor: f32, device: &Device) -> Tensor<D> {
    Tensor::from_data(testkit::wave(shape, factor).into_data(), device)
}

fn adapter(device: &Device) -> LoraAdapter {
    LoraAdapter::new(wave([3, 7], 0.3, device), wave([5, 3], 0.9, device), SCALE, None)
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
        let slot = layer.adapter().expect("an adapter");
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
    layer.set_adapter(Some(LoraAdapter::new(a, b, SCALE, Some(dropout))));
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
        mean.iter_mut().zip(values(&other.forward(x.clone()))).for_each(|(m, y)| *m += y / 4000.0);
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
