//! Damaged and hostile files: each is rejected with an exact message, quickly and within the memory limits.
//!
//! The files are small and committed in tests/hostile/data. After a change here, `write_hostile_files` writes them
//! again: `cargo test -p data write_hostile -- --ignored`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data::{BytesRead, read_rows};

use crate::support::{file, gzip, shown, zstd};

fn hostile_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hostile/data"))
}

/// Result of reading a file to its end: the number of rows, or the first error.
fn verdict(path: &Path) -> String {
    let rows = read_rows(path, None, None, &BytesRead::default());
    match rows.and_then(Iterator::collect::<data::Result<Vec<_>>>) {
        Ok(rows) => format!("{} rows", rows.len()),
        Err(error) => shown(&error),
    }
}

#[test]
fn every_hostile_file_is_rejected_with_its_message() {
    let folder = hostile_folder();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    let mut told = String::new();
    for name in names {
        let started = Instant::now();
        let said = verdict(&folder.join(&name)).replace(&format!("{}/", folder.display()), "");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{name} took {took:?}");
        // The hint is the same for whole groups; it is shown once.
        let (message, hint) = said.split_once("\n  hint: ").unwrap_or((&said, "none"));
        told.push_str(&format!("{name}\n    {message}\n    {hint}\n"));
    }
    insta::assert_snapshot!("hostile_files", told);
}

/// Parsed, an empty object takes 50 times the memory of its text.
#[test]
fn a_row_of_very_many_values_is_refused_before_it_is_parsed() {
    let folder = crate::support::folder();
    let row = |part: &str, n: usize| format!("{{\"text\": \"a\", \"x\": [{}0]}}\n", part.repeat(n));
    for (name, bytes) in [
        ("objects.jsonl", row("{},", 400_000)),
        ("numbers.jsonl", row("0,", 1_100_000)),
        ("array.json", format!("[{}]", row("{},", 400_000))),
    ] {
        let path = file(folder.path(), name, bytes);
        let said = verdict(&path);
        assert!(
            said.contains("the values of this row need more than 33554432 bytes of memory"),
            "{said}"
        );
        assert!(said.contains("raise `max_row_bytes`"), "{said}");
    }
    // Ids of a long document.
    let path = file(folder.path(), "ids.jsonl", row("50000,", 600_000));
    assert_eq!(verdict(&path), "1 rows");
}

/// One text of a dictionary, in a thousand rows: 100 MB of text in 100 kB.
#[test]
fn dictionaries_that_expand_to_very_much_text_are_refused() {
    use arrow::array::{DictionaryArray, Int32Array, RecordBatch, StringArray};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    let folder = crate::support::folder();
    let batch = |n_rows: usize| {
        let text = StringArray::from(vec!["ab ".repeat(33_000)]);
        let rows = Int32Array::from(vec![0; n_rows]);
        let column = DictionaryArray::<Int32Type>::try_new(rows, Arc::new(text)).unwrap();
        RecordBatch::try_from_iter([("text", Arc::new(column) as _)]).unwrap()
    };
    let stream = |batch: &RecordBatch| {
        let schema = batch.schema();
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &schema).unwrap();
        writer.write(batch).unwrap();
        writer.into_inner().unwrap()
    };
    let parquet = |batch: &RecordBatch| {
        let mut bytes = Vec::new();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        bytes
    };
    for (name, bytes, small) in [
        ("x.arrow", stream(&batch(1000)), stream(&batch(500))),
        ("x.parquet", parquet(&batch(1000)), parquet(&batch(500))),
    ] {
        let said = verdict(&file(folder.path(), name, bytes));
        assert!(said.contains("bytes of values for a file of this size over the limit"), "{said}");
        assert_eq!(verdict(&file(folder.path(), name, small)), "500 rows");
    }
}

/// Lists that nobody reads may have more values than a batch may have rows, as token ids of many documents do.
#[test]
fn long_lists_of_an_unread_arrow_column_are_no_fault() {
    use arrow::array::{ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray};
    use arrow::buffer::{BooleanBuffer, OffsetBuffer};
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    const N_VALUES: usize = 40 << 20;
    let values = BooleanArray::new(BooleanBuffer::new_unset(N_VALUES), None);
    let field = Arc::new(Field::new_list_field(DataType::Boolean, true));
    let list =
        ListArray::new(field, OffsetBuffer::from_lengths([N_VALUES]), Arc::new(values), None);
    let columns = [
        ("text", Arc::new(StringArray::from(vec!["read"])) as ArrayRef),
        ("flags", Arc::new(list) as ArrayRef),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let folder = crate::support::folder();
    let path = file(folder.path(), "x.arrow", writer.into_inner().unwrap());
    let needed = ["text".to_owned()];
    let rows: Vec<_> =
        data::read_rows(&path, None, Some(&needed), &data::BytesRead::default()).unwrap().collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].as_ref().unwrap().columns["text"], "read");
}

/// Members of a gzip file are joined; very many without content are refused.
#[test]
fn empty_gzip_members_are_counted() {
    let folder = crate::support::folder();
    let row = |idx: usize| gzip(format!("{{\"text\": \"row {idx}\"}}\n").as_bytes());
    let mut members: Vec<u8> = (0..2000).flat_map(row).collect();
    members.extend(gzip(b"").repeat(900));
    assert_eq!(verdict(&file(folder.path(), "a.jsonl.gz", &members)), "2000 rows");
    members.extend(gzip(b"").repeat(101));
    let said = verdict(&file(folder.path(), "b.jsonl.gz", &members));
    assert!(said.contains("more than 1000 members are empty"), "{said}");
    // Other bytes after the last member are damage.
    let trailing = [row(1), b"garbage".to_vec()].concat();
    let said = verdict(&file(folder.path(), "c.jsonl.gz", trailing));
    assert!(said.contains("other bytes follow it"), "{said}");
}

/// A file of the kernel whose size is 0: reading some of them waits for ever.
#[cfg(target_os = "linux")]
#[test]
fn a_file_without_a_size_is_not_read() {
    let cache = crate::support::folder();
    let spec = data::SourceSpec {
        format: Some(recipe::Format::Text),
        ..data::SourceSpec::file("/proc/version")
    };
    let tokenizer = crate::support::bpe();
    let error =
        crate::support::prepared(cache.path(), &[spec], &tokenizer, data::Content::Documents)
            .expect_err("empty");
    assert!(error.to_string().contains("empty"), "{error}");
}

/// A row over the limit is skipped without being stored.
#[test]
fn a_very_long_row_takes_little_time() {
    let folder = crate::support::folder();
    let long = format!("{{\"text\": \"{}\"}}\n", "a".repeat(200 << 20));
    let path = file(folder.path(), "long.jsonl", long);
    let started = std::time::Instant::now();
    let said = verdict(&path);
    assert!(said.contains("row is longer than the limit"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// Links to directories that form a loop under `**`.
#[cfg(unix)]
#[test]
fn a_pattern_over_links_in_a_loop_ends() {
    let folder = crate::support::folder();
    file(folder.path(), "data/a.jsonl", "{\"text\": \"a\"}\n");
    for idx in 0..10 {
        let link = folder.path().join(format!("data/link-{idx}"));
        std::os::unix::fs::symlink(folder.path().join("data"), link).unwrap();
    }
    let error = data::expand(&folder.path().join("data/**/*.jsonl"), None, None).unwrap_err();
    assert!(error.to_string().contains("depth of directories"), "{error}");
}

/// A pattern cannot be compared with such a name, and to leave the file out would be silent. The directory itself can be read.
#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf8_is_an_error_in_a_pattern() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = crate::support::folder();
    file(folder.path(), "data/a.jsonl", "{\"text\": \"a\"}\n");
    let odd = folder.path().join("data").join(std::ffi::OsStr::from_bytes(b"\xff.jsonl"));
    std::fs::write(odd, "{\"text\": \"b\"}\n").unwrap();
    for pattern in ["data/*", "data/*.jsonl", "*/a.jsonl", "**/*.jsonl"] {
        let found = data::expand(&folder.path().join(pattern), None, None);
        match found {
            Err(error) => assert!(error.to_string().contains("not UTF-8"), "{pattern}: {error}"),
            Ok(files) => assert_eq!((pattern, files.paths.len()), ("*/a.jsonl", 1)),
        }
    }
    let files = data::expand(&folder.path().join("data"), None, None).unwrap();
    assert_eq!(files.paths.len(), 2);
}

/// Flips and truncates bytes all over small valid files: no panic, no hang, no huge allocation.
#[test]
fn damaged_binary_files_never_crash_the_reader() {
    let folder = crate::support::folder();
    for (name, bytes) in [
        ("x.parquet", crate::formats::parquet_bytes()),
        ("x.arrow", crate::formats::arrow_stream()),
        ("y.arrow", crate::formats::arrow_file(true)),
        ("x.jsonl.gz", gzip(b"{\"text\": \"abc\"}\n{\"text\": \"def\"}\n")),
        ("x.jsonl.zst", zstd(b"{\"text\": \"abc\"}\n{\"text\": \"def\"}\n")),
    ] {
        let step = (bytes.len() / 150).max(1);
        for at in (0..bytes.len()).step_by(step) {
            for damage in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= damage;
                verdict(&file(folder.path(), name, damaged));
            }
            let said = verdict(&file(folder.path(), name, &bytes[..at]));
            assert!(
                !said.ends_with("rows") || name.ends_with("arrow"),
                "{name} cut at {at}: {said}"
            );
        }
    }
}

#[test]
#[ignore = "writes into the repository"]
fn write_hostile_files() {
    let folder = hostile_folder();
    let put = |name: &str, bytes: Vec<u8>| {
        file(&folder, name, bytes);
    };
    text_files(&put);
    json_files(&put);
    csv_files(&put);
    packed_files(&put);
    parquet_files(&put);
    arrow_files(&put);
}

type Put<'a> = &'a dyn Fn(&str, Vec<u8>);

fn text_files(put: Put<'_>) {
    put("bad-utf8.txt", b"fine\nnot \xff fine\n".to_vec());
    put("empty.txt", Vec::new());
    put("unknown.xyz", b"x".to_vec());
}

fn json_files(put: Put<'_>) {
    let good = "{\"text\": \"a\"}\n";
    let lines = |second: &[u8]| [good.as_bytes(), second, b"\n", good.as_bytes()].concat();
    put("empty.jsonl", Vec::new());
    put("blank.jsonl", b"\n  \n\r\n".to_vec());
    put("bad-json.jsonl", lines(b"{\"text\": a}"));
    put("cut-line.jsonl", lines(b"{\"text\": \"a"));
    put("two-objects.jsonl", lines(b"{\"text\": 1} {\"text\": 2}"));
    put("not-an-object.jsonl", lines(b"[1, 2]"));
    put("huge-number.jsonl", lines(b"{\"n\": 1e999}"));
    put("control.jsonl", lines(b"{\"text\": \"\x01\"}"));
    put("lone-surrogate.jsonl", lines(b"{\"text\": \"\\ud800\"}"));
    put("bad-utf8.jsonl", lines(b"{\"text\": \"\xc3\x28\"}"));
    put("utf16.jsonl", "{\"a\": 1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect());
    let deep = |n: usize| format!("{{\"a\": {}{}}}", "[".repeat(n), "]".repeat(n)).into_bytes();
    put("deep.jsonl", lines(&deep(64)));
    put("deep.jsonl.gz", gzip(&lines(&deep(500_000))));
    let huge = format!("{{\"text\": \"{}\"}}", "a".repeat(5 << 20)).into_bytes();
    put("huge-line.jsonl.gz", gzip(&lines(&huge)));
    put("endless-line.jsonl.gz", gzip(&vec![b'a'; 16 << 20]));
    put("empty.json", b" \n".to_vec());
    put("empty-array.json", b"[ ]".to_vec());
    put("scalar.json", b"42".to_vec());
    put("cut.json", b"[{\"a\": 1},\n{\"a\": 2}".to_vec());
    put("cut-element.json", b"[{\"a\": 1},\n{\"a\": \"}]".to_vec());
    put("trailing-comma.json", b"[{\"a\": 1},\n]".to_vec());
    put("leading-comma.json", b"[,{\"a\": 1}]".to_vec());
    put("no-comma.json", b"[{\"a\": 1}\n{\"a\": 2}]".to_vec());
    put("after-the-end.json", b"[{\"a\": 1}]\n{}".to_vec());
    put("number-inside.json", b"[{\"a\": 1}, 2]".to_vec());
    put("bad-element.json", b"[{\"a\": 1},\n {\"a\": 1,\n  \"b\" 2}]".to_vec());
    put("bad-utf8.json", b"[{\"a\": \"\xe2\x82\"}]".to_vec());
    put("deep.json.gz", gzip(&[b"[".as_slice(), &deep(500_000), b"]"].concat()));
    put("huge-element.json.gz", gzip(&[b"[".as_slice(), &huge, b"]"].concat()));
    put("open-brackets.json.gz", gzip(&vec![b'['; 8 << 20]));
}

fn csv_files(put: Put<'_>) {
    put("empty.csv", Vec::new());
    put("ragged.csv", b"a,b\n1,2\n3\n".to_vec());
    put("twice.csv", b"a,a\n1,2\n".to_vec());
    put("bad-utf8.csv", b"a,b\n1,\xff\n".to_vec());
    put("bad-header.csv", b"a,\xff\n1,2\n".to_vec());
    let open = [b"a,b\n1,\"".as_slice(), &vec![b'x'; 6 << 20]].concat();
    put("open-quote.csv.gz", gzip(&open));
    put("huge-header.csv.gz", gzip(&vec![b'x'; 6 << 20]));
}

fn packed_files(put: Put<'_>) {
    let rows = "{\"text\": \"some text\"}\n".repeat(100);
    let packed = gzip(rows.as_bytes());
    put("cut.jsonl.gz", packed[..packed.len() / 2].to_vec());
    put("cut-trailer.jsonl.gz", packed[..packed.len() - 4].to_vec());
    let mut wrong = packed.clone();
    let at = wrong.len() - 6;
    wrong[at] ^= 0xff;
    put("bad-crc.jsonl.gz", wrong);
    put("garbage-behind.jsonl.gz", [packed.as_slice(), b"garbage"].concat());
    put("not-gzip.jsonl.gz", rows.as_bytes().to_vec());
    put("gzip-inside.jsonl", packed);
    let packed = zstd(rows.as_bytes());
    put("cut.jsonl.zst", packed[..packed.len() / 2].to_vec());
    put("not-zstd.jsonl.zst", rows.into_bytes());
    // A frame that requests a window of 3.75 TiB.
    put("window.jsonl.zst", vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00]);
    put("empty.jsonl.gz", gzip(b""));
}

fn parquet_files(put: Put<'_>) {
    let good = crate::formats::parquet_bytes();
    let n = good.len();
    put("not.parquet", b"text\nthat is no parquet file at all\n".to_vec());
    put("short.parquet", b"PAR1".to_vec());
    put("cut.parquet", good[..n / 2].to_vec());
    let with_footer =
        |footer: &[u8], length: u32| [b"PAR1", footer, &length.to_le_bytes(), b"PAR1"].concat();
    put("footer-too-long.parquet", with_footer(b"\x15\x02", 1000));
    put("footer-huge.parquet", with_footer(b"\x15\x02", 0x7fff_ffff));
    // version 1, then a schema of 100 nested groups.
    let mut deep = vec![0x15, 0x02, 0x19, 0xfc, 100];
    for _ in 0..100 {
        deep.extend_from_slice(&[0x48, 1, b'a', 0x15, 0x02, 0x00]);
    }
    put("footer-deep.parquet", with_footer(&deep, deep.len() as u32));
    // A schema of 2^31 elements in a few bytes.
    let long = [0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
    put("footer-long-list.parquet", with_footer(&long, long.len() as u32));
    let nested = [vec![0x15, 0x02], vec![0x19; 4002]].concat();
    put("footer-lists-in-lists.parquet", with_footer(&nested, nested.len() as u32));

    let (page, payload) = first_page(&plain_parquet(parquet::basic::Compression::UNCOMPRESSED));
    let patched = |header: &[u8]| {
        let bytes = plain_parquet(parquet::basic::Compression::UNCOMPRESSED);
        [&bytes[..page], header, &bytes[payload..]].concat()
    };
    // type 0, decompressed size, compressed size, data page header { num_values, encodings 0 3 3 }.
    let values = [0x2c, 0x15, 0x06, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x00, 0x00];
    let two_gib = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    let header = |unpacked: &[u8], packed: &[u8]| {
        [&[0x15, 0x00, 0x15], unpacked, &[0x15], packed, &values].concat()
    };
    put("page-unpacks-to-2-gib.parquet", patched(&header(&two_gib, &[0x10])));
    put("page-of-2-gib.parquet", patched(&header(&[0x10], &two_gib)));
    put("page-of-negative-size.parquet", patched(&header(&[0x11], &[0x10])));
    let mut many = header(&[0x10], &[0x10]);
    let at = many.len() - values.len() + 2;
    many.splice(at..=at, two_gib);
    put("page-of-2-billion-values.parquet", patched(&many));

    let zipped =
        plain_parquet(parquet::basic::Compression::GZIP(parquet::basic::GzipLevel::default()));
    let (_, payload) = first_page(&zipped);
    let bomb = gzip(&vec![0; 8 << 20]);
    let mut bytes = zipped;
    bytes[payload..payload + bomb.len()].copy_from_slice(&bomb);
    put("page-gzip-bomb.parquet", bytes);
}

/// One text column of 16 KB that do not compress.
fn plain_parquet(codec: parquet::basic::Compression) -> Vec<u8> {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    let mut rng = seed::Rng::new(1);
    let text: String = (0..16_000).map(|_| char::from(b'!' + rng.below(90) as u8)).collect();
    let column: std::sync::Arc<StringArray> = std::sync::Arc::new(StringArray::from(vec![text]));
    let batch = RecordBatch::try_from_iter([("text", column as ArrayRef)]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(codec)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Start of the first page's header and of its payload; the header ends with two closed structs.
fn first_page(bytes: &[u8]) -> (usize, usize) {
    let end = bytes[4..].windows(2).position(|pair| pair == [0, 0]).unwrap();
    (4, 4 + end + 2)
}

fn arrow_files(put: Put<'_>) {
    use arrow::array::{ArrayRef, NullArray, RecordBatch};
    let good = crate::formats::arrow_stream();
    put("not.arrow", b"text that is no Arrow file at all\n".to_vec());
    put("cut.arrow", good[..good.len() * 2 / 3].to_vec());
    put("empty.arrow", Vec::new());
    put("feather1.feather", b"FEA1\0\0\0\0".to_vec());
    let huge = [[0xff; 4], 0x7fff_fff0_u32.to_le_bytes(), [0; 4]].concat();
    put("message-huge.arrow", huge);
    let replace = |bytes: &[u8], from: i64, to: i64| {
        let mut bytes = bytes.to_vec();
        let mut n_found = 0;
        for at in 0..bytes.len() - 8 {
            if bytes[at..at + 8] == from.to_le_bytes() {
                bytes[at..at + 8].copy_from_slice(&to.to_le_bytes());
                n_found += 1;
            }
        }
        assert!(n_found > 0, "{from} is not in the file");
        bytes
    };
    let nulls: ArrayRef = std::sync::Arc::new(NullArray::new(12_345));
    let batch = RecordBatch::try_from_iter([("nothing", nulls)]).unwrap();
    let schema = batch.schema();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    put("rows-huge.arrow", replace(&bytes, 12_345, 1 << 40));
    put("rows-negative.arrow", replace(&bytes, 12_345, -1));
    let text = "packs well ".repeat(1000);
    let column = std::sync::Arc::new(arrow::array::StringArray::from(vec![text.as_str()]));
    let batch = RecordBatch::try_from_iter([("text", column as ArrayRef)]).unwrap();
    let options = arrow::ipc::writer::IpcWriteOptions::default()
        .try_with_compression(Some(arrow::ipc::CompressionType::ZSTD))
        .unwrap();
    let schema = batch.schema();
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new_with_options(Vec::new(), &schema, options)
            .unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    put("unpacks-to-a-tib.arrow", replace(&bytes, text.len() as i64, 1 << 40));
}

/// Pages with checksums, as pyarrow's `write_page_checksum` writes them. tests/hostile/data has the same file with one
/// letter changed.
#[test]
fn page_checksums_are_read_and_verified() {
    let seed = hostile_folder().join("../seeds/page-checksum.parquet");
    assert_eq!(verdict(&seed), "40 rows");
    let said = verdict(&hostile_folder().join("page-bad-checksum.parquet"));
    assert!(said.contains("CRC"), "{said}");
}

/// Bytes that decompress to more than the limit for their size, in the bodies of record batches.
#[test]
fn a_compressed_arrow_file_is_not_unpacked_without_end() {
    use std::io::Write;
    use std::sync::Arc;

    use arrow::array::{RecordBatch, StringArray};

    let folder = crate::support::folder();
    let value = " ".repeat(60 << 20);
    let column: arrow::array::ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(encoder, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.write(&batch).unwrap();
    let mut encoder = writer.into_inner().unwrap();
    encoder.flush().unwrap();
    let path = file(folder.path(), "x.arrow.zst", encoder.finish().unwrap());
    let said = verdict(&path);
    assert!(said.contains("500 times its size"), "{said}");
}

/// A text that is tokenized as a whole takes hundreds of times its memory.
#[test]
fn chats_of_more_than_a_mebibyte_are_refused() {
    use crate::support::{bpe, prepared};
    let folder = crate::support::folder();
    let row = |n: usize| {
        let text = "the cat ".repeat(n);
        format!("{{\"prompt\": \"{text}\", \"completion\": \"the mat\"}}\n")
    };
    let tokenizer = bpe();
    let template = tokenizer::ChatTemplate::builtin("plain").unwrap();
    let verdict = |n: usize| {
        let path = file(folder.path(), "chats.jsonl", row(n));
        let content = data::Content::Chats(&template, recipe::ChatTargets::default());
        let sources = [data::SourceSpec::file(path)];
        prepared(&folder.path().join("cache"), &sources, &tokenizer, content)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let error = verdict(140_000).unwrap_err();
    assert!(
        error.contains("chats.jsonl:1: row is longer than the limit of 1048576 bytes"),
        "{error}"
    );
    assert_eq!(verdict(1_000), Ok(()));
}
