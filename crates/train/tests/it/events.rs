//! TensorBoard files: decoded record by record with a CRC-32C of our own; failures never reach the run.

use std::fs;
use std::path::Path;

use train::EventWriter;

/// CRC-32C bit by bit (polynomial 0x1EDC6F41, reflected), and TensorFlow's masking.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The payloads of a file, every length and checksum verified.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).expect("read");
    let (mut rest, mut out) = (&bytes[..], Vec::new());
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    while !rest.is_empty() {
        let (header, after) = rest.split_at(8);
        let length = u64::from_le_bytes(header.try_into().expect("8 bytes")) as usize;
        assert_eq!(number(&after[..4]), masked_crc(header), "length checksum");
        let data = &after[4..4 + length];
        assert_eq!(number(&after[4 + length..8 + length]), masked_crc(data), "data checksum");
        out.push(data.to_vec());
        rest = &after[8 + length..];
    }
    out
}

fn event_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir).expect("list").map(|e| e.expect("entry").path()).collect();
    files.sort();
    files
}

/// Field 2 (step) as a varint, and the tag and value of field 5 (summary), by hand.
fn contains(record: &[u8], part: &[u8]) -> bool {
    record.windows(part.len()).any(|window| window == part)
}

#[test]
fn records_are_framed_and_checksummed() {
    let root = tempfile::tempdir().expect("tempdir");
    assert_eq!(
        masked_crc(b"123456789"),
        0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8)
    );
    let mut events = EventWriter::new(root.path());
    events.scalar("train/loss", 3.5, 1);
    events.scalar("train/loss", 3.25, 300);
    events.flush();
    assert_eq!(events.take_warning(), None);
    let files = event_files(root.path());
    let [file] = &files[..] else { panic!("{files:?}") };
    let records = records(file);
    assert_eq!(records.len(), 4, "version, session start, two values");
    assert!(contains(&records[0], b"brain.Event:2"));
    assert!(contains(&records[2], b"train/loss") && contains(&records[2], &3.5_f32.to_le_bytes()));
    // Step 300 as a varint in field 2.
    assert!(
        contains(&records[3], &[0x10, 0xac, 0x02])
            && contains(&records[3], &3.25_f32.to_le_bytes())
    );
}

#[test]
fn texts_and_hyperparameters_are_values_of_plugins() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut events = EventWriter::new(root.path());
    events.text("samples/1", "    a rainy day", 300);
    let settings = [("sft.optimizer.lr", "0.5"), ("sft.start", "models/a")];
    events.hyperparameters(&settings.map(|(key, value)| (key.into(), value.into())).into());
    events.flush();
    assert_eq!(events.take_warning(), None);
    let files = event_files(root.path());
    let records = records(&files[0]);
    assert_eq!(records.len(), 4, "version, session start, a text, hyperparameters");
    let [text, settings] = [&records[2], &records[3]];
    // Plugin "text" in the metadata (field 9 of a value), and a string (field 8 of a tensor, DT_STRING).
    assert!(contains(text, b"samples/1") && contains(text, b"\x0a\x04text"));
    assert!(contains(text, b"\x08\x07") && contains(text, b"\x42\x0f    a rainy day"));
    assert!(contains(text, &[0x10, 0xac, 0x02]), "step 300");
    assert!(contains(settings, b"_hparams_/session_start_info"));
    // A number and a text, as values of google.protobuf.Value.
    assert!(contains(settings, b"sft.optimizer.lr\x12\x09\x11\0\0\0\0\0\0\xe0\x3f"));
    assert!(contains(settings, b"sft.start\x12\x0a\x1a\x08models/a"));
}

#[test]
fn a_resumed_run_opens_a_new_file_with_a_session_start() {
    let root = tempfile::tempdir().expect("tempdir");
    for step in [0, 5] {
        let mut events = EventWriter::new(root.path());
        events.start_session(step);
        events.scalar("train/loss", 1.0, step + 1);
        events.flush();
    }
    let files = event_files(root.path());
    assert_eq!(files.len(), 2);
    let second = records(&files[1]);
    // Field 7 (session_log) with status START = 1, at step 5.
    assert!(contains(&second[1], &[0x10, 0x05]) && contains(&second[1], &[0x3a, 0x02, 0x08, 0x01]));
}

#[test]
fn a_failure_is_one_warning_and_nothing_else() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut events = EventWriter::new(root.path().join("nowhere"));
    for step in 0..3 {
        events.scalar("train/loss", 1.0, step);
        events.flush();
    }
    let warning = events.take_warning().expect("one warning");
    assert!(warning.contains("no more TensorBoard events in this run"), "{warning}");
    events.scalar("train/loss", 1.0, 9);
    events.start_session(9);
    assert_eq!(events.take_warning(), None);
}
