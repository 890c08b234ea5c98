//! Limits on the header of a file. Sizes in the file are also checked against its length.

/// Metadata and tensor table together, in bytes. The largest published vocabularies need about 20 MB.
pub const HEADER_BYTES: u64 = 256 << 20;
/// One string, in bytes.
pub const STRING_BYTES: u64 = 4 << 20;
/// Metadata keys.
pub const KEYS: u64 = 1 << 16;
/// Tensors.
pub const TENSORS: u64 = 1 << 20;
/// Length of a key or of a tensor's name, in bytes.
pub const NAME_BYTES: usize = 512;
/// Tokens of a vocabulary. The largest published ones have 262,000.
pub const TOKENS: usize = 1_000_000;
/// Axes of a tensor.
pub const AXES: u32 = 4;
/// Elements of a tensor.
pub const ELEMENTS: u64 = 1 << 40;
/// `general.alignment`.
pub const ALIGNMENT: u64 = 1 << 20;
