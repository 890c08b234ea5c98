//! Answers that follow a JSON schema, or are calls of tools: at each position, tokens that cannot lead to such a text are not
//! chosen.

use std::sync::{Arc, OnceLock};

use generate::Constraint;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use rayon::prelude::*;
use serde_json::Value;
use tokenizer::Tokenizer;

use crate::api::RequiredCalls;
use crate::call_grammar::{self, CallFrame};
use crate::{schema_keywords, schema_limits};

/// Characters of the reason why a schema cannot be followed.
const REASON_CHARS: usize = 300;

/// The grammars of a model. Its tokens are prepared with the first one.
#[derive(Default)]
pub(crate) struct Grammars {
    factory: OnceLock<Result<ParserFactory, String>>,
}

/// The position of a sequence in a grammar.
#[derive(Clone)]
pub(crate) struct Grammar {
    /// The position in the schema.
    matcher: Matcher,
    /// Of answers that are calls: that in the texts around them, and the beginning of the schema.
    calls: Option<(CallFrame, Matcher)>,
}

impl Grammars {
    /// The grammar of the texts that follow a schema.
    ///
    /// # Errors
    /// The reason, if the schema is wrong or has a keyword that cannot be followed.
    pub(crate) fn of_schema(
        &self,
        tokenizer: &Tokenizer,
        schema: &Value,
    ) -> Result<Grammar, String> {
        Ok(Grammar { matcher: self.matcher(tokenizer, schema.clone())?, calls: None })
    }

    /// The grammar of calls of tools, and nothing else.
    ///
    /// # Errors
    /// The reason, if the schema of a function's arguments is wrong or cannot be followed.
    pub(crate) fn of_calls(
        &self,
        tokenizer: &Tokenizer,
        calls: &RequiredCalls,
    ) -> Result<Grammar, String> {
        let frame = CallFrame::new(tokenizer, calls.is_single)?;
        let matcher = self.matcher(tokenizer, call_grammar::schema(calls))?;
        Ok(Grammar { matcher: matcher.clone(), calls: Some((frame, matcher)) })
    }

    fn matcher(&self, tokenizer: &Tokenizer, schema: Value) -> Result<Matcher, String> {
        schema_limits::check(&schema)?;
        schema_keywords::check(&schema)?;
        let factory =
            self.factory.get_or_init(|| factory(tokenizer)).as_ref().map_err(Clone::clone)?;
        schema_limits::on_large_stack(|| compiled(factory, schema))
    }
}

fn compiled(factory: &ParserFactory, schema: Value) -> Result<Matcher, String> {
    let grammar = TopLevelGrammar::from_json_schema(spaced(schema));
    let mut matcher = Matcher::new(factory.create_parser(grammar));
    if let Some(error) = matcher.get_error() {
        let lines: Vec<&str> = error.lines().map(str::trim).collect();
        return Err(lines.join(" ").chars().take(REASON_CHARS).collect());
    }
    // Words that are not followed would be ignored.
    if let Some(warning) = matcher.grammar_warnings().into_iter().next() {
        return Err(warning);
    }
    // As with a reference to itself.
    match matcher.compute_mask_or_eos() {
        Ok(_) => Ok(matcher),
        Err(_) => Err("no text follows it".to_owned()),
    }
}

/// The schema with one way to write spaces: models would write them without end where any number is allowed.
fn spaced(mut schema: Value) -> Value {
    let form = JsonCompileOptions {
        whitespace_flexible: false,
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        ..JsonCompileOptions::default()
    };
    form.apply_to(&mut schema);
    schema
}

/// Prepares the tokens of a model.
fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, String> {
    let eos_ids: Vec<u32> = tokenizer.eos_ids();
    let Some(&eos) = eos_ids.first() else {
        return Err("the tokenizer has no token that ends a text".to_owned());
    };
    let n_ids = tokenizer.vocab_size() as u32;
    let bytes = |id: u32| match (tokenizer.token_bytes(id), tokenizer.token_text(id)) {
        (Some(bytes), _) => bytes,
        (None, Some(text)) => [&[TokTrie::SPECIAL_TOKEN_MARKER], text.as_bytes()].concat(),
        (None, None) => Vec::new(),
    };
    let tokens: Vec<Vec<u8>> = (0..n_ids).into_par_iter().map(bytes).collect();
    let prepare = || {
        let trie = TokTrie::from(&TokRxInfo::new(n_ids, eos), &tokens).with_eos_tokens(&eos_ids);
        let environment: llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &[])?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(factory)
    };
    let prepared: Result<ParserFactory, Box<dyn std::error::Error + Send + Sync>> =
        fsio::panics::caught(prepare)?;
    prepared.map_err(|error| error.to_string())
}

impl Constraint for Grammar {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), String> {
        if let Some(next) = self.calls.as_ref().and_then(|(frame, _)| frame.next_ids()) {
            for (id, logit) in logits.iter_mut().enumerate() {
                if !next.contains(&(id as u32)) {
                    *logit = f32::NEG_INFINITY;
                }
            }
            return Ok(());
        }
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| error.to_string())?;
        for (id, logit) in logits.iter_mut().enumerate() {
            if id >= allowed.len() || !allowed.is_allowed(id as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        let Self { matcher, calls } = self;
        if let Some((frame, beginning)) = calls.as_mut()
            && frame.next_ids().is_some()
        {
            if frame.advance() {
                *matcher = beginning.clone();
            }
            return Ok(());
        }
        matcher.consume_token(id).map_err(|error| error.to_string())?;
        if let Some((frame, _)) = calls
            && matcher.is_accepting().map_err(|error| error.to_string())?
        {
            frame.end_call();
        }
        Ok(())
    }
}
