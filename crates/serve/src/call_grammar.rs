//! The frame of answers that consist of calls of tools: fixed texts around objects that follow a schema.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokenizer::Tokenizer;

use crate::api::{Function, RequiredCalls};
use crate::tool_calls::{CLOSE, OPEN};

/// The position of a sequence in the texts around its calls.
#[derive(Clone)]
pub(crate) struct CallFrame {
    /// Ids before the first call, between two calls, and after a call.
    open: Arc<[u32]>,
    again: Arc<[u32]>,
    close: Arc<[u32]>,
    /// Ids that end the answer.
    eos: Arc<[u32]>,
    is_single: bool,
    place: Place,
}

/// Where the next token is. Numbers are those of the next id of a text.
#[derive(Clone, Copy)]
enum Place {
    Open(usize),
    Again(usize),
    Call,
    Close(usize),
    /// After a call: the answer ends, or another call follows.
    Ended,
}

impl CallFrame {
    /// The frame of an answer of one call, or of some.
    ///
    /// # Errors
    /// The reason, if the tokenizer cannot write it.
    pub(crate) fn new(tokenizer: &Tokenizer, is_single: bool) -> Result<Self, String> {
        let ids = |text: String| -> Result<Arc<[u32]>, String> {
            let ids = tokenizer.encode_plain(&text).map_err(|error| error.to_string())?;
            // A special token would be missing in the text.
            if tokenizer.decode(&ids, true).trim() == text.trim() {
                Ok(ids.into())
            } else {
                Err(format!("the tokenizer does not write `{}` as text", text.trim()))
            }
        };
        Ok(Self {
            open: ids(format!("{OPEN}\n"))?,
            again: ids(format!("\n{OPEN}\n"))?,
            close: ids(format!("\n{CLOSE}"))?,
            eos: tokenizer.eos_ids().into(),
            is_single,
            place: Place::Open(0),
        })
    }

    /// The ids of which one follows; none in the middle of a call.
    pub(crate) fn next_ids(&self) -> Option<Vec<u32>> {
        let of = |text: &[u32], idx: usize| text.get(idx).copied().into_iter().collect();
        match self.place {
            Place::Open(idx) => Some(of(&self.open, idx)),
            Place::Again(idx) => Some(of(&self.again, idx)),
            Place::Close(idx) => Some(of(&self.close, idx)),
            Place::Call => None,
            Place::Ended => {
                let again = self.again.first().filter(|_| !self.is_single);
                Some(self.eos.iter().chain(again).copied().collect())
            }
        }
    }

    /// Takes one of these ids; true if a call begins after it.
    pub(crate) fn advance(&mut self) -> bool {
        let next = |idx: usize, text: &[u32]| Some(idx + 1).filter(|idx| *idx < text.len());
        self.place = match self.place {
            Place::Open(idx) => next(idx, &self.open).map_or(Place::Call, Place::Open),
            Place::Again(idx) => next(idx, &self.again).map_or(Place::Call, Place::Again),
            Place::Close(idx) => next(idx, &self.close).map_or(Place::Ended, Place::Close),
            Place::Ended => next(0, &self.again).map_or(Place::Call, Place::Again),
            Place::Call => Place::Call,
        };
        matches!(self.place, Place::Call)
    }

    /// Goes on after a call that is complete.
    pub(crate) fn end_call(&mut self) {
        self.place = Place::Close(0);
    }
}

/// The schema of a call: the name of a function, and arguments that follow its schema.
pub(crate) fn schema(calls: &RequiredCalls) -> Value {
    let of = |(idx, function): (usize, &Function)| {
        let mut arguments = function.schema();
        let at = if calls.functions.len() == 1 { String::new() } else { format!("/anyOf/{idx}") };
        move_references(&mut arguments, &format!("#{at}/properties/arguments"));
        json!({"type": "object", "properties": {"name": {"const": function.name}, "arguments": arguments},
            "required": ["name", "arguments"], "additionalProperties": false})
    };
    let mut all: Vec<Value> = calls.functions.iter().enumerate().map(of).collect();
    if all.len() == 1 { all.remove(0) } else { json!({"anyOf": all}) }
}

/// References within a schema, for the place that it has in another one.
fn move_references(schema: &mut Value, to: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, to)),
        Value::Object(fields) => move_reference_of(fields, to),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn move_reference_of(fields: &mut Map<String, Value>, to: &str) {
    for (name, value) in fields.iter_mut() {
        match value {
            Value::String(reference) if name == "$ref" => {
                if let Some(rest) = reference.strip_prefix('#') {
                    *reference = format!("{to}{}", rest.trim_end_matches('/'));
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => move_references(value, to),
        }
    }
}
