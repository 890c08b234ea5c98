//! A chart of metrics over steps: inline SVG with labels in HTML around it, so that text keeps its size at every width.

use super::axis::Axis;
use super::html::Html;
use super::thinned::{Bucket, smoothed, thinned};
use crate::metrics::{Phase, Point};
use crate::numbers::{thousands, value};
use crate::panels::{Panel, PanelLine};

/// Width and height of the drawing, which is stretched to the space that it has.
const SIZE: f64 = 1000.0;
/// Points from which a curve is smoothed, and drawn twice.
const SMOOTHED_FROM: usize = 40;
/// Columns of a chart that show their values to the mouse.
const MOST_COLUMNS: usize = 90;
/// Points of at most so many steps are drawn as dots.
const MOST_DOTS: usize = 40;

/// A figure with the lines of a panel; empty if no value is a number.
pub(super) fn chart(panel: &Panel<'_>, is_large: bool) -> Html {
    let points = || panel.lines.iter().flat_map(|line| line.series.points.iter());
    let finite = || points().filter(|point| point.value.is_finite());
    let (Some(first), Some(last)) =
        (finite().map(|point| point.step).min(), finite().map(|point| point.step).max())
    else {
        return Html::default();
    };
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
        (low.min(point.value), high.max(point.value))
    });
    let x = Axis::of_steps(first, last);
    let y = Axis::of_values(low, high, if is_large { 5 } else { 3 }, panel.may_be_logarithmic());
    let drawing = Drawing { x, y };
    let mut svg = drawing.grid();
    for (line, colour) in panel.lines.iter().zip(colours(panel)) {
        svg.push(drawing.line(line, &colour));
    }
    svg.push(drawing.columns(panel));
    let label = description(panel);
    let svg = Html::element(
        "svg",
        &[
            ("viewBox", "0 0 1000 1000"),
            ("preserveAspectRatio", "none"),
            ("role", "img"),
            ("aria-label", &label),
        ],
        svg,
    );
    let area = Html::all([drawing.y_labels(), svg, drawing.x_labels()]);
    let class = if is_large { "chart large" } else { "chart" };
    let inner = Html::all([caption(panel), Html::class("div", "plot", area), lost(panel)]);
    Html::class("figure", class, inner).line()
}

/// Classes of the lines' colours: the first of training and the first of validation have the same in all pictures.
fn colours(panel: &Panel<'_>) -> Vec<String> {
    let (mut n_training, mut n_validation, mut n_others) = (0, 0, 0);
    let lines = panel.lines.iter().map(|line| {
        let n = match line.series.phase {
            Phase::Training => &mut n_training,
            Phase::Validation => &mut n_validation,
        };
        *n += 1;
        match (*n, line.series.phase) {
            (1, Phase::Training) => "c1".to_owned(),
            (1, Phase::Validation) => "c2".to_owned(),
            _ => {
                n_others += 1;
                format!("c{}", 2 + (n_others - 1) % 4 + 1)
            }
        }
    });
    lines.collect()
}

/// Title and legend with the last values.
fn caption(panel: &Panel<'_>) -> Html {
    let mut caption = Html::tag("b", &panel.title);
    for (line, colour) in panel.lines.iter().zip(colours(panel)) {
        let last = line.series.last().map(|point| value(point.value)).unwrap_or_default();
        let swatch = Html::class("i", &colour, Html::default());
        let name = Html::text(&format!("{} ", line.label));
        caption.push(Html::class(
            "span",
            "key",
            Html::all([swatch, name, Html::tag("strong", &last)]),
        ));
    }
    Html::element("figcaption", &[], caption)
}

/// A line of text for values that are no numbers, which no curve shows.
fn lost(panel: &Panel<'_>) -> Html {
    let lost = panel.lines.iter().find_map(|line| {
        let at = line.series.points.iter().find(|point| !point.value.is_finite())?;
        Some(format!("{}: not a number at step {}", line.series.name, thousands(at.step)))
    });
    lost.map_or_else(Html::default, |text| Html::class("p", "bad", Html::text(&text)))
}

/// The chart in words, for readers that show no pictures.
fn description(panel: &Panel<'_>) -> String {
    let lines = panel.lines.iter().filter_map(|line| {
        let (first, last) = (line.series.first()?, line.series.last()?);
        Some(format!(
            "{} from {} at step {} to {} at step {}",
            line.label,
            value(first.value),
            first.step,
            value(last.value),
            last.step
        ))
    });
    format!("{}: {}", panel.title, lines.collect::<Vec<_>>().join("; "))
}

/// The axes of a chart.
struct Drawing {
    x: Axis,
    y: Axis,
}

impl Drawing {
    fn place(&self, point: Point) -> (f64, f64) {
        (SIZE * self.x.part(point.step as f64), SIZE * (1.0 - self.y.part(point.value)))
    }

    fn grid(&self) -> Html {
        let lines = self.y.ticks.iter().map(|(at, _)| {
            let y = SIZE * (1.0 - self.y.part(*at));
            Html::element("path", &[("d", &format!("M0 {y:.1}H1000"))], Html::default())
        });
        Html::class("g", "grid", Html::all(lines))
    }

    fn y_labels(&self) -> Html {
        let labels = self.y.ticks.iter().map(|(at, label)| {
            let style = format!("bottom:{:.1}%", 100.0 * self.y.part(*at));
            Html::element("span", &[("style", &style)], Html::text(label))
        });
        Html::element("div", &[("class", "y"), ("aria-hidden", "true")], Html::all(labels))
    }

    fn x_labels(&self) -> Html {
        let labels = self.x.ticks.iter().map(|(at, label)| {
            let style = format!("left:{:.1}%", 100.0 * self.x.part(*at));
            Html::element("span", &[("style", &style)], Html::text(label))
        });
        Html::element("div", &[("class", "x"), ("aria-hidden", "true")], Html::all(labels))
    }

    /// A curve: a band and a faint line where there are many points, a smooth line over it, dots where there are few.
    fn line(&self, line: &PanelLine<'_>, colour: &str) -> Html {
        let buckets = thinned(&line.series.points);
        let means: Vec<Point> = buckets.iter().map(|bucket| bucket.mean).collect();
        let n_points = line.series.points.iter().filter(|point| point.value.is_finite()).count();
        let mut out = Html::default();
        if buckets.iter().any(|bucket| bucket.low < bucket.high) {
            out.push(self.band(&buckets));
        }
        let is_training = line.series.phase == Phase::Training;
        if n_points >= SMOOTHED_FROM && is_training && is_noisy(&means) {
            out.push(self.path(&means, "faint"));
            out.push(self.path(&smoothed(&means), "line"));
        } else {
            out.push(self.path(&means, "line"));
            if n_points <= MOST_DOTS {
                out.push(self.dots(&means));
            }
        }
        Html::class("g", colour, out)
    }

    fn path(&self, points: &[Point], class: &str) -> Html {
        let mut d = String::new();
        let mut pen_is_down = false;
        for point in points {
            if !point.value.is_finite() {
                pen_is_down = false;
                continue;
            }
            let (x, y) = self.place(*point);
            d += &format!("{}{x:.1} {y:.1}", if pen_is_down { "L" } else { "M" });
            pen_is_down = true;
        }
        Html::element("path", &[("class", class), ("d", &d)], Html::default())
    }

    /// The range of the values that each bucket stands for.
    fn band(&self, buckets: &[Bucket]) -> Html {
        let finite: Vec<&Bucket> =
            buckets.iter().filter(|bucket| bucket.mean.value.is_finite()).collect();
        let mut d = String::new();
        let end = |bucket: &Bucket, value: f64| self.place(Point { step: bucket.mean.step, value });
        let upper = finite.iter().map(|bucket| end(bucket, bucket.high));
        let lower = finite.iter().rev().map(|bucket| end(bucket, bucket.low));
        for (idx, (x, y)) in upper.chain(lower).enumerate() {
            d += &format!("{}{x:.1} {y:.1}", if idx == 0 { "M" } else { "L" });
        }
        Html::element("path", &[("class", "band"), ("d", &(d + "Z"))], Html::default())
    }

    /// Dots as lines without length, which stay round when the drawing is stretched.
    fn dots(&self, points: &[Point]) -> Html {
        let finite = points.iter().filter(|point| point.value.is_finite());
        let mut d = String::new();
        for point in finite {
            let (x, y) = self.place(*point);
            d += &format!("M{x:.1} {y:.1}h0");
        }
        Html::element("path", &[("class", "dot"), ("d", &d)], Html::default())
    }

    /// Columns that name the values at their step when the mouse is over them.
    fn columns(&self, panel: &Panel<'_>) -> Html {
        let mut steps: Vec<u64> = panel
            .lines
            .iter()
            .flat_map(|line| line.series.points.iter().map(|point| point.step))
            .collect();
        steps.sort_unstable();
        steps.dedup();
        let every = steps.len().div_ceil(MOST_COLUMNS).max(1);
        let steps: Vec<u64> = steps.into_iter().step_by(every).collect();
        let half = SIZE / (2.0 * steps.len().max(1) as f64);
        let columns = steps.iter().map(|step| {
            let x = SIZE * self.x.part(*step as f64) - half;
            let title = Html::tag("title", &values_at(panel, *step));
            let attributes = [("x", format!("{x:.1}")), ("width", format!("{:.1}", 2.0 * half))];
            let [x, width] = attributes.each_ref().map(|(key, value)| (*key, value.as_str()));
            Html::element("rect", &[x, width, ("height", "1000")], title)
        });
        Html::class("g", "columns", Html::all(columns))
    }
}

/// Whether a curve changes its direction often enough for a smooth line to help.
fn is_noisy(points: &[Point]) -> bool {
    let steps = points.windows(2).filter_map(|pair| match pair {
        [a, b] => Some(b.value - a.value),
        _ => None,
    });
    let signs: Vec<f64> = steps.filter(|step| step.abs() > 0.0).map(f64::signum).collect();
    let n_turns = signs.windows(2).filter(|pair| pair.first() != pair.last()).count();
    n_turns * 5 > points.len()
}

fn values_at(panel: &Panel<'_>, step: u64) -> String {
    let mut text = format!("step {}", thousands(step));
    for line in &panel.lines {
        if let Some(point) = line.series.points.iter().find(|point| point.step == step) {
            text += &format!("\n{}: {}", line.label, value(point.value));
        }
    }
    text
}
