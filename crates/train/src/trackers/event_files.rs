//! Steps of each tag in the TensorBoard files of a stage, as TensorBoard reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::proto::fields;

/// In the name of every file of events.
const MARK: &str = ".tfevents.";
/// Bytes of a record before its content and after it: its length with a checksum, and the content's checksum.
const HEADER: usize = 12;
const FOOTER: usize = 4;
/// Content of the longest record that is read.
const MAX_RECORD: u64 = 64 << 20;
/// `SessionLog.START`.
const START: u64 = 1;

/// Steps by tag.
#[derive(Debug, Default)]
pub(super) struct Shown {
    steps: BTreeMap<String, BTreeSet<u64>>,
}

impl Shown {
    /// Reads the files of a directory. A file that cannot be read ends there.
    pub(super) fn read(dir: &Path) -> Self {
        let mut shown = Self::default();
        for path in event_files(dir) {
            let Ok(file) = File::open(&path) else { continue };
            let mut file = BufReader::new(file);
            while let Some(record) = read_record(&mut file) {
                shown.add(&record);
            }
        }
        shown
    }

    /// Whether a value or text is shown.
    pub(super) fn has(&self, tag: &str, step: u64) -> bool {
        self.steps.get(tag).is_some_and(|steps| steps.contains(&step))
    }

    /// Adds an event: a start hides the events of earlier files from its step on, and a value the later ones of its tag.
    fn add(&mut self, event: &[u8]) {
        let step = fields(event).find(|(number, _)| *number == 2);
        let step = step.and_then(|(_, field)| field.int(true)).unwrap_or(0);
        for (number, field) in fields(event) {
            let Some(bytes) = field.bytes() else { continue };
            match number {
                5 => fields(bytes)
                    .filter(|(number, _)| *number == 1)
                    .filter_map(|(_, value)| tag(value.bytes()?))
                    .for_each(|tag| self.insert(tag, step)),
                7 if is_start(bytes) => self.steps.values_mut().for_each(|steps| {
                    steps.split_off(&step);
                }),
                _ => {}
            }
        }
    }

    fn insert(&mut self, tag: String, step: u64) {
        let steps = self.steps.entry(tag).or_default();
        steps.split_off(&step);
        steps.insert(step);
    }
}

/// The files of events in a directory, in the order in which TensorBoard reads them.
fn event_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let paths = entries.map(|entry| entry.path());
    let is_of_events =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(MARK));
    let mut paths: Vec<PathBuf> =
        paths.filter(is_of_events).filter(|path| path.is_file()).collect();
    paths.sort();
    paths
}

/// The next record; none at the end of the file, and where it is torn.
fn read_record(file: &mut impl Read) -> Option<Vec<u8>> {
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    let (length, _) = header.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_RECORD {
        return None;
    }
    let mut record = vec![0; usize::try_from(length).ok()?];
    file.read_exact(&mut record).ok()?;
    file.read_exact(&mut [0; FOOTER]).ok()?;
    Some(record)
}

/// The tag of a value.
fn tag(value: &[u8]) -> Option<String> {
    let (_, tag) = fields(value).find(|(number, _)| *number == 1)?;
    String::from_utf8(tag.bytes()?.to_vec()).ok()
}

fn is_start(session: &[u8]) -> bool {
    fields(session).any(|(number, field)| number == 1 && field.int(true) == Some(START))
}
