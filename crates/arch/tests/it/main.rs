//! Tests of arch: config.json read, refused and written; parameter tables, RoPE and costs.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod costs;
mod hostile;
mod parameters;
mod published;
mod reading;
mod refusals;
mod rope;

use std::path::Path;

use arch::{DecoderConfig, ModelConfig, ModelInfo};
use serde_json::Value;

/// The text of a file in `tests/it/configs`. They are those of the reference vectors.
macro_rules! config {
    ($name:literal) => {
        include_str!(concat!("configs/", $name))
    };
}
pub(crate) use config;

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixture is valid JSON")
}

pub(crate) fn describe(text: &str) -> ModelInfo {
    ModelInfo::from_json(&json(text), Path::new("config.json")).expect("a fixture is a good config")
}

pub(crate) fn read(text: &str) -> ModelConfig {
    describe(text).config
}

pub(crate) fn decoder(text: &str) -> DecoderConfig {
    match read(text) {
        ModelConfig::Decoder(config) => config,
        ModelConfig::Gpt2(_) => panic!("not a decoder with rotary positions"),
    }
}

/// `text` with the keys of `patch` set; a null patch value removes the key.
pub(crate) fn patched(text: &str, patch: &Value) -> Value {
    let mut value = json(text);
    let map = value.as_object_mut().expect("a config is an object");
    for (key, new) in patch.as_object().expect("a patch is an object") {
        if new.is_null() {
            map.remove(key);
        } else {
            map.insert(key.clone(), new.clone());
        }
    }
    value
}
