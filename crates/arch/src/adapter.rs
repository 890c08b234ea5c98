//! Configuration of a LoRA adapter: its scale, and the layers of a model that it targets. File formats and tensors are
//! elsewhere, so that `plan` can check an adapter without weights.

use std::collections::BTreeSet;

use regex::Regex;

use crate::adapter_error::{AdapterError, AdapterResult};
use crate::family::ModelConfig;
use crate::params::{LinearLayer, ParamKind};

/// The layers that an adapter targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Layers with these names: a full name or its last parts (`q_proj`, `self_attn.q_proj`).
    Names(Vec<String>),
    /// Layers whose full name matches a regular expression, as with PEFT's `re.fullmatch`.
    Pattern(String),
    /// All linear layers of the backbone, without heads and embeddings.
    AllLinear,
}

/// Configuration of a LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank r: the width between the two factors.
    pub rank: usize,
    /// Numerator α of the scale.
    pub alpha: f64,
    /// Dropout rate of the adapter's input in training, in `0..1`.
    pub dropout: f64,
    /// Whether the scale is α/√r instead of α/r (rank-stabilised LoRA).
    pub rslora: bool,
    /// The layers that get an adapter.
    pub targets: Targets,
}

/// Far above any rank in use: a wrong size in a file is refused before memory is allocated.
const MAX_RANK: usize = 4096;
/// Heads, which adapters cannot target.
const HEADS: [&str; 2] = ["lm_head", "score"];

impl LoraConfig {
    /// The factor of the product BA: α/r (Hu et al. 2021), or α/√r for rank-stabilised LoRA (Kalajdzievski 2023). Used by
    /// forward passes, merging and export.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        if self.rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }

    /// Checks the ranges of all numbers and that there is a target.
    pub fn check(&self) -> AdapterResult<()> {
        let out_of_range = |key: &'static str, value: String, expected: &'static str| {
            Err(AdapterError::OutOfRange { key, value, expected })
        };
        if !(1..=MAX_RANK).contains(&self.rank) {
            return out_of_range("rank", self.rank.to_string(), "1 to 4096");
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return out_of_range("alpha", self.alpha.to_string(), "a number above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return out_of_range("dropout", self.dropout.to_string(), "0 or more, and below 1");
        }
        if self.targets == Targets::Names(Vec::new()) {
            return out_of_range("target_modules", "[]".to_owned(), "at least one name");
        }
        Ok(())
    }

    /// The targeted layers of a model in module order, by PEFT's rules. A target that matches no layer is an error.
    pub fn layers(&self, config: &ModelConfig) -> AdapterResult<Vec<LinearLayer>> {
        let layers = config.adaptable_layers();
        let matcher = match &self.targets {
            Targets::Names(names) => Matcher::Names(names),
            Targets::Pattern(pattern) => Matcher::Pattern(Box::new(full_match(pattern)?)),
            Targets::AllLinear => return Ok(layers),
        };
        refuse_other_modules(config, &layers, &matcher)?;
        let known = last_parts(&layers);
        let found: Vec<LinearLayer> =
            layers.into_iter().filter(|layer| matcher.matches(&layer.name)).collect();
        let unknown = match &self.targets {
            Targets::Names(names) => names
                .iter()
                .find(|target| !found.iter().any(|layer| is_name_suffix(&layer.name, target))),
            Targets::Pattern(pattern) => Some(pattern).filter(|_| found.is_empty()),
            Targets::AllLinear => None,
        };
        match unknown {
            None => Ok(found),
            Some(target) => Err(AdapterError::NoSuchTarget { target: target.clone(), known }),
        }
    }

    /// Number of elements of both factors, over all layers.
    pub fn n_parameters(&self, layers: &[LinearLayer]) -> u64 {
        let widths = layers.iter().map(|layer| (layer.d_in + layer.d_out) as u64);
        widths.sum::<u64>().saturating_mul(self.rank as u64)
    }
}

/// Matches module names against the targets.
enum Matcher<'a> {
    Names(&'a [String]),
    Pattern(Box<Regex>),
}

impl Matcher<'_> {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Names(targets) => targets.iter().any(|target| is_name_suffix(name, target)),
            Self::Pattern(regex) => regex.is_match(name),
        }
    }
}

/// Refuses targets that are embeddings, norms or heads.
fn refuse_other_modules(
    config: &ModelConfig,
    layers: &[LinearLayer],
    matcher: &Matcher<'_>,
) -> AdapterResult<()> {
    let layer_names: BTreeSet<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let parameters = config.parameters();
    let modules =
        parameters.iter().filter_map(|spec| Some((spec.name.rsplit_once('.')?.0, spec.kind)));
    let heads = HEADS.into_iter().map(|head| (head, ParamKind::Head));
    for (module, kind) in modules.chain(heads) {
        if layer_names.contains(module) || !matcher.matches(module) {
            continue;
        }
        let is_first = parameters.first().is_some_and(|spec| spec.name.starts_with(module));
        let shared = is_first && kind == ParamKind::Embedding || module == "lm_head";
        return Err(if config.tied() && shared {
            AdapterError::Tied { module: module.to_owned() }
        } else {
            AdapterError::NotALayer { module: module.to_owned(), known: last_parts(layers) }
        });
    }
    Ok(())
}

/// Whether `target` is the full name or its last parts.
fn is_name_suffix(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A regular expression that must match the full text.
fn full_match(pattern: &str) -> AdapterResult<Regex> {
    let wrong = |error: regex::Error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim().to_owned();
        AdapterError::Pattern { pattern: pattern.to_owned(), reason }
    };
    // Compiled alone first, so that an unbalanced bracket does not pair with the added ones.
    Regex::new(pattern).map_err(wrong)?;
    Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(wrong)
}

/// The last parts of the layers' names in module order, without duplicates.
fn last_parts(layers: &[LinearLayer]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = layers.iter().filter_map(|layer| layer.name.rsplit('.').next());
    names.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{LoraConfig, Targets, full_match, is_name_suffix};

    #[test]
    fn one_scale_for_both_kinds() {
        let config = LoraConfig {
            rank: 4,
            alpha: 16.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::AllLinear,
        };
        assert_eq!(config.scale(), 4.0);
        assert_eq!(LoraConfig { rslora: true, ..config.clone() }.scale(), 8.0);
        assert!(config.check().is_ok());
        for wrong in [
            LoraConfig { rank: 0, ..config.clone() },
            LoraConfig { rank: 5000, ..config.clone() },
            LoraConfig { alpha: f64::NAN, ..config.clone() },
            LoraConfig { alpha: 0.0, ..config.clone() },
            LoraConfig { dropout: 1.0, ..config.clone() },
            LoraConfig { dropout: f64::NAN, ..config.clone() },
            LoraConfig { targets: Targets::Names(Vec::new()), ..config.clone() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_match_whole_parts_only() {
        assert!(is_name_suffix("model.layers.0.self_attn.q_proj", "q_proj"));
        assert!(is_name_suffix("model.layers.0.self_attn.q_proj", "self_attn.q_proj"));
        assert!(is_name_suffix("lm_head", "lm_head"));
        assert!(!is_name_suffix("model.layers.0.self_attn.q_proj", "proj"));
        assert!(!is_name_suffix("model.layers.10", "0"));
    }

    #[test]
    fn patterns_match_whole_names_only() {
        let regex = full_match(r".*layers\.1\..*(q_proj|o_proj)").expect("a pattern");
        assert!(regex.is_match("model.layers.1.self_attn.q_proj"));
        assert!(!regex.is_match("model.layers.1.self_attn.q_proj.lora_A"));
        // The alternatives are grouped.
        assert!(!full_match("a|b").expect("a pattern").is_match("ab"));
        for wrong in ["(", "a)(?:b", r"(?=x)", r"(a)\1"] {
            assert!(full_match(wrong).is_err(), "{wrong}");
        }
    }
}
