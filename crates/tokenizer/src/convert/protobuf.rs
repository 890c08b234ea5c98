//! The wire format of protocol buffers, as far as the files of sentencepiece use it.

/// Value of a field.
pub(super) enum Field<'a> {
    /// An integer, a boolean or an enumeration.
    Number(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four bytes, such as a float.
    Word([u8; 4]),
}

impl Field<'_> {
    /// A signed integer of 32 bits.
    pub(super) fn int(&self) -> Option<i32> {
        // Negative numbers are sign-extended to 64 bits.
        if let Self::Number(value) = self { Some(*value as i32) } else { None }
    }

    /// A boolean.
    pub(super) fn flag(&self) -> Option<bool> {
        if let Self::Number(value) = self { Some(*value != 0) } else { None }
    }

    /// A float.
    pub(super) fn float(&self) -> Option<f32> {
        if let Self::Word(bytes) = self { Some(f32::from_le_bytes(*bytes)) } else { None }
    }
}

/// Calls `take` with the number and the value of each field; `None` if the bytes are no message.
pub(super) fn fields<'a>(
    mut bytes: &'a [u8],
    mut take: impl FnMut(u64, &Field<'a>) -> Option<()>,
) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => {
                bytes.split_off(..8)?;
                continue;
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Field::Bytes(bytes.split_off(..length)?)
            }
            5 => Field::Word(bytes.split_off(..4)?.try_into().ok()?),
            _ => return None,
        };
        take(key >> 3, &field)?;
    }
    Some(())
}

/// A number in groups of seven bits, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
