//! The gradient of a table's rows, without atomics: the first position of each id sums the gradients of all its positions,
//! in order.
//!
//! For n ids of width d into v rows: 4·n·d bytes of gradients read, 4·v·d zeros and 4·d for each id that occurs written, and n
//! ids compared for each of them, from the cache. 16,384 ids of width 768 into 50,257 rows move at least 200 MB: 61 µs at
//! 3.35 TB/s (H100), 43 µs at 4.8 TB/s (H200).

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::launch::{as_i32, grid, units_for, zeros};

/// Gradient `[v, d]` of a table from that of its gathered rows, `[.., d]` for as many ids.
pub fn backward(d_rows: CubeTensor, ids: CubeTensor, v: usize) -> CubeTensor {
    let (d_rows, ids) = (into_contiguous(d_rows), as_i32(ids));
    let n: usize = ids.meta.shape().iter().product();
    let d = d_rows.meta.shape().last().copied().unwrap_or(1);
    let grad = zeros(&d_rows, [v, d]);
    if n * d == 0 {
        return grad;
    }
    let (client, units) = (d_rows.client.clone(), units_for(d));
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: ids below n and columns below d, of tensors of these shapes; rows of ids, which are below v.
    unsafe {
        embedding_backward_kernel::launch_unchecked(
            &client,
            grid(n),
            CubeDim::new_1d(units as u32),
            d_rows.into_tensor_arg(),
            ids.into_tensor_arg(),
            grad.clone().into_tensor_arg(),
            n as u32,
            d as u32,
            units,
        );
    }
    grad
}

/// One cube per position. Units compare as many ids at once as there are units.
#[cube(launch_unchecked)]
fn embedding_backward_kernel(
    d_rows: &Tensor<f32>,
    ids: &Tensor<i32>,
    grad: &mut Tensor<f32>,
    n: u32,
    d: u32,
    #[comptime] units: usize,
) {
    let mut equal = Shared::<[u32]>::new_slice(units);
    let mut found = Shared::<[u32]>::new_slice(1usize);
    let (n, d) = (n as usize, d as usize);
    let position = CUBE_POS;
    if position < n {
        let id = ids[position];
        let unit = UNIT_POS as usize;

        // Whether an earlier position has this id. Units write one value, so their order does not matter.
        if unit == 0 {
            found[0] = 0u32;
        }
        sync_cube();
        let mut at = unit;
        while at < position {
            if ids[at] == id {
                found[0] = 1u32;
            }
            at += units;
        }
        sync_cube();
        // The same for all units.
        if found[0] == 0u32 {
            let mut start = position;
            while start < n {
                sync_cube();
                if unit == 0 {
                    found[0] = 0u32;
                }
                sync_cube();
                let mut is_equal = 0u32;
                if start + unit < n {
                    if ids[start + unit] == id {
                        is_equal = 1u32;
                        found[0] = 1u32;
                    }
                }
                equal[unit] = is_equal;
                sync_cube();
                if found[0] == 1u32 {
                    let mut column = unit;
                    while column < d {
                        let mut sum = grad[id as usize * d + column];
                        for i in 0..units {
                            if equal[i] == 1u32 {
                                sum += d_rows[(start + i) * d + column];
                            }
                        }
                        grad[id as usize * d + column] = sum;
                        column += units;
                    }
                }
                start += units;
            }
        }
    }
}
