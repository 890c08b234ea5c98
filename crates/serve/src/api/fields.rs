//! The fields of a request: each is read by its name, and one that is left over is an error.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ApiError;

/// The fields that have not been read.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        // Of a key that occurs twice, as in a schema, one value would be lost.
        let (value, _) = fsio::strict_json(body)
            .map_err(|error| ApiError::request(format!("the body is not valid JSON: {error}")))?;
        match value {
            Value::Object(map) => Ok(Self(map)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(ApiError::request("the body is not a JSON object")),
        }
    }

    /// A field's value; null counts as absent.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| ApiError::field(name, format!("`{name}`: {error}"))),
        }
    }

    /// A field that must be there.
    pub(crate) fn require<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        let missing = || ApiError::field(name, format!("the field `{name}` is missing"));
        self.take(name)?.ok_or_else(missing)
    }

    /// A number in a range.
    pub(crate) fn number(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let value: Option<f64> = self.take(name)?;
        match value.filter(|value| !range.contains(value)) {
            None => Ok(value),
            Some(value) => {
                let (start, end) = (range.start(), range.end());
                let message = format!("`{name}` must be between {start} and {end}: `{value}`");
                Err(ApiError::field(name, message))
            }
        }
    }

    /// A whole number in a range.
    pub(crate) fn count(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<usize>, ApiError> {
        let value: Option<i64> = self.take(name)?;
        let Some(value) = value else { return Ok(None) };
        let in_range = usize::try_from(value).ok().filter(|value| range.contains(value));
        let (start, end) = (range.start(), range.end());
        let wrong = || {
            ApiError::field(name, format!("`{name}` must be between {start} and {end}: `{value}`"))
        };
        in_range.map(Some).ok_or_else(wrong)
    }

    /// Drops fields that change no answer.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.0.shift_remove(*name);
        }
    }

    /// Refuses fields that would change the answer, unless they are null or have the value that changes nothing.
    pub(crate) fn refuse(&mut self, names: &[(&str, Value)]) -> Result<(), ApiError> {
        for (name, harmless) in names {
            match self.0.shift_remove(*name) {
                Some(value) if !value.is_null() && value != *harmless => {
                    let message = format!("`{name}` is not supported");
                    return Err(ApiError::unsupported(name, message));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Refuses what is left.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(ApiError::unsupported(name, format!("the field `{name}` is not known")))
            }
        }
    }
}
