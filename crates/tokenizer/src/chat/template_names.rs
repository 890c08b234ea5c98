//! Names in the code of a template, outside of its text and comments.

/// Whether the code of a template has `name`: as a variable, an attribute or a filter, or as a whole
/// text, which is how `message['name']` reads a field.
pub(crate) fn has_name(source: &str, name: &str) -> bool {
    let mut rest = source;
    while let Some(tag) = rest.find('{').and_then(|start| rest.get(start..)) {
        rest = match tag.get(..2) {
            Some("{#") => tag.split_once("#}").map_or("", |(_, after)| after),
            Some("{{" | "{%") => match in_tag(tag.get(2..).unwrap_or_default(), name) {
                Found::Yes => return true,
                Found::NotBefore(after) => after,
            },
            _ => tag.get(1..).unwrap_or_default(),
        };
    }
    false
}

enum Found<'s> {
    Yes,
    /// The source after the tag.
    NotBefore(&'s str),
}

/// Searches a tag, whose code `source` begins with.
fn in_tag<'s>(source: &'s str, name: &str) -> Found<'s> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = source;
    let mut n_open_braces = 0_usize;
    while let Some(c) = rest.chars().next() {
        let (word, after) = match c {
            '\'' | '"' => text(rest, c),
            c if is_word(c) => rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
            _ => ("", rest.get(c.len_utf8()..).unwrap_or_default()),
        };
        match c {
            _ if word == name => return Found::Yes,
            '{' => n_open_braces += 1,
            '}' if n_open_braces > 0 => n_open_braces -= 1,
            '}' | '%' if after.starts_with('}') => {
                return Found::NotBefore(after.get(1..).unwrap_or_default());
            }
            _ => {}
        }
        rest = after;
    }
    Found::NotBefore("")
}

/// A quoted text without its quotes, and the code after it.
fn text(source: &str, quote: char) -> (&str, &str) {
    let mut is_escaped = false;
    let end = |(_, c): &(usize, char)| {
        let ends = *c == quote && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        ends
    };
    let inside = source.get(1..).unwrap_or_default();
    match inside.char_indices().find(end) {
        Some((at, _)) => {
            (inside.get(..at).unwrap_or_default(), inside.get(at + 1..).unwrap_or_default())
        }
        None => (inside, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_words_of_the_code() {
        let source = "tools {# thinking #} {{- message.reasoning_content }}\n\
            {% if enable_thinking and message['tool_calls'] %}reasoning{% endif %}\
            {{ 'the name\\'s tools' + {'a': {'b': x}}['a'] }} {{ message . role }}";
        for name in ["message", "reasoning_content", "enable_thinking", "tool_calls", "x", "role"] {
            assert!(has_name(source, name), "{name}");
        }
        for name in ["reasoning", "thinking", "tools", "name", "content", "calls", "the"] {
            assert!(!has_name(source, name), "{name}");
        }
        for broken in ["{{ 'open", "{% a", "{", "{{", "{{ } }} b", "{{ '\\", "{# x"] {
            assert!(!has_name(broken, "x"), "{broken}");
        }
        assert!(has_name("{{ '' }}{% set y = {'k': {}} %}{{ z }}", "z"));
    }
}
