//! Safetensors files of our own: f32 tensors streamed out one by one, read back from verified folders.
//!
//! It deliberately reads no foreign files: those go through `model`, with its checks.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use fsio::{DirWriter, MappedFile};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use crate::{Error, Result};

/// The values of a tensor to write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TensorValues<'a> {
    /// f32, flat, on any device.
    F32(&'a Tensor<1>),
    /// f32 on the host.
    HostF32(&'a [f32]),
    /// Bytes on the host.
    U8(&'a [u8]),
}

impl<'a> TensorValues<'a> {
    /// Bytes of an element.
    pub(crate) fn element_bytes(self) -> usize {
        match self {
            Self::F32(_) | Self::HostF32(_) => size_of::<f32>(),
            Self::U8(_) => 1,
        }
    }

    /// The tensor, where the values are in one.
    pub(crate) fn as_tensor(self) -> Option<&'a Tensor<1>> {
        match self {
            Self::F32(tensor) => Some(tensor),
            Self::HostF32(_) | Self::U8(_) => None,
        }
    }

    fn dtype(self) -> &'static str {
        match self {
            Self::F32(_) | Self::HostF32(_) => "F32",
            Self::U8(_) => "U8",
        }
    }

    fn write(self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::F32(tensor) => {
                kernels::with_host_values(tensor, |values| write_values(out, values))
            }
            Self::HostF32(values) => write_values(out, values),
            Self::U8(bytes) => out.write_all(bytes),
        }
    }
}

/// Writes flat tensors under their names and shapes, in the given order.
pub(crate) fn write_tensors(
    dir: &mut DirWriter,
    file_name: &str,
    metadata: &BTreeMap<String, String>,
    tensors: &[(String, Vec<usize>, TensorValues<'_>)],
) -> Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut end = 0;
    for (name, shape, values) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * values.element_bytes();
        let offsets = [start, end];
        let entry =
            serde_json::json!({"dtype": values.dtype(), "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let path = dir.final_dir().join(file_name);
    let failed = |source| Error::WriteTensors { path: path.clone(), source };
    let mut file = dir.create(file_name)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(header.as_bytes()).map_err(failed)?;
    for (_, _, values) in tensors {
        values.write(&mut file).map_err(failed)?;
    }
    file.finish()?;
    Ok(())
}

fn write_values(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    for chunk in values.chunks(16 * 1024) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// An open file of f32 tensors.
pub(crate) struct TensorFile {
    path: PathBuf,
    bytes: MappedFile,
    header: Metadata,
    data_start: usize,
}

impl TensorFile {
    /// Maps a file of a verified folder and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = MappedFile::open(path)?;
        let (header_bytes, header) = SafeTensors::read_metadata(&bytes)
            .map_err(|e| Error::TensorFile { path: path.to_owned(), reason: e.to_string() })?;
        let data_start = header_bytes + size_of::<u64>();
        Ok(Self { path: path.to_owned(), bytes, header, data_start })
    }

    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// How many tensors it holds.
    pub(crate) fn len(&self) -> usize {
        self.header.offset_keys().len()
    }

    /// Whether it has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// Shape and values of an f32 tensor; none if the file lacks it.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Some((shape, data)) = self.data(name, Dtype::F32)? else { return Ok(None) };
        let (words, _) = data.as_chunks::<4>();
        Ok(Some((shape, words.iter().map(|word| f32::from_le_bytes(*word)).collect())))
    }

    /// Shape and values of a tensor of bytes; none if the file lacks it.
    pub(crate) fn bytes(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<u8>)>> {
        Ok(self.data(name, Dtype::U8)?.map(|(shape, data)| (shape, data.to_vec())))
    }

    fn data(&self, name: &str, dtype: Dtype) -> Result<Option<(Vec<usize>, &[u8])>> {
        let Some(info) = self.header.info(name) else { return Ok(None) };
        if info.dtype != dtype {
            return Err(self
                .error(&format!("is of type {:?} where {dtype:?} belongs: `{name}`", info.dtype)));
        }
        let (start, end) = info.data_offsets;
        let data = self.bytes.get(self.data_start + start..self.data_start + end);
        let data = data.ok_or_else(|| self.error(&format!("is cut short: `{name}`")))?;
        Ok(Some((info.shape.clone(), data)))
    }

    pub(crate) fn error(&self, reason: &str) -> Error {
        Error::TensorFile { path: self.path.clone(), reason: reason.to_owned() }
    }
}
