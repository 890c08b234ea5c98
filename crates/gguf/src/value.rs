//! Metadata values and their binary form.

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are the types of the format")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    U64(u64),
    I64(i64),
    F64(f64),
    Array(Array),
}

/// An array of values of one type. Arrays of arrays are not supported; no known file has them.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are the types of the format")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The number that stands for arrays in a file.
pub(crate) const ARRAY_ID: u32 = 9;

impl Value {
    /// A string.
    pub fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// An array of strings.
    pub fn strings<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self::Array(Array::String(texts.into_iter().map(Into::into).collect()))
    }

    /// The number that stands for the type in a file.
    pub(crate) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => ARRAY_ID,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// A non-negative integer of any width.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => u64::try_from(n).ok(),
            Self::I16(n) => u64::try_from(n).ok(),
            Self::I32(n) => u64::try_from(n).ok(),
            Self::I64(n) => u64::try_from(n).ok(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// A float of either width, or an integer.
    ///
    /// An f32 becomes the f64 with the shortest decimal form that rounds to it, so that 1e-5 is read as 1e-5 and not as
    /// 9.999999747378752e-6.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(shortest(x)),
            Self::F64(x) => Some(x),
            Self::U8(_)
            | Self::I8(_)
            | Self::U16(_)
            | Self::I16(_)
            | Self::U32(_)
            | Self::I32(_)
            | Self::U64(_)
            | Self::I64(_)
            | Self::Bool(_)
            | Self::String(_)
            | Self::Array(_) => self.as_u64().map(|n| n as f64),
        }
    }

    /// A finite float of either width, to the bit.
    pub(crate) fn as_float(&self) -> Option<f64> {
        let value = if let Self::F32(x) = self {
            f64::from(*x)
        } else if let Self::F64(x) = self {
            *x
        } else {
            return None;
        };
        value.is_finite().then_some(value)
    }

    /// A short form for messages.
    pub(crate) fn preview(&self) -> String {
        let text = match self {
            Self::U8(n) => n.to_string(),
            Self::I8(n) => n.to_string(),
            Self::U16(n) => n.to_string(),
            Self::I16(n) => n.to_string(),
            Self::U32(n) => n.to_string(),
            Self::I32(n) => n.to_string(),
            Self::F32(x) => x.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::String(text) => return text.chars().take(60).collect(),
            Self::U64(n) => n.to_string(),
            Self::I64(n) => n.to_string(),
            Self::F64(x) => x.to_string(),
            Self::Array(array) => format!("an array of {} values", array.len()),
        };
        text.chars().take(60).collect()
    }

    /// Appends the value without its type.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(n) => out.push(*n),
            Self::I8(n) => out.extend(n.to_le_bytes()),
            Self::U16(n) => out.extend(n.to_le_bytes()),
            Self::I16(n) => out.extend(n.to_le_bytes()),
            Self::U32(n) => out.extend(n.to_le_bytes()),
            Self::I32(n) => out.extend(n.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Bool(flag) => out.push(u8::from(*flag)),
            Self::String(text) => write_string(text, out),
            Self::U64(n) => out.extend(n.to_le_bytes()),
            Self::I64(n) => out.extend(n.to_le_bytes()),
            Self::F64(x) => out.extend(x.to_le_bytes()),
            Self::Array(array) => array.write(out),
        }
    }
}

impl Array {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values one by one.
    pub fn value(&self, idx: usize) -> Option<Value> {
        match self {
            Self::U8(v) => v.get(idx).copied().map(Value::U8),
            Self::I8(v) => v.get(idx).copied().map(Value::I8),
            Self::U16(v) => v.get(idx).copied().map(Value::U16),
            Self::I16(v) => v.get(idx).copied().map(Value::I16),
            Self::U32(v) => v.get(idx).copied().map(Value::U32),
            Self::I32(v) => v.get(idx).copied().map(Value::I32),
            Self::F32(v) => v.get(idx).copied().map(Value::F32),
            Self::Bool(v) => v.get(idx).copied().map(Value::Bool),
            Self::String(v) => v.get(idx).cloned().map(Value::String),
            Self::U64(v) => v.get(idx).copied().map(Value::U64),
            Self::I64(v) => v.get(idx).copied().map(Value::I64),
            Self::F64(v) => v.get(idx).copied().map(Value::F64),
        }
    }

    fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.type_id().to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        match self {
            Self::U8(v) => out.extend(v),
            Self::I8(v) => v.iter().for_each(|n| out.extend(n.to_le_bytes())),
            Self::U16(v) => v.iter().for_each(|n| out.extend(n.to_le_bytes())),
            Self::I16(v) => v.iter().for_each(|n| out.extend(n.to_le_bytes())),
            Self::U32(v) => v.iter().for_each(|n| out.extend(n.to_le_bytes())),
            Self::I32(v) => v.iter().for_each(|n| out.extend(n.to_le_bytes())),
            Self::F32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
            Self::Bool(v) => out.extend(v.iter().map(|flag| u8::from(*flag))),
            Self::String(v) => v.iter().for_each(|text| write_string(text, out)),
            Self::U64(v) => v.iter().for_each(|n| out.extend(n.to_le_bytes())),
            Self::I64(v) => v.iter().for_each(|n| out.extend(n.to_le_bytes())),
            Self::F64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        }
    }
}

/// Appends a string: its length in bytes, then the bytes.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}
