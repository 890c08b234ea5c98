//! The largest eigenvalues of a symmetric matrix and their vectors, in f64.
//!
//! Householder reflections make the matrix tridiagonal; bisection on Sturm counts finds the eigenvalues, inverse iteration
//! the vectors (Golub and Van Loan, "Matrix Computations", sections 8.3 and 8.4). Only the wanted vectors are computed.

/// A symmetric tridiagonal matrix.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// Beside the diagonal, one shorter.
    beside: Vec<f64>,
}

/// The `count` largest eigenvalues of a symmetric matrix of `n` rows, largest first, each with a vector of length 1.
pub(crate) fn largest_eigenpairs(
    mut matrix: Vec<f64>,
    n: usize,
    count: usize,
) -> Vec<(f64, Vec<f64>)> {
    let (tridiagonal, reflections) = tridiagonalise(&mut matrix, n);
    let largest = tridiagonal.bound();
    let mut pairs: Vec<(f64, Vec<f64>)> = Vec::new();
    for idx in 0..count.min(n) {
        let value = tridiagonal.eigenvalue(idx, largest);
        let earlier: Vec<&[f64]> = pairs.iter().map(|(_, vector)| vector.as_slice()).collect();
        let vector = tridiagonal.eigenvector(value, largest, &earlier, idx);
        pairs.push((value, vector));
    }
    for (_, vector) in &mut pairs {
        for (start, reflection) in reflections.iter().rev() {
            let part = &mut vector[*start..];
            let product = dot(reflection, part);
            part.iter_mut().zip(reflection).for_each(|(x, v)| *x -= product * v);
        }
    }
    pairs
}

/// Reflects the matrix to tridiagonal form; returns the reflections, vectors of length √2 with their first index.
fn tridiagonalise(matrix: &mut [f64], n: usize) -> (Tridiagonal, Vec<(usize, Vec<f64>)>) {
    let mut reflections = Vec::new();
    for column in 0..n.saturating_sub(2) {
        let start = column + 1;
        let mut v: Vec<f64> = (start..n).map(|row| matrix[row * n + column]).collect();
        let norm = dot(&v, &v).sqrt();
        v[0] += if v[0] < 0.0 { -norm } else { norm };
        let length = dot(&v, &v).sqrt();
        if length == 0.0 {
            continue;
        }
        for x in &mut v {
            *x *= std::f64::consts::SQRT_2 / length;
        }
        // A ← H·A·H = A − v·wᵀ − w·vᵀ with w = A·v − (vᵀ·A·v / 2)·v.
        let mut w: Vec<f64> =
            (start..n).map(|row| dot(&matrix[row * n + start..(row + 1) * n], &v)).collect();
        let half = dot(&w, &v) / 2.0;
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= half * v);
        for (row, (v_row, w_row)) in (start..n).zip(v.iter().zip(&w)) {
            let out = &mut matrix[row * n + start..(row + 1) * n];
            for (out, (v, w)) in out.iter_mut().zip(v.iter().zip(&w)) {
                *out -= v_row * w + w_row * v;
            }
        }
        // The reflected column beside the diagonal.
        let beside = if v[0] < 0.0 { norm } else { -norm };
        matrix[start * n + column] = beside;
        reflections.push((start, v));
    }
    let diagonal = (0..n).map(|row| matrix[row * n + row]).collect();
    let beside = (1..n).map(|row| matrix[row * n + row - 1]).collect();
    (Tridiagonal { diagonal, beside }, reflections)
}

impl Tridiagonal {
    /// No eigenvalue has a larger magnitude (Gershgorin).
    fn bound(&self) -> f64 {
        let beside = |idx: usize| self.beside.get(idx).map_or(0.0, |x| x.abs());
        let rows = self.diagonal.iter().enumerate();
        let row = |(idx, x): (usize, &f64)| {
            x.abs() + beside(idx) + idx.checked_sub(1).map_or(0.0, beside)
        };
        rows.map(row).fold(0.0, f64::max)
    }

    /// Number of eigenvalues above `x` (Sturm's count).
    fn n_above(&self, x: f64, tiny: f64) -> usize {
        let (mut count, mut pivot) = (0, 1.0_f64);
        for (idx, diagonal) in self.diagonal.iter().enumerate() {
            let beside = idx.checked_sub(1).and_then(|idx| self.beside.get(idx)).unwrap_or(&0.0);
            pivot = diagonal - x - beside * beside / pivot;
            if pivot.abs() < tiny {
                pivot = -tiny;
            }
            count += usize::from(pivot > 0.0);
        }
        count
    }

    /// The eigenvalue with `idx` larger ones, by bisection to the last bits.
    fn eigenvalue(&self, idx: usize, bound: f64) -> f64 {
        let tiny = (bound * 1e-300).max(f64::MIN_POSITIVE);
        let (mut low, mut high) = (-bound, bound);
        for _ in 0..128 {
            let middle = f64::midpoint(low, high);
            if middle <= low || middle >= high {
                break;
            }
            if self.n_above(middle, tiny) > idx { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }

    /// A vector of length 1 for an eigenvalue, orthogonal to `earlier` ones.
    fn eigenvector(&self, value: f64, bound: f64, earlier: &[&[f64]], idx: usize) -> Vec<f64> {
        let n = self.diagonal.len();
        // A start that is orthogonal to no eigenvector, but for bad luck.
        let mut x: Vec<f64> =
            (0..n).map(|i| 1.0 + (i as f64 * 1.3 + idx as f64 * 0.7).sin() / 2.0).collect();
        for _ in 0..4 {
            self.solve(value, bound, &mut x);
            // Twice is enough (Parlett): close eigenvalues share their vectors' directions.
            for _ in 0..2 {
                for other in earlier {
                    let product = dot(other, &x);
                    x.iter_mut().zip(*other).for_each(|(x, v)| *x -= product * v);
                }
            }
            let length = dot(&x, &x).sqrt();
            if length > 0.0 {
                for x in &mut x {
                    *x /= length;
                }
            }
        }
        x
    }

    /// Solves (T − value)·y = x in place, by elimination with row exchanges; a zero pivot becomes a tiny one.
    fn solve(&self, value: f64, bound: f64, x: &mut [f64]) {
        let n = x.len();
        let tiny = (bound * f64::EPSILON).max(f64::MIN_POSITIVE);
        // Rows of the upper triangle: the pivot and two elements beside it.
        let mut rows: Vec<[f64; 3]> = Vec::with_capacity(n);
        let beside = |idx: usize| self.beside.get(idx).copied().unwrap_or(0.0);
        let mut current = [self.diagonal.first().map_or(0.0, |d| d - value), beside(0), 0.0];
        for idx in 0..n {
            let Some(next_diagonal) = self.diagonal.get(idx + 1) else {
                rows.push(current);
                break;
            };
            let mut next = [beside(idx), next_diagonal - value, beside(idx + 1)];
            if next[0].abs() > current[0].abs() {
                std::mem::swap(&mut current, &mut next);
                x.swap(idx, idx + 1);
            }
            if current[0].abs() < tiny {
                current[0] = tiny;
            }
            let factor = next[0] / current[0];
            x[idx + 1] -= factor * x[idx];
            rows.push(current);
            current = [next[1] - factor * current[1], next[2] - factor * current[2], 0.0];
        }
        for idx in (0..n).rev() {
            let [pivot, first, second] = rows[idx];
            let pivot = if pivot.abs() < tiny { tiny } else { pivot };
            let later = |k: usize| x.get(idx + k).copied().unwrap_or(0.0);
            x[idx] = (x[idx] - first * later(1) - second * later(2)) / pivot;
        }
        // Kept in range for the next solution.
        let largest = x.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
        if largest > 0.0 && largest.is_finite() {
            for x in &mut *x {
                *x /= largest;
            }
        }
    }
}

/// The product of two vectors.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    // Eight sums at once: the compiler may not reorder one.
    let mut sums = [0.0; 8];
    let (xs, x_rest) = x.as_chunks::<8>();
    let (ys, y_rest) = y.as_chunks::<8>();
    for (x, y) in xs.iter().zip(ys) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::{dot, largest_eigenpairs};

    fn symmetric(n: usize, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        (0..n * n).map(|i| value((i / n).max(i % n), (i / n).min(i % n))).collect()
    }

    #[test]
    fn pairs_are_eigenpairs_orthonormal_and_the_largest() {
        for n in [1, 2, 3, 17, 40] {
            let matrix =
                symmetric(n, |i, j| ((i * 7 + j * 3) as f64).sin() + (i + j) as f64 * 0.01);
            let pairs = largest_eigenpairs(matrix.clone(), n, n);
            for (idx, (value, vector)) in pairs.iter().enumerate() {
                for (row, x) in matrix.chunks(n).zip(vector) {
                    assert!((dot(row, vector) - value * x).abs() < 1e-9, "{n} {idx}");
                }
                for (_, other) in &pairs[..idx] {
                    assert!(dot(vector, other).abs() < 1e-9);
                }
                assert!((dot(vector, vector) - 1.0).abs() < 1e-12);
            }
            assert!(pairs.windows(2).all(|pair| pair[0].0 >= pair[1].0 - 1e-12));
            let trace: f64 = (0..n).map(|i| matrix[i * n + i]).sum();
            let sum: f64 = pairs.iter().map(|(value, _)| value).sum();
            assert!((trace - sum).abs() < 1e-9);
        }
    }

    #[test]
    fn equal_eigenvalues_get_orthogonal_vectors() {
        // 5 three times, then 1: a multiple of the identity plus a matrix of rank 3 in other coordinates.
        let n = 12;
        let v: Vec<Vec<f64>> = (0..3)
            .map(|k| (0..n).map(|i| f64::from(u8::from(i % 3 == k)) / 2.0).collect())
            .collect();
        let matrix = symmetric(n, |i, j| {
            let low_rank: f64 = v.iter().map(|v| 4.0 * v[i] * v[j]).sum();
            low_rank + f64::from(u8::from(i == j))
        });
        let pairs = largest_eigenpairs(matrix, n, 4);
        for (idx, (value, vector)) in pairs.iter().enumerate() {
            let expected = if idx < 3 { 5.0 } else { 1.0 };
            assert!((value - expected).abs() < 1e-9, "{value}");
            for (_, other) in &pairs[..idx] {
                assert!(dot(vector, other).abs() < 1e-9);
            }
        }
    }
}
