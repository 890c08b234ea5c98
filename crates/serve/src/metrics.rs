//! Counters for Prometheus, in the text format of OpenMetrics.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The type of the page.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(String, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;

/// All metrics of the server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Counters,
    prompt_tokens: Counters,
    shared_tokens: Counters,
    generated_tokens: Counters,
    running: Gauges,
    waiting: Gauges,
    first_token: Family<Labels, Histogram>,
    request: Family<Labels, Histogram>,
}

/// Those of a model.
#[derive(Clone, Debug)]
pub(crate) struct ModelMetrics {
    pub(crate) prompt_tokens: Counter,
    /// Tokens of prompts that were known from earlier ones.
    pub(crate) shared_tokens: Counter,
    pub(crate) generated_tokens: Counter,
    /// Sequences in the batch.
    pub(crate) running: Gauge,
    /// Prompts that wait, the one that is being read included.
    pub(crate) waiting: Gauge,
    first_token: Histogram,
    request: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram = || Family::new_with_constructor(seconds as fn() -> Histogram);
        let (first_token, request) = (histogram(), histogram());
        let (requests, generated_tokens) = <(Counters, Counters)>::default();
        let (prompt_tokens, shared_tokens) = <(Counters, Counters)>::default();
        let (running, waiting) = <(Gauges, Gauges)>::default();
        let mut registry = Registry::with_prefix("temper");
        registry.register("requests", "Answered requests", requests.clone());
        registry.register("prompt_tokens", "Tokens of prompts", prompt_tokens.clone());
        registry.register("shared_prompt_tokens", "Of them, not read again", shared_tokens.clone());
        registry.register("generated_tokens", "Generated tokens", generated_tokens.clone());
        registry.register("running_sequences", "Sequences in the batch", running.clone());
        registry.register("waiting_prompts", "Prompts that wait", waiting.clone());
        registry.register("first_token_seconds", "Time to the first token", first_token.clone());
        registry.register("request_seconds", "Time to the last token", request.clone());
        Self {
            registry,
            requests,
            prompt_tokens,
            shared_tokens,
            generated_tokens,
            running,
            waiting,
            first_token,
            request,
        }
    }

    /// The metrics of a model, which share their values with these.
    pub(crate) fn of_model(&self, name: &str) -> ModelMetrics {
        let labels = vec![("model".to_owned(), name.to_owned())];
        ModelMetrics {
            prompt_tokens: self.prompt_tokens.get_or_create_owned(&labels),
            shared_tokens: self.shared_tokens.get_or_create_owned(&labels),
            generated_tokens: self.generated_tokens.get_or_create_owned(&labels),
            running: self.running.get_or_create_owned(&labels),
            waiting: self.waiting.get_or_create_owned(&labels),
            first_token: self.first_token.get_or_create_owned(&labels),
            request: self.request.get_or_create_owned(&labels),
        }
    }

    /// Counts an answered request.
    pub(crate) fn count_request(&self, path: &str, status: u16) {
        let labels =
            vec![("path".to_owned(), path.to_owned()), ("status".to_owned(), status.to_string())];
        self.requests.get_or_create(&labels).inc();
    }

    /// All metrics as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl ModelMetrics {
    pub(crate) fn observe_first_token(&self, time: Duration) {
        self.first_token.observe(time.as_secs_f64());
    }

    pub(crate) fn observe_request(&self, time: Duration) {
        self.request.observe(time.as_secs_f64());
    }
}

/// Times from 5 ms to 160 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 16))
}
