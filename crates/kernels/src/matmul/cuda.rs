//! The product on a GPU: f32 operands without tensor cores, bf16 operands with them, sums in f32.
//!
//! Both kernels are burn's. The choice of a kernel for f32 depends on shapes alone, so that runs repeat to the bit.

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

impl MatmulOps for CubeBackend {
    fn matmul_f32(lhs: CubeTensor, rhs: CubeTensor) -> CubeTensor {
        if lhs.dtype == DType::F32 {
            return full(lhs, rhs);
        }
        match matmul(lhs, rhs, None, MatmulStrategy::default(), DType::F32) {
            Ok(out) => out,
            Err(error) => unreachable!("burn refuses a product: {error:?}"),
        }
    }
}

/// The product by multiply-adds in registers. Kernels that use an accelerator would round to TF32 (cubek-matmul,
/// `adjust_dtypes`); these two do not use one.
fn full(lhs: CubeTensor, rhs: CubeTensor) -> CubeTensor {
    let out = init_matmul_output(&lhs, &rhs, DType::F32);
    if out.meta.shape().iter().any(|size| *size == 0) {
        return out;
    }
    let f32 = dtype_to_storage_type(DType::F32);
    let client = out.client.clone();
    let launched = [Strategy::SimpleUnit(BlueprintStrategy::default()), Strategy::Naive]
        .into_iter()
        .any(|strategy| {
            let globals = MatmulGlobalElems { lhs: f32, rhs: f32, out: f32 };
            let mut elems = MatmulElems::from_globals(&globals);
            let [lhs, rhs] = [&lhs, &rhs].map(|x| InputBinding::new(x.clone().binding(), f32));
            // A strategy is refused before a launch; the naive kernel accepts every shape.
            launch_ref(&strategy.into(), &client, lhs, rhs, out.clone().binding(), &mut elems)
                .is_ok()
        });
    assert!(launched, "no kernel multiplies these shapes");
    out
}
