//! Curves in the terminal: a picture of dots with axes, and one-line forms. Without colour, so that they can be piped.

use report::Point;

/// A curve with its name.
pub(crate) struct Curve<'a> {
    pub(crate) label: String,
    pub(crate) points: &'a [Point],
}

/// Dots of a character cell across and down, and their bits in the block of Braille patterns.
const CELL: (usize, usize) = (2, 4);
const BITS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
/// Marks of the single points of a second curve, and of others.
const MARKS: [char; 4] = ['o', '+', 'x', '*'];
/// Heights of a one-line curve.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A picture of curves over steps, `rows` high. The first curve is a line, others are marks. Empty without any number.
pub(crate) fn plot(title: &str, curves: &[Curve<'_>], width: usize, rows: usize) -> String {
    let all = || curves.iter().flat_map(|curve| curve.points).filter(|p| p.value.is_finite());
    let (Some(first), Some(last)) = (all().map(|p| p.step).min(), all().map(|p| p.step).max())
    else {
        return String::new();
    };
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
        (low.min(point.value), high.max(point.value))
    });
    let labels = [shown(high), shown(f64::midpoint(low, high)), shown(low)];
    let margin = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let columns = width.saturating_sub(margin + 4).max(10);
    let mut canvas = Canvas::new(columns, rows, (first, last), (low, high));
    for (idx, curve) in curves.iter().enumerate() {
        let mark = idx.checked_sub(1).map(|idx| MARKS[idx % MARKS.len()]);
        match mark {
            None => canvas.line(curve.points),
            Some(mark) => canvas.marks(curve.points, mark),
        }
    }
    let mut text = format!("  {title}: {}\n", legend(curves));
    for (idx, row) in canvas.cells.iter().enumerate() {
        let label = match idx {
            0 => &labels[0],
            idx if idx + 1 == rows => &labels[2],
            idx if idx == rows / 2 => &labels[1],
            _ => "",
        };
        let row: String = row.iter().collect();
        text += format!("  {label:>margin$} ┤{row}").trim_end();
        text.push('\n');
    }
    let (first, last) = (first.to_string(), last.to_string());
    let gap = columns.saturating_sub(first.len() + last.len());
    text + &format!("  {:margin$}  {first}{}{last}\n", "", " ".repeat(gap))
}

/// Names of the curves with their first and last values.
fn legend(curves: &[Curve<'_>]) -> String {
    let parts = curves.iter().enumerate().map(|(idx, curve)| {
        let mark = idx.checked_sub(1).map(|idx| format!("{} ", MARKS[idx % MARKS.len()]));
        format!("{}{} {}", mark.unwrap_or_default(), curve.label, change(curve.points))
    });
    parts.collect::<Vec<_>>().join("   ")
}

/// `8.9 → 4.1`
fn change(points: &[Point]) -> String {
    let mut finite = points.iter().map(|point| point.value).filter(|value| value.is_finite());
    match (finite.next(), finite.next_back()) {
        (Some(first), Some(last)) => format!("{} → {}", shown(first), shown(last)),
        (Some(only), None) => shown(only),
        (None, _) => "-".to_owned(),
    }
}

fn shown(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size >= 1e3 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A grid of character cells over a range of steps and values.
struct Canvas {
    cells: Vec<Vec<char>>,
    steps: (u64, u64),
    values: (f64, f64),
}

impl Canvas {
    fn new(columns: usize, rows: usize, steps: (u64, u64), values: (f64, f64)) -> Self {
        Self { cells: vec![vec![' '; columns]; rows.max(1)], steps, values }
    }

    /// Dots across and down.
    fn size(&self) -> (usize, usize) {
        let columns = self.cells.first().map_or(0, Vec::len);
        (columns * CELL.0, self.cells.len() * CELL.1)
    }

    /// Column and row of a point in dots, from the top left.
    fn place(&self, point: Point) -> (usize, usize) {
        let (across, down) = self.size();
        let (first, last) = self.steps;
        let (low, high) = self.values;
        let x = (point.step - first) as f64 / (last - first).max(1) as f64;
        // Halved, because the range of the largest numbers is not finite.
        let range = high / 2.0 - low / 2.0;
        let y = if range > 0.0 { (point.value / 2.0 - low / 2.0) / range } else { 0.5 };
        let part = |part: f64, n: usize| (part.clamp(0.0, 1.0) * (n.max(1) - 1) as f64).round();
        (part(x, across) as usize, part(1.0 - y, down) as usize)
    }

    fn dot(&mut self, x: usize, y: usize) {
        let (Some(cell), Some(bit)) = (
            self.cells.get_mut(y / CELL.1).and_then(|row| row.get_mut(x / CELL.0)),
            BITS.get(x % CELL.0).and_then(|bits| bits.get(y % CELL.1)),
        ) else {
            return;
        };
        let pattern = u32::from(*cell).checked_sub(0x2800).filter(|pattern| *pattern < 0x100);
        *cell = char::from_u32(0x2800 + (pattern.unwrap_or(0) | bit)).unwrap_or(*cell);
    }

    /// Draws straight lines between adjacent points.
    fn line(&mut self, points: &[Point]) {
        let mut before: Option<(usize, usize)> = None;
        for point in points {
            if !point.value.is_finite() {
                before = None;
                continue;
            }
            let (x, y) = self.place(*point);
            let (from_x, from_y) = before.unwrap_or((x, y));
            let n = x.abs_diff(from_x).max(y.abs_diff(from_y)).max(1);
            let between = |a: usize, b: usize, k: usize| {
                (a as f64 + (b as f64 - a as f64) * k as f64 / n as f64).round() as usize
            };
            for k in 0..=n {
                self.dot(between(from_x, x, k), between(from_y, y, k));
            }
            before = Some((x, y));
        }
    }

    fn marks(&mut self, points: &[Point], mark: char) {
        for point in points.iter().filter(|point| point.value.is_finite()) {
            let (x, y) = self.place(*point);
            let cell = self.cells.get_mut(y / CELL.1).and_then(|row| row.get_mut(x / CELL.0));
            if let Some(cell) = cell {
                *cell = mark;
            }
        }
    }
}

/// A line for each curve: its name, its form, its first and last value.
pub(crate) fn sparklines<'a>(curves: impl IntoIterator<Item = Curve<'a>>, width: usize) -> String {
    let curves: Vec<Curve<'_>> = curves.into_iter().collect();
    let names = curves.iter().map(|curve| curve.label.chars().count()).max().unwrap_or(0);
    let names = names.min(width / 2);
    let values: Vec<String> = curves.iter().map(|curve| change(curve.points)).collect();
    let n_values = values.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let cells = width.saturating_sub(names + n_values + 6).clamp(8, 40);
    let lines = curves.iter().zip(values).map(|(curve, value)| {
        let name: String = curve.label.chars().take(names).collect();
        format!("  {name:<names$}  {:<cells$}  {value}\n", spark(curve.points, cells))
    });
    lines.collect()
}

/// Means of the points in at most `cells` groups as blocks of different heights.
fn spark(points: &[Point], cells: usize) -> String {
    let finite: Vec<f64> =
        points.iter().map(|point| point.value).filter(|value| value.is_finite()).collect();
    let size = finite.len().div_ceil(cells.max(1)).max(1);
    let means: Vec<f64> = finite
        .chunks(size)
        .map(|group| group.iter().map(|value| value / group.len() as f64).sum())
        .collect();
    let (low, high) =
        means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        });
    let last = BLOCKS.len() - 1;
    means
        .iter()
        .map(|mean| {
            let range = high / 2.0 - low / 2.0;
            let part = if range > 0.0 { (mean / 2.0 - low / 2.0) / range } else { 0.5 };
            let idx = (part * last as f64).round().clamp(0.0, last as f64) as usize;
            BLOCKS.get(idx).copied().unwrap_or(' ')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(n: u64, value: impl Fn(f64) -> f64) -> Vec<Point> {
        (1..=n).map(|step| Point { step, value: value(step as f64) }).collect()
    }

    #[test]
    fn a_curve_falls_and_validation_is_marked() {
        let loss = points(60, |step| 4.0 + 5.0 / step);
        let validation: Vec<Point> =
            [20, 40, 60].map(|step| Point { step, value: 4.5 - 0.001 * step as f64 }).to_vec();
        let curves = [
            Curve { label: "training".to_owned(), points: &loss },
            Curve { label: "validation".to_owned(), points: &validation },
        ];
        insta::assert_snapshot!(plot("Loss", &curves, 60, 6));
    }

    #[test]
    fn sparklines_are_aligned_and_extreme_values_are_no_problem() {
        let (a, b) = (points(100, |step| step), points(3, |_| 0.5));
        let wild = vec![
            Point { step: 1, value: f64::MAX },
            Point { step: 2, value: f64::NAN },
            Point { step: u64::MAX, value: f64::MIN },
        ];
        let curve = |label: &str, points| Curve { label: label.to_owned(), points };
        let curves = [curve("rising", &*a), curve("flat", &*b), curve("wild", &*wild)];
        insta::assert_snapshot!(sparklines(curves, 60));
        assert!(!plot("wild", &[curve("x", &wild)], 40, 4).is_empty());
        let lost = [Point { step: 1, value: f64::NAN }];
        assert_eq!(plot("lost", &[curve("x", &lost)], 40, 4), "");
        assert!(sparklines([curve("lost", &lost)], 60).contains('-'));
    }
}
