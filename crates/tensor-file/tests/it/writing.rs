//! Written files open in the reference implementation, and weights are rounded once.

use std::collections::BTreeMap;

use arch::Dtype;
use safetensors::SafeTensors;
use tensor_file::{SafetensorsWriter, StoredDtype, TensorFile, TensorSpec};

use crate::{temporary, write};

#[test]
fn the_reference_reader_opens_written_files() {
    let (_dir, path) = temporary("x.safetensors");
    let values: Vec<f32> = (0..12).map(|i| i as f32 / 3.0).collect();
    write(&path, &[("b", &[3, 4], &values), ("a", &[0], &[]), ("c", &[12], &values)], Dtype::F32);
    let bytes = std::fs::read(&path).expect("bytes");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert_eq!(file.len(), 3);
    for (name, shape) in [("b", vec![3, 4]), ("c", vec![12])] {
        let tensor = file.tensor(name).expect("a tensor");
        assert_eq!((tensor.shape(), tensor.dtype()), (shape.as_slice(), safetensors::Dtype::F32));
        let (words, _) = tensor.data().as_chunks::<4>();
        assert!(words.iter().map(|word| f32::from_le_bytes(*word)).eq(values.iter().copied()));
    }
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    assert_eq!(header.metadata().as_ref().expect("metadata")["format"], "pt");
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    assert_eq!(start % 8, 0);
}

#[test]
fn files_of_the_reference_writer_open() {
    let data: Vec<u8> = [3_i64, -4].iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![1, 2], &data);
    let metadata = [("made_by".to_owned(), "reference".to_owned())].into();
    let bytes = safetensors::serialize([("ids", view.expect("a view"))], Some(metadata));
    let (_dir, path) = temporary("x.safetensors");
    std::fs::write(&path, bytes.expect("bytes")).expect("a file");
    let file = TensorFile::open(&path).expect("the file");
    assert_eq!(file.metadata("made_by"), Some("reference"));
    let ids = file.tensor("ids").expect("a tensor");
    assert_eq!((ids.shape(), ids.dtype()), ([1, 2].as_slice(), Some(StoredDtype::I64)));
    assert_eq!(ids.values::<i64>().expect("values"), [3, -4]);
}

#[test]
fn rounding_is_to_the_nearest_even() {
    let (_dir, path) = temporary("x.safetensors");
    // Halfway between two bf16 values: down to the even one, then up to the even one.
    let values = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0 - 1.0 / 256.0];
    write(&path, &[("x", &[3], &values)], Dtype::Bf16);
    let got = TensorFile::open(&path).and_then(|file| file.tensor("x")?.weights());
    assert_eq!(got.expect("values"), [1.0, 1.015_625, -1.0]);
}

#[test]
fn weights_that_do_not_fit_are_not_written() {
    let write = |value: f32, dtype| {
        let mut bytes = Vec::new();
        let specs = [("x".to_owned(), vec![2])];
        let mut writer =
            SafetensorsWriter::begin_weights(&mut bytes, specs, dtype).expect("a header");
        writer.weights("x", &[0.0, value]).expect_err("an error").to_string()
    };
    assert_eq!(
        write(70_000.0, Dtype::F16),
        "tensor `x` holds 70000 at element 1, which f16 cannot hold"
    );
    assert_eq!(
        write(f32::MAX, Dtype::Bf16),
        "tensor `x` holds 340282350000000000000000000000000000000 at element 1, which bf16 cannot hold"
    );
    assert_eq!(
        write(f32::NAN, Dtype::F32),
        "tensor `x` holds NaN at element 1, which f32 cannot hold"
    );
}

/// The header is written first, so tensors must follow it exactly.
#[test]
fn tensors_out_of_order_are_errors() {
    let spec = |name: &str, dtype| TensorSpec { name: name.to_owned(), shape: vec![2], dtype };
    let write = |write: &dyn Fn(&mut SafetensorsWriter) -> tensor_file::Result<()>| {
        let mut bytes = Vec::new();
        let specs = vec![spec("a", StoredDtype::F32), spec("b", StoredDtype::U8)];
        let mut writer = SafetensorsWriter::begin(&mut bytes, &BTreeMap::new(), specs)?;
        write(&mut writer)?;
        writer.finish()
    };
    let good = write(&|out| {
        out.weights("a", &[1.0, 2.0])?;
        out.values("b", &[1_u8, 2])
    });
    good.expect("in order");
    let wrong: [&dyn Fn(&mut SafetensorsWriter) -> tensor_file::Result<()>; 5] = [
        &|out| out.values("b", &[1_u8, 2]),
        &|out| out.weights("a", &[1.0]),
        &|out| out.values("a", &[1_u8, 2]),
        &|out| out.weights("a", &[1.0, 2.0]),
        &|out| {
            out.weights("a", &[1.0, 2.0])?;
            out.weights("b", &[1.0, 2.0])
        },
    ];
    for (idx, case) in wrong.iter().enumerate() {
        let error = write(*case).expect_err("out of order");
        assert!(
            error.to_string().starts_with("tensors were written out of order: `"),
            "{idx}: {error}"
        );
    }
    let twice = vec![spec("a", StoredDtype::F32), spec("a", StoredDtype::F32)];
    assert!(SafetensorsWriter::begin(&mut Vec::new(), &BTreeMap::new(), twice).is_err());
}
