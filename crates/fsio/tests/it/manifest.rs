//! Damage that `verify_dir` detects.

use std::fs;
use std::path::Path;

use fsio::{Damage, Error, MANIFEST, verify_dir};

use super::{names, sample_dir};

fn damage(dir: &Path) -> (String, Damage) {
    let error = verify_dir(dir).expect_err("damage must be detected");
    let Error::Damaged { file, damage, .. } = error else { panic!("unexpected error: {error}") };
    (file, damage)
}

fn with_sample(test: impl Fn(&Path)) {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("step-000012");
    sample_dir(&dir);
    test(&dir);
}

#[test]
fn an_intact_directory_is_accepted() {
    with_sample(|dir| {
        let manifest = verify_dir(dir).expect("verify");
        assert_eq!(manifest.files.len(), 3);
        assert_eq!(manifest.files["model.safetensors"].bytes, 3000);
        assert_eq!(manifest.extra["previous"], "step-000001");
        fs::write(dir.join(".DS_Store"), b"x").expect("write");
        assert_eq!(verify_dir(dir).expect("dotfiles are ignored"), manifest);
    });
}

#[test]
fn every_flipped_bit_is_detected() {
    with_sample(|dir| {
        for name in names(dir) {
            let path = dir.join(&name);
            let whole = fs::read(&path).expect("read");
            for at in 0..whole.len() {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << (at % 8);
                fs::write(&path, &flipped).expect("write");
                let (file, _) = damage(dir);
                assert!(file == name || name == MANIFEST, "{name} byte {at}: {file}");
            }
            fs::write(&path, &whole).expect("write");
        }
        verify_dir(dir).expect("restored");
    });
}

#[test]
fn every_truncation_is_detected() {
    with_sample(|dir| {
        for name in names(dir) {
            let path = dir.join(&name);
            let whole = fs::read(&path).expect("read");
            for length in (0..whole.len()).step_by(7) {
                fs::write(&path, &whole[..length]).expect("write");
                let (file, found) = damage(dir);
                assert_eq!(file, name);
                if name != MANIFEST {
                    let expected = whole.len() as u64;
                    assert_eq!(found, Damage::Length { expected, found: length as u64 });
                }
            }
            fs::write(&path, &whole).expect("write");
        }
    });
}

#[test]
fn missing_and_extra_files_are_named() {
    with_sample(|dir| {
        fs::remove_file(dir.join("empty")).expect("remove");
        assert_eq!(damage(dir), ("empty".into(), Damage::Missing));
        fs::write(dir.join("empty"), b"").expect("write");
        fs::write(dir.join("evil.bin"), b"").expect("write");
        assert_eq!(damage(dir), ("evil.bin".into(), Damage::Extra));
        fs::remove_file(dir.join("evil.bin")).expect("remove");
        fs::create_dir(dir.join("directory")).expect("mkdir");
        assert_eq!(damage(dir), ("directory".into(), Damage::Extra));
        fs::remove_dir(dir.join("directory")).expect("rmdir");
        fs::remove_file(dir.join(MANIFEST)).expect("remove");
        assert_eq!(damage(dir), (MANIFEST.into(), Damage::Missing));
    });
}

#[test]
fn a_link_is_not_a_file() {
    with_sample(|dir| {
        fs::remove_file(dir.join("empty")).expect("remove");
        std::os::unix::fs::symlink("/dev/null", dir.join("empty")).expect("link");
        assert_eq!(damage(dir), ("empty".into(), Damage::NotAFile));
    });
}

#[test]
fn a_missing_directory_is_not_damage() {
    let error = verify_dir("/nowhere/step-000001").expect_err("no such directory");
    assert!(error.is_not_found(), "{error}");
}

/// An attacker can compute hashes, so a MANIFEST with a correct hash is still untrusted.
#[test]
fn malicious_manifests_are_refused() {
    let entry = r#"{"bytes": 0, "sha256": "e3"}"#;
    let cases = [
        (
            r#"{"format": 2, "files": {}, "extra": null}"#.into(),
            "has the format `2`, and this version reads `1`: made by a newer Temper",
        ),
        (r#"{"files": {}, "extra": null}"#.into(), "missing field `format`"),
        (r#"{"format": 1, "files": {}, "extra": null, "run": "x"}"#.into(), "unknown field"),
        (r#"{"format": 1, "files": {}}"#.into(), "missing field"),
        ("[".repeat(100_000), "recursion limit"),
        (String::new(), "EOF"),
        (format!(r#"{{"format":1,"files":{{"../x":{entry}}},"extra":null}}"#), "bad name: `../x`"),
        (format!(r#"{{"format":1,"files":{{"/x":{entry}}},"extra":null}}"#), "bad name: `/x`"),
        (
            format!(r#"{{"format":1,"files":{{"a\u0000":{entry}}},"extra":null}}"#),
            "bad name: `a\\0`",
        ),
        (format!(r#"{{"format":1,"files":{{".x":{entry}}},"extra":null}}"#), "bad name: `.x`"),
        (format!(r#"{{"format":1,"files":{{"MANIFEST":{entry}}},"extra":null}}"#), "bad name"),
        (r#"{"format":1,"files":{"x":{"bytes":-1,"sha256":""}},"extra":null}"#.into(), "invalid"),
    ];
    with_sample(|dir| {
        for (json, expected) in &cases {
            let text =
                format!("{json}\nsha256 {}\n", fsio::sha256_hex(format!("{json}\n").as_bytes()));
            fs::write(dir.join(MANIFEST), text).expect("write");
            let error = verify_dir(dir).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    });
}
