//! The weights of a Hugging Face directory: one file, or shards with an index; or of a GGUF file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::shards::{INDEX_FILE, WEIGHTS_FILE, read_index};
use crate::{Error, Result, TensorFile, TensorView};

/// The open weight files of a directory; every header has been checked.
#[derive(Debug)]
pub struct TensorDir {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// Tensor name → index of its file.
    file_of: BTreeMap<String, usize>,
}

impl TensorDir {
    /// Opens the weights of a directory, or a GGUF file; reads no values.
    ///
    /// Errors: no safetensors weights; shards that do not have exactly the tensors of the index; a shard's name that
    /// leaves the directory; a tensor in two files; a file that differs from its entry in MANIFEST.
    pub fn open(dir: &Path) -> Result<Self> {
        let open = Self::open_unverified(dir)?;
        open.verify()?;
        Ok(open)
    }

    /// As [`Self::open`], while files are compared with MANIFEST on other threads: no value may be used before
    /// [`Self::verify`].
    pub fn open_unverified(dir: &Path) -> Result<Self> {
        let files = open_files(dir)?;
        let mut file_of = BTreeMap::new();
        for (idx, file) in files.iter().enumerate() {
            for tensor in file.tensors() {
                if file_of.insert(tensor.name().to_owned(), idx).is_some() {
                    let reason = format!("tensor `{}` is in another file too", tensor.name());
                    return Err(Error::Malformed { path: file.path().to_owned(), reason });
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), files, file_of })
    }

    /// Waits for the comparison of all files with MANIFEST.
    ///
    /// Errors: a file differs from its entry.
    pub fn verify(&self) -> Result<()> {
        self.files.iter().try_for_each(TensorFile::verify)
    }

    /// The weight file, or the directory if there are several.
    pub fn path(&self) -> &Path {
        match self.files.as_slice() {
            [file] => file.path(),
            _ => &self.dir,
        }
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file_of.keys().map(String::as_str)
    }

    /// A tensor by name; `None` if no file has it.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.files.get(*self.file_of.get(name)?)?.get(name)
    }

    /// A tensor by name.
    ///
    /// Errors: no file has it.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.get(name).ok_or_else(|| Error::MissingTensor {
            path: self.path().to_owned(),
            name: name.to_owned(),
            more: 0,
        })
    }
}

fn open_files(dir: &Path) -> Result<Vec<TensorFile>> {
    if gguf::is_gguf(dir) {
        return Ok(vec![TensorFile::open_unverified(dir)?]);
    }
    let single = dir.join(WEIGHTS_FILE);
    if single.exists() {
        return Ok(vec![TensorFile::open_unverified(&single)?]);
    }
    let index = dir.join(INDEX_FILE);
    if !index.exists() {
        let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
        let pickled = pickled.iter().any(|name| dir.join(name).exists());
        return Err(Error::NoWeights { dir: dir.to_owned(), pickled });
    }
    let weight_map = read_index(&index)?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let name = fsio::basename_only(shard)
            .map_err(|error| Error::Malformed { path: index.clone(), reason: error.to_string() })?;
        let path = dir.join(name);
        if !path.exists() {
            return Err(Error::MissingShard { index, shard: shard.clone() });
        }
        let file = TensorFile::open_unverified(&path)?;
        let listed = |name: &str| weight_map.get(name) == Some(shard);
        if let Some(tensor) = file.tensors().find(|tensor| !listed(tensor.name())) {
            let reason = format!("tensor `{}` is not listed in {INDEX_FILE}", tensor.name());
            return Err(Error::Malformed { path, reason });
        }
        let absent = |name: &String| file.get(name).is_none();
        if let Some((name, _)) = weight_map.iter().find(|(name, s)| *s == shard && absent(name)) {
            return Err(Error::MissingTensor { path, name: name.clone(), more: 0 });
        }
        files.push(file);
    }
    Ok(files)
}
