//! Errors of file operations, each with its path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk_space::free_space;
use crate::nearest::nearest_path;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed file operation, with the path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system returned an error.
    #[error("{path}: cannot {action}: {source}{}", space_note(source.kind(), *free))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The failed operation as a verb: "write", "rename to `x`".
        action: String,
        /// The operating system's error.
        source: IoFailure,
        /// Free bytes on the file system, if the error is about space.
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
    /// A directory, device or pipe in place of a file.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A pointer of Git LFS in place of the file that it names.
    #[error("{path}: a Git LFS pointer, not the file itself")]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A text file is not valid UTF-8.
    #[error("{path}: invalid UTF-8 at byte {offset}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is not part of a valid character.
        offset: usize,
    },
    /// A name, often from an untrusted file, that is not a bare file name.
    #[error("not a bare file name: `{}`", name.escape_debug())]
    BadName {
        /// The name.
        name: String,
    },
    /// The directory to be created exists.
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
        /// `was created twice` or `was not finished`.
        reason: &'static str,
    },
    /// A directory differs from its MANIFEST.
    #[error("{dir}: {file}: {damage}")]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// The file's name in it.
        file: String,
        /// The difference.
        #[source]
        damage: Damage,
    },
    /// A directory with a MANIFEST of another format than this version's.
    #[error("{dir}: MANIFEST {version}")]
    OtherFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format and this version's.
        #[source]
        version: OtherFormat,
    },
    /// Another process holds a lock.
    #[error("{path}: locked by another process{}", pid.map(|p| format!(": `{p}`")).unwrap_or_default())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Id of the process that holds it, if it is known.
        pid: Option<u32>,
    },
    /// A log that is being written was removed, moved or replaced.
    #[error("{path}: the file was removed, moved or replaced while it was being written")]
    LogGone {
        /// The log.
        path: PathBuf,
    },
    /// A log is shorter than the length in a checkpoint.
    #[error("{path}: log has {bytes} bytes, fewer than the recorded {recorded}")]
    LogTooShort {
        /// The log.
        path: PathBuf,
        /// Length of the log in bytes.
        bytes: u64,
        /// Recorded length in bytes.
        recorded: u64,
    },
}

/// The operating system's error, and whether it is one of writing. Programs find it by [`std::error::Error::source`].
#[derive(Debug)]
pub struct IoFailure {
    error: io::Error,
    writes: bool,
}

impl IoFailure {
    /// Whether the operation that failed would have changed the file system.
    pub fn is_write(&self) -> bool {
        self.writes
    }
}

impl std::ops::Deref for IoFailure {
    type Target = io::Error;

    fn deref(&self) -> &io::Error {
        &self.error
    }
}

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for IoFailure {}

/// The operating system starts no further thread.
#[derive(Debug)]
pub struct NoThread(pub io::Error);

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start a thread: {}", self.0)
    }
}

impl std::error::Error for NoThread {}

/// Operations that change nothing; all others write.
const READING: [&str; 5] = ["read", "read the length of", "list", "map", "hash"];

/// The format of a MANIFEST and the one that this version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "has the format `{found}`, and this version reads `{known}`{}",
    if found > known { ": made by a newer Temper" } else { "" }
)]
pub struct OtherFormat {
    /// The format of the directory.
    pub found: u64,
    /// The format of this version.
    pub known: u64,
}

/// Damage to a file of a checksummed directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Listed, but missing.
    Missing,
    /// Present, but not listed.
    Extra,
    /// A link, directory or device in place of a file.
    NotAFile,
    /// A length other than the listed one.
    Length {
        /// Listed length in bytes.
        expected: u64,
        /// Actual length in bytes.
        found: u64,
    },
    /// The right length, but other contents.
    Checksum,
    /// The end is missing.
    Truncated,
    /// The MANIFEST has the right hash, and its text is not one, with the reason.
    Unreadable(String),
}

impl Damage {
    /// Whether the content is certainly not what was written. Anything else may be a healthy directory that was added to,
    /// linked, or written by another version.
    pub fn is_other_content(&self) -> bool {
        match self {
            Self::Missing | Self::Length { .. } | Self::Checksum | Self::Truncated => true,
            Self::Extra | Self::NotAFile | Self::Unreadable(_) => false,
        }
    }
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
            Self::Truncated => f.write_str("truncated"),
            Self::Unreadable(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Damage {}

/// What to do where a process has no file descriptors left.
pub const OPEN_FILES_HINT: &str = "raise the limit of open files (`ulimit -n`) and start again";

impl Error {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { free: Some(_), .. } => {
                Some("free some space and start again; files saved before are intact".into())
            }
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(match nearest_path(path) {
                    Some(near) => format!("did you mean `{}`?", near.display()),
                    None if path.is_absolute() => "check the path".into(),
                    None => "check the path; it is relative to the recipe if it is written in one, else to this directory".into(),
                })
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => Some(
                "raise the limit (`ulimit -f`) and start again; files saved before are intact"
                    .into(),
            ),
            Self::Io { source, .. } if source.raw_os_error() == Some(libc::EMFILE) => {
                Some(OPEN_FILES_HINT.into())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("check who owns the file and its permissions".into())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                Some("a part of the path is a file; choose a path below a directory".into())
            }
            Self::Io { .. } => None,
            Self::TooLarge { .. } => Some("check that this is the file you meant".into()),
            Self::NotAFile { .. } => Some("name a file, not a directory, device or pipe".into()),
            Self::LfsPointer { .. } => Some("run `git lfs pull` in the file's repository".into()),
            Self::NotUtf8 { .. } => Some("convert the file to UTF-8".into()),
            Self::BadName { .. } => Some("names inside files must not contain a path".into()),
            Self::Exists { .. } => Some("remove it or choose another path".into()),
            Self::Damaged { damage: Damage::Extra, .. } => {
                Some("nothing was changed; move the file out of the directory".into())
            }
            Self::Damaged { damage: Damage::NotAFile, .. } => {
                Some("nothing was changed; put the file itself in place of the link".into())
            }
            Self::Damaged { damage: Damage::Unreadable(_), .. } => {
                Some("nothing was changed; another version may have made it: use that one".into())
            }
            Self::Damaged { dir, .. } => Some(format!(
                "the directory was changed or damaged after it was written: restore the file or make the directory \
                 again; if you meant the change, remove `{}`",
                dir.join("MANIFEST").display()
            )),
            Self::OtherFormat { .. } => {
                Some("use the version of Temper that made it; nothing was changed".into())
            }
            Self::Locked { .. } => Some("wait for the other process or stop it".into()),
            Self::LogGone { .. } => Some(
                "nothing more was written; run the recipe again: it continues from the last checkpoint that is left"
                    .into(),
            ),
            Self::LogTooShort { .. } => {
                Some("the log was truncated or replaced after the checkpoint was saved".into())
            }
            Self::Unfinished { .. } => None,
        }
    }

    /// Whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The error of this crate within an error of a [`crate::HashingFile`] as a writer; any other error gets `path`.
    pub fn of_writer(error: io::Error, path: &Path) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(error) => Self::io(path, "write", error),
        }
    }

    /// The error of the operating system when a file is read.
    pub fn of_reading(path: impl AsRef<Path>, error: io::Error) -> Self {
        Self::io(path.as_ref(), "read", error)
    }

    pub(crate) fn io(path: &Path, action: impl Into<String>, source: io::Error) -> Self {
        let about_space = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
        );
        let free = if about_space { free_space(path) } else { None };
        let action = action.into();
        let writes = !READING.contains(&action.as_str());
        let source = IoFailure { error: source, writes };
        Self::Io { path: path.to_owned(), action, source, free }
    }
}

/// Adds a path and a verb to an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, path: &Path, action: &str) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, path: &Path, action: &str) -> Result<T> {
        self.map_err(|source| Error::io(path, action, source))
    }
}

fn space_note(kind: io::ErrorKind, free: Option<u64>) -> String {
    if kind == io::ErrorKind::FileTooLarge {
        return file_size_limit()
            .map(|bytes| format!("; the limit is {bytes} bytes"))
            .unwrap_or_default();
    }
    match free {
        Some(bytes) => format!("; {:.1} MiB free", bytes as f64 / f64::from(1 << 20)),
        None => String::new(),
    }
}

/// The process's limit of file sizes, if it has one.
fn file_size_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file size"))?;
    line.split_whitespace().next()?.parse().ok()
}
