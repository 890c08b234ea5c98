//! Configuration of a LoRA adapter: PEFT's settings with their ranges. `adapter_layout.rs` applies them to a model. File
//! formats and tensors are elsewhere, so that `plan` can check an adapter without weights.

use crate::adapter_error::{AdapterError, AdapterResult};
use crate::adapter_match::{full_match, has_operators};
use crate::adapter_targets::Targets;
use crate::family::ModelConfig;

/// Starting values of the factors, and of the base weight beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoraInit {
    /// A random A and a zero B: the adapter starts as no change.
    #[default]
    Default,
    /// The largest singular values and vectors of the weight, which are taken out of the base weight (Meng et al. 2024,
    /// "PiSSA").
    Pissa,
    /// The first columns of the weight's QR decomposition, which are taken out of the base weight (Büyükakyüz 2024,
    /// "OLoRA").
    Olora,
}

/// The biases of the base model that are trained together with the factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BiasTraining {
    /// No bias.
    #[default]
    None,
    /// Every bias of the model, norms included.
    All,
    /// The biases of layers that have an adapter.
    LoraOnly,
}

/// Rows of an embedding or output layer that are trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainableTokens {
    /// The module's full name or its last parts; `None` for the token embedding.
    pub module: Option<String>,
    /// Token ids, in the order of the stored rows.
    pub ids: Vec<u32>,
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
    /// Whether each layer's output has a trained magnitude (Liu et al. 2024, "DoRA").
    pub use_dora: bool,
    /// Whether B has a bias.
    pub lora_bias: bool,
    /// Starting values of the factors.
    pub init: LoraInit,
    /// The biases of the base model that are trained.
    pub bias: BiasTraining,
    /// Ranks by a regular expression on the last parts of names; the first that matches wins.
    pub rank_pattern: Vec<(String, usize)>,
    /// Values of α by a regular expression on the last parts of names; the first that matches wins.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Blocks in which names are targets; `None` for all.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Names of the lists of blocks that `layers_to_transform` counts; empty for any list.
    pub layers_pattern: Vec<String>,
    /// Modules that are no targets; [`Targets::AllLinear`] is not used here.
    pub exclude_modules: Option<Targets>,
    /// Modules that are trained as a whole, by the end of their names.
    pub modules_to_save: Vec<String>,
    /// Rows of the embedding or of the output layer that are trained.
    pub trainable_tokens: Vec<TrainableTokens>,
}

/// Maximum number of patterns in an adapter's settings: adapters of models with many experts name each of their layers.
const MAX_PATTERNS: usize = 8192;
/// Maximum number of patterns with operators. Each is compiled, which takes a millisecond or more.
const MAX_COMPILED_PATTERNS: usize = 256;
/// Far above any rank in use: a wrong size in a file is refused before memory is allocated.
const MAX_RANK: usize = 4096;

impl Default for LoraConfig {
    /// Rank 16 and scale 2 on all linear layers.
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::AllLinear,
            use_dora: false,
            lora_bias: false,
            init: LoraInit::Default,
            bias: BiasTraining::None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            exclude_modules: None,
            modules_to_save: Vec::new(),
            trainable_tokens: Vec::new(),
        }
    }
}

impl LoraConfig {
    /// The factor of the product BA where no pattern changes it; see `scale_of`.
    pub fn scale(&self) -> f64 {
        self.scale_of(self.rank, self.alpha)
    }

    /// The factor of the product BA: α/r (Hu et al. 2021), or α/√r for rank-stabilised LoRA (Kalajdzievski 2023). Used by
    /// forward passes, merging and export.
    pub(crate) fn scale_of(&self, rank: usize, alpha: f64) -> f64 {
        let rank = rank as f64;
        if self.rslora { alpha / rank.sqrt() } else { alpha / rank }
    }

    /// Checks the ranges of all numbers, that there is a target, and that the settings go together.
    pub fn check(&self) -> AdapterResult<()> {
        let ranks = self.rank_pattern.iter().map(|(_, rank)| ("rank_pattern", *rank));
        for (key, rank) in [("rank", self.rank)].into_iter().chain(ranks) {
            if !(1..=MAX_RANK).contains(&rank) {
                return out_of_range(key, rank.to_string(), "1 to 4096");
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(_, alpha)| ("alpha_pattern", *alpha));
        for (key, alpha) in [("alpha", self.alpha)].into_iter().chain(alphas) {
            if !(alpha.is_finite() && alpha > 0.0) {
                return out_of_range(key, alpha.to_string(), "a number above 0");
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return out_of_range("dropout", self.dropout.to_string(), "0 or more, and below 1");
        }
        if self.targets == Targets::Names(Vec::new()) {
            return out_of_range("target_modules", "[]".to_owned(), "at least one name");
        }
        let n_patterns =
            self.rank_pattern.len() + self.alpha_pattern.len() + self.layers_pattern.len();
        if n_patterns > MAX_PATTERNS {
            let allowed = "8192 patterns or fewer";
            return out_of_range("rank_pattern and alpha_pattern", n_patterns.to_string(), allowed);
        }
        let patterns = self.rank_pattern.iter().map(|(pattern, _)| ("rank_pattern", pattern));
        let patterns = patterns
            .chain(self.alpha_pattern.iter().map(|(pattern, _)| ("alpha_pattern", pattern)))
            .chain(self.layers_pattern.iter().map(|pattern| ("layers_pattern", pattern)));
        let compiled: Vec<_> = patterns.filter(|(_, pattern)| has_operators(pattern)).collect();
        if compiled.len() > MAX_COMPILED_PATTERNS {
            let expected = "256 patterns with operators, or fewer";
            let key = "rank_pattern and alpha_pattern";
            return out_of_range(key, compiled.len().to_string(), expected);
        }
        for (key, pattern) in compiled {
            full_match(key, pattern)?;
        }
        self.check_tokens()?;
        self.check_together()
    }

    fn check_tokens(&self) -> AdapterResult<()> {
        const KEY: &str = "trainable_token_indices";
        for TrainableTokens { ids, .. } in &self.trainable_tokens {
            let mut sorted = ids.clone();
            sorted.sort_unstable();
            let twice = sorted.windows(2).find(|pair| pair.first() == pair.last());
            if let Some(id) = twice.and_then(|pair| pair.first()) {
                return out_of_range(KEY, id.to_string(), "ids that are listed once");
            }
            if ids.is_empty() {
                return out_of_range(KEY, "[]".to_owned(), "at least one id");
            }
        }
        Ok(())
    }

    /// Refuses settings that PEFT refuses together, too.
    fn check_together(&self) -> AdapterResult<()> {
        let changes_base = self.init != LoraInit::Default;
        let conflicts = [
            (self.use_dora && self.lora_bias, "lora_bias", "use_dora"),
            (changes_base && self.lora_bias, "lora_bias", "init"),
            (
                self.layers_to_transform.is_some() && matches!(self.targets, Targets::Pattern(_)),
                "layers_to_transform",
                "a pattern of target modules",
            ),
            (
                self.layers_to_transform.is_none() && !self.layers_pattern.is_empty(),
                "layers_pattern",
                "all layers: it needs `layers_to_transform`",
            ),
        ];
        match conflicts.into_iter().find(|(conflict, _, _)| *conflict) {
            Some((_, key, other)) => Err(AdapterError::Conflict { key, other }),
            None => Ok(()),
        }
    }

    /// The configuration with the targets that PEFT takes for the model's family.
    ///
    /// Errors: PEFT has none for it.
    pub(crate) fn with_family_targets(&self, config: &ModelConfig) -> AdapterResult<Self> {
        let family = config.family();
        let names = family.entry().lora_targets;
        if names.is_empty() {
            return Err(AdapterError::NoDefaultTargets { family: family.name() });
        }
        let targets = Targets::Names(names.iter().map(|name| (*name).to_owned()).collect());
        Ok(Self { targets, ..self.clone() })
    }
}

fn out_of_range<T>(key: &'static str, value: String, expected: &'static str) -> AdapterResult<T> {
    Err(AdapterError::OutOfRange { key, value, expected })
}

#[cfg(test)]
mod tests {
    use super::{LoraConfig, LoraInit, MAX_COMPILED_PATTERNS, MAX_PATTERNS, TrainableTokens};
    use crate::adapter_targets::Targets;

    #[test]
    fn one_scale_for_both_kinds() {
        let config = LoraConfig { rank: 4, alpha: 16.0, ..LoraConfig::default() };
        assert_eq!(config.scale(), 4.0);
        assert_eq!(LoraConfig { rslora: true, ..config.clone() }.scale(), 8.0);
        assert!(config.check().is_ok());
        let tokens = |ids: &[u32]| vec![TrainableTokens { module: None, ids: ids.to_vec() }];
        for wrong in [
            LoraConfig { rank: 0, ..config.clone() },
            LoraConfig { rank: 5000, ..config.clone() },
            LoraConfig {
                rank_pattern: (0..=MAX_PATTERNS).map(|idx| (format!("q{idx}"), 4)).collect(),
                ..config.clone()
            },
            LoraConfig {
                rank_pattern: (0..=MAX_COMPILED_PATTERNS).map(|n| (format!("q{n}|k"), 4)).collect(),
                ..config.clone()
            },
            LoraConfig { rank_pattern: vec![("q_proj".to_owned(), 0)], ..config.clone() },
            LoraConfig { rank_pattern: vec![("(".to_owned(), 2)], ..config.clone() },
            LoraConfig { alpha: f64::NAN, ..config.clone() },
            LoraConfig { alpha: 0.0, ..config.clone() },
            LoraConfig { alpha_pattern: vec![("q_proj".to_owned(), -1.0)], ..config.clone() },
            LoraConfig { dropout: 1.0, ..config.clone() },
            LoraConfig { dropout: f64::NAN, ..config.clone() },
            LoraConfig { targets: Targets::Names(Vec::new()), ..config.clone() },
            LoraConfig { trainable_tokens: tokens(&[]), ..config.clone() },
            LoraConfig { trainable_tokens: tokens(&[3, 1, 3]), ..config.clone() },
            LoraConfig { use_dora: true, lora_bias: true, ..config.clone() },
            LoraConfig { init: LoraInit::Pissa, lora_bias: true, ..config.clone() },
            LoraConfig { layers_pattern: vec!["h".to_owned()], ..config.clone() },
            LoraConfig {
                targets: Targets::Pattern(".*q_proj".to_owned()),
                layers_to_transform: Some(vec![0]),
                ..config.clone()
            },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
