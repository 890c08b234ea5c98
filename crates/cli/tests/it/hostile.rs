//! Hostile files of every kind, read by the real binary: an error or a right result, quickly and within bounded memory.
//!
//! Each input is made here. On an idle machine each command ends within two seconds; the limit below allows for tests that
//! run side by side on a busy one.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Outcome, Place, tiny_recipe};

const TIME: Duration = Duration::from_secs(20);
const MEMORY_KB: u64 = 500_000;

/// Files of a trained model with a byte-level tokenizer of 300 tokens.
struct Model {
    files: Vec<(String, Vec<u8>)>,
}

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let place = Place::new();
        let text = "The quick brown fox jumps over the lazy dog, again and again.\n";
        place
            .write("text.txt", text.repeat(40))
            .write("tiny.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
        let outcome = place.temper(&["run", "tiny.toml"]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let outcome = place.temper(&["export", "runs/tiny/pretrain", "--to", "out"]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
        let read = |name: &str| std::fs::read(place.path().join("out").join(name)).expect("a file");
        Model { files: names.iter().map(|name| ((*name).to_owned(), read(name))).collect() }
    })
}

/// A directory `m` with the model, whose tokenizer.json `change` has changed.
fn with_tokenizer(change: impl FnOnce(&mut Value)) -> Place {
    let place = Place::new();
    let mut change = Some(change);
    for (name, bytes) in &model().files {
        let mut bytes = bytes.clone();
        if name == "tokenizer.json" {
            let mut json: Value = serde_json::from_slice(&bytes).expect("JSON");
            change.take().into_iter().for_each(|change| change(&mut json));
            bytes = json.to_string().into_bytes();
        }
        place.write(&format!("m/{name}"), bytes);
    }
    place
}

fn with_template(template: &str) -> Place {
    let place = with_tokenizer(|_| {});
    place.write("m/chat_template.jinja", template);
    place
}

/// Runs the binary and measures it; its memory is read every few milliseconds.
fn bounded(place: &Place, args: &[&str]) -> Outcome {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_temper"))
        .args(args)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let status_file = format!("/proc/{}/status", child.id());
    let [stdout, stderr] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ]
    .map(|pipe| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.expect("a pipe").read_to_string(&mut text).expect("UTF-8");
            text
        })
    });
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_memory(&status_file));
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if started.elapsed() > TIME || peak > MEMORY_KB {
            child.kill().expect("killed");
            let took = started.elapsed();
            panic!("{args:?} has taken {took:?} and {peak} kB");
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let text = |thread: std::thread::JoinHandle<String>| thread.join().expect("read");
    Outcome { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// VmHWM in kB; 0 where there is no such file.
fn peak_memory(status_file: &str) -> u64 {
    let status = std::fs::read_to_string(status_file).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Asserts exit code 2, one error that contains `parts`, and no trace of a panic.
fn assert_refused(outcome: &Outcome, parts: &[&str]) {
    let stderr = &outcome.stderr;
    assert_eq!(outcome.code, Some(2), "{parts:?}: {}\n{stderr}", outcome.stdout);
    assert!(stderr.contains("error: "), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}

const EVAL: [&str; 4] = ["eval", "m", "--file", "rows.jsonl"];

fn row(text: &str) -> String {
    format!("{}\n", json!({ "text": text }))
}

fn added(id: u64, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false})
}

fn split(pattern: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

#[test]
fn a_token_beyond_the_embedding_is_named() {
    let place = with_tokenizer(|json| {
        json["added_tokens"].as_array_mut().expect("a list").push(added(300, "<x1>"));
    });
    place.write("rows.jsonl", row("hello <x1> world"));
    let message = "token `<x1>` has id `300`, but the model's embedding has 300 rows";
    assert_refused(&bounded(&place, &EVAL), &["rows.jsonl:1", message]);
    let prompt = ["generate", "m", "--prompt", "a <x1> b", "--max-new-tokens", "2"];
    assert_refused(&bounded(&place, &prompt), &[message]);
    // A tokenizer with more ids than rows is no error as long as the text needs none of them.
    place.write("rows.jsonl", row("hello world"));
    assert_eq!(bounded(&place, &EVAL).code, Some(0));
}

#[test]
fn rows_tokenized_for_a_larger_model_are_checked_again() {
    let place = with_tokenizer(|json| {
        json["added_tokens"].as_array_mut().expect("a list").push(added(300, "<x1>"));
    });
    place.write("rows.jsonl", row("hello <x1> world"));
    // The same tokenizer and rows for a model with more rows, whose command fills the cache.
    let larger = tiny_recipe("{ path = \"rows.jsonl\" }", "");
    let trained = "[tokenizer]\ntrain = { kind = \"byte-bpe\", vocab_size = 300 }";
    let larger = larger.replace(trained, "[tokenizer]\nload = \"m\"");
    place.write("r.toml", larger);
    let planned = bounded(&place, &["plan", "r.toml", "--no-probe"]);
    assert_eq!(planned.code, Some(0), "{}", planned.stderr);
    assert_refused(&bounded(&place, &EVAL), &["token `<x1>` has id `300`"]);
}

#[test]
fn an_end_token_beyond_the_embedding_is_named() {
    let place = with_tokenizer(|_| {});
    place.write("m/tokenizer_config.json", json!({"eos_token": "<|t|>"}).to_string());
    place.write("rows.jsonl", row("hello there"));
    let message = "token `<|t|>` has id `300`, but the model's embedding has 300 rows";
    assert_refused(&bounded(&place, &EVAL), &[message]);
}

#[test]
fn an_id_of_the_post_processor_is_checked() {
    let place = with_tokenizer(|json| {
        json["post_processor"] =
            json!({"type": "BertProcessing", "sep": ["a", 4000], "cls": ["b", 4000]});
    });
    place.write("rows.jsonl", row("hello"));
    let message =
        "the post-processor adds token `b` with id `4000`, but the vocabulary has 300 ids";
    assert_refused(&bounded(&place, &EVAL), &[message]);
}

#[test]
fn patterns_end() {
    for (pattern, text) in [
        ("[a-z]*[a-z]*[0-9]", format!("{} 1", "a".repeat(4000))),
        ("(?:a|a)*b", "a".repeat(4000)),
        ("[a-z]*[a-z]*[0-9]", format!("{} 1", "a".repeat(200_000))),
        (".*.*.*=.*", "x".repeat(20_000)),
        ("(?:a?){20}b|(?:a|aa)+c", "a".repeat(2000)),
        ("(?=(?:.|.)*!)x", "a".repeat(2000)),
    ] {
        let place = with_tokenizer(|json| json["pre_tokenizer"] = split(pattern));
        place.write("rows.jsonl", row("short") + &row(&text));
        let outcome = bounded(&place, &EVAL);
        // Oniguruma finds out at once that some patterns cannot match.
        if outcome.code != Some(0) {
            assert_refused(&outcome, &["rows.jsonl:2", &format!("pattern `{pattern}`")]);
        }
    }
}

#[test]
fn a_pattern_that_never_ends_is_named_with_its_row() {
    for (pattern, end) in [("[a-z]*[a-z]*[0-9]", " 1"), ("(?:a|a)*b", "!b")] {
        let place = with_tokenizer(|json| json["pre_tokenizer"] = split(pattern));
        let text = "a".repeat(8000) + end;
        place.write("rows.jsonl", row("short") + &row(&text));
        let named = format!("pattern `{pattern}`");
        assert_refused(&bounded(&place, &EVAL), &["rows.jsonl:2", &named]);
    }
}

#[test]
fn normalizers_do_not_grow_a_text_without_end() {
    let prompt = ["generate", "m", "--prompt", "a", "--max-new-tokens", "1"];
    let chain = vec![replace("a", &"a".repeat(100)); 5];
    let place = with_tokenizer(|json| {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": chain});
    });
    assert_refused(&bounded(&place, &prompt), &["the replacement of `a` makes this text too long"]);
    let regex = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "x".repeat(1000)});
    let chain = vec![regex; 8];
    let place = with_tokenizer(|json| {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": chain});
    });
    assert_refused(&bounded(&place, &prompt), &["makes this text too long"]);
    let place = with_tokenizer(|json| {
        json["normalizer"] = json!({"type": "Prepend", "prepend": "a".repeat(10_000_000)});
    });
    assert_refused(&bounded(&place, &prompt), &["`prepend` has 10000000 bytes"]);
    let place = with_tokenizer(|json| {
        let steps = vec![json!({"type": "ByteLevel", "add_prefix_space": true}); 30];
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
    });
    assert_refused(&bounded(&place, &prompt), &["steps that make a text longer"]);
}

#[test]
fn decoders_do_not_grow_a_text_without_end() {
    let chain = vec![replace("a", &"a".repeat(100)); 8];
    let place = with_tokenizer(|json| {
        json["decoder"] = json!({"type": "Sequence", "decoders": chain});
    });
    let prompt = ["generate", "m", "--prompt", "a", "--max-new-tokens", "8", "--greedy"];
    let outcome = bounded(&place, &prompt);
    assert!(matches!(outcome.code, Some(0 | 2)), "{}", outcome.stderr);
}

#[test]
fn a_post_processor_does_not_multiply_a_text() {
    let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
    let place = with_tokenizer(|json| {
        json["post_processor"] = json!({"type": "TemplateProcessing", "special_tokens": {},
            "single": vec![sequence.clone(); 3000], "pair": []});
    });
    place.write("rows.jsonl", row("hello"));
    assert_refused(&bounded(&place, &EVAL), &["the post-processor writes a text 3000 times"]);
}

#[test]
fn templates_end() {
    let chat = ["generate", "m", "--chat", "--prompt", "hi", "--max-new-tokens", "1"];
    let chain = |part: &str, n: usize| format!("{{{{ 1{} }}}}", part.repeat(n));
    for template in [
        format!("{{{{ {}1 }}}}", "-".repeat(20_000)),
        chain("+1", 20_000),
        chain(" - 1", 15_000),
        chain("*1", 20_000),
        chain("**1", 20_000),
        chain("~1", 20_000),
        chain("()", 20_000),
        chain("[0]", 20_000),
        chain(".a", 20_000),
        chain("|f", 20_000),
        chain(" and 1", 10_000),
        chain(" if 1", 10_000),
        format!("{{{{ {}1 }}}}", "not ".repeat(15_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif y %}".repeat(5000)),
        "{% if x %}".repeat(6000),
        "{% for x in y %}".repeat(4000),
    ] {
        let place = with_template(&template);
        assert_refused(&bounded(&place, &chat), &["chat template `m/"]);
    }
}

/// Errors about a file name it, and the line in text files.
#[test]
fn the_file_of_an_error_is_named() {
    let chat = ["generate", "m", "--chat", "--prompt", "hi", "--max-new-tokens", "1"];
    let said = |place: &Place, args: &[&str]| {
        let outcome = bounded(place, args);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        outcome.stderr
    };
    for (template, named) in [
        ("{{ bos_token }}\n{% if %}", "chat template `m/chat_template.jinja:2` does not parse: "),
        ("{{ bos_token }}\n\n{{ none.x.y }}", "chat template `m/chat_template.jinja:3` failed: "),
        ("{{ raise_exception('no') }}", "chat template `m/chat_template.jinja` refuses "),
    ] {
        let stderr = said(&with_template(template), &chat);
        assert!(stderr.contains(named), "{stderr}");
    }
    // The text of a template in JSON has lines of its own.
    let place = with_tokenizer(|_| {});
    place.write("m/tokenizer_config.json", json!({"chat_template": "a\n{% if %}"}).to_string());
    let stderr = said(&place, &chat);
    let named = "chat template `m/tokenizer_config.json` does not parse: ";
    assert!(stderr.contains(named) && stderr.contains("(line 2)"), "{stderr}");
    // A token that the tokenizer_config.json adds has no row in the embedding.
    let place = with_tokenizer(|_| {});
    place.write("m/tokenizer_config.json", json!({"eos_token": "<new>"}).to_string());
    let prompt = ["generate", "m", "--prompt", "<new>", "--max-new-tokens", "1"];
    let stderr = said(&place, &prompt);
    assert!(stderr.contains("error: m/tokenizer_config.json: token `<new>` has id "), "{stderr}");
    let stderr = said(&place, &["export", "m", "--to", "out"]);
    assert!(stderr.contains("error: m/tokenizer_config.json: the tokenizer has "), "{stderr}");
    // One that is in the tokenizer.json.
    let place = with_tokenizer(|json| {
        json["model"]["vocab"]["zzz"] = json!(5000);
    });
    let stderr = said(&place, &["export", "m", "--to", "out"]);
    assert!(stderr.contains("error: m/tokenizer.json: "), "{stderr}");
}

#[test]
fn templates_pay_for_their_work() {
    let chat = ["generate", "m", "--chat", "--prompt", "hi", "--max-new-tokens", "1"];
    let looped = |set: &str, step: &str| {
        format!("{{% {set} %}}{{% for i in range(100000) %}}{step}{{% endfor %}}")
    };
    for template in [
        looped("set d={'a'*2000000: 1}", "{% set b=d['a'*2000000] %}"),
        looped("set k='a'*2000000", "{% set b={k: 1} %}"),
        looped("set k='a'*2000000", "{% set b={'x': 1}[k] %}"),
        looped("set k='a'*2000000", "{% set b={'x': 1}.get(k) %}"),
        looped("set k='a'*2000000", "{% set b=(k == k ~ '') %}"),
        looped("set k='a'*2000000", "{% set b=k in {} %}"),
        looped("set a='é'*1000000", "{% set b=a[-1] %}"),
        looped("set a='é'*1000000", "{% set b=a[999999] %}"),
        looped("set a='é'*1000000", "{% set b=a[999998:999999] %}"),
        looped("set a='é'*1000000", "{% set b=a.isdigit() %}"),
        looped("set a='é'*1000000", "{% set b=a|length %}"),
        looped("set a='é'*1000000", "{% for c in a %}{% break %}{% endfor %}"),
        looped("set ns=namespace(l=[1])", "{% set ns.l=ns.l[:] %}"),
        looped("set ns=namespace(l=[1])", "{% set ns.l=ns.l|reverse %}"),
        looped("set ns=namespace(l=[1])", "{% set ns.l=[ns.l] %}"),
        looped("set ns=namespace(l='a')", "{% set ns.l=ns.l~ns.l %}"),
        "{{ 'a' * 10**9 }}".to_owned(),
        "{{ [0] * 10**9 }}".to_owned(),
        "{% for i in range(10**9) %}{% endfor %}".to_owned(),
        "{{ range(10**9)|list|length }}".to_owned(),
        "{{ range(10**9)|join(',') }}".to_owned(),
        "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}".to_owned(),
        "{% for i in [[[]]] recursive %}{{ loop([[i]]) }}{% endfor %}".to_owned(),
        "{{ '%1000000000d' % 1 }}".to_owned(),
        "{{ 'x'.ljust(10**9) }}".to_owned(),
        "{{ 9**9**9**9 }}".to_owned(),
    ] {
        let place = with_template(&template);
        let outcome = bounded(&place, &chat);
        assert!(matches!(outcome.code, Some(0 | 2)), "{template}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}

fn plan_of(file: &str, bytes: impl AsRef<[u8]>) -> Outcome {
    let place = Place::new();
    place.write(file, bytes).write("r.toml", tiny_recipe(&format!("{{ path = \"{file}\" }}"), ""));
    bounded(&place, &["plan", "r.toml", "--no-probe"])
}

#[test]
fn many_columns_are_refused() {
    let names: Vec<String> = (0..100_000).map(|number| format!("c{number}")).collect();
    let values = vec!["1"; 100_001].join(",");
    let outcome = plan_of("t.csv", format!("text,{}\n{values}\n", names.join(",")));
    assert_refused(&outcome, &["columns over the limit of 10000: `100001`"]);
    // The largest header that is accepted is read as quickly.
    let values = vec!["1"; 9999].join(",");
    let rows = format!("text,{}\nabc,{values}\n", names[..9999].join(","));
    let outcome = plan_of("t.csv", rows);
    assert!(matches!(outcome.code, Some(0 | 2)), "{}", outcome.stderr);
}

#[test]
fn compressed_bombs_are_refused() {
    let blank = vec![b' '; 1 << 20];
    let mut zst = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for number in 0..600 {
        zst.write_all(&blank).expect("compressed");
        if number < 300 {
            gz.write_all(&blank).expect("compressed");
        }
    }
    let (zst, gz) = (zst.finish().expect("compressed"), gz.finish().expect("compressed"));
    for name in ["x.json.zst", "x.csv.zst", "x.parquet.zst"] {
        let outcome = plan_of(name, &zst);
        assert_refused(&outcome, &[name]);
    }
    for name in ["x.jsonl.gz", "x.parquet.gz"] {
        assert_refused(&plan_of(name, &gz), &[name]);
    }
}

#[test]
fn counts_on_the_command_line_are_limited() {
    let place = with_tokenizer(|_| {});
    let prompt = ["generate", "m", "--prompt", "a", "--n", "1000000000"];
    assert_refused(&bounded(&place, &prompt), &["1000000000"]);
    place.write("text.txt", "abc ".repeat(1000));
    place.write("r.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    let inspect = ["data", "inspect", "r.toml", "--n", "1000000000"];
    assert_refused(&bounded(&place, &inspect), &["1000000000"]);
}

#[test]
fn many_json_values_are_refused() {
    let place = with_tokenizer(|_| {});
    let many = format!("[{}{{\"\":0}}]", "{\"\":0},".repeat(600_000));
    place.write("m.json", format!("[{{\"role\":\"user\",\"content\":\"a\",\"x\":{many}}}]"));
    let render = ["tokenizer", "render", "m", "--messages", "m.json"];
    assert_refused(&bounded(&place, &render), &[]);
    let few = format!("[{}{{\"\":0}}]", "{\"\":0},".repeat(120_000));
    place.write("p.jsonl", format!("{{\"prompt\":\"a\",\"x\":{many}}}\n"));
    let generate = ["generate", "m", "--prompts", "p.jsonl", "--max-new-tokens", "1"];
    assert_refused(&bounded(&place, &generate), &["p.jsonl:1: a line of more than"]);
    place.write("p.jsonl", format!("{{\"prompt\":\"a\",\"x\":{few}}}\n"));
    let outcome = bounded(&place, &generate);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn long_lines_are_refused() {
    let place = with_tokenizer(|_| {});
    place.write("long.txt", format!("short\n{}\n", "ab ".repeat(2 << 20)));
    for command in ["encode", "decode"] {
        let outcome = bounded(&place, &["tokenizer", command, "m", "--file", "long.txt"]);
        assert_refused(&outcome, &["long.txt:"]);
    }
    let outcome = bounded(&place, &["tokenizer", "encode", "m", "--file", "long.txt"]);
    assert_refused(&outcome, &["long.txt:2: a line of more than 1048576 bytes"]);
}

#[test]
fn control_characters_of_files_are_not_printed() {
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}";
    let no_controls = |text: &str| {
        let bad = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(!text.contains(bad), "{text:?}");
    };
    let place = Place::new();
    let line = json!({ format!("key{hostile}"): "abc ".repeat(50) }).to_string();
    place.write("rows.jsonl", format!("{line}\n"));
    place.write("r.toml", tiny_recipe("{ path = \"rows.jsonl\" }", ""));
    let outcome = bounded(&place, &["plan", "r.toml", "--no-probe"]);
    assert!(outcome.stdout.contains("key\\u001b[2J\\u009b31m\\u202e"), "{}", outcome.stdout);
    no_controls(&outcome.stdout);
    no_controls(&outcome.stderr);
    place.write("r.toml", format!("[pretrain]\n\"x{hostile}\" = 1\n"));
    no_controls(&bounded(&place, &["plan", "r.toml"]).stderr);
    let place = with_template(&format!("{{{{ raise_exception('{hostile}') }}}}"));
    let outcome = bounded(&place, &["generate", "m", "--chat", "--prompt", "hi"]);
    assert_refused(&outcome, &["\\u001b[2J"]);
    no_controls(&outcome.stderr);
    // The text of a model is as foreign as its files.
    let place = with_tokenizer(|json| {
        json["decoder"] = json!({"type": "Replace", "pattern": {"Regex": "."}, "content": hostile});
    });
    let outcome = place.temper_with_input(&["chat", "m", "--max-new-tokens", "4"], "hi\n");
    no_controls(&outcome.stdout);
    no_controls(&outcome.stderr);
    let outcome = bounded(&place, &["generate", "m", "--prompt", "a", "--max-new-tokens", "4"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    no_controls(&outcome.stdout);
    let line: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert!(line["completion"].as_str().is_some_and(|text| text.contains('\u{9b}')), "{line}");
}

#[cfg(unix)]
#[test]
fn a_file_that_is_no_file_is_not_absent() {
    for name in ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"] {
        for kind in ["fifo", "link"] {
            let place = with_tokenizer(|_| {});
            let path = place.path().join("m").join(name);
            if path.exists() {
                fsio::remove_file(&path).expect("removed");
            }
            if kind == "fifo" {
                make_fifo(&path);
            } else {
                std::os::unix::fs::symlink("nowhere", &path).expect("a link");
            }
            place.write("rows.jsonl", row("hello"));
            assert_refused(&bounded(&place, &EVAL), &[name]);
        }
    }
}

#[cfg(unix)]
#[test]
fn data_that_is_a_pipe_is_refused() {
    let place = Place::new();
    make_fifo(&place.path().join("rows.jsonl"));
    place.write("r.toml", tiny_recipe("{ path = \"rows.jsonl\" }", ""));
    assert_refused(&bounded(&place, &["plan", "r.toml"]), &["rows.jsonl"]);
}

#[cfg(unix)]
#[test]
fn a_device_as_data_is_no_regular_file() {
    let place = Place::new();
    for name in ["zero.jsonl", "zero.csv", "zero.parquet", "zero.arrow"] {
        std::os::unix::fs::symlink("/dev/zero", place.path().join(name)).expect("a link");
        let outcome = bounded(&place, &["data", "inspect", name]);
        assert_eq!(outcome.code, Some(2), "{name}");
        assert!(outcome.stderr.contains("not a regular file"), "{name}: {}", outcome.stderr);
    }
}

#[cfg(unix)]
fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

#[cfg(unix)]
#[test]
fn a_recipe_whose_path_is_not_utf_8_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    let name = OsStr::from_bytes(b"r\xff.toml");
    place.write("text.txt", "abc ".repeat(1000));
    let recipe = format!("name = \"named\"\n{}", tiny_recipe("{ path = \"text.txt\" }", ""));
    fsio::write_atomic(place.path().join(name), recipe).expect("a file");
    for command in ["plan", "run"] {
        let output = Command::new(env!("CARGO_BIN_EXE_temper"))
            .arg(command)
            .arg(name)
            .current_dir(place.path())
            .output()
            .expect("the binary runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{command}: {stderr}");
        assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
        assert!(stderr.contains("the path is not UTF-8"), "{command}: {stderr}");
    }
    assert!(!place.path().join("runs").exists(), "nothing is written for it");
}

/// An argument that reverses the order of a line in a terminal.
#[test]
fn wrong_arguments_are_shown_without_control_characters() {
    for option in ["--threads", "--log"] {
        let outcome = bounded(&Place::new(), &["run", "r.toml", option, "\u{202e}x"]);
        assert_eq!(outcome.code, Some(2), "{option}");
        assert!(outcome.stderr.contains("\\u202ex"), "{option}: {}", outcome.stderr);
    }
}

#[test]
fn damaged_arrow_files_are_errors_without_the_text_of_a_panic() {
    let place = Place::new();
    place.write("r.toml", tiny_recipe("{ path = \"in.arrow\" }", ""));
    let good = include_bytes!("../../../../tests/hostile/seeds/small.arrow");
    let mut n_refused = 0;
    for at in (8..good.len()).step_by(211) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0xff;
        place.write("in.arrow", bytes);
        let outcome = bounded(&place, &["data", "inspect", "r.toml"]);
        assert!(matches!(outcome.code, Some(0 | 2)), "byte {at}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "byte {at}: {}", outcome.stderr);
        n_refused += usize::from(outcome.code == Some(2));
    }
    assert!(n_refused > 3, "{n_refused}");
}

#[test]
fn deep_and_huge_numbers_in_files_of_a_model_are_errors() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for (name, bytes) in [
        ("config.json", deep.clone().into_bytes()),
        ("config.json", deep_object.into_bytes()),
        ("tokenizer_config.json", deep.clone().into_bytes()),
        ("generation_config.json", deep.into_bytes()),
        ("model.safetensors", u64::MAX.to_le_bytes().to_vec()),
        ("model.safetensors", [&8u64.to_le_bytes()[..], b"{\"a\":[[["].concat()),
        ("model.safetensors", header("[18446744073709551615, 2]", "[0, 4]")),
        ("model.safetensors", header("[4294967296, 4294967296]", "[0, 0]")),
        ("model.safetensors", header("[1]", "[0, 18446744073709551615]")),
        ("model.safetensors", header("[1]", "[8, 4]")),
    ] {
        let place = with_tokenizer(|_| {});
        place.write(&format!("m/{name}"), &bytes).write("rows.jsonl", row("hello"));
        assert_refused(&bounded(&place, &EVAL), &[]);
    }
}

/// A safetensors file whose only tensor has this shape and these offsets.
fn header(shape: &str, offsets: &str) -> Vec<u8> {
    let json = format!(
        "{{\"model.embed_tokens.weight\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
    );
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0; 4]].concat()
}

#[test]
fn huge_sizes_in_a_config_are_errors() {
    for (key, value) in [
        ("hidden_size", json!(u64::MAX)),
        ("hidden_size", json!(1u64 << 40)),
        ("num_hidden_layers", json!(1u64 << 40)),
        ("num_hidden_layers", json!(100_000_000)),
        ("vocab_size", json!(u32::MAX)),
        ("vocab_size", json!(i64::MAX)),
        ("intermediate_size", json!(1u64 << 62)),
        ("max_position_embeddings", json!(i64::MAX)),
        ("num_attention_heads", json!(0)),
        ("head_dim", json!(1u64 << 63)),
        ("rope_theta", json!(1e308)),
        ("rms_norm_eps", json!(-1e308)),
    ] {
        let place = with_tokenizer(|_| {});
        let files = &model().files;
        let config = files.iter().find(|(name, _)| name == "config.json").map(|(_, bytes)| bytes);
        let mut config: Value = serde_json::from_slice(config.expect("a file")).expect("JSON");
        config[key] = value;
        place.write("m/config.json", config.to_string()).write("rows.jsonl", row("hello"));
        let outcome = bounded(&place, &EVAL);
        assert!(matches!(outcome.code, Some(0 | 2)), "{key}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{key}: {}", outcome.stderr);
    }
}

#[test]
fn damaged_gguf_and_sentencepiece_files_are_errors() {
    let magic = b"GGUF\x03\0\0\0";
    let count = |tensors: u64, keys: u64, rest: &[u8]| {
        [&magic[..], &tensors.to_le_bytes(), &keys.to_le_bytes(), rest].concat()
    };
    let long = u64::MAX.to_le_bytes();
    // An array (type 9) of arrays of arrays, and one of 2^63 numbers.
    let key = |rest: &[u8]| [&1u64.to_le_bytes()[..], b"k", rest].concat();
    let arrays = key(&[
        9u32.to_le_bytes().to_vec(),
        [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(100_000),
    ]
    .concat());
    let numbers =
        key(&[&9u32.to_le_bytes()[..], &4u32.to_le_bytes(), &(1u64 << 63).to_le_bytes()].concat());
    for bytes in [
        count(u64::MAX, 0, &[]),
        count(0, u64::MAX, &[]),
        count(0, 1, &long),
        count(0, 1, &arrays),
        count(0, 1, &numbers),
        count(1, 0, &long),
        count(1, 0, &key(&u32::MAX.to_le_bytes())),
    ] {
        let place = Place::new();
        place.write("m.gguf", bytes).write("rows.jsonl", row("hello"));
        let outcome = bounded(&place, &["eval", "m.gguf", "--file", "rows.jsonl"]);
        assert_refused(&outcome, &["m.gguf"]);
    }
    for bytes in [
        vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        vec![0xff; 64],
        [&[0x0a, 0x80, 0x80, 0x80, 0x80, 0x08][..], &[0; 64]].concat(),
        vec![0x0b; 100_000],
    ] {
        let place = with_tokenizer(|_| {});
        fsio::remove_file(place.path().join("m/tokenizer.json")).expect("removed");
        place.write("m/tokenizer.model", bytes).write("rows.jsonl", row("hello"));
        assert_refused(&bounded(&place, &EVAL), &["tokenizer"]);
    }
}

#[test]
fn deep_recipes_are_errors() {
    for recipe in [
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}", "{a=".repeat(100_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]", vec!["a"; 100_000].join(".")),
        format!("x = \"{}\"", "a".repeat(2 << 20)),
    ] {
        let place = Place::new();
        place.write("r.toml", recipe);
        assert_refused(&bounded(&place, &["plan", "r.toml"]), &["r.toml"]);
    }
}
