//! Errors of adapter configurations: files, ranges and targets.

use std::path::{Path, PathBuf};

/// File name of an adapter's configuration.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The result type of adapter configurations.
pub type AdapterResult<T> = std::result::Result<T, AdapterError>;

/// An adapter configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// adapter_config.json requires a feature that is not supported.
    #[error("{}: not supported: `{key}` = {value}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value as JSON, shortened.
        value: String,
    },
    /// A file violates its format.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The violation.
        reason: String,
    },
    /// The directory contains no adapter.
    #[error("{}: no {file}", dir.display())]
    NotAnAdapter {
        /// The directory.
        dir: PathBuf,
        /// The absent file.
        file: &'static str,
        /// Whether there are weights in PyTorch's pickle format.
        pickled: bool,
    },
    /// One of the errors below, with the file that has the setting.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<AdapterError>,
    },
    /// A setting is out of range.
    #[error("lora `{key}` must be {expected}: `{value}`")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// The value.
        value: String,
        /// The accepted range in words.
        expected: &'static str,
    },
    /// A pattern of target modules is not a supported regular expression.
    #[error("{key} is not a supported regular expression: `{pattern}`: {reason}")]
    Pattern {
        /// The setting.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// The parser's message, on one line.
        reason: String,
    },
    /// A target matches no layer of the model.
    #[error("target_modules matches no layer of the model: `{target}`")]
    NoSuchTarget {
        /// The name or pattern.
        target: String,
        /// The last parts of the layers' names.
        known: Vec<String>,
    },
    /// A target is a module that cannot have an adapter.
    #[error("target_modules matches a module that cannot have an adapter: `{module}`")]
    NotALayer {
        /// The module's name.
        module: String,
        /// The last parts of the names of layers that can.
        known: Vec<String>,
    },
    /// adapter_config.json names no target modules, and PEFT has no default for the family.
    #[error("no `target_modules`, and PEFT has no default for `{family}`")]
    NoDefaultTargets {
        /// The `model_type`.
        family: &'static str,
    },
    /// Trained rows of a weight that embedding and output layer share, where only one of the two uses is meant or the other
    /// settings separate them.
    #[error(
        "trainable_token_indices names a weight that is shared by embedding and output layer: `{module}`"
    )]
    Tied {
        /// The module's name.
        module: String,
    },
    /// A module has factors and trained rows.
    #[error("target_modules and trainable_token_indices both name a module: `{module}`")]
    Twice {
        /// The module's name.
        module: String,
    },
    /// Two settings exclude each other.
    #[error("lora `{key}` cannot be combined with {other}")]
    Conflict {
        /// The setting.
        key: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// A setting has no effect on the model.
    #[error("{key} matches nothing: `{value}`")]
    Unused {
        /// The setting.
        key: &'static str,
        /// The name, pattern or index.
        value: String,
        /// Names that it could match.
        known: Vec<String>,
    },
    /// A setting cannot be applied to a layer.
    #[error("lora `{key}` does not work for the layer `{layer}`: {reason}")]
    NotForLayer {
        /// The setting.
        key: &'static str,
        /// The layer's name.
        layer: String,
        /// The reason.
        reason: &'static str,
    },
}

impl AdapterError {
    /// The error for a directory without `file`, one of an adapter's two files.
    pub fn absent(dir: &Path, file: &'static str) -> Self {
        let pickled = dir.join("adapter_model.bin").exists();
        Self::NotAnAdapter { dir: dir.to_owned(), file, pickled }
    }

    /// The error about a setting with the adapter_config.json of `dir`, which has it; one that names a path is returned as it is.
    #[must_use]
    pub fn in_config_of(self, dir: &Path) -> Self {
        match self {
            Self::File(_)
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::NotAnAdapter { .. }
            | Self::InFile { .. } => self,
            Self::OutOfRange { .. }
            | Self::Pattern { .. }
            | Self::NoSuchTarget { .. }
            | Self::NotALayer { .. }
            | Self::NoDefaultTargets { .. }
            | Self::Tied { .. }
            | Self::Twice { .. }
            | Self::Conflict { .. }
            | Self::Unused { .. }
            | Self::NotForLayer { .. } => {
                Self::InFile { path: dir.join(ADAPTER_CONFIG), source: Box::new(self) }
            }
        }
    }

    /// Hint.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::InFile { source, .. } => return source.hint(),
            Self::Unsupported { .. } => {
                "merge the adapter with PEFT (merge_and_unload) and load the merged model"
                    .to_owned()
            }
            Self::Malformed { .. } => {
                "the file is damaged or not an adapter's; download or save the adapter again".to_owned()
            }
            Self::NotAnAdapter { pickled: true, .. } => {
                "pickle files can run code and are not read; convert to safetensors by saving the adapter again \
                 with a version of PEFT that writes adapter_model.safetensors"
                    .to_owned()
            }
            Self::NotAnAdapter { .. } => {
                "use the directory that contains adapter_config.json and adapter_model.safetensors"
                    .to_owned()
            }
            Self::OutOfRange { key, .. } => format!("change `{key}` of the adapter"),
            Self::Pattern { .. } => {
                "the pattern must match a layer's full name; look-around and back-references are not supported: use a \
                 list of names"
                    .to_owned()
            }
            Self::NoSuchTarget { known, .. } | Self::NotALayer { known, .. } => {
                format!("layers of this model: `{}`", known.join("`, `"))
            }
            Self::NoDefaultTargets { .. } => {
                "list in `target_modules` the layers that the adapter was trained on; the names of the tensors in \
                 adapter_model.safetensors show them"
                    .to_owned()
            }
            Self::Unused { known, .. } => format!("names of this model: `{}`", known.join("`, `")),
            Self::Tied { .. } => {
                "name the embedding alone in trainable_token_indices, and neither of the two in target_modules or \
                 modules_to_save"
                    .to_owned()
            }
            Self::Twice { .. } => "name it in one of the two".to_owned(),
            Self::Conflict { key, .. } => format!("leave `{key}` out"),
            Self::NotForLayer { key, .. } => {
                format!("change `{key}`, or leave the layer out of the targets")
            }
        })
    }
}
