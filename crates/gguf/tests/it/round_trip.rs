//! Files that are written and read again.

use gguf::{Array, GgufFile, GgufWriter, TensorSpec, TensorType, Value};

use crate::support::{Vectors, file};

fn every_kind_of_value() -> Vec<(String, Value)> {
    let values = [
        Value::U8(7),
        Value::I8(-7),
        Value::U16(700),
        Value::I16(-700),
        Value::U32(70_000),
        Value::I32(-70_000),
        Value::F32(1e-5),
        Value::Bool(true),
        Value::string("Ünï\n"),
        Value::U64(1 << 40),
        Value::I64(-(1 << 40)),
        Value::F64(0.1),
        Value::strings(["a", "", "日本"]),
        Value::Array(Array::U8(vec![1, 2])),
        Value::Array(Array::I8(vec![-1])),
        Value::Array(Array::U16(vec![3])),
        Value::Array(Array::I16(vec![-3])),
        Value::Array(Array::U32(vec![4])),
        Value::Array(Array::I32(vec![-4, 5])),
        Value::Array(Array::F32(vec![0.5])),
        Value::Array(Array::Bool(vec![true, false])),
        Value::Array(Array::U64(vec![6])),
        Value::Array(Array::I64(vec![-6])),
        Value::Array(Array::F64(vec![0.25])),
        Value::Array(Array::F32(Vec::new())),
    ];
    values.into_iter().enumerate().map(|(idx, value)| (format!("test.{idx}"), value)).collect()
}

#[test]
fn metadata_and_tensors_survive() {
    let x = Vectors::open("ggml.safetensors").floats("x");
    let spec = |name: &str, shape: &[usize], ty| TensorSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
        ty,
    };
    let n_rows = x.len() / 256;
    let specs = vec![
        spec("a", &[3], TensorType::F32),
        spec("b.weight", &[n_rows, 256], TensorType::Q4K),
        spec("c", &[2, 3, 32], TensorType::Q8_0),
        spec("d", &[1, 5], TensorType::F16),
    ];
    let metadata = every_kind_of_value();
    let data = [&x[..3], &x[..], &x[..192], &x[10..15]];
    let mut bytes = Vec::new();
    let mut writer = GgufWriter::begin(&mut bytes, &metadata, specs.clone()).unwrap();
    for (spec, values) in specs.iter().zip(data) {
        writer.tensor(&spec.name, values).unwrap();
    }
    writer.finish().unwrap();

    let (_dir, path) = file(&bytes);
    let opened = GgufFile::open(&path).unwrap();
    assert_eq!(opened.metadata().pairs(), metadata);
    for (spec, values) in specs.iter().zip(data) {
        let info = opened.tensor(&spec.name).unwrap();
        assert_eq!((&info.shape, info.ty), (&spec.shape, spec.ty));
        let expected = gguf::quantize(spec.ty, values).unwrap();
        assert_eq!(opened.read_bytes(&spec.name).unwrap(), expected, "{}", spec.name);
    }
    assert_eq!(opened.read("a").unwrap(), &x[..3]);
    let whole = opened.read("b.weight").unwrap();
    assert_eq!(opened.read_part("b.weight", 512, 256).unwrap(), &whole[512..768]);
    opened.read_part("b.weight", 100, 256).unwrap_err();
    opened.read_part("b.weight", whole.len(), 256).unwrap_err();
    assert_eq!(
        opened.read("e").unwrap_err().to_string().split(": ").last(),
        Some("missing tensor `e`")
    );
}

#[test]
fn floats_have_their_shortest_form() {
    assert_eq!(Value::F32(1e-5).as_f64(), Some(1e-5));
    assert_eq!(Value::F32(0.1).as_f64(), Some(0.1));
    assert_eq!(Value::F64(0.1).as_f64(), Some(0.1));
    assert_eq!(Value::U32(3).as_f64(), Some(3.0));
    assert_eq!(Value::I32(-3).as_u64(), None);
}

#[test]
fn the_writer_holds_to_its_table() {
    let spec = TensorSpec { name: "a".to_owned(), shape: vec![2], ty: TensorType::F16 };
    let mut bytes = Vec::new();
    let mut writer = GgufWriter::begin(&mut bytes, &[], vec![spec.clone()]).unwrap();
    writer.tensor("b", &[0.0; 2]).unwrap_err();
    let mut writer = GgufWriter::begin(&mut bytes, &[], vec![spec.clone()]).unwrap();
    writer.tensor("a", &[0.0; 3]).unwrap_err();
    let mut writer = GgufWriter::begin(&mut bytes, &[], vec![spec.clone()]).unwrap();
    let error = writer.tensor("a", &[0.0, 1e6]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot be written as GGUF: `a` contains `1000000` at index 1, which F16 cannot hold"
    );
    let writer = GgufWriter::begin(&mut bytes, &[], vec![spec]).unwrap();
    writer.finish().unwrap_err();
    let uneven = TensorSpec { name: "u".to_owned(), shape: vec![4, 40], ty: TensorType::Q8_0 };
    assert!(GgufWriter::begin(&mut bytes, &[], vec![uneven]).is_err());
}
