//! The text before an answer: description, examples and question, joined by delimiters or by a chat template.

/// Longest prompt in bytes: a multiple of what any context holds, and little enough to turn into tokens at once.
const PROMPT_BYTES: usize = 1 << 20;

/// One message of a prompt for a chat model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// The text.
    pub text: String,
}

/// Renders messages up to the beginning of the next assistant message; the error is a sentence.
pub type Chat<'a> = &'a dyn Fn(&[Turn]) -> Result<String, String>;

/// Texts between the parts of a prompt.
#[derive(Debug)]
pub(crate) struct Delimiters {
    /// Before an answer.
    pub(crate) answer: String,
    /// After an example.
    pub(crate) shot: String,
}

/// Everything before a question.
pub(crate) struct Context<'a> {
    pub(crate) description: String,
    /// Questions and answers of the examples.
    pub(crate) examples: Vec<(String, String)>,
    pub(crate) delimiters: &'a Delimiters,
    pub(crate) chat: Option<Chat<'a>>,
}

impl Context<'_> {
    /// The whole text before the answer to a question.
    pub(crate) fn with(&self, question: &str) -> Result<String, String> {
        let prompt = match self.chat {
            Some(chat) => chat(&self.turns(question)),
            None => self.joined(question),
        }?;
        if prompt.len() > PROMPT_BYTES { Err(too_long()) } else { Ok(prompt) }
    }

    /// Text between the question and a choice. A chat template ends where the answer begins.
    pub(crate) fn before_answer(&self) -> &str {
        if self.chat.is_some() { "" } else { &self.delimiters.answer }
    }

    fn joined(&self, question: &str) -> Result<String, String> {
        let mut text = self.description.clone();
        for (question, answer) in &self.examples {
            text += question;
            if !answer.is_empty() {
                text += &self.delimiters.answer;
                text += answer;
                text += &self.delimiters.shot;
            }
            if text.len() > PROMPT_BYTES {
                return Err(too_long());
            }
        }
        Ok(text + question)
    }

    fn turns(&self, question: &str) -> Vec<Turn> {
        let turn = |role, text: &str| Turn { role, text: text.to_owned() };
        let mut turns = Vec::new();
        if !self.description.is_empty() {
            turns.push(turn("system", &self.description));
        }
        for (question, answer) in &self.examples {
            turns.push(turn("user", question));
            if !answer.is_empty() {
                turns.push(turn("assistant", answer));
            }
        }
        turns.push(turn("user", question));
        turns
    }
}

fn too_long() -> String {
    format!("a prompt of more than {PROMPT_BYTES} bytes")
}
