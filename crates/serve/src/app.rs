//! The state that all requests share: models, limits, metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use generate::Settings;
use model::CausalLm;
use tokenizer::Tokenizer;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::api::{self, ApiError, EmbeddingRequest, Fields, Limits, Request, Rule};
use crate::endpoint::Endpoint;
use crate::engine::{Completions, Engine, Event, Job, Member, Work};
use crate::error::{Error, Result};
use crate::grammar::{Grammar, Grammars};
use crate::metrics::{Metrics, ModelMetrics};
use crate::{Models, NamedModel, Options};

/// Bytes of a request beyond which it is read alone.
const LARGE_BODY: usize = 64 << 10;

/// The state of the server.
pub(crate) struct App {
    pub(crate) models: Vec<Served>,
    pub(crate) options: Options,
    /// Whether only this machine can connect.
    pub(crate) is_local: bool,
    pub(crate) metrics: Metrics,
    /// A permit for each request that is being answered.
    pub(crate) clients: Arc<Semaphore>,
    /// Held while a large request is read, so that the memory for it is needed once.
    large: Mutex<()>,
    is_stopping: AtomicBool,
}

/// A model that is served.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) metrics: ModelMetrics,
    model: Arc<CausalLm>,
    engine: Arc<Engine>,
    /// Its number among the members of the engine.
    member_idx: usize,
    /// Bytes of its longest token.
    token_bytes: usize,
    grammars: Grammars,
}

impl App {
    /// Starts the threads of the models.
    pub(crate) fn start(models: Models, options: Options, is_local: bool) -> Result<Self> {
        let metrics = Metrics::new();
        let Models { models, named } = models;
        let mut members: Vec<Vec<Member>> = models.iter().map(|_| Vec::new()).collect();
        let mut places = Vec::new();
        for NamedModel { name, model_idx, adapter, tokenizer } in named {
            if places.iter().any(|(other, ..): &(String, _, _, _, _)| *other == name) {
                return Err(Error::DuplicateName { name });
            }
            let of_name = metrics.of_model(&name);
            // A name without a model has no place.
            let Some(members) = members.get_mut(model_idx) else { continue };
            places.push((name, model_idx, members.len(), tokenizer, of_name.clone()));
            members.push(Member { adapter, metrics: of_name });
        }
        let start = |(model, members): (CausalLm, Vec<Member>)| {
            let model = Arc::new(model);
            let engine = Engine::start(Arc::clone(&model), members)?;
            Ok((model, Arc::new(engine)))
        };
        let engines: Vec<(Arc<CausalLm>, Arc<Engine>)> =
            models.into_iter().zip(members).map(start).collect::<Result<_>>()?;
        let served = places.into_iter().filter_map(|place| {
            let (name, model_idx, member_idx, tokenizer, metrics) = place;
            let (model, engine) = engines.get(model_idx).cloned()?;
            let token_bytes = longest_token(&tokenizer);
            let grammars = Grammars::default();
            Some(Served {
                name,
                tokenizer,
                metrics,
                model,
                engine,
                member_idx,
                token_bytes,
                grammars,
            })
        });
        let served = served.collect();
        let clients = Arc::new(Semaphore::new(options.max_clients));
        let is_stopping = AtomicBool::new(false);
        let large = Mutex::new(());
        Ok(Self { models: served, options, is_local, metrics, clients, large, is_stopping })
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
        Ok(self.find(name)?.1)
    }

    /// The model of a name, with its index.
    fn find(&self, name: &str) -> std::result::Result<(usize, &Served), ApiError> {
        let unknown = || {
            let names: Vec<String> =
                self.models.iter().map(|served| format!("`{}`", served.name)).collect();
            ApiError::unknown_model(name, &names.join(", "))
        };
        let mut models = self.models.iter().enumerate();
        models.find(|(_, served)| served.name == name).ok_or_else(unknown)
    }

    /// Reads the body of a request; returns it with the index of its model and what its answers follow.
    pub(crate) fn read(
        &self,
        endpoint: Endpoint,
        body: &[u8],
    ) -> std::result::Result<(usize, Request, Option<Grammar>), ApiError> {
        let _alone = self.alone(body);
        let mut fields = Fields::parse(body)?;
        let name: String = fields.require("model")?;
        let (idx, served) = self.find(&name)?;
        let limits = self.limits(served);
        let request = match endpoint {
            Endpoint::Chat => api::read_chat(fields, &limits)?,
            Endpoint::Completions => api::read_completion(fields, &limits)?,
        };
        let grammar = request.rule.as_ref().map(|rule| {
            let compiled = match rule {
                Rule::Schema(schema) => served.grammars.of_schema(&served.tokenizer, schema),
                Rule::Calls(calls) => served.grammars.of_calls(&served.tokenizer, calls),
            };
            let wrong = |reason| format!("the schema cannot be followed: {reason}");
            compiled.map_err(|reason| ApiError::field(rule.field(), wrong(reason)))
        });
        Ok((idx, request, grammar.transpose()?))
    }

    /// Reads the body of a request for embeddings; returns it with the index of its model.
    pub(crate) fn read_embeddings(
        &self,
        body: &[u8],
    ) -> std::result::Result<(usize, EmbeddingRequest), ApiError> {
        let _alone = self.alone(body);
        let mut fields = Fields::parse(body)?;
        let name: String = fields.require("model")?;
        let (idx, served) = self.find(&name)?;
        let width = served.model.config().hidden_size();
        Ok((idx, api::read_embeddings(fields, &self.limits(served), width)?))
    }

    /// Waits until no other large request is being read, if this is one.
    fn alone(&self, body: &[u8]) -> Option<MutexGuard<'_, ()>> {
        let is_large = body.len() > LARGE_BODY;
        // A panic of another reader leaves nothing behind.
        is_large.then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn limits<'a>(&self, served: &'a Served) -> Limits<'a> {
        Limits {
            tokenizer: &served.tokenizer,
            context: served.context(),
            token_bytes: served.token_bytes,
            vocab_size: served.model.config().vocab_size(),
            max_tokens: self.options.max_tokens,
        }
    }
}

/// Bytes of the longest token, or a few more: some vocabularies show a byte as two.
fn longest_token(tokenizer: &Tokenizer) -> usize {
    let ids = 0..tokenizer.vocab_size() as u32;
    ids.filter_map(|id| tokenizer.token_text(id)).map(|text| text.len()).max().unwrap_or(1)
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
        let work = |grammar| {
            Work::Complete(Box::new(Completions { settings: Arc::clone(&settings), seed, grammar }))
        };
        for (prompt_idx, prompt) in prompts.into_iter().enumerate() {
            self.send(prompt, prompt_idx, work(grammar.cloned()), &events);
        }
        received
    }

    /// Starts the embeddings of texts, as [`Self::submit`].
    pub(crate) fn submit_embeddings(&self, texts: Vec<Vec<u32>>) -> UnboundedReceiver<Event> {
        let (events, received) = unbounded_channel();
        for (idx, text) in texts.into_iter().enumerate() {
            self.send(text, idx, Work::Embed, &events);
        }
        received
    }

    fn send(
        &self,
        prompt: Vec<u32>,
        prompt_idx: usize,
        work: Work,
        events: &UnboundedSender<Event>,
    ) {
        let (member_idx, events) = (self.member_idx, events.clone());
        self.engine.send(Job { member_idx, prompt, prompt_idx, work, events });
    }
}
