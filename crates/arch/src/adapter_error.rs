//! Errors of adapter configurations: files, ranges and targets.

use std::path::{Path, PathBuf};

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
    #[error("target_modules is not a supported regular expression: `{pattern}`: {reason}")]
    Pattern {
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
    /// A target is a tied weight.
    #[error(
        "target_modules matches a weight that is shared by embedding and output layer: `{module}`"
    )]
    Tied {
        /// The module's name.
        module: String,
    },
}

impl AdapterError {
    /// The error for a directory without `file`, one of an adapter's two files.
    pub fn absent(dir: &Path, file: &'static str) -> Self {
        let pickled = dir.join("adapter_model.bin").exists();
        Self::NotAnAdapter { dir: dir.to_owned(), file, pickled }
    }

    /// How to fix the problem.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::Unsupported { .. } => {
                "merge the adapter with PEFT (merge_and_unload) and load the merged model"
                    .to_owned()
            }
            Self::Malformed { .. } => {
                "the file is damaged or not an adapter's; download or save the adapter again".to_owned()
            }
            Self::NotAnAdapter { pickled: true, .. } => {
                "pickle files can run code and are not read; save the adapter again with a version of PEFT that \
                 writes adapter_model.safetensors"
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
            Self::Tied { .. } => {
                "an adapter would change both uses; remove it from target_modules".to_owned()
            }
        })
    }
}
