//! Whether the run's directory is still the one that this process locked.

use super::StageRun;
use crate::Result;

impl StageRun<'_> {
    /// Requires that the run's directory is still the one that this process locked, before something is written into it.
    ///
    /// Errors: it was removed, moved or replaced.
    pub fn check_dir(&self) -> Result<()> {
        self.guard.check()
    }
}
