//! Attention of decoding: a few queries of each row against its KV cache, read where it is, whatever its strides.
//!
//! All queries of a group of heads share a cube, so that keys and values are read once for up to 8 of them. For b rows, h heads
//! over g groups, t queries, s visible keys and width k, with `n = ⌈t · h / g / 8⌉` cubes for each row and group:
//!
//! | operations | bytes, at least |
//! | --- | --- |
//! | 4·b·h·t·s·k | 8·b·g·s·k, read n times, of which the cache serves n − 1 |
//!
//! One token of a row of 4,096 positions, with 32 heads over 8 groups of width 128, takes 33.6 MB and 67 MFLOP in each layer: at
//! least 10 µs at 3.35 TB/s (H100) or 7 µs at 4.8 TB/s (H200), and 1 µs of arithmetic. The kernel is limited by memory.
//!
//! Where rows and groups are too few for all processors, the keys of each are divided among several cubes, whose results a second
//! kernel adds: their number depends on the shapes alone, so that results repeat to the bit. Values and log-sum-exps of the parts
//! take 4·p·b·h·t·(k + 1) bytes for p parts, written and read once: for 4 query heads to a group and tiles of 64 keys at most 2 % of
//! the keys and values, because a part has at least 4 tiles.

use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::merge::merge;
use super::parts::{
    HIDDEN, HIDDEN_BOUND, at_most, dots, first_key, is_visible, load_rows, load_segments, row_sum,
    score, segments_overlap,
};
use super::tile::{Form, Tile};
use super::{NO_WINDOW, Segments, Settings, with_unit_stride};
use crate::launch::{empty, grid, to_i32, zeros};

/// The largest number of queries in each row for which this kernel is meant. More of them fill the tiles of [`super::forward`],
/// which read each tile of keys for fewer heads but for more positions.
pub const MAX_QUERIES: usize = 8;

/// Cubes for which keys are not divided further: about two for each processor of an H100 or H200, which have 132.
const ENOUGH_CUBES: usize = 256;

/// The smallest number of tiles of keys in a part.
const LEAST_TILES: usize = 4;

/// Attention of q `[b, t, h, k]` to k and v `[b, s, g, k]` → `[b, t, h, k]`, 0 for queries without visible keys. Has no gradient.
pub fn decode([q, k, v]: [CubeTensor; 3], segments: Segments, settings: &Settings) -> CubeTensor {
    let Settings { heads, groups, width, .. } = *settings;
    let [q, k, v] = [q, k, v].map(with_unit_stride);
    let (b, n_q, n_k) = (q.meta.shape()[0], q.meta.shape()[1], k.meta.shape()[1]);
    let shape = [b, n_q, heads, width];
    if b * n_q * heads * n_k == 0 {
        return zeros(&q, shape);
    }
    let tile = tile(&q, settings, n_q, n_k);
    let n_blocks = (n_q * heads / groups).div_ceil(tile.queries);
    let parts = Parts::of(settings, tile, b * groups * n_blocks, [n_q, n_k]);
    let rows = b * n_q * heads;
    let out = empty(&q, [parts.n, rows * width], DType::F32);
    let lse = empty(&q, [parts.n, rows], DType::F32);
    let n_cubes = b * groups * n_blocks * parts.n;
    let Segments { queries, keys } = segments;
    let [queries, keys] = [queries, keys].map(|x| with_unit_stride(to_i32(x)));
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: queries below n_q and keys below n_k of tensors of these shapes are read, rows of the parts written.
    unsafe {
        decode_kernel::launch_unchecked(
            &q.client.clone(),
            grid(n_cubes),
            CubeDim::new_2d(tile.unit_columns as u32, tile.unit_rows as u32),
            q.into_tensor_arg(),
            k.into_tensor_arg(),
            v.into_tensor_arg(),
            queries.into_tensor_arg(),
            keys.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            lse.clone().into_tensor_arg(),
            settings.scale,
            settings.soft_cap.unwrap_or(1.0),
            heads as u32,
            groups as u32,
            n_q as u32,
            n_k as u32,
            settings.window.unwrap_or(NO_WINDOW).min(NO_WINDOW) as u32,
            parts.n as u32,
            parts.keys as u32,
            n_cubes as u32,
            tile,
        );
    }
    let out = if parts.n == 1 { out } else { merge(out, lse, rows, width) };
    super::reshaped(out, shape)
}

/// The tile of a call. A small one of at most 48 KiB, so that several cubes share a processor while they wait for memory.
fn tile(q: &CubeTensor, settings: &Settings, n_q: usize, n_k: usize) -> Tile {
    let Settings { heads, groups, width, causal, soft_cap, .. } = *settings;
    let form = Form { width, causal, capped: soft_cap.is_some(), rotated: false };
    let limit = q.client.properties().hardware.max_shared_memory_size.min(48 << 10);
    Tile::select_for_decoding(form, [n_q * heads / groups, n_k], limit)
}

/// Division of the keys of a row among cubes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    n: usize,
    /// Keys in each part, a multiple of the tile's.
    keys: usize,
}

impl Parts {
    /// The parts of each of `n_cubes` sets of queries.
    fn of(settings: &Settings, tile: Tile, n_cubes: usize, [n_q, n_k]: [usize; 2]) -> Self {
        // The first key is rounded down to a tile.
        let near = settings.window.map_or(n_k, |window| window.saturating_add(n_q + tile.keys));
        let n_tiles = near.min(n_k).div_ceil(tile.keys);
        let most = (n_tiles / LEAST_TILES).max(1);
        let wanted = (ENOUGH_CUBES / n_cubes.max(1)).clamp(1, most);
        let tiles = n_tiles.div_ceil(wanted).max(1);
        Self { n: n_tiles.div_ceil(tiles).max(1), keys: tiles * tile.keys }
    }
}

/// One cube per part of the keys, block of queries and group of heads. Row `i` of a group has query `i / (h / g)` and the group's
/// head `i % (h / g)`. `out` is `[parts, b, t, h, k]`; `lse`, `[parts, b, t, h]`, is [`HIDDEN`] without visible keys.
#[cube(launch_unchecked)]
fn decode_kernel(
    q: &Tensor<f32>,
    k: &Tensor<f32>,
    v: &Tensor<f32>,
    q_segments: &Tensor<i32>,
    k_segments: &Tensor<i32>,
    out: &mut Tensor<f32>,
    lse: &mut Tensor<f32>,
    scale: f32,
    cap: f32,
    heads: u32,
    groups: u32,
    n_q: u32,
    n_k: u32,
    window: u32,
    n_parts: u32,
    part_keys: u32,
    n_cubes: u32,
    #[comptime] tile: Tile,
) {
    let columns = comptime!(tile.keys / tile.unit_columns);
    let slices = comptime!(tile.padded / tile.unit_columns);
    let stride = comptime!(tile.padded + 1);
    let tile_stride = comptime!(tile.keys + 1);
    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.padded + 1)));
    // Keys, then values.
    let mut kv_tile = Shared::<[f32]>::new_slice(comptime!(tile.keys * (tile.padded + 1)));
    let mut p_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.keys + 1)));
    let mut per_row = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.unit_columns + 1)));
    let mut q_seg = Shared::<[i32]>::new_slice(tile.queries);
    let mut k_seg = Shared::<[i32]>::new_slice(tile.keys);

    let (heads, groups, n_parts) = (heads as usize, groups as usize, n_parts as usize);
    let (n_q, n_k, window) = (n_q as usize, n_k as usize, window as usize);
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    let per_group = heads / groups;
    let n_rows = n_q * per_group;
    let n_blocks = (n_rows + comptime!(tile.queries - 1)) / comptime!(tile.queries);
    // The same for all units of a cube, so barriers below are reached by all or none.
    if CUBE_POS < n_cubes as usize {
        let part = CUBE_POS % n_parts;
        let row0 = CUBE_POS / n_parts % n_blocks * tile.queries;
        let batch_group = CUBE_POS / n_parts / n_blocks;
        let batch = batch_group / groups;
        let group = batch_group % groups;
        let k_start = batch * k.stride(0) + group * k.stride(2);
        let v_start = batch * v.stride(0) + group * v.stride(2);

        load_queries(q, batch, group, row0, n_rows, per_group, &mut q_tile, tile);
        let mut place = UNIT_POS as usize;
        while place < comptime!(tile.queries) {
            let mut segment = 0i32;
            if row0 + place < n_rows {
                let query = (row0 + place) / per_group;
                segment = q_segments[batch * q_segments.stride(0) + query];
            }
            q_seg[place] = segment;
            place += comptime!(tile.unit_columns * tile.unit_rows);
        }

        let row = row0 + y;
        // Rows after the last one have no visible keys.
        let query = select(row < n_rows, row / per_group, n_q);
        let mut acc = Array::<f32>::new(slices);
        let mut largest = f32::new(HIDDEN);
        let mut sum = 0.0f32;
        #[unroll]
        for j in 0..slices {
            acc[j] = 0.0f32;
        }

        let q_valid = at_most(n_rows - row0, tile.queries);
        let mut end = n_q - 1 + window;
        if comptime!(tile.causal) {
            end = n_k;
        }
        end = select(end < n_k, end, n_k);
        let mut k0 = first_key(0usize, n_q, n_k, window, tile) + part * part_keys as usize;
        let part_end = k0 + part_keys as usize;
        end = select(end < part_end, end, part_end);
        while k0 < end {
            let segments = batch * k_segments.stride(0);
            load_segments(k_segments, segments, k0, n_k, &mut k_seg, tile.keys, tile);
            sync_cube();
            let k_valid = at_most(n_k - k0, tile.keys);
            if segments_overlap(&q_seg, q_valid, &k_seg, k_valid) {
                // Without rotation no angles are read.
                load_rows(k, k_start, k0, n_k, q, q, 0, &mut kv_tile, tile.keys, false, tile);
                sync_cube();
                let mut s = dots(&q_tile, &kv_tile, tile);
                let mut top = f32::new(HIDDEN);
                #[unroll]
                for j in 0..columns {
                    let column = x + j * tile.unit_columns;
                    let visible = is_visible(
                        query,
                        k0 + column,
                        q_seg[y],
                        k_seg[column],
                        n_q,
                        n_k,
                        window,
                        tile,
                    );
                    s[j] = select(visible, score(s[j], scale, cap, tile), f32::new(HIDDEN));
                    top = max(top, s[j]);
                }
                per_row[y * comptime!(tile.unit_columns + 1) + x] = top;
                // The keys have been read by all units, and every unit's maximum is known.
                sync_cube();
                top = largest;
                #[unroll]
                for c in 0..tile.unit_columns {
                    top = max(top, per_row[y * comptime!(tile.unit_columns + 1) + c]);
                }
                let shrink = (largest - top).exp();
                largest = top;
                sum = sum * shrink;
                #[unroll]
                for j in 0..slices {
                    acc[j] = acc[j] * shrink;
                }
                #[unroll]
                for j in 0..columns {
                    // Not the reverse comparison, by which NaN would count as hidden.
                    let hidden = s[j] < f32::new(HIDDEN_BOUND);
                    let p = select(hidden, 0.0f32, (s[j] - top).exp());
                    sum += p;
                    p_tile[y * tile_stride + x + j * tile.unit_columns] = p;
                }
                load_rows(v, v_start, k0, n_k, q, q, 0, &mut kv_tile, tile.keys, false, tile);
                sync_cube();
                for c in 0..tile.keys {
                    let p = p_tile[y * tile_stride + c];
                    #[unroll]
                    for j in 0..slices {
                        acc[j] = acc[j] + p * kv_tile[c * stride + x + j * tile.unit_columns];
                    }
                }
            }
            // Before the next tile's segments, keys and maxima.
            sync_cube();
            k0 += tile.keys;
        }

        per_row[y * comptime!(tile.unit_columns + 1) + x] = sum;
        sync_cube();
        let total = row_sum(&per_row, y, tile);
        if row < n_rows {
            let head = group * per_group + row % per_group;
            let n_batches = n_cubes as usize / n_parts / n_blocks / groups;
            let at = ((part * n_batches + batch) * n_q + query) * heads + head;
            let empty = total == 0.0f32;
            let factor = select(empty, 0.0f32, 1.0f32 / total);
            #[unroll]
            for j in 0..slices {
                let column = x + j * tile.unit_columns;
                if column < tile.width {
                    out[at * tile.width + column] = acc[j] * factor;
                }
            }
            if x == 0 {
                lse[at] = select(empty, f32::new(HIDDEN), largest + total.ln());
            }
        }
    }
}

/// Copies the queries of rows `row0..` of a group to shared memory, with zeros after the last one.
#[cube]
fn load_queries(
    q: &Tensor<f32>,
    batch: usize,
    group: usize,
    row0: usize,
    n_rows: usize,
    per_group: usize,
    to: &mut Shared<[f32]>,
    #[comptime] tile: Tile,
) {
    let mut element = UNIT_POS as usize;
    while element < comptime!(tile.queries * tile.padded) {
        let place = element / comptime!(tile.padded);
        let column = element % comptime!(tile.padded);
        let row = row0 + place;
        let mut value = 0.0f32;
        if row < n_rows && column < comptime!(tile.width) {
            let head = group * per_group + row % per_group;
            let query = row / per_group;
            value = q[batch * q.stride(0) + query * q.stride(1) + head * q.stride(2) + column];
        }
        to[place * comptime!(tile.padded + 1) + column] = value;
        element += comptime!(tile.unit_columns * tile.unit_rows);
    }
}

#[cfg(test)]
mod tests {
    use super::{Parts, Settings, Tile};
    use crate::attention::tile::Form;

    #[test]
    fn parts_cover_all_keys_and_have_several_tiles() {
        let form = Form { width: 64, causal: true, capped: false, rotated: false };
        let settings = Settings {
            heads: 8,
            groups: 2,
            width: 64,
            causal: true,
            window: None,
            scale: 1.0,
            soft_cap: None,
        };
        for n_k in [1, 63, 64, 65, 1000, 4096, 100_000] {
            let tile = Tile::select_for_decoding(form, [4, n_k], 48 << 10);
            for n_cubes in [1, 2, 7, 255, 256, 1000] {
                let parts = Parts::of(&settings, tile, n_cubes, [1, n_k]);
                assert!(parts.n * parts.keys >= n_k, "{parts:?} of {n_k}");
                assert!((parts.n - 1) * parts.keys < n_k, "{parts:?} of {n_k}");
                assert!(parts.n == 1 || parts.keys >= 4 * tile.keys, "{parts:?} of {n_k}");
                assert!(parts.n == 1 || parts.n * n_cubes <= 256, "{parts:?} for {n_cubes}");
            }
        }
        let tile = Tile::select_for_decoding(form, [4, 4096], 48 << 10);
        let near = Settings { window: Some(500), ..settings };
        let parts = Parts::of(&near, tile, 1, [1, 4096]);
        assert!((565..=1024).contains(&(parts.n * parts.keys)), "{parts:?}");
    }
}
