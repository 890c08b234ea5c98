//! Backward kernels: gradients of queries by tiles of queries, gradients of keys and values by tiles of keys, so that no two
//! cubes add to one value (Dao 2023, "FlashAttention-2", algorithm 2, in two kernels).

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::parts::{
    at_most, dots, end_key, end_query, first_key, first_query, is_visible, load_rows,
    load_segments, row_sum, score, score_slope, segments_overlap, store_rows,
};
use super::tile::Tile;

/// One cube per tile of queries and head: the gradient of the queries, and `delta`, Σ d_out · out of each query, `[b, h, t]`.
#[cube(launch_unchecked)]
pub(super) fn query_gradient_kernel(
    q: &Tensor<f32>,
    k: &Tensor<f32>,
    v: &Tensor<f32>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    q_segments: &Tensor<i32>,
    k_segments: &Tensor<i32>,
    out: &Tensor<f32>,
    lse: &Tensor<f32>,
    d_out: &Tensor<f32>,
    d_q: &mut Tensor<f32>,
    delta: &mut Tensor<f32>,
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
    let mut d_out_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.padded + 1)));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(tile.keys * (tile.padded + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(tile.keys * (tile.padded + 1)));
    let mut ds_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.keys + 1)));
    let mut per_row = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.unit_columns + 1)));
    let mut q_seg = Shared::<[i32]>::new_slice(tile.queries);
    let mut k_seg = Shared::<[i32]>::new_slice(tile.keys);

    let (heads, groups) = (heads as usize, groups as usize);
    let (n_q, n_k, window) = (n_q as usize, n_k as usize, window as usize);
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    let n_tiles = (n_q + comptime!(tile.queries - 1)) / comptime!(tile.queries);
    if CUBE_POS < n_cubes as usize {
        let q0 = (n_tiles - 1 - CUBE_POS % n_tiles) * tile.queries;
        let batch_head = CUBE_POS / n_tiles;
        let batch = batch_head / heads;
        let head = batch_head % heads;
        let group = head / (heads / groups);
        let q_start = q_at as usize + batch * q.stride(0) + head * tile.width;
        let k_start = k_at as usize + batch * k.stride(0) + group * tile.width;
        let v_start = v_at as usize + batch * v.stride(0) + group * tile.width;
        let out_start = (batch * n_q * heads + head) * tile.width;
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
        load_rows(
            d_out,
            out_start,
            q0,
            n_q,
            cos,
            sin,
            q_angles,
            &mut d_out_tile,
            tile.queries,
            false,
            tile,
        );
        load_segments(q_segments, batch * n_q, q0, n_q, &mut q_seg, tile.queries, tile);
        sync_cube();

        #[unroll]
        for i in 0..rows {
            let row = y + i * tile.unit_rows;
            let mut part = 0.0f32;
            if q0 + row < n_q {
                #[unroll]
                for j in 0..slices {
                    let column = x + j * tile.unit_columns;
                    if column < tile.width {
                        let at = out_start + (q0 + row) * heads * tile.width + column;
                        part += out[at] * d_out_tile[row * stride + column];
                    }
                }
            }
            per_row[row * comptime!(tile.unit_columns + 1) + x] = part;
        }
        sync_cube();
        let mut row_delta = Array::<f32>::new(rows);
        let mut row_lse = Array::<f32>::new(rows);
        #[unroll]
        for i in 0..rows {
            let row = y + i * tile.unit_rows;
            row_delta[i] = row_sum(&per_row, row, tile);
            row_lse[i] = 0.0f32;
            if q0 + row < n_q {
                row_lse[i] = lse[batch_head * n_q + q0 + row];
                if x == 0 {
                    delta[batch_head * n_q + q0 + row] = row_delta[i];
                }
            }
        }

        let mut acc = Array::<f32>::new(comptime!(rows * slices));
        #[unroll]
        for i in 0..rows {
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
                    &mut k_tile,
                    tile.keys,
                    tile.rotated,
                    tile,
                );
                load_rows(
                    v,
                    v_start,
                    k0,
                    n_k,
                    cos,
                    sin,
                    k_angles,
                    &mut v_tile,
                    tile.keys,
                    false,
                    tile,
                );
                sync_cube();
                let s = dots(&q_tile, &k_tile, tile);
                let d_p = dots(&d_out_tile, &v_tile, tile);
                #[unroll]
                for i in 0..rows {
                    let row = y + i * tile.unit_rows;
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
                        let value = score(s[at], scale, cap, tile);
                        let p = (value - row_lse[i]).exp();
                        let slope = score_slope(value, scale, cap, tile);
                        let d_s = p * (d_p[at] - row_delta[i]) * slope;
                        ds_tile[row * tile_stride + column] = select(visible, d_s, 0.0f32);
                    }
                }
                sync_cube();
                for c in 0..tile.keys {
                    #[unroll]
                    for i in 0..rows {
                        let d_s = ds_tile[(y + i * tile.unit_rows) * tile_stride + c];
                        #[unroll]
                        for j in 0..slices {
                            let key = k_tile[c * stride + x + j * tile.unit_columns];
                            acc[i * slices + j] = acc[i * slices + j] + d_s * key;
                        }
                    }
                }
            }
            sync_cube();
            k0 += tile.keys;
        }

        // All units have passed a barrier since they read the queries.
        sync_cube();
        #[unroll]
        for i in 0..rows {
            #[unroll]
            for j in 0..slices {
                q_tile[(y + i * tile.unit_rows) * stride + x + j * tile.unit_columns] =
                    acc[i * slices + j];
            }
        }
        sync_cube();
        let start = q_at as usize + batch * d_q.stride(0) + head * tile.width;
        let d_stride = d_q.stride(1);
        store_rows(
            &q_tile,
            d_q,
            start,
            d_stride,
            q0,
            n_q,
            cos,
            sin,
            q_angles,
            tile.queries,
            tile.rotated,
            tile,
        );
    }
}

/// One cube per tile of keys and group: the gradients of keys and values, over the queries of all heads of the group in
/// order.
#[cube(launch_unchecked)]
pub(super) fn key_gradient_kernel(
    q: &Tensor<f32>,
    k: &Tensor<f32>,
    v: &Tensor<f32>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    q_segments: &Tensor<i32>,
    k_segments: &Tensor<i32>,
    lse: &Tensor<f32>,
    delta: &Tensor<f32>,
    d_out: &Tensor<f32>,
    d_k: &mut Tensor<f32>,
    d_v: &mut Tensor<f32>,
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
    // A unit sums gradients of every `unit_rows`-th key.
    let key_rows = comptime!(tile.keys / tile.unit_rows);
    let slices = comptime!(tile.padded / tile.unit_columns);
    let stride = comptime!(tile.padded + 1);
    let tile_stride = comptime!(tile.keys + 1);
    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.padded + 1)));
    let mut d_out_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.padded + 1)));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(tile.keys * (tile.padded + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(tile.keys * (tile.padded + 1)));
    let mut p_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.keys + 1)));
    let mut ds_tile = Shared::<[f32]>::new_slice(comptime!(tile.queries * (tile.keys + 1)));
    let mut q_seg = Shared::<[i32]>::new_slice(tile.queries);
    let mut k_seg = Shared::<[i32]>::new_slice(tile.keys);

    let (heads, groups) = (heads as usize, groups as usize);
    let (n_q, n_k, window) = (n_q as usize, n_k as usize, window as usize);
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    let n_tiles = (n_k + comptime!(tile.keys - 1)) / comptime!(tile.keys);
    if CUBE_POS < n_cubes as usize {
        // In a causal mask the first tiles have the most queries.
        let k0 = CUBE_POS % n_tiles * tile.keys;
        let batch_group = CUBE_POS / n_tiles;
        let batch = batch_group / groups;
        let group = batch_group % groups;
        let per_group = heads / groups;
        let k_start = k_at as usize + batch * k.stride(0) + group * tile.width;
        let v_start = v_at as usize + batch * v.stride(0) + group * tile.width;
        let q_angles = batch * n_q * comptime!(tile.width / 2);
        let k_angles = batch * n_k * comptime!(tile.width / 2);

        load_rows(
            k,
            k_start,
            k0,
            n_k,
            cos,
            sin,
            k_angles,
            &mut k_tile,
            tile.keys,
            tile.rotated,
            tile,
        );
        load_rows(v, v_start, k0, n_k, cos, sin, k_angles, &mut v_tile, tile.keys, false, tile);
        load_segments(k_segments, batch * n_k, k0, n_k, &mut k_seg, tile.keys, tile);

        let mut k_acc = Array::<f32>::new(comptime!(key_rows * slices));
        let mut v_acc = Array::<f32>::new(comptime!(key_rows * slices));
        #[unroll]
        for i in 0..key_rows {
            #[unroll]
            for j in 0..slices {
                k_acc[i * slices + j] = 0.0f32;
                v_acc[i * slices + j] = 0.0f32;
            }
        }

        let k_valid = at_most(n_k - k0, tile.keys);
        let first = first_query(k0, n_q, n_k, window, tile);
        let end = end_query(k0, n_q, n_k, window, tile);
        for of_group in 0..per_group {
            let head = group * per_group + of_group;
            let q_start = q_at as usize + batch * q.stride(0) + head * tile.width;
            let out_start = (batch * n_q * heads + head) * tile.width;
            let row_start = (batch * heads + head) * n_q;
            let mut q0 = first;
            while q0 < end {
                load_segments(q_segments, batch * n_q, q0, n_q, &mut q_seg, tile.queries, tile);
                sync_cube();
                let q_valid = at_most(n_q - q0, tile.queries);
                if segments_overlap(&q_seg, q_valid, &k_seg, k_valid) {
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
                    load_rows(
                        d_out,
                        out_start,
                        q0,
                        n_q,
                        cos,
                        sin,
                        q_angles,
                        &mut d_out_tile,
                        tile.queries,
                        false,
                        tile,
                    );
                    sync_cube();
                    let s = dots(&q_tile, &k_tile, tile);
                    let d_p = dots(&d_out_tile, &v_tile, tile);
                    #[unroll]
                    for i in 0..rows {
                        let row = y + i * tile.unit_rows;
                        let mut row_lse = 0.0f32;
                        let mut row_delta = 0.0f32;
                        if q0 + row < n_q {
                            row_lse = lse[row_start + q0 + row];
                            row_delta = delta[row_start + q0 + row];
                        }
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
                            let value = score(s[at], scale, cap, tile);
                            let p = (value - row_lse).exp();
                            let slope = score_slope(value, scale, cap, tile);
                            let d_s = p * (d_p[at] - row_delta) * slope;
                            p_tile[row * tile_stride + column] = select(visible, p, 0.0f32);
                            ds_tile[row * tile_stride + column] = select(visible, d_s, 0.0f32);
                        }
                    }
                    sync_cube();
                    for row in 0..tile.queries {
                        #[unroll]
                        for i in 0..key_rows {
                            let p = p_tile[row * tile_stride + y + i * tile.unit_rows];
                            let d_s = ds_tile[row * tile_stride + y + i * tile.unit_rows];
                            #[unroll]
                            for j in 0..slices {
                                let column = x + j * tile.unit_columns;
                                let at = i * slices + j;
                                k_acc[at] = k_acc[at] + d_s * q_tile[row * stride + column];
                                v_acc[at] = v_acc[at] + p * d_out_tile[row * stride + column];
                            }
                        }
                    }
                }
                sync_cube();
                q0 += tile.queries;
            }
        }

        sync_cube();
        #[unroll]
        for i in 0..key_rows {
            #[unroll]
            for j in 0..slices {
                let at = (y + i * tile.unit_rows) * stride + x + j * tile.unit_columns;
                k_tile[at] = k_acc[i * slices + j];
                v_tile[at] = v_acc[i * slices + j];
            }
        }
        sync_cube();
        let start = k_at as usize + batch * d_k.stride(0) + group * tile.width;
        let d_stride = d_k.stride(1);
        store_rows(
            &k_tile,
            d_k,
            start,
            d_stride,
            k0,
            n_k,
            cos,
            sin,
            k_angles,
            tile.keys,
            tile.rotated,
            tile,
        );
        let start = v_at as usize + batch * d_v.stride(0) + group * tile.width;
        let d_stride = d_v.stride(1);
        store_rows(
            &v_tile, d_v, start, d_stride, k0, n_k, cos, sin, k_angles, tile.keys, false, tile,
        );
    }
}
