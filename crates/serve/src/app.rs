//! The state that all requests share: models, limits, metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use generate::Settings;
use model::CausalLm;
use tokenizer::Tokenizer;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::api::{self, ApiError, Fields, Limits, Request};
use crate::endpoint::Endpoint;
use crate::engine::{Engine, Event, Job};
use crate::error::{Error, Result};
use crate::grammar::{Grammar, Grammars};
use crate::metrics::{Metrics, ModelMetrics};
use crate::{NamedModel, Options};

/// The state of the server.
pub(crate) struct App {
    pub(crate) models: Vec<Served>,
    pub(crate) options: Options,
    /// Whether only this machine can connect.
    pub(crate) is_local: bool,
    pub(crate) metrics: Metrics,
    /// A permit for each request that is being answered.
    pub(crate) clients: Arc<Semaphore>,
    is_stopping: AtomicBool,
}

/// A model that is served.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) metrics: ModelMetrics,
    model: Arc<CausalLm>,
    engine: Engine,
    grammars: Grammars,
}

impl App {
    /// Starts the threads of the models.
    pub(crate) fn start(models: Vec<NamedModel>, options: Options, is_local: bool) -> Result<Self> {
        let metrics = Metrics::new();
        let mut served: Vec<Served> = Vec::new();
        for NamedModel { name, model, tokenizer } in models {
            if served.iter().any(|other| other.name == name) {
                return Err(Error::DuplicateName { name });
            }
            let of_model = metrics.of_model(&name);
            let model = Arc::new(model);
            let engine = Engine::start(Arc::clone(&model), of_model.clone())?;
            let grammars = Grammars::default();
            served.push(Served { name, tokenizer, metrics: of_model, model, engine, grammars });
        }
        let clients = Arc::new(Semaphore::new(options.max_clients));
        let is_stopping = AtomicBool::new(false);
        Ok(Self { models: served, options, is_local, metrics, clients, is_stopping })
    }

    /// Whether the server accepts no further connections.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// The failure of a model's thread.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.models.iter().find_map(|served| {
            let reason = served.engine.failure()?.to_owned();
            Some(Error::Model { name: served.name.clone(), reason })
        })
    }

    /// The model of a name.
    pub(crate) fn model(&self, name: &str) -> std::result::Result<&Served, ApiError> {
        let unknown = || {
            let names: Vec<String> =
                self.models.iter().map(|served| format!("`{}`", served.name)).collect();
            ApiError::unknown_model(name, &names.join(", "))
        };
        self.models.iter().find(|served| served.name == name).ok_or_else(unknown)
    }

    /// Reads the body of a request; returns it with the index of its model and what its answers follow.
    pub(crate) fn read(
        &self,
        endpoint: Endpoint,
        body: &[u8],
    ) -> std::result::Result<(usize, Request, Option<Grammar>), ApiError> {
        let mut fields = Fields::parse(body)?;
        let name: String = fields.require("model")?;
        let served = self.model(&name)?;
        let config = served.model.config();
        let limits = Limits {
            tokenizer: &served.tokenizer,
            context: served.context(),
            vocab_size: config.vocab_size(),
            max_tokens: self.options.max_tokens,
        };
        let request = match endpoint {
            Endpoint::Chat => api::read_chat(fields, &limits)?,
            Endpoint::Completions => api::read_completion(fields, &limits)?,
        };
        let idx = self.models.iter().position(|other| other.name == name);
        let schema = request.schema.as_ref();
        let grammar = schema.map(|schema| {
            let compiled = served.grammars.of_schema(&served.tokenizer, schema);
            let wrong = |reason| format!("the schema cannot be followed: {reason}");
            compiled.map_err(|reason| ApiError::field("response_format", wrong(reason)))
        });
        Ok((idx.unwrap_or(0), request, grammar.transpose()?))
    }
}

impl Served {
    /// The model's context length.
    pub(crate) fn context(&self) -> usize {
        self.model.config().max_positions()
    }

    /// Starts the completions of a request; their events come from the receiver, which gives them up when it is dropped.
    pub(crate) fn submit(
        &self,
        prompts: Vec<Vec<u32>>,
        settings: Settings,
        seed: u64,
        grammar: Option<&Grammar>,
    ) -> UnboundedReceiver<Event> {
        let (events, received) = unbounded_channel();
        let settings = Arc::new(settings);
        for (prompt_idx, prompt) in prompts.into_iter().enumerate() {
            let (settings, grammar) = (Arc::clone(&settings), grammar.cloned());
            let events = events.clone();
            self.engine.send(Job { prompt, prompt_idx, settings, seed, grammar, events });
        }
        received
    }
}
