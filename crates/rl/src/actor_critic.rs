//! The two trained models of actor–critic methods.

use burn::module::Module;
use model::{CausalLm, ScalarModel};

/// The trained models, under one optimizer: parameter names start with `policy.` and `value.`.
#[derive(Module, Debug)]
pub struct ActorCritic {
    /// Policy model.
    pub policy: CausalLm,
    /// Value model.
    pub value: ScalarModel,
}
