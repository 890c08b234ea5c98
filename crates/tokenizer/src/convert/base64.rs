//! Base64 with padding, RFC 4648 section 4.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Text of some bytes.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let letter = ALPHABET.get(value as usize).copied().unwrap_or(b'=');
            text.push(if digit <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Bytes of a text; None if it is not base64.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let n_chunks = text.len() / 4;
    for (number, chunk) in text.chunks(4).enumerate() {
        let n_padding = chunk.iter().rev().take_while(|byte| **byte == b'=').count();
        if n_padding > 2 || (n_padding > 0 && number + 1 != n_chunks) {
            return None;
        }
        let mut bits = 0u32;
        for byte in chunk.iter().take(4 - n_padding) {
            let value = ALPHABET.iter().position(|letter| letter == byte)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        bits <<= 6 * n_padding;
        bytes.extend(bits.to_be_bytes().into_iter().skip(1).take(3 - n_padding));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let cases = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, expected) in cases.iter().enumerate() {
            assert_eq!(encode(&b"foobar"[..length]), *expected);
            assert_eq!(decode(expected.as_bytes()).as_deref(), Some(&b"foobar"[..length]));
        }
        for broken in ["Zg=", "Z===", "Zg==Zg==", "Zm9*", "=", "Zg"] {
            assert_eq!(decode(broken.as_bytes()), None, "{broken}");
        }
    }
}
