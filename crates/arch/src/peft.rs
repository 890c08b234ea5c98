//! Reads adapter_config.json of PEFT, current and older versions.
//!
//! A key is honoured, ignored because it changes no result, or empty. All others are refused by name, because they may
//! change the forward pass. No weights are opened, and paths in the file are not followed.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::adapter::{LoraConfig, Targets};
use crate::adapter_error::{AdapterError, AdapterResult};

/// File name of an adapter's configuration.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The contents of adapter_config.json.
#[derive(Clone, Debug, PartialEq)]
pub struct Peft {
    /// Configuration of the adapter.
    pub lora: LoraConfig,
    /// Name or path of the base model, as written there. It is not opened.
    pub base: Option<String>,
    /// Whether the adapter's file contains a score head (`modules_to_save`).
    pub saves_head: bool,
}

/// Keys that change no result: origin of the file, and how training starts.
const IGNORED: [&str; 10] = [
    "auto_mapping",
    "inference_mode",
    // Whether the base layer is a Conv1D. The axis order is known from the family.
    "fan_in_fan_out",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
    "merge_weights",
    "runtime_config",
];

/// Initialisations that leave the base weights unchanged.
const BASE_PRESERVING_INITS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// Names of the head of a sequence classifier in PEFT.
pub const SCORE_HEADS: [&str; 2] = ["classifier", "score"];

impl Peft {
    /// Reads adapter_config.json of an adapter's directory.
    pub fn read(dir: &Path) -> AdapterResult<Self> {
        let path = dir.join(ADAPTER_CONFIG);
        if !path.exists() {
            return Err(AdapterError::absent(dir, ADAPTER_CONFIG));
        }
        let text = fsio::read_text_capped(&path, fsio::limits::CONFIG_BYTES)?;
        let malformed = |reason: String| AdapterError::Malformed { path: path.clone(), reason };
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| malformed(format!("not valid JSON: {error}")))?;
        match value {
            Value::Object(map) => Reader { path, map }.read(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(malformed("not a JSON object".to_owned())),
        }
    }
}

/// Removes keys as they are read. Remaining keys must be ignored ones or empty.
struct Reader {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Reader {
    fn read(mut self) -> AdapterResult<Peft> {
        match self.take("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(other) => return Err(self.unsupported("peft_type", &other)),
            None => return Err(self.malformed("missing key `peft_type`")),
        }
        let lora = LoraConfig {
            rank: self.integer("r")?,
            alpha: self.number("lora_alpha", None)?,
            dropout: self.number("lora_dropout", Some(0.0))?,
            rslora: self.flag("use_rslora")?,
            targets: self.targets()?,
        };
        lora.check()?;
        let base = match self.take("base_model_name_or_path") {
            Some(Value::String(name)) => Some(name),
            None => None,
            Some(_) => return Err(self.malformed("`base_model_name_or_path` is not a string")),
        };
        let saves_head = self.saved_modules()?;
        self.init()?;
        self.bias()?;
        self.finish()?;
        Ok(Peft { lora, base, saves_head })
    }

    /// Removes and returns the value of a key. Null is the same as absent.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    fn integer(&mut self, key: &'static str) -> AdapterResult<usize> {
        let value = self.take(key).and_then(|value| value.as_u64());
        let value = value.and_then(|value| usize::try_from(value).ok());
        value.ok_or_else(|| self.malformed(&format!("`{key}` is not a whole number")))
    }

    fn number(&mut self, key: &'static str, default: Option<f64>) -> AdapterResult<f64> {
        let value = self.take(key).map_or(default, |value| value.as_f64());
        value.ok_or_else(|| self.malformed(&format!("`{key}` is not a number")))
    }

    fn flag(&mut self, key: &'static str) -> AdapterResult<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(self.malformed(&format!("`{key}` is neither true nor false"))),
        }
    }

    fn targets(&mut self) -> AdapterResult<Targets> {
        match self.take("target_modules") {
            Some(Value::String(all)) if all.eq_ignore_ascii_case("all-linear") => {
                Ok(Targets::AllLinear)
            }
            Some(Value::String(pattern)) => Ok(Targets::Pattern(pattern)),
            Some(value) => self.names("target_modules", &value).map(Targets::Names),
            // PEFT has defaults by model type; they are not used here.
            None => Err(self.malformed("missing key `target_modules`")),
        }
    }

    fn names(&self, key: &str, value: &Value) -> AdapterResult<Vec<String>> {
        let names = value.as_array().map(|names| {
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        names.flatten().ok_or_else(|| self.malformed(&format!("`{key}` is not a list of names")))
    }

    fn saved_modules(&mut self) -> AdapterResult<bool> {
        let Some(value) = self.take("modules_to_save") else { return Ok(false) };
        let names = self.names("modules_to_save", &value)?;
        if names.iter().any(|name| !SCORE_HEADS.contains(&name.as_str())) {
            return Err(self.unsupported("modules_to_save", &value));
        }
        Ok(!names.is_empty())
    }

    /// Some initialisations (PiSSA, OLoRA, LoftQ) change the base weights too.
    fn init(&mut self) -> AdapterResult<()> {
        match self.take("init_lora_weights") {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(Value::String(init)) if BASE_PRESERVING_INITS.contains(&init.as_str()) => Ok(()),
            Some(other) => Err(self.unsupported("init_lora_weights", &other)),
        }
    }

    fn bias(&mut self) -> AdapterResult<()> {
        match self.take("bias") {
            None => Ok(()),
            Some(Value::String(bias)) if bias == "none" => Ok(()),
            Some(other) => Err(self.unsupported("bias", &other)),
        }
    }

    fn finish(&mut self) -> AdapterResult<()> {
        self.map.retain(|key, value| !IGNORED.contains(&key.as_str()) && !is_empty(value));
        match self.map.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(self.unsupported(key, value)),
        }
    }

    fn unsupported(&self, key: &str, value: &Value) -> AdapterError {
        let text: String = value.to_string().chars().take(80).collect();
        AdapterError::Unsupported { path: self.path.clone(), key: key.to_owned(), value: text }
    }

    fn malformed(&self, reason: &str) -> AdapterError {
        AdapterError::Malformed { path: self.path.clone(), reason: reason.to_owned() }
    }
}

/// Whether a value turns its feature off.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
