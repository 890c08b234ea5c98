//! A chat template: messages to text.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use fsio::limits;
use minijinja::Value;
use minijinja::value::Serde;
use serde_json::{Map, json};

use super::jinja::JinjaTemplate;
use super::strftime::Clock;
use super::template_layout::{CachedLayout, LayoutKey};
use super::template_names::has_name;
use super::{Message, Role, TemplateTokens};
use crate::untrusted::bounded::within_render_time;
use crate::untrusted::panics::catch_panic;
use crate::untrusted::template_rewrite;
use crate::{Error, Result};

const CHATML: &str = "\
{{ bos_token }}
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
";

const PLAIN: &str = "\
{{ bos_token }}
{%- for message in messages -%}
{{ message['role'] | capitalize + ':\\n' + message['content'] }}
{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}
{{- '\\n\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'Assistant:\\n' }}
{%- endif -%}
";

/// Layouts kept per template; those of further combinations of roles are computed each time.
const CACHED_LAYOUTS: usize = 4096;

/// A message as a template gets it; `content` may be a placeholder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageView<'a> {
    pub(crate) role: Role,
    pub(crate) content: &'a str,
    pub(crate) fields: &'a Map<String, serde_json::Value>,
}

impl<'a> MessageView<'a> {
    pub(crate) fn of(message: &'a Message) -> Self {
        Self { role: message.role, content: &message.content, fields: &message.fields }
    }

    /// The message for a template; with `parts`, its content is a list of one text part.
    fn to_json(self, parts: bool) -> serde_json::Value {
        let content = if parts {
            json!([{"type": "text", "text": self.content}])
        } else {
            self.content.into()
        };
        let mut json = json!({"role": self.role.as_str(), "content": content});
        if let Some(object) = json.as_object_mut() {
            // Templates test an absent content for null, so it stays one.
            let fields = self.fields.iter();
            let given = fields.filter(|(key, _)| *key != "content" || self.content.is_empty());
            object.extend(given.map(|(key, value)| (key.clone(), value.clone())));
        }
        json
    }
}

/// A compiled chat template. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    name: Arc<str>,
    source: String,
    clock: Clock,
    jinja: JinjaTemplate,
    layouts: Mutex<BTreeMap<LayoutKey, CachedLayout>>,
    /// Whether the template reads contents as lists of parts.
    reads_parts: OnceLock<bool>,
    /// Names of the fields whose reasoning the template writes.
    pub(super) reasoning_fields: OnceLock<Vec<&'static str>>,
    /// Texts before a first user message and between an answer and a second one.
    between_turns: Mutex<BTreeMap<TemplateTokens, Option<[String; 2]>>>,
}

impl ChatTemplate {
    /// A builtin template: `chatml`, with `<|im_start|>` and `<|im_end|>`, or `plain`, whose only
    /// special token is end-of-text.
    pub fn builtin(name: &str) -> Result<Self> {
        match name {
            "chatml" => Self::from_source("chatml", CHATML),
            "plain" => Self::from_source("plain", PLAIN),
            _ => Err(Error::UnknownTemplate { name: name.to_owned() }),
        }
    }

    /// A template from its Jinja source; errors contain `name`.
    pub fn from_source(name: &str, source: impl Into<String>) -> Result<Self> {
        Self::new(name, source.into(), Clock::System)
    }

    /// Reads a .jinja file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let source = fsio::read_text_capped(path, limits::TEMPLATE_BYTES)?;
        Self::from_source(&path.display().to_string(), source)
    }

    fn new(name: &str, source: String, clock: Clock) -> Result<Self> {
        let name: Arc<str> = name.into();
        let jinja = compile(&name, &source, clock)?;
        let inner = Inner {
            name,
            source,
            clock,
            jinja,
            layouts: Mutex::default(),
            reads_parts: OnceLock::new(),
            reasoning_fields: OnceLock::new(),
            between_turns: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same template with another clock, for templates that write the date.
    pub fn with_clock(&self, clock: Clock) -> Result<Self> {
        Self::new(&self.inner.name, self.inner.source.clone(), clock)
    }

    /// Name for errors: that of a builtin, or the path of the file that has the template.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Jinja source.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// Whether the template may read a field of messages, or a variable such as `tools`: its code
    /// names it.
    pub fn reads(&self, field: &str) -> bool {
        has_name(self.source(), field)
    }

    /// Source of the time for `strftime_now`.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Whether the template marks what the model writes with `{% generation %}` blocks, as templates
    /// for training do.
    pub fn has_generation_blocks(&self) -> bool {
        self.inner.jinja.has_generation_blocks()
    }

    /// Renders a context: an object with `messages`, `tools`, `add_generation_prompt` and so on.
    pub fn render(&self, context: &serde_json::Value) -> Result<String> {
        let limit = output_limit(context);
        let render = || self.inner.jinja.render(self.name(), Value::from(Serde(context)), limit);
        catch_panic("rendering a chat template", render)?
    }

    /// Renders messages, some of which may have a placeholder as their content.
    pub(crate) fn render_messages(
        &self,
        messages: &[MessageView<'_>],
        tools: &[serde_json::Value],
        tokens: &TemplateTokens,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let messages = self.messages_json(messages);
        let tools = (!tools.is_empty()).then(|| serde_json::json!(tools));
        self.render_json(&messages, tools.as_ref(), tokens, add_generation_prompt)
    }

    fn messages_json(&self, messages: &[MessageView<'_>]) -> serde_json::Value {
        let parts = *self.inner.reads_parts.get_or_init(|| self.reads_parts());
        messages.iter().map(|view| view.to_json(parts)).collect()
    }

    /// Whether the template writes contents only if they are lists of parts, as templates of models
    /// that read images do.
    fn reads_parts(&self) -> bool {
        const TEXT: &str = "Tq content";
        let message = Message::new(Role::User, TEXT);
        let view = MessageView::of(&message);
        let writes = |parts: bool| {
            let messages = json!([view.to_json(parts)]);
            let text = self.render(&context(&messages, None, &TemplateTokens::default(), false));
            text.is_ok_and(|text| text.contains(TEXT))
        };
        !writes(false) && writes(true)
    }

    /// Renders messages and tools, given as JSON lists.
    pub(crate) fn render_json(
        &self,
        messages: &serde_json::Value,
        tools: Option<&serde_json::Value>,
        tokens: &TemplateTokens,
        add_generation_prompt: bool,
    ) -> Result<String> {
        self.render(&context(messages, tools, tokens, add_generation_prompt))
    }

    /// Renders messages with `marks` at the start and at the end of each `{% generation %}` block.
    pub(crate) fn render_with_marks(
        &self,
        messages: &[MessageView<'_>],
        tools: &[serde_json::Value],
        tokens: &TemplateTokens,
        marks: &[String; 2],
    ) -> Result<String> {
        let messages = self.messages_json(messages);
        let tools = (!tools.is_empty()).then(|| serde_json::json!(tools));
        let mut context = context(&messages, tools.as_ref(), tokens, false);
        for (name, mark) in template_rewrite::MARKS.into_iter().zip(marks) {
            context[name] = mark.clone().into();
        }
        let limit = output_limit(&context);
        let (name, context) = (self.name(), Serde(&context));
        let render = || self.inner.jinja.render_marked(name, Value::from(context), limit);
        catch_panic("rendering a chat template", render)?
    }

    /// The texts between turns for `tokens`, from the cache or computed by `find`.
    pub(crate) fn cached_between_turns(
        &self,
        tokens: &TemplateTokens,
        find: impl FnOnce() -> Option<[String; 2]>,
    ) -> Option<[String; 2]> {
        let texts = &self.inner.between_turns;
        let mut texts = texts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        texts.entry(tokens.clone()).or_insert_with(find).clone()
    }

    /// The layout for `key`, from the cache or computed by `track`.
    pub(crate) fn cached_layout(
        &self,
        key: LayoutKey,
        track: impl FnOnce() -> CachedLayout,
    ) -> CachedLayout {
        // A lock is poisoned when another thread panicked; the map stays valid.
        let lock = || self.inner.layouts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return known.clone();
        }
        let layout = track();
        let mut layouts = lock();
        if layouts.len() < CACHED_LAYOUTS {
            layouts.insert(key, layout.clone());
        }
        layout
    }
}

/// Compiles a template on a thread of its own. The parser recurses, for a source of the largest size that is accepted with
/// an operator in each byte too; its stack takes memory only as far as it is used.
fn compile(name: &Arc<str>, source: &str, clock: Clock) -> Result<JinjaTemplate> {
    const STACK_BYTES: usize = 256 << 20;
    const DOING: &str = "compiling a chat template";
    let failed = |reason: String| Error::Backend { doing: DOING, reason };
    std::thread::scope(|scope| {
        // The source is untrusted; a panic of the parser must not end the run.
        let compile = || {
            let compile = || catch_panic(DOING, || JinjaTemplate::new(name, source, clock));
            within_render_time(name, compile)
        };
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, compile).map_err(fsio::NoThread)?;
        let compiled = thread.join().map_err(|_| failed("its thread panicked".to_owned()))?;
        compiled.map_err(failed)??
    })
}

/// Bytes that a template may write for a context. The text is tokenized before it can be compared with a model's context
/// length, which takes a few hundred bytes of memory for each byte: a template that writes much more than it is given is refused.
fn output_limit(context: &serde_json::Value) -> usize {
    let texts = text_bytes(context).saturating_mul(limits::TEMPLATE_OUTPUT_RATIO);
    texts.saturating_add(limits::FREE_TEMPLATE_OUTPUT_BYTES).min(limits::TEMPLATE_OUTPUT_BYTES)
}

/// Bytes of all texts in a value, keys included.
fn text_bytes(value: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    match value {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(text_bytes).sum(),
        Json::Object(map) => map.iter().map(|(key, value)| key.len() + text_bytes(value)).sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
    }
}

/// The variables of a template, as transformers passes them.
fn context(
    messages: &serde_json::Value,
    tools: Option<&serde_json::Value>,
    tokens: &TemplateTokens,
    add_generation_prompt: bool,
) -> serde_json::Value {
    let mut context = json!({
        "messages": messages,
        "tools": tools,
        "documents": null,
        "add_generation_prompt": add_generation_prompt,
    });
    if let Some(map) = context.as_object_mut() {
        for (name, text) in &tokens.named {
            map.insert(name.clone(), text.clone().into());
        }
        if !tokens.additional.is_empty() {
            map.insert("additional_special_tokens".to_owned(), tokens.additional.clone().into());
        }
    }
    context
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("name", &self.name()).finish_non_exhaustive()
    }
}
