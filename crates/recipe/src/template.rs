//! Row templates: text with `{column}` placeholders.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Text with a `{column}` placeholder per column value; `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    source: String,
    pieces: Vec<Piece>,
}

/// Part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Literal text.
    Text(String),
    /// Value of a column.
    Column(String),
}

impl Template {
    /// Parses a template. The error is a predicate without the template's text, such as `is empty`.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = source.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.peek() == Some(&c) => {
                    rest.next();
                    text.push(c);
                }
                '}' => return Err("has an unmatched `}`; write `}}` for a brace".to_owned()),
                '{' => {
                    let mut column = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some('{') | None => {
                                return Err(
                                    "has an unclosed `{`; write `{{` for a brace".to_owned()
                                );
                            }
                            Some(c) => column.push(c),
                        }
                    }
                    if column.trim().is_empty() {
                        return Err("has `{}` without a column name".to_owned());
                    }
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    pieces.push(Piece::Column(column.trim().to_owned()));
                }
                c => text.push(c),
            }
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        if pieces.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Self { source: source.to_owned(), pieces })
    }

    /// The template as written in the recipe.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Parts of the template in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Columns of the template in order, with repetitions.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Column(column) => Some(column.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Text of one row. The first column that `value` does not know is the error.
    pub fn render<'v>(
        &self,
        mut value: impl FnMut(&str) -> Option<Cow<'v, str>>,
    ) -> Result<String, &str> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Column(column) => text.push_str(&value(column).ok_or(column.as_str())?),
            }
        }
        Ok(text)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(source: String) -> Result<Self, String> {
        Self::parse(&source)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.source
    }
}

impl JsonSchema for Template {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "row-template" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_replaced_and_doubled_braces_are_braces() {
        let template = Template::parse("{{x}} {a}: { b }!").unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b"]);
        let text = template.render(|column| Some(Cow::Owned(column.to_uppercase()))).unwrap();
        assert_eq!(text, "{x} A: B!");
        assert_eq!(
            template.render(|column| (column == "a").then_some(Cow::Borrowed("1"))),
            Err("b")
        );
    }

    #[test]
    fn broken_templates_are_refused() {
        for broken in ["", "{", "}", "{a", "{a{b}}", "{}", "{ }", "a}b", "{{}"] {
            assert!(Template::parse(broken).is_err(), "`{broken}` was taken");
        }
    }
}
