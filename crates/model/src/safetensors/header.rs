//! The header of a safetensors file, checked completely before any data is read.
//!
//! Tensors must cover the data exactly, without gap or overlap, so that no byte of a file is
//! unexplained. It deliberately reads no metadata: nothing there may change a model.

use std::path::Path;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use arch::Dtype;

use crate::{Error, Result};

/// Where a tensor stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its format's name as the file has it; see [`TensorInfo::dtype`].
    pub stored_as: String,
    /// First byte, counted from the end of the header.
    pub(super) start: u64,
    /// Byte behind the last.
    pub(super) end: u64,
}

impl TensorInfo {
    /// The format, if it is one that is read.
    pub fn dtype(&self) -> Option<Dtype> {
        match self.stored_as.as_str() {
            "F32" => Some(Dtype::F32),
            "BF16" => Some(Dtype::Bf16),
            "F16" => Some(Dtype::F16),
            _ => None,
        }
    }
}

/// Parses and checks a header; `data_bytes` is what follows it in the file.
pub(super) fn parse(path: &Path, json: &[u8], data_bytes: u64) -> Result<Vec<TensorInfo>> {
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let Entries(entries) = serde_json::from_slice(json)
        .map_err(|error| malformed(format!("the header is not valid: {error}")))?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let [start, end] = entry.data_offsets;
        let info = TensorInfo { name, shape: entry.shape, stored_as: entry.dtype, start, end };
        check_length(&info).map_err(malformed)?;
        tensors.push(info);
    }
    check_cover(&tensors, data_bytes).map_err(malformed)?;
    Ok(tensors)
}

/// A tensor's bytes are as many as its shape and format say. Formats that are not read are passed
/// over here: whether they matter depends on who asks for the tensor.
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

/// The header's tensors in its own order; a name that stands twice is an error.
struct Entries(Vec<(String, Entry)>);

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
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        let message = format!("tensor `{name}` stands twice");
                        return Err(serde::de::Error::custom(message));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Names)
    }
}
