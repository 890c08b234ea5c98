//! The same rows from every format, plain and compressed, with locations.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use data::{BytesRead, SourceSpec, expand, read_rows, resolve};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::ParquetMetaDataWriter;
use parquet::file::properties::WriterProperties;

use crate::support::{file, folder, gzip, shared_data, shown, zstd};

fn batch() -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a \"b\""), Some("ü\nx"), None]));
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, -2, 3]));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), Some(2)]),
        Some(vec![]),
        None,
    ]));
    let fields = vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("label", DataType::Int64, true),
        Field::new("list", lists.data_type().clone(), true),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![texts, labels, lists]).unwrap()
}

pub(crate) fn parquet_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch().schema(), None).unwrap();
    writer.write(&batch()).unwrap();
    writer.flush().unwrap();
    writer.write(&batch()).unwrap();
    writer.close().unwrap();
    bytes
}

pub(crate) fn arrow_stream() -> Vec<u8> {
    let schema = batch().schema();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&batch()).unwrap();
    writer.write(&batch()).unwrap();
    writer.into_inner().unwrap()
}

pub(crate) fn arrow_file(compressed: bool) -> Vec<u8> {
    let schema = batch().schema();
    let codec = compressed.then_some(arrow::ipc::CompressionType::ZSTD);
    let options =
        arrow::ipc::writer::IpcWriteOptions::default().try_with_compression(codec).unwrap();
    let mut writer =
        arrow::ipc::writer::FileWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    writer.write(&batch()).unwrap();
    writer.write(&batch()).unwrap();
    writer.into_inner().unwrap()
}

/// Rows as lines of `location json`, without the directory.
fn read(path: &Path) -> String {
    let rows = match read_rows(path, None, None, &BytesRead::default()) {
        Ok(rows) => rows,
        Err(error) => return shown(&error),
    };
    let folder = format!("{}/", path.parent().unwrap().display());
    let lines = rows.map(|row| match row {
        Ok(row) => format!("{} {}", row.location, serde_json::Value::Object(row.columns)),
        Err(error) => shown(&error),
    });
    lines.collect::<Vec<_>>().join("\n").replace(&folder, "")
}

/// Reads the bytes plain, gzipped and as Zstandard; all three must agree.
fn read_packed(name: &str, bytes: &[u8]) -> String {
    let folder = folder();
    let plain = read(&file(folder.path(), name, bytes));
    for (ending, packed) in [("gz", gzip(bytes)), ("zst", zstd(bytes))] {
        let packed = read(&file(folder.path(), &format!("{name}.{ending}"), packed));
        assert_eq!(packed.replace(&format!("{name}.{ending}"), name), plain);
    }
    plain
}

#[test]
fn json_lines() {
    let rows =
        "{\"text\": \"a\"}\n\n  \r\n{\"text\": \"ü\", \"n\": [1, {\"x\": null}]}\r\n{\"b\": 2}";
    insta::assert_snapshot!(read_packed("rows.jsonl", rows.as_bytes()), @r#"
    rows.jsonl:1 {"text":"a"}
    rows.jsonl:4 {"text":"ü","n":[1,{"x":null}]}
    rows.jsonl:5 {"b":2}
    "#);
}

#[test]
fn json_array() {
    let rows =
        "\u{feff}[\n  {\"text\": \"a]\\\"}\"},\n  {\n    \"text\": \"b\"\n  } ,{\"n\":1}\n]\n";
    insta::assert_snapshot!(read_packed("rows.json", rows.as_bytes()), @r#"
    rows.json:2 {"text":"a]\"}"}
    rows.json:3 {"text":"b"}
    rows.json:5 {"n":1}
    "#);
}

#[test]
fn concatenated_json_objects() {
    let rows = "{\"a\": 1}\n{\n\"a\": 2}{\"a\":3}";
    insta::assert_snapshot!(read_packed("rows.json", rows.as_bytes()), @r#"
    rows.json:1 {"a":1}
    rows.json:2 {"a":2}
    rows.json:3 {"a":3}
    "#);
}

/// A quote that is never closed has all following rows in it; so has the last one of a file that was cut off.
#[test]
fn quotes_that_are_never_closed_are_named() {
    let shown = |text: &str| read_packed("rows.csv", text.as_bytes());
    let unclosed = "a quoted field that does not end";
    for (text, line) in [
        ("text\none\n\n\"a stray quote\nthree\nfour\n", 4),
        ("text,label\none,1\n\"cut o", 3),
        ("text\r\none\r\n\"two\r\nthree\r\n", 3),
    ] {
        let said = shown(text);
        assert!(said.starts_with("rows.csv:2 "), "{said}");
        assert!(said.contains(&format!("rows.csv:{line}: {unclosed}")), "{said}");
    }
    let said = shown("\"text\none\n");
    assert!(said.contains(&format!("its header has {unclosed}")), "{said}");
    let joined = read_packed("rows.tsv", b"prompt\tcompletion\na\tb\n\"a\tb\n\"a\tb\nlast\trow");
    let said: Vec<&str> = joined.lines().filter(|line| line.starts_with("rows.tsv")).collect();
    assert_eq!(
        said,
        [
            "rows.tsv:2 {\"prompt\":\"a\",\"completion\":\"b\"}",
            "rows.tsv:3: text behind a closing quote: the row may be two, joined by stray quotes",
            "rows.tsv:5 {\"prompt\":\"last\",\"completion\":\"row\"}"
        ]
    );
    assert!(shown("\n\n").contains("file is empty"));
    for (text, rows) in [
        ("text\r\none\r\n\"two\"\r\n", &["2 {\"text\":\"one\"}", "3 {\"text\":\"two\"}"][..]),
        ("text\n\"no line break\"", &["2 {\"text\":\"no line break\"}"]),
        ("text\n\"a \"\"quote\"\"\"", &["2 {\"text\":\"a \\\"quote\\\"\"}"]),
        ("text\n.\n.", &["2 {\"text\":\".\"}", "3 {\"text\":\".\"}"]),
    ] {
        let rows: Vec<String> = rows.iter().map(|row| format!("rows.csv:{row}")).collect();
        assert_eq!(shown(text).lines().collect::<Vec<_>>(), rows, "{text:?}");
    }
}

#[test]
fn csv_and_tsv() {
    let rows = "\u{feff}\"text\",label\n\"a, \"\"b\"\"\",1\n\"two\nlines\",2\n\nc,\n";
    insta::assert_snapshot!(read_packed("rows.csv", rows.as_bytes()), @r#"
    rows.csv:2 {"text":"a, \"b\"","label":"1"}
    rows.csv:3 {"text":"two\nlines","label":"2"}
    rows.csv:6 {"text":"c","label":""}
    "#);
    insta::assert_snapshot!(read_packed("rows.tsv", b"text\tlabel\na, b\t1\n"), @r#"rows.tsv:2 {"text":"a, b","label":"1"}"#);
}

#[test]
fn text_lines() {
    insta::assert_snapshot!(read_packed("rows.txt", "a\n\n b\r\nü".as_bytes()), @r#"
    rows.txt:1 {"text":"a"}
    rows.txt:3 {"text":" b"}
    rows.txt:4 {"text":"ü"}
    "#);
}

#[test]
fn parquet() {
    insta::assert_snapshot!(read_packed("rows.parquet", &parquet_bytes()), @r#"
    rows.parquet: row 1 {"text":"a \"b\"","label":1,"list":[1,2]}
    rows.parquet: row 2 {"text":"ü\nx","label":-2,"list":[]}
    rows.parquet: row 3 {"text":null,"label":3,"list":null}
    rows.parquet: row 4 {"text":"a \"b\"","label":1,"list":[1,2]}
    rows.parquet: row 5 {"text":"ü\nx","label":-2,"list":[]}
    rows.parquet: row 6 {"text":null,"label":3,"list":null}
    "#);
}

#[test]
pub(crate) fn arrow_streams_and_files() {
    let stream = read_packed("rows.arrow", &arrow_stream());
    insta::assert_snapshot!(stream, @r#"
    rows.arrow: row 1 {"text":"a \"b\"","label":1,"list":[1,2]}
    rows.arrow: row 2 {"text":"ü\nx","label":-2,"list":[]}
    rows.arrow: row 3 {"text":null,"label":3,"list":null}
    rows.arrow: row 4 {"text":"a \"b\"","label":1,"list":[1,2]}
    rows.arrow: row 5 {"text":"ü\nx","label":-2,"list":[]}
    rows.arrow: row 6 {"text":null,"label":3,"list":null}
    "#);
    assert_eq!(read_packed("rows.arrow", &arrow_file(false)), stream);
    assert_eq!(read_packed("rows.arrow", &arrow_file(true)), stream);
}

#[test]
fn only_needed_columns_are_decoded() {
    let folder = folder();
    for (name, bytes) in [("rows.parquet", parquet_bytes()), ("rows.arrow", arrow_stream())] {
        let path = file(folder.path(), name, bytes);
        let needed = ["label".to_owned()];
        let rows = read_rows(&path, None, Some(&needed), &BytesRead::default()).unwrap();
        let rows: Vec<_> = rows.map(|row| row.unwrap().columns).collect();
        assert_eq!(rows.len(), 6);
        assert!(rows.iter().all(|row| row.len() == 1 && row.contains_key("label")));
    }
}

#[test]
fn paths_resolve_and_expand_in_one_order() {
    let folder = folder();
    let root = folder.path();
    for name in ["data/b.jsonl", "data/a/z.jsonl.gz", "data/.hidden.jsonl", "data/readme.md"] {
        file(root, name, "{}");
    }
    let show = |found: data::Result<data::SourceFiles>| match found {
        Ok(files) => {
            let names = files.iter().map(|f| f.strip_prefix(root).unwrap().display().to_string());
            names.collect::<Vec<_>>().join(" ")
        }
        Err(error) => shown(&error).replace(&root.display().to_string(), "DIR"),
    };
    let recipe_dir = root.join("recipes");
    let data_dir = root.join("data");
    let find = |path: &str| {
        show(resolve(path, &recipe_dir, &data_dir).and_then(|path| expand(&path, None, None)))
    };
    assert_eq!(find("../data"), "data/a/z.jsonl.gz data/b.jsonl");
    assert_eq!(find("data:b.jsonl"), "data/b.jsonl");
    assert_eq!(find("data:**/*.jsonl*"), "data/a/z.jsonl.gz data/b.jsonl");
    insta::assert_snapshot!(find("data:../x"), @"
    a `data:` path must stay under the data directory: `data:../x`
      hint: name a file, a directory or a pattern, relative to the recipe
    ");
    insta::assert_snapshot!(find("data:c.jsonl"), @"
    no such file or directory: `DIR/data/c.jsonl`
      hint: relative paths start at the recipe's directory, `data:` paths at the data directory (--data-dir, TEMPER_DATA, `data_dir`)
    ");
    insta::assert_snapshot!(find("data:*.csv"), @"
    no file matches: `DIR/data/*.csv`
      hint: `*` matches within one directory, `**` across directories
    ");
    insta::assert_snapshot!(find("data:*"), @"
    DIR/data/readme.md: unknown format
      hint: known endings: .txt, .text, .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .ipc, .feather, each also with .gz or .zst; otherwise set `format` in the source
    ");
    file(root, "data/c.csv", "a\n1\n");
    insta::assert_snapshot!(find("../data"), @"
    DIR/data: files of several formats in this directory: csv, jsonl
      hint: choose one with `format` in the source
    ");
}

/// Files of other writers: each is read to its end or rejected with a reason.
#[test]
fn foreign_parquet_files() {
    let Some(data) = shared_data() else {
        println!("skipped: no shared data");
        return;
    };
    let conformance = data.join("conformance/parquet");
    let schemas: serde_json::Value =
        serde_json::from_slice(&std::fs::read(conformance.join("schemas.json")).unwrap()).unwrap();
    let mut refused = Vec::new();
    let mut n_read = 0;
    for path in &expand(&conformance.join("data"), Some(recipe::Format::Parquet), None).unwrap() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let rows = read_rows(path, None, None, &BytesRead::default());
        let rows: data::Result<Vec<_>> = rows.and_then(Iterator::collect);
        match rows {
            Ok(rows) => {
                n_read += 1;
                let expected = &schemas[&name];
                let expected = expected.get("rows").or(expected.get("num_rows"));
                assert_eq!(Some(rows.len() as u64), expected.and_then(serde_json::Value::as_u64));
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    for path in &expand(&conformance.join("bad_data"), Some(recipe::Format::Parquet), None).unwrap()
    {
        let rows = read_rows(path, None, None, &BytesRead::default());
        let error = rows.and_then(Iterator::collect::<data::Result<Vec<_>>>).unwrap_err();
        refused.push(error.to_string());
    }
    let folder = format!("{}/", conformance.display());
    let refused = refused.join("\n").replace(&folder, "");
    // The footer of the first has a list under the number of a field that is an integer in the specification.
    insta::assert_snapshot!(refused, @"
    data/datapage_v1-corrupt-checksum.parquet: damaged parquet file: Page CRC checksum mismatch
    data/dict-page-offset-zero.parquet: damaged parquet file: Expected list element type of I64 but got I16
    bad_data/ARROW-GH-41317.parquet: damaged parquet file: Expected list element type of I32 but got I16
    bad_data/ARROW-GH-41321.parquet: damaged parquet file: a page header is truncated
    bad_data/ARROW-GH-47662.parquet: damaged parquet file: Invalid FIXED_LEN_BYTE_ARRAY PLAIN data page payload length: expected 400 bytes (100 values of 4 bytes), got 364
    bad_data/ARROW-RS-GH-6229-DICTHEADER.parquet: damaged parquet file: a page is outside of its column
    bad_data/PARQUET-1481.parquet: damaged parquet file: Unexpected Type -7
    ");
    assert_eq!(n_read, 40);
}

/// The values of delta-encoded files equal those of the CSV files beside them.
#[test]
fn values_of_foreign_parquet_files() {
    let Some(data) = shared_data() else {
        println!("skipped: no shared data");
        return;
    };
    let folder = data.join("conformance/parquet/data");
    let rows = |path: &Path| -> Vec<Vec<String>> {
        let rows = read_rows(path, None, None, &BytesRead::default()).unwrap();
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => value.to_string(),
        };
        rows.map(|row| row.unwrap().columns.values().map(text).collect()).collect()
    };
    let mut n_files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix("_expect.csv") else { continue };
        let found = rows(&folder.join(format!("{name}.parquet")));
        let expected = rows(&path);
        assert!(found.len() > 50, "{name}: {} rows", found.len());
        assert_eq!(found, expected, "{name}");
        n_files += 1;
    }
    assert_eq!(n_files, 4);
}

/// Some writers store 0 as the offset of a dictionary page that a column does not have.
#[test]
fn a_dictionary_page_at_offset_zero_is_none() {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 9]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("text", texts)]).unwrap();
    let properties = WriterProperties::builder().set_column_dictionary_enabled("id".into(), false);
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    let metadata = writer.close().unwrap();
    let mut builder = metadata.into_builder();
    for group in builder.take_row_groups() {
        let mut group = group.into_builder();
        for column in group.take_columns() {
            let has_none = column.dictionary_page_offset().is_none();
            let offset = if has_none { Some(0) } else { column.dictionary_page_offset() };
            let column = column.into_builder().set_dictionary_page_offset(offset).build().unwrap();
            group = group.add_column_metadata(column);
        }
        builder = builder.add_row_group(group.build().unwrap());
    }
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    bytes.truncate(bytes.len() - 8 - footer);
    ParquetMetaDataWriter::new(&mut bytes, &builder.build()).finish().unwrap();
    let folder = folder();
    let path = file(folder.path(), "zero.parquet", bytes);
    let rows = read_rows(&path, None, None, &BytesRead::default()).unwrap();
    let rows: Vec<serde_json::Value> =
        rows.map(|row| serde_json::to_value(&row.unwrap().columns).unwrap()).collect();
    let row = |id: u32, text: &str| serde_json::json!({ "id": id, "text": text });
    assert_eq!(rows, [row(7, "a"), row(8, "b"), row(9, "a")]);
}

#[test]
fn the_json_test_suite() {
    let Some(data) = shared_data() else {
        println!("skipped: no shared data");
        return;
    };
    let suite = data.join("conformance/json-test-suite/test_parsing");
    let folder = folder();
    for entry in std::fs::read_dir(suite).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(&path).unwrap();
        // As an element of an array, so that the result depends on the value alone.
        let whole = [b"[{\"v\":".as_slice(), &bytes, b"}]"].concat();
        let spec = SourceSpec::file(file(folder.path(), "case.json", whole));
        let rows = read_rows(&spec.files[0], None, None, &BytesRead::default());
        let rows: data::Result<Vec<_>> = rows.and_then(Iterator::collect);
        // A key that occurs twice is valid JSON, of which one value would be lost.
        if name.starts_with("y_object_duplicated_key") {
            assert!(rows.is_err(), "{name}");
        } else if name.starts_with("y_") {
            assert!(rows.is_ok(), "{name}: {}", rows.unwrap_err());
        }
        // The first is invalid only as a whole file; Python writes the others.
        let accepted = ["trailing_#", "number_NaN", "number_infinity", "minus_infinity"];
        if name.starts_with("n_") && !accepted.iter().any(|part| name.contains(part)) {
            assert!(rows.is_err(), "{name} was read: {rows:?}");
        }
        bytes.retain(|byte| *byte != b'\n');
        let line = file(folder.path(), "case.jsonl", &bytes);
        if let Ok(rows) = read_rows(&line, None, None, &BytesRead::default()) {
            rows.for_each(drop);
        }
    }
}
