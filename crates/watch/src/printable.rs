//! Text from foreign files as a terminal may show it: without control characters.

use std::borrow::Cow;

/// `text` with its control characters as escapes such as `\u001b`, which are valid in JSON too. Line feeds and tabs stay.
///
/// An escape sequence can move the cursor, change the window's title or, in some terminals, type commands. C1 controls, of
/// which U+009B begins such a sequence, are replaced as well, and so are the characters that reverse the order of a line.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            out += &format!("\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal must not be shown a character as it is: [`printable`] escapes it.
pub fn is_unsafe(c: char) -> bool {
    let reverses = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    reverses || (c.is_control() && c != '\n' && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\tb\nä — 好"), "a\tb\nä — 好");
        assert_eq!(
            printable("\u{1b}[2J\u{9b}31m\r\u{7f}\0\u{202e}x"),
            "\\u001b[2J\\u009b31m\\u000d\\u007f\\u0000\\u202ex"
        );
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"text": "\u{1b}\u{9b}\u{7f}\u{202e}\"\\"});
        let printed = printable(&value.to_string()).into_owned();
        assert!(!printed.chars().any(char::is_control), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }
}
