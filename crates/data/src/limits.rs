//! Limits of this crate's readers, in addition to those in `fsio::limits`.

/// One row of any format, in bytes: a JSON line, a CSV record, an element of a JSON array.
pub const ROW_BYTES: usize = fsio::limits::JSONL_LINE_BYTES;
/// A row that is too long is read to its end and skipped, up to this size in bytes.
pub const SKIPPED_ROW_BYTES: usize = 256 << 20;
/// Texts of a chat, a pair or a prompt, in bytes, unless `max_row_bytes` is set. They are tokenized as a whole, which takes
/// three hundred times their memory; documents are read in pieces.
pub const TEXT_BYTES: usize = 1 << 20;
/// Bytes that the values of a JSON row may take once they are parsed, without their texts, for each byte that a row may have.
/// Ids of five digits take 6.
pub const ROW_MEMORY: usize = 8;
/// Bytes from which [`ROW_MEMORY`] holds.
pub const FREE_ROW_MEMORY: usize = 1 << 20;
/// Nesting depth of a JSON row.
pub const JSON_DEPTH: usize = fsio::limits::JSONL_DEPTH;
/// One text value of a parquet or Arrow file, in bytes; whole books fit.
pub const CELL_BYTES: usize = 64 << 20;
/// A compressed file that must be decompressed in memory (parquet.gz), in bytes.
pub const UNPACKED_BYTES: u64 = 256 << 20;
/// Decompressed bytes for each byte of a compressed file. Text has about 4, and rows that all repeat each other about 100.
pub const UNPACKED_RATIO: u64 = 500;
/// Decompressed bytes from which [`UNPACKED_RATIO`] holds.
pub const FREE_UNPACKED_BYTES: u64 = 64 << 20;
/// Members of a gzip file that may be without content.
pub const EMPTY_MEMBERS: usize = 1000;
/// The footer of a parquet file, in bytes; 100,000 column chunks have about 10 MB. It takes up to forty times as much in memory.
pub const PARQUET_FOOTER_BYTES: u64 = 16 << 20;
/// One page of a parquet file after decompression, in bytes (writers aim at 1 MiB).
pub const PARQUET_PAGE_BYTES: u64 = 128 << 20;
/// The largest pages of all columns of a parquet file together, in bytes: they are in memory at the same time.
pub const PARQUET_PAGES_BYTES: u64 = 2 * PARQUET_PAGE_BYTES;
/// The header of one page, in bytes.
pub const PARQUET_PAGE_HEADER_BYTES: usize = 1 << 20;
/// Number of values that one page may declare.
pub const PARQUET_PAGE_VALUES: u64 = 32 << 20;
/// Nesting depth of a parquet or Arrow schema.
pub const SCHEMA_DEPTH: usize = 32;
/// Columns of a CSV header, and of a parquet or Arrow schema, nested ones included.
pub const SCHEMA_FIELDS: usize = 10_000;
/// Values of one row of a parquet file: those of its lists, in all columns that are read. Token ids and two lists beside
/// them of 700,000 tokens fit.
pub const PARQUET_ROW_VALUES: u64 = 2 << 20;
/// Texts of one row of a parquet file, in bytes, if it repeats the texts of a dictionary.
pub const PARQUET_ROW_BYTES: u64 = 2 * CELL_BYTES as u64;
/// One decoded batch of rows of a parquet file, in bytes, unless a single row takes more.
pub const PARQUET_BATCH_BYTES: u64 = 64 << 20;
/// One row of a parquet or Arrow file in memory, in bytes.
pub const COLUMNAR_ROW_MEMORY: u64 = 192 << 20;
/// The metadata of one Arrow message, in bytes.
pub const ARROW_METADATA_BYTES: u64 = 16 << 20;
/// One Arrow record batch, compressed or decompressed, in bytes.
pub const ARROW_BATCH_BYTES: u64 = 1 << 30;
/// Decompressed bytes for each byte of a compressed Arrow record batch of more than [`FREE_UNPACKED_BYTES`]. Rows that all begin
/// with the same long text have about 50.
pub const ARROW_BATCH_RATIO: u64 = 100;
/// Bytes that are copied because parts of dictionaries of an Arrow file follow the first ones: each copies what was there.
pub const ARROW_COPIED_BYTES: u64 = 2 << 30;
/// Compressed dictionaries of one Arrow file after decompression, in bytes. All are kept.
pub const ARROW_DICTIONARY_BYTES: u64 = 256 << 20;
/// Files that one source may expand to.
pub const SOURCE_FILES: usize = 100_000;
/// Depth of directories that are searched for data files.
pub const DIRECTORY_DEPTH: usize = 16;
/// Text that a tokenizer without safe boundaries must process in one chunk, in bytes.
pub const CHUNK_BYTES: usize = 16 << 20;
/// Messages of one conversation.
pub const MESSAGES: usize = 10_000;
/// Number of chats in one message tree.
pub const TREE_PATHS: usize = 100_000;

/// Bytes that a file of `length` bytes may expand to: decompressed, or as the values of its rows.
pub(crate) fn unpacked_bytes(length: u64) -> u64 {
    length.saturating_mul(UNPACKED_RATIO).max(FREE_UNPACKED_BYTES)
}
