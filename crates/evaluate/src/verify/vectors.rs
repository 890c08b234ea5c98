//! Reference vectors: a safetensors file with f32 and integer tensors, read with checks of dtype and shape.

use std::collections::BTreeMap;
use std::path::Path;

use arch::ModelConfig;
use tensor_file::{Element, StoredDtype, TensorFile};

use crate::error::{Error, Result};

/// The tensor that identifies a directory with 16-bit weights.
pub(crate) const WIDENED_LOGITS: &str = "logits_of_weights_widened_to_f32";

/// A file of reference vectors.
pub(crate) struct Vectors {
    file: TensorFile,
}

/// The row-major values of a tensor, with its shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array<T> {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<T>,
}

impl<T> Array<T> {
    /// The last dimension.
    pub(crate) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }
}

impl Vectors {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: TensorFile::open(path)? })
    }

    /// The names of all tensors, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.file.tensors().map(|tensor| tensor.name().to_owned()).collect();
        names.sort();
        names
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.file.get(name).is_some()
    }

    /// A value of the file's metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.file.metadata(key)
    }

    /// The row strides of matrices of which the file has only every s-th row, by name: the metadata `row_stride`, a JSON object.
    pub(crate) fn row_strides(&self) -> Result<BTreeMap<String, usize>> {
        let Some(text) = self.file.metadata("row_stride") else { return Ok(BTreeMap::new()) };
        serde_json::from_str(text).map_err(|error| self.bad(format!("row_stride: {error}")))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Array<f32>> {
        self.read(name)
    }

    pub(crate) fn integers(&self, name: &str) -> Result<Array<i64>> {
        self.read(name)
    }

    /// The bytes of a tensor of signed or unsigned bytes.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let tensor = self.file.tensor(name)?;
        if tensor.dtype() == Some(StoredDtype::I8) {
            return Ok(tensor.values::<i8>()?.into_iter().map(i8::cast_unsigned).collect());
        }
        Ok(tensor.values()?)
    }

    /// Token ids `[rows, t]`.
    pub(crate) fn ids(&self, name: &str) -> Result<Array<u32>> {
        let array = self.matrix(name)?;
        let values =
            array.values.iter().map(|&id| u32::try_from(id)).collect::<std::result::Result<_, _>>();
        let values = values.map_err(|_| self.bad(format!("tensor `{name}` has ids below 0")))?;
        Ok(Array { shape: array.shape, values })
    }

    /// Token ids `[rows, t]` that a model can read: of its vocabulary, and no more in a row than its context has positions.
    pub(crate) fn ids_for(&self, config: &ModelConfig, name: &str) -> Result<Array<u32>> {
        let array = self.ids(name)?;
        self.check_ids(config, name, &array)?;
        Ok(array)
    }

    fn check_ids(&self, config: &ModelConfig, name: &str, array: &Array<u32>) -> Result<()> {
        let (n_vocab, n_positions) = (config.vocab_size(), config.max_positions());
        if let Some(id) = array.values.iter().find(|id| **id as usize >= n_vocab) {
            let reason = format!(
                "tensor `{name}` has the id `{id}`, and the model's ids are below {n_vocab}"
            );
            return Err(self.bad(reason));
        }
        let width = array.width();
        if width > n_positions {
            let reason = format!(
                "tensor `{name}` has rows of `{width}` tokens, and the model reads {n_positions}"
            );
            return Err(self.bad(reason));
        }
        Ok(())
    }

    /// Prompts and their completions, two tensors with equally many rows that every one of the models can read together.
    pub(crate) fn episodes_for(
        &self,
        configs: &[&ModelConfig],
        [prompts, completions]: [&str; 2],
    ) -> Result<[Array<u32>; 2]> {
        let arrays = [self.ids(prompts)?, self.ids(completions)?];
        if arrays[0].shape.first() != arrays[1].shape.first() {
            return Err(self.bad(format!(
                "tensors `{prompts}` and `{completions}` must have the same number of rows"
            )));
        }
        for config in configs {
            self.check_ids(config, prompts, &arrays[0])?;
            self.check_ids(config, completions, &arrays[1])?;
            let (n, n_positions) = (arrays[0].width() + arrays[1].width(), config.max_positions());
            if n > n_positions {
                return Err(self.bad(format!(
                    "`{prompts}` and `{completions}` have `{n}` tokens, and the model reads {n_positions}"
                )));
            }
        }
        Ok(arrays)
    }

    /// Integers `[rows, t]` with at least one value.
    pub(crate) fn matrix(&self, name: &str) -> Result<Array<i64>> {
        let array = self.integers(name)?;
        match array.shape.as_slice() {
            [rows, t] if rows * t > 0 => Ok(array),
            shape => Err(self
                .bad(format!("tensor `{name}` must have two dimensions, but has shape {shape:?}"))),
        }
    }

    /// A mask of zeros and ones.
    pub(crate) fn mask(&self, name: &str, shape: &[usize]) -> Result<Vec<bool>> {
        let array = self.matrix_of(name, shape)?;
        Ok(array.iter().map(|&value| value != 0).collect())
    }

    /// The target of each position from transformers' labels, shifted by one; -1 for none. Targets are ids of the model.
    pub(crate) fn targets(
        &self,
        config: &ModelConfig,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<i32>> {
        let labels = self.matrix_of(name, shape)?;
        let n_vocab = config.vocab_size();
        if let Some(label) = labels.iter().find(|label| **label >= n_vocab as i64) {
            let reason = format!(
                "tensor `{name}` has the label `{label}`, and the model's ids are below {n_vocab}"
            );
            return Err(self.bad(reason));
        }
        let t = shape.last().copied().unwrap_or(1);
        let next = |row: &[i64]| -> Vec<i32> {
            let shifted =
                row.iter().skip(1).map(|&label| i32::try_from(label.max(-1)).unwrap_or(-1));
            shifted.chain([-1]).collect()
        };
        Ok(labels.chunks(t.max(1)).flat_map(next).collect())
    }

    fn matrix_of(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        self.file.tensor(name)?.with_shape(shape)?;
        Ok(self.matrix(name)?.values)
    }

    /// Floats that must have this shape.
    pub(crate) fn floats_of(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.file.tensor(name)?.with_shape(shape)?.values()?)
    }

    fn read<T: Element>(&self, name: &str) -> Result<Array<T>> {
        let tensor = self.file.tensor(name)?;
        Ok(Array { shape: tensor.shape().to_vec(), values: tensor.values()? })
    }

    /// An error about this file.
    pub(crate) fn bad(&self, reason: String) -> Error {
        Error::BadVectors { path: self.file.path().to_owned(), reason }
    }
}
