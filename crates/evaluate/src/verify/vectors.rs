//! Reads reference vectors: safetensors files with f32 and integer tensors, whole, with a limit.
//! It checks names, types and lengths, and interprets nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};

/// A file of reference vectors is small; this is far above any.
const MAX_BYTES: u64 = 256 << 20;

/// One safetensors file of reference vectors.
pub(crate) struct Vectors {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A tensor's values, row-major, with its shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array<T> {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<T>,
}

impl Vectors {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = fsio::read_capped(path, MAX_BYTES)?;
        let vectors = Self { path: path.to_owned(), bytes };
        vectors.file()?;
        Ok(vectors)
    }

    /// Names of all tensors, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.file()?.names().into_iter().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.file().is_ok_and(|file| file.tensor(name).is_ok())
    }

    /// Matrices of which the file has every s-th row only, by name: the metadata entry `row_stride`, a JSON object.
    pub(crate) fn row_strides(&self) -> Result<BTreeMap<String, usize>> {
        let metadata = SafeTensors::read_metadata(&self.bytes);
        let (_, metadata) = metadata.map_err(|error| self.bad(error.to_string()))?;
        let entry = metadata.metadata().as_ref().and_then(|map| map.get("row_stride"));
        let Some(text) = entry else { return Ok(BTreeMap::new()) };
        serde_json::from_str(text).map_err(|error| self.bad(format!("row_stride: {error}")))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Array<f32>> {
        self.read(name, Dtype::F32, f32::from_le_bytes)
    }

    pub(crate) fn integers(&self, name: &str) -> Result<Array<i64>> {
        self.read(name, Dtype::I64, i64::from_le_bytes)
    }

    /// The bytes of a tensor of signed or unsigned bytes.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.file()?;
        let tensor = file.tensor(name).map_err(|_| self.bad(format!("no tensor `{name}`")))?;
        let dtype = tensor.dtype();
        if [Dtype::U8, Dtype::I8].contains(&dtype) {
            return Ok(tensor.data().to_vec());
        }
        Err(self.bad(format!("tensor `{name}` is {dtype:?}, not bytes")))
    }

    /// Token ids `[rows, t]`.
    pub(crate) fn ids(&self, name: &str) -> Result<Array<u32>> {
        let array = self.matrix(name)?;
        let values =
            array.values.iter().map(|&id| u32::try_from(id)).collect::<std::result::Result<_, _>>();
        let values = values.map_err(|_| self.bad(format!("tensor `{name}` holds ids below 0")))?;
        Ok(Array { shape: array.shape, values })
    }

    /// Integers `[rows, t]` with at least one value.
    pub(crate) fn matrix(&self, name: &str) -> Result<Array<i64>> {
        let array = self.integers(name)?;
        match array.shape.as_slice() {
            [rows, t] if rows * t > 0 => Ok(array),
            shape => {
                Err(self.bad(format!("tensor `{name}` has shape {shape:?}, not two dimensions")))
            }
        }
    }

    /// A mask of zeros and ones.
    pub(crate) fn mask(&self, name: &str, shape: &[usize]) -> Result<Vec<bool>> {
        let array = self.matrix_of(name, shape)?;
        Ok(array.iter().map(|&value| value != 0).collect())
    }

    /// Labels as transformers has them → the token that each position must predict, -1 for none.
    pub(crate) fn targets(&self, name: &str, shape: &[usize]) -> Result<Vec<i32>> {
        let labels = self.matrix_of(name, shape)?;
        let t = shape.last().copied().unwrap_or(1);
        let next = |row: &[i64]| -> Vec<i32> {
            let shifted =
                row.iter().skip(1).map(|&label| i32::try_from(label.max(-1)).unwrap_or(-1));
            shifted.chain([-1]).collect()
        };
        Ok(labels.chunks(t.max(1)).flat_map(next).collect())
    }

    fn matrix_of(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        let array = self.matrix(name)?;
        if array.shape == shape {
            return Ok(array.values);
        }
        Err(self.bad(format!("tensor `{name}` has shape {:?} instead of {shape:?}", array.shape)))
    }

    /// Floats that must have this shape.
    pub(crate) fn floats_of(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let array = self.floats(name)?;
        if array.shape == shape {
            return Ok(array.values);
        }
        Err(self.bad(format!("tensor `{name}` has shape {:?} instead of {shape:?}", array.shape)))
    }

    fn file(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes).map_err(|e| self.bad(e.to_string()))
    }

    fn read<T, const N: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        convert: fn([u8; N]) -> T,
    ) -> Result<Array<T>> {
        let file = self.file()?;
        let tensor = file.tensor(name).map_err(|_| self.bad(format!("no tensor `{name}`")))?;
        if tensor.dtype() != dtype {
            return Err(self.bad(format!("tensor `{name}` is {:?}, not {dtype:?}", tensor.dtype())));
        }
        let (chunks, _) = tensor.data().as_chunks::<N>();
        Ok(Array {
            shape: tensor.shape().to_vec(),
            values: chunks.iter().map(|chunk| convert(*chunk)).collect(),
        })
    }

    /// An error about this file.
    pub(crate) fn bad(&self, reason: String) -> Error {
        Error::BadVectors { path: self.path.clone(), reason }
    }
}
