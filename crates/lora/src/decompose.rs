//! Decompositions of a weight into factors and a residual: PiSSA and OLoRA.
//!
//! Everything is computed in f64 by one thread in a fixed order, so that reading an adapter again gives the same residual to
//! the bit. Signs of singular vectors are free; the products do not depend on them.

use crate::eigen::{dot, largest_eigenpairs};

/// Factors of a weight `[m, n]` and what is left of it: W = residual + scale · B·A.
pub(crate) struct Factors {
    /// `[r, n]`
    pub(crate) a: Vec<f32>,
    /// `[m, r]`
    pub(crate) b: Vec<f32>,
    /// `[m, n]`
    pub(crate) residual: Vec<f32>,
}

/// PiSSA (Meng et al. 2024, equations 2 to 4): A = √(S/scale)·Vᵀ and B = U·√(S/scale) of the largest singular values.
pub(crate) fn pissa(weight: &[f32], [m, n]: [usize; 2], rank: usize, scale: f64) -> Factors {
    let is_wide = m <= n;
    let w: Vec<f64> = weight.iter().map(|x| f64::from(*x)).collect();
    // Singular values and vectors of the shorter side, from W·Wᵀ or Wᵀ·W.
    let short = if is_wide { w.clone() } else { transposed(&w, m, n) };
    let k = m.min(n);
    let pairs = largest_eigenpairs(gram(&short, k), k, rank);
    let largest = pairs.first().map_or(0.0, |(value, _)| value.max(0.0).sqrt());
    let (mut a, mut b) = (vec![0.0_f32; rank * n], vec![0.0_f32; m * rank]);
    for (idx, (value, vector)) in pairs.iter().enumerate() {
        let sigma = value.max(0.0).sqrt();
        // A weight of lower rank has nothing more to take out.
        if sigma <= largest * 1e-12 || sigma == 0.0 {
            continue;
        }
        let other: Vec<f64> = times_rows(vector, &short).into_iter().map(|x| x / sigma).collect();
        let (u, v) = if is_wide { (vector, &other) } else { (&other, vector) };
        let size = (sigma / scale).sqrt();
        for (a, v) in a[idx * n..(idx + 1) * n].iter_mut().zip(v) {
            *a = (size * v) as f32;
        }
        for (row, u) in u.iter().enumerate() {
            b[row * rank + idx] = (size * u) as f32;
        }
    }
    with_residual(&w, a, b, rank, scale)
}

/// OLoRA (Büyükakyüz 2024, section 3): B = Q and A = R of the first columns of the weight's QR decomposition, by Householder
/// reflections.
pub(crate) fn olora(weight: &[f32], [m, n]: [usize; 2], rank: usize, scale: f64) -> Factors {
    let w: Vec<f64> = weight.iter().map(|x| f64::from(*x)).collect();
    let mut columns: Vec<Vec<f64>> =
        (0..rank).map(|column| (0..m).map(|row| w[row * n + column]).collect()).collect();
    let mut reflections: Vec<Vec<f64>> = Vec::new();
    for step in 0..rank {
        let (done, rest) = columns.split_at_mut(step);
        debug_assert_eq!(done.len(), reflections.len());
        let Some((column, later)) = rest.split_first_mut() else { break };
        let reflection = householder(column, step);
        for column in later {
            reflect(&reflection, column);
        }
        reflections.push(reflection);
    }
    // Column j of Q is the product of all reflections with the unit vector j.
    let mut b = vec![0.0_f32; m * rank];
    let mut a = vec![0.0_f32; rank * n];
    for idx in 0..rank {
        let mut q = vec![0.0; m];
        q[idx] = 1.0;
        for reflection in reflections.iter().rev() {
            reflect(reflection, &mut q);
        }
        for (row, q) in q.iter().enumerate() {
            b[row * rank + idx] = *q as f32;
        }
        for (a, r) in a[idx * n..(idx + 1) * n].iter_mut().zip(times_rows(&q, &w)) {
            *a = r as f32;
        }
    }
    with_residual(&w, a, b, rank, scale)
}

/// The reflection that maps the column's part from `step` on to a multiple of the unit vector, of length √2, or zero.
fn householder(column: &[f64], step: usize) -> Vec<f64> {
    let mut reflection = vec![0.0; column.len()];
    reflection[step..].copy_from_slice(&column[step..]);
    let norm = dot(&reflection, &reflection).sqrt();
    // LAPACK's sign, which PEFT's decomposition has.
    reflection[step] += if column[step] < 0.0 { -norm } else { norm };
    let length = dot(&reflection, &reflection).sqrt();
    if length > 0.0 {
        for x in &mut reflection {
            *x *= std::f64::consts::SQRT_2 / length;
        }
    }
    reflection
}

/// x − v·(v·x), for v of length √2.
fn reflect(reflection: &[f64], x: &mut [f64]) {
    let product = dot(reflection, x);
    x.iter_mut().zip(reflection).for_each(|(x, v)| *x -= product * v);
}

fn with_residual(w: &[f64], a: Vec<f32>, b: Vec<f32>, rank: usize, scale: f64) -> Factors {
    let n = a.len() / rank.max(1);
    let mut residual = Vec::with_capacity(w.len());
    let mut row = vec![0.0; n];
    for (w, b) in w.chunks(n.max(1)).zip(b.chunks(rank.max(1))) {
        row.copy_from_slice(w);
        for (b, a) in b.iter().zip(a.chunks(n.max(1))) {
            let factor = scale * f64::from(*b);
            row.iter_mut().zip(a).for_each(|(x, a)| *x -= factor * f64::from(*a));
        }
        residual.extend(row.iter().map(|x| *x as f32));
    }
    Factors { a, b, residual }
}

/// W·Wᵀ of a matrix of `k` rows.
fn gram(w: &[f64], k: usize) -> Vec<f64> {
    let n = w.len() / k.max(1);
    let row = |idx: usize| &w[idx * n..(idx + 1) * n];
    let mut gram = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let value = dot(row(i), row(j));
            gram[i * k + j] = value;
            gram[j * k + i] = value;
        }
    }
    gram
}

/// xᵀ·W
fn times_rows(x: &[f64], w: &[f64]) -> Vec<f64> {
    let n = w.len() / x.len().max(1);
    let mut out = vec![0.0; n];
    for (x, row) in x.iter().zip(w.chunks(n.max(1))) {
        out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
    }
    out
}

fn transposed(w: &[f64], m: usize, n: usize) -> Vec<f64> {
    (0..n).flat_map(|column| (0..m).map(move |row| w[row * n + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::{Factors, dot, olora, pissa};

    fn waves(m: usize, n: usize) -> Vec<f32> {
        (0..m * n).map(|i| ((i * i) as f32 * 0.37).sin() + (i as f32 * 0.11).cos()).collect()
    }

    fn product(factors: &Factors, [m, n]: [usize; 2], rank: usize) -> Vec<f64> {
        let mut out = vec![0.0; m * n];
        for row in 0..m {
            for k in 0..rank {
                let b = f64::from(factors.b[row * rank + k]);
                for column in 0..n {
                    out[row * n + column] += b * f64::from(factors.a[k * n + column]);
                }
            }
        }
        out
    }

    #[test]
    fn factors_and_residual_add_up_to_the_weight() {
        for (m, n, rank, scale) in [(12, 30, 4, 2.0), (30, 12, 5, 0.5), (9, 9, 9, 1.0)] {
            let w = waves(m, n);
            for decompose in [pissa, olora] {
                let factors = decompose(&w, [m, n], rank, scale);
                let product = product(&factors, [m, n], rank);
                for ((w, r), p) in w.iter().zip(&factors.residual).zip(product) {
                    assert!((f64::from(*w) - f64::from(*r) - scale * p).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn pissa_leaves_the_least_that_a_product_of_its_rank_can() {
        // Eckart and Young: the squares of the residual add up to those of the singular values that are left. A matrix of
        // known singular values: a diagonal one between two reflections.
        let (m, n, rank) = (8, 11, 3);
        let sigma = [9.0, 7.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.25];
        let mut w = vec![0.0_f64; m * n];
        for (i, sigma) in sigma.iter().enumerate() {
            w[i * n + i] = *sigma;
        }
        let u: Vec<f64> = (0..m).map(|i| (i as f64 + 1.0).sin()).collect();
        let v: Vec<f64> = (0..n).map(|i| (i as f64 * 0.7 + 0.3).cos()).collect();
        let (uu, vv) = (dot(&u, &u), dot(&v, &v));
        for column in 0..n {
            let p: f64 = (0..m).map(|row| u[row] * w[row * n + column]).sum();
            (0..m).for_each(|row| w[row * n + column] -= 2.0 * p / uu * u[row]);
        }
        for row in w.chunks_mut(n) {
            let p = 2.0 * dot(row, &v) / vv;
            row.iter_mut().zip(&v).for_each(|(x, v)| *x -= p * v);
        }
        let w: Vec<f32> = w.iter().map(|x| *x as f32).collect();
        let factors = pissa(&w, [m, n], rank, 2.0);
        let left: f64 = factors.residual.iter().map(|x| f64::from(*x).powi(2)).sum();
        let expected: f64 = sigma[rank..].iter().map(|s| s * s).sum();
        assert!((left - expected).abs() < 1e-4, "{left} {expected}");
        // Rows of A have the squares σ/scale, and so have columns of B.
        for (idx, sigma) in sigma[..rank].iter().enumerate() {
            let a: f64 =
                factors.a[idx * n..(idx + 1) * n].iter().map(|x| f64::from(*x).powi(2)).sum();
            let b: f64 = (0..m).map(|row| f64::from(factors.b[row * rank + idx]).powi(2)).sum();
            assert!((a - sigma / 2.0).abs() < 1e-4 && (b - sigma / 2.0).abs() < 1e-4, "{a} {b}");
        }
    }

    #[test]
    fn olora_starts_with_orthonormal_columns_and_a_triangle() {
        let (m, n, rank) = (10, 14, 4);
        let w = waves(m, n);
        let factors = olora(&w, [m, n], rank, 1.0);
        for i in 0..rank {
            for j in 0..rank {
                let at = |row: usize, k: usize| f64::from(factors.b[row * rank + k]);
                let product: f64 = (0..m).map(|row| at(row, i) * at(row, j)).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-5);
                assert!(j >= i || factors.a[i * n + j].abs() < 1e-5);
            }
        }
    }

    #[test]
    fn weights_of_lower_rank_and_zeros() {
        let (m, n) = (6, 8);
        let rank_one: Vec<f32> =
            (0..m * n).map(|i| ((i / n) as f32 + 1.0) * (i % n) as f32).collect();
        for (w, left) in [(rank_one, 1e-4_f32), (vec![0.0; m * n], 0.0)] {
            for decompose in [pissa, olora] {
                let factors = decompose(&w, [m, n], 3, 2.0);
                assert!(factors.a.iter().chain(&factors.b).all(|x| x.is_finite()));
                assert!(factors.residual.iter().all(|x| x.is_finite()));
            }
            let factors = pissa(&w, [m, n], 3, 2.0);
            assert!(factors.residual.iter().all(|x| x.abs() <= left), "{:?}", factors.residual);
        }
    }
}
