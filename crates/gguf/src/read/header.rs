//! The header of a file: magic, version, metadata and the table of tensors, with every check that needs no data.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use super::TensorInfo;
use super::cursor::Cursor;
use crate::{Error, Metadata, Result, TensorType, Value, limits};

/// Alignment of tensor data in files that do not state it.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key of the alignment.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// The first bytes of every file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) by_name: BTreeMap<String, usize>,
}

/// Reads the header of a file of `file_bytes`.
pub(super) fn read(path: &Path, source: impl BufRead, file_bytes: u64) -> Result<Header> {
    let mut cursor = Cursor::new(path, source, file_bytes);
    read_version(path, &mut cursor)?;
    let n_tensors = cursor.u64()?;
    let n_keys = cursor.u64()?;
    for (count, limit, what) in
        [(n_tensors, limits::TENSORS, "tensors"), (n_keys, limits::KEYS, "metadata keys")]
    {
        if count > limit {
            return Err(cursor.malformed(format!("`{count}` {what}, the limit is {limit}")));
        }
    }
    let metadata = read_metadata(path, &mut cursor, n_keys)?;
    refuse_split(&metadata)?;
    let alignment = alignment(&metadata, &cursor)?;
    // A tensor takes at least its name's length, a number of axes, one size, a type and an offset.
    let n_tensors = cursor.check_count(n_tensors, 8 + 4 + 8 + 4 + 8, "number of tensors")?;
    let mut tensors = Vec::with_capacity(n_tensors);
    for _ in 0..n_tensors {
        tensors.push(read_tensor(path, &mut cursor, alignment)?);
    }
    let data_start = cursor.position().next_multiple_of(alignment);
    let by_name = index(&cursor, &tensors)?;
    place(&cursor, &mut tensors, data_start, file_bytes)?;
    Ok(Header { metadata, tensors, by_name })
}

fn read_version(path: &Path, cursor: &mut Cursor<impl BufRead>) -> Result<()> {
    let mut magic = [0; 4];
    cursor.fill(&mut magic)?;
    if magic != MAGIC {
        return Err(cursor.malformed("it does not start with `GGUF`"));
    }
    let unsupported = |reason: String, hint: &str| {
        Err(Error::Unsupported { path: path.to_owned(), reason, hint: hint.to_owned() })
    };
    match cursor.u32()? {
        2 | 3 => Ok(()),
        1 => unsupported(
            "GGUF version `1` is not supported".to_owned(),
            "convert the model again with a recent llama.cpp",
        ),
        version if matches!(version.swap_bytes(), 1..=3) => unsupported(
            "the file is big-endian".to_owned(),
            "convert the model on a little-endian machine",
        ),
        version => unsupported(
            format!("GGUF version `{version}` is not supported"),
            "versions 2 and 3 are supported",
        ),
    }
}

fn read_metadata(path: &Path, cursor: &mut Cursor<impl BufRead>, n: u64) -> Result<Metadata> {
    // A pair takes at least its key's length, a type and one byte.
    let n = cursor.check_count(n, 8 + 4 + 1, "number of metadata keys")?;
    let mut pairs = Vec::with_capacity(n);
    for _ in 0..n {
        let key = cursor.string(limits::NAME_BYTES as u64, "a metadata key")?;
        let type_id = cursor.u32()?;
        let value = cursor.value(type_id, &key)?;
        pairs.push((key, value));
    }
    Metadata::new(path, pairs)
}

fn refuse_split(metadata: &Metadata) -> Result<()> {
    match metadata.uint("split.count")? {
        Some(count) if count > 1 => Err(Error::Unsupported {
            path: metadata.path().to_owned(),
            reason: format!("the model is split into `{count}` files"),
            hint: "merge them with `llama-gguf-split --merge`".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn alignment(metadata: &Metadata, cursor: &Cursor<impl BufRead>) -> Result<u64> {
    let alignment = metadata.uint(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > limits::ALIGNMENT {
        let limit = limits::ALIGNMENT;
        return Err(cursor.malformed(format!(
            "`{ALIGNMENT_KEY}` must be a power of two up to {limit}: `{alignment}`"
        )));
    }
    Ok(alignment)
}

/// One row of the table; `start` is relative to the data for now.
fn read_tensor(
    path: &Path,
    cursor: &mut Cursor<impl BufRead>,
    alignment: u64,
) -> Result<TensorInfo> {
    let name = cursor.string(limits::NAME_BYTES as u64, "a tensor's name")?;
    let n_axes = cursor.u32()?;
    if n_axes == 0 || n_axes > limits::AXES {
        let reason =
            format!("tensor `{name}` has `{n_axes}` axes; 1 to {} are supported", limits::AXES);
        return Err(cursor.malformed(reason));
    }
    let mut shape = Vec::new();
    let mut n_elements: u64 = 1;
    for _ in 0..n_axes {
        let size = cursor.u64()?;
        n_elements = n_elements.checked_mul(size).filter(|n| *n <= limits::ELEMENTS).unwrap_or(0);
        shape.push(size as usize);
    }
    if n_elements == 0 {
        let reason = format!("tensor `{name}` has the impossible sizes `{shape:?}`");
        return Err(cursor.malformed(reason));
    }
    let row = shape.first().copied().unwrap_or(1);
    shape.reverse();
    let type_id = cursor.u32()?;
    let start = cursor.u64()?;
    let Some(ty) = TensorType::from_id(type_id) else {
        return Err(Error::Unsupported {
            path: path.to_owned(),
            reason: format!("tensor `{name}` is stored as `{}`", TensorType::unread_name(type_id)),
            hint: format!("supported: {}", TensorType::ALL.map(TensorType::name).join(", ")),
        });
    };
    if !row.is_multiple_of(ty.block_elements()) {
        let reason = format!(
            "rows of tensor `{name}` are not whole blocks of {}: `{row}` elements",
            ty.name()
        );
        return Err(cursor.malformed(reason));
    }
    if !start.is_multiple_of(alignment) {
        let reason =
            format!("tensor `{name}` starts at `{start}`, which is no multiple of {alignment}");
        return Err(cursor.malformed(reason));
    }
    let n_bytes = ty.bytes(n_elements).unwrap_or(0);
    Ok(TensorInfo { name, shape, ty, start, n_bytes })
}

fn index(cursor: &Cursor<impl BufRead>, tensors: &[TensorInfo]) -> Result<BTreeMap<String, usize>> {
    let mut by_name = BTreeMap::new();
    for (idx, info) in tensors.iter().enumerate() {
        if by_name.insert(info.name.clone(), idx).is_some() {
            return Err(cursor.malformed(format!("tensor `{}` occurs twice", info.name)));
        }
    }
    Ok(by_name)
}

/// Makes starts relative to the file and checks that all data is inside it, without overlaps.
fn place(
    cursor: &Cursor<impl BufRead>,
    tensors: &mut [TensorInfo],
    data_start: u64,
    file_bytes: u64,
) -> Result<()> {
    for info in &mut *tensors {
        let start = data_start.checked_add(info.start);
        let end = start.and_then(|start| start.checked_add(info.n_bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_bytes => info.start = start,
            _ => {
                let reason = format!("the data of tensor `{}` reaches past the end", info.name);
                return Err(cursor.malformed(reason));
            }
        }
    }
    let mut by_start: Vec<&TensorInfo> = tensors.iter().collect();
    by_start.sort_by_key(|info| info.start);
    for pair in by_start.windows(2) {
        if let [first, second] = pair
            && first.start + first.n_bytes > second.start
        {
            let reason = format!("tensors `{}` and `{}` overlap", first.name, second.name);
            return Err(cursor.malformed(reason));
        }
    }
    Ok(())
}

/// The bytes before the table of tensors: magic, version, counts and metadata.
pub(crate) fn write_start(n_tensors: usize, pairs: &[(String, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(3_u32.to_le_bytes());
    out.extend((n_tensors as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        crate::value::write_string(key, &mut out);
        out.extend(value.type_id().to_le_bytes());
        value.write(&mut out);
    }
    out
}
