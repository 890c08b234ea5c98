//! A recipe's optimizer, parameter by parameter: update rule, rates, and size of the state.
//!
//! `train` applies these rules; the memory estimate sums the sizes.

use recipe::{AdafactorKeys, AdamwKeys, MuonKeys, Optimizer, OptimizerKind};

/// Elements of a block with one scale, in the moments of 8-bit AdamW.
pub const QUANTISED_BLOCK: usize = 256;
/// Tensors with fewer elements keep f32 moments under 8-bit AdamW (bitsandbytes' `min_8bit_size`).
const MIN_QUANTISED: usize = 4096;

/// The update rule of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// AdamW with moments in f32.
    AdamW(AdamwKeys),
    /// AdamW with moments in 8 bits.
    AdamW8bit(AdamwKeys),
    /// Orthogonalized momentum, for a matrix.
    Muon(MuonKeys),
    /// Adafactor: factored second moments.
    Adafactor(AdafactorKeys),
}

/// Update of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParameterUpdate {
    /// Update rule.
    pub rule: UpdateRule,
    /// Peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay; 0 for vectors.
    pub weight_decay: f64,
}

impl ParameterUpdate {
    /// Rule and rates of the parameter with this checkpoint name and shape. The first group that matches the name
    /// overrides the rates.
    pub fn of(optimizer: &Optimizer, name: &str, shape: &[usize]) -> Self {
        let (mut lr, mut weight_decay) = (optimizer.lr, optimizer.weight_decay);
        let rule = match &optimizer.kind {
            OptimizerKind::AdamW(keys) => UpdateRule::AdamW(*keys),
            OptimizerKind::AdamW8bit(keys) if n_elements(shape) < MIN_QUANTISED => {
                UpdateRule::AdamW(*keys)
            }
            OptimizerKind::AdamW8bit(keys) => UpdateRule::AdamW8bit(*keys),
            OptimizerKind::Muon(keys) if is_block_matrix(name, shape) => UpdateRule::Muon(*keys),
            OptimizerKind::Muon(MuonKeys { adamw, .. }) => {
                lr = adamw.lr.unwrap_or(lr);
                weight_decay = adamw.weight_decay.unwrap_or(weight_decay);
                UpdateRule::AdamW(AdamwKeys { betas: adamw.betas, eps: adamw.eps })
            }
            OptimizerKind::Adafactor(keys) => UpdateRule::Adafactor(*keys),
        };
        if let Some(group) = optimizer.groups.iter().find(|group| group.matches(name)) {
            lr = group.lr.unwrap_or(lr);
            weight_decay = group.weight_decay.unwrap_or(weight_decay);
        }
        if shape.len() < 2 {
            weight_decay = 0.0;
        }
        Self { rule, lr, weight_decay }
    }

    /// Size in bytes of the state of a parameter of this shape, in memory and in a checkpoint.
    pub fn state_bytes(&self, shape: &[usize]) -> u64 {
        let n = n_elements(shape) as u64;
        match self.rule {
            UpdateRule::AdamW(_) => n.saturating_mul(8),
            UpdateRule::AdamW8bit(_) => {
                let scales = n.div_ceil(QUANTISED_BLOCK as u64).saturating_mul(4);
                n.saturating_add(scales).saturating_mul(2)
            }
            UpdateRule::Muon(_) => n.saturating_mul(4),
            UpdateRule::Adafactor(keys) => {
                let second = match shape {
                    [leading @ .., rows, columns] => {
                        n_elements(leading).saturating_mul(rows + columns) as u64
                    }
                    [_] | [] => n,
                };
                let first = if keys.beta1.is_some() { n } else { 0 };
                first.saturating_add(second).saturating_mul(4)
            }
        }
    }
}

/// Size in bytes of an optimizer's whole state, over parameters of these names and shapes.
pub fn state_bytes<'a>(
    optimizer: &Optimizer,
    parameters: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> u64 {
    let parameters = parameters.into_iter();
    let bytes = parameters
        .map(|(name, shape)| ParameterUpdate::of(optimizer, name, shape).state_bytes(shape));
    bytes.fold(0, u64::saturating_add)
}

/// Whether a stage with `ema` averages a trained parameter: all but those of PPO's value model, which no `model/` has.
pub fn is_averaged(name: &str) -> bool {
    !name.starts_with("value.")
}

/// Size in bytes of the average of trained parameters, one f32 for each averaged element.
pub(crate) fn average_bytes(trained: &[(String, Vec<usize>)]) -> u64 {
    let averaged = trained.iter().filter(|(name, _)| is_averaged(name));
    let n_elements = averaged.map(|(_, shape)| shape.iter().map(|n| *n as u64).product::<u64>());
    n_elements.fold(0, u64::saturating_add).saturating_mul(4)
}

/// Index of the first group whose pattern matches none of the names.
pub fn unmatched_group<'a>(
    optimizer: &Optimizer,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Option<usize> {
    optimizer.groups.iter().position(|group| !names.clone().any(|name| group.matches(name)))
}

/// Whether Muon updates a parameter: a matrix inside a block, which is a module with a number in its name, as in
/// `model.layers.0.mlp.up_proj.weight`. Embeddings and heads are outside.
fn is_block_matrix(name: &str, shape: &[usize]) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    shape.len() == 2 && name.split('.').any(is_number)
}

/// Number of elements of a tensor. The product saturates.
fn n_elements(shape: &[usize]) -> usize {
    shape.iter().fold(1, |n, size| n.saturating_mul(*size))
}

#[cfg(test)]
mod tests {
    use recipe::OptimizerGroup;

    use super::*;

    fn of_kind(kind: OptimizerKind) -> Optimizer {
        Optimizer { kind, weight_decay: 0.1, ..Optimizer::adamw(1e-3) }
    }

    fn muon() -> Optimizer {
        of_kind(serde_json::from_str(r#"{"kind": "muon", "adamw": {"lr": 0.5}}"#).expect("muon"))
    }

    #[test]
    fn muon_takes_the_matrices_of_the_blocks() {
        let update = |name: &str, shape: &[usize]| ParameterUpdate::of(&muon(), name, shape);
        for (name, shape, is_muon, lr, decay) in [
            ("model.layers.0.mlp.up_proj.weight", &[8, 4][..], true, 1e-3, 0.1),
            ("transformer.h.11.attn.c_attn.weight", &[4, 12], true, 1e-3, 0.1),
            ("policy.model.layers.3.self_attn.q_proj.lora_A.weight", &[2, 4], true, 1e-3, 0.1),
            ("model.embed_tokens.weight", &[9, 4], false, 0.5, 0.1),
            ("transformer.wpe.weight", &[9, 4], false, 0.5, 0.1),
            ("lm_head.weight", &[9, 4], false, 0.5, 0.1),
            ("score.weight", &[1, 4], false, 0.5, 0.1),
            ("model.layers.0.input_layernorm.weight", &[4], false, 0.5, 0.0),
            ("transformer.h.0.attn.c_attn.bias", &[12], false, 0.5, 0.0),
        ] {
            let update = update(name, shape);
            assert_eq!(matches!(update.rule, UpdateRule::Muon(_)), is_muon, "{name}");
            assert_eq!((update.lr, update.weight_decay), (lr, decay), "{name}");
        }
    }

    #[test]
    fn the_first_group_that_matches_wins() {
        let group = |pattern: &str, lr, weight_decay| OptimizerGroup {
            pattern: pattern.to_owned(),
            lr,
            weight_decay,
        };
        let groups = vec![
            group("*.lora_B.weight", Some(0.2), None),
            group("*.q_proj.*", Some(0.3), Some(0.0)),
            group("*", None, Some(0.7)),
        ];
        let optimizer = Optimizer { groups, ..of_kind(OptimizerKind::AdamW(AdamwKeys::default())) };
        for (name, shape, lr, decay) in [
            ("model.layers.0.self_attn.q_proj.lora_B.weight", &[4, 2][..], 0.2, 0.1),
            ("model.layers.0.self_attn.q_proj.lora_A.weight", &[2, 4], 0.3, 0.0),
            ("model.layers.0.self_attn.k_proj.lora_A.weight", &[2, 4], 1e-3, 0.7),
            ("model.norm.weight", &[4], 1e-3, 0.0),
        ] {
            let update = ParameterUpdate::of(&optimizer, name, shape);
            assert_eq!((update.lr, update.weight_decay), (lr, decay), "{name}");
        }
        let names = ["model.norm.weight", "model.layers.0.self_attn.q_proj.lora_A.weight"];
        assert_eq!(unmatched_group(&optimizer, names.into_iter()), Some(0));
        assert_eq!(unmatched_group(&of_kind(optimizer.kind), names.into_iter()), None);
    }

    #[test]
    fn small_tensors_keep_their_moments_in_f32() {
        let optimizer = of_kind(OptimizerKind::AdamW8bit(AdamwKeys::default()));
        let update = |shape: &[usize]| ParameterUpdate::of(&optimizer, "lm_head.weight", shape);
        assert!(matches!(update(&[4095]).rule, UpdateRule::AdamW(_)));
        assert!(matches!(update(&[64, 64]).rule, UpdateRule::AdamW8bit(_)));
        assert_eq!(update(&[64, 65]).state_bytes(&[64, 65]), 2 * (4160 + 4 * 17));
    }
}
