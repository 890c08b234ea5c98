//! The interface of a family, and the loop over its blocks.

use burn::module::Module;
use burn::tensor::Tensor;
use nn::{Embedding, Input, KvCache, LayerCache, NamedProjection, pin_dropout, prefixed};

use crate::Output;

/// A family's backbone.
pub(crate) trait Decoder {
    /// Runs the model. `observe` receives the embeddings and each block's output but the last; with a cache, earlier
    /// tokens are read from it and the input's are added to it.
    fn run(
        &self,
        input: &Input,
        cache: Option<&mut KvCache>,
        observe: &mut dyn FnMut(&Tensor<3>),
    ) -> Output;

    /// See [`crate::Backbone::recompute_blocks`].
    fn recompute_blocks(&mut self, on: bool);

    /// The token embedding.
    fn embedding(&self) -> &Embedding;

    /// The token embedding with its name after the family's prefix.
    fn embedding_mut(&mut self) -> (&'static str, &mut Embedding);

    /// Every linear layer with its name after the family's prefix, in module order.
    fn projections_mut(&mut self) -> Vec<NamedProjection<'_>>;
}

/// A block of a decoder: hidden states to hidden states.
pub(crate) trait Block: Module + 'static {
    /// Inputs that blocks share: the mask, rotary angles.
    type Context: Clone + Send + 'static;

    /// `[b, t, d]` → `[b, t, d]`.
    fn forward(
        &self,
        x_btd: Tensor<3>,
        context: &Self::Context,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3>;

    /// The block's linear layers with their names in the block, in module order.
    fn projections_mut(&mut self) -> Vec<NamedProjection<'_>>;
}

/// Applies blocks one after the other, each with its own context.
///
/// If `recomputes`, a graph keeps each block's input only and its inside is computed again in the backward pass.
pub(crate) fn run_blocks<B: Block>(
    blocks: &[B],
    mut x_btd: Tensor<3>,
    contexts: &[B::Context],
    mut cache: Option<&mut KvCache>,
    recomputes: bool,
    observe: &mut dyn FnMut(&Tensor<3>),
) -> Tensor<3> {
    for (idx, (block, context)) in blocks.iter().zip(contexts).enumerate() {
        observe(&x_btd);
        x_btd = match cache.as_mut().map(|cache| cache.layer(idx)) {
            None if recomputes => recomputed(block, x_btd, context),
            cache => block.forward(x_btd, context, cache),
        };
    }
    x_btd
}

fn recomputed<B: Block>(block: &B, x_btd: Tensor<3>, context: &B::Context) -> Tensor<3> {
    let mut block = block.clone();
    pin_dropout(block.projections_mut().into_iter().map(|(_, layer)| layer));
    let context = context.clone();
    kernels::recompute(block, x_btd, move |block, x_btd| block.forward(x_btd, &context, None))
}

/// The linear layers of `blocks`, each named by its block's index in the list `name`.
pub(crate) fn projections_of<'a, B: Block>(
    name: &str,
    blocks: &'a mut [B],
) -> Vec<NamedProjection<'a>> {
    let blocks = blocks.iter_mut().enumerate();
    blocks
        .flat_map(|(idx, block)| prefixed(&format!("{name}.{idx}"), block.projections_mut()))
        .collect()
}
