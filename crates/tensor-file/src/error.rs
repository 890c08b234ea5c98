//! Errors of tensor files: the file, the tensor if there is one, and a hint.

use std::io;
use std::path::PathBuf;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A tensor file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not regular, is larger than its limit, or has a name with a path in it.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// A GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// Reading failed.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write weights: {source}")]
    Write {
        /// The operating system's error.
        source: io::Error,
    },
    /// A directory without safetensors weights.
    #[error("{}: no model.safetensors and no model.safetensors.index.json", dir.display())]
    NoWeights {
        /// The directory.
        dir: PathBuf,
        /// Whether it has weights in PyTorch's pickle format.
        pickled: bool,
    },
    /// A file or index does not follow its format.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A file that the index names does not exist.
    #[error("{}: names a file that does not exist: `{shard}`", index.display())]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The missing file's name.
        shard: String,
    },
    /// A tensor is missing.
    #[error("{}: tensor missing: `{name}`{}", path.display(), others(*more))]
    MissingTensor {
        /// The file or directory.
        path: PathBuf,
        /// The first missing tensor.
        name: String,
        /// Number of further missing tensors.
        more: usize,
    },
    /// A tensor has an unexpected shape.
    #[error("{}: tensor `{name}` has shape {found:?}, not {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// A tensor is stored in an unexpected dtype.
    #[error("{}: tensor `{name}` is stored as `{found}`, not {expected}", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The dtype's name in the file.
        found: String,
        /// The names of the accepted dtypes.
        expected: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor `{name}` holds {value} at element {index}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// NaN or an infinity.
        value: f32,
        /// Row-major index of the element, from 0.
        index: usize,
    },
    /// A weight does not fit in the dtype in which it is written.
    #[error("tensor `{name}` holds {value} at element {index}, which {dtype} cannot hold")]
    DoesNotFit {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
        /// Row-major index of the element, from 0.
        index: usize,
        /// The dtype's short name.
        dtype: &'static str,
    },
    /// The tensors written do not match the header; a bug in the program.
    #[error("tensors were written out of order: `{name}`")]
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
            Self::Gguf(error) => return error.hint(),
            Self::Read { .. } => "check the disk, and that you have permission to read the file",
            Self::Write { source } if source.kind() == io::ErrorKind::FileTooLarge => {
                "raise the limit (`ulimit -f`)"
            }
            Self::Write { .. } => "check free space and the directory's permissions",
            Self::NoWeights { pickled: true, .. } => {
                "files in PyTorch's own format can run code and are not read; convert to safetensors with \
                 save_pretrained(.., safe_serialization=True) of transformers"
            }
            Self::NoWeights { .. } => "name the directory that holds config.json and the weights",
            Self::Malformed { .. } | Self::NotFinite { .. } => {
                "the file is damaged or was cut short; fetch or save it again"
            }
            Self::MissingShard { .. } => "fetch every file that the index names",
            Self::MissingTensor { .. } | Self::Shape { .. } => {
                "the file belongs to another model or was written by another version"
            }
            Self::Dtype { .. } => "save the tensor again in that format, without quantisation",
            Self::DoesNotFit { .. } => "write the weights as f32 or bf16",
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
