//! The characters that stand for bytes in byte-level vocabularies.

/// The character for each byte in a byte-level vocabulary.
///
/// Printable bytes map to themselves, the others to the characters from U+0100 on, as in GPT-2
/// (Radford et al. 2019, `bytes_to_unicode`).
pub(crate) fn byte_alphabet() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u32)
        .filter_map(|byte| {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::byte_alphabet;

    #[test]
    fn the_alphabet_has_a_character_for_each_byte() {
        let alphabet = byte_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!(alphabet.get(usize::from(b' ')), Some(&'Ġ'));
        assert_eq!(alphabet.get(usize::from(b'\n')), Some(&'Ċ'));
    }
}
