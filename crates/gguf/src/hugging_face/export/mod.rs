//! A model of a Hugging Face directory as a GGUF file: metadata, the table of tensors, and a writer that takes tensors by
//! their names in the directory.

mod config;
mod file_type;
mod rope;
mod settings;

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value as Json};

use self::config::Converted;
pub use self::file_type::FileType;
use self::settings::{Settings, not_exportable};
use super::architecture::Architecture;
use super::tokenizer::{self, TokenizerSource};
use super::transform::{Heads, Transform};
use crate::{Error, GgufWriter, Result, TensorSpec, TensorType, Value};

/// The version of the block formats.
const QUANTIZATION_VERSION: u32 = 2;

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// A model that is going to be written.
#[derive(Debug)]
pub struct ModelExport {
    metadata: Vec<(String, Value)>,
    /// Tensors of the file that are written before all others.
    constants: Vec<(TensorSpec, Vec<f32>)>,
    specs: Vec<TensorSpec>,
    /// Name in the directory → its place in the file.
    places: BTreeMap<String, Place>,
}

#[derive(Debug, Clone)]
struct Place {
    gguf_name: String,
    shape: Vec<usize>,
    transform: Transform,
    scale: f32,
    /// Number and count of experts, if the tensor is a part.
    expert: Option<(usize, usize)>,
    /// The tensor is written a second time as the head.
    is_head_too: bool,
}

impl ModelExport {
    /// Plans a file.
    ///
    /// `config` is config.json, `tensors` names and shapes of the directory in the order in which they will be passed to
    /// [`ModelWriter::tensor`], `name` becomes `general.name`.
    pub fn new(
        config: &Json,
        tokenizer: &TokenizerSource,
        tensors: &[(String, Vec<usize>)],
        file_type: FileType,
        name: &str,
    ) -> Result<Self> {
        let empty = Map::new();
        let settings = Settings(config.as_object().unwrap_or(&empty));
        let model_type = settings.get("model_type").and_then(Json::as_str).unwrap_or_default();
        let Some(arch) = Architecture::of_model_type(model_type) else {
            let known = Architecture::known_model_types();
            return Err(not_exportable(format!("family `{model_type}`; written are: {known}")));
        };
        let converted = config::convert(settings, arch)?;
        let vocab_size = settings.require_uint("vocab_size")? as usize;
        let mut metadata = general(arch, file_type, name);
        let prefixed = |(key, value): (&str, Value)| (format!("{}.{key}", arch.gguf), value);
        metadata.extend(converted.keys.iter().cloned().map(prefixed));
        metadata.extend(tokenizer::metadata(tokenizer, vocab_size)?);
        let is_tied = !tensors.iter().any(|(name, _)| name == "lm_head.weight");
        settings.require(
            is_tied || !arch.is_always_tied(),
            "tie_word_embeddings",
            "llama.cpp takes the embedding as the head in this architecture",
        )?;
        let repeats_embedding = is_tied && arch.always_has_head();
        let context = file_type::Context {
            file_type,
            arch,
            n_layers: converted.n_layers,
            n_experts: converted.n_experts,
            groups_queries: converted.n_heads != converted.n_kv_heads,
            // A repeated embedding has the head's type in both places, so that it is still recognized as one.
            is_tied,
        };
        let mut export =
            Self { metadata, constants: Vec::new(), specs: Vec::new(), places: BTreeMap::new() };
        for (name, values) in &converted.tensors {
            let spec = TensorSpec {
                name: (*name).to_owned(),
                shape: vec![values.len()],
                ty: TensorType::F32,
            };
            export.constants.push((spec, values.clone()));
        }
        for (name, shape) in tensors {
            export.place(name, shape, arch, &converted, context)?;
            if repeats_embedding && export.specs.last().is_some_and(|last| last.name == EMBEDDING) {
                export.repeat_as_head(name, shape, context);
            }
        }
        Ok(export)
    }

    fn place(
        &mut self,
        name: &str,
        shape: &[usize],
        arch: &'static Architecture,
        converted: &Converted,
        context: file_type::Context,
    ) -> Result<()> {
        let Some(found) = arch.gguf_name(name) else {
            return Err(not_exportable(format!("tensor `{name}` has no counterpart")));
        };
        let heads = Heads { queries: converted.n_heads, keys: converted.n_kv_heads };
        let transform = Transform::of(arch, name, heads);
        let n_experts = converted.n_experts;
        let gguf_shape = match found.expert {
            Some(_) => [&[n_experts], shape].concat(),
            None => transform.gguf_shape(shape),
        };
        let is_last = found.expert.is_none_or(|expert| expert + 1 == n_experts);
        if is_last {
            let ty = context.tensor_type(&found.name, &gguf_shape);
            self.specs.push(TensorSpec { name: found.name.clone(), shape: gguf_shape, ty });
        }
        // The scale goes where it has an effect: behind a norm of queries if there is one.
        let has_norm = arch.blocks.iter().copied().flatten().any(|(hf, _)| hf.ends_with("q_norm"));
        let scaled = if has_norm { ".q_norm.weight" } else { ".q_proj.weight" };
        let scale = if name.ends_with(scaled) { converted.query_scale as f32 } else { 1.0 };
        let place = Place {
            gguf_name: found.name,
            shape: shape.to_vec(),
            transform,
            scale,
            expert: found.expert.map(|expert| (expert, n_experts)),
            is_head_too: false,
        };
        self.places.insert(name.to_owned(), place);
        Ok(())
    }

    /// Writes the embedding again as the head.
    fn repeat_as_head(&mut self, embedding: &str, shape: &[usize], context: file_type::Context) {
        let ty = context.tensor_type(HEAD, shape);
        self.specs.push(TensorSpec { name: HEAD.to_owned(), shape: shape.to_vec(), ty });
        if let Some(place) = self.places.get_mut(embedding) {
            place.is_head_too = true;
        }
    }

    /// Names, shapes and formats of the tensors in the file.
    pub fn specs(&self) -> impl Iterator<Item = &TensorSpec> {
        self.constants.iter().map(|(spec, _)| spec).chain(&self.specs)
    }

    /// The metadata.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// Writes the header.
    pub fn begin(self, out: &mut dyn Write) -> Result<ModelWriter<'_>> {
        let specs = self.specs().cloned().collect();
        let mut writer = GgufWriter::begin(out, &self.metadata, specs)?;
        for (spec, values) in &self.constants {
            writer.tensor(&spec.name, values)?;
        }
        Ok(ModelWriter { writer, places: self.places, pending: BTreeMap::new() })
    }
}

/// A file whose header is written and which takes the tensors of the directory in the order of the plan.
pub struct ModelWriter<'a> {
    writer: GgufWriter<'a>,
    places: BTreeMap<String, Place>,
    /// Values of experts by the tensor of the file, until the last one comes.
    pending: BTreeMap<String, Vec<f32>>,
}

impl ModelWriter<'_> {
    /// Writes the next tensor.
    pub fn tensor(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let Some(place) = self.places.get(name) else {
            return Err(Error::OutOfOrder { name: name.to_owned() });
        };
        if let Some((expert, n_experts)) = place.expert {
            let pending = self.pending.entry(place.gguf_name.clone()).or_default();
            if pending.len() != expert * values.len() {
                return Err(Error::OutOfOrder { name: name.to_owned() });
            }
            pending.extend_from_slice(values);
            if expert + 1 < n_experts {
                return Ok(());
            }
            let whole = self.pending.remove(&place.gguf_name).unwrap_or_default();
            return self.writer.tensor(&place.gguf_name, &whole);
        }
        if place.transform == Transform::None && place.scale == 1.0 {
            self.writer.tensor(&place.gguf_name, values)?;
            return if place.is_head_too { self.writer.tensor(HEAD, values) } else { Ok(()) };
        }
        let mut values = place.transform.write(values.to_vec(), &place.shape);
        for value in &mut values {
            *value *= place.scale;
        }
        self.writer.tensor(&place.gguf_name, &values)
    }

    /// Checks that no tensor is missing.
    pub fn finish(self) -> Result<()> {
        self.writer.finish()
    }
}

fn general(arch: &Architecture, file_type: FileType, name: &str) -> Vec<(String, Value)> {
    [
        ("general.architecture", Value::string(arch.gguf)),
        ("general.type", Value::string("model")),
        ("general.name", Value::string(name)),
        ("general.file_type", Value::U32(file_type.id())),
        ("general.quantization_version", Value::U32(QUANTIZATION_VERSION)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}
