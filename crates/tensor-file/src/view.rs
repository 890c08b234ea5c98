//! One tensor of a file: its description, and its values on request.

use std::path::Path;

use arch::Dtype;
use gguf::TensorType;

use crate::info::TensorInfo;
use crate::source::Source;
use crate::{Element, Error, Result, StoredDtype};

/// Values are copied from the file's bytes, which are little-endian by definition.
const _: () = assert!(cfg!(target_endian = "little"), "tensors are read on little-endian machines");

/// Elements that are converted at a time.
const CHUNK: usize = 256 * 1024;

/// A tensor of a file. Nothing is read before one of the methods that return values.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    source: &'a Source,
    info: &'a TensorInfo,
}

impl<'a> TensorView<'a> {
    pub(crate) fn new(source: &'a Source, info: &'a TensorInfo) -> Self {
        Self { source, info }
    }

    /// The file.
    pub fn path(self) -> &'a Path {
        self.source.path()
    }

    /// The name.
    pub fn name(self) -> &'a str {
        &self.info.name
    }

    /// The shape.
    pub fn shape(self) -> &'a [usize] {
        &self.info.shape
    }

    /// The dtype's name in the file.
    pub fn stored_as(self) -> &'a str {
        &self.info.stored_as
    }

    /// The dtype; `None` if this crate does not know it.
    pub fn dtype(self) -> Option<StoredDtype> {
        self.info.dtype()
    }

    /// The number of elements.
    pub fn n_elements(self) -> usize {
        self.info.shape.iter().product()
    }

    /// The number of bytes in the file.
    pub fn n_bytes(self) -> u64 {
        self.info.end - self.info.start
    }

    /// The same tensor, if it has this shape.
    pub fn with_shape(self, shape: &[usize]) -> Result<Self> {
        if self.info.shape == shape {
            return Ok(self);
        }
        Err(Error::Shape {
            path: self.path().to_owned(),
            name: self.info.name.clone(),
            found: self.info.shape.clone(),
            expected: shape.to_vec(),
        })
    }

    /// Fills `out` with the stored bytes from `start` on, counted from the tensor's first byte.
    ///
    /// Errors: the range ends after the tensor does.
    pub fn read_bytes(self, start: u64, out: &mut [u8]) -> Result<()> {
        let end = start.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.n_bytes()) {
            let reason = format!("tensor `{}` has only {} bytes", self.name(), self.n_bytes());
            return Err(Error::Malformed { path: self.path().to_owned(), reason });
        }
        self.source.read_tensor(self.info, start, out)
    }

    /// The values as they are stored; no conversion, no check of the values.
    ///
    /// Errors: the tensor is stored in another dtype than `T`'s.
    pub fn values<T: Element>(self) -> Result<Vec<T>> {
        if self.dtype() != Some(T::DTYPE) {
            return Err(self.other_dtype(T::DTYPE.name()));
        }
        let mut values = vec![T::zeroed(); self.n_elements()];
        self.read_bytes(0, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// The dtype of a weight.
    ///
    /// Errors: a dtype from which no weights are read.
    pub fn weight_dtype(self) -> Result<Dtype> {
        let dtype = self.dtype().and_then(StoredDtype::of_weights);
        dtype.ok_or_else(|| self.other_dtype("F32, BF16 or F16"))
    }

    /// The values of a weight, widened to f32 and all finite.
    pub fn weights(self) -> Result<Vec<f32>> {
        let dtype = self.weight_dtype()?;
        let mut values = vec![0.0; self.n_elements()];
        self.read_weights(dtype, 0, &mut values)?;
        Ok(values)
    }

    /// The blocks of a matrix of a GGUF file, row after row, all of whose values are finite; `None` if it is stored as single
    /// numbers, or not as this tensor.
    pub fn blocks(self) -> Result<Option<(TensorType, Vec<u8>)>> {
        self.source.read_blocks(self.info)
    }

    /// Whether a weight, widened to f32, has exactly these values; compared chunk by chunk.
    pub fn weights_equal(self, expected: &[f32]) -> Result<bool> {
        let dtype = self.weight_dtype()?;
        if expected.len() != self.n_elements() {
            return Ok(false);
        }
        let mut buffer = vec![0.0; CHUNK.min(expected.len())];
        for (chunk_idx, expected) in expected.chunks(CHUNK).enumerate() {
            let found = &mut buffer[..expected.len()];
            self.read_weights(dtype, chunk_idx * CHUNK, found)?;
            if found != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `out` with elements from number `first` on and checks that they are finite.
    fn read_weights(self, dtype: Dtype, first: usize, out: &mut [f32]) -> Result<()> {
        let start = first as u64 * dtype.n_bytes();
        match dtype {
            Dtype::F32 => self.read_bytes(start, bytemuck::cast_slice_mut(out))?,
            Dtype::Bf16 => self.widen(start, out, |bits| half::bf16::from_bits(bits).to_f32())?,
            Dtype::F16 => self.widen(start, out, |bits| half::f16::from_bits(bits).to_f32())?,
        }
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(Error::NotFinite {
                path: self.path().to_owned(),
                name: self.info.name.clone(),
                value: out.get(index).copied().unwrap_or(f32::NAN),
                index: first + index,
            }),
        }
    }

    fn widen(self, start: u64, out: &mut [f32], widen: impl Fn(u16) -> f32) -> Result<()> {
        let mut bits = vec![0_u16; CHUNK.min(out.len())];
        let chunk_bytes = (CHUNK * size_of::<u16>()) as u64;
        for (chunk_idx, out) in out.chunks_mut(CHUNK).enumerate() {
            let bits = &mut bits[..out.len()];
            self.read_bytes(
                start + chunk_idx as u64 * chunk_bytes,
                bytemuck::cast_slice_mut(bits),
            )?;
            for (value, bits) in out.iter_mut().zip(bits) {
                *value = widen(*bits);
            }
        }
        Ok(())
    }

    fn other_dtype(self, expected: &'static str) -> Error {
        Error::Dtype {
            path: self.path().to_owned(),
            name: self.info.name.clone(),
            found: self.info.stored_as.clone(),
            expected,
        }
    }
}
