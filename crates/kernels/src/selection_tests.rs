//! Every public function selects its kernels once.

use burn::tensor::{Device, Int, Tensor};

use crate::attention::{AttentionMask, Heads, attention_packed};
use crate::dispatch::{N_SELECTIONS, with_generic_kernels};
use crate::fused_linear::{Adapter, LinearInput, LinearMap, WeightLayout, fused_linear};
use crate::linear::linear;
use crate::lora::add_lora;
use crate::norm::rms_norm;
use crate::weight::WeightTensor;

/// Kernels call kernels of their own set: none of them selects again.
#[test]
fn a_call_selects_once() {
    let device = Device::flex().autodiff();
    let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, &device);
    let x = Tensor::<3>::ones([1, 2, 12], &device);
    let segments = Tensor::<2, Int>::zeros([1, 2], &device);
    let mask = AttentionMask::causal(segments.clone(), segments);
    let angles = Tensor::<3>::ones([1, 2, 2], &Device::flex());
    let adapter = Adapter { a_ri: ones([1, 6]), b_or: ones([3, 1]), scale: 1.0 };
    let map = LinearMap {
        weight: WeightTensor::Dense(ones([3, 6])),
        layout: WeightLayout::OutIn,
        bias_o: None,
        adapter: Some(adapter),
    };
    let norm = LinearInput::RmsNorm {
        x_btd: Tensor::ones([1, 2, 6], &device),
        weight_d: Tensor::ones([6], &device),
        eps: 1e-5,
    };
    let calls: [(&str, &dyn Fn()); 6] = [
        ("rms_norm", &|| drop(rms_norm(x.clone(), Tensor::ones([12], &device), 1e-5))),
        ("fused_linear of a norm", &|| {
            drop(fused_linear(norm.clone(), std::slice::from_ref(&map), None));
        }),
        ("linear", &|| drop(linear(x.clone(), ones([3, 12]), None))),
        ("add_lora", &|| {
            let y = Tensor::<3>::ones([1, 2, 3], &device);
            drop(add_lora(y, x.clone(), ones([1, 12]), ones([3, 1]), 1.0));
        }),
        ("fused_linear", &|| {
            drop(fused_linear(LinearInput::SwiGlu(x.clone()), std::slice::from_ref(&map), None));
        }),
        ("attention_packed", &|| {
            let rope = Some((angles.clone(), angles.clone()));
            let heads = Heads { h: 1, g: 1, k: 4 };
            drop(attention_packed(x.clone(), heads, rope, &mask, 1.0));
        }),
    ];
    for (name, call) in calls {
        N_SELECTIONS.set(0);
        call();
        assert_eq!(N_SELECTIONS.get(), 1, "{name} with CPU kernels");
        N_SELECTIONS.set(0);
        with_generic_kernels(call);
        assert_eq!(N_SELECTIONS.get(), 1, "{name} with generic kernels");
    }
}
