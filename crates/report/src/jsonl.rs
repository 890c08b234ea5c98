//! Logs of JSON lines, of which the last may be torn and any may be damaged.

use std::path::Path;

use serde_json::{Map, Value};

/// Size of a log that is read whole, in bytes.
const LOG_BYTES: u64 = 1 << 30;

/// The objects of a log.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Map<String, Value>>,
    /// Problems of the file, as sentences.
    pub(crate) problems: Vec<String>,
}

/// Reads a log. A missing file has no rows and no problem.
pub(crate) fn read(path: &Path) -> Rows {
    let bytes = match fsio::read_capped(path, LOG_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Rows::default(),
        Err(error) => return Rows { rows: Vec::new(), problems: vec![error.to_string()] },
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parse(&bytes, &name)
}

fn parse(bytes: &[u8], name: &str) -> Rows {
    let mut out = Rows::default();
    let (mut n_bad, mut first_bad) = (0, 0);
    // Each line ends with a line feed, so that what follows the last one is the start of a line.
    let (whole, rest) = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => bytes.split_at(end + 1),
        None => (&[][..], bytes),
    };
    for (idx, line) in whole.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(row) => out.rows.push(row),
            Err(_) => {
                n_bad += 1;
                first_bad = if n_bad == 1 { idx + 1 } else { first_bad };
            }
        }
    }
    if n_bad > 0 {
        let lines = if n_bad == 1 { "line is" } else { "lines are" };
        out.problems.push(format!(
            "{name}: {n_bad} {lines} not JSON and left out, the first in line {first_bad}"
        ));
    }
    if !rest.is_empty() {
        match serde_json::from_slice(rest) {
            Ok(row) => out.rows.push(row),
            Err(_) => out.problems.push(format!("{name}: the last line is incomplete")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn damaged_lines_are_counted_and_left_out() {
        let rows = parse(b"{\"a\":1}\nnull\n\xff\n{\"a\":2}\n{\"a\":", "m.jsonl");
        assert_eq!(rows.rows.len(), 2);
        assert_eq!(
            rows.problems,
            [
                "m.jsonl: 2 lines are not JSON and left out, the first in line 2",
                "m.jsonl: the last line is incomplete"
            ]
        );
        assert!(parse(b"", "m").problems.is_empty());
        assert_eq!(parse(b"{}", "m").rows.len(), 1);
    }
}
