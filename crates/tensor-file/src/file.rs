//! One open tensor file, its header checked.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::info::TensorInfo;
use crate::safetensors::{Header, read_header};
use crate::source::Source;
use crate::{Error, Result, TensorView};

/// A tensor file whose header has been checked against its length.
#[derive(Debug)]
pub struct TensorFile {
    source: Source,
    metadata: Value,
    tensors: Vec<TensorInfo>,
    by_name: BTreeMap<String, usize>,
}

impl TensorFile {
    /// Opens a file from any origin; its tensors are read. Those of a GGUF file have the names of a Hugging Face
    /// directory and are f32.
    ///
    /// Such files are never mapped, because truncating a mapped file kills the process. A file beside a MANIFEST is compared
    /// with its entry there.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self::open_unverified(path)?;
        file.verify()?;
        Ok(file)
    }

    /// As [`Self::open`], while the comparison with MANIFEST is running: no value may be used before [`Self::verify`].
    pub(crate) fn open_unverified(path: &Path) -> Result<Self> {
        if gguf::is_gguf(path) {
            return Self::new(Source::open_gguf(path)?);
        }
        Self::new(Source::open(path)?)
    }

    /// Maps a file of a directory that `fsio::verify_dir` has accepted.
    pub fn map(path: &Path) -> Result<Self> {
        Self::new(Source::map(path)?)
    }

    /// Waits for the comparison with MANIFEST.
    pub(crate) fn verify(&self) -> Result<()> {
        self.source.finish_verification()
    }

    fn new(source: Source) -> Result<Self> {
        let Header { metadata, tensors } = match source.gguf_tensors() {
            Some(tensors) => Header { metadata: Value::Null, tensors },
            None => match read_header(&source) {
                Ok(header) => header,
                Err(error) => {
                    // Damage explains a header that cannot be read.
                    source.finish_verification()?;
                    return Err(error);
                }
            },
        };
        let by_name =
            tensors.iter().enumerate().map(|(idx, info)| (info.name.clone(), idx)).collect();
        Ok(Self { source, metadata, tensors, by_name })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The text of a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str)
    }

    /// The number of tensors.
    pub fn n_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Every tensor in the header's order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|info| TensorView::new(&self.source, info))
    }

    /// A tensor by name; `None` if the file lacks it.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.by_name.get(name).and_then(|idx| self.tensors.get(*idx))?;
        Some(TensorView::new(&self.source, info))
    }

    /// A tensor by name.
    ///
    /// Errors: the file lacks it.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.get(name).ok_or_else(|| Error::MissingTensor {
            path: self.path().to_owned(),
            name: name.to_owned(),
            more: 0,
        })
    }
}
