//! Writes JSON like Python's `json.dumps(ensure_ascii=False)`.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Maximum nesting of a value.
const DEPTH: usize = 64;
/// Fuel of a call, which takes time even for a short value.
const CALL_FUEL: u64 = 8;
/// Maximum length of the text in bytes.
const BYTES: usize = fsio::limits::TEMPLATE_OUTPUT_BYTES;

/// Options of transformers' `tojson` filter.
pub(crate) struct Options {
    pub(crate) indent: Option<String>,
    pub(crate) separators: (String, String),
    pub(crate) sort_keys: bool,
    pub(crate) ensure_ascii: bool,
}

/// Writes `value` as JSON; consumes fuel of `state` for the text.
pub(crate) fn dumps(state: &State, value: &Value, options: &Options) -> Result<String, Error> {
    // A short value writes less than what is paid for below, but each call takes time.
    state.consume_fuel(CALL_FUEL)?;
    let mut writer = Writer { state, options, out: String::new(), paid: 0 };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a, 'b> {
    state: &'a State<'b, 'b>,
    options: &'a Options,
    out: String,
    paid: usize,
}

fn fail(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl Writer<'_, '_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "minijinja may add kinds, which JSON lacks")]
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH || self.out.len() > BYTES {
            return Err(fail("a value that is too deep or too large for JSON"));
        }
        if self.out.len() > self.paid {
            self.state.consume_fuel(((self.out.len() - self.paid) / 8) as u64 + 1)?;
            self.paid = self.out.len();
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            // json.dumps raises a TypeError.
            kind => return Err(fail(format!("a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        // Python and the engine both write integral floats with a fraction.
        let text = value.to_string();
        self.out.push_str(match text.as_str() {
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            "nan" => "NaN",
            other => other,
        });
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if (c as u32) < 0x20 => self.escape(c as u32),
                c if self.options.ensure_ascii && !c.is_ascii() => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.escape(u32::from(*unit));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u32) {
        // Writing into a String cannot fail.
        let _ = write!(self.out, "\\u{unit:04x}");
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut first = true;
        self.out.push('[');
        for item in value.try_iter()? {
            self.separate(&mut first, depth + 1);
            self.value(&item, depth + 1)?;
        }
        self.close(first, depth, ']');
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "minijinja may add kinds, which JSON lacks")]
    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.options.sort_keys {
            keys.sort();
        }
        let mut first = true;
        self.out.push('{');
        for key in keys {
            self.separate(&mut first, depth + 1);
            let name = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                ValueKind::None => "null".to_owned(),
                ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
                ValueKind::Number => key.to_string(),
                kind => return Err(fail(format!("a key of type {kind} is not JSON serializable"))),
            };
            self.string(&name);
            self.out.push_str(&self.options.separators.1);
            self.value(&value.get_item(&key)?, depth + 1)?;
        }
        self.close(first, depth, '}');
        Ok(())
    }

    fn separate(&mut self, first: &mut bool, depth: usize) {
        if !std::mem::replace(first, false) {
            self.out.push_str(&self.options.separators.0);
        }
        self.line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.options.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }
}
