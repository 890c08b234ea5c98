//! Bounded reads from a header: no more than the file has and no more than the limit allows.

use std::io::BufRead;
use std::path::Path;

use crate::limits;
use crate::value::{ARRAY_ID, Array, Value};
use crate::{Error, Result};

/// A position in a header.
pub(super) struct Cursor<'a, R> {
    path: &'a Path,
    source: R,
    /// Bytes read so far.
    position: u64,
    /// Bytes that may still be read.
    left: u64,
}

impl<'a, R: BufRead> Cursor<'a, R> {
    /// A cursor at the start of a file of `file_bytes`.
    pub(super) fn new(path: &'a Path, source: R, file_bytes: u64) -> Self {
        Self { path, source, position: 0, left: file_bytes.min(limits::HEADER_BYTES) }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// An error about the content.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { path: self.path.to_owned(), reason: reason.into() }
    }

    /// Refuses a count of things of at least `each` bytes that the rest of the file cannot hold.
    pub(super) fn check_count(&self, count: u64, each: u64, what: &str) -> Result<usize> {
        if count.checked_mul(each).is_none_or(|bytes| bytes > self.left) {
            return Err(self.malformed(format!("{what}: `{count}`, more than the header can hold")));
        }
        Ok(count as usize)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    /// A string of at most `limit` bytes; `what` names it in messages.
    pub(super) fn string(&mut self, limit: u64, what: &str) -> Result<String> {
        let n = self.u64()?;
        if n > limit {
            return Err(self.malformed(format!("{what} has `{n}` bytes, the limit is {limit}")));
        }
        let n = self.check_count(n, 1, what)?;
        let mut bytes = vec![0; n];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.malformed(format!("{what} is not valid UTF-8")))
    }

    /// A value of the type with number `type_id`; `key` names it in messages.
    pub(super) fn value(&mut self, type_id: u32, key: &str) -> Result<Value> {
        if type_id == ARRAY_ID {
            let element = self.u32()?;
            let count = self.u64()?;
            return self.array(element, count, key).map(Value::Array);
        }
        Ok(match type_id {
            0 => Value::U8(self.fixed::<1>()?[0]),
            1 => Value::I8(i8::from_le_bytes(self.fixed()?)),
            2 => Value::U16(u16::from_le_bytes(self.fixed()?)),
            3 => Value::I16(i16::from_le_bytes(self.fixed()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.fixed()?)),
            6 => Value::F32(f32::from_le_bytes(self.fixed()?)),
            7 => Value::Bool(self.flag(key)?),
            8 => Value::String(self.string(limits::STRING_BYTES, &format!("value of `{key}`"))?),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.fixed()?)),
            12 => Value::F64(f64::from_le_bytes(self.fixed()?)),
            other => {
                return Err(self.malformed(format!("`{key}` has the unknown value type `{other}`")));
            }
        })
    }

    fn array(&mut self, type_id: u32, count: u64, key: &str) -> Result<Array> {
        let each = match type_id {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            other => {
                let reason = format!("`{key}` is an array of the unsupported value type `{other}`");
                return Err(self.malformed(reason));
            }
        };
        let n = self.check_count(count, each, &format!("length of `{key}`"))?;
        Ok(match type_id {
            0 => Array::U8(self.many(n, u8::from_le_bytes)?),
            1 => Array::I8(self.many(n, i8::from_le_bytes)?),
            2 => Array::U16(self.many(n, u16::from_le_bytes)?),
            3 => Array::I16(self.many(n, i16::from_le_bytes)?),
            4 => Array::U32(self.many(n, u32::from_le_bytes)?),
            5 => Array::I32(self.many(n, i32::from_le_bytes)?),
            6 => Array::F32(self.many(n, f32::from_le_bytes)?),
            7 => Array::Bool((0..n).map(|_| self.flag(key)).collect::<Result<_>>()?),
            10 => Array::U64(self.many(n, u64::from_le_bytes)?),
            11 => Array::I64(self.many(n, i64::from_le_bytes)?),
            12 => Array::F64(self.many(n, f64::from_le_bytes)?),
            _ => {
                let what = format!("an element of `{key}`");
                let read = |_| self.string(limits::STRING_BYTES, &what);
                Array::String((0..n).map(read).collect::<Result<_>>()?)
            }
        })
    }

    fn many<const N: usize, T>(&mut self, n: usize, of: fn([u8; N]) -> T) -> Result<Vec<T>> {
        (0..n).map(|_| self.fixed().map(of)).collect()
    }

    fn flag(&mut self, key: &str) -> Result<bool> {
        match self.fixed::<1>()?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.malformed(format!("`{key}` is neither true nor false: `{other}`"))),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let n = bytes.len() as u64;
        if n > self.left {
            return Err(self.malformed(if self.position + n > limits::HEADER_BYTES {
                format!("the header is longer than {} bytes", limits::HEADER_BYTES)
            } else {
                "the file ends within its header".to_owned()
            }));
        }
        let read_error = |source| Error::Read { path: self.path.to_owned(), source };
        self.source.read_exact(bytes).map_err(read_error)?;
        self.left -= n;
        self.position += n;
        Ok(())
    }
}
