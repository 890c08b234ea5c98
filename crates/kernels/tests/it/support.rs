//! Random tensors and their values in f64.

use std::cell::RefCell;

use burn::tensor::{Device, Int, Tensor, TensorData};
use testkit::{Tolerance, assert_close};

thread_local! {
    static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// The device of the operations under test, without autodiff: the CPU's, except within [`on_device`].
pub(crate) fn device() -> Device {
    DEVICE.with_borrow(|device| device.clone().unwrap_or_else(Device::flex))
}

/// Calls `run` with another device for the tests' operations.
#[cfg(feature = "gpu")]
pub(crate) fn on_device(device: Device, run: impl FnOnce()) {
    DEVICE.set(Some(device));
    run();
    DEVICE.set(None);
}

/// A tensor of values in about -2..2, from a small linear congruence.
pub(crate) fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u32 << 24) as f32) * 4.0 - 2.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(crate) fn ints<const D: usize>(values: &[i32], shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
}

pub(crate) fn f64s<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    testkit::values(x).into_iter().map(f64::from).collect()
}

pub(crate) fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// The derivative of `loss` by every element of `x`, by central differences, as a check of backward.
pub(crate) fn numeric_gradient<const D: usize>(
    x: &Tensor<D>,
    loss: impl Fn(Tensor<D>) -> f64,
) -> Vec<f32> {
    let step = 1e-2;
    let values = testkit::values(x);
    let at = |idx: usize, delta: f32| {
        let mut moved = values.clone();
        moved[idx] += delta;
        loss(Tensor::from_data(TensorData::new(moved, x.dims()), &Device::flex()))
    };
    (0..values.len())
        .map(|idx| ((at(idx, step) - at(idx, -step)) / (2.0 * f64::from(step))) as f32)
        .collect()
}

/// The bits of values: equal for equal NaNs too.
pub(crate) fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
}

/// The values of `run`, which must be equal to the bit on 1, 2 and 4 threads. Another device than the CPU's is used by the
/// calling thread.
pub(crate) fn on_any_threads(run: impl Fn() -> Vec<Vec<f32>> + Sync) -> Vec<Vec<f32>> {
    if device() != Device::flex() {
        return run();
    }
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(&run)
    };
    let one = on(1);
    for threads in [2, 4] {
        assert!(bits(&on(threads)) == bits(&one), "{threads} threads give other bits");
    }
    one
}

/// Fails unless the values of `run` with the CPU kernels are close to those with the generic ones.
pub(crate) fn cpu_against_generic(
    name: &str,
    tolerance: Tolerance,
    run: impl Fn() -> Vec<Vec<f32>> + Sync,
) {
    let cpu = on_any_threads(&run);
    let generic = kernels::with_generic_kernels(&run);
    assert_eq!(cpu.len(), generic.len());
    for (idx, (cpu, generic)) in cpu.iter().zip(&generic).enumerate() {
        assert_close(&format!("{name}, value {idx}"), cpu, generic, tolerance);
    }
}
