//! Checks the post-processor of a tokenizer.json: how many tokens it adds to a text, and their ids.

use serde_json::Value;

/// Maximum number of tokens that a post-processor adds to a text.
const ADDED: usize = 1024;
/// Maximum number of times that a post-processor writes a text.
const COPIES: usize = 4;

/// A chain of post-processors applied to one text.
#[derive(Default)]
struct Effect {
    /// Number of times that the text is written.
    copies: usize,
    added: usize,
    tokens: Vec<(String, u64)>,
}

/// The tokens that a post-processor can add, with their ids; or the reason for refusing it.
pub(super) fn added_tokens(value: &Value) -> Result<Vec<(String, u64)>, String> {
    let mut effect = Effect { copies: 1, ..Effect::default() };
    effect.apply(value)?;
    Ok(effect.tokens)
}

impl Effect {
    fn apply(&mut self, value: &Value) -> Result<(), String> {
        match value.get("type").and_then(Value::as_str) {
            Some("Sequence") => {
                let steps = value.get("processors").and_then(Value::as_array);
                steps.into_iter().flatten().try_for_each(|step| self.apply(step))
            }
            Some("TemplateProcessing") => self.template(value),
            Some("BertProcessing" | "RobertaProcessing") => {
                for key in ["cls", "sep"] {
                    let pair = value.get(key).and_then(Value::as_array);
                    let Some([token, id]) = pair.map(Vec::as_slice) else { continue };
                    self.token(token.as_str().unwrap_or_default(), id);
                }
                self.grow(1, 2)
            }
            // ByteLevel adds nothing; the library refuses other types.
            Some(_) | None => Ok(()),
        }
    }

    fn template(&mut self, value: &Value) -> Result<(), String> {
        let specials = value.get("special_tokens").and_then(Value::as_object);
        for (name, special) in specials.into_iter().flatten() {
            for id in special.get("ids").and_then(Value::as_array).into_iter().flatten() {
                self.token(name, id);
            }
        }
        let n_ids = |name: &str| {
            let special = specials.and_then(|specials| specials.get(name));
            special.and_then(|s| s.get("ids")).and_then(Value::as_array).map_or(0, Vec::len)
        };
        let (mut copies, mut added) = (0usize, 0usize);
        // A piece is written as an object, or as a text such as `$A` or `[CLS]:0`.
        for piece in value.get("single").and_then(Value::as_array).into_iter().flatten() {
            let special = piece.get("SpecialToken").and_then(|token| token.get("id"));
            match special.or(Some(piece)).and_then(Value::as_str) {
                Some(text) if special.is_some() || !text.starts_with('$') => {
                    let name = text.split_once(':').map_or(text, |(name, _)| name);
                    added = added.saturating_add(n_ids(text).max(n_ids(name)));
                }
                Some(_) | None => copies += 1,
            }
        }
        self.grow(copies, added)
    }

    fn token(&mut self, token: &str, id: &Value) {
        // An id that is no number is an error of the library.
        self.tokens.extend(id.as_u64().map(|id| (token.to_owned(), id)));
    }

    fn grow(&mut self, copies: usize, added: usize) -> Result<(), String> {
        self.copies = self.copies.saturating_mul(copies);
        self.added = self.added.saturating_mul(copies.max(1)).saturating_add(added);
        if self.copies > COPIES {
            return Err(format!("the post-processor writes a text {} times", self.copies));
        }
        if self.added > ADDED {
            let added = self.added;
            return Err(format!("the post-processor adds {added} tokens (limit {ADDED})"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::added_tokens;

    fn template(pieces: Vec<Value>) -> Value {
        let bos = json!({"id": "<s>", "ids": [1, 2], "tokens": ["<s>", "<t>"]});
        json!({"type": "TemplateProcessing", "single": pieces, "special_tokens": {"<s>": bos}})
    }

    fn special() -> Value {
        json!({"SpecialToken": {"id": "<s>", "type_id": 0}})
    }

    fn sequence() -> Value {
        json!({"Sequence": {"id": "A", "type_id": 0}})
    }

    #[test]
    fn tokens_are_found_in_all_types() {
        let bert = json!({"type": "BertProcessing", "sep": ["a", 7], "cls": ["b", 8]});
        let chain = json!({"type": "Sequence", "processors": [bert, template(vec![sequence(), special()])]});
        let expected = [("b", 8), ("a", 7), ("<s>", 1), ("<s>", 2)];
        let expected: Vec<(String, u64)> =
            expected.into_iter().map(|(token, id)| (token.to_owned(), id)).collect();
        assert_eq!(added_tokens(&chain), Ok(expected));
        assert_eq!(added_tokens(&Value::Null), Ok(Vec::new()));
    }

    #[test]
    fn growth_is_refused() {
        let refused = |value: &Value| added_tokens(value).err().unwrap_or_default();
        assert!(refused(&template(vec![special(); 600])).contains("adds 1200 tokens"));
        assert!(refused(&template(vec![json!("<s>:0"); 600])).contains("adds 1200 tokens"));
        assert!(refused(&template(vec![sequence(); 5])).contains("writes a text 5 times"));
        let twice = template(vec![sequence(), json!("$A")]);
        let chain = json!({"type": "Sequence", "processors": [twice, twice, twice]});
        assert!(refused(&chain).contains("writes a text 8 times"));
    }
}
