//! The interface of a model that is saved and loaded, whatever its head.

use std::io;
use std::path::Path;

use arch::{Architecture, Dtype, ModelConfig, ParamSpec};
use burn::module::Module;
use burn::tensor::Device;

use crate::{CausalLm, Result, ScalarModel, load_causal_lm, load_scalar_model};

/// A model with an architecture's name in Hugging Face directories.
pub trait SavedModel: Module {
    /// Its architecture in config.json.
    const ARCHITECTURE: Architecture;

    /// Reads a directory, strictly.
    fn load(dir: &Path, device: &Device) -> Result<Self>;

    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// The parameters of its file, including those that it does not have in memory and that are zeros in the file.
    fn file_parameters(&self) -> Vec<ParamSpec>;

    /// Writes its weights as one safetensors file.
    fn write_safetensors(&self, out: &mut dyn io::Write, dtype: Dtype) -> Result<()>;
}

impl SavedModel for CausalLm {
    const ARCHITECTURE: Architecture = Architecture::CausalLm;

    fn load(dir: &Path, device: &Device) -> Result<Self> {
        load_causal_lm(dir, device)
    }

    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn file_parameters(&self) -> Vec<ParamSpec> {
        self.config().file_parameters()
    }

    fn write_safetensors(&self, out: &mut dyn io::Write, dtype: Dtype) -> Result<()> {
        self.write_safetensors(out, dtype)
    }
}

impl SavedModel for ScalarModel {
    const ARCHITECTURE: Architecture = Architecture::SequenceClassifier;

    fn load(dir: &Path, device: &Device) -> Result<Self> {
        load_scalar_model(dir, device)
    }

    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn file_parameters(&self) -> Vec<ParamSpec> {
        self.config().sequence_classifier_parameters()
    }

    fn write_safetensors(&self, out: &mut dyn io::Write, dtype: Dtype) -> Result<()> {
        self.write_safetensors(out, dtype)
    }
}
