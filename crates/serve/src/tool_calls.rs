//! Finds the calls of tools in an answer: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, the form of Hermes and
//! of the models that follow it (Qwen, SmolLM3).

use serde_json::Value;

/// The tag before a call.
pub(crate) const OPEN: &str = "<tool_call>";
/// The tag after a call.
pub(crate) const CLOSE: &str = "</tool_call>";

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ToolCall {
    /// Its number in the answer.
    pub(crate) idx: usize,
    pub(crate) name: String,
    /// The arguments as JSON.
    pub(crate) arguments: String,
}

/// Reads an answer piece by piece.
#[derive(Debug)]
pub(crate) struct ToolCalls {
    /// Text that may belong to a call, from its first tag on.
    pending: String,
    n_calls: usize,
    max_calls: usize,
}

impl ToolCalls {
    /// Reads an answer of at most `max_calls` calls.
    pub(crate) fn new(max_calls: usize) -> Self {
        Self { pending: String::new(), n_calls: 0, max_calls }
    }

    /// Whether a template asks for calls of this form.
    pub(crate) fn is_form_of(template: &str) -> bool {
        template.contains(OPEN)
    }

    /// Number of calls so far.
    pub(crate) fn n_calls(&self) -> usize {
        self.n_calls
    }

    /// Whether the answer ends here, since it has as many calls as it may have.
    pub(crate) fn is_full(&self) -> bool {
        self.n_calls >= self.max_calls
    }

    /// Takes the next piece; returns the text outside of calls and the calls that are complete.
    pub(crate) fn push(&mut self, piece: &str) -> (String, Vec<ToolCall>) {
        self.pending.push_str(piece);
        let (mut text, mut calls) = (String::new(), Vec::new());
        loop {
            if self.is_full() {
                self.pending.clear();
                return (text, calls);
            }
            let Some(start) = self.pending.find(OPEN) else {
                // The end may be the beginning of a tag.
                let n_held = (1..OPEN.len()).rev().find(|&n| self.pending.ends_with(&OPEN[..n]));
                let end = self.pending.len() - n_held.unwrap_or(0);
                text.extend(self.pending.drain(..end));
                return (text, calls);
            };
            text.extend(self.pending.drain(..start));
            let Some(end) = self.pending.find(CLOSE) else { return (text, calls) };
            let call: String = self.pending.drain(..end + CLOSE.len()).collect();
            match self.read(&call[OPEN.len()..end]) {
                Some(call) => calls.push(call),
                // Anything but a call is text.
                None => text += &call,
            }
        }
    }

    /// The text that is left at the end of the answer: a call without its end is text.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }

    fn read(&mut self, call: &str) -> Option<ToolCall> {
        let call: Value = serde_json::from_str(call.trim()).ok()?;
        let name = call.get("name")?.as_str()?.to_owned();
        let arguments = match call.get("arguments") {
            Some(Value::String(arguments)) => arguments.clone(),
            Some(arguments) => arguments.to_string(),
            None => "{}".to_owned(),
        };
        let idx = self.n_calls;
        self.n_calls += 1;
        Some(ToolCall { idx, name, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::{ToolCall, ToolCalls};

    /// Text and calls of an answer that arrives `n` characters at a time.
    fn read(answer: &str, n: usize) -> (String, Vec<ToolCall>) {
        let (mut calls, mut parser, mut text) =
            (Vec::new(), ToolCalls::new(usize::MAX), String::new());
        let chars: Vec<char> = answer.chars().collect();
        for piece in chars.chunks(n) {
            let (more, found) = parser.push(&piece.iter().collect::<String>());
            text += &more;
            calls.extend(found);
        }
        text += &parser.finish();
        assert_eq!(parser.n_calls(), calls.len());
        (text, calls)
    }

    #[test]
    fn calls_are_found_in_pieces_of_any_size() {
        let answer = "Let me see.<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>é\
                      <tool_call>{\"name\": \"now\"}</tool_call> <b>";
        let call = |idx, name: &str, arguments: &str| ToolCall {
            idx,
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        let calls = [call(0, "add", "{\"a\":1}"), call(1, "now", "{}")];
        for n in [1, 2, 5, 1000] {
            assert_eq!(read(answer, n), ("Let me see.é <b>".to_owned(), calls.to_vec()));
        }
    }

    #[test]
    fn what_follows_the_last_call_is_dropped() {
        let call = "<tool_call>\n{\"name\": \"f\"}\n</tool_call>";
        let mut parser = ToolCalls::new(1);
        let (text, calls) = parser.push(&format!("a{call} {call} b"));
        assert_eq!((text.as_str(), calls.len(), parser.is_full()), ("a", 1, true));
        assert_eq!(parser.finish(), "");
    }

    #[test]
    fn what_is_no_call_is_text() {
        for answer in [
            "a <tool",
            "a <tool_call>{",
            "<tool_call>no</tool_call>!",
            "<tool_call>{\"x\": 1}</tool_call>",
        ] {
            for n in [1, 3, 100] {
                assert_eq!(read(answer, n), (answer.to_owned(), vec![]));
            }
        }
    }
}
