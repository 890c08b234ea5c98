//! Limits of the JSON schemas that a request may have: compiling one recurses for each step along its references and for each
//! of its properties.

use std::thread;

use serde_json::Value;

/// Values of a schema: objects, lists, texts and numbers in them.
const MAX_VALUES: usize = 4096;
/// Fields of an object of a schema, such as its properties: the parser follows each that may come next, and gives up where they
/// are too many.
const MAX_FIELDS: usize = 400;
/// Bytes of all texts of a schema, names of fields among them. Each is compiled to a state of the grammar's automaton: a
/// megabyte would take seconds for every request.
const MAX_TEXT_BYTES: usize = 256 << 10;
/// Stack of the thread that compiles a schema with that many values. Only what it uses takes memory.
const STACK_BYTES: usize = 256 << 20;

/// Refuses a schema that is too large; the error is the reason.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    let mut left = vec![schema];
    let (mut n_values, mut n_bytes) = (0_usize, 0_usize);
    while let Some(value) = left.pop() {
        n_values += 1;
        match value {
            Value::Array(values) => left.extend(values),
            Value::Object(fields) if fields.len() > MAX_FIELDS => {
                return Err(format!("it has an object of more than {MAX_FIELDS} fields"));
            }
            Value::Object(fields) => {
                n_bytes += fields.keys().map(String::len).sum::<usize>();
                left.extend(fields.values());
            }
            Value::String(text) => n_bytes += text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        if n_bytes > MAX_TEXT_BYTES {
            return Err(format!("its texts have more than {MAX_TEXT_BYTES} bytes"));
        }
        if n_values > MAX_VALUES {
            return Err(format!("it has more than {MAX_VALUES} values"));
        }
    }
    Ok(())
}

/// Runs `compile` on a thread with a stack for the largest schema; a panic is an error, as is a machine without a thread.
pub(crate) fn on_large_stack<T: Send>(
    compile: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(STACK_BYTES);
        let compiling = thread.spawn_scoped(scope, || fsio::panics::caught(compile));
        let compiling = compiling.map_err(|error| fsio::NoThread(error).to_string())?;
        // A panic is caught on the thread.
        compiling.join().map_err(|_| "it cannot be compiled".to_owned())??
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{MAX_TEXT_BYTES, MAX_VALUES, check};

    #[test]
    fn values_are_counted_wherever_they_are() {
        assert_eq!(check(&json!({"type": "object", "required": ["a"]})), Ok(()));
        let names = |n: usize| json!({"required": vec!["a"; n]});
        assert_eq!(check(&names(MAX_VALUES - 2)), Ok(()));
        assert!(check(&names(MAX_VALUES - 1)).is_err());
        let options = |n: usize| json!({"enum": vec!["x".repeat(1000); n]});
        assert_eq!(check(&options(MAX_TEXT_BYTES / 1000)), Ok(()));
        assert!(check(&options(MAX_TEXT_BYTES / 1000 + 1)).is_err());
        assert!(check(&json!({ "x".repeat(MAX_TEXT_BYTES + 1): 1 })).is_err());
        let nested = (0..5000).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(check(&nested).is_err());
        // Dropping what is nested so deep would overflow the stack of a test.
        std::mem::forget(nested);
    }
}
