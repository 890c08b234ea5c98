//! Damage is found, the one before is used, nothing is deleted that must stay.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use train::{
    CHECKPOINT_FORMAT, CheckpointInfo, Environment, Error, Event, Recorder, Silent, TrainState,
    checkpoint_steps, load_newest, retain, save_checkpoint,
};

fn save(checkpoints: &Path, step: u64) {
    save_in_format(checkpoints, step, CHECKPOINT_FORMAT);
}

fn save_in_format(checkpoints: &Path, step: u64, checkpoint_format: u32) {
    let state = TrainState { step, tokens: step * 100, ..TrainState::default() };
    let info = CheckpointInfo {
        checkpoint_format,
        environment: Environment::current(),
        previous: None,
        inputs: BTreeMap::new(),
    };
    save_checkpoint(checkpoints, &state, &info, "seed = 1\n", |dir| {
        dir.write("model.safetensors", vec![step as u8; 500])?;
        dir.write("optimizer.safetensors", vec![7; 1000])?;
        Ok(())
    })
    .expect("save");
}

fn newest_step(checkpoints: &Path) -> Option<u64> {
    load_newest(checkpoints, &mut Silent).expect("load").map(|c| c.state.step)
}

#[test]
fn the_newest_is_loaded_and_nothing_is_no_error() {
    let root = tempfile::tempdir().expect("tempdir");
    assert_eq!(newest_step(&root.path().join("nowhere")), None);
    assert_eq!(newest_step(root.path()), None);
    for step in [5, 1_000_000, 10] {
        save(root.path(), step);
    }
    fs::create_dir(root.path().join("step-7")).expect("not a checkpoint's name");
    fs::create_dir(root.path().join("step-000020.tmp-12")).expect("cut while it was written");
    assert_eq!(checkpoint_steps(root.path()).expect("list"), [5, 10, 1_000_000]);
    assert_eq!(newest_step(root.path()), Some(1_000_000));
}

/// Every byte of the small files and many of the large ones: one bit flipped, or cut there.
#[test]
fn every_damage_is_found_and_the_one_before_is_used() {
    let root = tempfile::tempdir().expect("tempdir");
    save(root.path(), 1);
    save(root.path(), 2);
    let newest = root.path().join("step-000002");
    let mut files: Vec<_> =
        fs::read_dir(&newest).expect("list").map(|e| e.expect("entry").path()).collect();
    files.sort();
    assert_eq!(files.len(), 5);
    let mut n_faults = 0;
    for path in &files {
        let whole = fs::read(path).expect("read");
        for at in (0..whole.len()).step_by(1 + whole.len() / 300) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (n_faults % 8);
            for damaged in [flipped.as_slice(), &whole[..at]] {
                fs::write(path, damaged).expect("damage");
                let mut seen = Recorder::default();
                let found = load_newest(root.path(), &mut seen).expect("load").expect("step 1");
                assert_eq!(found.state.step, 1, "{} at {at}", path.display());
                let [Event::CheckpointRejected { message, moved_to }] = &seen.events[..] else {
                    panic!("{:?}", seen.events)
                };
                assert!(message.starts_with("checkpoint step-000002 rejected: "), "{message}");
                fs::rename(moved_to, &newest).expect("put it back");
                n_faults += 1;
            }
        }
        fs::write(path, &whole).expect("restore");
    }
    assert!(n_faults > 1200, "{n_faults}");
    assert_eq!(newest_step(root.path()), Some(2));
}

#[test]
fn a_rejected_one_is_set_aside_and_its_step_can_be_saved_again() {
    let root = tempfile::tempdir().expect("tempdir");
    save(root.path(), 1);
    for k in 1..=3 {
        save(root.path(), 2);
        fs::write(root.path().join("step-000002/model.safetensors"), [0; 500]).expect("damage");
        let mut seen = Recorder::default();
        load_newest(root.path(), &mut seen).expect("load").expect("step 1");
        let moved_to = root.path().join(format!("step-000002.rejected-{k}"));
        let message =
            "checkpoint step-000002 rejected: model.safetensors: checksum differs".to_owned();
        assert_eq!(seen.events, [Event::CheckpointRejected { message, moved_to }]);
    }
}

#[test]
fn no_usable_checkpoint_is_an_error_every_time() {
    let root = tempfile::tempdir().expect("tempdir");
    save(root.path(), 1);
    save(root.path(), 2);
    for step in 1..=2 {
        fs::remove_file(root.path().join(format!("step-00000{step}/state.json"))).expect("damage");
    }
    let error = load_newest(root.path(), &mut Silent).expect_err("never silently from step 0");
    assert!(
        error
            .to_string()
            .ends_with("all `2` checkpoints are damaged; the newest: state.json: missing"),
        "{error}"
    );
    // Nothing advises to delete checkpoints.
    assert!(error.hint().expect("hint").contains("from a backup"));
    assert!(!error.hint().expect("hint").contains("remove"));
    // The second try finds them set aside already, and is no fresh start either.
    let again = load_newest(root.path(), &mut Silent).expect_err("still not");
    assert!(matches!(again, Error::NoUsableCheckpoint { n_rejected: 2, .. }));
}

/// Whatever is not certainly another content may be a healthy checkpoint: an error, after which everything is where it was.
#[test]
fn only_wrong_content_sets_a_checkpoint_aside() {
    type Change = fn(&Path);
    fn rewrite(dir: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(dir.join("MANIFEST")).expect("MANIFEST");
        let (json, _) = text.rsplit_once("sha256 ").expect("a hash");
        let json = json.replace(from, to);
        assert!(!text.contains(&json), "{from} is not in {text}");
        fs::write(
            dir.join("MANIFEST"),
            format!("{json}sha256 {}\n", fsio::sha256_hex(json.as_bytes())),
        )
        .expect("written");
    }
    let changes: [(Change, &str); 6] = [
        (|dir| rewrite(dir, "\"format\": 1", "\"format\": 2"), "made by a newer Temper"),
        (|dir| rewrite(dir, "\"extra\"", "\"surplus\""), "MANIFEST"),
        (|dir| rewrite(dir, "\"environment\"", "\"surroundings\""), "environment"),
        (|dir| fs::write(dir.join("notes.txt"), "mine").expect("a file"), "not listed"),
        (
            |dir| {
                fs::rename(dir.join("state.json"), dir.join(".state")).expect("moved");
                std::os::unix::fs::symlink(".state", dir.join("state.json")).expect("a link");
            },
            "not a regular file",
        ),
        (
            |dir| {
                // A directory in its place: neither missing nor readable as a file.
                fs::remove_file(dir.join("MANIFEST")).expect("removed");
                fs::create_dir(dir.join("MANIFEST")).expect("a directory");
            },
            "not a regular file",
        ),
    ];
    for (change, message) in changes {
        let root = tempfile::tempdir().expect("tempdir");
        save(root.path(), 1);
        save(root.path(), 2);
        change(&root.path().join("step-000002"));
        let mut seen = Recorder::default();
        let error = load_newest(root.path(), &mut seen).expect_err(message);
        assert!(error.to_string().contains(message), "{message}: {error}");
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("nothing was changed"), "{message}: {hint}");
        assert!(seen.events.is_empty(), "{message}: {:?}", seen.events);
        assert_eq!(checkpoint_steps(root.path()).expect("list"), [1, 2], "{message}");
    }
}

/// Refused by name, and left exactly as it is, even if it is damaged, too.
#[test]
fn a_checkpoint_of_another_format_is_refused_and_stays() {
    let known = CHECKPOINT_FORMAT;
    for (format, who) in [(known - 1, "an older Temper"), (known + 1, "a newer Temper")] {
        let root = tempfile::tempdir().expect("tempdir");
        save_in_format(root.path(), 4, format);
        fs::write(root.path().join("step-000004/model.safetensors"), [0; 500]).expect("damage");
        let mut seen = Recorder::default();
        let error = load_newest(root.path(), &mut seen).expect_err("another format");
        let message =
            format!("made by {who}: format `{format}`, this version reads format `{known}`");
        assert!(error.to_string().ends_with(&message), "{error}");
        assert!(error.hint().expect("hint").contains("`--name`"));
        assert!(seen.events.is_empty());
        assert_eq!(checkpoint_steps(root.path()).expect("list"), [4]);
    }
}

#[test]
fn a_renamed_checkpoint_is_refused() {
    let root = tempfile::tempdir().expect("tempdir");
    save(root.path(), 3);
    fs::rename(root.path().join("step-000003"), root.path().join("step-000009")).expect("rename");
    let error = load_newest(root.path(), &mut Silent).expect_err("another step's state");
    assert!(error.to_string().contains("state.json: belongs to another step: `3`"), "{error}");
}

/// All histories of up to 8 checkpoints: the newest `keep`, the best and the latest stay, and what
/// is deleted is exactly the rest.
#[test]
fn retention_is_exhaustively_right() {
    for mask in 0_u32..256 {
        let all: Vec<u64> =
            (0..8).filter(|bit| mask & (1 << bit) != 0).map(|bit| bit * 10).collect();
        for latest in &all {
            for best in all.iter().copied().map(Some).chain([None, Some(999)]) {
                for keep in 0..5 {
                    check_retention(&all, best, *latest, keep);
                }
            }
        }
    }
}

fn check_retention(all: &[u64], best: Option<u64>, latest: u64, keep: usize) {
    let case = format!("{all:?} best {best:?} latest {latest} keep {keep}");
    let deleted = retain(all, best, latest, keep);
    assert!(deleted.iter().all(|step| all.contains(step)), "{case}");
    assert!(!deleted.contains(&latest), "{case}");
    assert!(best.is_none_or(|best| !deleted.contains(&best)), "{case}");
    assert!(deleted.iter().all(|step| *step <= latest), "{case}");
    let save_format: Vec<u64> =
        all.iter().copied().filter(|s| *s <= latest && !deleted.contains(s)).collect();
    let n_known = all.iter().filter(|step| **step <= latest).count();
    let wanted = keep.max(2).min(n_known);
    let newest: Vec<u64> =
        all.iter().copied().filter(|s| *s <= latest).rev().take(wanted).collect();
    assert!(newest.iter().all(|step| save_format.contains(step)), "{case}");
    let extra =
        save_format.iter().filter(|step| !newest.contains(step) && Some(**step) != best).count();
    assert_eq!(extra, 0, "{case}");
    // The order in which a listing comes must not matter.
    let mut shuffled = all.to_vec();
    shuffled.reverse();
    assert_eq!(retain(&shuffled, best, latest, keep), deleted, "{case}");
}

#[test]
fn the_pinned_burn_version_is_the_workspaces() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let text = fs::read_to_string(manifest).expect("Cargo.toml");
    assert!(text.contains(&format!("burn = {{ version = \"={}\"", train::BURN_VERSION)));
    let here = Environment::current();
    assert!(here.differences(&here.clone()).is_empty());
    let other = Environment { burn: "0.21.0".into(), threads: 64, ..here.clone() };
    let line = format!("burn was `0.21.0`, is now `{}`", train::BURN_VERSION);
    assert_eq!(other.differences(&here), [line]);
    let generic = Environment { kernels: "generic".into(), ..here.clone() };
    let line = format!("kernels was `generic`, is now `{}`", here.kernels);
    assert_eq!(generic.differences(&here), [line]);
    // An older version did not note it.
    let unknown = Environment { kernels: String::new(), ..here.clone() };
    assert!(unknown.differences(&here).is_empty());
}
