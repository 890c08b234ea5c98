//! Renders chat templates in transformers' dialect of Jinja, within limits.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use fsio::limits;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use super::python_json::{self, Options};
use super::strftime::Clock;
use crate::untrusted::bounded::within_render_time;
use crate::untrusted::{template_rewrite, template_values};

/// Name of the only template in an environment.
const NAME: &str = "chat_template";

/// Maximum work of one rendering: an instruction counts 1, and so do 64 bytes of new data.
///
/// A template that copies a conversation of 4 MiB a dozen times stays below this limit. An endless
/// loop stops within a fraction of a second and 64 MiB.
const FUEL: u64 = 1_000_000;

/// The error of `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Name of the template with marks around its `{% generation %}` blocks, if it has any.
const MARKED: &str = "chat_template with marks";

/// A compiled template.
pub(crate) struct JinjaTemplate {
    environment: Environment<'static>,
    has_generation_blocks: bool,
}

/// The source as Jinja's lexer reads it: line breaks are `\n`, and one at the end is dropped
/// (`keep_trailing_newline` is False in transformers).
fn lexed(source: &str) -> String {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    source
}

impl JinjaTemplate {
    pub(crate) fn new(name: &Arc<str>, source: &str, clock: Clock) -> crate::Result<Self> {
        let bytes = source.len() as u64;
        if bytes > limits::TEMPLATE_BYTES {
            let name = name.to_string();
            return Err(crate::Error::TemplateSize { name, bytes, limit: limits::TEMPLATE_BYTES });
        }
        let syntax_error = |e: Error| {
            let (name, reason) = describe(name, &e);
            crate::Error::TemplateSyntax { name, reason }
        };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()
            .map_err(syntax_error)?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(limits::TEMPLATE_RECURSION);
        environment.set_debug(false);
        environment.set_unknown_method_callback(method);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: &str| clock.strftime(format));
        template_values::install(&mut environment);
        environment.add_filter("tojson", tojson);
        // None is not iterable in Python; templates test `tools is iterable` without tools.
        environment.add_test("iterable", |value: &Value| {
            !value.is_none() && (value.is_undefined() || value.try_iter().is_ok())
        });
        environment.add_filter("int", int);
        environment.add_filter("float", float);
        environment.add_filter("sort", sort);
        environment.add_filter("unique", |state: &State, value: Value, kwargs: Kwargs| {
            template_values::charge(state, &value, 16)?;
            minijinja::filters::unique(state, value, kwargs)
        });
        environment.add_filter("min", |state: &State, value: Value, kwargs: Kwargs| {
            template_values::charge(state, &value, 1)?;
            minijinja::filters::min(state, value, kwargs)
        });
        environment.add_filter("max", |state: &State, value: Value, kwargs: Kwargs| {
            template_values::charge(state, &value, 1)?;
            minijinja::filters::max(state, value, kwargs)
        });
        let source = lexed(source);
        let too_deep = |reason| crate::Error::TemplateBudget { name: name.to_string(), reason };
        let plain = template_rewrite::add_checks(&source).map_err(too_deep)?;
        let marked = template_rewrite::add_checks_and_marks(&source).map_err(too_deep)?;
        let has_generation_blocks = marked != plain;
        environment.add_template_owned(NAME, plain).map_err(syntax_error)?;
        if has_generation_blocks {
            environment.add_template_owned(MARKED, marked).map_err(syntax_error)?;
        }
        Ok(Self { environment, has_generation_blocks })
    }

    /// Whether the template marks what the model writes with `{% generation %}`.
    pub(crate) fn has_generation_blocks(&self) -> bool {
        self.has_generation_blocks
    }

    /// Renders a context; more than `limit` bytes of text are an error.
    pub(crate) fn render(&self, name: &str, context: Value, limit: usize) -> crate::Result<String> {
        self.render_template(NAME, name, context, limit)
    }

    /// Renders the template that writes [`template_rewrite::MARKS`] around its `{% generation %}`
    /// blocks.
    pub(crate) fn render_marked(
        &self,
        name: &str,
        context: Value,
        limit: usize,
    ) -> crate::Result<String> {
        let of = if self.has_generation_blocks { MARKED } else { NAME };
        self.render_template(of, name, context, limit)
    }

    fn render_template(
        &self,
        of: &str,
        name: &str,
        context: Value,
        limit: usize,
    ) -> crate::Result<String> {
        let fail = |e: Error| convert(name, &e);
        let template = self.environment.get_template(of).map_err(fail)?;
        let render = || template.render(context);
        let text = within_render_time(name, render)
            .map_err(|reason| crate::Error::TemplateBudget { name: name.to_owned(), reason })?
            .map_err(fail)?;
        if text.len() > limit {
            return Err(crate::Error::TemplateBudget {
                name: name.to_owned(),
                reason: format!("{} bytes of text, more than the limit of {limit}", text.len()),
            });
        }
        Ok(text)
    }
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// `tojson(value, indent=None, separators=None, sort_keys=False, ensure_ascii=False)`.
fn tojson(state: &State, value: Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    // Jinja passes positional arguments in this order.
    let argument = |position: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match args.get(position) {
            Some(value) => Some(value.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|v| v.is_true());
    let indent = match argument(1, "indent")? {
        None => None,
        Some(text) if text.kind() == ValueKind::String => Some(text.to_string()),
        Some(count) => Some(" ".repeat(usize::try_from(count)?.min(64))),
    };
    let separators = match argument(2, "separators")? {
        Some(pair) => {
            let part = |idx: usize| pair.get_item_by_index(idx).map(|v| v.to_string());
            (part(0)?, part(1)?)
        }
        // json.dumps omits the space after a comma at the end of a line.
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    let options = Options { indent, separators, sort_keys, ensure_ascii };
    python_json::dumps(state, &value, &options).map(Value::from_safe_string)
}

/// `int(value, default=0, base=10)`, with Jinja's default for a text that is not a number.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = with_default(default, &kwargs, Value::from(0))?;
    minijinja::filters::int(state, value, Some(default), base, kwargs)
}

/// `float(value, default=0.0)`, with Jinja's default for a text that is not a number.
fn float(
    state: &State,
    value: &Value,
    default: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = with_default(default, &kwargs, Value::from(0.0))?;
    minijinja::filters::float(state, value, Some(default), kwargs)
}

fn with_default(given: Option<Value>, kwargs: &Kwargs, jinja: Value) -> Result<Value, Error> {
    let named = kwargs.get::<Option<Value>>("default")?;
    Ok(given.or(named).unwrap_or(jinja))
}

/// `sort(value, reverse=False, case_sensitive=False, attribute=None)`, by position or by name.
fn sort(state: &State, value: Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    const NAMES: [&str; 3] = ["reverse", "case_sensitive", "attribute"];
    if args.len() > NAMES.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut named: Vec<(&str, Value)> = NAMES.into_iter().zip(args.iter().cloned()).collect();
    for name in NAMES {
        if let Some(value) = kwargs.get::<Option<Value>>(name)? {
            named.push((name, value));
        }
    }
    kwargs.assert_all_used()?;
    template_values::charge(state, &value, 16)?;
    minijinja::filters::sort(state, value, named.into_iter().collect())
}

/// Python's methods on strings, lists and dicts.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    template_values::charge_text(state, value, 1)?;
    if name == "count" {
        // `count` compares the argument with every item.
        for argument in args {
            template_values::charge(state, argument, value.len().unwrap_or(1))?;
        }
    }
    if name == "format" && !value.as_str().is_none_or(template_values::has_small_widths) {
        let message = "a width of five digits or more, or a computed width";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

fn convert(name: &str, error: &Error) -> crate::Error {
    let name = name.to_owned();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return crate::Error::TemplateRaised { name, message: message.clone() };
        }
        if let Some(inner) = inner.downcast_ref::<Error>() {
            if inner.kind() == ErrorKind::OutOfFuel {
                let work = || format!("more than {FUEL} units of work");
                let reason = inner.detail().map_or_else(work, str::to_owned);
                return crate::Error::TemplateBudget { name, reason };
            }
            if inner.detail().is_some_and(|detail| detail.contains("recursion limit")) {
                let reason = format!("recursion deeper than {}", limits::TEMPLATE_RECURSION);
                return crate::Error::TemplateBudget { name, reason };
            }
        }
        source = inner.source();
    }
    let (name, reason) = describe(&name, error);
    crate::Error::TemplateRender { name, reason }
}

/// The template's name and the engine's message, without its internal name of the template. The line is added to the name of a
/// file that has nothing but the template, and to the message otherwise.
fn describe(name: &str, error: &Error) -> (String, String) {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    match error.line() {
        Some(line) if Path::new(name).extension().is_some_and(|ext| ext == "jinja") => {
            (format!("{name}:{line}"), text)
        }
        Some(line) => (name.to_owned(), format!("{text} (line {line})")),
        None => (name.to_owned(), text),
    }
}
