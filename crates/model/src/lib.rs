//! Model families as burn modules, read from and written as Hugging Face directories.
//!
//! One folder a family; [`Backbone`] is the one place that lists them. All weights are f32 in
//! memory. The crate deliberately trains nothing, samples nothing and knows no tokenizer.
//!
//! Shape legend: b batch, t time, d width, h heads, g key-value heads, k head width, v vocabulary.

mod adaptable;
mod backbone;
mod build;
mod causal_lm;
mod error;
mod gpt2;
mod llama;
mod load;
mod names;
mod safetensors;
mod saved;
mod scalar_model;

pub use adaptable::Adaptable;
pub use arch::Dtype;
pub use backbone::Backbone;
pub use build::ParameterSource;
pub use causal_lm::CausalLm;
pub use error::{Error, Result};
pub use gpt2::Gpt2Model;
pub use llama::LlamaModel;
pub use load::{WeightFiles, load_causal_lm, load_causal_lm_cast_as_a_whole, load_scalar_model};
pub use names::{
    NamePath, NamedParameter, load_state_dict, named_parameters, parameter_names, store_in_bf16,
    train_only, visit_tensors, write_parameters,
};
pub use safetensors::{SafetensorsFile, SafetensorsWriter, TensorInfo};
pub use saved::SavedModel;
pub use scalar_model::ScalarModel;
