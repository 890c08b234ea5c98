//! Edits of a valid file: bytes flipped, overwritten, removed, repeated or inserted, and cuts.

use proptest::prelude::*;

/// Values that parsers tend to mistreat: large lengths, signs, structure characters, invalid UTF-8.
const TOKENS: [&[u8]; 16] = [
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xfe",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"{{",
    b"{% for a in range(99999999) %}",
    b"PAR1",
    b"\n",
];

/// One edit; positions are fractions of the file's length in 1/65536.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Flip(u16, u8),
    Overwrite(u16, usize),
    Insert(u16, usize),
    Remove(u16, u8),
    Repeat(u16, u8),
    Cut(u16),
}

pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (any::<u16>(), 1..=u8::MAX).prop_map(|(at, mask)| Edit::Flip(at, mask)),
        3 => (any::<u16>(), 0..TOKENS.len()).prop_map(|(at, token)| Edit::Overwrite(at, token)),
        3 => (any::<u16>(), 0..TOKENS.len()).prop_map(|(at, token)| Edit::Insert(at, token)),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(at, n)| Edit::Remove(at, n)),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(at, n)| Edit::Repeat(at, n)),
        1 => any::<u16>().prop_map(Edit::Cut),
    ];
    prop::collection::vec(edit, 1..5)
}

pub(crate) fn apply(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let place = |at: u16| bytes.len() * usize::from(at) / 65536;
        match *edit {
            Edit::Flip(at, mask) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Edit::Overwrite(at, token) => {
                let at = place(at);
                let end = (at + TOKENS[token].len()).min(bytes.len());
                bytes.splice(at..end, TOKENS[token].iter().copied());
            }
            Edit::Insert(at, token) => {
                let at = place(at);
                bytes.splice(at..at, TOKENS[token].iter().copied());
            }
            Edit::Remove(at, n) => {
                let at = place(at);
                bytes.drain(at..(at + usize::from(n)).min(bytes.len()));
            }
            Edit::Repeat(at, n) => {
                let at = place(at);
                let piece = bytes[at..(at + usize::from(n)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            Edit::Cut(at) => bytes.truncate(place(at)),
        }
    }
    bytes
}
