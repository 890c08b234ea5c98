//! Fewer points for a curve than its log has: means with their ranges, and a smooth form.

use crate::metrics::Point;

/// Points that a curve has at most.
const MOST_POINTS: usize = 300;

/// Adjacent points as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    /// Mean of the values, at the middle step.
    pub(super) mean: Point,
    /// Smallest value.
    pub(super) low: f64,
    /// Largest value.
    pub(super) high: f64,
}

/// The points in at most [`MOST_POINTS`] buckets of equal size. A bucket without any number has the mean NaN.
pub(super) fn thinned(points: &[Point]) -> Vec<Bucket> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    points.chunks(size).filter_map(bucket).collect()
}

fn bucket(points: &[Point]) -> Option<Bucket> {
    let step = points.get(points.len() / 2)?.step;
    let finite: Vec<f64> =
        points.iter().map(|point| point.value).filter(|value| value.is_finite()).collect();
    if finite.is_empty() {
        let mean = Point { step, value: f64::NAN };
        return Some(Bucket { mean, low: f64::NAN, high: f64::NAN });
    }
    let n = finite.len() as f64;
    let (mut value, mut low, mut high) = (0.0, f64::INFINITY, f64::NEG_INFINITY);
    for of in &finite {
        // Divided first: a sum of large values may not be finite.
        value += of / n;
        (low, high) = (low.min(*of), high.max(*of));
    }
    Some(Bucket { mean: Point { step, value }, low, high })
}

/// Means around each point, weighted by a triangle as wide as a tenth of the points, so that the smooth curve does not lag behind.
pub(super) fn smoothed(points: &[Point]) -> Vec<Point> {
    let reach = (points.len() / 20).max(2);
    let mean = |idx: usize| {
        // Narrower at both ends, so that it stays in the middle of its points.
        let reach = reach.min(idx).min(points.len() - 1 - idx);
        let (from, to) = (idx - reach, idx + reach);
        let (mut sum, mut weight) = (0.0, 0.0);
        for (at, point) in points.iter().enumerate().take(to + 1).skip(from) {
            if point.value.is_finite() {
                let part = (reach + 1 - at.abs_diff(idx)) as f64;
                sum += part * point.value;
                weight += part;
            }
        }
        sum / weight
    };
    let place = points.iter().enumerate();
    let smooth = place.map(|(idx, point)| {
        let is_number = point.value.is_finite();
        Point { step: point.step, value: if is_number { mean(idx) } else { point.value } }
    });
    smooth.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_keep_means_and_ranges() {
        let points: Vec<Point> =
            (0..900).map(|step| Point { step, value: (step % 3) as f64 }).collect();
        let buckets = thinned(&points);
        assert_eq!(buckets.len(), 300);
        let first = buckets[0];
        assert_eq!((first.mean.step, first.low, first.high), (1, 0.0, 2.0));
        assert!((first.mean.value - 1.0).abs() < 1e-12);
        assert_eq!(thinned(&points[..2]).len(), 2);
        let lost = [Point { step: 0, value: f64::NAN }];
        assert!(thinned(&lost)[0].mean.value.is_nan());
    }

    #[test]
    fn a_constant_stays_constant_when_smoothed() {
        let points: Vec<Point> = (0..50).map(|step| Point { step, value: 3.0 }).collect();
        assert!(smoothed(&points).iter().all(|point| (point.value - 3.0).abs() < 1e-12));
    }
}
