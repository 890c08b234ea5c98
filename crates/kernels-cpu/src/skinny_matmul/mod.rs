//! Product of few rows with a weight `[out, in]`, for decoding: the weight is read once, in its own order.
//!
//! General products first copy the weight into another order, which costs more than the product itself for few rows. Here
//! the lanes of a vector are neighbouring columns of the weight, so that none is idle, whatever the number of rows.
//!
//! A weight in blocks is converted to f32 on the way, in registers or a group of rows at a time.
//!
//! A value of the product is the sum of [`LANES`] partial sums, each of every sixteenth column, in an order that depends on
//! the number of columns alone. So a row's values are the same to the bit, whichever other rows are computed with it.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx512;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx512_blocks;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx_blocks;
#[cfg(test)]
mod block_tests;
mod blocks;
mod generic;
#[cfg(test)]
mod tests;

use crate::team::AllThreads as _;
use half::bf16;
use rayon::prelude::*;

use crate::bf16::{Bf16Products, bf16_products};
use crate::buffer::{Shared, scratch};
use crate::precision::Precision;
use crate::weight_storage::StoredWeight;

/// The maximum number of rows.
pub(crate) const MAX_ROWS: usize = 64;
/// Partial sums of a value.
const LANES: usize = 16;
/// Columns of a block of a file that is converted in registers.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
const BLOCK_COLUMNS: usize = 32;
/// Rows of the weight per task: about as many of a small model's as a second-level cache holds.
const TASK_OUTS: usize = 64;
/// Rows of the weight that are multiplied block by block.
const GROUP_OUTS: usize = 16;
/// The maximum number of rows of x per tile.
const TILE_ROWS: usize = 8;
/// The maximum number of columns per block of [`TILE_ROWS`] rows, so that x remains in a first-level cache.
const BLOCK: usize = 640;
/// Values that a row of x is padded to a multiple of: the columns of the widest step.
const PADDING: usize = 32;

/// Whether this processor has the instructions of [`add_product`].
///
/// The portable build emulates them, for its tests.
pub(crate) fn is_supported() -> bool {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    {
        has_avx512() || has_avx2()
    }
    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
    {
        // Elsewhere a fused multiplication and addition can be a call of a function.
        cfg!(feature = "portable") || cfg!(target_arch = "aarch64")
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Adds `x · weightᵀ` to `out`: x `[n, i]`, weight `[o, i]`, out `[n, o]` with rows `width` apart.
///
/// A weight that is stored in bf16 is widened, or x rounded if `precision` says so. One in blocks is widened.
///
/// # Panics
/// If shapes do not fit, there are too many rows, or the processor lacks the instructions.
pub(crate) fn add_product(
    out: &mut [f32],
    width: usize,
    x: &[f32],
    weight: &StoredWeight,
    n: usize,
    precision: Precision,
) {
    // Where the instruction for pairs is missing or slow, unrounded values are multiplied: more exact, and as fast.
    let rounds = precision == Precision::Bf16 && bf16_products() == Bf16Products::Pairs;
    assert!(is_supported() && (1..=MAX_ROWS).contains(&n), "{n} rows");
    let d_in = x.len() / n;
    let d_out = weight.len() / d_in.max(1);
    assert!(
        x.len() == n * d_in && weight.len() == d_out * d_in && d_out <= width,
        "{n} rows of {d_in} by {d_out}"
    );
    assert!(out.len() >= (n - 1) * width + d_out, "{n} rows every {width}");
    let product = Product { n, d_in, width };
    match weight {
        StoredWeight::F32(weight) => product.add(out, x, |x| x, &Slice::new(weight, d_in), &f32s()),
        StoredWeight::Bf16(weight) if rounds => {
            product.add(out, x, bf16::from_f32, &Slice::new(weight, d_in), &pairs());
        }
        StoredWeight::Bf16(weight) => {
            product.add(out, x, |x| x, &Slice::new(weight, d_in), &widened());
        }
        StoredWeight::Blocks(rows) => blocks::add(product, out, x, rows),
    }
}

/// Rows of x and of the weight, and a range of columns.
#[derive(Debug)]
struct Part<'a, X, W> {
    /// The rows of x, `stride` apart; zeros beyond the columns of the weight.
    x: &'a [X],
    stride: usize,
    /// Rows of the weight, `row` elements each.
    weight: &'a [W],
    row: usize,
    d_in: usize,
    /// The columns; the first is a multiple of [`PADDING`].
    from: usize,
    to: usize,
    /// Whether the rows of the weight that follow will be read soon.
    #[cfg_attr(not(all(target_arch = "x86_64", not(feature = "portable"))), expect(dead_code))]
    prefetches: bool,
}

/// Adds the products of a part to partial sums: for each row of the weight, each row of x, [`LANES`] of them.
///
/// # Safety
/// The processor must have the instructions.
type Tile<X, W> = unsafe fn(&mut [f32], &Part<'_, X, W>);

/// The tiles for a number of rows of x.
struct Shape<X, W> {
    rows: usize,
    /// Rows of the weight of `many`.
    outs: usize,
    many: Tile<X, W>,
    one: Tile<X, W>,
}

/// The loops of a kind of product on this processor.
struct Loops<X: 'static, W: 'static> {
    /// In ascending order of their rows.
    shapes: &'static [Shape<X, W>],
    /// Adds up the lanes of eight values.
    sum_lanes: unsafe fn(&[f32; 8 * LANES]) -> [f32; 8],
}

/// The shapes of a tile: the rows of x, and the rows of the weight that the number of vector registers allows.
macro_rules! shapes {
    ($module:ident :: $name:ident $(, ($rows:literal, $outs:literal))*) => {
        &[$($crate::skinny_matmul::Shape {
            rows: $rows,
            outs: $outs,
            many: $module::$name::<$rows, $outs>,
            one: $module::$name::<$rows, 1>,
        }),*]
    };
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use shapes;

/// The loops of a product with x in f32.
macro_rules! loops {
    ($(#[$doc:meta])* $name:ident: $weight:ty) => {
        $(#[$doc])*
        fn $name() -> Loops<f32, $weight> {
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            {
                let shapes: &[_] = if has_avx512() {
                    shapes!(avx512::$name, (1, 8), (2, 8), (4, 4), (8, 2))
                } else {
                    shapes!(avx::$name, (1, 1), (2, 1), (4, 1))
                };
                Loops { shapes, sum_lanes: avx::sum_lanes }
            }
            #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
            {
                let shapes = shapes!(generic::$name, (1, 4), (2, 2), (4, 1));
                Loops { shapes, sum_lanes: generic::sum_lanes }
            }
        }
    };
}

loops!(f32s: f32);
loops!(
    /// The weight is widened.
    widened: bf16
);

/// Both sides are rounded to bf16, and pairs of columns are multiplied; only with [`Bf16Products::Pairs`].
fn pairs() -> Loops<bf16, bf16> {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    {
        let shapes = shapes!(avx512::pairs, (1, 8), (2, 8), (4, 4), (8, 2));
        Loops { shapes, sum_lanes: avx::sum_lanes }
    }
    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
    unreachable!("the caller checked for the instructions")
}

/// The rows of a weight.
trait Rows<W>: Sync {
    fn n_rows(&self) -> usize;

    /// Elements of a row: values, or blocks of them.
    fn row(&self) -> usize;

    /// Calls `run` with `n` rows from one on.
    fn with(&self, first: usize, n: usize, run: impl FnOnce(&[W]));
}

/// Rows as tiles read them.
struct Slice<'a, W> {
    elements: &'a [W],
    row: usize,
}

impl<'a, W> Slice<'a, W> {
    fn new(elements: &'a [W], row: usize) -> Self {
        Self { elements, row }
    }
}

impl<W: Sync> Rows<W> for Slice<'_, W> {
    fn n_rows(&self) -> usize {
        self.elements.len().checked_div(self.row).unwrap_or(0)
    }

    fn row(&self) -> usize {
        self.row
    }

    fn with(&self, first: usize, n: usize, run: impl FnOnce(&[W])) {
        run(&self.elements[first * self.row..][..n * self.row]);
    }
}

/// The sizes of a product.
#[derive(Clone, Copy, Debug)]
struct Product {
    n: usize,
    d_in: usize,
    /// Distance of the output's rows.
    width: usize,
}

impl Product {
    fn add<X: Copy + Default + Sync, W: Sync>(
        self,
        out: &mut [f32],
        x: &[f32],
        convert: impl Fn(f32) -> X,
        weight: &impl Rows<W>,
        loops: &Loops<X, W>,
    ) {
        let tiles = self.row_tiles(loops);
        let stride = self.d_in.next_multiple_of(PADDING);
        let n_padded: usize = tiles.iter().map(|(_, shape)| shape.rows).sum();
        let mut padded = vec![X::default(); n_padded * stride];
        for (padded, x) in padded.chunks_mut(stride).zip(x.chunks(self.d_in)) {
            padded.iter_mut().zip(x).for_each(|(padded, x)| *padded = convert(*x));
        }
        let out = Shared::new(out);
        let (row, n_outs) = (weight.row(), weight.n_rows());
        let group = |first_out: usize| {
            weight.with(first_out, GROUP_OUTS.min(n_outs - first_out), |weight| {
                for (first_row, shape) in &tiles {
                    let x = &padded[first_row * stride..][..shape.rows * stride];
                    let (d_in, prefetches) = (self.d_in, *first_row == 0);
                    let part = Part { x, stride, weight, row, d_in, from: 0, to: d_in, prefetches };
                    self.add_group(&out, (*first_row, first_out), &part, shape, loops);
                }
            });
        };
        let task = |task: usize| {
            let outs = task * TASK_OUTS..n_outs.min((task + 1) * TASK_OUTS);
            outs.step_by(GROUP_OUTS).for_each(group);
        };
        let n_tasks = n_outs.div_ceil(TASK_OUTS);
        if self.n * n_outs * self.d_in < 64 * 1024 {
            (0..n_tasks).for_each(task);
        } else {
            (0..n_tasks).into_par_iter().on_all_threads(task);
        }
    }

    /// Divides the rows of x among shapes: the first row of each tile, and its shape. The last one can have too many.
    fn row_tiles<'a, X, W>(&self, loops: &'a Loops<X, W>) -> Vec<(usize, &'a Shape<X, W>)> {
        let mut tiles = Vec::new();
        let mut first = 0;
        while first < self.n {
            let fits = |shape: &&Shape<X, W>| shape.rows >= self.n - first;
            let Some(shape) = loops.shapes.iter().find(fits).or(loops.shapes.last()) else { break };
            tiles.push((first, shape));
            first += shape.rows;
        }
        tiles
    }

    /// Adds the product of a group of the weight's rows and the rows of a tile to the output, from `first_row` and `first_out`
    /// on.
    fn add_group<X, W>(
        self,
        out: &Shared<'_>,
        (first_row, first_out): (usize, usize),
        part: &Part<'_, X, W>,
        shape: &Shape<X, W>,
        loops: &Loops<X, W>,
    ) {
        let n_outs = part.weight.len() / part.row;
        scratch([GROUP_OUTS * TILE_ROWS * LANES], |[sums]| {
            let sums = &mut sums[..(n_outs * shape.rows).next_multiple_of(8) * LANES];
            sums.fill(0.0);
            let n_blocks = part.d_in.div_ceil(BLOCK * TILE_ROWS / shape.rows);
            let block = part.d_in.div_ceil(n_blocks).next_multiple_of(PADDING);
            for from in (0..part.d_in).step_by(block) {
                let to = part.d_in.min(from + block);
                add_block(sums, &Part { from, to, ..*part }, shape);
            }
            let mut values = [0.0; GROUP_OUTS * TILE_ROWS];
            let (sums, _) = sums.as_chunks();
            for (values, sums) in values.as_chunks_mut().0.iter_mut().zip(sums) {
                // SAFETY: the loops were chosen for this processor.
                #[allow(unsafe_code)]
                let sums = unsafe { (loops.sum_lanes)(sums) };
                *values = sums;
            }
            for row in first_row..self.n.min(first_row + shape.rows) {
                let add = |out: &mut [f32]| {
                    for (idx, out) in out.iter_mut().enumerate() {
                        *out += values[idx * shape.rows + row - first_row];
                    }
                };
                #[allow(unsafe_code)]
                // SAFETY: only this task writes these columns of the output.
                unsafe {
                    out.with(row * self.width + first_out, n_outs, add);
                }
            }
        });
    }
}

/// Adds the products of a block of columns to the sums, tile by tile.
fn add_block<X, W>(sums: &mut [f32], part: &Part<'_, X, W>, shape: &Shape<X, W>) {
    let mut sums = sums.chunks_mut(shape.rows * LANES * shape.outs);
    for weight in part.weight.chunks(shape.outs * part.row) {
        let Some(sums) = sums.next() else { break };
        let is_whole = weight.len() == shape.outs * part.row;
        let (tile, outs) = if is_whole { (shape.many, shape.outs) } else { (shape.one, 1) };
        let sums = sums.chunks_mut(outs * shape.rows * LANES);
        for (sums, weight) in sums.zip(weight.chunks(outs * part.row)) {
            // SAFETY: the loops were chosen for this processor.
            #[allow(unsafe_code)]
            unsafe {
                tile(sums, &Part { weight, ..*part });
            }
        }
    }
}
