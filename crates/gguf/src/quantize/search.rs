//! The search for scales of a group: a grid of candidate scales, each refined by weighted least squares.

/// Magnitude below which a group counts as zeros.
const NEGLIGIBLE: f32 = 1e-15;

/// Number of codes and candidate scales of a group with a minimum.
pub(super) struct Grid {
    /// The largest code.
    pub(super) max_code: u8,
    /// Offset of the first candidate from `max_code`.
    pub(super) first: f32,
    /// Number of steps of 0.1 after the first candidate.
    pub(super) n_steps: u8,
}

/// A scale, the amount that is subtracted from every element, and the codes.
pub(super) struct Fit {
    pub(super) scale: f32,
    pub(super) min: f32,
    /// Whole numbers.
    pub(super) codes: [f32; 32],
}

/// Finds scale s and minimum m ≥ 0 for codes c in `0..=max_code` such that Σ w (s c − m − x)² is small, where the
/// weight w of an element is the group's root mean square plus its magnitude.
pub(super) fn scale_and_min(values: &[f32; 32], grid: &Grid) -> Fit {
    let weights = weights(values);
    let (mut low, mut high) = (values[0], values[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * values[0]);
    for (x, w) in values.iter().zip(weights).skip(1) {
        low = low.min(*x);
        high = high.max(*x);
        sum_w += w;
        sum_x += w * x;
    }
    let low = low.min(0.0);
    if high == low {
        return Fit { scale: 0.0, min: -low, codes: [0.0; 32] };
    }
    let max_code = f32::from(grid.max_code);
    // Candidates start from the best minimum so far, as in ggml.
    let codes = |inverse: f32, min: f32| {
        values.map(|x| nearest(inverse * (x - min)).clamp(0, i32::from(grid.max_code)) as f32)
    };
    let error = |fit: &Fit| {
        let mut sum = 0.0;
        for ((code, x), w) in fit.codes.iter().zip(values).zip(weights) {
            let difference = fit.scale * code + fit.min - x;
            sum += w * (difference * difference);
        }
        sum
    };
    let inverse = max_code / (high - low);
    let mut best = Fit { scale: 1.0 / inverse, min: low, codes: codes(inverse, low) };
    let mut best_error = error(&best);
    for step in 0..=grid.n_steps {
        let inverse = (grid.first + 0.1 * f32::from(step) + max_code) / (high - best.min);
        let codes = codes(inverse, best.min);
        let Some(fit) = least_squares(codes, values, &weights, sum_w, sum_x) else { continue };
        let found = error(&fit);
        if found < best_error {
            best_error = found;
            best = fit;
        }
    }
    best.min = -best.min;
    best
}

/// Scale and minimum (here added, not subtracted) of smallest weighted error for given codes; none if all codes are equal.
fn least_squares(
    codes: [f32; 32],
    values: &[f32; 32],
    weights: &[f32; 32],
    sum_w: f32,
    sum_x: f32,
) -> Option<Fit> {
    let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
    for ((code, x), w) in codes.iter().zip(values).zip(weights) {
        sum_l += w * code;
        sum_l2 += w * code * code;
        sum_xl += w * code * x;
    }
    let determinant = sum_w * sum_l2 - sum_l * sum_l;
    if determinant <= 0.0 {
        return None;
    }
    let min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    Some(if min > 0.0 {
        Fit { scale: sum_xl / sum_l2, min: 0.0, codes }
    } else {
        Fit { scale: (sum_w * sum_xl - sum_x * sum_l) / determinant, min, codes }
    })
}

/// Finds a scale s for codes c in −32..32 such that Σ x² (s c − x)² is small. Returns both.
pub(super) fn signed_scale(values: &[f32; 16]) -> (f32, [f32; 16]) {
    const MAX: f32 = 32.0;
    let extreme = values
        .iter()
        .fold(0.0_f32, |extreme, x| if x.abs() > extreme.abs() { *x } else { extreme });
    if extreme.abs() < NEGLIGIBLE {
        return (0.0, [-MAX; 16]);
    }
    let codes = |inverse: f32| values.map(|x| nearest(inverse * x).clamp(-32, 31) as f32);
    let sums = |codes: &[f32; 16]| {
        let (mut sum_xl, mut sum_l2) = (0.0_f32, 0.0_f32);
        for (x, code) in values.iter().zip(codes) {
            let w = x * x;
            sum_xl += w * x * code;
            sum_l2 += w * code * code;
        }
        (sum_xl, sum_l2)
    };
    let mut best_codes = codes(-MAX / extreme);
    let (sum_xl, sum_l2) = sums(&best_codes);
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_xl / sum_l2 };
    let mut best = scale * sum_xl;
    for step in (-9_i8..=9).filter(|step| *step != 0) {
        let codes = codes(-(MAX + 0.1 * f32::from(step)) / extreme);
        let (sum_xl, sum_l2) = sums(&codes);
        if sum_l2 > 0.0 && sum_xl * sum_xl > best * sum_l2 {
            scale = sum_xl / sum_l2;
            best = scale * sum_xl;
            best_codes = codes;
        }
    }
    (scale, best_codes)
}

/// The nearest integer; ties go to the even one.
pub(super) fn nearest(x: f32) -> i32 {
    x.round_ties_even() as i32
}

fn weights(values: &[f32; 32]) -> [f32; 32] {
    let mut sum = 0.0;
    for x in values {
        sum += x * x;
    }
    let root_mean_square = (sum / 32.0).sqrt();
    values.map(|x| root_mean_square + x.abs())
}
