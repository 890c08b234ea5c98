//! Complete downloads, interrupted ones, and directories that exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hub::{Error, Reason};
use hub_local::{RECORD_FILE, read_record};

use crate::server::{COMMIT, Reply, Repo};
use crate::support::{Events, Hub, TOKEN, bytes, large, model, named, request, small, tree};

#[test]
fn a_model_arrives_whole() {
    let hub = Hub::new(model());
    let place = tempfile::tempdir().expect("a directory");
    let mut events = Events::default();
    let outcome = hub.get_as(&request(place.path()), &mut events).expect("a download");
    let dir = place.path().join("models/o/m");
    assert_eq!(outcome.dir, dir);
    assert_eq!(outcome.revision, COMMIT);
    assert_eq!((outcome.n_files, outcome.n_transferred), (6, 6));
    let files = [
        "README.md",
        "config.json",
        "empty.json",
        "model.safetensors",
        "sub/a b.json",
        "tokenizer.json",
    ];
    let mut expected: Vec<&str> = [RECORD_FILE].into_iter().chain(files).collect();
    expected.sort_unstable();
    assert_eq!(tree(&dir), expected);
    assert_eq!(std::fs::read(dir.join("model.safetensors")).expect("weights"), bytes(1_000_000));
    assert_eq!(
        tree(place.path().join("models/o").as_path()).len(),
        expected.len() + 1,
        "only the lock is left"
    );
    let left_out: Vec<(&str, Reason)> =
        outcome.left_out.iter().map(|file| (file.path.as_str(), file.reason)).collect();
    assert_eq!(
        left_out,
        [(".gitattributes", Reason::OnRequest), ("pytorch_model.bin", Reason::Format)]
    );
    let record = read_record(&dir).expect("readable").expect("a record");
    assert_eq!(
        (record.source.as_str(), record.revision.as_str(), record.complete),
        ("hf:o/m", COMMIT, true)
    );
    assert_eq!(record.files["model.safetensors"].sha256, fsio::sha256_hex(&bytes(1_000_000)));
    assert_eq!(record.files["config.json"].bytes, 24);
    assert!(events.has("Listed") && events.has("Finished"));
}

#[test]
fn the_token_stays_with_the_hub() {
    let hub = Hub::new(model());
    let place = tempfile::tempdir().expect("a directory");
    hub.get(place.path()).expect("a download");
    let bearer = format!("Bearer {TOKEN}");
    let of_hub = hub.hub.requests();
    assert!(of_hub.len() > 5);
    assert!(
        of_hub.iter().all(|request| request.header("authorization") == Some(&bearer)),
        "{of_hub:?}"
    );
    let of_cdn = hub.cdn.requests();
    assert_eq!(of_cdn.len(), 1);
    assert!(of_cdn.iter().all(|request| request.header("authorization").is_none()), "{of_cdn:?}");
    assert!(of_cdn.iter().all(|request| !format!("{request:?}").contains(TOKEN)), "{of_cdn:?}");
}

#[test]
fn an_interrupted_file_continues() {
    let n_sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_sent);
    let hub = Hub::changed(
        model(),
        |_, reply| reply,
        move |_, mut reply| {
            reply.cut_after = Some(300_000);
            counter.fetch_add(reply.body.len().min(300_000), Ordering::SeqCst);
            reply
        },
    );
    let place = tempfile::tempdir().expect("a directory");
    hub.get(place.path()).expect("a download");
    let weights = place.path().join("models/o/m/model.safetensors");
    assert_eq!(std::fs::read(weights).expect("weights"), bytes(1_000_000));
    assert_eq!(n_sent.load(Ordering::SeqCst), 1_000_000, "no byte is sent twice");
    let ranges: Vec<Option<String>> = hub
        .cdn
        .requests()
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=300000-".to_owned()),
            Some("bytes=600000-".to_owned()),
            Some("bytes=900000-".to_owned())
        ]
    );
    let tags =
        hub.cdn.requests().iter().filter(|request| request.header("if-range").is_some()).count();
    assert_eq!(tags, 3);
}

/// A server that breaks off after a few bytes and then refuses, as when the process is killed; the next run finishes.
#[test]
fn the_next_run_uses_the_part() {
    let n_requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_requests);
    let hub = Hub::changed(
        model(),
        |_, reply| reply,
        move |_, mut reply| {
            match counter.fetch_add(1, Ordering::SeqCst) {
                0 => reply.cut_after = Some(123_456),
                1..=5 => return Reply::new(503),
                _ => {}
            }
            reply
        },
    );
    let place = tempfile::tempdir().expect("a directory");
    let error = hub.get(place.path()).expect_err("503");
    assert!(matches!(error, Error::Status { status: 503, .. }), "{error}");
    assert!(!place.path().join("models/o/m").exists(), "nothing has the final name");
    let mut events = Events::default();
    let outcome = hub.get_as(&request(place.path()), &mut events).expect("the rest");
    assert_eq!(
        std::fs::read(outcome.dir.join("model.safetensors")).expect("weights"),
        bytes(1_000_000)
    );
    assert!(
        events.has("Resumed { path: \"model.safetensors\", bytes: 123456 }"),
        "{:?}",
        events.lines
    );
    let last = hub.cdn.requests().pop().expect("a request");
    assert_eq!(last.header("range"), Some("bytes=123456-"));
}

/// The content changes under the same commit's listing: the part is dropped, and the file starts again.
#[test]
fn a_changed_tag_starts_the_file_again() {
    let n_requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_requests);
    let hub = Hub::changed(
        model(),
        |_, reply| reply,
        move |request, mut reply| {
            if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                reply.headers.retain(|(name, _)| name != "ETag");
                reply.body = vec![7; reply.body.len()];
                reply.cut_after = Some(400_000);
                return reply.with("ETag", "\"old\"");
            }
            assert!(request.header("if-range").is_none_or(|tag| tag == "\"old\""));
            reply
        },
    );
    let place = tempfile::tempdir().expect("a directory");
    let outcome = hub.get(place.path()).expect("a download");
    assert_eq!(
        std::fs::read(outcome.dir.join("model.safetensors")).expect("weights"),
        bytes(1_000_000)
    );
    let second = hub.cdn.requests()[1].clone();
    assert_eq!(
        (second.header("range"), second.header("if-range")),
        (Some("bytes=400000-"), Some("\"old\""))
    );
    assert_eq!(hub.cdn.requests().len(), 2);
}

/// A part that was damaged on the disk: the hash finds it, and the file is transferred again.
#[test]
fn a_damaged_part_is_found() {
    let place = tempfile::tempdir().expect("a directory");
    let hub = Hub::new(model());
    let oid = fsio::sha256_hex(&bytes(1_000_000));
    let part = place.path().join(format!("models/o/.m.partial/parts/{oid}"));
    fsio::create_dir_all(part.parent().expect("a parent")).expect("a directory");
    for damaged in [vec![1_u8; 5000], vec![1_u8; 1_000_000], vec![1_u8; 2_000_000]] {
        fsio::write_atomic(&part, &damaged).expect("a part");
        let outcome = hub.get(place.path()).expect("a download");
        assert_eq!(
            std::fs::read(outcome.dir.join("model.safetensors")).expect("weights"),
            bytes(1_000_000)
        );
        fsio::remove_dir_all(&outcome.dir).expect("removed");
        fsio::create_dir_all(part.parent().expect("a parent")).expect("a directory");
    }
}

#[test]
fn a_complete_directory_is_checked_and_kept() {
    let hub = Hub::new(model());
    let place = tempfile::tempdir().expect("a directory");
    let first = hub.get(place.path()).expect("a download");
    let n_before = hub.cdn.requests().len();
    let again = hub.get(place.path()).expect("complete");
    assert_eq!((again.n_files, again.n_transferred), (first.n_files, 0));
    assert_eq!(hub.cdn.requests().len(), n_before);
    // A commit needs no server at all.
    let mut pinned = named(&format!("hf:o/m@{COMMIT}"), place.path());
    pinned.to = first.dir.clone();
    let mut offline = hub.settings();
    offline.is_offline = true;
    let n_before = hub.hub.requests().len();
    hub::get(&offline, &pinned, &mut Events::default()).expect("complete");
    assert_eq!(hub.hub.requests().len(), n_before);
    // A missing file is transferred alone.
    fsio::remove_file(first.dir.join("config.json")).expect("removed");
    assert_eq!(hub.get(place.path()).expect("completed").n_transferred, 1);
    // A changed file is named and not replaced.
    fsio::write_atomic(first.dir.join("tokenizer.json"), "{ }").expect("changed");
    let error = hub.get(place.path()).expect_err("changed");
    assert!(
        matches!(&error, Error::Changed { path } if path.ends_with("tokenizer.json")),
        "{error}"
    );
    assert_eq!(std::fs::read(first.dir.join("tokenizer.json")).expect("kept"), b"{ }");
}

#[test]
fn directories_of_others_are_not_touched() {
    let hub = Hub::new(model());
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("models/o/m");
    fsio::create_dir_all(&dir).expect("a directory");
    fsio::write_atomic(dir.join("mine.txt"), "mine").expect("a file");
    assert!(matches!(hub.get(place.path()), Err(Error::NotOurs { .. })));
    assert_eq!(tree(&dir), ["mine.txt"]);
    assert!(hub.hub.requests().is_empty());
    // An empty directory is used.
    fsio::remove_file(dir.join("mine.txt")).expect("removed");
    hub.get(place.path()).expect("a download");
    // Another repository, or another revision, does not replace it.
    let mut other = named("hf:o/other", place.path());
    other.to = dir.clone();
    assert!(matches!(hub.get_as(&other, &mut Events::default()), Err(Error::OtherContent { .. })));
    let mut record = read_record(&dir).expect("readable").expect("a record");
    record.revision = "f".repeat(40);
    fsio::write_atomic(dir.join(RECORD_FILE), record.to_json()).expect("a record");
    let pinned = named("hf:o/m@main", place.path());
    assert!(matches!(hub.get_as(&pinned, &mut Events::default()), Err(Error::OtherContent { .. })));
    // Without a revision the directory is complete as it is, and a newer one is named.
    let mut events = Events::default();
    assert_eq!(hub.get_as(&request(place.path()), &mut events).expect("complete").n_transferred, 0);
    assert!(events.has(&format!("Note(\"`main` is now at {COMMIT}")), "{:?}", events.lines);
}

#[test]
fn named_files_join_a_directory() {
    let mut repo = model();
    repo.files.push(large("m-q4_0.gguf", bytes(5_000)));
    let hub = Hub::new(repo);
    let place = tempfile::tempdir().expect("a directory");
    let mut one = request(place.path());
    one.files = vec!["m-*.gguf".to_owned()];
    let outcome = hub.get_as(&one, &mut Events::default()).expect("a file");
    assert_eq!(tree(&outcome.dir), [RECORD_FILE, "m-q4_0.gguf"]);
    assert!(!read_record(&outcome.dir).expect("readable").expect("a record").complete);
    let outcome = hub.get(place.path()).expect("the rest");
    assert_eq!((outcome.n_files, outcome.n_transferred), (7, 6));
    assert!(read_record(&outcome.dir).expect("readable").expect("a record").complete);
    assert!(
        outcome.dir.join("m-q4_0.gguf").is_file() && outcome.dir.join("sub/a b.json").is_file()
    );
    assert!(!place.path().join("models/o/.m.partial").exists());
}

#[test]
fn a_data_set_has_its_own_addresses() {
    let files = vec![
        large("data/train-00000-of-00001.parquet", bytes(2_000)),
        small("notes.csv", "a,b\n"),
        small("README.md", "# Data\n"),
        large("extra.jsonl.gz", bytes(100)),
    ];
    let hub = Hub::new(Repo { directory: "datasets/o/n".to_owned(), files });
    let place = tempfile::tempdir().expect("a directory");
    let outcome = hub.get_as(&named("hf:datasets/o/n@v1", place.path()), &mut Events::default());
    let outcome = outcome.expect("a download");
    assert_eq!(outcome.dir, place.path().join("datasets/o/n"));
    assert_eq!(
        tree(&outcome.dir),
        [RECORD_FILE, "README.md", "data/train-00000-of-00001.parquet", "extra.jsonl.gz"]
    );
    assert_eq!(outcome.left_out[0].path, "notes.csv");
    let record = read_record(&outcome.dir).expect("readable").expect("a record");
    assert_eq!((record.source.as_str(), record.requested.as_str()), ("hf:datasets/o/n", "v1"));
}

#[test]
fn a_listing_has_pages() {
    let whole = model();
    let (mut first, mut second) = (whole.clone(), whole.clone());
    second.files = first.files.split_off(4);
    let hub = Hub::changed(
        whole,
        move |request, reply| {
            if !request.path.contains("/tree/") {
                return reply;
            }
            let host = request.header("host").unwrap_or_default().to_owned();
            if request.path.contains("cursor=2") {
                return second.answer(request, "");
            }
            let next = format!(
                "<http://{host}/api/models/o/m/tree/{COMMIT}?recursive=true&cursor=2>; rel=\"next\""
            );
            first.answer(request, "").with("Link", next)
        },
        |_, reply| reply,
    );
    let place = tempfile::tempdir().expect("a directory");
    assert_eq!(hub.get(place.path()).expect("a download").n_files, 6);
}

#[test]
fn two_downloads_exclude_one_another() {
    let hub = Hub::new(model());
    let place = tempfile::tempdir().expect("a directory");
    fsio::create_dir_all(place.path().join("models/o")).expect("a directory");
    let lock = fsio::Lock::acquire(place.path().join("models/o/.m.lock")).expect("a lock");
    let error = hub.get(place.path()).expect_err("locked");
    assert!(matches!(error, Error::Files(fsio::Error::Locked { .. })), "{error}");
    drop(lock);
    hub.get(place.path()).expect("a download");
}
