//! The result of a replay: the largest difference of each quantity, and whether it is within tolerance.

use serde_json::{Map, Value, json};

/// The largest accepted difference from a reference: `absolute + relative × largest reference value`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// The part that does not depend on the values.
    pub absolute: f64,
    /// The factor of the tensor's largest reference value.
    pub relative: f64,
}

impl Tolerance {
    /// Logits and hidden states against the reference implementation.
    pub(crate) const LOGITS: Self = Self { absolute: 1e-5, relative: 3e-6 };
    /// Each gradient tensor against the reference implementation.
    pub(crate) const GRADIENTS: Self = Self { absolute: 1e-6, relative: 3e-6 };

    /// Bounds a number by `tolerance`, relative to its size above 1: an f32 of 100 has a resolution of 8e-6.
    pub(crate) fn of_number(tolerance: f64, expected: f64) -> f64 {
        tolerance * expected.abs().max(1.0)
    }

    /// An absolute tolerance.
    pub const fn absolute(absolute: f64) -> Self {
        Self { absolute, relative: 0.0 }
    }

    fn bound(self, expected: &[f32]) -> f64 {
        let finite = expected.iter().map(|x| f64::from(x.abs())).filter(|x| x.is_finite());
        let largest = finite.fold(0.0, f64::max);
        self.absolute + self.relative * largest
    }
}

/// One quantity of a replay: its largest difference from the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// Its name.
    pub name: String,
    /// The difference that is largest relative to its tolerance; NaN if either side was NaN.
    pub largest_difference: f64,
    /// The tolerance of that difference.
    pub tolerance: f64,
    /// The tensor, row or step of that difference, if the quantity has several.
    pub at: Option<String>,
    /// Number of values compared.
    pub n_compared: usize,
}

impl Quantity {
    /// A quantity without comparisons, which fails until something is compared.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            largest_difference: 0.0,
            tolerance: 0.0,
            at: None,
            n_compared: 0,
        }
    }

    /// A quantity of one number; `tolerance` is relative above 1.
    pub(crate) fn number(name: &str, got: f64, expected: f64, tolerance: f64) -> Self {
        let mut quantity = Self::new(name);
        let tolerance = Tolerance::of_number(tolerance, expected);
        quantity.add_difference(None, (got - expected).abs(), tolerance, 1);
        quantity
    }

    /// A quantity that counts mistakes; the tolerance is 0.
    pub(crate) fn mistakes(name: &str, n_mistakes: usize, n_compared: usize) -> Self {
        let mut quantity = Self::new(name);
        quantity.add_difference(None, n_mistakes as f64, 0.0, n_compared);
        quantity
    }

    /// Adds one tensor, named `at` if there are several. Different lengths are an infinite difference.
    pub(crate) fn add(&mut self, at: &str, got: &[f32], expected: &[f32], tolerance: Tolerance) {
        let difference = if got.len() == expected.len() {
            largest_difference(got, expected)
        } else {
            f64::INFINITY
        };
        let at = Some(at).filter(|at| !at.is_empty());
        self.add_difference(at, difference, tolerance.bound(expected), expected.len());
    }

    /// Adds a difference.
    pub(crate) fn add_difference(
        &mut self,
        at: Option<&str>,
        difference: f64,
        tolerance: f64,
        n_compared: usize,
    ) {
        if self.n_compared == 0 || excess(difference, tolerance) > self.excess() {
            self.largest_difference = difference;
            self.tolerance = tolerance;
            self.at = at.map(str::to_owned);
        }
        self.n_compared += n_compared;
    }

    /// Whether something was compared and all differences are within tolerance. An infinite reference bounds nothing.
    pub fn passed(&self) -> bool {
        self.n_compared > 0
            && self.tolerance.is_finite()
            && self.largest_difference <= self.tolerance
    }

    fn excess(&self) -> f64 {
        excess(self.largest_difference, self.tolerance)
    }

    fn to_json(&self) -> Value {
        let mut fields = json!({
            "largest_difference": rounded(self.largest_difference),
            "tolerance": rounded(self.tolerance),
        });
        if let (Some(at), Some(fields)) = (&self.at, fields.as_object_mut()) {
            fields.insert("at".to_owned(), json!(at));
        }
        if let (false, Some(fields)) = (self.passed(), fields.as_object_mut()) {
            fields.insert("failed".to_owned(), json!(true));
        }
        fields
    }
}

/// The outcome of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is within its tolerance.
    Passed,
    /// Numbers differ from those of the reference.
    Wrong,
    /// The reference could not be replayed: a file cannot be read, or asks for something unsupported.
    Refused,
}

impl Outcome {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Wrong => "wrong",
            Self::Refused => "refused",
        }
    }
}

/// The replay of one directory or file.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The directory or file as the caller named it.
    pub path: String,
    /// The kind of reference.
    pub kind: String,
    /// The compared quantities, in the order of the replay.
    pub quantities: Vec<Quantity>,
    /// A remark that decides nothing.
    pub note: Option<String>,
    /// The error that stopped the replay.
    pub error: Option<String>,
    /// The error's hint.
    pub hint: Option<String>,
}

impl Report {
    /// The outcome of the replay.
    pub fn outcome(&self) -> Outcome {
        let compared = !self.quantities.is_empty();
        match &self.error {
            Some(_) => Outcome::Refused,
            None if compared && self.quantities.iter().all(Quantity::passed) => Outcome::Passed,
            None => Outcome::Wrong,
        }
    }

    /// Whether the replay finished and all quantities are within tolerance.
    pub fn passed(&self) -> bool {
        self.outcome() == Outcome::Passed
    }

    /// One JSON object, to be printed on one line; a difference that is not a number is `null`.
    pub fn to_json(&self) -> Value {
        let mut line = Map::new();
        line.insert("path".to_owned(), json!(self.path));
        line.insert("kind".to_owned(), json!(self.kind));
        line.insert("passed".to_owned(), json!(self.passed()));
        line.insert("outcome".to_owned(), json!(self.outcome().name()));
        for (key, text) in [("error", &self.error), ("hint", &self.hint), ("note", &self.note)] {
            if let Some(text) = text {
                line.insert(key.to_owned(), json!(text));
            }
        }
        let quantities: Map<String, Value> =
            self.quantities.iter().map(|q| (q.name.clone(), q.to_json())).collect();
        line.insert("quantities".to_owned(), Value::Object(quantities));
        Value::Object(line)
    }
}

/// max |a - b|; NaN if any value on either side is NaN, infinite if only one side is infinite.
pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    let mut largest = 0.0_f64;
    for (a, b) in a.iter().zip(b) {
        let difference = (f64::from(*a) - f64::from(*b)).abs();
        if difference.is_nan() {
            return f64::NAN;
        }
        largest = largest.max(difference);
    }
    largest
}

/// The ratio of a difference to its tolerance, by which differences are ordered; NaN is the largest.
fn excess(difference: f64, tolerance: f64) -> f64 {
    if difference.is_nan() {
        f64::INFINITY
    } else if tolerance > 0.0 {
        (difference / tolerance).min(f64::MAX)
    } else {
        difference.min(f64::MAX)
    }
}

/// A difference in three digits; NaN becomes null, because JSON has none.
fn rounded(x: f64) -> Value {
    let short = format!("{x:.2e}").parse::<f64>().unwrap_or(x);
    serde_json::Number::from_f64(short).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::{Quantity, Report, Tolerance};

    fn report(quantities: Vec<Quantity>) -> Report {
        Report {
            path: "p".into(),
            kind: "k".into(),
            quantities,
            note: None,
            error: None,
            hint: None,
        }
    }

    #[test]
    fn the_largest_relative_to_its_tolerance_is_reported() {
        let tolerance = Tolerance { absolute: 0.1, relative: 0.01 };
        let mut quantity = Quantity::new("logits");
        quantity.add("a", &[1.05], &[1.0], tolerance);
        quantity.add("b", &[100.2], &[100.0], tolerance);
        assert!(quantity.passed());
        assert_eq!(quantity.at.as_deref(), Some("a"));
        quantity.add("c", &[1.2, 3.0], &[1.0, 3.0], tolerance);
        assert!(!quantity.passed());
        assert_eq!(quantity.at.as_deref(), Some("c"));
        assert_eq!(quantity.n_compared, 4);
    }

    #[test]
    fn nan_on_either_side_fails_and_is_reported() {
        for (got, expected) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::NAN, f32::NAN)] {
            let mut quantity = Quantity::new("x");
            quantity.add("good", &[1.0], &[1.0], Tolerance::absolute(1.0));
            quantity.add("bad", &[got, 0.0], &[expected, 0.0], Tolerance::absolute(1.0));
            quantity.add("also good", &[1.0], &[1.0], Tolerance::absolute(1.0));
            assert!(!quantity.passed());
            assert_eq!(quantity.at.as_deref(), Some("bad"));
            let line = report(vec![quantity]).to_json().to_string();
            assert!(line.contains(r#""largest_difference":null"#), "{line}");
        }
        let mut infinite = Quantity::new("x");
        infinite.add("", &[f32::INFINITY], &[f32::INFINITY], Tolerance::absolute(1.0));
        assert!(!infinite.passed());
    }

    #[test]
    fn no_comparison_and_different_lengths_fail() {
        assert!(!Quantity::new("x").passed());
        assert!(!report(Vec::new()).passed());
        let mut quantity = Quantity::new("x");
        quantity.add("a", &[1.0], &[1.0, 1.0], Tolerance::absolute(1.0));
        assert!(!quantity.passed());
        quantity = Quantity::new("x");
        quantity.add("a", &[], &[], Tolerance::absolute(1.0));
        assert!(!quantity.passed());
    }

    #[test]
    fn one_line_of_json() {
        let mut quantity = Quantity::new("logits");
        quantity.add("row 1", &[1.0, 2.000_122], &[1.0, 2.0], Tolerance::absolute(1e-3));
        let mistakes = Quantity::mistakes("ids", 1, 24);
        assert_eq!(
            report(vec![quantity, mistakes]).to_json().to_string(),
            concat!(
                r#"{"path":"p","kind":"k","passed":false,"outcome":"wrong","quantities":{"#,
                r#""logits":{"largest_difference":0.000122,"tolerance":0.001,"at":"row 1"},"#,
                r#""ids":{"largest_difference":1.0,"tolerance":0.0,"failed":true}}}"#
            )
        );
    }
}
