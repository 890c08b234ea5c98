//! Size limits of reads.

use std::fs;

use fsio::{
    Error, MappedFile, read_capped, read_text_capped, refuse_lfs_pointer, sha256_file, sha256_hex,
};

#[test]
fn limits_and_encodings_are_checked() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = root.path().join("x");
    fs::write(&path, b"abc").expect("write");
    assert_eq!(read_capped(&path, 3).expect("fits"), b"abc");
    assert!(matches!(read_capped(&path, 2), Err(Error::TooLarge { limit: 2, .. })));
    fs::write(&path, b"ab\xffc").expect("write");
    assert!(matches!(read_text_capped(&path, 100), Err(Error::NotUtf8 { offset: 2, .. })));
    assert!(matches!(read_capped("/dev/zero", 100), Err(Error::NotAFile { .. })));
    assert!(matches!(read_capped(root.path(), 100), Err(Error::NotAFile { .. })));
    // The bytes of a file without a known length are counted during the read.
    assert!(matches!(read_capped("/proc/self/status", 100), Err(Error::TooLarge { .. })));
    let error = read_capped(root.path().join("nowhere"), 1).expect_err("missing");
    assert!(error.is_not_found() && error.hint().is_some());
}

#[test]
fn pointers_of_git_lfs_are_refused() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = root.path().join("model.safetensors");
    let pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:8be3fc1d\nsize 12345678\n";
    fs::write(&path, pointer).expect("write");
    let error = refuse_lfs_pointer(&path).expect_err("a pointer");
    assert!(matches!(error, Error::LfsPointer { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("git lfs pull")));
    assert!(matches!(read_text_capped(&path, 9999), Err(Error::LfsPointer { .. })));
    // A file that quotes the first line is none, nor is one larger than a pointer.
    for text in [pointer.lines().next().expect("a line").to_owned(), pointer.repeat(20)] {
        fs::write(&path, &text).expect("write");
        refuse_lfs_pointer(&path).expect("no pointer");
        assert_eq!(read_text_capped(&path, 9999).expect("text"), text);
    }
}

#[test]
fn hashes_are_sha_256() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256_hex(b"abc"), abc);
    let root = tempfile::tempdir().expect("tempdir");
    let path = root.path().join("x");
    fs::write(&path, b"abc").expect("write");
    assert_eq!(sha256_file(&path).expect("hash"), abc);
}

#[test]
fn mapped_bytes_outlive_the_file_name() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = root.path().join("tokens");
    fs::write(&path, b"0123456789").expect("write");
    let map = MappedFile::open(&path).expect("map");
    assert_eq!(&map[2..4], b"23");
    let bytes = map.into_bytes();
    fs::remove_file(&path).expect("remove");
    assert_eq!(&bytes.slice(5..)[..], b"56789");
    fs::write(&path, b"").expect("write");
    assert!(MappedFile::open(&path).expect("empty files map too").is_empty());
}
