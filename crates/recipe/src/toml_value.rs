//! Values of a TOML document, independent of how they are written.

use toml_edit::{Item, TableLike, Value};

use crate::error::shown;

/// A value of the document. Sections and inline tables are both tables.
#[derive(Clone, Copy)]
pub(crate) enum TomlValue<'d> {
    Table(&'d dyn TableLike),
    Tables(&'d toml_edit::ArrayOfTables),
    Value(&'d Value),
    Nothing,
}

impl<'d> TomlValue<'d> {
    pub(crate) fn of(item: &'d Item) -> Self {
        match item {
            Item::Table(table) => Self::Table(table),
            Item::ArrayOfTables(tables) => Self::Tables(tables),
            Item::Value(value) => Self::of_value(value),
            Item::None => Self::Nothing,
        }
    }

    pub(crate) fn of_value(value: &'d Value) -> Self {
        if let Value::InlineTable(table) = value { Self::Table(table) } else { Self::Value(value) }
    }

    /// Type of the value, for messages.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Table(_) | Self::Value(Value::InlineTable(_)) => "a table",
            Self::Tables(_) | Self::Value(Value::Array(_)) => "a list",
            Self::Value(Value::String(_)) => "a string",
            Self::Value(Value::Integer(_)) => "an integer",
            Self::Value(Value::Float(_)) => "a number with a fraction",
            Self::Value(Value::Boolean(_)) => "true or false",
            Self::Value(Value::Datetime(_)) => "a date",
            Self::Nothing => "nothing",
        }
    }

    /// The value as written; lists and tables are abbreviated.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Table(_) => "{ … }".to_owned(),
            Self::Tables(_) | Self::Value(Value::Array(_)) => "[ … ]".to_owned(),
            Self::Value(value) => shown(value.to_string().trim()),
            Self::Nothing => String::new(),
        }
    }
}
