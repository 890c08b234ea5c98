//! Lines of a recipe, and those that every kind of section has.

use crate::{Facts, Values};

/// Lines of a recipe: a key, its value and a comment.
pub(crate) struct Lines {
    pub(crate) text: String,
}

impl Lines {
    pub(crate) fn add(&mut self, key: &str, value: &str, comment: String) {
        let assignment = format!("{key} = {value}");
        let comment = if comment.is_empty() { comment } else { format!("# {comment}") };
        self.text += format!("{assignment:<42} {comment}").trim_end();
        self.text.push('\n');
    }
}

/// Why an adapter is trained.
pub(crate) fn lora(facts: &Facts) -> String {
    format!("an adapter: the model has {}", size(facts.n_parameters))
}

pub(crate) fn optimizer(values: &Values, lines: &mut Lines) {
    let rate = rate(values.learning_rate);
    let comment = "usual for this size; try a third and three times of it".to_owned();
    lines.add("optimizer", &format!("{{ kind = \"adamw\", lr = {rate} }}"), comment);
}

pub(crate) fn validation(values: &Values, lines: &mut Lines) {
    if values.holdout > 0.0 {
        let (part, every) = (values.holdout, values.eval_every());
        lines.add("eval", &format!("{{ holdout = {part}, every_steps = {every} }}"), String::new());
    }
}

/// Number of parameters, as `135 M parameters`.
fn size(n_parameters: u64) -> String {
    match n_parameters {
        1_000_000_000.. => format!("{:.1} B parameters", n_parameters as f64 / 1e9),
        _ => format!("{:.0} M parameters", n_parameters as f64 / 1e6),
    }
}

/// A learning rate in the form in which people write it: 5e-5.
fn rate(value: f64) -> String {
    // One digit, as it was chosen: 3e-5 is not 3.0000000000000004e-5.
    format!("{value:.0e}")
}

/// A TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}
