//! Weights in blocks: converted in registers for a few rows of x, else a group of the weight's rows before its tiles.
//!
//! Both ways multiply the values that reading the file gives, in the order of a weight in f32.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use ggml_blocks::TensorType;

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::{
    BLOCK_COLUMNS, Loops, Slice, avx, avx_blocks, avx512_blocks, has_avx2, has_avx512, shapes,
};
use super::{Product, Rows, f32s};
use crate::blocks::BlockRows;
use crate::rounding::with_kept;

/// The number of rows of x up to which blocks are converted in registers, by each tile again.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
const FEW: usize = 8;

/// The loops of a format that is converted in registers.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
macro_rules! loops {
    ($name:ident) => {{
        let shapes: &[_] = if has_avx512() {
            shapes!(avx512_blocks::$name, (1, 2), (2, 2), (4, 2), (8, 1))
        } else {
            shapes!(avx_blocks::$name, (1, 1), (2, 1), (4, 1))
        };
        Loops { shapes, sum_lanes: avx::sum_lanes }
    }};
}

/// Adds the product with a weight in blocks.
pub(super) fn add(product: Product, out: &mut [f32], x: &[f32], weight: &BlockRows<'_>) {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    if product.n <= FEW && (has_avx512() || has_avx2()) && has_f16c() {
        macro_rules! add {
            ($name:ident) => {{
                let (blocks, _) = weight.bytes.as_chunks();
                let rows = Slice::new(blocks, weight.columns / BLOCK_COLUMNS);
                product.add(out, x, |x| x, &rows, &loops!($name));
                return;
            }};
        }
        match weight.ty {
            TensorType::Q8_0 => add!(q8_0),
            TensorType::Q4_0 => add!(q4_0),
            TensorType::Q4_1 => add!(q4_1),
            TensorType::F32
            | TensorType::F16
            | TensorType::Bf16
            | TensorType::Q5_0
            | TensorType::Q5_1
            | TensorType::Q2K
            | TensorType::Q3K
            | TensorType::Q4K
            | TensorType::Q5K
            | TensorType::Q6K
            | TensorType::Iq4Nl
            | TensorType::Iq4Xs => {}
        }
    }
    add_grouped(product, out, x, weight);
}

/// Adds the product; a group of the weight's rows is converted before it is multiplied.
pub(super) fn add_grouped(product: Product, out: &mut [f32], x: &[f32], weight: &BlockRows<'_>) {
    product.add(out, x, |x| x, weight, &f32s());
}

/// Whether the processor converts numbers in half precision.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(super) fn has_f16c() -> bool {
    std::arch::is_x86_feature_detected!("f16c")
}

/// Rows that are converted a group at a time.
impl Rows<f32> for BlockRows<'_> {
    fn n_rows(&self) -> usize {
        BlockRows::n_rows(self)
    }

    fn row(&self) -> usize {
        self.columns
    }

    fn with(&self, first: usize, n: usize, run: impl FnOnce(&[f32])) {
        with_kept(n * self.columns, |values| {
            self.widen(values, first);
            run(values);
        });
    }
}
