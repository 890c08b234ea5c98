//! Limits the number of values and the nesting of a JSON text before it is parsed.
//!
//! A parser needs about 70 bytes for each `0,` of the text, so 64 MiB of malicious JSON would need
//! gigabytes. Counting takes one pass over the bytes and no memory. The grammar is not checked.

use fsio::limits;

/// Nesting of a tokenizer.json; published ones have fewer than 10 levels.
const DEPTH: usize = 64;
/// Values in a tokenizer.json: as many as in the largest Unigram vocabulary. The largest published
/// BPE vocabularies, with three values per merge, have two thirds of that.
const VALUES: usize = 3 * limits::TOKENIZER_ENTRIES + SECTION_VALUES;
/// Values in each top-level key other than `model` and `added_tokens`.
const SECTION_VALUES: usize = 100_000;

/// Checks that parsing `text` cannot need much more memory than its size; returns the problem.
pub(crate) fn check(text: &str) -> std::result::Result<(), String> {
    let bytes = text.as_bytes();
    let mut position = 0;
    let mut depth = 0usize;
    let mut values = 0usize;
    let mut section = "";
    let mut in_section = 0usize;
    let mut last_string = 0..0;
    while let Some(&byte) = bytes.get(position) {
        match byte {
            b'"' => {
                let end = string_end(bytes, position);
                last_string = position + 1..end;
                position = end;
            }
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                in_section += 1;
                if depth > DEPTH {
                    return Err(format!("nested deeper than {DEPTH} levels at byte {position}"));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => {
                values += 1;
                in_section += 1;
            }
            b':' if depth == 1 => {
                section = text.get(last_string.clone()).unwrap_or_default();
                in_section = 0;
            }
            _ => {}
        }
        if values > VALUES {
            return Err(format!("more than {VALUES} values"));
        }
        let large = matches!(section, "model" | "added_tokens");
        if in_section > SECTION_VALUES && !large {
            return Err(format!("more than {SECTION_VALUES} values in `{section}`"));
        }
        position += 1;
    }
    Ok(())
}

/// Position of the quote that ends the string at `start`, or the end of the text.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut position = start + 1;
    while let Some(&byte) = bytes.get(position) {
        match byte {
            b'"' => return position,
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, check};

    #[test]
    fn brackets_inside_strings_do_not_count() {
        let text = format!("{{\"a\": \"{}\\\"[\"}}", "[".repeat(1000));
        assert_eq!(check(&text), Ok(()));
    }

    #[test]
    fn deep_and_wide_texts_are_refused() {
        assert!(check(&"[".repeat(DEPTH + 1)).is_err());
        let wide = format!("{{\"normalizer\": [{}0]}}", "0,".repeat(200_000));
        assert!(check(&wide).is_err_and(|e| e.contains("normalizer")));
    }
}
