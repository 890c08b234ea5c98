//! Output of a backbone.

use burn::tensor::Tensor;
use nn::Routing;

use crate::{Auxiliary, ExpertLoad};

/// Hidden states, and a loss of the backbone's own if its family has one.
#[derive(Clone, Debug)]
pub struct Output {
    /// Hidden states after the final norm, `[b, t, d]`.
    pub hidden_btd: Tensor<3>,
    /// A mean over the batch, already multiplied by its coefficient: the load-balancing loss of a mixture of experts
    /// (Fedus et al. 2021, equation 4). Training adds it with `loss::LossSum::with_aux_loss`.
    pub aux_loss: Option<Tensor<1>>,
    /// Routing of the tokens in each sparse block; empty in dense models.
    pub routing: Vec<Routing>,
}

impl Output {
    /// Hidden states without a loss.
    pub fn of_hidden(hidden_btd: Tensor<3>) -> Self {
        Self { hidden_btd, aux_loss: None, routing: Vec::new() }
    }

    /// The model's own loss and the load of its experts.
    pub fn auxiliary(&self) -> Auxiliary {
        Auxiliary { loss: self.aux_loss.clone(), expert_load: ExpertLoad::of(&self.routing) }
    }

    /// The hidden states of all positions, row after row: `[b · t, d]`.
    pub fn hidden_nd(&self) -> Tensor<2> {
        self.hidden_btd.clone().flatten(0, 1)
    }
}
