//! Pairs of answers: two conversations that end with an assistant message, the better one first.
//!
//! Texts, lists of messages and hh-rlhf's "Human: … Assistant: …" are converted to messages. Pairs of identical texts are
//! kept here; the dataset drops and counts them.

use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use super::{Field, chat, text};
use crate::row_problem::RowProblem;

type Checked<T> = std::result::Result<T, RowProblem>;

/// The chosen and the rejected conversation.
pub(crate) type Pair = [Vec<Message>; 2];

/// Markers of hh-rlhf's transcripts.
const SPEAKERS: [(&str, Role); 2] =
    [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];

/// Reads the pair of a row.
pub(crate) fn read(
    prompt: Option<&Field>,
    chosen: &Field,
    rejected: &Field,
    columns: &Map<String, Value>,
) -> Checked<Pair> {
    let prompt = prompt.map(|field| pair_field(field, columns)).transpose()?;
    let conversation = |field: &Field| -> Checked<Vec<Message>> {
        let messages = join(prompt.as_ref(), pair_field(field, columns)?);
        match messages.last() {
            Some(Message { role: Role::Assistant, .. }) => Ok(messages),
            Some(_) => Err(RowProblem::BadMessage {
                index: messages.len(),
                problem: "is the last one of a pair's conversation, but not from the assistant"
                    .into(),
            }),
            None => Err(RowProblem::NoMessages),
        }
    };
    Ok([conversation(chosen)?, conversation(rejected)?])
}

/// Value of a column of a pair.
enum PairField {
    Text(String),
    Messages(Vec<Message>),
}

impl PairField {
    /// Messages of a prompt.
    fn prompt_messages(&self) -> Vec<Message> {
        match self {
            Self::Text(text) => {
                transcript(text).unwrap_or_else(|| vec![Message::new(Role::User, text.clone())])
            }
            Self::Messages(messages) => messages.clone(),
        }
    }
}

/// Messages of a prompt without answers.
pub(crate) fn prompt_messages(
    field: &Field,
    columns: &Map<String, Value>,
) -> Checked<Vec<Message>> {
    pair_field(field, columns).map(|field| field.prompt_messages())
}

fn pair_field(field: &Field, columns: &Map<String, Value>) -> Checked<PairField> {
    if let Field::Column(name) = field
        && let value @ Value::Array(_) = text::column(name, columns)?
    {
        return chat::messages(name, value).map(PairField::Messages);
    }
    field.read(columns).map(PairField::Text)
}

/// The prompt followed by an answer. An answer that repeats the whole conversation replaces it.
fn join(prompt: Option<&PairField>, answer: PairField) -> Vec<Message> {
    let before = prompt.map(PairField::prompt_messages).unwrap_or_default();
    let after = match answer {
        PairField::Messages(messages) => messages,
        PairField::Text(text) if prompt.is_none() => {
            transcript(&text).unwrap_or_else(|| vec![Message::new(Role::Assistant, text)])
        }
        PairField::Text(text) => vec![Message::new(Role::Assistant, text)],
    };
    if after.len() > before.len() && after.starts_with(&before) {
        return after;
    }
    before.into_iter().chain(after).collect()
}

/// Messages of a transcript in hh-rlhf's format. `None` if the text has another format.
fn transcript(text: &str) -> Option<Vec<Message>> {
    // Some files lack the empty lines before the first speaker.
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
