//! Log-probabilities of an answer's tokens, in the forms of the two ways to ask for text.

use generate::ModelLogprobs;
use tokenizer::Tokenizer;

use crate::api::{ChatLogprobs, Logprobs, TextLogprobs, TokenLogprob, TopLogprob};
use crate::endpoint::Endpoint;

/// Those of no token.
pub(crate) fn none(endpoint: Endpoint) -> Logprobs {
    match endpoint {
        Endpoint::Chat => Logprobs::Chat(ChatLogprobs::default()),
        Endpoint::Completions => Logprobs::Text(TextLogprobs::default()),
    }
}

/// Those of a token. `n_bytes` is the number of bytes of the tokens before it, and then of those up to it.
pub(crate) fn of_token(
    endpoint: Endpoint,
    tokenizer: &Tokenizer,
    id: u32,
    of_model: &ModelLogprobs,
    n_bytes: &mut usize,
) -> Logprobs {
    let top = of_model.top.iter();
    match endpoint {
        Endpoint::Chat => {
            let top = top.map(|&(id, logprob)| top_logprob(tokenizer, id, logprob));
            let token = top_logprob(tokenizer, id, of_model.chosen);
            let entry = TokenLogprob { token, top_logprobs: top.collect() };
            Logprobs::Chat(ChatLogprobs { content: vec![entry], refusal: None })
        }
        Endpoint::Completions => {
            let token = token_text(tokenizer, id);
            let top = top.map(|&(id, logprob)| (token_text(tokenizer, id), logprob));
            let text_offset = vec![*n_bytes];
            *n_bytes += token.len();
            Logprobs::Text(TextLogprobs {
                tokens: vec![token],
                token_logprobs: vec![of_model.chosen],
                top_logprobs: vec![top.collect()],
                text_offset,
            })
        }
    }
}

/// Appends those of further tokens.
pub(crate) fn append(all: &mut Logprobs, more: Logprobs) {
    match (all, more) {
        (Logprobs::Chat(all), Logprobs::Chat(more)) => all.content.extend(more.content),
        (Logprobs::Text(all), Logprobs::Text(more)) => {
            all.tokens.extend(more.tokens);
            all.token_logprobs.extend(more.token_logprobs);
            all.top_logprobs.extend(more.top_logprobs);
            all.text_offset.extend(more.text_offset);
        }
        // An answer has one form.
        (Logprobs::Chat(_), Logprobs::Text(_)) | (Logprobs::Text(_), Logprobs::Chat(_)) => {}
    }
}

fn top_logprob(tokenizer: &Tokenizer, id: u32, logprob: f32) -> TopLogprob {
    let token = token_text(tokenizer, id);
    let bytes = tokenizer.token_bytes(id).unwrap_or_else(|| token.clone().into_bytes());
    TopLogprob { token, logprob, bytes }
}

/// A token's text; parts of characters are `\u{fffd}`.
fn token_text(tokenizer: &Tokenizer, id: u32) -> String {
    match tokenizer.token_bytes(id) {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        None => tokenizer.decode(&[id], false),
    }
}
