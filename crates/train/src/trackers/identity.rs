//! The name under which other programs know a stage. It is drawn once and stored, so that a resumed stage keeps it.

use std::path::{Path, PathBuf};

use fsio::limits;
use serde::{Deserialize, Serialize};

use super::now;
use crate::Result;

/// The file of a stage that stores its identity.
const FILE: &str = "trackers.json";

/// The identity of a stage, and the directory of its run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    /// The directory of the run.
    pub(super) run_dir: PathBuf,
    file: PathBuf,
    stored: Stored,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Stored {
    /// 32 hexadecimal digits.
    id: String,
    /// When the stage started, in seconds since 1970.
    started: f64,
}

impl Identity {
    /// The stored identity of the stage in this directory, or a new one.
    pub(super) fn of(stage_dir: &Path) -> Self {
        let file = stage_dir.join(FILE);
        let text = fsio::read_text_capped(&file, limits::STATE_BYTES);
        let stored = text.ok().and_then(|text| serde_json::from_str::<Stored>(&text).ok());
        let is_plain = |stored: &Stored| {
            stored.id.len() == 32 && stored.id.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let stored = stored.filter(is_plain).unwrap_or_else(|| Stored::new(stage_dir));
        let run_dir = stage_dir.parent().unwrap_or(stage_dir);
        let run_dir = std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned());
        Self { run_dir, file, stored }
    }

    /// Stores the identity.
    pub(super) fn save(&self) -> Result<()> {
        let text = serde_json::to_string(&self.stored).unwrap_or_default();
        Ok(fsio::write_atomic(&self.file, text + "\n")?)
    }

    /// 32 hexadecimal digits.
    pub(super) fn id(&self) -> &str {
        &self.stored.id
    }

    /// When the stage started, in seconds since 1970.
    pub(super) fn started(&self) -> f64 {
        self.stored.started
    }
}

impl Stored {
    fn new(stage_dir: &Path) -> Self {
        let started = now();
        let place = (std::path::absolute(stage_dir), std::process::id(), started);
        let id = fsio::sha256_hex(format!("{place:?}").as_bytes());
        Self { id: id.chars().take(32).collect(), started }
    }
}
