//! Pairs of answers: two conversations that end with the assistant, of which the first is the better one.
//!
//! Texts, lists of messages and hh-rlhf's "Human: … Assistant: …" all become messages here. It deliberately keeps pairs
//! that are alike: the dataset drops and counts them.

use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use super::{Field, chat, text};
use crate::row_problem::RowProblem;

type Checked<T> = std::result::Result<T, RowProblem>;

/// The chosen conversation and the rejected one.
pub(crate) type Pair = [Vec<Message>; 2];

/// The turns of hh-rlhf's transcripts.
const SPEAKERS: [(&str, Role); 2] =
    [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];

/// A pair of a row.
pub(crate) fn read(
    prompt: Option<&Field>,
    chosen: &Field,
    rejected: &Field,
    columns: &Map<String, Value>,
) -> Checked<Pair> {
    let prompt = prompt.map(|field| side(field, columns)).transpose()?;
    let conversation = |field: &Field| -> Checked<Vec<Message>> {
        let messages = join(prompt.as_ref(), side(field, columns)?);
        match messages.last() {
            Some(Message { role: Role::Assistant, .. }) => Ok(messages),
            Some(_) => Err(RowProblem::BadMessage {
                index: messages.len(),
                problem: "ends a side of a pair and is not the assistant's".into(),
            }),
            None => Err(RowProblem::NoMessages),
        }
    };
    Ok([conversation(chosen)?, conversation(rejected)?])
}

/// What a column of a pair holds.
enum Side {
    Text(String),
    Messages(Vec<Message>),
}

impl Side {
    /// The messages of what is asked.
    fn asked(&self) -> Vec<Message> {
        match self {
            Self::Text(text) => {
                transcript(text).unwrap_or_else(|| vec![Message::new(Role::User, text.clone())])
            }
            Self::Messages(messages) => messages.clone(),
        }
    }
}

/// The messages of a prompt that has no answers beside it.
pub(crate) fn asked(field: &Field, columns: &Map<String, Value>) -> Checked<Vec<Message>> {
    side(field, columns).map(|side| side.asked())
}

fn side(field: &Field, columns: &Map<String, Value>) -> Checked<Side> {
    if let Field::Column(name) = field
        && let value @ Value::Array(_) = text::column(name, columns)?
    {
        return chat::messages(name, value).map(Side::Messages);
    }
    field.read(columns).map(Side::Text)
}

/// The prompt with an answer behind it; an answer that repeats the whole conversation stands alone.
fn join(prompt: Option<&Side>, answer: Side) -> Vec<Message> {
    let before = prompt.map(Side::asked).unwrap_or_default();
    let after = match answer {
        Side::Messages(messages) => messages,
        Side::Text(text) if prompt.is_none() => {
            transcript(&text).unwrap_or_else(|| vec![Message::new(Role::Assistant, text)])
        }
        Side::Text(text) => vec![Message::new(Role::Assistant, text)],
    };
    if after.len() > before.len() && after.starts_with(&before) {
        return after;
    }
    before.into_iter().chain(after).collect()
}

/// The messages of a transcript in hh-rlhf's form; None where it is no such text.
fn transcript(text: &str) -> Option<Vec<Message>> {
    // Some files have lost the empty lines in front of the first speaker.
    let text = format!("\n\n{}", text.trim_start_matches('\n'));
    if !text.starts_with(SPEAKERS[0].0) {
        return None;
    }
    let mut messages = Vec::new();
    let mut rest = text.as_str();
    while let Some((marker, role)) = SPEAKERS.into_iter().find(|(mark, _)| rest.starts_with(mark)) {
        let body = rest.get(marker.len()..)?;
        let next = SPEAKERS.iter().filter_map(|(marker, _)| body.find(marker)).min();
        let (content, after) = body.split_at_checked(next.unwrap_or(body.len()))?;
        messages.push(Message::new(role, content.trim()));
        rest = after;
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_its_turns() {
        let found =
            transcript("\n\nHuman: Hi\n\nthere\n\nAssistant: Hello.\n\nHuman: Bye\n\nAssistant: ")
                .expect("a transcript");
        let wanted = [
            Message::new(Role::User, "Hi\n\nthere"),
            Message::new(Role::Assistant, "Hello."),
            Message::new(Role::User, "Bye"),
            Message::new(Role::Assistant, ""),
        ];
        assert_eq!(found, wanted);
        assert_eq!(transcript("Humans: no"), None);
        assert_eq!(transcript("I said: Human: no"), None);
    }
}
