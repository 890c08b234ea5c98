//! Attention of decoding: a few queries without autodiff, whose keys and values are read where the cache has them.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};
use burn_cubecl::CubeBackend;
use kernels_gpu::attention::{self, Segments, Settings};

/// Whether the kernel is meant for these queries, keys and values.
pub(crate) fn decodes(qkv: &[Tensor<4>; 3]) -> bool {
    qkv[0].dims()[1] <= attention::MAX_QUERIES && !qkv.iter().any(Tensor::is_autodiff)
}

/// q `[b, t, h, k]`, k and v `[b, s, g, k]` → `[b, t, h, k]`; segments `[b, t]` and `[b, s]`. Has no gradient.
pub(crate) fn decode(
    [q, k, v]: [Tensor<4>; 3],
    [q_segments, k_segments]: [Tensor<2, Int>; 2],
    settings: Settings,
) -> Tensor<4> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let [q_segments, k_segments] = [q_segments, k_segments].map(|x| x.inner().into_dispatch());
    let out = <Dispatch as DecodingOps>::attend_few(q, k, v, q_segments, k_segments, settings);
    Tensor::from_dispatch(out)
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait DecodingOps: Backend {
    #[fusion(meta = |q: &TensorSpec, _k: &TensorSpec, _v: &TensorSpec, _qs: &TensorSpec, _ks: &TensorSpec, _settings: &Settings| q.clone())]
    fn attend_few(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
}

impl DecodingOps for CubeBackend {
    fn attend_few(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let segments = Segments { queries: q_segments, keys: k_segments };
        attention::decode([q, k, v], segments, &settings)
    }
}

impl<B: DecodingOps, C: CheckpointStrategy> DecodingOps for Autodiff<B, C> {
    fn attend_few(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let [q, k, v] = [q, k, v].map(|x| x.into_primitive());
        FloatTensor::<Self>::new(B::attend_few(q, k, v, q_segments, k_segments, settings))
    }
}
