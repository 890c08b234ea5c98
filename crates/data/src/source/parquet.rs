//! Parquet: row group by row group, only the columns that are needed.
//!
//! The structure of the footer and the sizes in each page header are checked before the parquet crate decodes them, since
//! it allocates the declared sizes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::arrow::array::RecordBatch;
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use fsio::limits::PARQUET_CPU_SECONDS;

use crate::error::{Error, Result};
use crate::location::{Location, shared_path};
use crate::source::arrow_schema::is_small_in_parquet;
use crate::source::columns::{catch_panics, check_names, check_schema, row_of, wanted_columns};
use crate::source::expansion::Expansion;
use crate::source::parquet_checks::{
    Input, check_footer, not_parquet, parquet_reason, without_layers,
};
use crate::source::parquet_rows::GroupCost;
use crate::source::{BytesRead, Row};

/// The rows of one file.
pub(crate) struct ParquetRows {
    file: Arc<Path>,
    input: Input,
    expansion: Expansion,
    /// Counts what pages declare before they are decoded.
    declared: Expansion,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    strict: bool,
    progress: BytesRead,
    /// Time spent on checking and decoding.
    spent: Duration,
    next_group: usize,
    batches: Option<ParquetRecordBatchReader>,
    batch: Option<(RecordBatch, usize)>,
    n_rows: u64,
    done: bool,
}

impl ParquetRows {
    pub(crate) fn open(
        path: &Path,
        needed: Option<&[String]>,
        progress: &BytesRead,
    ) -> Result<Self> {
        let input = Input::open(path, progress)?;
        check_footer(path, &input)?;
        let metadata = catch_panics(|| {
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&input);
            let metadata = metadata.map_err(|error| parquet_reason(&error))?;
            if !is_small_in_parquet(metadata.file_metadata().key_value_metadata()) {
                return Err("its Arrow schema has too many columns, or long names".into());
            }
            let read = without_zero_offsets(metadata).and_then(|metadata| {
                ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            });
            read.map_err(|error| parquet_reason(&error))
        })
        .map_err(|reason| not_parquet(path, &reason))?;
        check_schema(metadata.schema()).map_err(|reason| Error::bad_file(path, reason))?;
        check_names(path, metadata.schema())?;
        let columns = wanted_columns(metadata.schema(), needed);
        let mask = ProjectionMask::roots(metadata.parquet_schema(), columns);
        Ok(Self {
            file: shared_path(path),
            input,
            expansion: Expansion::of(path),
            declared: Expansion::of(path),
            metadata,
            mask,
            strict: needed.is_some(),
            progress: progress.clone(),
            spent: Duration::ZERO,
            next_group: 0,
            batches: None,
            batch: None,
            n_rows: 0,
            done: false,
        })
    }

    /// Checks and opens the next row group. Returns false if there is none.
    fn open_group(&mut self) -> Result<bool> {
        let group = self.next_group;
        let parquet = Arc::clone(self.metadata.metadata());
        let Some(row_group) = parquet.row_groups().get(group) else { return Ok(false) };
        self.next_group += 1;
        let mut cost = GroupCost::default();
        for (leaf, column) in row_group.columns().iter().enumerate() {
            if self.mask.leaf_included(leaf) {
                cost.add(&self.file, &self.input, column, &mut self.declared)?;
            }
        }
        let batch_rows = cost.batch_rows();
        let reader = catch_panics(|| {
            ParquetRecordBatchReaderBuilder::new_with_metadata(
                self.input.clone(),
                self.metadata.clone(),
            )
            .with_projection(self.mask.clone())
            .with_row_groups(vec![group])
            .with_batch_size(batch_rows)
            .build()
            .map_err(|error| parquet_reason(&error))
        });
        self.batches = Some(reader.map_err(|reason| not_parquet(&self.file, &reason))?);
        if matches!(self.input, Input::File(_)) {
            self.progress.add(u64::try_from(row_group.compressed_size()).unwrap_or(0));
        }
        Ok(true)
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some((batch, at)) = &mut self.batch
                && *at < batch.num_rows()
            {
                let row = *at;
                *at += 1;
                self.n_rows += 1;
                let location = Location::row(&self.file, self.n_rows);
                let (strict, expansion) = (self.strict, &mut self.expansion);
                return catch_panics(|| Ok(row_of(batch, row, strict, location, expansion)))
                    .map_err(|reason| not_parquet(&self.file, &reason))?
                    .map(Some);
            }
            self.batch = None;
            let started = Instant::now();
            let more = self.decode()?;
            self.spent += started.elapsed();
            if self.spent.as_secs() > PARQUET_CPU_SECONDS {
                let reason = format!("took more than {PARQUET_CPU_SECONDS} s to decode");
                return Err(Error::bad_file(&self.file, reason));
            }
            if !more {
                return Ok(None);
            }
        }
    }

    /// Decodes a batch, or opens a row group. Returns false at the end.
    fn decode(&mut self) -> Result<bool> {
        if let Some(batches) = &mut self.batches {
            let next = catch_panics(|| {
                batches.next().transpose().map_err(|error| without_layers(&error.to_string()))
            })
            .map_err(|reason| not_parquet(&self.file, &reason))?;
            match next {
                Some(batch) => self.batch = Some((batch, 0)),
                None => self.batches = None,
            }
            return Ok(true);
        }
        self.open_group()
    }
}

/// Metadata in which no column has a dictionary page at offset 0, where a file has its magic number: some writers store 0
/// for a column without a dictionary.
fn without_zero_offsets(metadata: ParquetMetaData) -> ParquetResult<ParquetMetaData> {
    let is_zero = |column: &ColumnChunkMetaData| column.dictionary_page_offset() == Some(0);
    if !metadata.row_groups().iter().any(|group| group.columns().iter().any(is_zero)) {
        return Ok(metadata);
    }
    let mut builder = metadata.into_builder();
    for group in builder.take_row_groups() {
        let mut group = group.into_builder();
        for column in group.take_columns() {
            let column = if is_zero(&column) {
                column.into_builder().set_dictionary_page_offset(None).build()?
            } else {
                column
            };
            group = group.add_column_metadata(column);
        }
        builder = builder.add_row_group(group.build()?);
    }
    Ok(builder.build())
}

impl Iterator for ParquetRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.next_row();
        self.done = !matches!(row, Ok(Some(_)) | Err(Error::Row { .. }));
        row.transpose()
    }
}
