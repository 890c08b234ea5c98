//! The interface of a model that can have adapters. The crate lora attaches them.

use arch::ModelConfig;
use burn::module::Module;
use nn::Linear;

use crate::{Backbone, CausalLm, ScalarModel};

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
}
