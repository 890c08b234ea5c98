//! Dtypes of stored tensors, and the Rust types that hold their elements.

use arch::Dtype;

/// The dtype of a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredDtype {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed 64-bit integers.
    I64,
    /// Signed 32-bit integers.
    I32,
    /// Signed 16-bit integers.
    I16,
    /// Signed bytes.
    I8,
    /// Bytes.
    U8,
    /// One byte for each truth value.
    Bool,
}

impl StoredDtype {
    const ALL: [Self; 10] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U8,
        Self::Bool,
    ];

    /// The name in safetensors headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// The dtype with a name in safetensors headers; `None` for the others, such as `F8_E4M3`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes per element.
    pub fn n_bytes(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The dtype as one of a model's weights; `None` if weights are not read from it.
    pub fn of_weights(self) -> Option<Dtype> {
        match self {
            Self::F32 => Some(Dtype::F32),
            Self::Bf16 => Some(Dtype::Bf16),
            Self::F16 => Some(Dtype::F16),
            Self::F64 | Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::U8 | Self::Bool => {
                None
            }
        }
    }
}

impl From<Dtype> for StoredDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

/// A Rust type with the bytes of a stored dtype.
pub trait Element: bytemuck::Pod {
    /// The dtype.
    const DTYPE: StoredDtype;
}

macro_rules! elements {
    ($($element:ty => $dtype:ident),+ $(,)?) => {$(
        impl Element for $element {
            const DTYPE: StoredDtype = StoredDtype::$dtype;
        }
    )+};
}

elements!(
    f64 => F64,
    f32 => F32,
    half::f16 => F16,
    half::bf16 => Bf16,
    i64 => I64,
    i32 => I32,
    i16 => I16,
    i8 => I8,
    u8 => U8,
);
