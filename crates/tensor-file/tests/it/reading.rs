//! Tensors are read in the dtype of the file, or widened to f32.

use std::collections::BTreeMap;

use arch::Dtype;
use half::{bf16, f16};
use tensor_file::{SafetensorsWriter, StoredDtype, TensorFile, TensorSpec, TensorView};

use crate::{temporary, write};

#[test]
fn read_and_mapped_files_give_the_same_values() {
    let (_dir, path) = temporary("x.safetensors");
    // More elements than are converted at a time.
    let many: Vec<f32> = (0..600_000).map(|i| (i as f32).sin()).collect();
    for dtype in Dtype::ALL {
        write(&path, &[("many", &[600, 1000], &many), ("one", &[], &[0.5])], dtype);
        let (read, mapped) = (TensorFile::open(&path).unwrap(), TensorFile::map(&path).unwrap());
        let rounded = |value: &f32| match dtype {
            Dtype::F32 => *value,
            Dtype::Bf16 => bf16::from_f32(*value).to_f32(),
            Dtype::F16 => f16::from_f32(*value).to_f32(),
        };
        let want: Vec<f32> = many.iter().map(rounded).collect();
        for file in [&read, &mapped] {
            let tensor = file.tensor("many").unwrap();
            assert_eq!(tensor.weight_dtype().unwrap(), dtype);
            assert_eq!(tensor.n_bytes(), 600_000 * dtype.n_bytes());
            assert!(tensor.weights().unwrap() == want, "{dtype:?}");
            assert!(tensor.weights_equal(&want).unwrap());
            let mut other = want.clone();
            *other.last_mut().unwrap() += 1.0;
            assert!(!tensor.weights_equal(&other).unwrap());
            assert!(!tensor.weights_equal(&want[1..]).unwrap());
            assert_eq!(file.tensor("one").unwrap().weights().unwrap(), [0.5]);
        }
    }
}

/// Sixteen-bit weights, bytes and integers stay as they are stored.
#[test]
fn values_keep_the_dtype_of_the_file() {
    let (_dir, path) = temporary("x.safetensors");
    let spec = |name: &str, dtype| TensorSpec { name: name.to_owned(), shape: vec![2], dtype };
    let specs = vec![
        spec("f32", StoredDtype::F32),
        spec("bf16", StoredDtype::Bf16),
        spec("f16", StoredDtype::F16),
        spec("i64", StoredDtype::I64),
        spec("i8", StoredDtype::I8),
        spec("u8", StoredDtype::U8),
    ];
    let metadata = BTreeMap::from([("kind".to_owned(), "test".to_owned())]);
    let mut bytes = Vec::new();
    let mut writer = SafetensorsWriter::begin(&mut bytes, &metadata, specs).unwrap();
    // Without conversion, values that no weight may have are kept too.
    writer.values("f32", &[f32::INFINITY, -0.0]).unwrap();
    writer.values("bf16", &[bf16::from_f32(1.5), bf16::MIN]).unwrap();
    writer.values("f16", &[f16::from_f32(0.25), f16::MAX]).unwrap();
    writer.values("i64", &[i64::MIN, 7]).unwrap();
    writer.values("i8", &[-128_i8, 127]).unwrap();
    writer.values("u8", &[0_u8, 255]).unwrap();
    writer.finish().unwrap();
    std::fs::write(&path, bytes).unwrap();

    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata("kind"), Some("test"));
    assert_eq!(file.metadata("format"), None);
    let names: Vec<&str> = file.tensors().map(TensorView::name).collect();
    assert_eq!(names, ["f32", "bf16", "f16", "i64", "i8", "u8"]);
    let bits: Vec<u32> =
        file.tensor("f32").unwrap().values().unwrap().into_iter().map(f32::to_bits).collect();
    assert_eq!(bits, [f32::INFINITY.to_bits(), (-0.0_f32).to_bits()]);
    assert_eq!(file.tensor("bf16").unwrap().values::<bf16>().unwrap()[0].to_f32(), 1.5);
    assert_eq!(file.tensor("f16").unwrap().values::<f16>().unwrap()[1], f16::MAX);
    assert_eq!(file.tensor("i64").unwrap().values::<i64>().unwrap(), [i64::MIN, 7]);
    assert_eq!(file.tensor("i8").unwrap().values::<i8>().unwrap(), [-128, 127]);
    assert_eq!(file.tensor("u8").unwrap().values::<u8>().unwrap(), [0, 255]);

    let mut middle = [0; 3];
    file.tensor("bf16").unwrap().read_bytes(1, &mut middle).unwrap();
    let [low, high] = bf16::from_f32(1.5).to_le_bytes();
    assert_ne!(low, high);
    assert_eq!(middle[0], high);
    assert!(file.tensor("bf16").unwrap().read_bytes(2, &mut middle).is_err(), "past the tensor");
}

#[test]
fn a_tensor_that_is_not_as_expected_is_named() {
    let (dir, path) = temporary("x.safetensors");
    write(&path, &[("x", &[2, 3], &[0.0; 6])], Dtype::F32);
    let file = TensorFile::open(&path).unwrap();
    let error = |result: tensor_file::Result<()>| {
        let error = result.expect_err("an error");
        assert!(error.hint().is_some(), "{error}");
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    let view = file.tensor("x").unwrap();
    assert_eq!(error(file.tensor("y").map(drop)), "x.safetensors: tensor missing: `y`");
    assert_eq!(
        error(view.with_shape(&[3, 2]).map(drop)),
        "x.safetensors: tensor `x` has shape [2, 3], not [3, 2]"
    );
    assert_eq!(
        error(view.values::<i64>().map(drop)),
        "x.safetensors: tensor `x` is stored as `F32`, not I64"
    );
    let missing = dir.path().join("y.safetensors");
    assert!(error(TensorFile::open(&missing).map(drop)).contains("cannot read"));
    assert_eq!(
        error(TensorFile::open(dir.path()).map(drop)).matches("not a regular file").count(),
        1
    );
}
