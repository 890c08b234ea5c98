//! Model configurations of all families: config.json in and out, parameter tables, adapters, FLOP and memory formulas.
//! No tensors and no weights.
//!
//! Keys of config.json that change the forward pass are honoured or refused by name. Keys that cannot change it are
//! ignored. Unknown keys are ignored with a warning, so that published directories open ([`ModelInfo::warnings`]).
//!
//! Most families are variants of the decoder that [`DecoderConfig`] describes. A family has one file, `family/<name>.rs`,
//! which reads its config.json into that description and writes it.

mod activation;
mod adapter;
mod adapter_error;
mod adapter_layout;
mod adapter_match;
mod adapter_targets;
mod config_reader;
mod cost;
mod decoder;
mod dtype;
mod error;
mod family;
mod family_config;
mod family_list;
mod ignored_keys;
pub mod limits;
mod memory_estimate;
mod model_config;
mod model_info;
mod params;
mod peft;
mod rope;
mod sizes;
mod token_ids;

pub use adapter::{BiasTraining, LoraConfig, LoraInit, TrainableTokens};
pub use adapter_error::{ADAPTER_CONFIG, AdapterError, AdapterResult};
pub use adapter_layout::{
    AdaptedLayer, AdapterLayout, AdapterTensor, AdapterTensorKind, LayerRole, TokenRows,
};
pub use adapter_targets::Targets;
pub use config_reader::KeyUse;
pub use cost::{AdapterShape, Computation, HeadOutput, KernelPath, TrainingShape};
pub use decoder::{
    AttentionScale, DecoderConfig, ExpertNaming, ExpertsConfig, LayerConfig, NormPlacement, QkNorm,
    is_expert_parameter,
};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use family::{Activation, Family, Gpt2Config, ModelConfig};
pub use ignored_keys::ignored_config_keys;
pub use memory_estimate::MemoryEstimate;
pub use model_config::{Architecture, TRANSFORMERS_VERSION};
pub use model_info::{ModelInfo, Quantization};
pub use params::{AxisOrder, Init, LinearLayer, ParamKind, ParamSpec};
pub use peft::{Peft, PeftKeys, SCORE_HEADS, peft_keys};
pub use rope::{ROPE_TYPES, RopeParameters, RopeScaling, RopeTable};
pub use token_ids::TokenIds;
