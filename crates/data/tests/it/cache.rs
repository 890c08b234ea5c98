//! The token cache: built once, keyed by everything that the builder reads, refused when damaged.

use std::path::Path;

use data::{Content, Dataset, PrepareOptions, Prepared, Progress, SourceSpec, cache_key, prepare};
use recipe::{Columns, OnBadRow, Packing, RowLayout, Rows, Template};
use tokenizer::{ChatTemplate, Tokenizer};

use crate::formats::{arrow_file, parquet_bytes};
use crate::support::{bpe, chars, file, folder, gzip, prepared, run, shared_data};

/// The tokens of a cache in order, as one stream.
fn tokens(prepared: &Prepared, n_tokens: usize) -> Vec<u32> {
    let options = run(n_tokens + 1, 1, 1.0);
    let batch = Dataset::pretrain(prepared, &options, Packing::Stream).unwrap().batch(0);
    let used = batch.segments.iter().filter(|segment| **segment >= 0).count();
    let last = batch.targets[used - 1] as u32;
    batch.ids[..used].iter().copied().chain([last]).collect()
}

fn options<'a>(cache: &'a Path, tokenizer: &'a Tokenizer) -> PrepareOptions<'a> {
    PrepareOptions {
        cache_dir: cache,
        tokenizer,
        content: Content::Documents,
        on_bad_row: OnBadRow::Stop,
        max_bad_rows: 0,
        check_prompts: true,
    }
}

/// Prepares one source; also returns whether anything was tokenized.
fn prepare_one(cache: &Path, spec: &SourceSpec, tokenizer: &Tokenizer) -> (Prepared, bool) {
    let options = options(cache, tokenizer);
    let mut reports: Vec<Progress> = Vec::new();
    let mut note = |progress: &Progress| reports.push(progress.clone());
    let prepared = prepare(std::slice::from_ref(spec), &options, &mut note).unwrap();
    if let Some(last) = reports.last() {
        assert_eq!((last.bytes_read, last.n_sources), (last.n_bytes, 1));
        assert!(last.n_tokens > 0);
    }
    (prepared, !reports.is_empty())
}

/// The error of a cache that cannot be used.
fn refused(cache: &Path, spec: &SourceSpec, tokenizer: &Tokenizer) -> data::Error {
    prepare(std::slice::from_ref(spec), &options(cache, tokenizer), &mut |_| ())
        .expect_err("a damaged cache")
}

/// The last report of the progress of a source.
fn last_report(spec: &SourceSpec, content: Content<'_>) -> Progress {
    let (folder, tokenizer) = (folder(), chars());
    let options = PrepareOptions {
        content,
        on_bad_row: OnBadRow::Skip,
        max_bad_rows: 10,
        ..options(folder.path(), &tokenizer)
    };
    let mut last = None;
    prepare(std::slice::from_ref(spec), &options, &mut |report| last = Some(report.clone()))
        .unwrap();
    last.expect("a report")
}

/// The footer of a parquet file and the columns that nobody needs are not read.
#[test]
fn progress_ends_at_the_end_of_every_file() {
    let folder = folder();
    for (name, bytes) in [("t.parquet", parquet_bytes()), ("t.arrow", arrow_file(false))] {
        let spec = SourceSpec::file(file(folder.path(), name, bytes));
        let last = last_report(&spec, Content::Documents);
        assert_eq!((last.bytes_read, last.unit), (last.n_bytes, "documents"), "{name}");
    }
}

#[test]
fn progress_counts_pairs_and_not_their_texts() {
    let folder = folder();
    let row = "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n";
    let spec = SourceSpec::file(file(folder.path(), "t.jsonl", row.repeat(3)));
    let template = ChatTemplate::builtin("chatml").unwrap();
    let last = last_report(&spec, Content::Pairs(&template));
    assert_eq!((last.n_rows, last.unit), (3, "pairs"));
}

#[test]
fn a_source_is_tokenized_once() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let text = "the cat sat on the mat";
    let mut spec = SourceSpec::file(file(folder.path(), "t.txt", text));
    let tokenizer = bpe();
    let ids = tokenizer.encode_plain(text).unwrap();
    let (first, made) = prepare_one(&cache, &spec, &tokenizer);
    assert!(made);
    assert_eq!(tokens(&first, 100), ids);
    spec.weight = 3.0;
    let (second, made) = prepare_one(&cache, &spec, &tokenizer);
    assert!(!made, "nothing changed but a weight");
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    // The same content under another name has the same key.
    let moved = SourceSpec::file(file(folder.path(), "moved.txt", text));
    assert!(!prepare_one(&cache, &moved, &tokenizer).1);
    // Other content of the same length has another key.
    file(folder.path(), "t.txt", "the cat sat on the man");
    let (third, made) = prepare_one(&cache, &spec, &tokenizer);
    assert!(made);
    assert_ne!(tokens(&third, 100), ids);
}

#[test]
fn a_damaged_cache_is_named() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let spec = SourceSpec::file(file(folder.path(), "t.txt", "the cat sat on the mat"));
    let tokenizer = bpe();
    let (first, _) = prepare_one(&cache, &spec, &tokenizer);
    let ids = tokens(&first, 100);
    let dir = cache.join(first.keys().next().unwrap());
    for name in ["tokens.bin", "offsets.bin", "hashes.bin", "locations.bin", "MANIFEST"] {
        let path = dir.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        for damaged in [&bytes[..], &bytes[..middle]] {
            file(&dir, name, damaged);
            let error = refused(&cache, &spec, &tokenizer);
            let message = error.to_string();
            assert!(matches!(error, data::Error::DamagedCache { .. }), "{message}");
            assert!(message.contains(&format!(": {name}: ")), "{message}");
            assert!(error.hint().is_some_and(|hint| hint.contains("remove")), "{message}");
        }
        bytes[middle] ^= 1;
        file(&dir, name, &bytes);
        let (again, made) = prepare_one(&cache, &spec, &tokenizer);
        assert!(!made, "{name} is whole again");
        assert_eq!(tokens(&again, 100), ids);
    }
    fsio::remove_dir_all(&dir).unwrap();
    assert!(prepare_one(&cache, &spec, &tokenizer).1, "it is built again");
}

/// White space alone is no document, though it has tokens.
#[test]
fn a_text_file_of_white_space_is_empty() {
    let folder = folder();
    let (cache, tokenizer) = (folder.path().join("cache"), bpe());
    let blank = " \n\t\n".repeat(100_000);
    let spec = SourceSpec::file(file(folder.path(), "blank.txt", &blank));
    let error = refused(&cache, &spec, &tokenizer).to_string();
    assert!(error.ends_with("blank.txt: file is empty"), "{error}");
    let spec = SourceSpec::file(file(folder.path(), "text.txt", format!("{blank}x")));
    prepare_one(&cache, &spec, &tokenizer);
    // Of a file that begins with empty lines, a limit may leave these alone.
    let path = file(folder.path(), "cut.txt", "\n\n\ntext\n");
    prepare_one(&cache, &SourceSpec { limit: Some(2), ..SourceSpec::file(path) }, &tokenizer);
}

/// Rows are treated as text files are: they are counted, and nothing is trained on them.
#[test]
fn rows_of_white_space_are_empty() {
    let folder = folder();
    let (cache, tokenizer) = (folder.path().join("cache"), bpe());
    let counts = |name: &str, rows: &str| {
        let spec = SourceSpec::file(file(folder.path(), name, rows));
        let prepared = prepare_one(&cache, &spec, &tokenizer).0;
        let dataset = Dataset::pretrain(&prepared, &run(2, 1, 1.0), Packing::Stream).unwrap();
        let counts = dataset.counts();
        (counts.rows, counts.samples, counts.empty)
    };
    let row = |text: &str| format!("{{\"text\": \"{text}\"}}\n");
    let rows = row("a text") + &row(" \\n\\t ") + &row("") + &row(" b c d ");
    assert_eq!(counts("x.jsonl", &rows), (4, 2, 2));
    assert_eq!(counts("x.csv", "text\na text\n\"  \"\n b c d \n"), (3, 2, 1));
}

#[test]
fn the_key_covers_every_input_and_nothing_else() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let rows = "{\"prompt\": \"p\", \"completion\": \"c\", \"text\": \"t\"}\n";
    let base = SourceSpec::file(file(folder.path(), "a.jsonl", rows));
    let (tokenizer, other_tokenizer) = (chars(), bpe());
    let chatml = ChatTemplate::builtin("chatml").unwrap();
    let plain = ChatTemplate::builtin("plain").unwrap();
    let key_of = |spec: &SourceSpec, tokenizer: &Tokenizer, content: Content<'_>| {
        let options = PrepareOptions {
            cache_dir: &cache,
            tokenizer,
            content,
            on_bad_row: OnBadRow::Stop,
            max_bad_rows: 0,
            check_prompts: true,
        };
        cache_key(spec, &options).unwrap()
    };
    let key = |spec: &SourceSpec| {
        key_of(spec, &tokenizer, Content::Chats(&chatml, recipe::ChatTargets::default()))
    };
    let changed = |change: &dyn Fn(&mut SourceSpec)| {
        let mut spec = base.clone();
        change(&mut spec);
        key(&spec)
    };
    let column = || Some("prompt".to_owned());
    let template = |text: &str| Some(Template::parse(text).unwrap());
    let templates = |prompt: &str, completion: &str, text: &str| Rows {
        prompt: template(prompt),
        completion: template(completion),
        text: template(text),
        ..Rows::default()
    };
    let named = |change: &dyn Fn(&mut Columns)| {
        let mut columns = Columns::default();
        change(&mut columns);
        changed(&|spec| spec.columns = Some(columns.clone()))
    };
    let other_content = file(folder.path(), "b.jsonl", rows.replace("\"t\"", "\"u\""));
    let packed = file(folder.path(), "a.jsonl.gz", gzip(rows.as_bytes()));
    let array = file(folder.path(), "a.json", rows);
    let keys = [
        key(&base),
        key_of(&base, &other_tokenizer, Content::Chats(&chatml, recipe::ChatTargets::default())),
        key_of(&base, &tokenizer, Content::Chats(&plain, recipe::ChatTargets::default())),
        key_of(&base, &tokenizer, Content::Documents),
        changed(&|spec| spec.files = vec![other_content.clone()].into()),
        changed(&|spec| spec.files = vec![packed.clone()].into()),
        changed(&|spec| spec.files = vec![array.clone()].into()),
        changed(&|spec| spec.files.paths.push(other_content.clone())),
        changed(&|spec| spec.files.paths.insert(0, other_content.clone())),
        changed(&|spec| spec.layout = RowLayout::PromptCompletion),
        changed(&|spec| spec.layout = RowLayout::Messages),
        changed(&|spec| spec.text = column()),
        changed(&|spec| spec.rows = Some(templates("{prompt}", "{text}", "{text}"))),
        changed(&|spec| spec.rows = Some(templates("{prompt}!", "{text}", "{text}"))),
        changed(&|spec| spec.rows = Some(templates("{prompt}", "{text}!", "{text}"))),
        changed(&|spec| spec.rows = Some(templates("{prompt}", "{text}", "{text}!"))),
        named(&|columns| columns.prompt = column()),
        named(&|columns| columns.completion = column()),
        named(&|columns| columns.messages = column()),
        named(&|columns| columns.instruction = column()),
        named(&|columns| columns.input = column()),
        named(&|columns| columns.output = column()),
        changed(&|spec| spec.limit = Some(1)),
        changed(&|spec| spec.limit = Some(2)),
        changed(&|spec| spec.files.options.field = Some("data".into())),
        changed(&|spec| spec.files.options.delimiter = Some(b';')),
        changed(&|spec| spec.files.options.max_row_bytes = Some(99)),
        changed(&|spec| spec.files.indices = vec![other_content.clone()]),
        changed(&|spec| spec.files.indices = vec![array.clone()]),
    ];
    for (index, one) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(one), "input number {index} does not change the key");
    }
    let renamed = file(folder.path(), "elsewhere/z.jsonl", rows);
    assert_eq!(changed(&|spec| spec.files = vec![renamed.clone()].into()), keys[0]);
    assert_eq!(changed(&|spec| spec.weight = 0.5), keys[0]);
    assert_eq!(changed(&|spec| spec.files.choice = Some("split".into())), keys[0]);
    assert_eq!(changed(&|spec| spec.path = "other".into()), keys[0]);
    assert_eq!(changed(&|spec| spec.format = Some(recipe::Format::Jsonl)), keys[0]);
    // Texts for training a tokenizer have keys of their own.
    let texts_key = |spec: &SourceSpec, chats| {
        data::texts_key(std::slice::from_ref(spec), chats, &cache).unwrap()
    };
    assert_ne!(
        texts_key(&base, data::SampleKind::Chats),
        texts_key(&base, data::SampleKind::Documents)
    );
    let mut limited = base.clone();
    limited.limit = Some(1);
    assert_ne!(
        texts_key(&base, data::SampleKind::Chats),
        texts_key(&limited, data::SampleKind::Chats)
    );
}

/// Words and line breaks of all kinds, long enough to be split into chunks.
fn long_text() -> String {
    let words =
        ["the", "cat", " sat\n", "on", "\n\n", "  the", "mat.", "'s", "1234", "naïve", "\t"];
    let mut rng = seed::Rng::new(5);
    let mut text = String::new();
    while text.len() < 700 << 10 {
        text.push_str(words[rng.below(words.len() as u64) as usize]);
        if rng.below(3) > 0 {
            text.push(' ');
        }
    }
    text
}

#[test]
fn chunks_of_a_long_document_have_the_ids_of_the_whole() {
    let folder = folder();
    let text = long_text();
    let as_row = format!("{}\n", serde_json::json!({ "text": text }));
    for tokenizer in [bpe(), chars()] {
        let ids = tokenizer.encode_plain(&text).unwrap();
        for (name, bytes) in [("long.txt", &text), ("long.jsonl", &as_row)] {
            let spec = SourceSpec::file(file(folder.path(), name, bytes));
            let prepared =
                prepared(folder.path(), &[spec], &tokenizer, Content::Documents).unwrap();
            assert!(tokens(&prepared, ids.len()) == ids, "{name}: other ids than the whole text's");
        }
    }
}

#[test]
fn chunks_of_real_books_have_the_ids_of_the_whole() {
    let Some(data) = shared_data() else {
        println!("skipped: no shared data");
        return;
    };
    let folder = folder();
    for (family, book) in [
        ("gpt2", "moby-dick.txt.gz"),
        ("gpt-neox-20b", "wagahai-neko-ja.txt.gz"),
        ("gpt-neox-20b", "frankenstein.txt.gz"),
        ("phi-3-mini", "alice-in-wonderland.txt.gz"),
    ] {
        let tokenizer = match Tokenizer::from_dir_or_file(data.join("tokenizers").join(family)) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                println!("skipped {family}: {error}");
                continue;
            }
        };
        let spec = SourceSpec::file(data.join("pretrain").join(book));
        let mut text = String::new();
        data::texts(std::slice::from_ref(&spec), data::SampleKind::Documents, &mut |piece| {
            text.push_str(&piece);
        })
        .unwrap();
        let ids = tokenizer.encode_plain(&text).unwrap();
        let prepared = prepared(folder.path(), &[spec], &tokenizer, Content::Documents).unwrap();
        assert!(tokens(&prepared, ids.len()) == ids, "{family}: other ids than the whole book's");
        println!("{family}: {} tokens of {book}", ids.len());
    }
}

#[test]
fn leftovers_of_killed_processes_are_removed() {
    let folder = folder();
    let cache = folder.path().join("cache");
    file(&cache, "dead.tmp-4194999/tokens.bin", "half");
    let mut live = fsio::DirWriter::begin(cache.join("live")).unwrap();
    live.write("tokens.bin", "being written").unwrap();
    let own = live.tmp_dir().join("tokens.bin");
    let spec = SourceSpec::file(file(folder.path(), "t.txt", "the cat"));
    prepare_one(&cache, &spec, &bpe());
    assert!(!cache.join("dead.tmp-4194999").exists());
    assert!(own.exists());
}
