//! Model families as burn modules, read from and written as Hugging Face directories.
//!
//! A [`Backbone`] is a decoder with rotary positions, which most families configure, or GPT-2. Trained weights are f32 in memory;
//! frozen ones may be bf16 or packed. Training, sampling and tokenizers are in other crates.
//!
//! Shape legend: b batch, t time, d width, h heads, g key-value heads, k head width, c half of k, v vocabulary,
//! n rows (b × t).

mod adaptable;
mod auxiliary;
mod backbone;
mod bitsandbytes;
mod build;
mod causal_lm;
mod decoder;
mod error;
mod gpt2;
mod load;
mod names;
mod output;
mod rope_decoder;
mod saved;
mod scalar_model;

pub use adaptable::Adaptable;
pub use arch::Dtype;
pub use auxiliary::{Auxiliary, ExpertLoad};
pub use backbone::Backbone;
pub use build::ParameterSource;
pub use causal_lm::CausalLm;
pub use error::{Error, Result};
pub use gpt2::Gpt2Model;
pub use load::{
    WeightFiles, check_weights, load_causal_lm, load_causal_lm_cast_as_a_whole,
    load_causal_lm_in_bf16, load_causal_lm_in_blocks, load_causal_lm_packed, load_scalar_model,
};
pub use names::{
    NamePath, NamedParameter, has_same_parameters, load_state_dict, named_parameters,
    parameter_names, replace_parameters, store_in_bf16, train_only, visit_tensors,
    write_parameters,
};
pub use output::Output;
pub use rope_decoder::RopeDecoder;
pub use saved::SavedModel;
pub use scalar_model::ScalarModel;
