//! Device names of recipes and the command line → burn devices.
//!
//! It deliberately chooses nothing by itself: a run says where it computes.

use burn::tensor::Device;

use crate::{Error, Result};

/// The device called `name`: `cpu`; `cuda` and `cuda:N` are refused in builds without CUDA.
///
/// The device has no autodiff; add it with [`Device::autodiff`].
pub fn device(name: &str) -> Result<Device> {
    match name.split_once(':') {
        None if name == "cpu" => Ok(Device::flex()),
        None if name == "cuda" => Err(Error::NoCuda(name.to_owned())),
        Some(("cuda", index)) if index.parse::<usize>().is_ok() => {
            Err(Error::NoCuda(name.to_owned()))
        }
        _ => Err(Error::UnknownDevice(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::device;

    #[test]
    fn names() {
        assert!(device("cpu").is_ok());
        for (name, message) in [
            ("cuda", "this binary was built without CUDA: `cuda`"),
            ("cuda:1", "this binary was built without CUDA: `cuda:1`"),
            ("cuda:x", "unknown device: `cuda:x`"),
            ("gpu", "unknown device: `gpu`"),
            ("cpu:0", "unknown device: `cpu:0`"),
        ] {
            let error = device(name).expect_err(name);
            assert_eq!(error.to_string(), message);
            assert!(error.hint().is_some());
        }
    }
}
