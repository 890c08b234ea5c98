//! What describes a LoRA adapter, checked, with the one function that says how strongly it counts and the one that says
//! which layers of a model it stands beside.
//!
//! It deliberately knows no file format and no tensors, so that a plan can refuse what a run would.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::{AxisOrder, ModelConfig, ParamKind};

/// The result of describing an adapter.
pub type AdapterResult<T> = std::result::Result<T, AdapterError>;

/// Which layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Layers of these names: a whole name, or its last parts (`q_proj`, `self_attn.q_proj`).
    Names(Vec<String>),
    /// Layers whose whole name matches a regular expression, as PEFT's `re.fullmatch`.
    Pattern(String),
    /// Every linear layer of the backbone; heads and embeddings never.
    AllLinear,
}

/// An adapter's shape and strength.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// The width between the factors.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Share of an adapter's inputs that is dropped in training, in `0..1`.
    pub dropout: f64,
    /// Scale by α/√r in place of α/r.
    pub rslora: bool,
    /// Which layers.
    pub targets: Targets,
}

/// A layer that an adapter stands beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptedLayer {
    /// Its name without `.weight`, as in a Hugging Face file.
    pub name: String,
    /// Width of what it reads.
    pub d_in: usize,
    /// Width of what it gives.
    pub d_out: usize,
}

/// An adapter that no model could carry.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// An adapter's settings ask for something that is not supported.
    #[error("{}: not supported: `{key}` = {value}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value as JSON, cut short.
        value: String,
    },
    /// A file is not what its format asks for.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory holds no adapter.
    #[error("{}: no {file}", dir.display())]
    NotAnAdapter {
        /// The directory.
        dir: PathBuf,
        /// The absent file.
        file: &'static str,
        /// Whether weights in PyTorch's own format stand there.
        pickled: bool,
    },
    /// A setting has a value that makes no adapter.
    #[error("lora `{key}` must be {expected}: `{value}`")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A pattern of target modules is no regular expression that is understood here.
    #[error("target_modules is not a regular expression: `{pattern}`: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it, on one line.
        reason: String,
    },
    /// A target is no layer of the model.
    #[error("target_modules names no layer of the model: `{target}`")]
    NoSuchTarget {
        /// The name or pattern.
        target: String,
        /// The last parts of the names that there are.
        known: Vec<String>,
    },
    /// A target is a part of the model that no adapter can stand beside.
    #[error("target_modules names what can carry no adapter: `{module}`")]
    NotALayer {
        /// The module's name.
        module: String,
        /// The last parts of the names that can.
        known: Vec<String>,
    },
    /// A target is a matrix that the model uses twice.
    #[error("target_modules names a matrix that is embedding and head at once: `{module}`")]
    Tied {
        /// The module's name.
        module: String,
    },
}

impl AdapterError {
    /// A directory without one of an adapter's two files.
    pub fn absent(dir: &Path, file: &'static str) -> Self {
        let pickled = dir.join("adapter_model.bin").exists();
        Self::NotAnAdapter { dir: dir.to_owned(), file, pickled }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::Unsupported { .. } => {
                "merge the adapter with PEFT (merge_and_unload) and load the merged model"
                    .to_owned()
            }
            Self::Malformed { .. } => {
                "the file is damaged or of another kind; fetch or save the adapter again".to_owned()
            }
            Self::NotAnAdapter { pickled: true, .. } => {
                "files in PyTorch's own format can run code and are not read; save the adapter \
                 again with a PEFT that writes adapter_model.safetensors"
                    .to_owned()
            }
            Self::NotAnAdapter { .. } => {
                "name the directory that holds adapter_config.json and adapter_model.safetensors"
                    .to_owned()
            }
            Self::OutOfRange { key, .. } => format!("change `{key}` of the adapter"),
            Self::Pattern { .. } => {
                "the whole name of a layer must match; look-around and back-references are not understood: a list of \
                 names says the same"
                    .to_owned()
            }
            Self::NoSuchTarget { known, .. } | Self::NotALayer { known, .. } => {
                format!("layers of this model: `{}`", known.join("`, `"))
            }
            Self::Tied { .. } => {
                "an adapter would change both uses; take it out of target_modules".to_owned()
            }
        })
    }
}

/// Far above any rank in use; a size from a file that is wrong is caught before memory is asked for.
const MAX_RANK: usize = 4096;
/// Heads that no adapter stands beside, whichever of them a model has.
const HEADS: [&str; 2] = ["lm_head", "score"];

impl LoraConfig {
    /// What the product of the factors is multiplied by: α/r, or α/√r for rank-stabilised LoRA
    /// (Kalajdzievski 2023). Forward, merge and export all get it from here.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        if self.rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }

    /// Checks the ranges of all numbers, and that there are targets.
    pub fn check(&self) -> AdapterResult<()> {
        let wrong = |key: &'static str, value: String, expected: &'static str| {
            Err(AdapterError::OutOfRange { key, value, expected })
        };
        if !(1..=MAX_RANK).contains(&self.rank) {
            return wrong("rank", self.rank.to_string(), "1 to 4096");
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return wrong("alpha", self.alpha.to_string(), "a number above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("dropout", self.dropout.to_string(), "0 or more, and below 1");
        }
        if self.targets == Targets::Names(Vec::new()) {
            return wrong("target_modules", "[]".to_owned(), "at least one name");
        }
        Ok(())
    }

    /// The layers of a model that the targets mean, in module order, by PEFT's rules; a target that is no layer is an
    /// error, not a layer less.
    pub fn layers(&self, config: &ModelConfig) -> AdapterResult<Vec<AdaptedLayer>> {
        let layers = linear_layers(config);
        let matcher = match &self.targets {
            Targets::Names(names) => Matcher::Names(names),
            Targets::Pattern(pattern) => Matcher::Pattern(Box::new(full_match(pattern)?)),
            Targets::AllLinear => return Ok(layers),
        };
        refuse_others(config, &layers, &matcher)?;
        let known = known(&layers);
        let found: Vec<AdaptedLayer> =
            layers.into_iter().filter(|layer| matcher.matches(&layer.name)).collect();
        let unknown = match &self.targets {
            Targets::Names(names) => {
                names.iter().find(|target| !found.iter().any(|layer| is_tail(&layer.name, target)))
            }
            Targets::Pattern(pattern) => Some(pattern).filter(|_| found.is_empty()),
            Targets::AllLinear => None,
        };
        match unknown {
            None => Ok(found),
            Some(target) => Err(AdapterError::NoSuchTarget { target: target.clone(), known }),
        }
    }

    /// Elements of both factors of all layers.
    pub fn n_parameters(&self, layers: &[AdaptedLayer]) -> u64 {
        let widths = layers.iter().map(|layer| (layer.d_in + layer.d_out) as u64);
        widths.sum::<u64>().saturating_mul(self.rank as u64)
    }
}

/// Which names a target means.
enum Matcher<'a> {
    Names(&'a [String]),
    Pattern(Box<Regex>),
}

impl Matcher<'_> {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Names(targets) => targets.iter().any(|target| is_tail(name, target)),
            Self::Pattern(regex) => regex.is_match(name),
        }
    }
}

/// Every linear layer of the backbone.
fn linear_layers(config: &ModelConfig) -> Vec<AdaptedLayer> {
    let parameters = config.parameters().into_iter();
    let matrices = parameters.filter(|spec| spec.kind == ParamKind::Matrix);
    matrices
        .filter_map(|spec| {
            let name = spec.name.strip_suffix(".weight")?.to_owned();
            let (d_in, d_out) = match (spec.layout, spec.shape.as_slice()) {
                (AxisOrder::OutIn, [d_out, d_in]) | (AxisOrder::InOut, [d_in, d_out]) => {
                    (*d_in, *d_out)
                }
                _ => return None,
            };
            Some(AdaptedLayer { name, d_in, d_out })
        })
        .collect()
}

/// Embeddings, norms and heads: named by a target they are refused.
fn refuse_others(
    config: &ModelConfig,
    layers: &[AdaptedLayer],
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
            AdapterError::NotALayer { module: module.to_owned(), known: known(layers) }
        });
    }
    Ok(())
}

/// Whether `target` is a whole name or its last parts.
fn is_tail(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A regular expression that must match from the first character to the last.
fn full_match(pattern: &str) -> AdapterResult<Regex> {
    let wrong = |error: regex::Error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim().to_owned();
        AdapterError::Pattern { pattern: pattern.to_owned(), reason }
    };
    // On its own first: an unbalanced bracket must not pair with those that are added.
    Regex::new(pattern).map_err(wrong)?;
    Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(wrong)
}

/// The last parts of the layers' names, each once, in module order.
fn known(layers: &[AdaptedLayer]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let tails = layers.iter().filter_map(|layer| layer.name.rsplit('.').next());
    tails.filter(|tail| seen.insert(*tail)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{LoraConfig, Targets, full_match, is_tail};

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
        assert!(is_tail("model.layers.0.self_attn.q_proj", "q_proj"));
        assert!(is_tail("model.layers.0.self_attn.q_proj", "self_attn.q_proj"));
        assert!(is_tail("lm_head", "lm_head"));
        assert!(!is_tail("model.layers.0.self_attn.q_proj", "proj"));
        assert!(!is_tail("model.layers.10", "0"));
    }

    #[test]
    fn patterns_match_whole_names_only() {
        let regex = full_match(r".*layers\.1\..*(q_proj|o_proj)").expect("a pattern");
        assert!(regex.is_match("model.layers.1.self_attn.q_proj"));
        assert!(!regex.is_match("model.layers.1.self_attn.q_proj.lora_A"));
        // Alternatives are held together.
        assert!(!full_match("a|b").expect("a pattern").is_match("ab"));
        for wrong in ["(", "a)(?:b", r"(?=x)", r"(a)\1"] {
            assert!(full_match(wrong).is_err(), "{wrong}");
        }
    }
}
