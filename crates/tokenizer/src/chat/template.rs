//! A chat template: messages to text. Which ids that gives, and which are learnt, is in `encode`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use fsio::limits;
use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;

use super::clock::Clock;
use super::engine::Engine;
use super::skeleton::{self, Skeleton};
use super::{Message, Role};
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

/// Layouts that are remembered; conversations of more shapes are worked out each time.
const SHAPES: usize = 4096;

/// A chat template, compiled. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    source: String,
    clock: Clock,
    engine: Engine,
    /// What the template makes of conversations of a shape, or why it cannot be tracked.
    skeletons: Mutex<BTreeMap<skeleton::Shape, skeleton::Cached>>,
}

/// The special tokens that a template can write.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TemplateTokens(pub(crate) Vec<(String, String)>);

impl ChatTemplate {
    /// `chatml`, with `<|im_start|>` and `<|im_end|>`, or `plain`, which needs no special token but
    /// the end-of-text token.
    pub fn builtin(name: &str) -> Result<Self> {
        match name {
            "chatml" => Self::from_source("chatml", CHATML),
            "plain" => Self::from_source("plain", PLAIN),
            _ => Err(Error::UnknownTemplate { name: name.to_owned() }),
        }
    }

    /// A template from its text; `name` is for messages.
    pub fn from_source(name: &str, source: impl Into<String>) -> Result<Self> {
        Self::new(name, source.into(), Clock::System)
    }

    /// A template from a .jinja file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let source = fsio::read_text_capped(path, limits::TEMPLATE_BYTES)?;
        Self::from_source(&path.display().to_string(), source)
    }

    fn new(name: &str, source: String, clock: Clock) -> Result<Self> {
        let name: Arc<str> = name.into();
        // The engine parses hostile text; a panic there must not end the run.
        let engine = crate::guard::guarded("compiling a chat template", || {
            Engine::new(&name, &source, clock)
        })??;
        let skeletons = Mutex::default();
        Ok(Self { inner: Arc::new(Inner { name, source, clock, engine, skeletons }) })
    }

    /// The same template with another clock, for templates that write today's date.
    pub fn with_clock(&self, clock: Clock) -> Result<Self> {
        Self::new(&self.inner.name, self.inner.source.clone(), clock)
    }

    /// The name for messages: a builtin's, `model`, or a path.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The Jinja text as it was given.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// Where `strftime_now` takes its time from.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Renders any context, as `messages`, `tools`, `add_generation_prompt` and others give it.
    pub fn render(&self, context: &serde_json::Value) -> Result<String> {
        let render = || self.inner.engine.render(self.name(), Value::from(Serde(context)));
        crate::guard::guarded("rendering a chat template", render)?
    }

    /// Renders plain messages. `contents` stand in the place of the messages' own.
    pub(crate) fn render_messages(
        &self,
        messages: &[(Role, &str)],
        tokens: &TemplateTokens,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let messages: Vec<serde_json::Value> = messages
            .iter()
            .map(|(role, content)| json!({"role": role.as_str(), "content": content}))
            .collect();
        let mut context = json!({
            "messages": messages,
            "tools": null,
            "documents": null,
            "add_generation_prompt": add_generation_prompt,
        });
        if let Some(map) = context.as_object_mut() {
            for (name, text) in &tokens.0 {
                map.insert(name.clone(), text.clone().into());
            }
        }
        self.render(&context)
    }

    /// The layout of conversations shaped like `messages`, worked out once for each shape.
    pub(crate) fn skeleton(
        &self,
        messages: &[Message],
        tokens: &TemplateTokens,
    ) -> skeleton::Cached {
        let shape = skeleton::Shape::of(messages, tokens);
        // A poisoned lock means that another thread panicked; the map is still a map.
        let lock =
            || self.inner.skeletons.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = lock().get(&shape) {
            return known.clone();
        }
        let made = Skeleton::track_all(self, messages, tokens).map(Arc::new);
        let mut known = lock();
        if known.len() < SHAPES {
            known.insert(shape, made.clone());
        }
        made
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("name", &self.name()).finish_non_exhaustive()
    }
}
