//! Writing a safetensors file as a stream: the header first, then one tensor after the other.
//!
//! Equal tensors give equal bytes: names keep the given order. fsio creates the file.

use std::collections::BTreeMap;
use std::io::Write;

use arch::Dtype;
use serde_json::{Map, Value, json};

use crate::{Element, Error, Result, StoredDtype};

/// Elements that are converted at a time.
const CHUNK: usize = 64 * 1024;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype in the file.
    pub dtype: StoredDtype,
}

impl TensorSpec {
    fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A file whose header is written; the tensors follow in the header's order.
pub struct SafetensorsWriter<'a> {
    out: &'a mut dyn Write,
    pending: std::vec::IntoIter<TensorSpec>,
}

impl<'a> SafetensorsWriter<'a> {
    /// Writes the header of a file of tensors.
    pub fn begin(
        out: &'a mut dyn Write,
        metadata: &BTreeMap<String, String>,
        tensors: Vec<TensorSpec>,
    ) -> Result<Self> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!(metadata));
        let mut start = 0;
        for tensor in &tensors {
            let elements: u64 = tensor.shape.iter().map(|size| *size as u64).product();
            let end = start + elements * tensor.dtype.n_bytes();
            let entry = json!({
                "dtype": tensor.dtype.name(),
                "shape": tensor.shape,
                "data_offsets": [start, end],
            });
            if header.insert(tensor.name.clone(), entry).is_some() {
                return Err(Error::OutOfOrder { name: tensor.name.clone() });
            }
            start = end;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        // The format requires data to start at a multiple of 8.
        text.resize(text.len().next_multiple_of(8), b' ');
        let write = |out: &mut dyn Write| {
            out.write_all(&(text.len() as u64).to_le_bytes())?;
            out.write_all(&text)
        };
        write(&mut *out).map_err(|source| Error::Write { source })?;
        Ok(Self { out, pending: tensors.into_iter() })
    }

    /// Writes the header of a file of weights, all in one dtype, with the metadata that transformers requires.
    pub fn begin_weights(
        out: &'a mut dyn Write,
        weights: impl IntoIterator<Item = (String, Vec<usize>)>,
        dtype: Dtype,
    ) -> Result<Self> {
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let dtype = StoredDtype::from(dtype);
        let tensors = weights.into_iter().map(|(name, shape)| TensorSpec { name, shape, dtype });
        Self::begin(out, &metadata, tensors.collect())
    }

    /// Writes the next tensor, a weight, rounded to its dtype: to nearest, ties to even.
    ///
    /// Errors: a value that is not finite or overflows the dtype; a tensor that is not the header's next one.
    pub fn weights(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let dtype = self.next(name, values.len())?.dtype.of_weights();
        let Some(dtype) = dtype else { return Err(Error::OutOfOrder { name: name.to_owned() }) };
        for (chunk_idx, chunk) in values.chunks(CHUNK).enumerate() {
            self.chunk(name, dtype, chunk_idx * CHUNK, chunk)?;
        }
        Ok(())
    }

    /// Writes the next tensor without conversion or checks of its values.
    ///
    /// Errors: a tensor that is not the header's next one, or has another dtype there.
    pub fn values<T: Element>(&mut self, name: &str, values: &[T]) -> Result<()> {
        if self.next(name, values.len())?.dtype != T::DTYPE {
            return Err(Error::OutOfOrder { name: name.to_owned() });
        }
        self.write(bytemuck::cast_slice(values))
    }

    /// Ends the file.
    ///
    /// Errors: a tensor of the header has not been written.
    pub fn finish(mut self) -> Result<()> {
        match self.pending.next() {
            Some(tensor) => Err(Error::OutOfOrder { name: tensor.name }),
            None => self.out.flush().map_err(|source| Error::Write { source }),
        }
    }

    /// The header's next tensor, which must have this name and number of elements.
    fn next(&mut self, name: &str, n_elements: usize) -> Result<TensorSpec> {
        match self.pending.next() {
            Some(tensor) if tensor.name == name && tensor.n_elements() == n_elements => Ok(tensor),
            _ => Err(Error::OutOfOrder { name: name.to_owned() }),
        }
    }

    fn chunk(&mut self, name: &str, dtype: Dtype, first: usize, values: &[f32]) -> Result<()> {
        let narrow = match dtype {
            Dtype::F32 => None,
            Dtype::Bf16 => Some(narrow_bf16 as fn(f32) -> Option<u16>),
            Dtype::F16 => Some(narrow_f16 as fn(f32) -> Option<u16>),
        };
        let does_not_fit = |index: usize, value: f32| Error::DoesNotFit {
            name: name.to_owned(),
            value,
            index: first + index,
            dtype: dtype.name(),
        };
        match narrow {
            None => {
                if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                    return Err(does_not_fit(index, values[index]));
                }
                self.write(bytemuck::cast_slice(values))
            }
            Some(narrow) => {
                let mut bits = Vec::with_capacity(values.len());
                for (index, value) in values.iter().enumerate() {
                    bits.push(narrow(*value).ok_or_else(|| does_not_fit(index, *value))?);
                }
                self.write(bytemuck::cast_slice(&bits))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|source| Error::Write { source })
    }
}

fn narrow_bf16(value: f32) -> Option<u16> {
    let narrowed = half::bf16::from_f32(value);
    narrowed.is_finite().then(|| narrowed.to_bits())
}

fn narrow_f16(value: f32) -> Option<u16> {
    let narrowed = half::f16::from_f32(value);
    narrowed.is_finite().then(|| narrowed.to_bits())
}
