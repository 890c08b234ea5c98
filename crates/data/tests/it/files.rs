//! Files of a source: splits, saved datasets, pointers of Git LFS, JSON as Python writes it, and the keys that decide
//! how a file is read.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use data::{Content, Dataset, SourceSpec};
use recipe::Source;

use crate::support::{chars, file, folder, prepared, run, shown};

/// A source as a recipe in `folder` describes it.
fn source(folder: &Path, keys: &str) -> data::Result<SourceSpec> {
    let recipe = format!(
        "[tokenizer]\ntrain = {{ kind = \"char\", data = [{{ {keys} }}] }}\n[model]\nfamily = \"llama\"\n\
         hidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\nintermediate_size = 32\n\
         max_position_embeddings = 32\n[pretrain]\ndata = [{{ {keys} }}]\nsequence_length = 16\n\
         tokens_per_step = 16\nmax_steps = 1\noptimizer = {{ lr = 1e-3 }}\n"
    );
    let loaded = recipe::parse(recipe.as_bytes(), Path::new("r.toml"), &[]).unwrap();
    let stages = loaded.recipe.stages();
    let source: &Source = &stages[0].keys().data[0];
    SourceSpec::resolve(source, folder, folder, None)
}

/// Documents of a source, joined by `|`, or the error with its hint.
fn texts(folder: &Path, keys: &str) -> String {
    let read = source(folder, keys).and_then(|spec| {
        let mut texts = Vec::new();
        data::texts(&[spec], recipe::SampleKind::Documents, &mut |text| texts.push(text))?;
        Ok(texts.join("|"))
    });
    match read {
        Ok(texts) => texts,
        Err(error) => shown(&error).replace(&folder.display().to_string(), "DIR"),
    }
}

#[test]
fn a_directory_with_splits_uses_the_one_for_training() {
    let folder = folder();
    let root = folder.path();
    for name in ["train-1.jsonl", "train-2.jsonl", "test.jsonl", "more.jsonl", "valid/a.jsonl"] {
        file(root, &format!("splits/{name}"), format!("{{\"text\": \"{name}\"}}\n"));
    }
    // A file of another format does not matter if it is in no split.
    file(root, "splits/info.json", "{}");
    file(root, "plain/a.jsonl", "{\"text\": \"a\"}\n");
    file(root, "tests/test/a.jsonl", "{\"text\": \"b\"}\n");
    assert_eq!(texts(root, r#"path = "splits""#), "train-1.jsonl|train-2.jsonl");
    assert_eq!(texts(root, r#"path = "splits", split = "validation""#), "valid/a.jsonl");
    assert_eq!(texts(root, r#"path = "splits", split = "dev""#), "valid/a.jsonl");
    assert_eq!(texts(root, r#"path = "plain""#), "a");
    let choice = |keys: &str| source(root, keys).unwrap().files.choice;
    assert_eq!(choice(r#"path = "splits""#).unwrap(), "split `train`: 2 of 6 files");
    assert_eq!(choice(r#"path = "plain""#), None);
    insta::assert_snapshot!(texts(root, r#"path = "tests""#), @"
    DIR/tests: no split `train` in this directory; its splits: `test`
      hint: name one of them with `split` in the source
    ");
    insta::assert_snapshot!(texts(root, r#"path = "splits", split = "tset""#), @"
    DIR/splits: no split `tset` in this directory; its splits: `test`, `train`, `validation`
      hint: name one of them with `split` in the source
    ");
    insta::assert_snapshot!(texts(root, r#"path = "plain", split = "train""#), @"
    DIR/plain: no split `train` in this directory; its splits: none
      hint: name one of them with `split` in the source
    ");
    insta::assert_snapshot!(texts(root, r#"path = "plain/a.jsonl", split = "train""#), @"
    `split` applies to a directory: `DIR/plain/a.jsonl`
      hint: name a file, a directory or a pattern, relative to the recipe
    ");
}

#[test]
fn the_choice_of_a_split_is_counted_for_the_plan() {
    let folder = folder();
    file(folder.path(), "x/train.txt", "a few words of text");
    file(folder.path(), "x/test.txt", "other words");
    let spec = source(folder.path(), r#"path = "x""#).unwrap();
    let cache = folder.path().join("cache");
    let prepared = prepared(&cache, &[spec], &chars(), Content::Documents).unwrap();
    let dataset =
        Dataset::pretrain(&prepared, &run(16, 1, 1.0), recipe::Packing::default()).unwrap();
    assert_eq!(dataset.counts().file_choices, ["x: split `train`: 1 of 2 files"]);
}

/// An Arrow stream with one column.
fn arrow_column(name: &str, values: ArrayRef) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter([(name, values)]).unwrap();
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn texts_file(texts: &[&str]) -> Vec<u8> {
    arrow_column("text", Arc::new(StringArray::from(texts.to_vec())))
}

#[test]
fn a_saved_dataset_has_the_files_of_its_state() {
    let folder = folder();
    let root = folder.path();
    file(root, "saved/data-00000-of-00002.arrow", texts_file(&["a", "b"]));
    file(root, "saved/data-00001-of-00002.arrow", texts_file(&["c"]));
    file(root, "saved/cache-154c3f3ce944bb3a.arrow", texts_file(&["mapped"]));
    file(root, "saved/dataset_info.json", "{}");
    let state = |more: &str| {
        format!(
            r#"{{"_data_files": [{{"filename": "data-00001-of-00002.arrow"}},
            {{"filename": "data-00000-of-00002.arrow"}}], "_split": "train"{more}}}"#
        )
    };
    file(root, "saved/state.json", state(""));
    assert_eq!(texts(root, r#"path = "saved""#), "c|a|b");
    assert_eq!(texts(root, r#"path = "saved", format = "arrow", split = "train""#), "c|a|b");
    let choice = source(root, r#"path = "saved""#).unwrap().files.choice;
    assert_eq!(choice.unwrap(), "saved dataset: 2 files of state.json");
    insta::assert_snapshot!(texts(root, r#"path = "saved", format = "json""#), @"
    a saved dataset has files of the format `arrow`: `DIR/saved`
      hint: name a file, a directory or a pattern, relative to the recipe
    ");
    insta::assert_snapshot!(texts(root, r#"path = "saved", split = "test""#), @"
    DIR/saved: no split `test` in this directory; its splits: `train`
      hint: name one of them with `split` in the source
    ");

    // After `shuffle` and `select`, indices give the rows in order; one may occur twice.
    let indices = |values: Vec<u64>| arrow_column("indices", Arc::new(UInt64Array::from(values)));
    file(root, "saved/indices.arrow", indices(vec![2, 0, 2]));
    file(
        root,
        "saved/state.json",
        state(r#", "_indices_data_files": [{"filename": "indices.arrow"}]"#),
    );
    assert_eq!(texts(root, r#"path = "saved""#), "b|c|b");
    file(root, "saved/indices.arrow", indices(vec![1, 3]));
    insta::assert_snapshot!(texts(root, r#"path = "saved""#), @"
    DIR/saved/indices.arrow: index `3`, but the dataset has 3 rows
      hint: create or copy the file again
    ");
    file(
        root,
        "saved/state.json",
        state(r#", "_indices_data_files": [{"filename": "../x.arrow"}]"#),
    );
    insta::assert_snapshot!(texts(root, r#"path = "saved""#), @"
    not a bare file name: `../x.arrow`
      hint: names inside files must not contain a path
    ");

    // Several splits, each in its directory.
    file(root, "dict/dataset_dict.json", r#"{"splits": ["train", "test"]}"#);
    for split in ["train", "test"] {
        file(root, &format!("dict/{split}/data.arrow"), texts_file(&[split]));
        let state = r#"{"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": null}"#;
        file(root, &format!("dict/{split}/state.json"), state);
    }
    assert_eq!(texts(root, r#"path = "dict""#), "train");
    assert_eq!(texts(root, r#"path = "dict", split = "eval""#), "test");
    let choice = source(root, r#"path = "dict""#).unwrap().files.choice;
    assert_eq!(choice.unwrap(), "split `train` of 2: saved dataset: 1 file of state.json");
}

#[test]
fn pointers_of_git_lfs_are_refused() {
    let folder = folder();
    let root = folder.path();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:8be3\nsize 1234567\n";
    let names = ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.jsonl.gz"];
    for name in names {
        file(root, name, pointer);
        let error = texts(root, &format!("path = \"{name}\""));
        let expected = format!(
            "DIR/{name}: a Git LFS pointer, not the file itself\n  hint: run `git lfs pull` in the \
             file's repository"
        );
        assert_eq!(error, expected);
    }
    // A document about pointers is text.
    file(root, "b.txt", pointer.repeat(30));
    assert_eq!(texts(root, r#"path = "b.txt""#), pointer.repeat(30));
}

#[test]
fn an_array_in_json_lines_is_named() {
    let folder = folder();
    let root = folder.path();
    let rows = "[\n  {\n    \"text\": \"a\"\n  },\n  {\"text\": \"b\"}\n]\n";
    file(root, "array.jsonl", rows);
    file(root, "line.jsonl", "\n[{\"text\": \"a\"}]");
    insta::assert_snapshot!(texts(root, r#"path = "array.jsonl""#), @r#"
    DIR/array.jsonl: one JSON array, not one JSON object per line
      hint: set `format = "json"` in the source, or write one object per line
    "#);
    assert!(texts(root, r#"path = "line.jsonl""#).contains("one JSON array"));
    assert_eq!(texts(root, r#"path = "array.jsonl", format = "json""#), "a|b");
    // A row that is a list of numbers is only a bad row.
    file(root, "numbers.jsonl", "[1, 2]\n{\"text\": \"a\"}\n");
    assert_eq!(texts(root, r#"path = "numbers.jsonl""#), "a");
}

#[test]
fn numbers_that_are_not_finite_are_missing_values() {
    let folder = folder();
    let root = folder.path();
    let rows =
        ["{\"text\": \"NaN\", \"score\": NaN}", "{\"text\": \"b\", \"s\": [-Infinity, Infinity]}"];
    file(root, "a.jsonl", rows.join("\n"));
    file(root, "a.json", format!("[{}]", rows.join(",\n")));
    for name in ["a.jsonl", "a.json"] {
        let spec = source(root, &format!("path = \"{name}\"")).unwrap();
        let cache = root.join("cache");
        let ready = prepared(&cache, std::slice::from_ref(&spec), &chars(), Content::Documents);
        let packing = recipe::Packing::default();
        let dataset = Dataset::pretrain(&ready.unwrap(), &run(16, 1, 1.0), packing).unwrap();
        let counts = dataset.counts();
        assert_eq!((counts.rows, counts.samples, counts.not_finite), (2, 2, 3), "{name}");
        // The count is stored in the cache.
        let again = prepared(&cache, &[spec], &chars(), Content::Documents).unwrap();
        let dataset = Dataset::pretrain(&again, &run(16, 1, 1.0), packing).unwrap();
        assert_eq!(dataset.counts().not_finite, 3);
    }
    // As the text itself it is missing.
    file(root, "b.jsonl", "{\"text\": NaN}\n");
    insta::assert_snapshot!(texts(root, r#"path = "b.jsonl", text = "text""#), @r#"
    DIR/b.jsonl:1: column `text` is null, expected a text
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    file(root, "c.jsonl", "{\"text\": \"a\"}\n{\"text\": NaN, x}\n");
    let spec = source(root, r#"path = "c.jsonl""#).unwrap();
    let ready = prepared(&root.join("cache"), &[spec], &chars(), Content::Documents);
    let error = ready.unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&root.display().to_string(), "DIR"), @"DIR/c.jsonl:2: invalid JSON at column 15: key must be a string");
}

#[test]
fn rows_under_a_key_of_an_object() {
    let folder = folder();
    let root = folder.path();
    let rows = r#"[{"text": "a"}, {"text": "b"}]"#;
    let object = format!(
        "{{\"version\": \"1 [,\", \"x\\\"\": [[{{}}], NaN], \"n\": -1.5 ,\n \"data\" : {rows}, \"end\": 1}}"
    );
    file(root, "a.json", object);
    file(root, "b.json", rows);
    file(root, "c.json", r#"{"a": 1, "data": {"text": "b"}}"#);
    file(root, "d.json", r#"{"a": 1, "#);
    file(root, "e.json", r#"{"data": [{"text": "a"}], "b": {}, "data": [{"text": "b"}]}"#);
    file(root, "f.json", r#"{"data": [{"text": "a"}], "b": "#);
    for (name, problem) in
        [("e", "line 1: the object has the key `data` twice"), ("f", "the file is truncated")]
    {
        let shown = texts(root, &format!(r#"path = "{name}.json", field = "data""#));
        assert!(shown.contains(problem), "{shown}");
    }
    file(root, "a.jsonl", "{\"text\": \"a\"}\n");
    assert_eq!(texts(root, r#"path = "a.json", field = "data""#), "a|b");
    insta::assert_snapshot!(texts(root, r#"path = "a.json", field = "date""#), @r#"
    DIR/a.json: no key `date` in the JSON object; its keys: `version`, `x"`, `n`, `data`, `end`
      hint: `field` names the key of a JSON object whose value is the list of rows
    "#);
    insta::assert_snapshot!(texts(root, r#"path = "b.json", field = "data""#), @"
    DIR/b.json: not a JSON object, so it has no key `data`
      hint: `field` names the key of a JSON object whose value is the list of rows
    ");
    insta::assert_snapshot!(texts(root, r#"path = "c.json", field = "data""#), @"
    DIR/c.json: the value of the key `data` is not a list
      hint: `field` names the key of a JSON object whose value is the list of rows
    ");
    insta::assert_snapshot!(texts(root, r#"path = "d.json", field = "data""#), @"
    DIR/d.json: line 1: the file is truncated inside an object
      hint: create or copy the file again
    ");
    insta::assert_snapshot!(texts(root, r#"path = "a.jsonl", field = "data""#), @"a.jsonl: `field` is for JSON files: `DIR/a.jsonl`; set `format`");
}

#[test]
fn delimiter_and_size_of_rows() {
    let folder = folder();
    let root = folder.path();
    file(root, "a.csv", "id;text\n1;\"a;b,c\"\n2;d\n");
    assert_eq!(texts(root, r#"path = "a.csv", delimiter = ";", text = "text""#), "a;b,c|d");
    file(root, "a.jsonl", "{\"text\": \"abcdefghij\"}\n{\"text\": \"a\"}\n");
    insta::assert_snapshot!(texts(root, r#"path = "a.jsonl", delimiter = ";""#), @"a.jsonl: `delimiter` is for CSV files: `DIR/a.jsonl`; set `format`");
    // Rows over the limit are bad ones; without any good row the first is reported.
    assert_eq!(texts(root, r#"path = "a.jsonl", max_row_bytes = 15"#), "a");
    insta::assert_snapshot!(texts(root, r#"path = "a.jsonl", max_row_bytes = 5"#), @r#"
    DIR/a.jsonl:1: row is longer than the limit of 5 bytes
      hint: raise `max_row_bytes` in the source if such rows are right; `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    let long = "x".repeat(5 << 20);
    file(root, "long.json", format!("[{{\"text\": \"{long}\"}}]"));
    assert!(
        texts(root, r#"path = "long.json""#).contains("longer than the limit of 4194304 bytes")
    );
    assert_eq!(texts(root, r#"path = "long.json", max_row_bytes = 6000000"#), long);
}

/// Only what is absent is called so: a name that cannot be followed is refused with the reason.
#[cfg(unix)]
#[test]
fn a_loop_of_links_is_not_called_absent() {
    let folder = folder();
    let root = folder.path();
    std::os::unix::fs::symlink(root.join("a.jsonl"), root.join("b.jsonl")).unwrap();
    std::os::unix::fs::symlink(root.join("b.jsonl"), root.join("a.jsonl")).unwrap();
    let said = texts(root, r#"path = "a.jsonl""#);
    assert!(
        said.contains("a.jsonl") && said.contains("Too many levels of symbolic links"),
        "{said}"
    );
    assert!(texts(root, r#"path = "c.jsonl""#).contains("no such file"));
}

/// A parser would keep one of two values of a key, and round a long integer: both are errors, in lines and in lists; the
/// integer only in a column that is read.
#[test]
fn no_value_of_a_json_file_is_changed_silently() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fsio::write_atomic(folder.path().join(name), text).unwrap();
    let long = "has an integer of more than 64 bits, which would be rounded";
    let rows = ", rows = { text = \"{text} {n}\" }";
    for (row, keys, reason) in [
        (r#"{"text": "a", "text": "b"}"#, "", "the key `text` occurs twice in an object"),
        (r#"{"text": "a", "n": 12345678901234567890123}"#, rows, &format!("column `n` {long}")),
        (r#"{"text": "a", "n": {"x": [-9223372036854775809]}}"#, rows, long),
        (r#"{"text": 12345678901234567890123}"#, "", &format!("column `text` {long}")),
        (r#"{"text": 12345678901234567890123, "n": NaN}"#, ", text = \"text\"", long),
    ] {
        put("a.jsonl", &format!("\n{row}\n"));
        put("a.json", &format!("[\n{row}]\n"));
        for name in ["a.jsonl", "a.json"] {
            let error = texts(folder.path(), &format!("path = \"{name}\"{keys}"));
            assert!(error.contains(&format!("{name}:2")) && error.contains(reason), "{error}");
        }
    }
    put("a.jsonl", "{\"text\": \"n\", \"n\": 18446744073709551615, \"m\": 1e30}\n");
    assert_eq!(texts(folder.path(), "path = \"a.jsonl\""), "n");
    let unread =
        r#"{"text": "b", "n": 12345678901234567890123, "m": [{"x": -9223372036854775809}]}"#;
    put("a.jsonl", unread);
    put("a.json", &format!("[{unread}]"));
    for name in ["a.jsonl", "a.json"] {
        assert_eq!(texts(folder.path(), &format!("path = \"{name}\"")), "b");
    }
}
