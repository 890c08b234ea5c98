//! Writing a file as a stream: header first, then the tensors in the order of the table.

use std::io::Write;

use crate::read::{DEFAULT_ALIGNMENT, write_start};
use crate::value::write_string;
use crate::{Error, Result, TensorType, Value, quantize};

/// A tensor that is going to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the file.
    pub name: String,
    /// Sizes of the axes, slowest first.
    pub shape: Vec<usize>,
    /// The storage format.
    pub ty: TensorType,
}

impl TensorSpec {
    fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A file whose header is written and whose tensors follow.
pub struct GgufWriter<'a> {
    out: &'a mut dyn Write,
    expected: std::vec::IntoIter<TensorSpec>,
}

impl<'a> GgufWriter<'a> {
    /// Writes the header. Data is aligned to 32 bytes.
    pub fn begin(
        out: &'a mut dyn Write,
        metadata: &[(String, Value)],
        tensors: Vec<TensorSpec>,
    ) -> Result<Self> {
        let mut header = write_start(tensors.len(), metadata);
        let mut start = 0;
        for spec in &tensors {
            let row = spec.shape.last().copied().unwrap_or(1);
            let n_bytes = spec.ty.bytes(spec.n_elements() as u64);
            let Some(n_bytes) = n_bytes.filter(|_| row.is_multiple_of(spec.ty.block_elements()))
            else {
                return Err(Error::OutOfOrder { name: spec.name.clone() });
            };
            write_string(&spec.name, &mut header);
            header.extend((spec.shape.len() as u32).to_le_bytes());
            for size in spec.shape.iter().rev() {
                header.extend((*size as u64).to_le_bytes());
            }
            header.extend(spec.ty.id().to_le_bytes());
            header.extend(u64::to_le_bytes(start));
            start += n_bytes.next_multiple_of(DEFAULT_ALIGNMENT);
        }
        pad(&mut header);
        out.write_all(&header).map_err(|source| Error::Write { source })?;
        Ok(Self { out, expected: tensors.into_iter() })
    }

    /// Writes the next tensor of the table in its storage format. The values must be finite, and for f16 in its range.
    pub fn tensor(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let wrong = || Error::OutOfOrder { name: name.to_owned() };
        let spec = self.expected.next().ok_or_else(wrong)?;
        if spec.name != name || spec.n_elements() != values.len() {
            return Err(wrong());
        }
        let does_not_fit = |value: &f32| {
            let narrowed = if spec.ty == TensorType::F16 {
                half::f16::from_f32(*value).to_f32()
            } else if spec.ty == TensorType::Bf16 {
                half::bf16::from_f32(*value).to_f32()
            } else {
                *value
            };
            !narrowed.is_finite()
        };
        if let Some(idx) = values.iter().position(does_not_fit) {
            return Err(Error::NotExportable {
                reason: format!(
                    "`{name}` contains `{}` at index {idx}, which {} cannot hold",
                    values.get(idx).copied().unwrap_or(f32::NAN),
                    spec.ty.name()
                ),
                hint: "use bf16 or f32".to_owned(),
            });
        }
        let mut bytes = quantize(spec.ty, values).ok_or_else(wrong)?;
        pad(&mut bytes);
        self.out.write_all(&bytes).map_err(|source| Error::Write { source })
    }

    /// Checks that no tensor is missing.
    pub fn finish(mut self) -> Result<()> {
        match self.expected.next() {
            Some(spec) => Err(Error::OutOfOrder { name: spec.name }),
            None => self.out.flush().map_err(|source| Error::Write { source }),
        }
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
}
