//! Reads adapter_config.json of PEFT, current and older versions.
//!
//! A key is honoured, ignored because it changes no result, or empty. All others are refused by name, because they may
//! change the forward pass. No weights are opened, and paths in the file are not followed.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::adapter::{BiasTraining, LoraConfig, LoraInit, TrainableTokens};
use crate::adapter_error::{ADAPTER_CONFIG, AdapterError, AdapterResult};
use crate::adapter_targets::Targets;

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

/// Keys of adapter_config.json. All others are refused by name unless they turn their feature off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeftKeys {
    /// Keys whose values are used.
    pub honoured: Vec<&'static str>,
    /// Keys that change no result.
    pub ignored: &'static [&'static str],
}

/// The keys that [`Peft::read`] knows.
pub fn peft_keys() -> PeftKeys {
    let mut map = Map::new();
    map.insert("peft_type".to_owned(), Value::from("LORA"));
    map.insert("r".to_owned(), Value::from(1));
    map.insert("lora_alpha".to_owned(), Value::from(1));
    map.insert("target_modules".to_owned(), Value::from("all-linear"));
    let mut reader = Reader { path: PathBuf::new(), map, asked: Vec::new() };
    // The keys are the same whatever the values, so an error would not matter here.
    let _ = reader.read();
    PeftKeys { honoured: reader.asked, ignored: &IGNORED }
}

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
            Value::Object(map) => {
                let read = Reader { path, map, asked: Vec::new() }.read();
                read.map_err(|error| error.in_config_of(dir))
            }
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
    /// Keys that were asked for, in order.
    asked: Vec<&'static str>,
}

impl Reader {
    fn read(&mut self) -> AdapterResult<Peft> {
        match self.take("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(other) => return Err(self.unsupported("peft_type", &other)),
            None => return Err(self.malformed("missing key `peft_type`")),
        }
        let (saves_head, modules_to_save) = self.saved_modules()?;
        let lora = LoraConfig {
            rank: self.integer("r")?,
            alpha: self.number("lora_alpha", None)?,
            dropout: self.number("lora_dropout", Some(0.0))?,
            rslora: self.flag("use_rslora")?,
            targets: self.targets()?,
            use_dora: self.flag("use_dora")?,
            lora_bias: self.flag("lora_bias")?,
            init: self.init()?,
            bias: self.bias()?,
            rank_pattern: self.pattern("rank_pattern", |value| {
                value.as_u64().and_then(|rank| usize::try_from(rank).ok())
            })?,
            alpha_pattern: self.pattern("alpha_pattern", Value::as_f64)?,
            layers_to_transform: self.layer_indices()?,
            layers_pattern: self.one_or_more("layers_pattern")?,
            exclude_modules: self.excluded()?,
            modules_to_save,
            trainable_tokens: self.trainable_tokens()?,
        };
        lora.check()?;
        let base = match self.take("base_model_name_or_path") {
            Some(Value::String(name)) => Some(name),
            None => None,
            Some(_) => return Err(self.malformed("`base_model_name_or_path` is not a string")),
        };
        self.finish()?;
        Ok(Peft { lora, base, saves_head })
    }

    /// Removes and returns the value of a key. Null is the same as absent.
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
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
            None => Ok(Targets::FamilyDefault),
        }
    }

    fn names(&self, key: &str, value: &Value) -> AdapterResult<Vec<String>> {
        let names = value.as_array().map(|names| {
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        names.flatten().ok_or_else(|| self.malformed(&format!("`{key}` is not a list of names")))
    }

    /// Whether the head of a sequence classifier is saved, and the other saved modules.
    fn saved_modules(&mut self) -> AdapterResult<(bool, Vec<String>)> {
        let Some(value) = self.take("modules_to_save") else { return Ok((false, Vec::new())) };
        let names = self.names("modules_to_save", &value)?;
        let is_head = |name: &String| SCORE_HEADS.contains(&name.as_str());
        let (heads, others): (Vec<_>, Vec<_>) = names.into_iter().partition(is_head);
        Ok((!heads.is_empty(), others))
    }

    /// Some initialisations change the base weights too. Those that can be computed again from the base are read; random
    /// ones (`pissa_niter_4`, LoftQ, CorDA) are refused.
    fn init(&mut self) -> AdapterResult<LoraInit> {
        match self.take("init_lora_weights") {
            None | Some(Value::Bool(_)) => Ok(LoraInit::Default),
            Some(Value::String(init)) if BASE_PRESERVING_INITS.contains(&init.as_str()) => {
                Ok(LoraInit::Default)
            }
            Some(Value::String(init)) if init.eq_ignore_ascii_case("pissa") => Ok(LoraInit::Pissa),
            Some(Value::String(init)) if init.eq_ignore_ascii_case("olora") => Ok(LoraInit::Olora),
            Some(other) => Err(self.unsupported("init_lora_weights", &other)),
        }
    }

    fn bias(&mut self) -> AdapterResult<BiasTraining> {
        match self.take("bias") {
            None => Ok(BiasTraining::None),
            Some(Value::String(bias)) if bias == "none" => Ok(BiasTraining::None),
            Some(Value::String(bias)) if bias == "all" => Ok(BiasTraining::All),
            Some(Value::String(bias)) if bias == "lora_only" => Ok(BiasTraining::LoraOnly),
            Some(other) => Err(self.unsupported("bias", &other)),
        }
    }

    /// A map from patterns to numbers, in the file's order, which decides between patterns that match one name.
    fn pattern<T>(
        &mut self,
        key: &'static str,
        number: impl Fn(&Value) -> Option<T>,
    ) -> AdapterResult<Vec<(String, T)>> {
        self.asked.push(key);
        let wrong = || self.malformed(&format!("`{key}` does not map patterns to numbers"));
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(map)) => {
                let entries = map.iter().map(|(name, value)| Some((name.clone(), number(value)?)));
                let entries = entries.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
                self.map.shift_remove(key);
                Ok(entries)
            }
            Some(_) => Err(wrong()),
        }
    }

    /// `layers_to_transform`: one index or a list; an empty list is the same as none.
    fn layer_indices(&mut self) -> AdapterResult<Option<Vec<usize>>> {
        let key = "layers_to_transform";
        let index = |value: &Value| value.as_u64().and_then(|idx| usize::try_from(idx).ok());
        let indices = match self.take(key) {
            None => return Ok(None),
            Some(Value::Array(values)) => values.iter().map(index).collect::<Option<Vec<_>>>(),
            Some(value) => index(&value).map(|idx| vec![idx]),
        };
        let indices =
            indices.ok_or_else(|| self.malformed(&format!("`{key}` is not a list of indices")))?;
        Ok(Some(indices).filter(|indices| !indices.is_empty()))
    }

    fn one_or_more(&mut self, key: &'static str) -> AdapterResult<Vec<String>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::String(name)) if name.is_empty() => Ok(Vec::new()),
            Some(Value::String(name)) => Ok(vec![name]),
            Some(value) => self.names(key, &value),
        }
    }

    fn excluded(&mut self) -> AdapterResult<Option<Targets>> {
        let key = "exclude_modules";
        let excluded = match self.take(key) {
            None => return Ok(None),
            Some(Value::String(pattern)) if pattern.is_empty() => return Ok(None),
            Some(Value::String(pattern)) => Targets::Pattern(pattern),
            Some(value) => Targets::Names(self.names(key, &value)?),
        };
        Ok(Some(excluded).filter(|excluded| *excluded != Targets::Names(Vec::new())))
    }

    /// A list of ids for the token embedding, or a map from modules to lists.
    fn trainable_tokens(&mut self) -> AdapterResult<Vec<TrainableTokens>> {
        let key = "trainable_token_indices";
        let ids = |value: &Value| -> Option<Vec<u32>> {
            let ids = value.as_array()?.iter();
            ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
        };
        let tokens = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(map)) => map
                .iter()
                .map(|(module, value)| {
                    Some(TrainableTokens { module: Some(module.clone()), ids: ids(value)? })
                })
                .collect::<Option<Vec<_>>>(),
            Some(value) => ids(&value).map(|ids| vec![TrainableTokens { module: None, ids }]),
        };
        tokens.ok_or_else(|| self.malformed(&format!("`{key}` is not a list of token ids")))
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
