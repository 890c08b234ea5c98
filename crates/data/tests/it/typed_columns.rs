//! Columns of parquet and Arrow files whose types or names JSON does not have.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float16Array, Float32Array, Float64Array, ListArray, MapBuilder, RecordBatch,
    StringArray, StringBuilder, StructArray, TimestampSecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Fields, Float16Type, Schema};
use data::{BytesRead, read_rows};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::support::{file, folder, shown};

type Float16 = <Float16Type as ArrowPrimitiveType>::Native;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The batch in both formats.
fn files(batch: &RecordBatch) -> [(&'static str, Vec<u8>); 2] {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    let mut stream =
        arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(batch).unwrap();
    [("x.parquet", bytes), ("x.arrow", stream.into_inner().unwrap())]
}

/// Rows of a file, or its first error with the hint.
fn rows(path: &Path, needed: Option<&[String]>) -> Result<Vec<Value>, String> {
    let folder = format!("{}/", path.parent().unwrap().display());
    let rows = read_rows(path, None, needed, &BytesRead::default());
    let rows = rows.and_then(|rows| {
        rows.map(|row| Ok(Value::Object(row?.columns))).collect::<data::Result<Vec<_>>>()
    });
    rows.map_err(|error| shown(&error).replace(&folder, ""))
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

/// A list of one message per row, with fields of these names.
fn messages(names: &[&str]) -> ArrayRef {
    let fields: Fields =
        names.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, true))).collect();
    let columns = names.iter().map(|name| texts(&[name, name])).collect();
    let objects = StructArray::new(fields, columns, None);
    let item = Arc::new(Field::new("element", objects.data_type().clone(), true));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([1, 1]), Arc::new(objects), None))
}

#[test]
fn a_name_of_two_columns_is_refused() {
    let folder = folder();
    let top = batch(vec![("text", texts(&["a"])), ("n", texts(&["1"])), ("text", texts(&["b"]))]);
    let inner = batch(vec![("messages", messages(&["role", "content", "content"]))]);
    for (columns, name) in [(top, "text"), (inner, "messages.content")] {
        for (file_name, bytes) in files(&columns) {
            let path = file(folder.path(), file_name, bytes);
            let said = format!(
                "{file_name}: the schema has a column twice: `{name}`\n  \
                 hint: write the file again with one of the two renamed or left out"
            );
            assert_eq!(rows(&path, None).unwrap_err(), said);
            // As in CSV, also if the stage needs another column.
            assert_eq!(rows(&path, Some(&["n".to_owned()])).unwrap_err(), said);
        }
    }
    // One name in two objects is no repetition.
    let fine = batch(vec![
        ("content", texts(&["a", "b"])),
        ("messages", messages(&["role", "content"])),
        ("more", messages(&["role", "content"])),
    ]);
    for (file_name, bytes) in files(&fine) {
        assert_eq!(rows(&file(folder.path(), file_name, bytes), None).unwrap().len(), 2);
    }
    let csv = file(folder.path(), "x.csv", "text,text\na,b\n");
    insta::assert_snapshot!(rows(&csv, None).unwrap_err(), @"
    x.csv: the header has a column twice: `text`
      hint: write the file again with one of the two renamed or left out
    ");
}

#[test]
fn floats_become_their_shortest_text() {
    let folder = folder();
    let of_32: Vec<f32> =
        vec![0.1, 1e-30, 3.4e38, -2.5, 7.0, 16_777_216.0, -0.0, f32::MIN_POSITIVE];
    let of_16 = [0.1, 6e-8, 65504.0, -2.5, 7.0, 2047.0, -0.0, 1.0 / 3.0].map(Float16::from_f64);
    let of_64 = vec![0.1, f64::from(0.1_f32), 1e-30, -2.5, 7.0, 1e300, -0.0, 1.0 / 3.0];
    let columns = batch(vec![
        ("f32", Arc::new(Float32Array::from(of_32)) as ArrayRef),
        ("f16", Arc::new(Float16Array::from(of_16.to_vec()))),
        ("f64", Arc::new(Float64Array::from(of_64))),
    ]);
    let expected = [
        json!({"f32": 0.1, "f16": 0.1, "f64": 0.1}),
        json!({"f32": 1e-30, "f16": 6e-8, "f64": 0.100_000_001_490_116_12}),
        json!({"f32": 3.4e38, "f16": 65500.0, "f64": 1e-30}),
        json!({"f32": -2.5, "f16": -2.5, "f64": -2.5}),
        json!({"f32": 7.0, "f16": 7.0, "f64": 7.0}),
        json!({"f32": 16_777_216.0, "f16": 2047.0, "f64": 1e300}),
        json!({"f32": -0.0, "f16": -0.0, "f64": -0.0}),
        json!({"f32": 1.175_494_4e-38, "f16": 0.3333, "f64": 1.0 / 3.0}),
    ];
    for (file_name, bytes) in files(&columns) {
        let rows = rows(&file(folder.path(), file_name, bytes), None).unwrap();
        for (row, numbers) in rows.iter().zip(&expected) {
            assert_eq!(row.to_string(), numbers.to_string(), "{file_name}");
        }
        assert_eq!(rows.len(), expected.len());
    }
}

#[test]
fn texts_of_floats_read_back_to_the_value() {
    let folder = folder();
    let mut rng = seed::Rng::new(3);
    let halves: Vec<Float16> =
        (0..=u16::MAX).map(Float16::from_bits).filter(|value| value.is_finite()).collect();
    let singles: Vec<f32> = std::iter::repeat_with(|| f32::from_bits(rng.below(1 << 32) as u32))
        .filter(|value| value.is_finite())
        .take(halves.len())
        .collect();
    let columns = batch(vec![
        ("f16", Arc::new(Float16Array::from(halves.clone())) as ArrayRef),
        ("f32", Arc::new(Float32Array::from(singles.clone()))),
    ]);
    let [_, (name, bytes)] = files(&columns);
    let rows = rows(&file(folder.path(), name, bytes), None).unwrap();
    assert_eq!(rows.len(), halves.len());
    for ((row, half), single) in rows.iter().zip(halves).zip(singles) {
        let text = |column: &str| row[column].to_string();
        assert_eq!(Float16::from_f64(text("f16").parse().unwrap()).to_bits(), half.to_bits());
        assert_eq!(text("f32").parse::<f32>().unwrap().to_bits(), single.to_bits());
        // A margin is an f32: it is the column's.
        assert_eq!((row["f32"].as_f64().unwrap() as f32).to_bits(), single.to_bits());
    }
}

#[test]
fn a_key_that_a_map_has_twice_is_an_error_of_its_row() {
    let folder = folder();
    let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for keys in [["a", "b"], ["c", "c"]] {
        for key in keys {
            maps.keys().append_value(key);
            maps.values().append_value("x");
        }
        maps.append(true).unwrap();
    }
    let columns =
        batch(vec![("m", Arc::new(maps.finish()) as ArrayRef), ("t", texts(&["1", "2"]))]);
    for (file_name, bytes) in files(&columns) {
        let path = file(folder.path(), file_name, bytes);
        let error = rows(&path, Some(&["m".to_owned()])).unwrap_err();
        assert!(
            error.starts_with(&format!(
                "{file_name}:2: column `m` has a map with the key `c` twice"
            )) || error.contains("row 2")
                && error.contains("column `m` has a map with the key `c` twice"),
            "{error}"
        );
        assert_eq!(rows(&path, Some(&["t".to_owned()])).unwrap().len(), 2);
        let found = rows(&path, None).unwrap();
        assert_eq!(
            found,
            [json!({"m": {"a": "x", "b": "x"}, "t": "1"}), json!({"m": null, "t": "2"})]
        );
    }
}

#[test]
fn times_of_named_zones_are_refused_by_that_name() {
    let folder = folder();
    let time = |zone: &str| -> ArrayRef {
        Arc::new(TimestampSecondArray::from(vec![0]).with_timezone(zone))
    };
    for (file_name, bytes) in
        files(&batch(vec![("named", time("Europe/Berlin")), ("offset", time("+01:00"))]))
    {
        let path = file(folder.path(), file_name, bytes);
        let error = rows(&path, Some(&["named".to_owned()])).unwrap_err();
        assert!(
            error.contains("column `named` is a time with a named zone instead of an offset"),
            "{error}"
        );
        let found = rows(&path, Some(&["offset".to_owned()]));
        assert_eq!(found.unwrap()[0]["offset"], "1970-01-01T01:00:00+01:00");
    }
}
