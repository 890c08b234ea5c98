//! A curve of a metric, in bounded memory.

/// Points beyond which neighbours are averaged.
const MAX_POINTS: usize = 4096;

/// Values of a metric over steps, in order of steps. Each point is the mean of the same number of values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    points: Vec<Point>,
    /// Values of a full point, beyond the first.
    more: u32,
    last: Option<(u64, f64)>,
    lowest: Option<(u64, f64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    /// The last step of its values.
    step: u64,
    sum: f64,
    n: u32,
}

impl Series {
    /// Adds a value. Values of this step and of later ones are replaced, as after resuming from an earlier step.
    pub(crate) fn push(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.truncate_before(step);
        match self.points.last_mut() {
            Some(point) if point.n <= self.more => {
                *point = Point { step, sum: point.sum + value, n: point.n + 1 };
            }
            Some(_) | None => self.points.push(Point { step, sum: value, n: 1 }),
        }
        self.last = Some((step, value));
        if self.lowest.is_none_or(|(_, lowest)| value < lowest) {
            self.lowest = self.last;
        }
        if self.points.len() > MAX_POINTS {
            self.halve();
        }
    }

    /// Removes the values of `step` and of later steps.
    pub(crate) fn truncate_before(&mut self, step: u64) {
        if self.last.is_none_or(|(last, _)| last < step) {
            return;
        }
        self.points.retain(|point| point.step < step);
        let means: Vec<(u64, f64)> = self.points().collect();
        self.last = means.last().copied();
        self.lowest = means.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    }

    /// Steps and mean values.
    pub(crate) fn points(&self) -> impl Iterator<Item = (u64, f64)> {
        self.points.iter().map(|point| (point.step, point.sum / f64::from(point.n)))
    }

    pub(crate) fn last(&self) -> Option<f64> {
        self.last.map(|(_, value)| value)
    }

    /// The lowest value with its step.
    pub(crate) fn lowest(&self) -> Option<(u64, f64)> {
        self.lowest
    }

    fn halve(&mut self) {
        let merged = self.points.chunks(2).map(|pair| {
            let step = pair.last().map_or(0, |point| point.step);
            let (sum, n) = pair.iter().fold((0.0, 0), |(sum, n), p| (sum + p.sum, n + p.n));
            Point { step, sum, n }
        });
        self.points = merged.collect();
        self.more = 2 * self.more + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_POINTS, Series};

    #[test]
    fn memory_is_bounded_and_points_are_spaced_evenly() {
        let mut series = Series::default();
        for step in 1..=100_000 {
            series.push(step, step as f64);
        }
        let points: Vec<(u64, f64)> = series.points().collect();
        assert!(points.len() <= MAX_POINTS && points.len() > MAX_POINTS / 2);
        assert_eq!((series.last(), series.lowest()), (Some(100_000.0), Some((1, 1.0))));
        let gaps = points.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(gaps.clone().all(|gap| gap <= 32), "{:?}", gaps.max());
        assert_eq!(points[0], (32, 16.5));
    }

    #[test]
    fn an_earlier_step_replaces_what_follows_it() {
        let mut series = Series::default();
        for step in [1, 2, 3, 4, 3] {
            series.push(step, 10.0 - step as f64);
        }
        series.push(5, f64::NAN);
        let points: Vec<(u64, f64)> = series.points().collect();
        assert_eq!(points, [(1, 9.0), (2, 8.0), (3, 7.0)]);
        assert_eq!(series.lowest(), Some((3, 7.0)));
    }
}
