//! Templates of task files: text with `{{ expression }}`, and nothing else of Jinja.
//!
//! A template that is one expression has that expression's value, which can be a list or a number.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Expression, Value};
use serde_json::{Map, Value as Json};

use crate::functions;

/// Maximum length of an expression. The engine's parser recurses with its operators.
const EXPRESSION_BYTES: usize = 1000;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(functions::environment);

/// The columns of a row as templates read them.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    value: Value,
    names: BTreeSet<String>,
}

impl Columns {
    pub(crate) fn new(columns: &Map<String, Json>) -> Self {
        let names = columns.keys().cloned().collect();
        Self { value: Value::from(Serde(columns)), names }
    }
}

/// A compiled template.
pub(crate) struct Template {
    source: String,
    pieces: Vec<Piece>,
}

enum Piece {
    Text(String),
    Expression(Expression<'static, 'static>),
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.source).finish()
    }
}

impl Template {
    /// Compiles a template; the error is a sentence.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some(at) = rest.find("{{") {
            let (text, tail) = rest.split_at(at);
            push_text(&mut pieces, text)?;
            let tail = tail.get(2..).unwrap_or_default();
            let end = end_of(tail).ok_or("`{{` without `}}`")?;
            let expression = tail.get(..end).unwrap_or_default();
            pieces.push(Piece::Expression(compiled(expression)?));
            rest = tail.get(end + 2..).unwrap_or_default();
        }
        push_text(&mut pieces, rest)?;
        Ok(Self { source: source.to_owned(), pieces })
    }

    /// The text for a row; the error is a sentence.
    pub(crate) fn text(&self, row: &Columns) -> Result<String, String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::Expression(expression) => {
                    let value = evaluate(expression, row)?;
                    text += &functions::printed(&value).map_err(|error| described(&error))?;
                }
            }
            if text.len() > functions::TEXT_BYTES {
                return Err(format!("a text of more than {} bytes", functions::TEXT_BYTES));
            }
        }
        Ok(text)
    }

    /// The value for a row: that of the expression if the template is one, else the text.
    pub(crate) fn value(&self, row: &Columns) -> Result<Value, String> {
        match self.pieces.as_slice() {
            [Piece::Expression(expression)] => evaluate(expression, row),
            _ => self.text(row).map(Value::from),
        }
    }

    /// The list of texts for a row.
    pub(crate) fn texts(&self, row: &Columns) -> Result<Vec<String>, String> {
        let value = self.value(row)?;
        if !is_list(&value) {
            return Err(format!("a list is needed, but this is a {}", value.kind()));
        }
        let items = value.try_iter().map_err(|error| described(&error))?;
        items.map(|item| functions::printed(&item).map_err(|error| described(&error))).collect()
    }
}

/// Whether a value is a list.
pub(crate) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), String> {
    if text.contains("{%") || text.contains("{#") {
        return Err("only `{{ expression }}` is supported, no `{%` or `{#`".to_owned());
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(())
}

/// The place of `}}` outside of quotes and braces.
fn end_of(text: &str) -> Option<usize> {
    let (mut quote, mut escaped, mut depth) = (None, false, 0usize);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth > 0 => depth -= 1,
            (None, '}') if text.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                return Some(at);
            }
            (None, _) => {}
        }
    }
    None
}

fn compiled(expression: &str) -> Result<Expression<'static, 'static>, String> {
    let trimmed = expression.trim();
    if expression.starts_with('-') || expression.ends_with('-') {
        return Err("`{{-` and `-}}` are not supported".to_owned());
    }
    if trimmed.is_empty() {
        return Err("`{{ }}` is empty".to_owned());
    }
    if trimmed.len() > EXPRESSION_BYTES {
        return Err(format!("an expression of more than {EXPRESSION_BYTES} bytes"));
    }
    // Repeated texts and lists are the one way to make much out of little.
    if has_star(trimmed) {
        return Err(format!("`*` is not supported: `{trimmed}`"));
    }
    ENVIRONMENT
        .compile_expression_owned(trimmed.to_owned())
        .map_err(|error| format!("{}: `{trimmed}`", described(&error)))
}

fn has_star(expression: &str) -> bool {
    let (mut quote, mut escaped) = (None, false);
    for c in expression.chars() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '*') => return true,
            (None, _) => {}
        }
    }
    false
}

fn evaluate(expression: &Expression<'static, 'static>, row: &Columns) -> Result<Value, String> {
    let problem = match expression.eval(row.value.clone()) {
        Ok(value) if !value.is_undefined() => return Ok(value),
        Ok(_) => "the expression has no value".to_owned(),
        Err(error) => described(&error),
    };
    let needed = expression.undeclared_variables(false);
    let missing: BTreeSet<&String> =
        needed.iter().filter(|name| !row.names.contains(*name)).collect();
    if missing.is_empty() {
        return Err(problem);
    }
    let list = |names: &mut dyn Iterator<Item = &String>| {
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let missing = list(&mut missing.into_iter());
    Err(format!("no column {missing}; the row has {}", list(&mut row.names.iter())))
}

/// The engine's message on one line.
fn described(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (ErrorKind::OutOfFuel, _) => "the expression takes too long".to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Columns, Template};

    fn row() -> Columns {
        let row = json!({
            "text": "An old map", "label": 1, "flag": true, "none": null, "x": 1.0, "answerKey": " 2",
            "choices": { "text": ["red", "blue"], "label": ["1", "2"] },
        });
        Columns::new(row.as_object().unwrap())
    }

    /// Texts that Jinja2 3.1 renders from the same templates.
    #[test]
    fn texts_are_those_of_jinja() {
        for (template, text) in [
            ("Question: {{text}}\nAnswer:\n", "Question: An old map\nAnswer:\n"),
            ("{{text.split(' ')[:-1]|join(' ')}}", "An old"),
            ("{{' '+text.split(' ')[-1]}}", " map"),
            ("{{ choices.label.index(answerKey.lstrip()) }}", "1"),
            ("{{ flag }} {{ none }} {{ x }} {{ label }}", "True None 1.0 1"),
            ("{{ '}}' ~ \"{{\" }}{ }", "}}{{{ }"),
            ("{{ text.split(' ', 1)[1].strip() }}", "old map"),
            ("{{ text|regex_replace('[aeo]', '')|replace('l', 'LL') }}", "An LLd mp"),
            ("{{ text[0] }}{{ choices['text'][1] }}", "Ablue"),
            ("{{ text if label == 1 else 'no' }}", "An old map"),
        ] {
            assert_eq!(
                Template::new(template).unwrap().text(&row()).as_deref(),
                Ok(text),
                "{template}"
            );
        }
    }

    #[test]
    fn lists_are_values() {
        let texts = |template: &str| Template::new(template).unwrap().texts(&row());
        let list = |items: &[&str]| Ok(items.iter().map(|item| (*item).to_owned()).collect());
        assert_eq!(texts("{{ choices.text }}"), list(&["red", "blue"]));
        assert_eq!(texts("{{ [text, label] }}"), list(&["An old map", "1"]));
        assert_eq!(texts("{{ choices.text|map('replace', 'e', '')|list }}"), list(&["rd", "blu"]));
        assert_eq!(texts("x{{ text }}"), Err("a list is needed, but this is a string".to_owned()));
    }

    #[test]
    fn problems_are_named() {
        let text = |template: &str| Template::new(template).unwrap().text(&row()).unwrap_err();
        assert_eq!(
            text("{{ question }}"),
            "no column `question`; the row has `answerKey`, `choices`, `flag`, `label`, `none`, `text`, `x`"
        );
        assert_eq!(text("{{ choices.label.index('C') }}"), "`C` is not in the list");
        assert_eq!(text("{{ choices.text }}"), "a text is needed, but this is a sequence");
        assert!(text("{{ text.title() }}").starts_with("unknown method: `title`; known methods"));
        let compile = |template: &str| Template::new(template).unwrap_err();
        assert_eq!(compile("{% if x %}"), "only `{{ expression }}` is supported, no `{%` or `{#`");
        assert_eq!(compile("{{ 'a' * 9 }}"), "`*` is not supported: `'a' * 9`");
        assert_eq!(compile("{{ a "), "`{{` without `}}`");
    }

    #[test]
    fn no_expression_makes_much_out_of_little() {
        let long = "x".repeat(1 << 20);
        let columns = json!({ "text": long, "list": vec!["a"; 1000] });
        let row = Columns::new(columns.as_object().unwrap());
        for template in [
            "{{ text.replace('x', text).replace('x', text) }}",
            "{{ list|join(text) }}",
            "{{ text.join(list) }}",
            "{{ text|regex_replace('x', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy') }}",
            "{{ text|regex_replace('', text) }}",
            &"{{ text }}".repeat(17),
        ] {
            let error = Template::new(template).unwrap().text(&row).unwrap_err();
            assert!(error.contains("more than 16777216 bytes"), "{template}: {error}");
        }
        // A set of letters to strip is searched in one step, and each pattern of a list is paid for.
        let started = std::time::Instant::now();
        let text = Template::new("{{ text.strip(text) }}").unwrap().text(&row);
        assert_eq!(text.as_deref(), Ok(""));
        let error = Template::new("{{ list|map('regex_replace', 'a', 'b')|list|length }}");
        let error = error.unwrap().text(&row).unwrap_err();
        assert!(error.contains("takes too long"), "{error}");
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }
}
