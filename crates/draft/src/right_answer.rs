//! The column of a row that has the right answer, and the reward that compares with it.

use serde_json::{Map, Value};

/// Names of columns that data sets have right answers in, the most specific one first.
const COLUMNS: [&str; 10] = [
    "final_answer",
    "answer",
    "answerKey",
    "ground_truth",
    "solution",
    "target",
    "label",
    "Answer",
    "output",
    "completion",
];

/// How right answers are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightAnswer {
    column: String,
    comparison: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Number,
    Choice,
    Boxed,
    Exact,
}

impl RightAnswer {
    /// Reads the first row of the data; `None` if no column of a usual name has a value.
    pub fn of_row(row: &Map<String, Value>) -> Option<Self> {
        COLUMNS.iter().find_map(|&column| {
            let text = match row.get(column)? {
                Value::String(text) => text.trim().to_owned(),
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            (!text.is_empty())
                .then(|| Self { column: column.to_owned(), comparison: comparison(&text) })
        })
    }

    /// The recipe's value of `rewards`, and a comment.
    pub(crate) fn rewards(&self) -> (String, String) {
        let column = &self.column;
        let (keys, what) = match self.comparison {
            Comparison::Number => ("kind = \"number\", ", "the answer's last number"),
            Comparison::Choice => ("kind = \"choice\", ", "the answer's last letter of an option"),
            Comparison::Boxed => {
                ("kind = \"exact\", extract = \"boxed\", ", "the text in \\boxed{…}")
            }
            Comparison::Exact => ("kind = \"exact\", ", "the whole answer"),
        };
        (
            format!("[{{ {keys}answer = \"{{{column}}}\" }}]"),
            format!("1 if {what} is `{column}`, else 0"),
        )
    }
}

/// Comparison that suits a right answer.
fn comparison(text: &str) -> Comparison {
    let is_option = text.len() == 1 && text.starts_with(|c: char| c.is_ascii_uppercase());
    let number: String = text.chars().filter(|c| !matches!(c, ',' | '$' | '%' | ' ')).collect();
    if text.contains("####") || number.parse::<f64>().is_ok_and(f64::is_finite) {
        Comparison::Number
    } else if text.contains("\\boxed{") {
        Comparison::Boxed
    } else if is_option {
        Comparison::Choice
    } else {
        Comparison::Exact
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::RightAnswer;

    fn rewards(row: Value) -> Option<String> {
        let Value::Object(row) = row else { unreachable!("an object") };
        let row: Map<String, Value> = row;
        RightAnswer::of_row(&row).map(|answer| answer.rewards().0)
    }

    #[test]
    fn the_reward_fits_the_answer() {
        for (row, reward) in [
            (json!({"answer": "6 + 3 = 9\n#### 9"}), "kind = \"number\", answer = \"{answer}\""),
            (json!({"answer": "$1,234.50"}), "kind = \"number\", answer = \"{answer}\""),
            (json!({"target": 4}), "kind = \"number\", answer = \"{target}\""),
            (
                json!({"answer": null, "answerKey": "B"}),
                "kind = \"choice\", answer = \"{answerKey}\"",
            ),
            (
                json!({"answer": "so \\boxed{x}"}),
                "kind = \"exact\", extract = \"boxed\", answer = \"{answer}\"",
            ),
            (json!({"label": "Paris"}), "kind = \"exact\", answer = \"{label}\""),
        ] {
            assert_eq!(rewards(row).as_deref(), Some(&*format!("[{{ {reward} }}]")));
        }
        assert_eq!(rewards(json!({"prompt": "4", "answer": " ", "label": ["x"]})), None);
    }
}
