//! The size limits of all readers.

/// A recipe file, in bytes.
pub const RECIPE_BYTES: u64 = 1 << 20;
/// Nesting of tables and arrays in a recipe; checked before the recursive parser runs.
pub const RECIPE_DEPTH: usize = 32;
/// A tokenizer.json, in bytes.
pub const TOKENIZER_BYTES: u64 = 64 << 20;
/// Entries of a vocabulary.
pub const TOKENIZER_ENTRIES: usize = 1_000_000;
/// A chat template, in bytes.
pub const TEMPLATE_BYTES: u64 = 64 << 10;
/// Recursion of a chat template.
pub const TEMPLATE_RECURSION: usize = 64;
/// Output of a chat template, in bytes.
pub const TEMPLATE_OUTPUT_BYTES: usize = 4 << 20;
/// Output of a chat template for each byte of the texts that it is given, in bytes. Some templates write a text twice.
pub const TEMPLATE_OUTPUT_RATIO: usize = 8;
/// Output of a chat template from which [`TEMPLATE_OUTPUT_RATIO`] holds, in bytes.
pub const FREE_TEMPLATE_OUTPUT_BYTES: usize = 256 << 10;
/// A config.json and other small JSON files of a model directory, in bytes.
pub const CONFIG_BYTES: u64 = 1 << 20;
/// The header of a safetensors file, in bytes.
pub const SAFETENSORS_HEADER_BYTES: u64 = 16 << 20;
/// A model.safetensors.index.json, in bytes.
pub const SAFETENSORS_INDEX_BYTES: u64 = 16 << 20;
/// One line of a JSONL file, in bytes.
pub const JSONL_LINE_BYTES: usize = 4 << 20;
/// Values of a JSON file that is parsed as a whole, once they are in memory, by [`crate::json_shape`]; they take several times
/// as much.
pub const JSON_MEMORY: usize = 32 << 20;
/// Nesting of a JSONL line.
pub const JSONL_DEPTH: usize = 64;
/// Memory for decoding one parquet file, in bytes.
pub const PARQUET_MEMORY_BYTES: u64 = 2 << 30;
/// CPU time for decoding one parquet file, in seconds.
pub const PARQUET_CPU_SECONDS: u64 = 600;
/// A MANIFEST, in bytes.
pub const MANIFEST_BYTES: u64 = 16 << 20;
/// The state.json of a checkpoint, in bytes.
pub const STATE_BYTES: u64 = 1 << 20;
/// The process id in a LOCK file, in bytes.
pub const LOCK_BYTES: u64 = 64;
