//! adapter_config.json, of today's PEFT and of older ones: what it says, or why it is refused.
//!
//! A key is understood, known to change no result, or empty; anything else is refused by name, for
//! it may change the mathematics. It deliberately opens no weights and follows no path.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::adapter::{AdapterError, AdapterResult, LoraConfig, Targets};

/// The settings' file of an adapter's directory.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// What adapter_config.json says.
#[derive(Clone, Debug, PartialEq)]
pub struct Peft {
    /// The adapter's shape and strength.
    pub lora: LoraConfig,
    /// The base that it was made for, as it was named there; nothing is opened by it.
    pub base: Option<String>,
    /// Whether the score head stands in the adapter's file (`modules_to_save`).
    pub saves_head: bool,
}

/// Keys that say where something came from, or how to start training, and change no result.
const HARMLESS: [&str; 10] = [
    "auto_mapping",
    "inference_mode",
    // Conv1D or Linear: the layer itself knows how its weight lies.
    "fan_in_fan_out",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
    "merge_weights",
    "runtime_config",
];

/// Ways to start training that leave the base as it is.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// PEFT's names of the head of a sequence classifier.
pub const SCORE_HEADS: [&str; 2] = ["classifier", "score"];

impl Peft {
    /// Reads the settings of an adapter's directory.
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
            _ => Err(malformed("not a JSON object".to_owned())),
        }
    }
}

/// Takes key after key; what is left at the end must be empty.
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
            Some(_) => return Err(self.malformed("`base_model_name_or_path` is not a text")),
        };
        let saves_head = self.saved_modules()?;
        self.start()?;
        self.bias()?;
        self.finish()?;
        Ok(Peft { lora, base, saves_head })
    }

    /// A key's value; null is as good as absent.
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
            // PEFT falls back on a table by model type.
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

    /// Some ways to start (PiSSA, OLoRA, LoftQ ..) change the base too.
    fn start(&mut self) -> AdapterResult<()> {
        match self.take("init_lora_weights") {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(Value::String(start)) if PLAIN_STARTS.contains(&start.as_str()) => Ok(()),
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
        self.map.retain(|key, value| !HARMLESS.contains(&key.as_str()) && !is_empty(value));
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

/// What switches a feature off.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
