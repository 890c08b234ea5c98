//! The teacher's most probable tokens on disk, in the stage's directory `teacher/`.
//!
//! Each part is a checksummed directory that appears whole or not at all, so an interrupted computation continues after the
//! last one. Records are found by the content of the text that the teacher read, so that a text is computed once, whatever row
//! and epoch it is in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use data::Batch;
use fsio::{DirWriter, MappedFile, Sha256};
use loss::HostTopTokens;
use serde_json::{Value, json};
use train::{Error, RunDirGuard};

/// The directory within the stage's.
pub const TEACHER_DIR: &str = "teacher";
/// Records one after another: the text's key (16 bytes), its number of targets n (4 bytes), n × k ids (4 bytes each),
/// n × (k + 1) log-probabilities (f32); all little-endian.
const TOP_FILE: &str = "top.bin";
/// Size at which a part is written.
const PART_BYTES: usize = 16 << 20;

/// One text in a row of a batch: a range of positions that attend to each other only.
pub(crate) struct Text {
    /// Number of its sample.
    pub(crate) sample: u64,
    /// Number of its targets.
    pub(crate) n_targets: usize,
    /// A hash of its tokens, positions and targets, on which the teacher's distributions depend.
    pub(crate) key: u128,
}

/// The texts of a batch that have targets, in the order of their targets.
pub(crate) fn texts(batch: &Batch) -> Vec<Text> {
    let mut texts = Vec::new();
    let t = batch.sequence_length.max(1);
    for row in 0..batch.rows {
        let segments = batch.segments.get(row * t..(row + 1) * t).unwrap_or_default();
        let first_sample = batch.sample_starts.get(row).copied().unwrap_or(0);
        let mut from = 0;
        for run in segments.chunk_by(|a, b| a == b) {
            let range = row * t + from..row * t + from + run.len();
            from += run.len();
            let Some(idx) = run.first().and_then(|segment| usize::try_from(*segment).ok()) else {
                continue;
            };
            let targets = batch.targets.get(range.clone()).unwrap_or_default();
            let n_targets = targets.iter().filter(|target| **target >= 0).count();
            if n_targets > 0 {
                let sample = batch.samples.get(first_sample + idx).copied().unwrap_or(u64::MAX);
                texts.push(Text { sample, n_targets, key: key_of(batch, range) });
            }
        }
    }
    texts
}

fn key_of(batch: &Batch, range: Range<usize>) -> u128 {
    let mut hash = Sha256::new();
    let (ids, positions, targets) = (
        batch.ids.get(range.clone()).unwrap_or_default(),
        batch.positions.get(range.clone()).unwrap_or_default(),
        batch.targets.get(range).unwrap_or_default(),
    );
    for ((id, position), target) in ids.iter().zip(positions).zip(targets) {
        // Targets themselves do not matter, their places do.
        let is_target = u8::from(*target >= 0);
        hash.update(id.to_le_bytes());
        hash.update(position.to_le_bytes());
        hash.update([is_target]);
    }
    let hex = hash.finish_hex();
    hex.get(..32).and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

/// The records that a directory has.
#[derive(Debug, Default)]
pub(crate) struct SavedTop {
    k: usize,
    parts: Vec<MappedFile>,
    /// The part of each text, and the place of its ids there.
    index: BTreeMap<u128, (usize, Range<usize>)>,
    /// Number of the first batch that no part has.
    next_batch: u64,
}

impl SavedTop {
    /// Opens the parts of a directory in order, up to the first that is missing, damaged, or of another key. Parts after
    /// it are removed; the second value says why.
    ///
    /// Errors: a file cannot be read, or another version wrote it; parts must be removed from a directory that is no longer this
    /// run's.
    pub(crate) fn open(
        dir: &Path,
        key: &str,
        k: usize,
        guard: &RunDirGuard,
    ) -> train::Result<(Self, Option<String>)> {
        let mut saved = Self { k, ..Self::default() };
        loop {
            let part = part_dir(dir, saved.parts.len());
            let rejected = match fsio::verify_dir(&part) {
                Ok(manifest) => saved.add(&part, &manifest.extra, key)?.err(),
                Err(error) if error.is_not_found() => return Ok((saved, None)),
                Err(fsio::Error::Damaged { file, damage, .. }) if damage.is_other_content() => {
                    Some(format!("{}: {damage}", part.join(file).display()))
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(reason) = rejected {
                guard.check()?;
                remove_from(dir, saved.parts.len())?;
                return Ok((saved, Some(reason)));
            }
        }
    }

    /// Adds a verified part; the inner error says why it cannot be used.
    fn add(
        &mut self,
        part: &Path,
        extra: &Value,
        key: &str,
    ) -> train::Result<std::result::Result<(), String>> {
        let unusable = |reason: &str| Ok(Err(format!("{}: {reason}", part.display())));
        if extra.get("key").and_then(Value::as_str) != Some(key) {
            return unusable("belongs to another teacher, other data or other settings");
        }
        let batches = ["first_batch", "next_batch"].map(|name| extra.get(name)?.as_u64());
        let [Some(first), Some(next)] = batches else { return unusable("names no batches") };
        if first != self.next_batch || next <= first {
            return unusable("does not continue the part before it");
        }
        let file = MappedFile::open(part.join(TOP_FILE))?;
        let Some(records) = records(&file, self.k) else { return unusable("cut short") };
        let number = self.parts.len();
        self.index.extend(records.into_iter().map(|(key, place)| (key, (number, place))));
        self.parts.push(file);
        self.next_batch = next;
        Ok(Ok(()))
    }

    /// Whether a text has a record.
    pub(crate) fn has(&self, text: &Text) -> bool {
        self.index.contains_key(&text.key)
    }

    /// Number of the first batch that no part has.
    pub(crate) fn next_batch(&self) -> u64 {
        self.next_batch
    }

    /// Bytes of all parts.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Appends the tokens of a text; `false` if there is no record of it.
    pub(crate) fn read(&self, text: &Text, top: &mut HostTopTokens) -> bool {
        let Some((part, place)) = self.index.get(&text.key) else { return false };
        let bytes = self.parts.get(*part).and_then(|part| part.get(place.clone()));
        let n_ids = text.n_targets * self.k;
        let Some((ids, logprobs)) = bytes.and_then(|bytes| bytes.split_at_checked(4 * n_ids))
        else {
            return false;
        };
        let word = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
        top.ids.extend(ids.chunks_exact(4).map(|bytes| u32::from_le_bytes(word(bytes))));
        top.logprobs.extend(logprobs.chunks_exact(4).map(|bytes| f32::from_le_bytes(word(bytes))));
        true
    }
}

/// Keys of a file's records, with the places of their ids and log-probabilities; `None` if the last one is cut short.
fn records(bytes: &[u8], k: usize) -> Option<Vec<(u128, Range<usize>)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let key = u128::from_le_bytes(bytes.get(at..at + 16)?.try_into().ok()?);
        let n = u32::from_le_bytes(bytes.get(at + 16..at + 20)?.try_into().ok()?);
        let from = at + 20;
        let to = from.checked_add((n as usize).checked_mul(4 * (2 * k + 1))?)?;
        bytes.get(from..to)?;
        found.push((key, from..to));
        at = to;
    }
    Some(found)
}

fn part_dir(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("part-{number:05}"))
}

/// Removes a part and those after it.
fn remove_from(dir: &Path, first: usize) -> train::Result<()> {
    for number in first.. {
        let part = part_dir(dir, number);
        if !part.exists() {
            break;
        }
        fsio::remove_dir_all(&part).map_err(Error::from)?;
    }
    Ok(())
}

/// Records that are not written yet.
pub(crate) struct PartWriter<'a> {
    dir: &'a Path,
    key: &'a str,
    guard: &'a RunDirGuard,
    bytes: Vec<u8>,
    /// Texts among `bytes`.
    texts: std::collections::BTreeSet<u128>,
    next_batch: u64,
}

impl<'a> PartWriter<'a> {
    /// A writer of the parts after those of `saved`.
    pub(crate) fn after(
        saved: &SavedTop,
        dir: &'a Path,
        key: &'a str,
        guard: &'a RunDirGuard,
    ) -> Self {
        let (next_batch, texts) = (saved.next_batch, std::collections::BTreeSet::new());
        Self { dir, key, guard, bytes: Vec::new(), texts, next_batch }
    }

    /// Whether a text is among the records.
    pub(crate) fn has(&self, text: &Text) -> bool {
        self.texts.contains(&text.key)
    }

    /// Adds the record of a text: `n_targets * k` tokens, and as many log-probabilities and those of the rest.
    pub(crate) fn add(&mut self, text: &Text, ids: &[u32], logprobs: &[f32]) {
        self.texts.insert(text.key);
        self.bytes.extend(text.key.to_le_bytes());
        self.bytes.extend((text.n_targets as u32).to_le_bytes());
        self.bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        self.bytes.extend(logprobs.iter().flat_map(|logprob| logprob.to_le_bytes()));
    }

    /// Notes that a batch is complete. A large part is written.
    pub(crate) fn end_batch(&mut self, saved: &mut SavedTop) -> train::Result<()> {
        self.next_batch += 1;
        if self.bytes.len() >= PART_BYTES { self.write(saved) } else { Ok(()) }
    }

    /// Writes the records as a part of `saved`, if there is a batch to record.
    pub(crate) fn write(&mut self, saved: &mut SavedTop) -> train::Result<()> {
        if self.next_batch == saved.next_batch {
            return Ok(());
        }
        self.guard.check()?;
        let part = part_dir(self.dir, saved.parts.len());
        let extra = json!({
            "key": self.key, "first_batch": saved.next_batch, "next_batch": self.next_batch,
        });
        let mut writer = DirWriter::begin(&part)?;
        writer.write(TOP_FILE, std::mem::take(&mut self.bytes))?;
        self.texts.clear();
        let manifest = writer.commit(extra)?;
        // A part that was just written has the expected key and follows the others.
        if let Err(reason) = saved.add(&part, &manifest.extra, self.key)? {
            return Err(Error::TensorFile { path: part, reason });
        }
        Ok(())
    }
}
