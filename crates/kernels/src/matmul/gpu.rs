//! The product on a GPU: f32 operands without tensor cores, bf16 and TF32 operands with them, sums in f32.
//!
//! The kernels are burn's. The choice of a kernel for f32 depends on shapes alone, so that runs repeat to the bit. For bf16 it
//! is the fastest of this process, or with [`crate::set_deterministic`] one that depends on shapes alone too.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::matmul::{MatmulStrategy, init_matmul_output, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::std::InputBinding;

use super::MatmulOps;
use crate::precision::{Precision, is_deterministic};

impl MatmulOps for CubeBackend {
    fn matmul_f32(lhs: CubeTensor, rhs: CubeTensor, precision: Precision) -> CubeTensor {
        match precision {
            Precision::F32 => first_that_runs(lhs, rhs, registers()),
            Precision::Tf32 | Precision::Bf16 if is_deterministic() => {
                first_that_runs(lhs, rhs, tensor_cores())
            }
            Precision::Tf32 | Precision::Bf16 => {
                match matmul(lhs, rhs, None, MatmulStrategy::default(), DType::F32) {
                    Ok(out) => out,
                    Err(error) => unreachable!("burn refuses a product: {error:?}"),
                }
            }
        }
    }
}

/// Multiply-adds in registers. Kernels that use an accelerator would round f32 to TF32 (cubek-matmul, `adjust_dtypes`); these
/// two do not use one, and the second one accepts every shape.
fn registers() -> Vec<Strategy> {
    vec![Strategy::SimpleUnit(BlueprintStrategy::default()), Strategy::Naive]
}

/// Tensor cores, then registers for shapes that those refuse: the order of cubek's own choice without timing.
fn tensor_cores() -> Vec<Strategy> {
    let mut strategies = vec![Strategy::SimpleCyclicCmma(BlueprintStrategy::default())];
    strategies.extend(registers());
    strategies
}

/// The product by the first kernel that accepts the shapes. A kernel is refused before a launch.
fn first_that_runs(lhs: CubeTensor, rhs: CubeTensor, strategies: Vec<Strategy>) -> CubeTensor {
    let out = init_matmul_output(&lhs, &rhs, DType::F32);
    if out.meta.shape().iter().any(|size| *size == 0) {
        return out;
    }
    let [of_lhs, of_rhs, of_out] = [lhs.dtype, rhs.dtype, DType::F32].map(dtype_to_storage_type);
    let client = out.client.clone();
    let launched = strategies.into_iter().any(|strategy| {
        let globals = MatmulGlobalElems { lhs: of_lhs, rhs: of_rhs, out: of_out };
        let mut elems = MatmulElems::from_globals(&globals);
        let [lhs, rhs] = [(&lhs, of_lhs), (&rhs, of_rhs)]
            .map(|(x, dtype)| InputBinding::new(x.clone().binding(), dtype));
        let out = out.clone().binding();
        launch_ref(&strategy.into(), &client, lhs, rhs, out, &mut elems).is_ok()
    });
    assert!(launched, "no kernel multiplies these shapes");
    out
}
