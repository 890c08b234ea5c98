//! Converts between burn's CPU tensors and row-major slices of f32.

use std::borrow::Cow;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

/// The values in row-major order: borrowed if the tensor is contiguous, copied if it is a strided view.
///
/// # Panics
/// If the tensor is not f32.
pub(crate) fn values(x: &FlexTensor) -> Cow<'_, [f32]> {
    assert_eq!(x.dtype(), DType::F32, "CPU kernels work on f32");
    match x.as_slice::<f32>() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(x.to_contiguous().storage::<f32>().to_vec()),
    }
}

/// A tensor of row-major values; takes the buffer without a copy.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// The tensor itself if its buffer holds exactly its values and has no other owner, otherwise a copy.
pub(crate) fn own(x: FlexTensor) -> FlexTensor {
    if is_dense(&x) && x.is_unique() {
        return x;
    }
    copied(&x)
}

/// Replaces the tensor by a copy unless its buffer holds exactly its values.
pub(crate) fn make_dense(x: &mut FlexTensor) {
    if !is_dense(x) {
        *x = copied(x);
    }
}

fn is_dense(x: &FlexTensor) -> bool {
    let n = x.layout().num_elements();
    x.layout().contiguous_offsets() == Some((0, n))
        && x.dtype() == DType::F32
        && x.storage::<f32>().len() == n
}

fn copied(x: &FlexTensor) -> FlexTensor {
    let shape = x.layout().shape().clone();
    tensor(values(x).into_owned(), shape)
}
