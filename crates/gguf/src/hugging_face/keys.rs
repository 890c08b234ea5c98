//! Metadata keys of one architecture, without their prefix.

use crate::{Error, Metadata, Result};

/// Access to the keys `{prefix}.…`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a Metadata, prefix: &'a str) -> Self {
        Self { metadata, prefix }
    }

    fn key(self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub(super) fn uint(self, name: &str) -> Result<Option<u64>> {
        self.metadata.uint(&self.key(name))
    }

    pub(super) fn float(self, name: &str) -> Result<Option<f64>> {
        self.metadata.float(&self.key(name))
    }

    pub(super) fn text(self, name: &str) -> Result<Option<&'a str>> {
        self.metadata.text(&self.key(name))
    }

    pub(super) fn get(self, name: &str) -> Option<&'a crate::Value> {
        self.metadata.get(&self.key(name))
    }

    pub(super) fn require_uint(self, name: &str) -> Result<u64> {
        self.metadata.require(&self.key(name), self.uint(name)?)
    }

    pub(super) fn require_float(self, name: &str) -> Result<f64> {
        self.metadata.require(&self.key(name), self.float(name)?)
    }

    /// An error about the value of a key.
    pub(super) fn unsupported(self, name: &str, hint: &str) -> Error {
        let key = self.key(name);
        let found = self.metadata.get(&key).map(crate::Value::preview).unwrap_or_default();
        Error::Unsupported {
            path: self.metadata.path().to_owned(),
            reason: format!("metadata key `{key}` has the unsupported value `{found}`"),
            hint: hint.to_owned(),
        }
    }
}
