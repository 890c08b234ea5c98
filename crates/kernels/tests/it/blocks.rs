//! Weights in the blocks of a GGUF file: operations have the bits of those with the same values in f32.

use burn::tensor::{Device, Tensor};
use kernels::{
    Adapter, Head, LinearInput, LinearMap, TensorType, WeightLayout, WeightTensor, block_bytes,
    block_matrix, block_values, embedding, fused_linear, linear_logprobs,
};
use testkit::values;

use crate::support::{bits, ints, on_any_threads, random};

/// Formats of both sizes of blocks.
const FORMATS: [TensorType; 5] =
    [TensorType::Q8_0, TensorType::Q4_1, TensorType::Q4_0, TensorType::Q4K, TensorType::Q6K];

/// The same matrix in blocks and in f32. Scales are finite: the highest bit of their exponents is not set.
fn both(ty: TensorType, dims: [usize; 2], seed: u8) -> [WeightTensor; 2] {
    let n = ty.bytes((dims[0] * dims[1]) as u64).expect("whole blocks");
    let byte = |idx: u64| (idx.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8 ^ seed;
    let bytes = (0..n).map(|idx| byte(idx + 1) & 0xbf).collect();
    let matrix = block_matrix(block_bytes(bytes), ty, dims);
    let dense = block_values(&matrix);
    [WeightTensor::Blocks(matrix), WeightTensor::Dense(dense)]
}

/// Fails unless `run` has the same bits with each weight, on any number of threads.
fn check(
    name: &str,
    weights: [WeightTensor; 2],
    run: impl Fn(WeightTensor) -> Vec<Vec<f32>> + Sync,
) {
    let [blocks, dense] = weights.map(|weight| on_any_threads(|| run(weight.clone())));
    assert!(bits(&blocks) == bits(&dense), "{name}");
}

fn map(weight: WeightTensor, layout: WeightLayout) -> LinearMap {
    LinearMap { weight, layout, bias_o: None, adapter: None }
}

#[test]
fn products_of_any_number_of_rows() {
    let device = Device::flex();
    for ty in FORMATS {
        for n in [1, 2, 3, 8, 16, 17, 64, 65, 130] {
            for [d_out, d_in] in [[70, 256], [300, 512]] {
                let x = random([1, n, d_in], 3, &device);
                let residual = random([1, n, d_out], 4, &device);
                check(&format!("{ty:?} {n} {d_out}"), both(ty, [d_out, d_in], 0), |weight| {
                    let input = LinearInput::Plain(x.clone());
                    let map = map(weight, WeightLayout::OutIn);
                    vec![values(&fused_linear(input, &[map], Some(residual.clone())))]
                });
            }
        }
    }
}

#[test]
fn several_maps_with_norm_bias_and_adapter() {
    let device = Device::flex();
    let (d_in, d_out) = (256, 40);
    for n in [1, 16, 90] {
        let x = random([1, n, d_in], 5, &device);
        let [first, second] = [1, 2].map(|seed| both(TensorType::Q8_0, [d_out, d_in], seed));
        let pairs = first.into_iter().zip(second).collect::<Vec<_>>();
        let run = |idx: usize| {
            let (first, second) = pairs[idx].clone();
            on_any_threads(|| {
                let input = LinearInput::RmsNorm {
                    x_btd: x.clone(),
                    weight_d: random([d_in], 6, &device),
                    eps: 1e-5,
                };
                let adapter = Adapter {
                    a_ri: random([4, d_in], 7, &device),
                    b_or: random([d_out, 4], 8, &device),
                    scale: 0.5,
                };
                let bias_o = Some(random([d_out], 9, &device));
                let maps = [
                    LinearMap { bias_o, ..map(first.clone(), WeightLayout::OutIn) },
                    LinearMap {
                        adapter: Some(adapter),
                        ..map(second.clone(), WeightLayout::OutIn)
                    },
                ];
                vec![values(&fused_linear(input, &maps, None))]
            })
        };
        assert!(bits(&run(0)) == bits(&run(1)), "{n} rows");
    }
}

/// A gradient passes through a weight in blocks, and the weight itself has none.
#[test]
fn gradients_pass() {
    for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
        let weights = both(TensorType::Q8_0, [64, 64], 3);
        check(&format!("{layout:?}"), weights, |weight| {
            // More rows than decoding has: a tensor in a graph is multiplied as in training.
            let x = random::<3>([1, 80, 64], 5, &Device::flex()).autodiff().require_grad();
            let weight = match weight {
                WeightTensor::Dense(weight) => weight.autodiff().into(),
                WeightTensor::Blocks(_) => weight,
            };
            let out = fused_linear(LinearInput::Plain(x.clone()), &[map(weight, layout)], None);
            let gradients = out.clone().square().sum().backward();
            vec![values(&out.inner()), values(&x.grad(&gradients).expect("a gradient"))]
        });
    }
}

#[test]
fn rows_of_a_table() {
    for ty in FORMATS {
        check(&format!("{ty:?}"), both(ty, [50, 256], 1), |weight| {
            vec![values(&embedding(weight, ints(&[0, 49, 7, 7, 31, 2], [2, 3])))]
        });
    }
}

#[test]
fn the_head() {
    let hidden: Tensor<2> = random([5, 256], 2, &Device::flex());
    check("head", both(TensorType::Q6K, [96, 256], 1), |weight| {
        let head = Head { soft_cap: Some(30.0), ..Head::from(weight) };
        let both =
            linear_logprobs(hidden.clone(), head.clone(), ints(&[3, -1, 95, 0, 1], [5]), 0.7);
        vec![values(&head.logits(hidden.clone())), values(&both.logprobs_n)]
    });
}

#[test]
fn the_generic_kernels_read_the_values() {
    let weights = both(TensorType::Q8_0, [32, 64], 2);
    let x: Tensor<3> = random([1, 3, 64], 5, &Device::flex());
    let [blocks, dense] = weights.map(|weight| {
        kernels::with_generic_kernels(|| {
            let table = values(&embedding(weight.clone(), ints(&[1, 3], [1, 2])));
            let y = kernels::linear(x.clone(), weight, None);
            vec![table, values(&y)]
        })
    });
    assert_eq!(bits(&blocks), bits(&dense));
}
