//! Tensors that a checkpoint saves: f32 on any device, f32 and bytes on the host.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use fsio::DirWriter;
use tensor_file::{SafetensorsWriter, StoredDtype, TensorSpec};

use crate::{Error, Result};

/// The values of a tensor to write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TensorValues<'a> {
    /// f32, flat, on any device.
    F32(&'a Tensor<1>),
    /// f32 on the host.
    HostF32(&'a [f32]),
    /// Bytes on the host.
    U8(&'a [u8]),
}

impl<'a> TensorValues<'a> {
    /// Bytes per element.
    pub(crate) fn element_bytes(self) -> u64 {
        self.dtype().n_bytes()
    }

    /// The tensor, unless the values are on the host.
    pub(crate) fn as_tensor(self) -> Option<&'a Tensor<1>> {
        match self {
            Self::F32(tensor) => Some(tensor),
            Self::HostF32(_) | Self::U8(_) => None,
        }
    }

    fn dtype(self) -> StoredDtype {
        match self {
            Self::F32(_) | Self::HostF32(_) => StoredDtype::F32,
            Self::U8(_) => StoredDtype::U8,
        }
    }

    fn write(self, name: &str, out: &mut SafetensorsWriter) -> tensor_file::Result<()> {
        match self {
            Self::F32(tensor) => {
                kernels::with_host_values(tensor, |values| out.values(name, values))
            }
            Self::HostF32(values) => out.values(name, values),
            Self::U8(bytes) => out.values(name, bytes),
        }
    }
}

/// Writes flat tensors under their names and shapes, in the given order.
pub(crate) fn write_tensors(
    dir: &mut DirWriter,
    file_name: &str,
    metadata: &BTreeMap<String, String>,
    tensors: &[(String, Vec<usize>, TensorValues<'_>)],
) -> Result<()> {
    let specs = tensors.iter().map(|(name, shape, values)| TensorSpec {
        name: name.clone(),
        shape: shape.clone(),
        dtype: values.dtype(),
    });
    let path = dir.final_dir().join(file_name);
    let mut file = dir.create(file_name)?;
    let write = || {
        let mut writer = SafetensorsWriter::begin(&mut file, metadata, specs.collect())?;
        for (name, _, values) in tensors {
            values.write(name, &mut writer)?;
        }
        writer.finish()
    };
    write().map_err(|error| {
        if let tensor_file::Error::Write { source } = error {
            return Error::File(fsio::Error::of_writer(source, &path));
        }
        error.into()
    })?;
    file.finish()?;
    Ok(())
}
