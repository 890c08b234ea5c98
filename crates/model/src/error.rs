//! Errors in the files of a model: the file, the tensor if there is one, and a hint.

use std::io;
use std::path::PathBuf;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A model directory or weight file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, or is larger than its limit.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// config.json is wrong.
    #[error(transparent)]
    Config(#[from] arch::Error),
    /// Reading a weight file failed.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Writing weights failed.
    #[error("cannot write weights: {source}")]
    Write {
        /// The operating system's answer.
        source: io::Error,
    },
    /// A directory without safetensors weights.
    #[error("{}: no model.safetensors and no model.safetensors.index.json", dir.display())]
    NoWeights {
        /// The directory.
        dir: PathBuf,
        /// Whether it has weights in PyTorch's own format.
        pickled: bool,
    },
    /// A weight file or index does not follow its format.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A file that the index names is not there.
    #[error("{}: names a file that is not there: `{shard}`", index.display())]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The absent file's name.
        shard: String,
    },
    /// The model needs a tensor that no file holds.
    #[error("{}: tensor missing: `{name}`{}", place.display(), others(*more))]
    MissingTensor {
        /// The file or directory.
        place: PathBuf,
        /// The first absent tensor.
        name: String,
        /// How many more are absent.
        more: usize,
    },
    /// A file has a tensor that the model does not have.
    #[error("{}: tensor that the model has no place for: `{name}`{}", path.display(), others(*more))]
    LeftOver {
        /// The file.
        path: PathBuf,
        /// The first such tensor.
        name: String,
        /// How many more there are.
        more: usize,
    },
    /// A tensor has another shape than config.json says.
    #[error("{}: tensor `{name}` has shape {found:?}, not {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the model needs.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a format that is not read.
    #[error("{}: tensor `{name}` is stored as `{dtype}`", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The format's name in the file.
        dtype: String,
    },
    /// A tensor has a value that is not a finite number.
    #[error("{}: tensor `{name}` holds {value} at element {index}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// NaN or an infinity.
        value: f32,
        /// Which element, counted from 0 in row-major order.
        index: usize,
    },
    /// A tensor's values contradict config.json.
    #[error("{}: tensor `{name}` {reason}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// How it contradicts config.json.
        reason: &'static str,
    },
    /// A value does not fit in the format that weights are to be written in.
    #[error("tensor `{name}` holds {value} at element {index}, which {dtype} cannot hold")]
    DoesNotFit {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
        /// Which element, counted from 0 in row-major order.
        index: usize,
        /// The format's short name.
        dtype: &'static str,
    },
    /// A weight is packed into 4 or 8 bits, which no file format of this crate stores.
    #[error("weight `{name}` is packed into fewer bits and cannot be written")]
    Packed {
        /// The tensor.
        name: String,
    },
    /// The directory describes a model with another head than the one requested.
    #[error("{}: holds {found}, not {expected}", dir.display())]
    WrongHead {
        /// The directory.
        dir: PathBuf,
        /// The directory's model.
        found: &'static str,
        /// The requested model.
        expected: &'static str,
    },
    /// The tensors written do not match the list of tensors; a mistake in the program.
    #[error("weights were written out of order: `{name}`")]
    OutOfOrder {
        /// The tensor.
        name: String,
    },
}

impl Error {
    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File(error) => return error.hint(),
            Self::Config(error) => return error.hint(),
            Self::Read { .. } => "check the disk, and that you have permission to read the file",
            Self::Write { .. } => "check free space and the directory's permissions",
            Self::NoWeights { pickled: true, .. } => {
                "files in PyTorch's own format can run code and are not read; \
                 convert them with save_pretrained(.., safe_serialization=True) of transformers"
            }
            Self::NoWeights { .. } => "name the directory that holds config.json and the weights",
            Self::Malformed { .. } | Self::NotFinite { .. } => {
                "the file is damaged or was cut short; fetch or save it again"
            }
            Self::MissingShard { .. } => "fetch every file that the index names",
            Self::MissingTensor { .. } | Self::LeftOver { .. } | Self::Shape { .. } => {
                "config.json and the weights are not of the same model; fetch both again"
            }
            Self::Dtype { .. } => {
                "supported: F32, BF16, F16; save the model again in one of them, without quantisation"
            }
            Self::Contradiction { .. } => {
                "correct the key in config.json, or remove the tensor if it is a left-over"
            }
            Self::DoesNotFit { .. } => "write the weights as f32 or bf16",
            Self::WrongHead { .. } => {
                "name a model of the right kind; see `architectures` in config.json"
            }
            Self::Packed { .. } => "write the adapter, or load the base in f32 or bf16",
            Self::OutOfOrder { .. } => return None,
        };
        Some(text.to_owned())
    }
}

fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
