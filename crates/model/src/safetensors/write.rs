//! Writing a safetensors file as a stream: the header first, then one tensor after the other.
//!
//! Equal weights give equal bytes: names stand in the order given and the metadata is constant. It
//! deliberately opens no file; fsio does.

use std::io::Write;

use arch::Dtype;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Elements that are converted at once.
const CHUNK: usize = 64 * 1024;

/// A file whose header is written and whose tensors are to follow.
pub struct SafetensorsWriter<'a> {
    out: &'a mut dyn Write,
    dtype: Dtype,
    expected: std::vec::IntoIter<(String, Vec<usize>)>,
}

impl<'a> SafetensorsWriter<'a> {
    /// Writes the header for tensors of these names and shapes, all in one format.
    pub fn begin(
        out: &'a mut dyn Write,
        table: Vec<(String, Vec<usize>)>,
        dtype: Dtype,
    ) -> Result<Self> {
        let stored_as = match dtype {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
        };
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut start = 0;
        for (name, shape) in &table {
            let elements: u64 = shape.iter().map(|size| *size as u64).product();
            let end = start + elements * dtype.n_bytes();
            let entry = json!({ "dtype": stored_as, "shape": shape, "data_offsets": [start, end] });
            if header.insert(name.clone(), entry).is_some() {
                return Err(Error::OutOfOrder { name: name.clone() });
            }
            start = end;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        // Data starts at a multiple of 8, as the format asks.
        text.resize(text.len().next_multiple_of(8), b' ');
        let write = |out: &mut dyn Write| {
            out.write_all(&(text.len() as u64).to_le_bytes())?;
            out.write_all(&text)
        };
        write(&mut *out).map_err(|source| Error::Write { source })?;
        Ok(Self { out, dtype, expected: table.into_iter() })
    }

    /// Writes the next tensor; it must be the next of the table. Rounds to nearest, ties to even.
    pub fn tensor(&mut self, name: &str, values: &[f32]) -> Result<()> {
        match self.expected.next() {
            Some((expected, shape))
                if expected == name && shape.iter().product::<usize>() == values.len() => {}
            _ => return Err(Error::OutOfOrder { name: name.to_owned() }),
        }
        for (chunk_idx, chunk) in values.chunks(CHUNK).enumerate() {
            self.chunk(name, chunk_idx * CHUNK, chunk)?;
        }
        Ok(())
    }

    /// Checks that no tensor is missing.
    pub fn finish(mut self) -> Result<()> {
        match self.expected.next() {
            Some((name, _)) => Err(Error::OutOfOrder { name }),
            None => self.out.flush().map_err(|source| Error::Write { source }),
        }
    }

    fn chunk(&mut self, name: &str, first: usize, values: &[f32]) -> Result<()> {
        let narrow = match self.dtype {
            Dtype::F32 => None,
            Dtype::Bf16 => Some(narrow_bf16 as fn(f32) -> Option<u16>),
            Dtype::F16 => Some(narrow_f16 as fn(f32) -> Option<u16>),
        };
        let does_not_fit = |index: usize, value: f32| Error::DoesNotFit {
            name: name.to_owned(),
            value,
            index: first + index,
            dtype: self.dtype.name(),
        };
        let written = match narrow {
            None => {
                if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                    return Err(does_not_fit(index, values[index]));
                }
                self.out.write_all(bytemuck::cast_slice(values))
            }
            Some(narrow) => {
                let mut bits = Vec::with_capacity(values.len());
                for (index, value) in values.iter().enumerate() {
                    bits.push(narrow(*value).ok_or_else(|| does_not_fit(index, *value))?);
                }
                self.out.write_all(bytemuck::cast_slice(&bits))
            }
        };
        written.map_err(|source| Error::Write { source })
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
