//! Converts Arrow arrays to the columns of a row.
//!
//! Only types with an obvious text or list form are converted. Another type is an error if its column is needed.

use std::collections::HashSet;
use std::path::Path;

use ::arrow::array::timezone::Tz;
use ::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    RecordBatch, StructArray,
};
use ::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Fields, Float16Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Schema, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use ::arrow::util::display::array_value_to_string;
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};
use crate::limits;
use crate::location::Location;
use crate::row_problem::RowProblem;
use crate::source::Row;
use crate::source::expansion::{Exceeded, Expansion, RowBudget};

type Float16 = <Float16Type as ArrowPrimitiveType>::Native;
type Converted = std::result::Result<Value, NoValue>;

/// Why a value has no text form.
#[derive(Debug)]
enum NoValue {
    /// It is of a kind that has none.
    Kind(&'static str),
    LongText,
    NotUtf8,
    /// A map has this key twice.
    KeyTwice(String),
    /// It takes too much memory.
    Exceeded(Exceeded),
}

impl From<Exceeded> for NoValue {
    fn from(exceeded: Exceeded) -> Self {
        Self::Exceeded(exceeded)
    }
}

impl NoValue {
    fn problem(self, column: String) -> RowProblem {
        match self {
            Self::Exceeded(_) => RowProblem::TooMany {
                what: "bytes of values in the row",
                limit: limits::COLUMNAR_ROW_MEMORY as usize,
            },
            Self::LongText => RowProblem::LongText { limit: limits::CELL_BYTES as u64 },
            Self::NotUtf8 => RowProblem::ColumnUtf8 { column },
            Self::KeyTwice(key) => RowProblem::MapKeyTwice { column, key },
            Self::Kind(found) => {
                RowProblem::WrongType { column, found, expected: "text, numbers, lists or objects" }
            }
        }
    }
}

/// One row of a batch. Unless `strict`, a value without a text form is null. `expansion` counts the values before they are
/// made.
pub(crate) fn row_of(
    batch: &RecordBatch,
    row: usize,
    strict: bool,
    location: Location,
    expansion: &mut Expansion,
) -> Result<Row> {
    let mut columns = Map::new();
    let mut failed = None;
    match RowBudget::start(expansion) {
        Ok(mut budget) => {
            for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                let value = match value_at(array.as_ref(), row, &mut budget) {
                    Ok(value) => value,
                    Err(reason) if strict || matches!(reason, NoValue::Exceeded(_)) => {
                        failed = Some((reason, field.name().clone()));
                        break;
                    }
                    Err(_) => Value::Null,
                };
                columns.insert(field.name().clone(), value);
            }
        }
        Err(exceeded) => failed = Some((exceeded.into(), String::new())),
    }
    match failed {
        None => Ok(Row { columns, location }),
        Some((NoValue::Exceeded(Exceeded::File(n_bytes)), _)) => {
            Err(expansion.too_large(&location.file, n_bytes))
        }
        Some((reason, column)) => Err(Error::row(location, reason.problem(column))),
    }
}

fn value_at(array: &dyn Array, row: usize, budget: &mut RowBudget<'_>) -> Converted {
    budget.value()?;
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    match array.data_type() {
        DataType::Null => Ok(Value::Null),
        DataType::Boolean => Ok(Value::Bool(array.as_boolean().value(row))),
        DataType::Int8 => Ok(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Ok(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Ok(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Ok(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt8 => Ok(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Ok(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Ok(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Ok(array.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float16 => float16(array.as_primitive::<Float16Type>().value(row)),
        DataType::Float32 => decimal(&array.as_primitive::<Float32Type>().value(row).to_string()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row), budget),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row), budget),
        DataType::Utf8View => text(array.as_string_view().value(row), budget),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row), budget),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row), budget),
        DataType::BinaryView => bytes(array.as_binary_view().value(row), budget),
        DataType::List(_) => list(array.as_list::<i32>(), row, budget),
        DataType::LargeList(_) => list(array.as_list::<i64>(), row, budget),
        DataType::FixedSizeList(_, _) => fixed_list(array.as_fixed_size_list(), row, budget),
        DataType::Struct(_) => object(array.as_struct(), row, budget),
        DataType::Map(_, _) => map(array.as_map(), row, budget),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let key = value_at(dictionary.keys(), row, budget)?.as_u64();
            let key = key.and_then(|key| usize::try_from(key).ok());
            let values = dictionary.values();
            match key.filter(|key| *key < values.len()) {
                Some(key) => value_at(values.as_ref(), key, budget),
                None => Err(NoValue::Kind("a broken dictionary")),
            }
        }
        DataType::Timestamp(_, Some(zone)) if zone.parse::<Tz>().is_err() => {
            Err(NoValue::Kind("a time with a named zone instead of an offset like `+00:00`"))
        }
        DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(_, _)
        | DataType::Decimal32(_, _)
        | DataType::Decimal64(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => array_value_to_string(array, row)
            .map(Value::String)
            .map_err(|_| NoValue::Kind("a value out of range")),
        DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::FixedSizeBinary(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..) => Err(NoValue::Kind("a type without a text form")),
    }
}

/// Number of the shortest text of a value of fewer bits.
///
/// The digits of 0.1 as an f32 are 0.10000000149011612 as an f64, and would be learned. The value is that of the text, too,
/// so that a row has the same text and the same number in every format. Rounded to the column's type, it is the column's.
fn decimal(shortest: &str) -> Converted {
    shortest.parse().map_or(Err(NoValue::Kind("a broken number")), float)
}

fn float16(value: Float16) -> Converted {
    let exact = f32::from(value);
    // Five digits tell all values apart.
    let mut texts = (0..5).map(|digits| format!("{exact:.digits$e}"));
    let same = |text: &String| text.parse().is_ok_and(|number| Float16::from_f64(number) == value);
    decimal(&texts.find(same).unwrap_or_else(|| exact.to_string()))
}

fn float(value: f64) -> Converted {
    Number::from_f64(value).map(Value::Number).ok_or(NoValue::Kind("a number that is not finite"))
}

fn text(value: &str, budget: &mut RowBudget<'_>) -> Converted {
    if value.len() > limits::CELL_BYTES {
        return Err(NoValue::LongText);
    }
    budget.text(value)?;
    Ok(Value::String(value.to_owned()))
}

fn bytes(value: &[u8], budget: &mut RowBudget<'_>) -> Converted {
    text(std::str::from_utf8(value).map_err(|_| NoValue::NotUtf8)?, budget)
}

fn elements(values: &ArrayRef, budget: &mut RowBudget<'_>) -> Converted {
    budget.container()?;
    (0..values.len()).map(|row| value_at(values.as_ref(), row, budget)).collect()
}

fn list<O: OffsetSizeTrait>(
    array: &GenericListArray<O>,
    row: usize,
    budget: &mut RowBudget<'_>,
) -> Converted {
    elements(&array.value(row), budget)
}

fn fixed_list(array: &FixedSizeListArray, row: usize, budget: &mut RowBudget<'_>) -> Converted {
    elements(&array.value(row), budget)
}

fn object(array: &StructArray, row: usize, budget: &mut RowBudget<'_>) -> Converted {
    budget.container()?;
    let mut values = Map::new();
    for (field, column) in array.fields().iter().zip(array.columns()) {
        budget.key(field.name())?;
        values.insert(field.name().clone(), value_at(column.as_ref(), row, budget)?);
    }
    Ok(Value::Object(values))
}

fn map(array: &MapArray, row: usize, budget: &mut RowBudget<'_>) -> Converted {
    budget.container()?;
    let entries = array.value(row);
    let mut values = Map::new();
    let (Some(keys), Some(items)) = (entries.columns().first(), entries.columns().get(1)) else {
        return Err(NoValue::Kind("a broken map"));
    };
    for entry in 0..entries.len() {
        let key = match value_at(keys.as_ref(), entry, budget)? {
            Value::String(key) => key,
            key @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => key.to_string(),
        };
        budget.key(&key)?;
        let value = value_at(items.as_ref(), entry, budget)?;
        if values.contains_key(&key) {
            return Err(NoValue::KeyTwice(key.chars().take(60).collect()));
        }
        values.insert(key, value);
    }
    Ok(Value::Object(values))
}

/// Checks the nesting and the number of columns of a schema.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "arrow has some thirty types without inner fields"
)]
pub(crate) fn check_schema(schema: &Schema) -> std::result::Result<(), &'static str> {
    let mut n_fields = 0;
    let mut open: Vec<(&Field, usize)> =
        schema.fields().iter().map(|field| (field.as_ref(), 1)).collect();
    while let Some((field, depth)) = open.pop() {
        n_fields += 1;
        if depth > limits::SCHEMA_DEPTH {
            return Err("its schema is nested too deeply");
        }
        if n_fields > limits::SCHEMA_FIELDS {
            return Err("its schema has too many columns");
        }
        match field.data_type() {
            DataType::List(inner)
            | DataType::LargeList(inner)
            | DataType::FixedSizeList(inner, _)
            | DataType::ListView(inner)
            | DataType::LargeListView(inner)
            | DataType::Map(inner, _) => open.push((inner, depth + 1)),
            DataType::Struct(fields) => {
                open.extend(fields.iter().map(|field| (field.as_ref(), depth + 1)));
            }
            DataType::Union(fields, _) => {
                open.extend(fields.iter().map(|(_, field)| (field.as_ref(), depth + 1)));
            }
            DataType::RunEndEncoded(_, values) => open.push((values, depth + 1)),
            DataType::Dictionary(_, values)
                if values.is_nested() || matches!(**values, DataType::Dictionary(_, _)) =>
            {
                return Err("its schema has a dictionary of nested values");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks that no name occurs twice among the columns or the fields of a struct: a row would have only the last of them.
/// The schema must have passed [`check_schema`], which limits its nesting.
pub(crate) fn check_names(path: &Path, schema: &Schema) -> Result<()> {
    match repeated(schema.fields()) {
        Some(column) => {
            Err(Error::ColumnTwice { path: path.to_path_buf(), part: "schema", column })
        }
        None => Ok(()),
    }
}

/// The first repeated name, after the names of the columns that contain it: `messages.content`.
fn repeated(fields: &Fields) -> Option<String> {
    let mut seen = HashSet::new();
    for field in fields {
        if !seen.insert(field.name()) {
            return Some(field.name().clone());
        }
        if let Some(inner) = struct_fields(field.data_type()).and_then(repeated) {
            return Some(format!("{}.{inner}", field.name()));
        }
    }
    None
}

/// Fields of the objects that values of a type are or contain.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "arrow has some thirty types that are no objects"
)]
fn struct_fields(data_type: &DataType) -> Option<&Fields> {
    match data_type {
        DataType::Struct(fields) => Some(fields),
        DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
            struct_fields(inner.data_type())
        }
        // Its keys and values are found by position, whatever their names are.
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => {
                entry.get(1).and_then(|value| struct_fields(value.data_type()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Indices of the top-level columns to decode: all, or those among `needed`.
pub(crate) fn wanted_columns(schema: &Schema, needed: Option<&[String]>) -> Vec<usize> {
    schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| needed.is_none_or(|needed| needed.contains(field.name())))
        .map(|(column, _)| column)
        .collect()
}

/// Runs a decoder that may panic on damaged bytes, and turns a panic into an error.
pub(crate) fn catch_panics<T>(
    decode: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    fsio::panics::caught(decode).unwrap_or_else(|_| Err("the decoder failed".into()))
}
