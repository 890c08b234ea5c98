//! Writing and mapping files: atomic commits, checksums, size-limited reads and locks. Programs under limits.
//!
//! No other crate writes or maps files, or starts programs. The only format known here is MANIFEST; the paths of runs
//! are up to the caller.

// The workspace denies these calls so that other crates use this one.
#![allow(clippy::disallowed_methods)]

pub mod any_number;
pub mod limits;

mod append_log;
mod atomic_file;
mod background_hasher;
mod bus_error;
mod calendar;
mod checked_read;
mod dir_writer;
mod dirs;
mod disk_space;
mod error;
mod hash;
mod hash_memo;
mod json_shape;
mod lfs;
mod lock;
mod manifest;
mod mapped;
mod names;
mod nearest;
pub mod out_of_memory;
pub mod panics;
mod partial_file;
mod program;
mod read;
mod replace;
mod strict_json;
mod tmp_dir;
mod verified;
pub mod watchdog;

pub use append_log::AppendLog;
pub use atomic_file::{AtomicFile, finish_file};
pub use calendar::utc_date_time;
pub use checked_read::{read_capped, read_optional_text, read_text_capped};
pub use dir_writer::{DirWriter, HashingFile};
pub use dirs::{
    create_dir_all, is_stale_tmp, remove_dir_all, remove_empty_dir, remove_file, rename,
};
pub use disk_space::free_space;
pub use error::{Damage, Error, IoFailure, NoThread, OPEN_FILES_HINT, OtherFormat, Result};
pub use hash::{Sha256, for_each_piece, sha256_file, sha256_hex};
pub use json_shape::{JsonShape, json_shape};
pub use lock::{DirLock, Lock, LockHolder};
pub use manifest::{
    FileEntry, MANIFEST, MANIFEST_FORMAT, Manifest, format_number, read_listed, read_manifest,
    unlisted_names, verify_dir,
};
pub use mapped::MappedFile;
pub use names::basename_only;
pub use nearest::nearest_path;
pub use partial_file::PartialFile;
pub use program::{Program, ProgramFailure, ProgramLimits};
pub use read::{check_destination, check_replaceable, is_present, refuse_lfs_pointer};
pub use replace::{replace_unsynced, write_atomic};
pub use strict_json::{JsonError, strict_json};
pub use tmp_dir::{remove_abandoned_tmps, remove_own_tmps, remove_stale_tmps};
pub use verified::{Verification, verified_sha256};
