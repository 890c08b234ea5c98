//! A GGUF file as a Hugging Face directory in memory: config.json, the tokenizer's files, tensors by their names there.

mod architecture;
mod config;
mod export;
mod keys;
mod names;
mod rope;
mod tokenizer;
mod transform;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use self::architecture::Architecture;
use self::names::FromGguf;
use self::transform::{Heads, Transform};
use crate::{Error, GgufFile, Result};

pub use self::export::{FileType, ModelExport, ModelWriter};
pub use self::tokenizer::TokenizerSource;

/// Experts of a layer.
const EXPERTS: usize = 4096;

/// The architectures that are read and written: `model_type` of config.json and `general.architecture` of a file.
pub fn architectures() -> impl Iterator<Item = (&'static str, &'static str)> {
    architecture::TABLE.iter().map(|arch| (arch.model_type, arch.gguf))
}

/// Whether a path is taken for a GGUF file: a file whose name ends in `.gguf`.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf")) && path.is_file()
}

/// A model file under the names of a Hugging Face directory.
#[derive(Debug)]
pub struct ModelFile {
    file: GgufFile,
    arch: &'static Architecture,
    config: Json,
    tensors: BTreeMap<String, Place>,
}

/// Location in the file of a tensor of the directory.
#[derive(Debug)]
struct Place {
    gguf_name: String,
    shape: Vec<usize>,
    transform: Transform,
    /// Index of the expert, if the tensor has one part per expert.
    expert: Option<usize>,
}

impl ModelFile {
    /// Opens a file and finds the counterpart of every tensor. Reads no weights but factors of RoPE.
    pub fn open(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let arch = architecture(&file)?;
        let is_tied = is_tied(&file)?;
        let config::Config { json: mut config, heads } = config::read(&file, arch, is_tied)?;
        config.extend(tokenizer::token_ids(file.metadata())?);
        let tensors = places(&file, arch, heads, is_tied)?;
        Ok(Self { file, arch, config: Json::Object(config), tensors })
    }

    /// The file.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// config.json.
    pub fn config(&self) -> &Json {
        &self.config
    }

    /// Names and shapes of all tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, place)| (name.as_str(), place.shape.as_slice()))
    }

    /// The storage format of a tensor.
    pub fn stored_as(&self, name: &str) -> Result<crate::TensorType> {
        let place = self.place(name)?;
        let info = self.file.tensor(&place.gguf_name).ok_or_else(|| self.missing(name))?;
        Ok(info.ty)
    }

    /// The values of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let place = self.place(name)?;
        let info = self.file.tensor(&place.gguf_name).ok_or_else(|| self.missing(name))?;
        let Some(expert) = place.expert else {
            let values = self.file.read(&place.gguf_name)?;
            return Ok(place.transform.read(values, &info.shape));
        };
        let n = place.shape.iter().product();
        self.file.read_part(&place.gguf_name, expert * n, n)
    }

    /// A matrix in the blocks that the file has, row after row; `None` of values that are stored one by one, and of other
    /// tensors than matrices that have the same rows in both formats.
    pub fn read_blocks(&self, name: &str) -> Result<Option<(crate::TensorType, Vec<u8>)>> {
        let place = self.place(name)?;
        let info = self.file.tensor(&place.gguf_name).ok_or_else(|| self.missing(name))?;
        let &[rows, columns] = place.shape.as_slice() else { return Ok(None) };
        if info.ty.block_elements() == 1 || !place.transform.keeps_rows() {
            return Ok(None);
        }
        let n = rows * columns;
        let first = place.expert.unwrap_or(0) * n;
        let bytes = self.file.read_part_bytes(&place.gguf_name, first, n)?;
        Ok(Some((info.ty, place.transform.read_rows(bytes, rows))))
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.tensors.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Error {
        let name = self.arch.gguf_name(name).map_or_else(|| name.to_owned(), |found| found.name);
        Error::MissingTensor { path: self.file.path().to_owned(), name }
    }
}

fn architecture(file: &GgufFile) -> Result<&'static Architecture> {
    let metadata = file.metadata();
    let kind = metadata.text("general.type")?.unwrap_or("model");
    let unsupported = |reason: String, hint: String| {
        Err(Error::Unsupported { path: file.path().to_owned(), reason, hint })
    };
    if kind != "model" {
        return unsupported(
            format!("the file contains no model: `general.type` is `{kind}`"),
            "adapters are read as PEFT directories".to_owned(),
        );
    }
    let key = "general.architecture";
    let name = metadata.require(key, metadata.text(key)?)?;
    let n_experts = metadata.uint(&format!("{name}.expert_count"))?.unwrap_or(0);
    let window = metadata.uint(&format!("{name}.attention.sliding_window"))?.unwrap_or(0);
    match Architecture::of_gguf(name, n_experts > 0, window > 0) {
        Some(arch) => Ok(arch),
        None => unsupported(
            format!("architecture `{name}` is not supported"),
            format!("supported: {}", Architecture::known_in_gguf()),
        ),
    }
}

/// Whether there is no head, or one that repeats the embedding.
fn is_tied(file: &GgufFile) -> Result<bool> {
    let (Some(head), Some(embedding)) =
        (file.tensor("output.weight"), file.tensor("token_embd.weight"))
    else {
        return Ok(true);
    };
    if (head.ty, &head.shape) != (embedding.ty, &embedding.shape) {
        return Ok(false);
    }
    file.same_data(head, embedding)
}

fn places(
    file: &GgufFile,
    arch: &'static Architecture,
    heads: Heads,
    is_tied: bool,
) -> Result<BTreeMap<String, Place>> {
    let mut places = BTreeMap::new();
    for info in file.tensors().iter().filter(|info| !is_tied || info.name != "output.weight") {
        let gguf_name = info.name.clone();
        match arch.hf_name(&info.name) {
            Some(FromGguf::RopeFactors) => {}
            Some(FromGguf::One(name)) => {
                let transform = Transform::of(arch, &name, heads);
                let shape = transform.hf_shape(&info.shape);
                check_heads(file, info, transform)?;
                places.insert(name, Place { gguf_name, shape, transform, expert: None });
            }
            Some(FromGguf::Experts { before, after }) => {
                let &[n_experts @ ..=EXPERTS, rows, columns] = info.shape.as_slice() else {
                    let reason = format!("`{:?}` are no sizes of `{gguf_name}`", info.shape);
                    return Err(Error::Malformed { path: file.path().to_owned(), reason });
                };
                for expert in 0..n_experts {
                    let place = Place {
                        gguf_name: gguf_name.clone(),
                        shape: vec![rows, columns],
                        transform: Transform::None,
                        expert: Some(expert),
                    };
                    places.insert(format!("{before}{expert}{after}"), place);
                }
            }
            None => {
                return Err(Error::Unsupported {
                    path: file.path().to_owned(),
                    reason: format!("tensor `{gguf_name}` has no counterpart"),
                    hint: format!("`{}` has no such layer", arch.model_type),
                });
            }
        }
    }
    Ok(places)
}

/// Rows that are moved must be whole heads of an even number of rows.
fn check_heads(file: &GgufFile, info: &crate::TensorInfo, transform: Transform) -> Result<()> {
    let Transform::PairRows { n_heads } = transform else { return Ok(()) };
    let n_rows = info.shape.first().copied().unwrap_or(0);
    if n_heads > 0 && n_heads.checked_mul(2).is_some_and(|n| n_rows.is_multiple_of(n)) {
        return Ok(());
    }
    let reason = format!("{n_rows} rows of tensor `{}` are not {n_heads} even heads", info.name);
    Err(Error::Malformed { path: file.path().to_owned(), reason })
}

/// The tokenizer of a file under the names of a Hugging Face directory.
#[derive(Debug)]
pub struct TokenizerFile {
    file: GgufFile,
}

impl TokenizerFile {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: GgufFile::open(path)? })
    }

    /// tokenizer.json; none if the file has no vocabulary.
    pub fn tokenizer_json(&self) -> Result<Option<String>> {
        Ok(tokenizer::tokenizer_json(self.file.metadata())?.map(|json| json.to_string()))
    }

    /// tokenizer_config.json.
    pub fn config(&self) -> Result<Map<String, Json>> {
        tokenizer::tokenizer_config(self.file.metadata())
    }

    /// The ids of generation_config.json: `bos_token_id`, `eos_token_id` (every id that ends a text), `pad_token_id`.
    pub fn token_ids(&self) -> Result<Map<String, Json>> {
        tokenizer::token_ids(self.file.metadata())
    }

    /// The chat template.
    pub fn chat_template(&self) -> Result<Option<String>> {
        Ok(self.file.metadata().text("tokenizer.chat_template")?.map(str::to_owned))
    }
}
