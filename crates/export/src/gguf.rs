//! A language model as a GGUF file, with a Modelfile for Ollama next to it.

use std::path::{Path, PathBuf};

use ::gguf::{FileType, ModelExport, ModelWriter, TokenizerSource};
use arch::{Architecture, Dtype, ParamSpec};
use fsio::{AtomicFile, DirLock};
use model::{SavedModel, visit_tensors};
use serde_json::Value;
use tokenizer::Tokenizer;

use crate::hugging_face::{fitting, token_ids};
use crate::{Error, Result, modelfile};

/// The file that Ollama builds a model from. Next to another model's, it is called `NAME.Modelfile`.
pub const MODELFILE: &str = "Modelfile";

/// A complete GGUF file that does not have its name yet. Dropping it removes it.
#[derive(Debug)]
pub struct PendingGguf {
    file: AtomicFile,
    modelfile: String,
}

impl PendingGguf {
    /// Writes the weights and the tokenizer for the file `path`.
    ///
    /// Errors: the file exists, or its directory has a Modelfile and one of the model's own name too.
    pub fn write<M: SavedModel>(
        model: &M,
        tokenizer: &Tokenizer,
        file_type: FileType,
        path: &Path,
    ) -> Result<Self> {
        if M::ARCHITECTURE != Architecture::CausalLm {
            return Err(::gguf::Error::NotExportable {
                reason: "the model is a sequence classifier".to_owned(),
                hint: "leave --gguf out to write a Hugging Face directory".to_owned(),
            }
            .into());
        }
        let tokenizer = &fitting(tokenizer, model.config())?;
        let config = model.config().to_json_as(M::ARCHITECTURE, Dtype::F32, &token_ids(tokenizer));
        let json = tokenizer_json(tokenizer)?;
        let source = source(tokenizer, &json)?;
        let specs = model.file_parameters();
        let tensors: Vec<(String, Vec<usize>)> =
            specs.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let export = ModelExport::new(&config, &source, &tensors, file_type, &name)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            fsio::create_dir_all(parent)?;
        }
        modelfile_beside(path)?;
        let mut file = AtomicFile::begin(path)?;
        let written = export
            .begin(&mut file)
            .map_err(Error::from)
            .and_then(|to| write_tensors(to, model, &specs));
        written.map_err(|error| at(path, error))?;
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let modelfile = modelfile::text(&file_name.unwrap_or_default(), tokenizer, source.adds_bos);
        Ok(Self { file, modelfile })
    }

    /// The path of the file before the commit, for reading it back.
    pub fn written(&mut self) -> Result<&Path> {
        Ok(self.file.written()?)
    }

    /// Gives the file its name, with its Modelfile and `other`, a file for the same directory. Nothing is replaced: if one of the
    /// names is taken by now, none of the files is left.
    pub fn commit(self, other: Option<(PathBuf, Vec<u8>)>) -> Result<WrittenGguf> {
        let _lock = DirLock::wait(self.file.path().parent().unwrap_or(Path::new("")));
        // Another export may have written a Modelfile in the meantime.
        let modelfile = modelfile_beside(self.file.path())?;
        let mut others = vec![(modelfile.clone(), self.modelfile.as_bytes())];
        others.extend(other.iter().map(|(path, bytes)| (path.clone(), bytes.as_slice())));
        let n_bytes = self.file.commit_with(&others)?;
        Ok(WrittenGguf { n_bytes, modelfile })
    }
}

/// A finished GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenGguf {
    /// Length in bytes.
    pub n_bytes: u64,
    /// Its Modelfile, in the same directory.
    pub modelfile: PathBuf,
}

/// The path of a GGUF file's Modelfile: `Modelfile`, or where the directory has one of another model, `NAME.Modelfile`.
///
/// Errors: both exist.
fn modelfile_beside(path: &Path) -> Result<PathBuf> {
    let own = path.with_extension(MODELFILE);
    let found = [path.with_file_name(MODELFILE), own.clone()].into_iter().find(|p| !p.exists());
    Ok(found.ok_or(fsio::Error::Exists { path: own })?)
}

/// Writes the file `path`, which must not exist, and a Modelfile in its directory.
pub fn gguf<M: SavedModel>(
    model: &M,
    tokenizer: &Tokenizer,
    file_type: FileType,
    path: &Path,
) -> Result<WrittenGguf> {
    PendingGguf::write(model, tokenizer, file_type, path)?.commit(None)
}

/// The error of a failed write names the file.
fn at(path: &Path, error: Error) -> Error {
    if let Error::Gguf(::gguf::Error::Write { source }) = error {
        return Error::File(fsio::Error::of_writer(source, path));
    }
    error
}

/// Writes every tensor; parameters that the model was trained without are zeros in the file.
fn write_tensors<M: SavedModel>(
    mut writer: ModelWriter,
    model: &M,
    specs: &[ParamSpec],
) -> Result<()> {
    let mut pending = specs;
    visit_tensors(model, |name, _, values| {
        // Both lists are in module order, so everything before `name` is missing from the model.
        let Some(n_zeros) = pending.iter().position(|spec| spec.name == name) else {
            return Err(::gguf::Error::OutOfOrder { name: name.to_owned() });
        };
        let (zeros, rest) = pending.split_at(n_zeros);
        write_zeros(&mut writer, zeros)?;
        pending = rest.get(1..).unwrap_or_default();
        writer.tensor(name, values)
    })?;
    write_zeros(&mut writer, pending)?;
    Ok(writer.finish()?)
}

fn write_zeros(writer: &mut ModelWriter, zeros: &[ParamSpec]) -> ::gguf::Result<()> {
    zeros
        .iter()
        .try_for_each(|spec| writer.tensor(&spec.name, &vec![0.0; spec.n_elements() as usize]))
}

fn tokenizer_json(tokenizer: &Tokenizer) -> Result<Value> {
    let files = tokenizer.files()?;
    let found = files.iter().find(|(name, _)| name == "tokenizer.json");
    let bytes = found.map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
    // The tokenizer wrote it.
    Ok(serde_json::from_slice(bytes).unwrap_or(Value::Null))
}

fn source<'a>(tokenizer: &'a Tokenizer, json: &'a Value) -> Result<TokenizerSource<'a>> {
    let prefix = tokenizer.prefix_ids();
    let around = tokenizer.encode("")?;
    let suffix = around.get(prefix.len()..).unwrap_or_default();
    let only = |ids: &[u32], id: Option<u32>| ids.len() <= 1 && ids.first().copied() == id;
    let fits = |ids: &[u32], id| ids.is_empty() || only(ids, id);
    if !fits(&prefix, tokenizer.bos()) || !fits(suffix, tokenizer.eos()) {
        return Err(::gguf::Error::NotExportable {
            reason: format!("the tokenizer adds the ids `{around:?}` to every text"),
            hint: "llama.cpp adds the beginning-of-text and end-of-text tokens only".to_owned(),
        }
        .into());
    }
    let template = tokenizer.chat_template();
    Ok(TokenizerSource {
        json,
        bos: tokenizer.bos(),
        eos: tokenizer.eos(),
        end_of_turn: template.and_then(|template| tokenizer.end_token(template).ok()),
        pad: tokenizer.pad(),
        adds_bos: !prefix.is_empty(),
        adds_eos: !suffix.is_empty(),
        template: template.map(tokenizer::ChatTemplate::source),
    })
}
