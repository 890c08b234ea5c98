//! Access to the keys of a config.json.

use serde_json::{Map, Value as Json};

use crate::{Error, Result};

/// The keys of a config.json.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a>(pub(super) &'a Map<String, Json>);

impl<'a> Settings<'a> {
    pub(super) fn get(self, key: &str) -> Option<&'a Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn uint(self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    pub(super) fn float(self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    pub(super) fn flag(self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    pub(super) fn require_uint(self, key: &str) -> Result<u64> {
        self.uint(key).ok_or_else(|| missing(key))
    }

    pub(super) fn require_float(self, key: &str) -> Result<f64> {
        self.float(key).ok_or_else(|| missing(key))
    }

    /// Refuses a model unless `holds`.
    pub(super) fn require(self, holds: bool, key: &str, reason: &str) -> Result<()> {
        if holds {
            return Ok(());
        }
        let value = self.get(key).unwrap_or(&Json::Null);
        Err(not_exportable(format!("`{key}` = {value}: {reason}")))
    }
}

/// The error that a model has no counterpart.
pub(super) fn not_exportable(reason: String) -> Error {
    Error::NotExportable {
        reason,
        hint: "leave --gguf out to write a Hugging Face directory".to_owned(),
    }
}

fn missing(key: &str) -> Error {
    not_exportable(format!("config.json has no key `{key}`"))
}
