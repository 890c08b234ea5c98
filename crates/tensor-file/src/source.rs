//! Bytes of a file, read at an offset or mapped, or values of a GGUF file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fsio::{MappedFile, Verification};
use gguf::{ModelFile, TensorType};

use crate::info::TensorInfo;
use crate::{Error, Result};

/// An open file.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    n_bytes: u64,
    data: Data,
    /// The comparison with MANIFEST, which may still be running.
    verification: Option<Verification>,
}

#[derive(Debug)]
enum Data {
    Read(File),
    Mapped(MappedFile),
    /// Tensors under their names in a Hugging Face directory, each converted to f32 as a whole.
    Gguf(Box<ModelFile>),
}

impl Source {
    /// Opens a regular file for reading, and starts to compare it with the MANIFEST of its directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(fsio::Error::NotAFile { path: path.to_owned() }.into());
        }
        fsio::refuse_lfs_pointer(path)?;
        let verification = Some(Verification::start(path)?);
        let file = File::open(path).map_err(failed)?;
        let data = Data::Read(file);
        Ok(Self { path: path.to_owned(), n_bytes: metadata.len(), data, verification })
    }

    /// Opens a GGUF file.
    pub(crate) fn open_gguf(path: &Path) -> Result<Self> {
        let file = ModelFile::open(path)?;
        let data = Data::Gguf(Box::new(file));
        Ok(Self { path: path.to_owned(), n_bytes: 0, data, verification: None })
    }

    /// Waits for the comparison with MANIFEST.
    pub(crate) fn finish_verification(&self) -> Result<()> {
        match &self.verification {
            Some(verification) => Ok(verification.finish()?),
            None => Ok(()),
        }
    }

    /// The tensors of a GGUF file; `None` for a file that has its own header.
    pub(crate) fn gguf_tensors(&self) -> Option<Vec<TensorInfo>> {
        let Data::Gguf(file) = &self.data else { return None };
        let info = |(name, shape): (&str, &[usize])| {
            let n_elements: usize = shape.iter().product();
            TensorInfo {
                name: name.to_owned(),
                shape: shape.to_owned(),
                stored_as: "F32".to_owned(),
                start: 0,
                end: (n_elements * size_of::<f32>()) as u64,
            }
        };
        Some(file.tensors().map(info).collect())
    }

    /// Fills `out` with bytes of a tensor from its byte `start` on.
    pub(crate) fn read_tensor(&self, info: &TensorInfo, start: u64, out: &mut [u8]) -> Result<()> {
        let Data::Gguf(file) = &self.data else { return self.read_at(info.start + start, out) };
        let values = file.read(&info.name)?;
        let bytes: &[u8] = bytemuck::cast_slice(&values);
        let range = bytes.get(start as usize..).and_then(|rest| rest.get(..out.len()));
        range.map(|range| out.copy_from_slice(range)).ok_or_else(|| self.ends_early())
    }

    /// A matrix of a GGUF file in the blocks that the file has; `None` if it has none.
    pub(crate) fn read_blocks(&self, info: &TensorInfo) -> Result<Option<(TensorType, Vec<u8>)>> {
        match &self.data {
            Data::Gguf(file) => Ok(file.read_blocks(&info.name)?),
            Data::Read(_) | Data::Mapped(_) => Ok(None),
        }
    }

    /// Maps a file of a verified directory. It is compared again, unless it is unchanged since.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        Verification::start(path)?.finish()?;
        let map = MappedFile::open(path)?;
        let (n_bytes, data) = (map.len() as u64, Data::Mapped(map));
        Ok(Self { path: path.to_owned(), n_bytes, data, verification: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Fills `out` with the bytes from `start` on.
    pub(crate) fn read_at(&self, start: u64, out: &mut [u8]) -> Result<()> {
        let result = match &self.data {
            Data::Read(file) => file.read_exact_at(out, start),
            Data::Mapped(map) => {
                let bytes = map.get(start as usize..).and_then(|rest| rest.get(..out.len()));
                return bytes
                    .map(|bytes| out.copy_from_slice(bytes))
                    .ok_or_else(|| self.ends_early());
            }
            Data::Gguf(_) => return Err(self.ends_early()),
        };
        result.map_err(|source| Error::Read { path: self.path.clone(), source })
    }

    fn ends_early(&self) -> Error {
        let source =
            io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before the tensor");
        Error::Read { path: self.path.clone(), source }
    }
}
