//! The modules that an adapter targets, as a configuration names them.

/// The layers that an adapter targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Layers with these names: a full name or its last parts (`q_proj`, `self_attn.q_proj`).
    Names(Vec<String>),
    /// Layers whose full name matches a regular expression, as with PEFT's `re.fullmatch`.
    Pattern(String),
    /// All linear layers of the backbone, without heads and embeddings.
    AllLinear,
    /// Those that PEFT takes for the family where a file names none.
    FamilyDefault,
}
