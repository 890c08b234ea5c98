//! Between burn's CPU tensors and plain slices.
//!
//! It deliberately hides layouts: fused bodies see row-major f32 values and nothing else.

use std::borrow::Cow;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

/// Row-major values: borrowed where they lie so already, copied where the tensor is a strided view.
///
/// # Panics
/// If the tensor is not f32; all training here is.
pub(crate) fn values(x: &FlexTensor) -> Cow<'_, [f32]> {
    assert_eq!(x.dtype(), DType::F32, "fused operations work on f32");
    match x.as_slice::<f32>() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(x.to_contiguous().storage::<f32>().to_vec()),
    }
}

/// A tensor of row-major values; takes the buffer, copies nothing.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// The tensor itself if its buffer holds its values and nothing else and nobody else holds it; else
/// a copy of which that is true.
pub(crate) fn own(x: FlexTensor) -> FlexTensor {
    let n = x.layout().num_elements();
    let whole = x.layout().contiguous_offsets() == Some((0, n))
        && x.dtype() == DType::F32
        && x.storage::<f32>().len() == n
        && x.is_unique();
    if whole {
        return x;
    }
    let shape = x.layout().shape().clone();
    tensor(values(&x).into_owned(), shape)
}
