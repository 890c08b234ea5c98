//! Size of an Arrow schema before it is decoded. Parts of its encoding may be shared, so that few bytes declare very many
//! fields, and names and annotations are copied for each of them.

use ::arrow::ipc::{Field, KeyValue, Schema, root_as_message};
use ::parquet::file::metadata::KeyValue as Annotation;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::limits;

/// Names and annotations of all columns of a schema, in bytes.
const TEXT_BYTES: usize = 16 << 20;
/// The key of a parquet file under which Arrow's writers keep their schema, as an encapsulated message in base64.
const PARQUET_KEY: &str = "ARROW:schema";
/// Bytes before the message: a continuation marker and a length.
const PREFIX: [u8; 4] = [0xff; 4];
const PREFIX_BYTES: usize = 8;

/// Whether a schema has at most the columns and the text that are allowed.
pub(super) fn is_small(schema: Schema<'_>) -> bool {
    let mut left = Left { fields: limits::SCHEMA_FIELDS, text_bytes: TEXT_BYTES };
    let annotations = schema.custom_metadata().into_iter().flatten();
    annotations.into_iter().all(|pair| left.take_pair(pair))
        && schema.fields().into_iter().flatten().all(|field| left.take(field))
}

/// Whether the Arrow schema in the footer of a parquet file is small, or there is none. A schema that cannot be read is left to
/// the decoder, which says why.
pub(super) fn is_small_in_parquet(annotations: Option<&Vec<Annotation>>) -> bool {
    let schemas = annotations.into_iter().flatten().filter(|pair| pair.key == PARQUET_KEY);
    schemas.filter_map(|pair| pair.value.as_ref()).all(|encoded| {
        let Ok(bytes) = BASE64_STANDARD.decode(encoded) else { return true };
        let message = if bytes.starts_with(&PREFIX) { bytes.get(PREFIX_BYTES..) } else { None };
        let Ok(message) = root_as_message(message.unwrap_or(&bytes)) else { return true };
        message.header_as_schema().is_none_or(is_small)
    })
}

/// The columns and bytes of text that are left of the limits.
struct Left {
    fields: usize,
    text_bytes: usize,
}

impl Left {
    /// Takes a field and those within it; false if they are too many.
    fn take(&mut self, field: Field<'_>) -> bool {
        let Some(fields) = self.fields.checked_sub(1) else { return false };
        self.fields = fields;
        let zone = field.type_as_timestamp().and_then(|stamp| stamp.timezone());
        let n_types =
            field.type_as_union().and_then(|union| union.typeIds()).map_or(0, |ids| ids.len());
        self.take_text(field.name())
            && self.take_text(zone)
            && self.take_bytes(n_types.saturating_mul(size_of::<i32>()))
            && field.custom_metadata().into_iter().flatten().all(|pair| self.take_pair(pair))
            && field.children().into_iter().flatten().all(|child| self.take(child))
    }

    fn take_pair(&mut self, pair: KeyValue<'_>) -> bool {
        self.take_text(pair.key()) && self.take_text(pair.value())
    }

    fn take_text(&mut self, text: Option<&str>) -> bool {
        self.take_bytes(text.map_or(0, str::len))
    }

    fn take_bytes(&mut self, n_bytes: usize) -> bool {
        let left = self.text_bytes.checked_sub(n_bytes);
        self.text_bytes = left.unwrap_or(0);
        left.is_some()
    }
}
