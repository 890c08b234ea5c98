//! A mixture of experts in the place of an MLP: a router, the experts, and perhaps one that every token is sent to.
//!
//! Shape legend as in the crate, and e experts.

use arch::{Activation, DecoderConfig, ExpertNaming, ExpertsConfig};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData, activation};
use kernels::LinearInput;
use nn::{Linear, NamedProjection, Routing, pin_dropout, prefixed};

use super::block::BlockContext;
use super::mlp::{Mlp, MlpNames};
use crate::Result;
use crate::build::Builder;

/// Experts of which each token is sent to a few.
#[derive(Module, Debug)]
pub(super) struct Experts {
    gate: Linear,
    experts: Vec<Mlp>,
    shared_expert: Option<Mlp>,
    shared_expert_gate: Option<Linear>,
    #[module(skip)]
    config: ExpertsConfig,
    #[module(skip)]
    hidden_act: Activation,
}

impl Experts {
    pub(super) fn build(
        model: &DecoderConfig,
        config: &ExpertsConfig,
        from: &mut Builder,
    ) -> Result<Self> {
        let d = model.hidden_size;
        let names = match config.naming {
            ExpertNaming::Mlp => MlpNames::Separate,
            ExpertNaming::BlockSparse => MlpNames::Numbered,
        };
        let gate = from.linear("gate", d, config.num_experts, false)?;
        let experts = (0..config.num_experts)
            .map(|number| {
                let from = &mut from.inside(&format!("experts.{number}"));
                Mlp::build(names, d, config.moe_intermediate_size, false, from)
            })
            .collect::<Result<_>>()?;
        let (shared_expert, shared_expert_gate) = match config.shared_expert_intermediate_size {
            None => (None, None),
            Some(inner) => {
                let bias = model.mlp_bias;
                let mlp = Mlp::build(names, d, inner, bias, &mut from.inside("shared_expert"))?;
                (Some(mlp), Some(from.linear("shared_expert_gate", d, 1, false)?))
            }
        };
        let (config, hidden_act) = (*config, model.hidden_act);
        Ok(Self { gate, experts, shared_expert, shared_expert_gate, config, hidden_act })
    }

    /// The weighted outputs of each token's experts, and how tokens were routed.
    pub(super) fn forward(&self, x_btd: Tensor<3>, context: &BlockContext) -> (Tensor<3>, Routing) {
        let [b, t, d] = x_btd.dims();
        let x_nd = x_btd.clone().reshape([b * t, d]);
        let ExpertsConfig { num_experts_per_tok, norm_topk_prob, .. } = self.config;
        let logits_ne = self.gate.forward(x_nd.clone());
        let routing =
            Routing::new(logits_ne, num_experts_per_tok, norm_topk_prob, &context.is_real);
        let out_nd =
            routing.combine(&x_nd, |number, x_1md| self.expert(number, x_1md, context.recomputes));
        let out_btd = out_nd.reshape([b, t, d]);
        let out_btd = match (&self.shared_expert, &self.shared_expert_gate) {
            (Some(mlp), Some(gate)) => {
                let factor_bt1 = activation::sigmoid(gate.forward(x_btd.clone()));
                let shared_btd = mlp.forward(LinearInput::Plain(x_btd), self.hidden_act, None);
                out_btd + shared_btd * factor_bt1
            }
            _ => out_btd,
        };
        (out_btd, routing)
    }

    fn expert(&self, number: usize, x_1md: Tensor<3>, recomputes: bool) -> Tensor<3> {
        let (mlp, hidden_act) = (&self.experts[number], self.hidden_act);
        if !recomputes {
            return mlp.forward(LinearInput::Plain(x_1md), hidden_act, None);
        }
        let mut mlp = mlp.clone();
        pin_dropout(mlp.projections_mut().into_iter().map(|(_, layer)| layer));
        kernels::recompute(mlp, x_1md, move |mlp, x_1md| {
            mlp.forward(LinearInput::Plain(x_1md), hidden_act, None)
        })
    }

    /// The layers under their names in this module.
    pub(super) fn projections_mut(&mut self) -> Vec<NamedProjection<'_>> {
        let mut layers: Vec<NamedProjection<'_>> = vec![("gate".to_owned(), &mut self.gate)];
        for (number, expert) in self.experts.iter_mut().enumerate() {
            layers.extend(prefixed(&format!("experts.{number}"), expert.projections_mut()));
        }
        if let Some(mlp) = &mut self.shared_expert {
            layers.extend(prefixed("shared_expert", mlp.projections_mut()));
        }
        if let Some(gate) = &mut self.shared_expert_gate {
            layers.push(("shared_expert_gate".to_owned(), gate));
        }
        layers
    }
}

/// The load-balancing loss of all sparse blocks together (Fedus et al. 2021, equation 4): the number of experts times the
/// sum over experts of the share of tokens sent to one and its mean probability, over the tokens of all blocks in one pile,
/// padding left out. Shares sum to the number of a token's experts. `None` without tokens or with a factor of 0.
pub(super) fn aux_loss(
    routings: &[Routing],
    is_real: &[bool],
    config: &ExpertsConfig,
) -> Option<Tensor<1>> {
    let n_tokens = routings.iter().map(|routing| routing.n_real).sum::<usize>() as f64;
    if n_tokens == 0.0 || config.router_aux_loss_coef == 0.0 {
        return None;
    }
    let e = config.num_experts;
    let share = |expert: usize| {
        let tokens = |routing: &Routing| routing.tokens_of_expert[expert].len();
        (routings.iter().map(tokens).sum::<usize>() as f64 / n_tokens) as f32
    };
    let shares: Vec<f32> = (0..e).map(share).collect();
    let sums = routings.iter().map(|routing| routing.sum_of_probs(is_real));
    let probs_e = sums.reduce(|sum, probs_e| sum + probs_e)?;
    let device = probs_e.device().inner();
    let shares_e = Tensor::<1>::from_data(TensorData::new(shares, [e]), &device);
    let factor = e as f64 * config.router_aux_loss_coef / n_tokens;
    Some((probs_e * shares_e).sum().mul_scalar(factor))
}
