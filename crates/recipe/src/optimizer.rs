//! The `optimizer` key of every training stage: update rule, learning rate, weight decay, clipping and parameter groups.
//! The rules are in `train`; the rule of each parameter and the size of its state are in `plan`.

use schemars::{JsonSchema, Schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::diagnostics::Diagnostics;

/// The optimizer: the update rule, its learning rate, weight decay and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The update rule with the keys that only it has.
    #[serde(flatten)]
    pub kind: OptimizerKind,
    /// Peak learning rate.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10.0))]
    pub lr: f64,
    /// Decoupled weight decay: each step, weights shrink by this times the learning rate. Applies to matrices only;
    /// norms and biases do not decay.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// Maximum global norm of the gradient; a larger gradient is scaled down to it. 0 turns clipping off.
    #[serde(default = "default_max_grad_norm")]
    #[schemars(range(min = 0.0, max = 1e9))]
    pub max_grad_norm: f64,
    /// Parameters with a learning rate or weight decay of their own. The first entry that matches a parameter applies
    /// to it; every rate follows the same schedule. With `match = "*.lora_B.weight"` this is LoRA+.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<OptimizerGroup>,
}

/// The update rule of an optimizer, with the keys that only it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[schemars(transform = adamw_is_default)]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019): `optimizer = { lr = 1e-3, weight_decay = 0.1 }`.
    AdamW(AdamwKeys),
    /// AdamW with both moments in 8 bits, quantised in blocks of 256 (Dettmers et al. 2022); tensors below 4096
    /// elements keep f32 moments: `optimizer = { kind = "adamw8bit", lr = 1e-3 }`.
    AdamW8bit(AdamwKeys),
    /// Momentum orthogonalised by a Newton–Schulz iteration for the matrices of the blocks, AdamW for everything else
    /// (Jordan 2024): `optimizer = { kind = "muon", lr = 1e-3, weight_decay = 0.1 }`.
    Muon(MuonKeys),
    /// Second moments factored into one number per row and column (Shazeer and Stern 2018), as transformers does it
    /// without relative steps: `optimizer = { kind = "adafactor", lr = 1e-3 }`.
    Adafactor(AdafactorKeys),
}

/// Keys of AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamwKeys {
    /// Decay rates of the first and second moments, each at least 0 and below 1.
    #[serde(default = "default_betas")]
    #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    #[schemars(range(min = 1e-37, max = 1.0))]
    pub eps: f64,
}

/// Keys of Muon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MuonKeys {
    /// Decay rate of the running mean of the gradient.
    #[serde(default = "default_momentum")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub momentum: f64,
    /// Whether the update looks ahead by one step of momentum.
    #[serde(default = "default_true")]
    pub nesterov: bool,
    /// Iterations of Newton–Schulz.
    #[serde(default = "default_ns_steps")]
    #[schemars(range(min = 1, max = 99))]
    pub ns_steps: usize,
    /// Scaling of the learning rate with a matrix's shape.
    #[serde(default)]
    pub adjust_lr: AdjustLr,
    /// AdamW for embeddings, the head, norms and biases.
    #[serde(default)]
    pub adamw: MuonAdamw,
}

/// Scaling of Muon's learning rate with the shape of a matrix of `out` rows and `in` columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// Times 0.2·√max(out, in), so that updates are as large as AdamW's and its learning rates fit (Liu et al. 2025).
    #[default]
    MatchRmsAdamw,
    /// Times √max(1, out / in) (Jordan 2024).
    Original,
    /// Times √(out / in).
    SpectralUnclamped,
}

/// AdamW for the parameters that Muon leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MuonAdamw {
    /// Peak learning rate. Default: the optimizer's `lr`; needed unless `adjust_lr` is `match_rms_adamw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10.0))]
    pub lr: Option<f64>,
    /// Decay rates of the first and second moments, each at least 0 and below 1.
    #[serde(default = "default_betas")]
    #[schemars(inner(range(min = 0.0, max = 0.999_999)))]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    #[schemars(range(min = 1e-37, max = 1.0))]
    pub eps: f64,
    /// Decoupled weight decay of embeddings and the head. Default: the optimizer's `weight_decay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: Option<f64>,
}

/// Keys of Adafactor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdafactorKeys {
    /// Decay rate of a running mean of the updates. Default: no first moment, which saves its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub beta1: Option<f64>,
    /// Whether the learning rate is multiplied by the parameter's root mean square.
    #[serde(default)]
    pub scale_parameter: bool,
    /// Largest root mean square of an update; a larger update is scaled down to it.
    #[serde(default = "default_clip_threshold")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e9))]
    pub clip_threshold: f64,
    /// Exponent of the step number: the second moment decays at the rate 1 − step^`decay_rate`.
    #[serde(default = "default_decay_rate")]
    #[schemars(extend("exclusiveMaximum" = 0.0), range(min = -10.0))]
    pub decay_rate: f64,
    /// Added to the squared gradient; and the smallest root mean square that `scale_parameter` multiplies by.
    #[serde(default = "default_adafactor_eps")]
    #[schemars(inner(range(min = 1e-37, max = 1.0)))]
    pub eps: [f64; 2],
}

/// Parameters with a learning rate or weight decay of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizerGroup {
    /// Checkpoint names of the parameters; `*` stands for any characters, `?` for one. It has to match at least one
    /// trained parameter.
    #[serde(rename = "match")]
    #[schemars(length(min = 1))]
    pub pattern: String,
    /// Peak learning rate of these parameters. Default: that of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10.0))]
    pub lr: Option<f64>,
    /// Decoupled weight decay of these parameters, matrices only. Default: that of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: Option<f64>,
}

impl Optimizer {
    /// AdamW with the defaults of a recipe.
    pub fn adamw(lr: f64) -> Self {
        let kind = OptimizerKind::AdamW(AdamwKeys::default());
        let max_grad_norm = default_max_grad_norm();
        Self { kind, lr, weight_decay: 0.0, max_grad_norm, groups: Vec::new() }
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        for (idx, group) in self.groups.iter().enumerate() {
            if group.lr.is_none() && group.weight_decay.is_none() {
                let section = format!("{path}.groups[{idx}]");
                diagnostics.section(
                    &section,
                    &format!("[{section}] changes nothing: it has neither `lr` nor `weight_decay`"),
                    "give it one of them, or remove it",
                );
            }
        }
        match &self.kind {
            OptimizerKind::Muon(keys) => keys.check(path, diagnostics),
            OptimizerKind::AdamW(_) | OptimizerKind::AdamW8bit(_) | OptimizerKind::Adafactor(_) => {
            }
        }
    }
}

impl OptimizerKind {
    /// Name in a recipe, which is also recorded with saved state.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AdamW(_) => ADAMW,
            Self::AdamW8bit(_) => "adamw8bit",
            Self::Muon(_) => "muon",
            Self::Adafactor(_) => "adafactor",
        }
    }
}

impl MuonKeys {
    fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        match self.adjust_lr {
            AdjustLr::MatchRmsAdamw => {}
            AdjustLr::Original | AdjustLr::SpectralUnclamped if self.adamw.lr.is_none() => {
                diagnostics.missing(
                    path,
                    "adamw.lr",
                    "with this `adjust_lr`, Muon's learning rate does not suit AdamW: \
                     `adamw = { lr = … }`",
                );
            }
            AdjustLr::Original | AdjustLr::SpectralUnclamped => {}
        }
    }
}

impl OptimizerGroup {
    /// Whether the pattern matches this checkpoint name.
    pub fn matches(&self, name: &str) -> bool {
        glob_matches(self.pattern.as_bytes(), name.as_bytes())
    }
}

/// Whether `pattern`, in which `*` is any bytes and `?` is one, is all of `text`.
///
/// On a mismatch only the last `*` is extended by one byte, so the time is at most quadratic.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(known) if *known == b'?' || known == byte => {
                p += 1;
                t += 1;
            }
            _ => match last_star {
                Some((star, taken)) => {
                    last_star = Some((star, taken + 1));
                    p = star + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

/// Default kind.
const ADAMW: &str = "adamw";

/// The keys of an optimizer, with those of its kind apart.
#[derive(Deserialize)]
struct Keys {
    lr: f64,
    #[serde(default)]
    weight_decay: f64,
    #[serde(default = "default_max_grad_norm")]
    max_grad_norm: f64,
    #[serde(default)]
    groups: Vec<OptimizerGroup>,
    #[serde(flatten)]
    kind: Map<String, Value>,
}

// By hand because serde has no default for a tag and does not refuse unknown keys next to a flattened enum.
impl<'de> Deserialize<'de> for Optimizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Keys { lr, weight_decay, max_grad_norm, groups, mut kind } =
            Keys::deserialize(deserializer)?;
        kind.entry("kind").or_insert_with(|| ADAMW.into());
        let kind = serde_json::from_value(Value::Object(kind)).map_err(D::Error::custom)?;
        Ok(Self { kind, lr, weight_decay, max_grad_norm, groups })
    }
}

/// Makes `adamw` the default of `kind` in the schema.
fn adamw_is_default(schema: &mut Schema) {
    let options = schema.get_mut("oneOf").and_then(Value::as_array_mut);
    for option in options.into_iter().flatten() {
        let kind = option.pointer_mut("/properties/kind").and_then(Value::as_object_mut);
        let Some(kind) = kind.filter(|kind| kind.get("const").is_some_and(|word| word == ADAMW))
        else {
            continue;
        };
        kind.insert("default".to_owned(), ADAMW.into());
        if let Some(required) = option.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|key| key != "kind");
        }
    }
}

impl Default for AdamwKeys {
    fn default() -> Self {
        Self { betas: default_betas(), eps: default_eps() }
    }
}

impl Default for MuonAdamw {
    fn default() -> Self {
        Self { lr: None, betas: default_betas(), eps: default_eps(), weight_decay: None }
    }
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.95]
}

fn default_eps() -> f64 {
    1e-8
}

fn default_max_grad_norm() -> f64 {
    1.0
}

fn default_momentum() -> f64 {
    0.95
}

fn default_true() -> bool {
    true
}

fn default_ns_steps() -> usize {
    5
}

fn default_clip_threshold() -> f64 {
    1.0
}

fn default_decay_rate() -> f64 {
    -0.8
}

fn default_adafactor_eps() -> [f64; 2] {
    [1e-30, 1e-3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, want) in [
            ("*.lora_B.weight", "model.layers.0.self_attn.q_proj.lora_B.weight", true),
            ("*.lora_B.weight", "model.layers.0.self_attn.q_proj.lora_A.weight", false),
            ("*.lora_B.weight", "x.lora_B.weights", false),
            ("*", "", true),
            ("", "x", false),
            ("lm_head.weight", "lm_head.weight", true),
            ("lm_head.weight", "lm_head.bias", false),
            ("model.layers.?.mlp.*", "model.layers.3.mlp.up_proj.weight", true),
            ("model.layers.?.mlp.*", "model.layers.13.mlp.up_proj.weight", false),
            ("*a*b*c", "xxaxxbxxbxxc", true),
            ("*a*b*c", "xxaxxcxxbxx", false),
            ("**", "anything", true),
            ("a*", "a", true),
            ("?", "", false),
        ] {
            let group =
                OptimizerGroup { pattern: pattern.to_owned(), lr: Some(1.0), weight_decay: None };
            assert_eq!(group.matches(name), want, "{pattern} {name}");
        }
        // No pattern takes exponential time.
        assert!(!glob_matches("*a".repeat(40).as_bytes(), "a".repeat(39).as_bytes()));
    }

    /// Serialised keys are read back as the same optimizer, and an unknown key is refused.
    #[test]
    fn every_kind_is_read_back() {
        for text in [
            r#"{"lr": 0.001}"#,
            r#"{"kind": "adamw", "lr": 1, "betas": [0.8, 0.9], "max_grad_norm": 0}"#,
            r#"{"kind": "adamw8bit", "lr": 0.001, "eps": 1e-6}"#,
            r#"{"kind": "muon", "lr": 0.02, "adjust_lr": "original", "adamw": {"lr": 0.003}}"#,
            r#"{"kind": "adafactor", "lr": 0.02, "beta1": null, "scale_parameter": true,
                "groups": [{"match": "*", "lr": 0.1}]}"#,
        ] {
            let optimizer: Optimizer = serde_json::from_str(text).unwrap();
            let value = serde_json::to_value(&optimizer).unwrap();
            assert_eq!(value["kind"], optimizer.kind.name());
            assert_eq!(serde_json::from_value::<Optimizer>(value.clone()).unwrap(), optimizer);
            let mut unknown = value;
            unknown["momenta"] = 1.into();
            let error = serde_json::from_value::<Optimizer>(unknown).unwrap_err();
            assert!(error.to_string().contains("unknown field `momenta`"), "{error}");
        }
    }
}
