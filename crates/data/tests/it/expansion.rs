//! Small binary files whose rows would need very much memory are refused before they are decoded, and ordinary files are read.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, ListArray, NullArray, RecordBatch,
    StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use data::{BytesRead, read_rows};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};

use crate::support::{file, folder, shown};

/// The number of rows, or the first error.
fn verdict(path: &Path, needed: Option<&[String]>) -> String {
    let rows = read_rows(path, None, needed, &BytesRead::default());
    match rows.and_then(|rows| rows.map(|row| row.map(drop)).collect::<data::Result<Vec<()>>>()) {
        Ok(rows) => format!("{} rows", rows.len()),
        Err(error) => shown(&error),
    }
}

fn hostile_seed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/hostile/seeds").join(name)
}

/// Lists of the lengths `lengths` over `items`.
fn lists(items: ArrayRef, lengths: &[usize]) -> ArrayRef {
    let field = Arc::new(Field::new("item", items.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Arc::new(ListArray::new(field, offsets, items, None))
}

fn numbers(n: usize) -> ArrayRef {
    Arc::new(Int32Array::from(vec![7; n]))
}

/// Number `key` of each text, in a dictionary.
fn dictionary(texts: &[&str], keys: Vec<i32>) -> ArrayRef {
    let texts = StringArray::from(texts.to_vec());
    Arc::new(DictionaryArray::<Int32Type>::try_new(keys.into(), Arc::new(texts)).unwrap())
}

fn table(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter(columns.iter().cloned()).unwrap()
}

fn zipped() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()))
}

fn parquet(batch: &RecordBatch, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let mut bytes = Vec::new();
    let properties = Some(properties.build());
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), properties).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow(batches: &[RecordBatch], codec: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
    let schema = batches[0].schema();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

/// A list of millions, in a few hundred bytes. A column that is not read costs nothing.
#[test]
fn a_parquet_row_of_millions_of_values_is_refused() {
    let folder = folder();
    let n = 2_200_000;
    let nulls: ArrayRef = Arc::new(Int32Array::from(vec![None; n]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a text"]));
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for items in [numbers(n), Arc::clone(&nulls), dictionary(&["a"], vec![0; n])] {
            let batch = table(&[("text", Arc::clone(&texts)), ("z", lists(items, &[n]))]);
            let bytes = parquet(&batch, zipped().set_writer_version(version));
            assert!(bytes.len() < 10_000, "{}", bytes.len());
            let path = file(folder.path(), "x.parquet", bytes);
            let said = verdict(&path, None);
            assert!(said.contains("values of a row over the limit of 2097152"), "{said}");
            assert_eq!(verdict(&path, Some(&["text".to_owned()])), "1 rows");
        }
    }
    // Two columns of half as many.
    let half = || lists(numbers(n / 2), &[n / 2]);
    let path = file(folder.path(), "x.parquet", parquet(&table(&[("a", half())]), zipped()));
    assert_eq!(verdict(&path, None), "1 rows");
    let both = table(&[("a", half()), ("b", half())]);
    let path = file(folder.path(), "x.parquet", parquet(&both, zipped()));
    assert!(verdict(&path, None).contains("values of a row"), "{}", verdict(&path, None));
}

/// Many rows of lists that a run length stores in no space.
#[test]
fn numbers_and_nulls_count_as_what_a_file_expands_to() {
    let folder = folder();
    let lengths = vec![100_000; 200];
    let batch = table(&[("ids", lists(numbers(20_000_000), &lengths))]);
    let path = file(folder.path(), "x.parquet", parquet(&batch, zipped()));
    let said = verdict(&path, None);
    assert!(said.contains("bytes of values for a file of this size"), "{said}");
    let nothing = table(&[("nothing", lists(Arc::new(NullArray::new(20_000_000)), &lengths))]);
    let path = file(folder.path(), "x.arrow", arrow(&[nothing], None));
    let said = verdict(&path, None);
    assert!(said.contains("bytes of values for a file of this size"), "{said}");
}

/// A row whose list repeats a text, by a dictionary or as the beginning of the text before.
#[test]
fn a_parquet_row_that_repeats_a_long_text_is_refused() {
    let folder = folder();
    let long = "ab ".repeat(350_000);
    let keys = |n: usize| vec![0; n];
    let prefixes = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_BYTE_ARRAY)
        .set_data_page_size_limit(1 << 30);
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let stored = WriterProperties::builder()
            .set_writer_version(version)
            .set_dictionary_page_size_limit(4 << 20);
        for properties in [stored, prefixes.clone().set_writer_version(version)] {
            let row = |n| table(&[("x", lists(dictionary(&[&long], keys(n)), &[n]))]);
            let path = file(folder.path(), "x.parquet", parquet(&row(140), properties.clone()));
            assert!(std::fs::metadata(&path).unwrap().len() < 2_000_000);
            let said = verdict(&path, None);
            assert!(said.contains("bytes of a row over the limit of 134217728"), "{said}");
            let path = file(folder.path(), "x.parquet", parquet(&row(120), properties));
            assert_eq!(verdict(&path, None), "1 rows");
        }
    }
}

/// Lists whose longest text, as often as their longest list has texts, would be over the limit.
#[test]
fn ordinary_lists_of_texts_are_read_in_every_encoding() {
    let folder = folder();
    let long = "ab ".repeat(100_000);
    let short: Vec<String> = (0..500).map(|idx| format!("message {idx}")).collect();
    let mut texts: Vec<&str> = short.iter().map(String::as_str).collect();
    texts.push(&long);
    let lengths = [vec![3; 100], vec![2_000], vec![3; 100]].concat();
    let n: usize = lengths.iter().sum();
    let keys: Vec<i32> =
        (0..n).map(|idx| if idx == 7 { 500 } else { (idx % 500) as i32 }).collect();
    let batch = table(&[("x", lists(dictionary(&texts, keys), &lengths))]);
    let written =
        read_back(&file(folder.path(), "x.arrow", arrow(std::slice::from_ref(&batch), None)));
    for encoding in [
        None,
        Some(Encoding::PLAIN),
        Some(Encoding::DELTA_BYTE_ARRAY),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ] {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            let mut properties = zipped().set_writer_version(version);
            if let Some(encoding) = encoding {
                properties = properties.set_dictionary_enabled(false).set_encoding(encoding);
            }
            let path = file(folder.path(), "x.parquet", parquet(&batch, properties));
            assert!(read_back(&path) == written, "{encoding:?}");
        }
    }
}

fn read_back(path: &Path) -> Vec<serde_json::Value> {
    let rows = read_rows(path, None, None, &BytesRead::default()).unwrap();
    rows.map(|row| serde_json::Value::Object(row.unwrap().columns)).collect()
}

/// A list of millions of small objects, each of which takes a hundred times its bytes in the file.
#[test]
fn an_arrow_row_that_takes_very_much_memory_is_refused() {
    let folder = folder();
    let n = 1_000_000;
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"; n]));
    let objects = StructArray::from(vec![
        (Arc::new(Field::new("role", texts.data_type().clone(), true)), Arc::clone(&texts)),
        (Arc::new(Field::new("content", texts.data_type().clone(), true)), texts),
    ]);
    let batch = table(&[("messages", lists(Arc::new(objects), &[n]))]);
    let path = file(folder.path(), "x.arrow", arrow(&[batch], None));
    let said = verdict(&path, None);
    assert!(said.contains("more than 201326592 bytes of values in the row"), "{said}");
}

/// A batch that a few kilobytes decompress to, and dictionaries, which are all kept.
#[test]
fn compressed_arrow_batches_are_measured_before_they_are_decompressed() {
    let folder = folder();
    let long = "ab ".repeat(350_000);
    for codec in [CompressionType::ZSTD, CompressionType::LZ4_FRAME] {
        let texts = |n| -> RecordBatch {
            table(&[("text", Arc::new(StringArray::from(vec![long.as_str(); n])) as ArrayRef)])
        };
        let path = file(folder.path(), "x.arrow", arrow(&[texts(100)], Some(codec)));
        let said = verdict(&path, None);
        assert!(said.contains("bytes of a record batch over the limit of 67108864"), "{said}");
        let path = file(folder.path(), "x.arrow", arrow(&[texts(40)], Some(codec)));
        assert_eq!(verdict(&path, None), "40 rows");
        let path = file(folder.path(), "x.arrow", arrow(&[texts(40), texts(40)], Some(codec)));
        let said = verdict(&path, None);
        // LZ4 makes the file large enough for as much text.
        let is_small = codec == CompressionType::ZSTD;
        assert_eq!(said.contains("for a file of this size"), is_small, "{said}");
    }
}

/// Looking up one key must not read those of all rows.
#[test]
fn rows_of_a_large_dictionary_batch_are_read_in_linear_time() {
    let folder = folder();
    let n = 200_000;
    let keys = (0..n).map(|idx| idx % 3).collect();
    let batch = table(&[("text", dictionary(&["a", "b", "c"], keys))]);
    assert_eq!(batch.column(0).as_dictionary::<Int32Type>().len(), n as usize);
    let path = file(folder.path(), "x.arrow", arrow(&[batch], None));
    let started = std::time::Instant::now();
    assert_eq!(verdict(&path, None), format!("{n} rows"));
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// Without an end, a row that is too long cannot be skipped.
#[test]
fn a_row_without_an_end_is_not_read_for_ever() {
    let folder = folder();
    let endless = vec![b'a'; 300 << 20];
    for (name, start) in [("x.json", "[{\"text\": \""), ("x.jsonl", "{\"text\": \"")] {
        let bytes = [start.as_bytes(), &endless].concat();
        let said = verdict(&file(folder.path(), name, bytes), None);
        assert!(said.contains("too long to be skipped"), "{said}");
    }
}

/// 8 kB in which 600 fields have the same 600 children with one name of 3,000 letters, and 65 kB with a text of 60 MB and 4,000
/// additions to its dictionary, each of which would copy it.
#[test]
fn arrow_files_whose_parts_are_shared_or_added_to_are_refused() {
    let seed = |name: &str| verdict(&hostile_seed(name), None);
    let said = seed("shared-fields.arrow");
    assert!(said.contains("too many columns"), "{said}");
    let said = seed("delta-dictionaries.arrow.gz");
    assert!(said.contains("bytes copied for parts of dictionaries over the limit"), "{said}");
}

/// A parquet file may hold the same schema in its footer.
#[test]
fn a_parquet_file_with_a_shared_arrow_schema_is_refused() {
    let stream = std::fs::read(hostile_seed("shared-fields.arrow")).unwrap();
    let encoded = BASE64_STANDARD.encode(stream);
    let batch = table(&[("text", Arc::new(StringArray::from(vec!["a"])))]);
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![KeyValue::new("ARROW:schema".into(), encoded)]))
        .build();
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let folder = folder();
    let said = verdict(&file(folder.path(), "x.parquet", bytes), None);
    assert!(said.contains("its Arrow schema has too many columns"), "{said}");
}

/// The batch is 100 MB in a file of 100 kB: it would be in memory before its rows are counted.
#[test]
fn a_batch_much_larger_than_its_compressed_file_is_refused() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(1 << 20); 100]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&arrow(&[table(&[("text", texts)])], None)).unwrap();
    let folder = folder();
    let said = verdict(&file(folder.path(), "x.arrow.gz", gzip.finish().unwrap()), None);
    assert!(said.contains("bytes of a record batch over the limit of 67108864"), "{said}");
}

/// What a footer describes takes forty times its bytes.
#[test]
fn a_large_parquet_footer_is_refused() {
    let length = (17_u32 << 20).to_le_bytes();
    let bytes = [b"PAR1", vec![0; 17 << 20].as_slice(), &length, b"PAR1"].concat();
    let folder = folder();
    let said = verdict(&file(folder.path(), "x.parquet", bytes), None);
    assert!(said.contains("over the limit of 16777216"), "{said}");
}

/// Each column's largest page is below the limit; both are in memory at the same time.
#[test]
fn long_documents_in_two_columns_are_read() {
    let folder = folder();
    let texts = |letter: &str| -> ArrayRef {
        Arc::new(StringArray::from(vec![letter.repeat(1 << 20); 75]))
    };
    let batch = table(&[("text", texts("a")), ("summary", texts("b"))]);
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(usize::MAX)
        .set_write_batch_size(1000)
        .build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    assert_eq!(verdict(&file(folder.path(), "x.parquet", bytes), None), "75 rows");
}
