//! Weights in the blocks of a GGUF file, converted to f32 while they are used.
//!
//! A value has the bits that reading the file as f32 would give it, so products have the same bits too.

use burn::tensor::DType;
use burn_flex::FlexTensor;
use ggml_blocks::TensorType;
use rayon::prelude::*;

use crate::buffer::{filled, rows_per_task};
use crate::simd::multiversion;
use crate::team::AllThreads as _;

/// A frozen matrix in blocks; a row is a whole number of them.
#[derive(Clone, Debug)]
pub struct BlockMatrix {
    bytes: FlexTensor,
    ty: TensorType,
    dims: [usize; 2],
}

impl BlockMatrix {
    /// A matrix of `dims` whose rows are in `bytes`, one number a byte, one after the other.
    ///
    /// # Panics
    /// If they are not bytes, or not as many as the matrix has, or a row is not a whole number of blocks.
    pub fn new(bytes: FlexTensor, ty: TensorType, dims: [usize; 2]) -> Self {
        let [rows, columns] = dims;
        let row = ty.bytes(columns as u64);
        assert!(row.is_some(), "rows of {columns} values in blocks of {}", ty.name());
        let n = bytes.layout().num_elements() as u64;
        let expected = row.map(|row| row * rows as u64);
        assert_eq!(Some(n), expected, "bytes of a matrix {dims:?} in {}", ty.name());
        assert_eq!(bytes.dtype(), DType::U8, "blocks are bytes");
        let bytes = if bytes.layout().is_contiguous() { bytes } else { bytes.to_contiguous() };
        Self { bytes, ty, dims }
    }

    /// The number of rows and of columns.
    pub fn dims(&self) -> [usize; 2] {
        self.dims
    }

    /// All values in f32.
    pub fn values(&self) -> FlexTensor {
        crate::flex::tensor(self.rows().widened(), self.dims)
    }

    /// The rows.
    pub(crate) fn rows(&self) -> BlockRows<'_> {
        let bytes: &[u8] = self.bytes.as_slice().unwrap_or_default();
        BlockRows { bytes, ty: self.ty, columns: self.dims[1] }
    }
}

/// Rows of a matrix in blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockRows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) ty: TensorType,
    pub(crate) columns: usize,
}

impl BlockRows<'_> {
    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.columns / self.ty.block_elements() * self.ty.block_bytes()
    }

    /// Number of rows.
    pub(crate) fn n_rows(&self) -> usize {
        self.bytes.len().checked_div(self.row_bytes()).unwrap_or(0)
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.n_rows() * self.columns
    }

    /// Converts rows from one on, as many as `out` has.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn widen(&self, out: &mut [f32], first: usize) {
        let n = out.len().checked_div(self.columns).unwrap_or(0);
        let row = self.row_bytes();
        decode(self.ty, &self.bytes[first * row..(first + n) * row], out);
    }

    /// All values, on all threads.
    pub(crate) fn widened(&self) -> Vec<f32> {
        filled(self.len(), |out| {
            let rows = rows_per_task(self.columns);
            let tasks = out.par_chunks_mut((rows * self.columns).max(1)).enumerate();
            tasks.on_all_threads(|(task, out)| self.widen(out, task * rows));
        })
    }
}

multiversion! {
    /// Converts whole blocks to f32.
    fn decode(ty: TensorType, bytes: &[u8], out: &mut [f32]) {
        ggml_blocks::decode(ty, bytes, out);
    }
}
