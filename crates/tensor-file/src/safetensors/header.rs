//! The header of a safetensors file, checked completely before any tensor is read.
//!
//! Tensors must cover the data exactly, without gaps or overlaps, so that every byte of a file belongs to a tensor.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use fsio::limits::SAFETENSORS_HEADER_BYTES;

use crate::info::TensorInfo;
use crate::source::Source;
use crate::{Error, Result};

/// The contents of a header.
#[derive(Debug)]
pub(crate) struct Header {
    /// `__metadata__`; null if the header has none.
    pub(crate) metadata: Value,
    /// The tensors in the header's order.
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Reads and checks the header of a file.
pub(crate) fn read_header(source: &Source) -> Result<Header> {
    let malformed = |reason: String| Error::Malformed { path: source.path().to_owned(), reason };
    let mut length = [0; 8];
    if source.n_bytes() < length.len() as u64 {
        return Err(malformed("too short to be a safetensors file".to_owned()));
    }
    source.read_at(0, &mut length)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > SAFETENSORS_HEADER_BYTES {
        let limit = SAFETENSORS_HEADER_BYTES;
        return Err(malformed(format!(
            "the header is longer than {limit} bytes: `{header_bytes}`"
        )));
    }
    let data_start = length.len() as u64 + header_bytes;
    let Some(data_bytes) = source.n_bytes().checked_sub(data_start) else {
        return Err(malformed("the file ends within its header".to_owned()));
    };
    let mut json = vec![0; header_bytes as usize];
    source.read_at(length.len() as u64, &mut json)?;
    parse(&json, data_start, data_bytes).map_err(malformed)
}

fn parse(json: &[u8], data_start: u64, data_bytes: u64) -> std::result::Result<Header, String> {
    let Entries { metadata, tensors: entries } = serde_json::from_slice(json)
        .map_err(|error| format!("the header is not valid: {error}"))?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let [start, end] = entry.data_offsets;
        let info = TensorInfo { name, shape: entry.shape, stored_as: entry.dtype, start, end };
        check_length(&info)?;
        tensors.push(info);
    }
    check_cover(&tensors, data_bytes)?;
    for info in &mut tensors {
        info.start += data_start;
        info.end += data_start;
    }
    Ok(Header { metadata, tensors })
}

/// Checks a tensor's number of bytes against its shape and dtype. Unknown dtypes are accepted here: they matter only if
/// the tensor is read.
fn check_length(info: &TensorInfo) -> std::result::Result<(), String> {
    let name = &info.name;
    let Some(bytes) = info.end.checked_sub(info.start) else {
        return Err(format!("tensor `{name}` ends before it starts"));
    };
    let elements = info.shape.iter().try_fold(1_u64, |n, size| n.checked_mul(*size as u64));
    let Some(elements) = elements else {
        return Err(format!("tensor `{name}` is larger than any memory: {:?}", info.shape));
    };
    let Some(dtype) = info.dtype() else { return Ok(()) };
    if elements.checked_mul(dtype.n_bytes()) == Some(bytes) {
        Ok(())
    } else {
        let shape = &info.shape;
        Err(format!("tensor `{name}` has {bytes} bytes for shape {shape:?} of {}", info.stored_as))
    }
}

fn check_cover(tensors: &[TensorInfo], data_bytes: u64) -> std::result::Result<(), String> {
    let mut by_start: Vec<&TensorInfo> = tensors.iter().collect();
    by_start.sort_by_key(|info| (info.start, info.end));
    let mut covered = 0;
    for info in by_start {
        if info.end > data_bytes {
            let short = info.end - data_bytes;
            return Err(format!("the file ends {short} bytes before tensor `{}` does", info.name));
        }
        if info.start != covered {
            return Err(format!("tensor `{}` does not start where another ends", info.name));
        }
        covered = info.end;
    }
    if covered == data_bytes {
        Ok(())
    } else {
        Err(format!("{} bytes at the end belong to no tensor", data_bytes - covered))
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// The header's tensors in its own order; a repeated name is an error.
struct Entries {
    metadata: Value,
    tensors: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut seen = std::collections::BTreeSet::new();
                let mut entries = Entries { metadata: Value::Null, tensors: Vec::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        let message = format!("tensor `{name}` is listed twice");
                        return Err(serde::de::Error::custom(message));
                    }
                    if name == "__metadata__" {
                        entries.metadata = map.next_value()?;
                    } else {
                        entries.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Names)
    }
}
