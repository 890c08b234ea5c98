//! The requests of one row to a model, and their answers.

use serde_json::{Map, Value};

use crate::instructions::Instructions;

/// A row of a task with its prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Number of the row in the task's data, from 0.
    pub doc_id: usize,
    /// Location of the row, such as `arc_easy.jsonl:12`.
    pub place: String,
    /// The row's own prompt without examples, for tasks with completions.
    pub question: String,
    /// Requests in the order in which [`crate::Task::score`] expects the responses.
    pub requests: Vec<Request>,
    /// The right answer.
    pub gold: Gold,
}

/// One question to the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The log-likelihood of a text after another one.
    LogLikelihood {
        /// Text before; may be empty.
        context: String,
        /// Text whose probability is computed.
        continuation: String,
    },
    /// The log-likelihood of a whole text, in windows of the model's context.
    Rolling {
        /// The text.
        text: String,
    },
    /// The score of an answer by a reward model.
    Score {
        /// The prompt.
        prompt: String,
        /// The answer.
        answer: String,
    },
    /// A completion.
    Generate {
        /// The prompt.
        prompt: String,
    },
}

/// A model's answer to a [`Request`] of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// ln of the probability of the continuation.
    LogLikelihood {
        /// Sum over the tokens of the continuation, in nats.
        sum: f64,
        /// Whether each token is the most likely one.
        is_greedy: bool,
    },
    /// ln of the probability of the text, in nats.
    Rolling {
        /// Sum over all tokens.
        sum: f64,
    },
    /// Completions without the stop text, one for each vote.
    Generated(Vec<String>),
    /// The same with the score of each by a reward model.
    Ranked(Vec<(String, f64)>),
    /// A score.
    Score(f64),
}

/// The right answer to an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Gold {
    /// One of several choices.
    Choice {
        /// Its index.
        index: usize,
        /// All choices, without the delimiter before them.
        choices: Vec<String>,
    },
    /// A text, or several of which each is right.
    Texts(Vec<String>),
    /// Instructions that an answer follows.
    Instructions(Instructions),
    /// The first of two answers is the right one.
    Pair {
        /// Subset of the data, if the task names one.
        subset: Option<String>,
    },
}

/// SHA-256 of the requests and right answers of items, in hexadecimal. It changes with the prompts and not with the location
/// of the rows.
pub fn items_hash(items: &[Item]) -> String {
    let of = |item: &Item| {
        let request = |request: &Request| {
            let mut object = Map::new();
            request.describe(&mut object);
            Value::Object(object)
        };
        let requests: Vec<Value> = item.requests.iter().map(request).collect();
        let gold = match &item.gold {
            Gold::Choice { index, .. } => Value::from(*index),
            Gold::Texts(texts) => Value::from(texts.clone()),
            // Their arguments are part of the prompts.
            Gold::Instructions(instructions) => Value::from(instructions.names()),
            Gold::Pair { subset } => Value::from(subset.clone()),
        };
        Value::from(vec![Value::from(requests), gold])
    };
    let all: Vec<Value> = items.iter().map(of).collect();
    fsio::sha256_hex(Value::from(all).to_string().as_bytes())
}

impl Request {
    /// Adds the request's texts to an object.
    pub(crate) fn describe(&self, object: &mut Map<String, Value>) {
        let mut add = |key: &str, text: &String| {
            object.insert(key.to_owned(), Value::from(text.clone()));
        };
        match self {
            Self::LogLikelihood { context, continuation } => {
                add("context", context);
                add("continuation", continuation);
            }
            Self::Rolling { text } => add("text", text),
            Self::Score { prompt, answer } => {
                add("prompt", prompt);
                add("answer", answer);
            }
            Self::Generate { prompt } => add("prompt", prompt),
        }
    }
}

impl Response {
    /// Adds the response to an object.
    pub(crate) fn describe(&self, object: &mut Map<String, Value>) {
        let mut add = |key: &str, value: Value| {
            object.insert(key.to_owned(), value);
        };
        match self {
            Self::LogLikelihood { sum, is_greedy } => {
                add("loglikelihood", Value::from(*sum));
                add("is_greedy", Value::from(*is_greedy));
            }
            Self::Rolling { sum } => add("loglikelihood", Value::from(*sum)),
            Self::Generated(texts) => match texts.as_slice() {
                [text] => add("generation", Value::from(text.clone())),
                texts => add("generations", Value::from(texts.to_vec())),
            },
            Self::Ranked(ranked) => {
                let (texts, scores): (Vec<String>, Vec<f64>) = ranked.iter().cloned().unzip();
                add("generations", Value::from(texts));
                add("scores", Value::from(scores));
            }
            Self::Score(score) => add("score", Value::from(*score)),
        }
    }
}
