//! Rows of token ids, with labels and masks as the libraries of transformers write them.

use serde_json::{Map, Value};

use super::text;
use crate::row_problem::RowProblem;
use crate::source::json_kind;

type Checked<T> = std::result::Result<T, RowProblem>;

const IDS: &str = "input_ids";
const LABELS: &str = "labels";
const ATTENTION: &str = "attention_mask";
/// Masks of targets; with several, a target is one in each of them, as in TRL.
const MASKS: [&str; 2] = ["completion_mask", "assistant_masks"];
/// Label of a token that is no target.
const NO_TARGET: i64 = -100;

/// Columns of token ids.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IdColumns {
    /// Those that are read, `input_ids` first.
    columns: Vec<String>,
}

/// Token ids of a row, without padding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IdRow {
    pub(crate) ids: Vec<u32>,
    /// Whether each token is a target; `None` if the row does not say.
    pub(crate) loss_mask: Option<Vec<bool>>,
}

impl IdColumns {
    /// Whether a row has token ids.
    pub(crate) fn are_in(columns: &Map<String, Value>) -> bool {
        columns
            .get(IDS)
            .and_then(Value::as_array)
            .is_some_and(|ids| ids.iter().all(Value::is_number))
    }

    /// The columns of token ids among `columns`, without those that the recipe ignores.
    pub(crate) fn of(columns: &Map<String, Value>, ignored: &[String]) -> Self {
        let more = [LABELS, ATTENTION].into_iter().chain(MASKS);
        let is_read = |name: &&str| {
            columns.get(*name).is_some_and(Value::is_array)
                && !ignored.iter().any(|ignored| ignored == *name)
        };
        let more = more.filter(is_read);
        Self { columns: std::iter::once(IDS).chain(more).map(str::to_owned).collect() }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.columns.iter()
    }

    pub(crate) fn read(&self, columns: &Map<String, Value>) -> Checked<IdRow> {
        let ids = numbers(IDS, columns)?;
        let column = |name: &str| -> Checked<Option<Vec<i64>>> {
            if !self.columns.iter().any(|column| column == name) {
                return Ok(None);
            }
            let values = numbers(name, columns)?;
            if values.len() == ids.len() {
                return Ok(Some(values));
            }
            Err(RowProblem::Lengths {
                column: name.to_owned(),
                found: values.len(),
                expected: ids.len(),
            })
        };
        let labels = column(LABELS)?;
        let attention = column(ATTENTION)?;
        let masks = MASKS.into_iter().map(column).collect::<Checked<Vec<_>>>()?;
        let mut row = IdRow { ids: Vec::with_capacity(ids.len()), loss_mask: None };
        let mut mask = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            let at_position =
                |values: &Option<Vec<i64>>| values.as_ref().and_then(|v| v.get(at).copied());
            if at_position(&attention) == Some(0) {
                continue;
            }
            let label = at_position(&labels);
            if let Some(label) = label.filter(|label| *label != NO_TARGET && label != id) {
                return Err(RowProblem::Label { at, label, id: *id });
            }
            let bad_id = RowProblem::TokenId { at, id: *id, n_tokens: None };
            row.ids.push(u32::try_from(*id).map_err(|_| bad_id)?);
            let is_masked = masks.iter().any(|values| at_position(values) == Some(0));
            mask.push(label != Some(NO_TARGET) && !is_masked);
        }
        let says = labels.is_some() || masks.iter().any(Option::is_some);
        row.loss_mask = says.then_some(mask);
        Ok(row)
    }
}

/// Whole numbers of a column; booleans count as 0 and 1.
fn numbers(name: &str, columns: &Map<String, Value>) -> Checked<Vec<i64>> {
    let wrong = |value: &Value| RowProblem::WrongType {
        column: name.to_owned(),
        found: json_kind(value),
        expected: "a list of whole numbers",
    };
    let value = text::column(name, columns)?;
    let items = value.as_array().ok_or_else(|| wrong(value))?;
    items
        .iter()
        .map(|item| item.as_i64().or(item.as_bool().map(i64::from)).ok_or_else(|| wrong(item)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: &Value) -> Checked<IdRow> {
        let columns = row.as_object().expect("an object");
        assert!(IdColumns::are_in(columns));
        IdColumns::of(columns, &[]).read(columns)
    }

    #[test]
    fn labels_and_masks_select_targets_and_padding_is_dropped() {
        let row = read(&json!({
            "input_ids": [5, 6, 7, 8, 0], "labels": [-100, 6, 7, -100, -100],
            "attention_mask": [1, 1, 1, 1, 0], "completion_mask": [0, 0, 1, 1, 0], "text": "x",
        }));
        let expected =
            IdRow { ids: vec![5, 6, 7, 8], loss_mask: Some(vec![false, false, true, false]) };
        assert_eq!(row, Ok(expected));
        let row = read(&json!({"input_ids": [1, 2], "assistant_masks": [false, true]}));
        let expected = IdRow { ids: vec![1, 2], loss_mask: Some(vec![false, true]) };
        assert_eq!(row, Ok(expected));
        let row = read(&json!({"input_ids": [1, 2]}));
        assert_eq!(row, Ok(IdRow { ids: vec![1, 2], loss_mask: None }));
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        let error = |row: Value| read(&row).expect_err("refused").to_string();
        assert_eq!(
            error(json!({"input_ids": [1, 2], "labels": [1]})),
            "column `labels` has 1 values, but `input_ids` has 2"
        );
        assert_eq!(
            error(json!({"input_ids": [1, 2], "labels": [1, 3]})),
            "label `3` of token 1, whose id is `2`: labels must equal the ids or be -100"
        );
        assert_eq!(
            error(json!({"input_ids": [1], "attention_mask": ["x"]})),
            "column `attention_mask` is a text, expected a list of whole numbers"
        );
    }
}
