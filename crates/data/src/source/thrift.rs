//! A walk over Thrift's compact protocol that checks a parquet footer and its page headers before the parquet crate
//! allocates the declared sizes.
//!
//! A visitor receives each integer with the path of its field ids; everything else is skipped.

/// Maximum nesting of structs; parquet itself uses about 8 levels.
const DEPTH: usize = 24;

/// Damage of Thrift data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ThriftError {
    /// The bytes end inside a value: reading more may help.
    Truncated,
    /// The bytes are invalid.
    Invalid(&'static str),
}

type Walk<T> = std::result::Result<T, ThriftError>;

/// Walks one struct. Returns its length in bytes.
///
/// Elements of a list share the path of the list. Before each element the visitor receives the path followed by 0, with
/// the index of the element (parquet has no field 0). The visitor can stop the walk with an error.
pub(crate) fn walk_struct(
    bytes: &[u8],
    visit: &mut dyn FnMut(&[i16], i64) -> std::result::Result<(), &'static str>,
) -> Walk<usize> {
    let mut cursor = Cursor { bytes, at: 0, depth: 0 };
    let mut path = Vec::with_capacity(DEPTH);
    cursor.structure(&mut path, visit)?;
    Ok(cursor.at)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Number of structs and lists around the cursor.
    depth: usize,
}

type Visit<'v> = &'v mut dyn FnMut(&[i16], i64) -> std::result::Result<(), &'static str>;

impl Cursor<'_> {
    fn byte(&mut self) -> Walk<u8> {
        let byte = *self.bytes.get(self.at).ok_or(ThriftError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Walk<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ThriftError::Invalid("an integer of more than ten bytes"))
    }

    fn zigzag(&mut self) -> Walk<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn skip(&mut self, n_bytes: u64) -> Walk<()> {
        let left = (self.bytes.len() - self.at) as u64;
        if n_bytes > left {
            return Err(ThriftError::Truncated);
        }
        self.at += n_bytes as usize;
        Ok(())
    }

    fn structure(&mut self, path: &mut Vec<i16>, visit: Visit<'_>) -> Walk<()> {
        let mut field = 0_i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => i16::try_from(self.zigzag()?)
                    .map_err(|_| ThriftError::Invalid("a field id out of range"))?,
                delta => field
                    .checked_add(i16::from(delta))
                    .ok_or(ThriftError::Invalid("a field id out of range"))?,
            };
            path.push(field);
            // The type of a boolean field is its value.
            if !matches!(head & 0x0f, 1 | 2) {
                self.value(head & 0x0f, path, visit)?;
            }
            path.pop();
        }
    }

    fn value(&mut self, kind: u8, path: &mut Vec<i16>, visit: Visit<'_>) -> Walk<()> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(ThriftError::Invalid("nested too deeply"));
        }
        let walked = self.value_inside(kind, path, visit);
        self.depth -= 1;
        walked
    }

    fn value_inside(&mut self, kind: u8, path: &mut Vec<i16>, visit: Visit<'_>) -> Walk<()> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => {
                let value = self.zigzag()?;
                visit(path, value).map_err(ThriftError::Invalid)
            }
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => self.list(path, visit),
            11 => self.map(path, visit),
            12 => self.structure(path, visit),
            13 => self.skip(16),
            _ => Err(ThriftError::Invalid("an unknown type")),
        }
    }

    fn list(&mut self, path: &mut Vec<i16>, visit: Visit<'_>) -> Walk<()> {
        let head = self.byte()?;
        let length = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        // Every element takes at least one byte, so a longer list is truncated.
        if length > (self.bytes.len() - self.at) as u64 {
            return Err(ThriftError::Truncated);
        }
        for index in 0..length {
            path.push(0);
            let shown = visit(path, index as i64);
            path.pop();
            shown.map_err(ThriftError::Invalid)?;
            self.value(head & 0x0f, path, visit)?;
        }
        Ok(())
    }

    fn map(&mut self, path: &mut Vec<i16>, visit: Visit<'_>) -> Walk<()> {
        let length = self.varint()?;
        if length == 0 {
            return Ok(());
        }
        if length > (self.bytes.len() - self.at) as u64 {
            return Err(ThriftError::Truncated);
        }
        let kinds = self.byte()?;
        for _ in 0..length {
            self.value(kinds >> 4, path, visit)?;
            self.value(kinds & 0x0f, path, visit)?;
        }
        Ok(())
    }
}
