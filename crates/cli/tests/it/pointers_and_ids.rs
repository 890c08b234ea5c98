//! Pointers of Git LFS in place of every kind of input, and rows of token ids from JSONL and parquet.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::ArrowWriter;

use crate::support::trained;

const POINTER: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:8be3fc1d\nsize 1234567\n";
fn sft(start: &str, data: &str, more: &str) -> String {
    format!(
        "[sft]\nstart = \"{start}\"\ndata = [{{ path = \"{data}\" }}]\nchat_template = \"plain\"\n\
         sequence_length = 32\ntokens_per_step = 64\nmax_steps = 2\noptimizer = {{ lr = 1e-2 }}\n{more}"
    )
}

/// A checkout without `git lfs` has pointers in place of data, weights, tokenizers and templates. Each is named, with the
/// command that fetches it, by `plan` already.
#[test]
fn pointers_are_named_wherever_they_are() {
    let place = trained();
    let model = "runs/tiny/pretrain/model";
    let file = |name: &str| std::fs::read(place.path().join(model).join(name)).expect(name);
    place.write("chats.jsonl", "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(8));
    let refused = |what: &str, args: &[&str]| {
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(2), "{what}: {} {}", outcome.stdout, outcome.stderr);
        let named = format!("{what}: a Git LFS pointer, not the file itself");
        assert!(outcome.stderr.contains(&named), "{what}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("run `git lfs pull`"), "{what}: {}", outcome.stderr);
    };
    let rows = ["txt", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "jsonl.gz", "jsonl.zst"];
    for ending in rows {
        let name = format!("rows.{ending}");
        place.write(&name, POINTER).write("rows.toml", sft(model, &name, ""));
        refused(&name, &["plan", "rows.toml"]);
    }
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        for copied in
            ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"]
        {
            place.write(&format!("start/{copied}"), file(copied));
        }
        place.write(&format!("start/{name}"), POINTER);
        place.write("start.toml", sft("start", "chats.jsonl", ""));
        refused(&format!("start/{name}"), &["plan", "start.toml"]);
        refused(&format!("start/{name}"), &["generate", "start", "--prompt", "x"]);
    }
    place.write("one.gguf", POINTER).write("gguf.toml", sft("one.gguf", "chats.jsonl", ""));
    refused("one.gguf", &["plan", "gguf.toml"]);
    refused("one.gguf", &["generate", "one.gguf", "--prompt", "x"]);
    let template = sft(model, "chats.jsonl", "").replace("\"plain\"", "\"t.jinja\"");
    place.write("t.jinja", POINTER).write("template.toml", template);
    refused("t.jinja", &["plan", "template.toml"]);
}

fn lists<T>(rows: Vec<Vec<T::Native>>) -> ArrayRef
where
    T: arrow::datatypes::ArrowPrimitiveType,
{
    let rows = rows.into_iter().map(|row| Some(row.into_iter().map(Some)));
    Arc::new(ListArray::from_iter_primitive::<T, _, _>(rows))
}

/// The same rows of ids from JSONL and from parquet, in 32 and 64 bits, train the same weights; ids of another tokenizer are
/// refused with the row.
#[test]
fn rows_of_ids_train_alike_from_jsonl_and_parquet() {
    let place = trained();
    let rows: Vec<(Vec<i64>, Vec<i64>)> = (0..24)
        .map(|row| {
            let ids: Vec<i64> = (0..6 + row % 5).map(|at| 3 + (row * 7 + at * 5) % 200).collect();
            let labels = ids.iter().enumerate().map(|(at, id)| if at < 3 { -100 } else { *id });
            (ids.clone(), labels.collect())
        })
        .collect();
    let line = |(ids, labels): &(Vec<i64>, Vec<i64>)| {
        format!("{}\n", serde_json::json!({ "input_ids": ids, "labels": labels }))
    };
    place.write("ids.jsonl", rows.iter().map(line).collect::<String>());
    let narrow = |row: &[i64]| -> Vec<i32> {
        row.iter().map(|id| i32::try_from(*id).expect("a small id")).collect()
    };
    let wide = [
        ("input_ids", lists::<Int64Type>(rows.iter().map(|(ids, _)| ids.clone()).collect())),
        ("labels", lists::<Int64Type>(rows.iter().map(|(_, labels)| labels.clone()).collect())),
    ];
    let narrow = [
        ("input_ids", lists::<Int32Type>(rows.iter().map(|(ids, _)| narrow(ids)).collect())),
        ("labels", lists::<Int32Type>(rows.iter().map(|(_, labels)| narrow(labels)).collect())),
    ];
    for (name, columns) in [("wide.parquet", wide), ("narrow.parquet", narrow)] {
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        place.write(name, bytes);
    }
    let weights = |data: &str, run: &str| {
        let recipe = sft("runs/tiny/pretrain", data, "");
        place.write(&format!("{run}.toml"), recipe);
        let planned = place.temper(&["plan", &format!("{run}.toml")]);
        assert!(
            planned.stdout.contains("pretokenized ids from `input_ids`, `labels`"),
            "{} {}",
            planned.stdout,
            planned.stderr
        );
        let outcome = place.temper(&["run", &format!("{run}.toml")]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let file = place.path().join(format!("runs/{run}/sft/model/model.safetensors"));
        std::fs::read(file).expect("weights")
    };
    let jsonl = weights("ids.jsonl", "jsonl");
    // A stage's seed depends on its name and the recipe's seed, not on the run's name.
    assert!(jsonl == weights("wide.parquet", "wide"), "64 bits");
    assert!(jsonl == weights("narrow.parquet", "narrow"), "32 bits");
    assert!(
        jsonl
            != std::fs::read(place.path().join("runs/tiny/pretrain/model/model.safetensors"))
                .expect("weights")
    );

    for (row, told) in [
        (
            "{\"input_ids\": [1, 2, 99999]}",
            "token 2 has the id `99999`, which is not in the vocabulary",
        ),
        ("{\"input_ids\": [1, -2]}", "token 1 has the id `-2`"),
        (
            "{\"input_ids\": [1, 2.5]}",
            "column `input_ids` is a number, expected a list of whole numbers",
        ),
        ("{\"input_ids\": [1, 2, 3], \"labels\": [1, 2]}", "column `labels` has 2 values"),
    ] {
        place
            .write("bad.jsonl", format!("{row}\n"))
            .write("bad.toml", sft("runs/tiny/pretrain", "bad.jsonl", ""));
        let outcome = place.temper(&["plan", "bad.toml"]);
        assert_eq!(outcome.code, Some(2), "{row}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains("bad.jsonl:1") && outcome.stderr.contains(told),
            "{}",
            outcome.stderr
        );
    }
}
