//! Keys from the bytes that a terminal in raw mode sends.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    /// A letter with ctrl.
    Ctrl(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Tab,
    BackTab,
    Escape,
}

/// The keys of the bytes of one read. Sequences of other keys are skipped.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if matches!(rest.peek(), Some('[' | 'O')) => {
                rest.next();
                let mut sequence = String::new();
                for c in rest.by_ref() {
                    sequence.push(c);
                    if matches!(c, '@'..='~') {
                        break;
                    }
                }
                keys.extend(of_sequence(&sequence));
            }
            '\x1b' => keys.push(Key::Escape),
            '\t' => keys.push(Key::Tab),
            '\x01'..='\x1a' => keys.push(Key::Ctrl((c as u8 - 1 + b'a').into())),
            c if c.is_control() => {}
            c => keys.push(Key::Char(c)),
        }
    }
    keys
}

fn of_sequence(sequence: &str) -> Option<Key> {
    Some(match sequence {
        "A" => Key::Up,
        "B" => Key::Down,
        "C" => Key::Right,
        "D" => Key::Left,
        "5~" => Key::PageUp,
        "6~" => Key::PageDown,
        "Z" => Key::BackTab,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Key, parse};

    #[test]
    fn keys_and_sequences() {
        assert_eq!(parse(b"q\x03\x1a"), [Key::Char('q'), Key::Ctrl('c'), Key::Ctrl('z')]);
        assert_eq!(
            parse(b"\x1b[A\x1bOB\x1b[6~\x1b[Z"),
            [Key::Up, Key::Down, Key::PageDown, Key::BackTab]
        );
        assert_eq!(parse(b"\x1b[1;5C\x1b[200~x"), [Key::Char('x')]);
        assert_eq!(parse(b"\x1b"), [Key::Escape]);
        assert_eq!(parse("é\t\r".as_bytes()), [Key::Char('é'), Key::Tab, Key::Ctrl('m')]);
        assert_eq!(parse(b"\xff\x1b["), [Key::Char('\u{fffd}')]);
    }
}
