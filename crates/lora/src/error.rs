//! Errors of adapters: in their settings, their files, or the model that they belong to.

use std::path::{Path, PathBuf};

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// An adapter that cannot be attached, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// The adapter's weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] tensor_file::Error),
    /// The model cannot have the adapter.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The adapter's configuration is invalid, or does not fit the model.
    #[error(transparent)]
    Config(#[from] arch::AdapterError),
    /// The model already has an adapter.
    #[error("the layer already has an adapter: `{layer}`")]
    Occupied {
        /// The first such layer.
        layer: String,
    },
    /// PiSSA and OLoRA change the base weight, which has to be f32.
    #[error("PiSSA and OLoRA need base weights in f32: `{layer}`")]
    NotInF32 {
        /// The first other layer.
        layer: String,
    },
    /// A bias of B has no bias of the layer to be merged into.
    #[error("an adapter with `lora_bias` cannot be merged into a layer without a bias: `{layer}`")]
    NoBias {
        /// The first such layer.
        layer: String,
    },
    /// Adapters whose sum is not a low-rank product.
    #[error("adapters with `{feature}` cannot be added")]
    NoSum {
        /// The setting.
        feature: &'static str,
    },
    /// The model has no adapter.
    #[error("the model has no adapter")]
    NoAdapter,
    /// The adapter's file lacks a tensor of its settings.
    #[error("{}: tensor missing: `{name}`{}", path.display(), others(*more))]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The first absent tensor.
        name: String,
        /// Number of further absent ones.
        more: usize,
    },
    /// The adapter's file has a tensor that is not in its settings or not in the model.
    #[error("{}: unexpected tensor, absent from model or settings: `{name}`{}", path.display(), others(*more))]
    LeftOver {
        /// The file.
        path: PathBuf,
        /// The first such tensor.
        name: String,
        /// Number of further ones.
        more: usize,
    },
}

impl Error {
    /// An error about a setting with the adapter_config.json of `dir`, which has it.
    pub(crate) fn in_config_of(self, dir: &Path) -> Self {
        if let Self::Config(error) = self {
            return Self::Config(error.in_config_of(dir));
        }
        self
    }

    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::Weights(tensor_file::Error::Shape { .. }) => {
                "the adapter was trained on a different base model, or with another `r`".to_owned()
            }
            Self::Weights(error) => return error.hint(),
            Self::Model(error) => return error.hint(),
            Self::Config(error) => return error.hint(),
            Self::Occupied { .. } => "merge the adapter before you attach another".to_owned(),
            Self::NotInF32 { .. } => "set `base_dtype = \"f32\"`".to_owned(),
            Self::NoBias { .. } => {
                "use the adapter unmerged, or train one without `lora_bias`".to_owned()
            }
            Self::NoSum { .. } => {
                "merge each into its base model first (`temper export --merge`), then merge the results"
                    .to_owned()
            }
            Self::NoAdapter => "attach or load an adapter first".to_owned(),
            Self::MissingTensor { .. } | Self::LeftOver { .. } => {
                "adapter_config.json, the adapter's weights and the base model must belong together"
                    .to_owned()
            }
        })
    }
}

fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
