//! A plot of metrics over the number of few-shot examples, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 48.0;
/// Colours that differ for most kinds of colour vision (Okabe and Ito 2008).
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// A metric at several numbers of examples.
pub(crate) struct Line {
    /// Name in the legend.
    pub(crate) name: String,
    /// Number of examples, value, and 95 % interval.
    pub(crate) points: Vec<(usize, f64, Option<(f64, f64)>)>,
}

/// The plot. Intervals are vertical bars. Numbers of examples are spaced evenly. Values that are not finite are left out.
pub(crate) fn svg(lines: &[Line]) -> String {
    let mut shots: Vec<usize> =
        lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    shots.sort_unstable();
    shots.dedup();
    let ends = lines.iter().flat_map(|line| &line.points).flat_map(|(_, value, interval)| {
        let (low, high) = interval.unwrap_or((*value, *value));
        [low, high]
    });
    let (low, high) = range(ends.filter(|end| end.is_finite()));
    let n = shots.len();
    let x_of = |k: usize| {
        let at = shots.iter().position(|shots| *shots == k).unwrap_or(0);
        let part = if n > 1 { at as f64 / (n - 1) as f64 } else { 0.5 };
        LEFT + part * (WIDTH - LEFT - RIGHT)
    };
    let y_of =
        |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for tick in 0..=4 {
        let value = low + (high - low) * f64::from(tick) / 4.0;
        let (y, right) = (y_of(value), WIDTH - RIGHT);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            tick_text(value)
        );
    }
    for k in &shots {
        let (x, y) = (x_of(*k), HEIGHT - BOTTOM + 18.0);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{k}</text>");
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    let _ = writeln!(
        out,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">examples in the prompt</text>",
        HEIGHT - 10.0
    );
    for (idx, line) in lines.iter().enumerate() {
        let colour = COLOURS[idx % COLOURS.len()];
        let mut path = String::new();
        let points = line.points.iter().filter(|(_, value, _)| value.is_finite());
        for (at, (k, value, interval)) in points.enumerate() {
            let (x, y) = (x_of(*k), y_of(*value));
            let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
            if let Some((low, high)) = interval {
                let (from, to) = (y_of(*low), y_of(*high));
                let _ =
                    writeln!(out, "<path d=\"M{x:.1} {from:.1}V{to:.1}\" stroke=\"{colour}\"/>");
            }
            let _ =
                writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 8.0 + 18.0 * idx as f64);
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>",
            escaped(&line.name)
        );
    }
    out + "</svg>\n"
}

/// Ends of the axis: the values with a margin, or around a single one.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    let margin = if high > low { (high - low) * 0.05 } else { low.abs().max(1.0) * 0.1 };
    (low - margin, high + margin)
}

fn tick_text(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Line, svg};

    #[test]
    fn lines_have_points_bars_and_names() {
        let points = vec![(0, 0.25, Some((0.2, 0.3))), (4, 0.5, Some((0.45, 0.55)))];
        let lines = [
            Line { name: "arc_easy acc".to_owned(), points },
            Line { name: "a<b & c".to_owned(), points: vec![(4, f64::NAN, None), (16, 0.4, None)] },
        ];
        insta::assert_snapshot!(svg(&lines));
    }
}
