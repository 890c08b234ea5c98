//! One GGUF file open for reading, tensor by tensor.

pub(crate) use header::{DEFAULT_ALIGNMENT, write_start};

mod cursor;
mod header;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::dequantize::first_not_finite;
use crate::{Error, Metadata, Result, TensorType, dequantize};

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name in the file.
    pub name: String,
    /// Sizes of the axes, slowest first as in safetensors; a file stores them in the opposite order.
    pub shape: Vec<usize>,
    /// The storage format.
    pub ty: TensorType,
    /// Position of the data in the file.
    pub(crate) start: u64,
    /// Bytes of the data.
    pub(crate) n_bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A GGUF file whose header has been checked.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: BTreeMap<String, usize>,
}

impl GgufFile {
    /// Opens a file and checks its header against its length; reads no tensor data.
    pub fn open(path: &Path) -> Result<Self> {
        let read_error = |source| Error::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(read_error)?;
        if !metadata.is_file() {
            let reason = "not a regular file".to_owned();
            return Err(Error::Malformed { path: path.to_owned(), reason });
        }
        let file = File::open(path).map_err(read_error)?;
        let header = header::read(path, BufReader::with_capacity(1 << 16, &file), metadata.len())?;
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata: header.metadata,
            tensors: header.tensors,
            by_name: header.by_name,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|idx| self.tensors.get(*idx))
    }

    /// The values of a tensor as f32, all finite.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.expect(name)?;
        let n = info.n_elements();
        self.read_values(&info, 0, n)
    }

    /// `n` elements of a tensor from element `first` on; both are whole rows.
    pub fn read_part(&self, name: &str, first: usize, n: usize) -> Result<Vec<f32>> {
        let info = self.expect_part(name, first, n)?;
        self.read_values(&info, first, n)
    }

    /// The stored bytes of `n` elements of a tensor from element `first` on, both whole rows; all values are finite.
    pub(crate) fn read_part_bytes(&self, name: &str, first: usize, n: usize) -> Result<Vec<u8>> {
        let info = self.expect_part(name, first, n)?;
        let bytes = self.part_bytes(&info, first, n)?;
        match first_not_finite(info.ty, &bytes) {
            None => Ok(bytes),
            Some((index, value)) => Err(self.not_finite(&info, first + index, value)),
        }
    }

    /// The stored bytes of a tensor.
    pub fn read_bytes(&self, name: &str) -> Result<Vec<u8>> {
        let info = self.expect(name)?;
        self.bytes(info.start, info.n_bytes)
    }

    /// Whether two tensors have the same stored bytes; reads up to the first difference.
    pub(crate) fn same_data(&self, a: &TensorInfo, b: &TensorInfo) -> Result<bool> {
        const CHUNK: u64 = 1 << 20;
        if a.n_bytes != b.n_bytes {
            return Ok(false);
        }
        let mut done = 0;
        while done < a.n_bytes {
            let n = CHUNK.min(a.n_bytes - done);
            if self.bytes(a.start + done, n)? != self.bytes(b.start + done, n)? {
                return Ok(false);
            }
            done += n;
        }
        Ok(true)
    }

    fn expect(&self, name: &str) -> Result<TensorInfo> {
        self.tensor(name)
            .cloned()
            .ok_or_else(|| Error::MissingTensor { path: self.path.clone(), name: name.to_owned() })
    }

    /// A tensor that has `n` elements from element `first` on.
    fn expect_part(&self, name: &str, first: usize, n: usize) -> Result<TensorInfo> {
        let info = self.expect(name)?;
        let end = first.checked_add(n);
        let row = info.shape.last().copied().unwrap_or(1);
        let is_inside = end.is_some_and(|end| end <= info.n_elements());
        if !is_inside || !first.is_multiple_of(row) || !n.is_multiple_of(row) {
            let reason = format!("tensor `{name}` has no elements {first}..{first}+{n}");
            return Err(Error::Malformed { path: self.path.clone(), reason });
        }
        Ok(info)
    }

    fn part_bytes(&self, info: &TensorInfo, first: usize, n: usize) -> Result<Vec<u8>> {
        let size = |n: usize| info.ty.bytes(n as u64).unwrap_or(0);
        self.bytes(info.start + size(first), size(n))
    }

    fn not_finite(&self, info: &TensorInfo, index: usize, value: f32) -> Error {
        Error::NotFinite { path: self.path.clone(), name: info.name.clone(), value, index }
    }

    fn read_values(&self, info: &TensorInfo, first: usize, n: usize) -> Result<Vec<f32>> {
        let bytes = self.part_bytes(info, first, n)?;
        let mut values = vec![0.0; n];
        dequantize(info.ty, &bytes, &mut values);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => {
                let value = values.get(index).copied().unwrap_or(f32::NAN);
                Err(self.not_finite(info, first + index, value))
            }
        }
    }

    fn bytes(&self, start: u64, n: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; n as usize];
        self.file
            .read_exact_at(&mut bytes, start)
            .map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(bytes)
    }
}
