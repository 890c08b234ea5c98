//! The memory that the rows of a row group take once they are decoded, found before they are decoded.
//!
//! Run lengths and dictionaries let a few bytes stand for millions of values. Repetition levels say how many values a row
//! has, and the keys of a dictionary how long its texts are: both are counted without making a value.

use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{Encoding, Type};
use ::parquet::column::page::{Page, PageReader};
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::serialized_reader::SerializedPageReader;

use crate::error::{Error, Result};
use crate::limits;
use crate::source::columns::catch_panics;
use crate::source::expansion::Expansion;
use crate::source::parquet_checks::{Input, Pages, check_pages, not_parquet, parquet_reason};
use crate::source::parquet_runs::{Deltas, Runs};

/// Maximum number of rows decoded at once.
const BATCH_ROWS: u64 = 4096;
/// Memory of a value and its levels, without its text.
const VALUE_BYTES: u64 = 16;

/// Memory of the largest row of a row group, over the columns that are read.
#[derive(Debug, Default)]
pub(super) struct GroupCost {
    n_values: u64,
    n_bytes: u64,
    /// Bytes of the columns' largest pages.
    page_bytes: u64,
}

/// Values of a row and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct RowSize {
    n_values: u64,
    n_bytes: u64,
}

impl GroupCost {
    /// Checks the pages of a column chunk and adds its largest row.
    pub(super) fn add(
        &mut self,
        path: &Path,
        input: &Input,
        column: &ColumnChunkMetaData,
        declared: &mut Expansion,
    ) -> Result<()> {
        let pages = check_pages(path, input, column)?;
        declared.declare(path, pages.n_bytes, pages.n_values)?;
        self.page_bytes = self.page_bytes.saturating_add(pages.largest);
        let within = |what, value, limit| {
            if value > limit {
                return Err(Error::TooLarge { path: path.to_path_buf(), what, value, limit });
            }
            Ok(())
        };
        within("bytes of the pages of a row", self.page_bytes, limits::PARQUET_PAGES_BYTES)?;
        let largest = catch_panics(|| {
            largest_row(input, column, &pages).map_err(|error| parquet_reason(&error))
        })
        .map_err(|reason| not_parquet(path, &reason))?;
        self.n_values = self.n_values.saturating_add(largest.n_values);
        let value_bytes = largest.n_values.saturating_mul(VALUE_BYTES);
        self.n_bytes = self.n_bytes.saturating_add(largest.n_bytes).saturating_add(value_bytes);
        within("values of a row", self.n_values, limits::PARQUET_ROW_VALUES)?;
        within("bytes of a row", self.n_bytes, limits::PARQUET_ROW_BYTES)
    }

    /// Number of rows whose values fit in a batch, at least one.
    pub(super) fn batch_rows(&self) -> usize {
        (limits::PARQUET_BATCH_BYTES / self.n_bytes.max(1)).clamp(1, BATCH_ROWS) as usize
    }
}

type PageResult<T> = ::parquet::errors::Result<T>;

/// The largest row of a column chunk.
///
/// A text that is not in a dictionary counts as the mean of its page. The texts of consecutive rows are then too few by those
/// of the first and the last page at most, whose size is limited.
fn largest_row(input: &Input, column: &ColumnChunkMetaData, pages: &Pages) -> PageResult<RowSize> {
    let leaf = column.column_descr();
    let mut fixed = 0;
    if leaf.physical_type() == Type::FIXED_LEN_BYTE_ARRAY {
        fixed = u64::try_from(leaf.type_length()).unwrap_or(u64::MAX);
    }
    let is_text = leaf.physical_type() == Type::BYTE_ARRAY;
    let mut reader = SerializedPageReader::new(Arc::new(input.clone()), column, 0, None)?;
    if leaf.max_rep_level() == 0 {
        let mut n_bytes = pages.mean_value.max(fixed);
        if pages.with_prefixes {
            n_bytes = pages.largest;
        }
        if is_text && pages.has_dictionary {
            let longest = match reader.get_next_page()? {
                Some(Page::DictionaryPage { buf, .. }) => lengths(&buf).into_iter().max(),
                Some(Page::DataPage { .. } | Page::DataPageV2 { .. }) | None => None,
            };
            n_bytes = n_bytes.max(longest.map_or(pages.largest, u64::from));
        }
        return Ok(RowSize { n_values: 1, n_bytes });
    }
    let mut rows = ListRows {
        rep_width: Runs::width_of(leaf.max_rep_level()),
        max_def: leaf.max_def_level(),
        fixed,
        is_text,
        dictionary: Arc::default(),
        current: RowSize::default(),
        largest: RowSize::default(),
    };
    while let Some(page) = reader.get_next_page()? {
        rows.add_page(&page);
    }
    rows.end_row();
    Ok(rows.largest)
}

/// Lengths of the texts in a dictionary page.
fn lengths(mut page: &[u8]) -> Vec<u32> {
    let mut lengths = Vec::new();
    while let Some((length, rest)) = page.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        let Some(rest) = rest.get(length as usize..) else { break };
        lengths.push(length);
        page = rest;
    }
    lengths
}

/// The rows of a column of lists, page by page.
struct ListRows {
    rep_width: u32,
    max_def: i16,
    /// Bytes of a value of a fixed length, else 0.
    fixed: u64,
    is_text: bool,
    /// Lengths of the dictionary's texts.
    dictionary: Arc<[u32]>,
    current: RowSize,
    largest: RowSize,
}

/// A data page's parts. Levels are `None` if they are in a format without runs.
struct Parts<'a> {
    n_values: u32,
    encoding: Encoding,
    n_bytes: u64,
    repetitions: Option<&'a [u8]>,
    definitions: Option<&'a [u8]>,
    values: &'a [u8],
}

impl ListRows {
    fn end_row(&mut self) {
        let RowSize { n_values, n_bytes } = std::mem::take(&mut self.current);
        self.largest.n_values = self.largest.n_values.max(n_values);
        self.largest.n_bytes = self.largest.n_bytes.max(n_bytes);
    }

    fn add_page(&mut self, page: &Page) {
        match page {
            Page::DictionaryPage { buf, .. } => self.dictionary = lengths(buf).into(),
            Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                ..
            } => {
                let mut values: &[u8] = buf;
                let repetitions = levels(&mut values, *rep_level_encoding);
                let mut definitions = Some(&[][..]);
                if self.max_def > 0 {
                    definitions = repetitions.and(levels(&mut values, *def_level_encoding));
                }
                self.add_values(&Parts {
                    n_values: *num_values,
                    encoding: *encoding,
                    n_bytes: buf.len() as u64,
                    repetitions,
                    definitions,
                    values,
                });
            }
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let (repetitions, rest) = split(buf, *rep_levels_byte_len);
                let (definitions, values) = split(rest, *def_levels_byte_len);
                self.add_values(&Parts {
                    n_values: *num_values,
                    encoding: *encoding,
                    n_bytes: buf.len() as u64,
                    repetitions: Some(repetitions),
                    definitions: Some(definitions),
                    values,
                });
            }
        }
    }

    fn add_values(&mut self, page: &Parts<'_>) {
        let mean = page.n_bytes.div_ceil(u64::from(page.n_values).max(1));
        // Bytes of every value, nulls included, and those of each value that is not null.
        let (each, mut texts) = self.text_lengths(page, mean);
        let mut left = u64::from(page.n_values);
        let (Some(repetitions), Some(definitions)) = (page.repetitions, page.definitions) else {
            // Without levels, all values may be of one row.
            let texts = texts.into_iter().flatten().take(page.n_values as usize);
            self.add(left, each.saturating_mul(left), texts.fold(0, u64::saturating_add));
            return;
        };
        let mut repetitions = Runs::new(repetitions, self.rep_width);
        let mut definitions = Runs::new(definitions, Runs::width_of(self.max_def));
        let max_def = u32::from(self.max_def.unsigned_abs());
        let mut text_bytes = |n_values: u64| {
            let Some(texts) = &mut texts else { return 0 };
            let present = definitions.by_ref().take(n_values as usize);
            let present = present.filter(|level| *level == max_def);
            present.map(|_| texts.next().unwrap_or(0)).fold(0, u64::saturating_add)
        };
        while left > 0 {
            // Values without levels are of the same row.
            let (level, n) = repetitions.next_run().unwrap_or((1, left));
            let n = n.min(left);
            left -= n;
            if level > 0 {
                self.add(n, each.saturating_mul(n), text_bytes(n));
                continue;
            }
            for _ in 0..n {
                self.end_row();
                self.add(1, each, text_bytes(1));
            }
        }
    }

    /// Bytes that each value of a page takes, and those of each of its texts if these differ. `mean` is the mean length in the
    /// page.
    #[expect(deprecated, reason = "`BIT_PACKED` is one of the encodings")]
    fn text_lengths<'a>(
        &self,
        page: &Parts<'a>,
        mean: u64,
    ) -> (u64, Option<Box<dyn Iterator<Item = u64> + 'a>>) {
        if !self.is_text {
            return (self.fixed, None);
        }
        match page.encoding {
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
                let (width, keys) = page.values.split_first().unwrap_or((&0, &[]));
                let dictionary = Arc::clone(&self.dictionary);
                let length = move |key| dictionary.get(key as usize).copied().unwrap_or(0);
                let keys = Runs::new(keys, u32::from(*width));
                (0, Some(Box::new(keys.map(move |key| u64::from(length(key))))))
            }
            Encoding::DELTA_BYTE_ARRAY => {
                let damaged = std::iter::repeat(page.n_bytes);
                (mean, Some(Box::new(Deltas::new(page.values).chain(damaged))))
            }
            Encoding::PLAIN
            | Encoding::RLE
            | Encoding::BIT_PACKED
            | Encoding::DELTA_BINARY_PACKED
            | Encoding::DELTA_LENGTH_BYTE_ARRAY
            | Encoding::BYTE_STREAM_SPLIT
            | Encoding::ALP => (mean, None),
        }
    }

    fn add(&mut self, n_values: u64, n_bytes: u64, text_bytes: u64) {
        let RowSize { n_values: values, n_bytes: bytes } = &mut self.current;
        *values += n_values;
        *bytes = bytes.saturating_add(n_bytes).saturating_add(text_bytes);
    }
}

/// Takes levels and their length from the start of a page of version 1.
fn levels<'a>(page: &mut &'a [u8], encoding: Encoding) -> Option<&'a [u8]> {
    if encoding != Encoding::RLE {
        return None;
    }
    let (length, rest) = page.split_first_chunk::<4>()?;
    let (levels, rest) = split(rest, u32::from_le_bytes(*length));
    *page = rest;
    Some(levels)
}

/// The first `length` bytes, or all that are there, and the rest.
fn split(bytes: &[u8], length: u32) -> (&[u8], &[u8]) {
    bytes.split_at((length as usize).min(bytes.len()))
}
