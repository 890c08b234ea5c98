//! The axes of a chart: their ends, their ticks, and where a value is between them.

use crate::numbers::tick;

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    /// Values with their labels.
    pub(super) ticks: Vec<(f64, String)>,
}

/// The ratio of the largest to the smallest value from which a scale is logarithmic.
const LOG_RATIO: f64 = 100.0;

impl Axis {
    /// An axis of values between two ends, with about `n` ticks. `may_be_log` allows a logarithmic scale.
    pub(super) fn of_values(low: f64, high: f64, n: usize, may_be_log: bool) -> Self {
        if may_be_log && low > 0.0 && high / low >= LOG_RATIO {
            return Self::logarithmic(low, high);
        }
        let margin = if high > low { 0.0 } else { (low.abs() * 0.1).max(1e-6) };
        let (low, high) = (low - margin, high + margin);
        let step = nice((high - low) / n.max(1) as f64);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let n_ticks = (last - first).clamp(1.0, 20.0) as usize;
        let ticks = (0..=n_ticks).map(|idx| {
            let value = (first + idx as f64) * step;
            (value, tick(value, step))
        });
        Self {
            low: first * step,
            high: (first + n_ticks as f64) * step,
            is_log: false,
            ticks: ticks.collect(),
        }
    }

    /// An axis of step numbers that starts and ends with them.
    pub(super) fn of_steps(first: u64, last: u64) -> Self {
        let (low, high) = (first as f64, last.max(first + 1) as f64);
        let step = nice((high - low) / 4.0).max(1.0);
        let from = (low / step).ceil() as u64;
        let ticks = (from..from + 12)
            .map(|idx| idx as f64 * step)
            .take_while(|value| *value <= high)
            .map(|value| (value, tick(value, step)));
        let mut ticks: Vec<(f64, String)> = ticks.collect();
        // The first step has a label if there is space for it.
        if ticks.first().is_some_and(|(value, _)| (value - low) / (high - low) > 0.12) {
            ticks.insert(0, (low, tick(low, step.min(low.max(1.0)))));
        }
        Self { low, high, is_log: false, ticks }
    }

    fn logarithmic(low: f64, high: f64) -> Self {
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let every = ((last - first) / 5 + 1).max(1);
        let ticks = (first..=last).filter(|power| (power - first) % every == 0).map(|power| {
            let value = 10f64.powi(power);
            (value, tick(value, value))
        });
        Self {
            low: f64::from(first),
            high: f64::from(last.max(first + 1)),
            is_log: true,
            ticks: ticks.collect(),
        }
    }

    /// Part of the way from the low to the high end, 0 to 1.
    pub(super) fn part(&self, value: f64) -> f64 {
        let value = if self.is_log { value.log10() } else { value };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5, 10, … at or above a distance.
fn nice(distance: f64) -> f64 {
    if distance <= 0.0 || !distance.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(distance.log10().floor());
    let digit = distance / power;
    let digit = [1.0, 2.0, 5.0].into_iter().find(|nice| digit <= nice * 1.000_001);
    power * digit.unwrap_or(10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        let axis = Axis::of_values(3.37, 8.81, 4, true);
        assert_eq!(labels(&axis), ["2", "4", "6", "8", "10"]);
        assert!((axis.part(6.0) - 0.5).abs() < 1e-12);
        assert_eq!(labels(&Axis::of_values(0.5, 0.5, 4, true)), ["0.45", "0.50", "0.55"]);
        assert_eq!(
            labels(&Axis::of_values(0.002, 3.0, 4, true)),
            ["0.001", "0.01", "0.1", "1", "10"]
        );
        assert_eq!(labels(&Axis::of_steps(1, 380)), ["1", "100", "200", "300"]);
        assert_eq!(labels(&Axis::of_steps(1, 1)), ["1", "2"]);
    }

    #[test]
    fn extreme_values_have_a_finite_number_of_ticks() {
        for (low, high) in [(0.0, f64::MAX), (f64::MIN, f64::MAX), (1e-300, 1e300), (0.0, 1e-320)] {
            let axis = Axis::of_values(low, high, 4, true);
            assert!(axis.ticks.len() < 30 && axis.part(high) <= 1.0, "{low} {high}: {axis:?}");
        }
    }
}
