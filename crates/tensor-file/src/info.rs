//! A tensor as its file's header describes it.

use crate::StoredDtype;

/// Name, shape, dtype and location of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// The name of its dtype in the file.
    pub(crate) stored_as: String,
    /// Its first byte, from the start of the file.
    pub(crate) start: u64,
    /// The byte after its last one.
    pub(crate) end: u64,
}

impl TensorInfo {
    /// The dtype, if it is a known one.
    pub(crate) fn dtype(&self) -> Option<StoredDtype> {
        StoredDtype::from_name(&self.stored_as)
    }
}
