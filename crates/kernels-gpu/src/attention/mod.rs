//! Attention in tiles: `softmax(cap(q·kᵀ · scale)) · v` over the visible keys, without a matrix of all scores, and its
//! gradients. Queries and keys can be rotated by their positions' angles while they are read.
//!
//! Products are f32 multiply-adds in registers. For b rows, h heads over g groups, t queries, s keys, width k and a share c
//! of visible scores (about 1/2 in a causal mask):
//!
//! | | operations | bytes, at least |
//! | --- | --- | --- |
//! | forward | 4·b·h·t·s·k·c | 4·b·k·(2·h·t + 2·g·s) |
//! | backward | 14·b·h·t·s·k·c, of which 4 repeat the scores | 4·b·k·(4·h·t + 4·g·s) twice |
//!
//! A cube reads its tile of queries once and all visible keys and values, mostly from the cache: with tiles of 64 queries
//! that are 16 operations per byte for each 64 values of shared memory traffic. 12 heads of width 64 over 1,024 positions
//! are 1.6 GFLOP forward and 5.6 backward: at 67 TFLOP/s of f32 (H100 and H200) at least 25 and 85 µs, while the tensors
//! themselves, 13 and 50 MB, take 4 and 15 µs at 3.35 TB/s. The kernels are limited by arithmetic.
//!
//! Tiles whose segments do not overlap are skipped, and so are those outside of a causal mask or a window.

// A kernel takes its sizes one by one.
#![allow(clippy::too_many_arguments)]

mod backward;
mod forward;
mod parts;
mod tile;

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use self::tile::{Form, Tile};
use crate::launch::{as_i32, empty, grid, zeros};

/// Heads, mask and scores of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; each serves `heads / groups` query heads.
    pub groups: usize,
    /// Width of a head.
    pub width: usize,
    /// Whether keys later than the query are hidden; queries are the last positions of the keys then.
    pub causal: bool,
    /// Keys that many positions away or more are hidden.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
    /// Soft cap of the scaled scores: `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

/// Segments of queries `[b, t]` and of keys `[b, s]`; a key is visible to queries of its own segment only.
#[derive(Clone, Debug)]
pub struct Segments {
    /// Of the queries.
    pub queries: CubeTensor,
    /// Of the keys.
    pub keys: CubeTensor,
}

/// Cosines and sines of each position, `[b, t, k / 2]`.
pub type Angles = Option<(CubeTensor, CubeTensor)>;

/// Value of the attention and log-sum-exp of each query's scores, for the backward pass.
#[derive(Clone, Debug)]
pub struct Attended {
    /// `[b, t, h, k]`
    pub out: CubeTensor,
    /// `[b, h, t]`
    pub lse: CubeTensor,
}

/// A window that hides nothing. Sums with it fit into 32 bits.
const NO_WINDOW: usize = 1 << 30;

/// Attention of q `[b, t, h, k]` to k and v `[b, s, g, k]`.
pub fn forward([q, k, v]: [CubeTensor; 3], segments: Segments, settings: &Settings) -> Attended {
    Call::separate([q, k, v], segments, settings).forward()
}

/// Gradients of q, k and v, in their shapes, from the forward pass's operands and results and the gradient `d_out` of its
/// value.
pub fn backward(
    [q, k, v]: [CubeTensor; 3],
    segments: Segments,
    attended: Attended,
    d_out: CubeTensor,
    settings: &Settings,
) -> [CubeTensor; 3] {
    let shapes = [&q, &k, &v].map(CubeTensor::shape);
    let call = Call::separate([q, k, v], segments, settings);
    let grads = call.operands.each_ref().map(|x| call.grad_like(x));
    call.backward(attended, d_out, &grads);
    let mut shapes = shapes.into_iter();
    grads.map(|grad| match shapes.next() {
        Some(shape) => CubeBackend::float_reshape(grad, shape),
        None => grad,
    })
}

/// Attention of queries, keys and values side by side, `[b, t, (h + 2g) · k]`, rotated first if there are angles.
pub fn packed_forward(
    qkv: CubeTensor,
    angles: Angles,
    segments: CubeTensor,
    settings: &Settings,
) -> Attended {
    Call::packed(qkv, angles, segments, settings).forward()
}

/// The gradient of `qkv`, in its shape; see [`backward`].
pub fn packed_backward(
    qkv: CubeTensor,
    angles: Angles,
    segments: CubeTensor,
    attended: Attended,
    d_out: CubeTensor,
    settings: &Settings,
) -> CubeTensor {
    let call = Call::packed(qkv, angles, segments, settings);
    let grad = call.grad_like(&call.operands[0]);
    call.backward(attended, d_out, &[grad.clone(), grad.clone(), grad.clone()]);
    grad
}

/// Operands of the kernels.
struct Call {
    /// `[b, n, w]` each, with heads side by side from `places` on.
    operands: [CubeTensor; 3],
    places: [usize; 3],
    angles: Option<[CubeTensor; 2]>,
    segments: [CubeTensor; 2],
    settings: Settings,
    b: usize,
    n_q: usize,
    n_k: usize,
}

impl Call {
    fn separate(qkv: [CubeTensor; 3], segments: Segments, settings: &Settings) -> Self {
        let operands = qkv.map(|x| {
            let dims: Vec<usize> = x.shape().iter().copied().collect();
            let width = dims[2] * dims[3];
            with_unit_stride(CubeBackend::float_reshape(x, Shape::from([dims[0], dims[1], width])))
        });
        Self::new(operands, [0; 3], None, [segments.queries, segments.keys], settings)
    }

    fn packed(qkv: CubeTensor, angles: Angles, segments: CubeTensor, settings: &Settings) -> Self {
        let Settings { heads, groups, width, .. } = *settings;
        let qkv = with_unit_stride(qkv);
        let places = [0, heads * width, (heads + groups) * width];
        let angles = angles.map(|(cos, sin)| [cos, sin]);
        let operands = [qkv.clone(), qkv.clone(), qkv];
        Self::new(operands, places, angles, [segments.clone(), segments], settings)
    }

    fn new(
        operands: [CubeTensor; 3],
        places: [usize; 3],
        angles: Option<[CubeTensor; 2]>,
        segments: [CubeTensor; 2],
        settings: &Settings,
    ) -> Self {
        let [q, k, _] = &operands;
        let (b, n_q, n_k) = (q.meta.shape()[0], q.meta.shape()[1], k.meta.shape()[1]);
        let angles = angles.map(|angles| angles.map(into_contiguous));
        let segments = segments.map(as_i32);
        Self { operands, places, angles, segments, settings: *settings, b, n_q, n_k }
    }

    fn tile(&self, bytes: impl Fn(&Tile) -> usize) -> Tile {
        let Settings { width, causal, soft_cap, .. } = self.settings;
        let rotated = self.angles.is_some();
        let form = Form { width, causal, capped: soft_cap.is_some(), rotated };
        let limit = self.operands[0].client.properties().hardware.max_shared_memory_size;
        Tile::select(form, [self.n_q, self.n_k], limit, bytes)
    }

    /// Cosines and sines, or any tensor where the kernels read none.
    fn angles(&self) -> [CubeTensor; 2] {
        let [q, ..] = &self.operands;
        self.angles.clone().unwrap_or_else(|| [q.clone(), q.clone()])
    }

    /// A tensor for a gradient in the shape of `x`: of zeros if no kernel runs that writes it.
    fn grad_like(&self, x: &CubeTensor) -> CubeTensor {
        if self.is_empty() { zeros(x, x.shape()) } else { empty(x, x.shape(), DType::F32) }
    }

    /// Whether there are no queries or no keys.
    fn is_empty(&self) -> bool {
        self.b * self.n_q * self.n_k == 0
    }

    fn window(&self) -> u32 {
        self.settings.window.unwrap_or(NO_WINDOW).min(NO_WINDOW) as u32
    }

    fn forward(self) -> Attended {
        let Settings { heads, groups, width, scale, soft_cap, .. } = self.settings;
        let [q, k, v] = &self.operands;
        let out = empty(q, [self.b, self.n_q, heads, width], DType::F32);
        let lse = empty(q, [self.b, heads, self.n_q], DType::F32);
        if self.b * self.n_q == 0 {
            return Attended { out, lse };
        }
        if self.n_k == 0 {
            let zeros = |x: CubeTensor| zeros(&x, x.shape());
            return Attended { out: zeros(out), lse: zeros(lse) };
        }
        let tile = self.tile(Tile::forward_bytes);
        let n_cubes = self.n_q.div_ceil(tile.queries) * self.b * heads;
        let [cos, sin] = self.angles();
        let [q_at, k_at, v_at] = self.places.map(|place| place as u32);
        let [q_segments, k_segments] = self.segments.clone();
        #[expect(unsafe_code, reason = "burn's launches check no bounds")]
        // SAFETY: queries below n_q and keys below n_k of tensors of these shapes are read, queries below n_q written.
        unsafe {
            forward::forward_kernel::launch_unchecked(
                &q.client,
                grid(n_cubes),
                CubeDim::new_2d(tile.unit_columns as u32, tile.unit_rows as u32),
                q.clone().into_tensor_arg(),
                k.clone().into_tensor_arg(),
                v.clone().into_tensor_arg(),
                cos.into_tensor_arg(),
                sin.into_tensor_arg(),
                q_segments.into_tensor_arg(),
                k_segments.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                lse.clone().into_tensor_arg(),
                q_at,
                k_at,
                v_at,
                scale,
                soft_cap.unwrap_or(1.0),
                heads as u32,
                groups as u32,
                self.n_q as u32,
                self.n_k as u32,
                self.window(),
                n_cubes as u32,
                tile,
            );
        }
        Attended { out, lse }
    }

    /// Writes the gradients of queries, keys and values from their places on.
    fn backward(self, attended: Attended, d_out: CubeTensor, grads: &[CubeTensor; 3]) {
        let Settings { heads, groups, scale, soft_cap, .. } = self.settings;
        if self.is_empty() {
            return;
        }
        let [q, k, v] = &self.operands;
        let Attended { out, lse } = attended;
        let d_out = into_contiguous(d_out);
        let delta = empty(q, [self.b, heads, self.n_q], DType::F32);
        let tile = self.tile(Tile::backward_bytes);
        let [cos, sin] = self.angles();
        let [q_at, k_at, v_at] = self.places.map(|place| place as u32);
        let [q_segments, k_segments] = self.segments.clone();
        let [d_q, d_k, d_v] = grads.clone();
        let units = CubeDim::new_2d(tile.unit_columns as u32, tile.unit_rows as u32);
        let q_cubes = self.n_q.div_ceil(tile.queries) * self.b * heads;
        let k_cubes = self.n_k.div_ceil(tile.keys) * self.b * groups;
        let cap = soft_cap.unwrap_or(1.0);
        #[expect(unsafe_code, reason = "burn's launches check no bounds")]
        // SAFETY: as in the forward pass; gradients have the shapes of their operands.
        unsafe {
            backward::query_gradient_kernel::launch_unchecked(
                &q.client,
                grid(q_cubes),
                units,
                q.clone().into_tensor_arg(),
                k.clone().into_tensor_arg(),
                v.clone().into_tensor_arg(),
                cos.clone().into_tensor_arg(),
                sin.clone().into_tensor_arg(),
                q_segments.clone().into_tensor_arg(),
                k_segments.clone().into_tensor_arg(),
                into_contiguous(out).into_tensor_arg(),
                lse.clone().into_tensor_arg(),
                d_out.clone().into_tensor_arg(),
                d_q.into_tensor_arg(),
                delta.clone().into_tensor_arg(),
                q_at,
                k_at,
                v_at,
                scale,
                cap,
                heads as u32,
                groups as u32,
                self.n_q as u32,
                self.n_k as u32,
                self.window(),
                q_cubes as u32,
                tile,
            );
            backward::key_gradient_kernel::launch_unchecked(
                &q.client,
                grid(k_cubes),
                units,
                q.clone().into_tensor_arg(),
                k.clone().into_tensor_arg(),
                v.clone().into_tensor_arg(),
                cos.into_tensor_arg(),
                sin.into_tensor_arg(),
                q_segments.into_tensor_arg(),
                k_segments.into_tensor_arg(),
                lse.into_tensor_arg(),
                delta.into_tensor_arg(),
                d_out.into_tensor_arg(),
                d_k.into_tensor_arg(),
                d_v.into_tensor_arg(),
                q_at,
                k_at,
                v_at,
                scale,
                cap,
                heads as u32,
                groups as u32,
                self.n_q as u32,
                self.n_k as u32,
                self.window(),
                k_cubes as u32,
                tile,
            );
        }
    }
}

/// The tensor with neighbouring values in its last dimension.
fn with_unit_stride(x: CubeTensor) -> CubeTensor {
    if x.meta.strides().last() == Some(&1) { x } else { into_contiguous(x) }
}
