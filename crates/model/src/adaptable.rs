//! The interface of a model that can have adapters. The crate lora attaches them.

use arch::ModelConfig;
use burn::module::Module;
use nn::Linear;

use crate::{Backbone, CausalLm, Result, ScalarModel};

/// A model whose backbone can have adapters.
pub trait Adaptable: Module {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// The part whose layers can have adapters.
    fn backbone_mut(&mut self) -> &mut Backbone;

    /// The name of a head that a language model as base model does not have: all of it is trained, together with the
    /// adapters.
    fn own_head(&self) -> Option<&'static str>;

    /// The head of that name.
    fn own_head_mut(&mut self) -> Option<&mut Linear>;

    /// The output layer of a language model, `lm_head`, if it is not the token embedding.
    fn output_layer_mut(&mut self) -> Option<&mut Linear>;

    /// Gives a language model whose output layer is the token embedding one of its own, with the same values.
    ///
    /// Errors: the family has no such models.
    fn untie(&mut self) -> Result<()>;
}

impl Adaptable for CausalLm {
    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn backbone_mut(&mut self) -> &mut Backbone {
        &mut self.backbone
    }

    fn own_head(&self) -> Option<&'static str> {
        None
    }

    fn own_head_mut(&mut self) -> Option<&mut Linear> {
        None
    }

    fn output_layer_mut(&mut self) -> Option<&mut Linear> {
        self.lm_head.as_mut()
    }

    fn untie(&mut self) -> Result<()> {
        self.untie()
    }
}

impl Adaptable for ScalarModel {
    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn backbone_mut(&mut self) -> &mut Backbone {
        &mut self.backbone
    }

    fn own_head(&self) -> Option<&'static str> {
        Some("score")
    }

    fn own_head_mut(&mut self) -> Option<&mut Linear> {
        Some(&mut self.score)
    }

    fn output_layer_mut(&mut self) -> Option<&mut Linear> {
        None
    }

    fn untie(&mut self) -> Result<()> {
        Ok(())
    }
}
