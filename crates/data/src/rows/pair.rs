//! Pairs of answers: two conversations that end with an assistant message, the better one first.
//!
//! Texts, lists of messages and hh-rlhf's "Human: … Assistant: …" are converted to messages. Pairs of identical texts are
//! kept here; the dataset drops and counts them.

use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use super::message::MessageReader;
use super::row_columns::Field;
use super::text;
use crate::dialogue::Dialogue;
use crate::row_problem::RowProblem;

type Checked<T> = std::result::Result<T, RowProblem>;

/// The chosen and the rejected conversation.
pub(crate) type Pair = [Dialogue; 2];

/// Markers of hh-rlhf's transcripts.
const SPEAKERS: [(&str, Role); 2] =
    [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];

/// Reads the pair of a row: the chosen and the rejected messages.
pub(crate) fn read(
    prompt: Option<&Field>,
    chosen: &Field,
    rejected: &Field,
    reader: &MessageReader,
    columns: &Map<String, Value>,
) -> Checked<[Vec<Message>; 2]> {
    let prompt = prompt.map(|field| prompt_messages(field, reader, columns)).transpose()?;
    let conversation = |field: &Field| -> Checked<Vec<Message>> {
        let answer = match field_value(field, reader, columns)? {
            FieldValue::Messages(messages) => messages,
            FieldValue::Text(text) => match transcript(&text) {
                Some(messages) if prompt.is_none() || is_whole(&messages) => messages,
                _ => vec![Message::new(Role::Assistant, text)],
            },
        };
        ends_with_an_answer(join(prompt.clone().unwrap_or_default(), answer))
    };
    Ok([conversation(chosen)?, conversation(rejected)?])
}

/// Reads a prompt and its completion, each a text or a list of messages.
pub(crate) fn prompt_and_completion(
    prompt: &Field,
    completion: &Field,
    reader: &MessageReader,
    columns: &Map<String, Value>,
) -> Checked<Vec<Message>> {
    let messages = |field, role| -> Checked<Vec<Message>> {
        Ok(match field_value(field, reader, columns)? {
            FieldValue::Text(text) => vec![Message::new(role, text)],
            FieldValue::Messages(messages) => messages,
        })
    };
    let mut before = messages(prompt, Role::User)?;
    // An answer in a prompt is context: TRL trains on the completion alone.
    for message in &mut before {
        message.is_target = false;
    }
    Ok(join(before, messages(completion, Role::Assistant)?))
}

/// Reads a prompt and its completion, which must end with a message of the assistant.
pub(crate) fn answered_prompt(
    prompt: &Field,
    completion: &Field,
    reader: &MessageReader,
    columns: &Map<String, Value>,
) -> Checked<Vec<Message>> {
    ends_with_an_answer(prompt_and_completion(prompt, completion, reader, columns)?)
}

/// Checks that the last message is from the assistant.
fn ends_with_an_answer(messages: Vec<Message>) -> Checked<Vec<Message>> {
    match messages.last() {
        Some(Message { role: Role::Assistant, .. }) => Ok(messages),
        Some(_) => Err(RowProblem::BadMessage {
            index: messages.len(),
            problem: "is the last one of the conversation, but not from the assistant".into(),
        }),
        None => Err(RowProblem::NoMessages),
    }
}

/// Value of a column of a pair.
enum FieldValue {
    Text(String),
    Messages(Vec<Message>),
}

/// Messages of a prompt without answers.
pub(crate) fn prompt_messages(
    field: &Field,
    reader: &MessageReader,
    columns: &Map<String, Value>,
) -> Checked<Vec<Message>> {
    Ok(match field_value(field, reader, columns)? {
        FieldValue::Text(text) => {
            transcript(&text).unwrap_or_else(|| vec![Message::new(Role::User, text)])
        }
        FieldValue::Messages(messages) => messages,
    })
}

fn field_value(
    field: &Field,
    reader: &MessageReader,
    columns: &Map<String, Value>,
) -> Checked<FieldValue> {
    if let Field::Column(name) = field {
        let value = text::column(name, columns)?;
        if value.is_object() || value.get(0).is_some_and(Value::is_object) {
            return reader.messages(name, value).map(FieldValue::Messages);
        }
    }
    field.read(columns).map(FieldValue::Text)
}

/// The prompt followed by an answer. An answer that is a whole conversation stands alone, so that no prompt is said
/// twice, however it differs from the prompt beside it.
fn join(prompt: Vec<Message>, answer: Vec<Message>) -> Vec<Message> {
    if is_whole(&answer) {
        return answer;
    }
    prompt.into_iter().chain(answer).collect()
}

/// Whether messages are a conversation by themselves: one that a user, or a system prompt and a user, begins.
fn is_whole(messages: &[Message]) -> bool {
    let first = messages.iter().find(|message| message.role != Role::System);
    first.is_some_and(|message| message.role == Role::User)
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
