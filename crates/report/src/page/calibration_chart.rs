//! The calibration of a reward model as a picture and a table.

use super::html::{Html, table};
use crate::calibration::Calibration;
use crate::numbers::{counted, thousands};

/// Width and height of the drawing.
const SIZE: f64 = 1000.0;
/// Share of right choices at the bottom; at chance a model is right in half of the pairs.
const LOW: f64 = 0.0;

pub(super) fn calibration(calibration: &Calibration) -> Html {
    let n_pairs = calibration.n_pairs();
    let points: Vec<(f64, f64, u64)> = calibration
        .bins
        .iter()
        .filter_map(|bin| bin.point().map(|(confidence, right)| (confidence, right, bin.n)))
        .collect();
    if points.is_empty() {
        return Html::default();
    }
    let title = Html::tag("h3", "Calibration");
    let text = format!(
        "How often the choice between two answers is right, by the probability that the model gives to it: {} of validation at \
         step {}. A calibrated model is on the diagonal.",
        counted(n_pairs, "pair"),
        thousands(calibration.step)
    );
    let text = Html::class("p", "sub", Html::text(&text));
    let body =
        Html::class("div", "calibration", Html::all([picture(&points, n_pairs), rows(&points)]));
    Html::class("div", "part", Html::all([title, text, body])).line()
}

fn x_of(confidence: f64) -> f64 {
    SIZE * ((confidence - 0.5) / 0.5).clamp(0.0, 1.0)
}

fn y_of(right: f64) -> f64 {
    SIZE * (1.0 - ((right - LOW) / (1.0 - LOW)).clamp(0.0, 1.0))
}

fn picture(points: &[(f64, f64, u64)], n_pairs: u64) -> Html {
    let path = |class: &str, d: &str, style: &str| {
        Html::element("path", &[("class", class), ("d", d), ("style", style)], Html::default())
    };
    let shares = [0.0, 0.25, 0.5, 0.75, 1.0];
    let grid = shares.map(|share| path("", &format!("M0 {:.1}H1000", y_of(share)), ""));
    let mut svg = Html::class("g", "grid", Html::all(grid));
    svg.push(path("diagonal", &format!("M0 {:.1}L1000 0", y_of(0.5)), ""));
    let dots = points.iter().map(|(confidence, right, n)| {
        let (x, y) = (x_of(*confidence), y_of(*right));
        // The area of a dot is the number of its pairs.
        let width = 5.0 + 15.0 * (*n as f64 / n_pairs.max(1) as f64).sqrt();
        path("dot", &format!("M{x:.1} {y:.1}h0"), &format!("stroke-width:{width:.1}px"))
    });
    svg.push(Html::class("g", "c1", Html::all(dots)));
    let label = |side: &'static str, at: f64, text: &str| {
        let style = format!("{side}:{:.1}%", 100.0 * at);
        Html::element("span", &[("style", &style)], Html::text(text))
    };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let y = shares.map(|share| label("bottom", (share - LOW) / (1.0 - LOW), &percent(share)));
    let x = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0].map(|c| label("left", (c - 0.5) / 0.5, &percent(c)));
    let svg = Html::element(
        "svg",
        &[
            ("viewBox", "0 0 1000 1000"),
            ("preserveAspectRatio", "none"),
            ("role", "img"),
            (
                "aria-label",
                "share of right choices over their probability; the table has the numbers",
            ),
        ],
        svg,
    );
    let hidden = |class: &str, inner: Html| {
        Html::element("div", &[("class", class), ("aria-hidden", "true")], inner)
    };
    let plot = Html::all([hidden("y", Html::all(y)), svg, hidden("x", Html::all(x))]);
    let caption = Html::element(
        "figcaption",
        &[],
        Html::all([
            Html::tag("b", "Right choices"),
            Html::class("span", "key", Html::text("over their probability")),
        ]),
    );
    Html::class("figure", "chart", Html::all([caption, Html::class("div", "plot", plot)])).line()
}

fn rows(points: &[(f64, f64, u64)]) -> Html {
    let percent = |share: f64| Html::text(&format!("{:.1} %", 100.0 * share));
    let rows = points.iter().map(|(confidence, right, n)| {
        vec![percent(*confidence), percent(*right), Html::text(&thousands(*n))]
    });
    table("", &["Probability", "Right", "Pairs"], rows.collect(), &[0, 1, 2])
}
