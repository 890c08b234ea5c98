//! Forward kernel: softmax over tiles of keys with a running maximum and sum (Dao et al. 2022, algorithm 1).

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::parts::{
    HIDDEN, HIDDEN_BOUND, at_most, dots, end_key, first_key, is_visible, load_rows, load_segments,
    row_sum, score, segments_overlap,
};
use super::tile::Tile;

/// One cube per tile of queries and head: `out` `[b, t, h, k]` and the log-sum-exp of each query's scores, `[b, h, t]`,
/// 0 without visible keys.
#[cube(launch_unchecked)]
pub(super) fn forward_kernel(
    q: &Tensor<f32>,
    k: &Tensor<f32>,
    v: &Tensor<f32>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    q_segments: &Tensor<i32>,
    k_segments: &Tensor<i32>,
    out: &mut Tensor<f32>,
    lse: &mut Tensor<f32>,
    q_at: u32,
    k_at: u32,
    v_at: u32,
    scale: f32,
    cap: f32,
    heads: u32,
    groups: u32,
    n_q: u32,
    n_k: u32,
    window: u32,
    n_cubes: u32,
    #[comptime] tile: Tile,
) {
    let (rows, columns) = comptime!((tile.queries / tile.unit_rows, tile.keys / tile.unit_columns));
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

    let (heads, groups) = (heads as usize, groups as usize);
    let (n_q, n_k, window) = (n_q as usize, n_k as usize, window as usize);
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    let n_tiles = (n_q + comptime!(tile.queries - 1)) / comptime!(tile.queries);
    // The same for all units of a cube, so barriers below are reached by all or none.
    if CUBE_POS < n_cubes as usize {
        // In a causal mask the last tiles have the most keys, so they start first.
        let q0 = (n_tiles - 1 - CUBE_POS % n_tiles) * tile.queries;
        let batch_head = CUBE_POS / n_tiles;
        let batch = batch_head / heads;
        let head = batch_head % heads;
        let group = head / (heads / groups);
        let q_start = q_at as usize + batch * q.stride(0) + head * tile.width;
        let k_start = k_at as usize + batch * k.stride(0) + group * tile.width;
        let v_start = v_at as usize + batch * v.stride(0) + group * tile.width;
        let q_angles = batch * n_q * comptime!(tile.width / 2);
        let k_angles = batch * n_k * comptime!(tile.width / 2);

        load_rows(
            q,
            q_start,
            q0,
            n_q,
            cos,
            sin,
            q_angles,
            &mut q_tile,
            tile.queries,
            tile.rotated,
            tile,
        );
        load_segments(q_segments, batch * n_q, q0, n_q, &mut q_seg, tile.queries, tile);

        let mut acc = Array::<f32>::new(comptime!(rows * slices));
        let mut largest = Array::<f32>::new(rows);
        let mut sum = Array::<f32>::new(rows);
        #[unroll]
        for i in 0..rows {
            largest[i] = f32::new(HIDDEN);
            sum[i] = 0.0f32;
            #[unroll]
            for j in 0..slices {
                acc[i * slices + j] = 0.0f32;
            }
        }

        let q_valid = at_most(n_q - q0, tile.queries);
        let end = end_key(q0, n_q, n_k, window, tile);
        let mut k0 = first_key(q0, n_q, n_k, window, tile);
        while k0 < end {
            load_segments(k_segments, batch * n_k, k0, n_k, &mut k_seg, tile.keys, tile);
            sync_cube();
            let k_valid = at_most(n_k - k0, tile.keys);
            if segments_overlap(&q_seg, q_valid, &k_seg, k_valid) {
                load_rows(
                    k,
                    k_start,
                    k0,
                    n_k,
                    cos,
                    sin,
                    k_angles,
                    &mut kv_tile,
                    tile.keys,
                    tile.rotated,
                    tile,
                );
                sync_cube();
                let mut s = dots(&q_tile, &kv_tile, tile);
                #[unroll]
                for i in 0..rows {
                    let row = y + i * tile.unit_rows;
                    let mut top = f32::new(HIDDEN);
                    #[unroll]
                    for j in 0..columns {
                        let column = x + j * tile.unit_columns;
                        let visible = is_visible(
                            q0 + row,
                            k0 + column,
                            q_seg[row],
                            k_seg[column],
                            n_q,
                            n_k,
                            window,
                            tile,
                        );
                        let at = i * columns + j;
                        s[at] = select(visible, score(s[at], scale, cap, tile), f32::new(HIDDEN));
                        top = max(top, s[at]);
                    }
                    per_row[row * comptime!(tile.unit_columns + 1) + x] = top;
                }
                // The keys have been read by all units, and every unit's maximum is known.
                sync_cube();
                #[unroll]
                for i in 0..rows {
                    let row = y + i * tile.unit_rows;
                    let mut top = largest[i];
                    #[unroll]
                    for c in 0..tile.unit_columns {
                        top = max(top, per_row[row * comptime!(tile.unit_columns + 1) + c]);
                    }
                    let shrink = (largest[i] - top).exp();
                    largest[i] = top;
                    sum[i] = sum[i] * shrink;
                    #[unroll]
                    for j in 0..slices {
                        acc[i * slices + j] = acc[i * slices + j] * shrink;
                    }
                    #[unroll]
                    for j in 0..columns {
                        let at = i * columns + j;
                        // Not the reverse comparison, by which NaN would count as hidden.
                        let hidden = s[at] < f32::new(HIDDEN_BOUND);
                        let p = select(hidden, 0.0f32, (s[at] - top).exp());
                        sum[i] = sum[i] + p;
                        p_tile[row * tile_stride + x + j * tile.unit_columns] = p;
                    }
                }
                load_rows(
                    v,
                    v_start,
                    k0,
                    n_k,
                    cos,
                    sin,
                    k_angles,
                    &mut kv_tile,
                    tile.keys,
                    false,
                    tile,
                );
                sync_cube();
                for c in 0..tile.keys {
                    #[unroll]
                    for i in 0..rows {
                        let p = p_tile[(y + i * tile.unit_rows) * tile_stride + c];
                        #[unroll]
                        for j in 0..slices {
                            let value = kv_tile[c * stride + x + j * tile.unit_columns];
                            acc[i * slices + j] = acc[i * slices + j] + p * value;
                        }
                    }
                }
            }
            // Before the next tile's segments, keys and maxima.
            sync_cube();
            k0 += tile.keys;
        }

        #[unroll]
        for i in 0..rows {
            per_row[(y + i * tile.unit_rows) * comptime!(tile.unit_columns + 1) + x] = sum[i];
        }
        sync_cube();
        #[unroll]
        for i in 0..rows {
            let row = y + i * tile.unit_rows;
            let total = row_sum(&per_row, row, tile);
            let query = q0 + row;
            if query < n_q {
                let empty = total == 0.0f32;
                let factor = select(empty, 0.0f32, 1.0f32 / total);
                let start = ((batch * n_q + query) * heads + head) * tile.width;
                #[unroll]
                for j in 0..slices {
                    let column = x + j * tile.unit_columns;
                    if column < tile.width {
                        out[start + column] = acc[i * slices + j] * factor;
                    }
                }
                if x == 0 {
                    lse[batch_head * n_q + query] = select(empty, 0.0f32, largest[i] + total.ln());
                }
            }
        }
    }
}
