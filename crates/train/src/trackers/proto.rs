//! Protocol buffers, field by field: messages of TensorBoard and of Weights & Biases.

/// The bytes of a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

impl Message {
    /// A message without fields.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The message with a field of integers.
    #[must_use]
    pub(crate) fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// The message with a field of doubles.
    #[must_use]
    pub(crate) fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | FIXED_64);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// The message with a field of strings or bytes.
    #[must_use]
    pub(crate) fn text(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(field << 3 | LENGTH);
        self.varint(value.len() as u64);
        self.bytes.extend(value);
        self
    }

    /// The message with a field of messages.
    #[must_use]
    pub(crate) fn message(self, field: u64, value: &Self) -> Self {
        self.text(field, &value.bytes)
    }

    /// The encoded message.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Seven bits in each byte, the lowest first.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field<'a> {
    /// An integer.
    Int(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// A number of 4 or 8 bytes.
    Fixed(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The bytes of a string or message.
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Int(_) | Self::Fixed(_) => None,
        }
    }

    /// The integer, if it is `wanted`.
    pub(crate) fn int(self, wanted: bool) -> Option<u64> {
        match self {
            Self::Int(value) if wanted => Some(value),
            Self::Int(_) | Self::Bytes(_) | Self::Fixed(_) => None,
        }
    }
}

/// The fields of a message with their numbers, up to the first that is damaged.
pub(crate) fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let tag = read_varint(&mut rest)?;
        let field = match tag & 7 {
            VARINT => Field::Int(read_varint(&mut rest)?),
            FIXED_64 => Field::Fixed(take(&mut rest, 8)?),
            LENGTH => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                Field::Bytes(take(&mut rest, length)?)
            }
            FIXED_32 => Field::Fixed(take(&mut rest, 4)?),
            _ => return None,
        };
        Some((tag >> 3, field))
    })
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(n)?;
    *rest = after;
    Some(taken)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Field, Message, fields};

    #[test]
    fn fields_are_read_up_to_a_damaged_one() {
        let inner = Message::new().double(1, 0.5);
        let bytes = Message::new().int(2, u64::MAX).message(300, &inner).text(1, "x").into_bytes();
        let half = 0.5_f64.to_le_bytes();
        let found: Vec<_> = fields(&bytes).collect();
        let inner = inner.into_bytes();
        assert_eq!(
            found,
            [(2, Field::Int(u64::MAX)), (300, Field::Bytes(&inner)), (1, Field::Bytes(b"x"))]
        );
        assert_eq!(fields(&inner).collect::<Vec<_>>(), [(1, Field::Fixed(&half))]);
        for n in 0..bytes.len() {
            assert!(fields(&bytes[..n]).count() < 3);
        }
        // A length beyond the end, and a varint without one.
        assert_eq!(fields(&[10, 200, 1, 0]).count() + fields(&[8; 1]).count(), 0);
        assert_eq!(fields(&[0xff; 20]).count(), 0);
    }

    /// The examples of the encoding's documentation (protobuf.dev, "Encoding").
    #[test]
    fn messages_are_as_the_documentation_encodes_them() {
        assert_eq!(Message::new().int(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let text = Message::new().text(2, "testing").into_bytes();
        assert_eq!(text, b"\x12\x07testing");
        let inner = Message::new().int(1, 150);
        assert_eq!(Message::new().message(3, &inner).into_bytes(), [0x1a, 3, 8, 0x96, 1]);
        let double = Message::new().double(1, 1.5).into_bytes();
        assert_eq!(double, [9, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
    }
}
