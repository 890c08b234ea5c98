//! Atomic directories: complete or absent.

use std::fs;
use std::io::Write;

use fsio::{
    DirWriter, Error, is_stale_tmp, remove_stale_tmps, sha256_hex, verify_dir, write_atomic,
};
use serde_json::Value;

use super::{names, sample_dir};

#[test]
fn a_dropped_writer_removes_its_files() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("deep/er/step-000001");
    let mut writer = DirWriter::begin(&dir).expect("begin");
    writer.write("a", b"1").expect("write");
    let parent = root.path().join("deep/er");
    assert_eq!(names(&parent), [format!("step-000001.tmp-{}", std::process::id())]);
    drop(writer);
    assert!(names(&parent).is_empty());
}

#[test]
fn an_unfinished_file_stops_the_commit() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut writer = DirWriter::begin(root.path().join("d")).expect("begin");
    let mut file = writer.create("weights").expect("create");
    file.write_all(b"half").expect("write");
    drop(file);
    let error = writer.commit(Value::Null).expect_err("unfinished").to_string();
    assert!(error.ends_with("d/weights: file was not finished"), "{error}");
    assert!(names(root.path()).is_empty());
}

#[test]
fn an_existing_directory_is_never_overwritten() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("d");
    sample_dir(&dir);
    assert!(matches!(DirWriter::begin(&dir), Err(Error::Exists { .. })));
    // Nor one that appears between begin and commit.
    let late = root.path().join("late");
    let mut writer = DirWriter::begin(&late).expect("begin");
    writer.write("a", b"mine").expect("write");
    fs::create_dir(&late).expect("mkdir");
    fs::write(late.join("theirs"), b"x").expect("write");
    writer.commit(Value::Null).expect_err("occupied");
    assert_eq!(names(&late), ["theirs"]);
    assert_eq!(names(root.path()), ["d", "late"]);
}

#[test]
fn names_are_confined() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut writer = DirWriter::begin(root.path().join("d")).expect("begin");
    for name in
        ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\0", "a\nb", "MANIFEST", ".x"]
    {
        assert!(matches!(writer.create(name), Err(Error::BadName { .. })), "{name:?}");
    }
    assert!(fsio::basename_only(&"x".repeat(256)).is_err());
    assert_eq!(
        fsio::basename_only("model-00001-of-00002.safetensors").expect("good"),
        "model-00001-of-00002.safetensors"
    );
    writer.write("a", b"").expect("write");
    assert!(matches!(writer.create("a"), Err(Error::Unfinished { .. })));
}

#[test]
fn files_can_be_written_concurrently_in_any_pieces() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("d");
    let mut writer = DirWriter::begin(&dir).expect("begin");
    let (mut one, mut two) =
        (writer.create("one").expect("one"), writer.create("two").expect("two"));
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|i| (i % 251) as u8).collect();
    for (i, piece) in bytes.chunks(700_001).enumerate() {
        one.write_all(piece).expect("write");
        two.write_all(&piece[..i]).expect("write");
        two.flush().expect("flush");
    }
    let entry = one.finish().expect("finish");
    two.finish().expect("finish");
    assert_eq!((entry.bytes, entry.sha256), (3_000_001, sha256_hex(&bytes)));
    writer.copy_from("three", root.path().join("nowhere")).expect_err("not there");
    writer.commit(Value::Null).expect("a file that was never created doesn't count");
    assert_eq!(verify_dir(&dir).expect("verify").files.len(), 2);
    assert_eq!(fs::read(dir.join("one")).expect("read"), bytes);
}

#[test]
fn only_stale_temporaries_are_removed() {
    let root = tempfile::tempdir().expect("tempdir");
    for name in ["step-000001.tmp-4242", "keep", "x.tmp-", "x.tmp-12a", "tmp-12", ".tmp-12"] {
        fs::create_dir(root.path().join(name)).expect("mkdir");
        fs::write(root.path().join(name).join("f"), b"x").expect("write");
    }
    fs::write(root.path().join(".plan.json.0.tmp-17"), b"x").expect("write");
    // Neither of these is what this crate would have made of the name.
    fs::create_dir(root.path().join(".plan.json.1.tmp-17")).expect("mkdir");
    let foreign =
        ["plan.json.0.tmp-17", ".plan.json.tmp-17", ".other.json.0.tmp-17", "step-000001.tmp-9"];
    for name in foreign {
        fs::write(root.path().join(name), b"x").expect("write");
    }
    fs::create_dir(root.path().join("notes.tmp-1")).expect("mkdir");
    let is_own_dir = |name: &str| name == "step-000001";
    let removed = remove_stale_tmps(root.path(), |name| name == "plan.json", is_own_dir);
    assert_eq!(removed.expect("remove"), [".plan.json.0.tmp-17", "step-000001.tmp-4242"]);
    for name in foreign {
        fs::remove_file(root.path().join(name)).expect("left");
    }
    for name in ["notes.tmp-1", ".plan.json.1.tmp-17"] {
        fs::remove_dir(root.path().join(name)).expect("left");
    }
    assert_eq!(names(root.path()), [".tmp-12", "keep", "tmp-12", "x.tmp-", "x.tmp-12a"]);
    assert!(is_stale_tmp("step-000001.tmp-1") && !is_stale_tmp("step-000001"));
    // A file that is written again takes what a killed process left of it, and nothing else.
    for name in [".a.json.0.tmp-17", ".a.json.3.tmp-18", ".a.json.tmp-17", ".b.json.0.tmp-17"] {
        fs::write(root.path().join(name), b"x").expect("write");
    }
    fsio::write_atomic(root.path().join("a.json"), b"{}").expect("write");
    let left = [".a.json.tmp-17", ".b.json.0.tmp-17", ".tmp-12", "a.json", "keep"];
    assert_eq!(names(root.path())[..5], left);
    for name in [".a.json.tmp-17", ".b.json.0.tmp-17", "a.json"] {
        fs::remove_file(root.path().join(name)).expect("remove");
    }

    // One with this process's id is from an earlier process with the same id.
    let own = root.path().join(format!("d.tmp-{}", std::process::id()));
    fs::create_dir(&own).expect("mkdir");
    fs::write(own.join("old"), b"x").expect("write");
    sample_dir(&root.path().join("d"));
    verify_dir(root.path().join("d")).expect("verify");
}

#[test]
fn single_files_are_replaced_atomically() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = root.path().join("plan.json");
    write_atomic(&path, b"one").expect("write");
    write_atomic(&path, b"two").expect("write");
    assert_eq!(fs::read(&path).expect("read"), b"two");
    assert_eq!(names(root.path()), ["plan.json"]);
    write_atomic(root.path().join("nowhere/plan.json"), b"x").expect_err("no directory");
}

/// Temporary names are longer than the final ones, which may be as long as the file system allows.
#[test]
fn names_may_be_as_long_as_the_file_system_allows() {
    let root = tempfile::tempdir().expect("tempdir");
    // Two names that differ only at the end, and characters of several bytes.
    let long = ["x".repeat(255), format!("{}y", "x".repeat(254)), "é".repeat(127)];
    for name in &long {
        write_atomic(root.path().join(name), b"one").expect("write");
        write_atomic(root.path().join(name), b"two").expect("write");
        fs::remove_file(root.path().join(name)).expect("a file");
        sample_dir(&root.path().join(name));
    }
    assert_eq!(names(root.path()).len(), long.len());
    let writers = ["a", "b"]
        .map(|end| DirWriter::begin(root.path().join("z".repeat(254) + end)).expect("begin"));
    let [first, second] = &writers;
    assert_ne!(first.tmp_dir(), second.tmp_dir());
    let mut file = fsio::AtomicFile::begin(root.path().join("w".repeat(255))).expect("begin");
    file.write_all(b"x").expect("write");
    file.commit().expect("commit");
    drop(writers);
    assert_eq!(names(root.path()).len(), long.len() + 1);
}

/// /dev/full makes the kernel report a full disk, without a child process.
#[test]
fn a_full_disk_names_path_and_free_space() {
    let mut log = fsio::AppendLog::open("/dev/full").expect("open");
    let error = log.append("x").expect_err("full");
    let text = error.to_string();
    assert!(text.starts_with("/dev/full: cannot write: No space left on device"), "{text}");
    assert!(text.ends_with(" MiB free"), "{text}");
    assert!(error.hint().expect("hint").contains("free some space"));
}

/// The system makes no directory there, not even for root.
#[cfg(target_os = "linux")]
#[test]
fn an_error_names_what_is_written_and_not_a_temporary_name() {
    for (error, path) in [
        (DirWriter::begin("/proc/self/model").expect_err("no directory"), "/proc/self/model"),
        (fsio::AtomicFile::begin("/proc/self/m.gguf").expect_err("no file"), "/proc/self/m.gguf"),
    ] {
        let text = error.to_string();
        assert!(text.starts_with(&format!("{path}: cannot write: ")), "{text}");
    }
}
