//! An update as one line, whole or cut to the terminal's width by leaving out what matters least.

use unicode_width::UnicodeWidthChar as _;

use crate::numbers::{clock, thousands};
use crate::row::Row;

/// Cells of the progress bar, where there is room.
const BAR_CELLS: usize = 30;
/// Cells below which a bar says nothing.
const MIN_BAR_CELLS: usize = 10;

/// Room for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As long as it is, without a progress bar: a line of a file.
    Whole,
    /// At most so many columns of a terminal.
    Columns(usize),
}

/// An update and what the line says beside its metrics.
#[derive(Clone, Copy, Debug)]
pub struct StepLine<'a> {
    /// Name of the stage.
    pub stage: &'a str,
    /// Total number of updates.
    pub max_steps: u64,
    /// The update.
    pub row: &'a Row,
    /// Loss with which an arrow compares the update's.
    pub previous_loss: Option<f64>,
    /// Seconds left.
    pub left: Option<f64>,
    /// Whether the terminal shows more than ASCII.
    pub unicode: bool,
}

/// A part of the line. Where there is no room, parts of the lowest rank are left out first.
struct Part {
    rank: u8,
    text: String,
}

/// Rank of the parts that stay.
const ESSENTIAL: u8 = u8::MAX;

impl StepLine<'_> {
    /// The line.
    pub fn text(&self, fit: Fit) -> String {
        let name = format!("{:<10} ", self.stage);
        let mut parts = self.parts();
        let Fit::Columns(columns) = fit else { return name + &joined(&parts) };
        let bar_room = columns.saturating_sub(width(&name) + width(&joined(&parts)) + 2);
        if bar_room >= MIN_BAR_CELLS {
            let bar = bar(self.share(), bar_room.min(BAR_CELLS), self.unicode);
            return format!("{name}{bar}  {}", joined(&parts));
        }
        for name in [name, format!("{} ", self.stage)] {
            let mut kept = self.parts();
            loop {
                let line = format!("{name}{}", joined(&kept));
                if width(&line) <= columns {
                    return line;
                }
                if !leave_out(&mut kept) {
                    parts = kept;
                    break;
                }
            }
        }
        let short = [joined(&parts), self.numbers(), self.steps()];
        let fits = short.into_iter().find(|line| width(line) <= columns);
        fits.unwrap_or_else(|| cut(&self.steps(), columns).to_owned())
    }

    fn share(&self) -> f64 {
        self.row.step as f64 / self.max_steps.max(1) as f64
    }

    fn steps(&self) -> String {
        if self.max_steps == 0 {
            return format!("step {}", self.row.step);
        }
        format!("{}/{}", self.row.step, self.max_steps)
    }

    /// Steps, loss and time left, without their names.
    fn numbers(&self) -> String {
        let loss = self.row.values.get("loss").map(|loss| format!(" {loss:.2}"));
        let left = self.left.map(|left| format!(" {}", clock(left)));
        format!("{}{}{}", self.steps(), loss.unwrap_or_default(), left.unwrap_or_default())
    }

    fn parts(&self) -> Vec<Part> {
        let metric = |name: &str| self.row.values.get(name).copied();
        let mut parts = Vec::new();
        let mut add = |rank: u8, text: String| parts.push(Part { rank, text });
        add(ESSENTIAL, self.steps());
        // The loss of a policy means little, so score and KL are shown too.
        let of_ppo = (metric("objective/scores"), metric("objective/kl"));
        match (of_ppo, metric("reward"), metric("completions/mean_length")) {
            ((Some(score), Some(kl)), _, _) => {
                add(5, format!("score {score:.3}"));
                add(4, format!("KL {kl:.2}"));
            }
            (_, Some(reward), Some(length)) => {
                add(5, format!("reward {reward:.3}"));
                add(4, format!("length {length:.1}"));
            }
            _ => {}
        }
        add(ESSENTIAL, format!("loss {}", self.loss()));
        if let Some(norm) = metric("grad_norm") {
            add(2, format!("norm {norm:.2}"));
        }
        if let Some(lr) = metric("lr") {
            add(1, format!("lr {lr:.2e}"));
        }
        if let Some(rate) = metric("tokens_per_s") {
            add(3, format!("{} tok/s", thousands(rate as u64)));
        }
        if let Some(left) = self.left {
            add(ESSENTIAL, format!("left {}", clock(left)));
        }
        parts
    }

    /// The loss, with an arrow that compares it with the previous one.
    fn loss(&self) -> String {
        let Some(loss) = self.row.values.get("loss").copied() else { return "-".to_owned() };
        let arrow = match self.previous_loss {
            Some(before) if loss < before && self.unicode => " ↓",
            Some(before) if loss > before && self.unicode => " ↑",
            Some(_) | None => "",
        };
        format!("{loss:.4}{arrow}")
    }
}

/// Removes the part of the lowest rank; false if only essential ones are there.
fn leave_out(parts: &mut Vec<Part>) -> bool {
    let lowest = (0..parts.len()).min_by_key(|at| parts[*at].rank);
    match lowest.filter(|at| parts[*at].rank < ESSENTIAL) {
        Some(at) => {
            parts.remove(at);
            true
        }
        None => false,
    }
}

fn joined(parts: &[Part]) -> String {
    parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join("  ")
}

/// A progress bar.
pub(crate) fn bar(share: f64, cells: usize, unicode: bool) -> String {
    let filled = ((share * cells as f64) as usize).min(cells);
    let (full, empty) = if unicode { ("━", "┈") } else { ("#", ".") };
    full.repeat(filled) + &empty.repeat(cells - filled)
}

/// Columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The start of a text that takes at most so many columns.
pub fn cut(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += c.width().unwrap_or(0);
        if taken > columns {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Fit, StepLine, cut, width};
    use crate::row::Row;

    fn row(more: &[(&str, f64)]) -> Row {
        let values =
            [("loss", 4.6791), ("grad_norm", 1.48), ("lr", 1.73e-3), ("tokens_per_s", 24_913.0)];
        let values = values.iter().chain(more).map(|(name, value)| ((*name).to_owned(), *value));
        Row { step: 100, is_eval: false, values: values.collect() }
    }

    fn line(row: &Row) -> StepLine<'_> {
        StepLine {
            stage: "pretrain",
            max_steps: 200,
            row,
            previous_loss: Some(5.0),
            left: Some(61.0),
            unicode: true,
        }
    }

    #[test]
    fn the_bar_goes_first_and_steps_loss_and_time_last() {
        let row = row(&[]);
        let mut text = format!("{}\n", line(&row).text(Fit::Whole));
        for columns in [160, 110, 99, 80, 72, 60, 50, 40, 30, 20, 12, 8, 3] {
            let fitted = line(&row).text(Fit::Columns(columns));
            assert!(width(&fitted) <= columns, "{columns}: {fitted}");
            text += &format!("{columns:>3} {fitted}\n");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_policy_has_its_score_longer_than_its_speed() {
        let ppo = row(&[("objective/scores", -0.5), ("objective/kl", 3.25)]);
        let grpo = row(&[("reward", 0.75), ("completions/mean_length", 17.5)]);
        let mut text = String::new();
        for row in [&ppo, &grpo] {
            for columns in [120, 80, 60, 50] {
                let line = StepLine { unicode: false, ..line(row) };
                text += &format!("{columns:>3} {}\n", line.text(Fit::Columns(columns)));
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_number_that_is_none_has_a_dash() {
        let mut row = row(&[]);
        row.values.remove("loss");
        let line = StepLine { left: None, max_steps: 0, ..line(&row) };
        assert_eq!(
            line.text(Fit::Whole),
            "pretrain   step 100  loss -  norm 1.48  lr 1.73e-3  24,913 tok/s"
        );
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("好a"), 3);
        assert_eq!((cut("好好", 3), cut("abc", 2), cut("é", 9)), ("好", "ab", "é"));
    }
}
