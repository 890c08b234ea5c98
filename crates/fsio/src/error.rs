//! What can go wrong with a file, always with its path.
//!
//! It deliberately holds no advice about recipes or runs; callers that know more say more.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::dirs::free_space;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error with the path it happened at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}{}", free_note(*free))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: "write", "rename to `x`".
        action: String,
        /// The operating system's answer.
        source: io::Error,
        /// Free bytes on the file system, where the error is about space.
        free: Option<u64>,
    },
    /// A file is larger than its reader allows.
    #[error("{path}: file is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The reader's limit in bytes.
        limit: u64,
    },
    /// A folder, device or pipe stands where a file was expected.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// What is not a file.
        path: PathBuf,
    },
    /// A text file holds bytes that are not UTF-8.
    #[error("{path}: invalid UTF-8 at byte {offset}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is not part of a valid character.
        offset: usize,
    },
    /// A name, often from a foreign file, that is not a bare file name.
    #[error("not a bare file name: `{}`", name.escape_debug())]
    BadName {
        /// The name.
        name: String,
    },
    /// A directory that was to be created is already there.
    #[error("{path}: already exists")]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A file of a directory under construction was created twice or never finished.
    #[error("{path}: file {reason}")]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// Which of the two.
        reason: &'static str,
    },
    /// A directory does not hold exactly what its MANIFEST says.
    #[error("{dir}: {file}: {damage}")]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// The file's name in it.
        file: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Another process holds a lock.
    #[error("{path}: locked by another process{}", pid.map(|p| format!(": `{p}`")).unwrap_or_default())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, if it left its id.
        pid: Option<u32>,
    },
    /// A log is shorter than what a checkpoint recorded.
    #[error("{path}: log has {bytes} bytes, fewer than the recorded {recorded}")]
    LogTooShort {
        /// The log.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length that was asked for.
        recorded: u64,
    },
}

/// What is wrong with a file of a checksummed directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Listed, but not there.
    Missing,
    /// There, but not listed.
    Extra,
    /// A link, folder or device instead of a file.
    NotAFile,
    /// Another length than listed.
    Length {
        /// The listed length.
        expected: u64,
        /// The length found.
        found: u64,
    },
    /// The length is right and the content is not.
    Checksum,
    /// The MANIFEST cannot be understood.
    Unreadable(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Extra => f.write_str("not listed in MANIFEST"),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::Length { expected, found } => {
                write!(f, "length differs: `{found}` instead of `{expected}` bytes")
            }
            Self::Checksum => f.write_str("checksum differs"),
            Self::Unreadable(reason) => f.write_str(reason),
        }
    }
}

impl Error {
    /// What to do next, where something helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { free: Some(_), .. } => {
                Some("free some space and start again; what was saved before is intact".into())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path; relative paths in a recipe start at the recipe".into())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("check who owns the file and its permissions".into())
            }
            Self::Io { .. } => None,
            Self::TooLarge { .. } => Some("check that this is the file you meant".into()),
            Self::NotAFile { .. } => Some("name a file, not a folder, device or pipe".into()),
            Self::NotUtf8 { .. } => Some("convert the file to UTF-8".into()),
            Self::BadName { .. } => {
                Some("names inside files may not lead out of their own folder".into())
            }
            Self::Exists { .. } => Some("remove it or choose another place".into()),
            Self::Damaged { .. } => {
                Some("the folder was changed or damaged after it was written; do not use it".into())
            }
            Self::Locked { .. } => Some("wait for the other process or stop it".into()),
            Self::LogTooShort { .. } => Some("the log was cut or replaced by hand".into()),
            Self::Unfinished { .. } => None,
        }
    }

    /// Whether the file or folder is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn io(path: &Path, action: impl Into<String>, source: io::Error) -> Self {
        let about_space = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
        );
        let free = if about_space { free_space(path) } else { None };
        Self::Io { path: path.to_owned(), action: action.into(), source, free }
    }
}

/// Attaches a path and a verb to a plain I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, path: &Path, action: &str) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, path: &Path, action: &str) -> Result<T> {
        self.map_err(|source| Error::io(path, action, source))
    }
}

fn free_note(free: Option<u64>) -> String {
    match free {
        Some(bytes) => format!("; {:.1} MiB free", bytes as f64 / f64::from(1 << 20)),
        None => String::new(),
    }
}
