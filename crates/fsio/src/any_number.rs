//! Numbers in JSON that may be infinite or no number, for `#[serde(with = "…")]`: JSON has no form for them.
//!
//! They are written as the texts `NaN`, `inf` and `-inf`. A null is read as NaN, which is how `serde_json` writes them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// A number of any value.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str(&self.0.to_string())
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor).map(Self)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, `NaN`, `inf`, `-inf` or null")
    }

    fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_unit<E>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

/// Writes a number.
///
/// Errors: those of the serializer.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Number(*value).serialize(serializer)
}

/// Reads a number.
///
/// Errors: another value than a number, one of the texts or null.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Number::deserialize(deserializer).map(|number| number.0)
}

/// The same for a number that may be absent, in a field with `default` and `skip_serializing_if`. A null is NaN.
pub mod option {
    use super::{Deserialize, Deserializer, Number, Serialize, Serializer};

    /// Writes a number.
    ///
    /// Errors: those of the serializer.
    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Number).serialize(serializer)
    }

    /// Reads a number.
    ///
    /// Errors: another value than a number, one of the texts or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Number::deserialize(deserializer).map(|number| Some(number.0))
    }
}

/// The same for numbers by name; with `flatten`, too.
pub mod map {
    use super::{BTreeMap, Deserialize, Deserializer, Number, Serializer};

    /// Writes the numbers.
    ///
    /// Errors: those of the serializer.
    pub fn serialize<S: Serializer>(
        values: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(values.iter().map(|(name, value)| (name, Number(*value))))
    }

    /// Reads the numbers.
    ///
    /// Errors: a value that is no number, none of the texts and not null.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let values = BTreeMap::<String, Number>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|(name, number)| (name, number.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    #[derive(Debug, Default, Deserialize, Serialize)]
    struct Row {
        step: u64,
        #[serde(with = "super")]
        loss: f64,
        #[serde(default, skip_serializing_if = "Option::is_none", with = "super::option")]
        score: Option<f64>,
        #[serde(flatten, with = "super::map")]
        extra: BTreeMap<String, f64>,
    }

    #[test]
    fn every_number_is_read_as_it_was_written() {
        for value in [0.1, -0.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let extra = BTreeMap::from([("a/b".to_owned(), value), ("c".to_owned(), 2.0)]);
            let row = Row { step: 3, loss: value, score: Some(value), extra };
            let text = serde_json::to_string(&row).unwrap();
            let again: Row = serde_json::from_str(&text).unwrap();
            let read = [again.loss, again.score.unwrap(), again.extra["a/b"]];
            let is_same =
                |read: f64| read.to_bits() == value.to_bits() || read.is_nan() && value.is_nan();
            assert!(read.into_iter().all(is_same), "{text} {again:?}");
            assert_eq!((again.step, again.extra["c"]), (3, 2.0));
        }
    }

    #[test]
    fn what_older_versions_wrote_is_read() {
        let row: Row =
            serde_json::from_str(r#"{"step":1,"loss":null,"score":null,"x":null,"y":2}"#).unwrap();
        assert!(row.loss.is_nan() && row.score.unwrap().is_nan() && row.extra["x"].is_nan());
        assert_eq!(row.extra["y"], 2.0);
        assert!(serde_json::from_str::<Row>(r#"{"step":1,"loss":2}"#).unwrap().score.is_none());
        for wrong in [
            r#"{"step":1,"loss":"x"}"#,
            r#"{"step":1,"loss":[]}"#,
            r#"{"step":1,"loss":1,"x":true}"#,
        ] {
            assert!(serde_json::from_str::<Row>(wrong).is_err(), "{wrong}");
        }
    }
}
