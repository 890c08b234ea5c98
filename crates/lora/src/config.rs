//! What describes an adapter, checked, with the one function that says how strongly it counts.
//!
//! It deliberately knows no file format and no model.

use crate::{Error, Result};

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

/// Far above any rank in use; a size from a file that is wrong is caught before memory is asked for.
const MAX_RANK: usize = 4096;

impl LoraConfig {
    /// What the product of the factors is multiplied by: α/r, or α/√r for rank-stabilised LoRA
    /// (Kalajdzievski 2023). Forward, merge and export all get it from here.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        if self.rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }

    /// Checks the ranges of all numbers, and that there are targets.
    pub fn check(&self) -> Result<()> {
        let wrong = |key: &'static str, value: String, expected: &'static str| {
            Err(Error::OutOfRange { key, value, expected })
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
}

#[cfg(test)]
mod tests {
    use super::{LoraConfig, Targets};

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
}
