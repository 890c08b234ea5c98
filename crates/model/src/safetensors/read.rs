//! One safetensors file open for reading, tensor by tensor, each widened to f32.
//!
//! It deliberately keeps no tensor: each is read into the buffer that its parameter then owns.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arch::Dtype;
use fsio::limits::SAFETENSORS_HEADER_BYTES;

use super::TensorInfo;
use super::header;
use crate::{Error, Result};

/// f32 values are copied from file bytes as they stand, which are little-endian by definition.
const _: () = assert!(cfg!(target_endian = "little"), "weights are read on little-endian machines");

/// Elements that are read at once where values are converted.
const CHUNK: usize = 256 * 1024;

/// A safetensors file whose header has been checked.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: Vec<TensorInfo>,
    by_name: BTreeMap<String, usize>,
}

impl SafetensorsFile {
    /// Opens a file and checks its header against its length; reads no data.
    pub fn open(path: &Path) -> Result<Self> {
        let read_error = |source| Error::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(read_error)?;
        if !metadata.is_file() {
            return Err(fsio::Error::NotAFile { path: path.to_owned() }.into());
        }
        fsio::refuse_lfs_pointer(path)?;
        let mut file = File::open(path).map_err(read_error)?;
        let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
        let file_bytes = metadata.len();
        let mut length = [0; 8];
        if file_bytes < length.len() as u64 {
            return Err(malformed("too short to be a safetensors file".to_owned()));
        }
        file.read_exact(&mut length).map_err(read_error)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > SAFETENSORS_HEADER_BYTES {
            let limit = SAFETENSORS_HEADER_BYTES;
            return Err(malformed(format!(
                "the header is longer than {limit} bytes: `{header_bytes}`"
            )));
        }
        let data_start = 8 + header_bytes;
        let Some(data_bytes) = file_bytes.checked_sub(data_start) else {
            return Err(malformed("the file ends within its header".to_owned()));
        };
        let mut json = vec![0; header_bytes as usize];
        file.read_exact(&mut json).map_err(read_error)?;
        let tensors = header::parse(path, &json, data_bytes)?;
        let by_name =
            tensors.iter().enumerate().map(|(idx, info)| (info.name.clone(), idx)).collect();
        Ok(Self { path: path.to_owned(), file, data_start, tensors, by_name })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor in the header's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|idx| self.tensors.get(*idx))
    }

    /// Checks that a tensor is there, of the given shape and in a format that is read.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.expect(name, shape).map(|_| ())
    }

    /// The values of a tensor of the given shape, all finite.
    pub fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info = self.expect(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        self.read_range(&info, 0, &mut values)?;
        Ok(values)
    }

    /// Whether a tensor holds exactly these values, compared without holding a second copy.
    pub fn equals(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<bool> {
        let info = self.expect(name, shape)?;
        let mut buffer = vec![0.0; CHUNK.min(values.len())];
        for (chunk_idx, expected) in values.chunks(CHUNK).enumerate() {
            let found = &mut buffer[..expected.len()];
            self.read_range(&info, chunk_idx * CHUNK, found)?;
            if found != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn expect(&self, name: &str, shape: &[usize]) -> Result<TensorInfo> {
        let path = || self.path.clone();
        let Some(info) = self.tensor(name) else {
            return Err(Error::MissingTensor { place: path(), name: name.to_owned(), more: 0 });
        };
        if info.shape != shape {
            return Err(Error::Shape {
                path: path(),
                name: name.to_owned(),
                found: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        if info.dtype().is_none() {
            let dtype = info.stored_as.clone();
            return Err(Error::Dtype { path: path(), name: name.to_owned(), dtype });
        }
        Ok(info.clone())
    }

    /// Fills `out` with elements from number `first` on and checks that they are finite.
    fn read_range(&mut self, info: &TensorInfo, first: usize, out: &mut [f32]) -> Result<()> {
        let dtype = info.dtype().unwrap_or(Dtype::F32);
        let start = self.data_start + info.start + first as u64 * dtype.n_bytes();
        self.fill(start, dtype, out)
            .map_err(|source| Error::Read { path: self.path.clone(), source })?;
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(Error::NotFinite {
                path: self.path.clone(),
                name: info.name.clone(),
                value: out.get(index).copied().unwrap_or(f32::NAN),
                index: first + index,
            }),
        }
    }

    fn fill(&mut self, start: u64, dtype: Dtype, out: &mut [f32]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(start))?;
        let widen = match dtype {
            Dtype::F32 => return self.file.read_exact(bytemuck::cast_slice_mut(out)),
            Dtype::Bf16 => |bits| half::bf16::from_bits(bits).to_f32(),
            Dtype::F16 => |bits| half::f16::from_bits(bits).to_f32(),
        };
        let mut bits = vec![0_u16; CHUNK.min(out.len())];
        for out in out.chunks_mut(CHUNK) {
            let bits = &mut bits[..out.len()];
            self.file.read_exact(bytemuck::cast_slice_mut(bits))?;
            for (value, bits) in out.iter_mut().zip(bits) {
                *value = widen(*bits);
            }
        }
        Ok(())
    }
}
