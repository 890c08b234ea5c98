//! The output head with its loss or log-probabilities: products in the run's precision, in chunks of rows, and one kernel for
//! the rows of a chunk. The logits of all rows never exist at once.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Shape, Slice, Tensor};
use burn_cubecl::CubeBackend;
use kernels_gpu::target_rows::{self, RowGradients};

use crate::matmul::{MatmulOps, product_in, transposed};
use crate::precision::Precision;

/// Logits and their distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadSettings {
    /// Soft cap of the logits.
    pub(crate) soft_cap: Option<f32>,
    /// Divisor of the capped logits; 1 for a loss.
    pub(crate) temperature: f32,
    /// Of the products, forward and backward.
    pub(crate) precision: Precision,
    /// Rows whose logits exist at once.
    pub(crate) rows_per_chunk: usize,
}

/// The sum of the cross-entropies of hidden rows `[n, d]` with targets `[n]`, all valid, and the number of rows in which no
/// logit is larger than the target's: `[1]` each.
pub(crate) fn head_loss(
    hidden_nd: Tensor<2>,
    weight_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    settings: HeadSettings,
) -> [Tensor<1>; 2] {
    let (hidden, weight) = (hidden_nd.into_dispatch(), weight_vd.into_dispatch());
    let targets = targets_n.inner().into_dispatch();
    let (sum, n_correct) = <Dispatch as HeadOps>::head_loss(hidden, weight, targets, settings);
    let n_correct: Tensor<1> = Tensor::from_dispatch(n_correct);
    [Tensor::from_dispatch(sum), n_correct.inner()]
}

/// Log-probabilities of the targets and entropies, `[2, n]`.
pub(crate) fn head_logprobs(
    hidden_nd: Tensor<2>,
    weight_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    settings: HeadSettings,
) -> Tensor<2> {
    let (hidden, weight) = (hidden_nd.into_dispatch(), weight_vd.into_dispatch());
    let targets = targets_n.inner().into_dispatch();
    Tensor::from_dispatch(<Dispatch as HeadOps>::head_logprobs(hidden, weight, targets, settings))
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait HeadOps: MatmulOps {
    /// Losses `[m]` of logits `[m, v]`, whether the target's logit is the largest as 1 or 0 `[m]`, and the derivatives of
    /// the losses by the logits.
    #[fusion(meta = |logits: &TensorSpec, _targets: &TensorSpec, _settings: &HeadSettings| (column(logits), column(logits), logits.clone()))]
    fn row_losses(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Log-probabilities, entropies and log-sum-exp of logits `[m, v]`: `[m]` each.
    #[fusion(meta = |logits: &TensorSpec, _targets: &TensorSpec, _settings: &HeadSettings| (column(logits), column(logits), column(logits)))]
    fn row_logprobs(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of the logits, from those of log-probabilities and entropies.
    #[fusion(meta = |logits: &TensorSpec, _targets: &TensorSpec, _entropies: &TensorSpec, _lse: &TensorSpec, _d_logprobs: &TensorSpec, _d_entropies: &TensorSpec, _settings: &HeadSettings| logits.clone())]
    fn row_logprobs_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        entropies: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_logprobs: FloatTensor<Self>,
        d_entropies: FloatTensor<Self>,
        settings: HeadSettings,
    ) -> FloatTensor<Self>;

    /// The differentiable form of the loss, and the number of correct rows, which has no gradient: `[1]` each.
    #[fusion(default)]
    fn head_loss(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let found = loss_and_grads::<Self>(&hidden, &weight, &targets, [false, false], settings);
        (found.sum, found.n_correct)
    }

    /// The differentiable form of log-probabilities and entropies.
    #[fusion(default)]
    fn head_logprobs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> FloatTensor<Self> {
        let (logprobs, entropies, _) =
            logprobs_in_chunks::<Self>(&hidden, &weight, &targets, settings);
        both::<Self>(logprobs, entropies)
    }
}

/// One value for each row.
fn column(logits: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::from([logits.shape[0]]), DType::F32)
}

impl HeadOps for CubeBackend {
    fn row_losses(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        target_rows::cross_entropy(logits, targets, settings.soft_cap)
    }

    fn row_logprobs(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let HeadSettings { soft_cap, temperature, .. } = settings;
        let rows = target_rows::logprobs(logits, targets, soft_cap, temperature);
        (rows.logprobs, rows.entropies, rows.lse)
    }

    fn row_logprobs_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        entropies: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_logprobs: FloatTensor<Self>,
        d_entropies: FloatTensor<Self>,
        settings: HeadSettings,
    ) -> FloatTensor<Self> {
        let HeadSettings { soft_cap, temperature, .. } = settings;
        let of_rows = RowGradients { entropies, lse, d_logprobs, d_entropies };
        target_rows::logprobs_backward(logits, targets, of_rows, soft_cap, temperature)
    }
}

impl<B: HeadOps, C: CheckpointStrategy> HeadOps for Autodiff<B, C> {
    fn row_losses(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (losses, correct, grad) = B::row_losses(logits.into_primitive(), targets, settings);
        [losses, correct, grad].map(|x| FloatTensor::<Self>::new(x)).into()
    }

    fn row_logprobs(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (logprobs, entropies, lse) =
            B::row_logprobs(logits.into_primitive(), targets, settings);
        [logprobs, entropies, lse].map(|x| FloatTensor::<Self>::new(x)).into()
    }

    fn row_logprobs_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        entropies: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_logprobs: FloatTensor<Self>,
        d_entropies: FloatTensor<Self>,
        settings: HeadSettings,
    ) -> FloatTensor<Self> {
        let [logits, entropies, lse, d_logprobs, d_entropies] =
            [logits, entropies, lse, d_logprobs, d_entropies].map(|x| x.into_primitive());
        FloatTensor::<Self>::new(B::row_logprobs_backward(
            logits,
            targets,
            entropies,
            lse,
            d_logprobs,
            d_entropies,
            settings,
        ))
    }

    fn head_loss(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let step = LossStep.prepare::<C>([hidden.node(), weight.node()]).compute_bound().stateful();
        let tracked = [hidden.is_tracked(), weight.is_tracked()];
        let [hidden, weight] = [hidden, weight].map(|x| x.into_primitive());
        match step {
            OpsKind::Tracked(prepared) => {
                let found = loss_and_grads::<B>(&hidden, &weight, &targets, tracked, settings);
                let n_correct = FloatTensor::<Self>::new(found.n_correct);
                (prepared.finish(found.grads, found.sum), n_correct)
            }
            OpsKind::UnTracked(prepared) => {
                let (sum, n_correct) = B::head_loss(hidden, weight, targets, settings);
                (prepared.finish(sum), FloatTensor::<Self>::new(n_correct))
            }
        }
    }

    fn head_logprobs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        settings: HeadSettings,
    ) -> FloatTensor<Self> {
        let nodes = [hidden.node(), weight.node()];
        let step = LogprobsStep.prepare::<C>(nodes).compute_bound().stateful();
        let [hidden, weight] = [hidden, weight].map(|x| x.into_primitive());
        let (logprobs, entropies, lse) =
            logprobs_in_chunks::<B>(&hidden, &weight, &targets, settings);
        let out = both::<B>(logprobs, entropies.clone());
        match step {
            OpsKind::Tracked(prepared) => {
                let saved = SavedRows { hidden, weight, targets, entropies, lse, settings };
                prepared.finish(saved, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

/// Gradients of hidden rows and of the weight.
type Grads<B> = [Option<FloatTensor<B>>; 2];

/// Rows `start..end` of a tensor whose other dimensions are whole.
fn rows<B: Backend>(x: &FloatTensor<B>, start: usize, end: usize) -> FloatTensor<B> {
    B::float_slice(x.clone(), &[Slice::from(start..end)])
}

/// The ranges of the chunks of `n` rows.
fn chunks(n: usize, settings: &HeadSettings) -> impl Iterator<Item = (usize, usize)> {
    let size = settings.rows_per_chunk;
    (0..n).step_by(size).map(move |start| (start, n.min(start + size)))
}

/// Logits of the rows `start..end`, and their targets.
fn logits_of<B: MatmulOps>(
    [hidden, weight]: [&FloatTensor<B>; 2],
    targets: &IntTensor<B>,
    (start, end): (usize, usize),
    precision: Precision,
) -> (FloatTensor<B>, IntTensor<B>) {
    let weight = transposed::<B>(weight.clone());
    let logits = product_in::<B>(rows::<B>(hidden, start, end), weight, precision);
    (logits, B::int_slice(targets.clone(), &[Slice::from(start..end)]))
}

/// One tensor of the parts along the first dimension.
fn joined<B: Backend>(mut parts: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    if parts.len() == 1 { parts.swap_remove(0) } else { B::float_cat(parts, 0) }
}

/// `[n]` and `[n]` → `[2, n]`.
fn both<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    let n = a.shape()[0];
    B::float_cat([a, b].map(|x| B::float_reshape(x, Shape::from([1, n]))).into(), 0)
}

/// Log-probabilities, entropies and log-sum-exp of all rows.
fn logprobs_in_chunks<B: HeadOps>(
    hidden: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    targets: &IntTensor<B>,
    settings: HeadSettings,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (mut logprobs, mut entropies, mut lse) = (Vec::new(), Vec::new(), Vec::new());
    for range in chunks(hidden.shape()[0], &settings) {
        let (logits, targets) =
            logits_of::<B>([hidden, weight], targets, range, settings.precision);
        let (of_chunk, entropies_of_chunk, lse_of_chunk) =
            B::row_logprobs(logits, targets, settings);
        logprobs.push(of_chunk);
        entropies.push(entropies_of_chunk);
        lse.push(lse_of_chunk);
    }
    (joined::<B>(logprobs), joined::<B>(entropies), joined::<B>(lse))
}

/// Adds the gradients that logits `[m, v]` of the hidden rows `start..end` pass on.
struct GradSums<B: Backend> {
    hidden: Vec<FloatTensor<B>>,
    weight: Option<FloatTensor<B>>,
}

impl<B: MatmulOps> GradSums<B> {
    fn add(
        &mut self,
        [hidden, weight]: [&FloatTensor<B>; 2],
        (start, end): (usize, usize),
        d_logits: FloatTensor<B>,
        tracked: [bool; 2],
        precision: Precision,
    ) {
        if tracked[0] {
            self.hidden.push(product_in::<B>(d_logits.clone(), weight.clone(), precision));
        }
        if tracked[1] {
            let hidden = rows::<B>(hidden, start, end);
            let part = product_in::<B>(transposed::<B>(d_logits), hidden, precision);
            self.weight = Some(match self.weight.take() {
                Some(sum) => B::float_add(sum, part),
                None => part,
            });
        }
    }

    fn finish(self) -> Grads<B> {
        let hidden = (!self.hidden.is_empty()).then(|| joined::<B>(self.hidden));
        [hidden, self.weight]
    }
}

/// What [`loss_and_grads`] finds in one pass over the logits.
struct Found<B: Backend> {
    /// The summed loss, `[1]`.
    sum: FloatTensor<B>,
    /// Number of rows whose target has the largest logit, `[1]`.
    n_correct: FloatTensor<B>,
    /// Of the tracked operands.
    grads: Grads<B>,
}

/// The loss and its gradients, so that no logits are needed in the backward pass.
fn loss_and_grads<B: HeadOps>(
    hidden: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    targets: &IntTensor<B>,
    tracked: [bool; 2],
    settings: HeadSettings,
) -> Found<B> {
    let (mut losses, mut correct) = (Vec::new(), Vec::new());
    let mut sums = GradSums::<B> { hidden: Vec::new(), weight: None };
    for range in chunks(hidden.shape()[0], &settings) {
        let operands = [hidden, weight];
        let (logits, targets) = logits_of::<B>(operands, targets, range, settings.precision);
        let (of_chunk, correct_of_chunk, d_logits) = B::row_losses(logits, targets, settings);
        losses.push(of_chunk);
        correct.push(correct_of_chunk);
        sums.add(operands, range, d_logits, tracked, settings.precision);
    }
    let [sum, n_correct] = [losses, correct].map(|parts| B::float_sum(joined::<B>(parts)));
    Found { sum, n_correct, grads: sums.finish() }
}

#[derive(Debug)]
struct LossStep;

impl<B: HeadOps> Backward<B, 2> for LossStep {
    type State = Grads<B>;

    fn backward(self, ops: Ops<Grads<B>, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let upstream = gradients.consume::<B>(&ops.node);
        let upstream = B::float_reshape(upstream, Shape::from([1, 1]));
        for (node, grad) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(grad)) = (node, grad) {
                gradients.register::<B>(node.id, B::float_mul(grad, upstream.clone()));
            }
        }
    }
}

/// State of the backward pass of log-probabilities, which computes the logits again.
#[derive(Clone, Debug)]
struct SavedRows<B: Backend> {
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    entropies: FloatTensor<B>,
    lse: FloatTensor<B>,
    settings: HeadSettings,
}

#[derive(Debug)]
struct LogprobsStep;

impl<B: HeadOps> Backward<B, 2> for LogprobsStep {
    type State = SavedRows<B>;

    fn backward(self, ops: Ops<SavedRows<B>, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_out = gradients.consume::<B>(&ops.node);
        let SavedRows { hidden, weight, targets, entropies, lse, settings } = ops.state;
        let n = hidden.shape()[0];
        let part = |row: usize, (start, end): (usize, usize)| {
            let slices = [Slice::from(row..row + 1), Slice::from(start..end)];
            let part = B::float_slice(d_out.clone(), &slices);
            B::float_reshape(part, Shape::from([end - start]))
        };
        let tracked = [ops.parents[0].is_some(), ops.parents[1].is_some()];
        let mut sums = GradSums::<B> { hidden: Vec::new(), weight: None };
        for range in chunks(n, &settings) {
            let operands = [&hidden, &weight];
            let (logits, targets) = logits_of::<B>(operands, &targets, range, settings.precision);
            let d_logits = B::row_logprobs_backward(
                logits,
                targets,
                rows::<B>(&entropies, range.0, range.1),
                rows::<B>(&lse, range.0, range.1),
                part(0, range),
                part(1, range),
                settings,
            );
            sums.add(operands, range, d_logits, tracked, settings.precision);
        }
        for (node, grad) in ops.parents.into_iter().zip(sums.finish()) {
            if let (Some(node), Some(grad)) = (node, grad) {
                gradients.register::<B>(node.id, grad);
            }
        }
    }
}
