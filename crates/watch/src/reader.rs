//! Reads a run's directory again and again, each time only what is new.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use fsio::{Lock, limits};

use crate::row::Row;
use crate::run_view::{RunView, Sample};
use crate::status::{RunState, Status};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// A run's directory and how much of its logs was read.
#[derive(Debug)]
pub struct RunReader {
    root: PathBuf,
    metrics: BTreeMap<String, Tail>,
    samples: BTreeMap<String, Tail>,
}

impl RunReader {
    /// Reads nothing yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), metrics: BTreeMap::new(), samples: BTreeMap::new() }
    }

    /// Adds what is new. A file that cannot be read is skipped: it may be readable the next time.
    pub fn poll(&mut self, view: &mut RunView) {
        let status = Status::read(&self.root);
        let mut names: Vec<String> =
            status.iter().flat_map(|s| &s.stages).map(|s| s.name.clone()).collect();
        names.extend(self.stages_on_disk());
        names.extend(self.metrics.keys().cloned());
        let mut seen = Vec::new();
        for name in names {
            if is_plain_name(&name) && !seen.contains(&name) {
                self.poll_stage(&name, view);
                seen.push(name);
            }
        }
        match &status {
            Some(status) => view.read_status(status),
            None => view.state = RunState::Unknown,
        }
        let is_held = Lock::holder(self.root.join("LOCK")).is_some();
        view.state = state(view, status.is_some(), is_held);
    }

    fn poll_stage(&mut self, name: &str, view: &mut RunView) {
        let dir = self.root.join(name);
        let metrics = self.metrics.entry(name.to_owned()).or_default();
        let mut rows = Vec::new();
        let again =
            metrics.read(&dir.join("metrics.jsonl"), |line| rows.extend(Row::of_line(line)));
        let stage = view.stage_mut(name);
        if again {
            stage.clear_rows();
        }
        for row in rows {
            stage.add_row(row);
        }
        let samples = self.samples.entry(name.to_owned()).or_default();
        let mut texts: Vec<Sample> = Vec::new();
        let again = samples.read(&dir.join("samples.jsonl"), |line| {
            texts.extend(serde_json::from_str::<Sample>(line));
        });
        if again {
            stage.samples.clear();
        }
        for sample in texts {
            stage.add_sample(sample);
        }
        if let Some(finished) = read_json(&dir.join("finished.json")) {
            let number = |key: &str| finished.get(key).and_then(serde_json::Value::as_f64);
            stage.is_finished = true;
            stage.step = number("steps").map_or(stage.step, |steps| steps as u64);
            stage.max_steps = stage.max_steps.max(stage.step);
            stage.elapsed = number("seconds").unwrap_or(stage.elapsed);
        }
    }

    /// Directories with logs, the oldest first.
    fn stages_on_disk(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        let mut found: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let changed =
                    fs::metadata(entry.path().join("metrics.jsonl")).ok()?.modified().ok()?;
                Some((changed, entry.file_name().into_string().ok()?))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name).collect()
    }
}

/// Whether a name from a status file is one of a directory in the run.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// The state of a run after its files were read.
fn state(view: &mut RunView, has_status: bool, is_held: bool) -> RunState {
    let is_finished = !view.stages.is_empty() && view.stages.iter().all(|stage| stage.is_finished);
    match view.state {
        RunState::Training | RunState::Stopping if is_held => view.state,
        RunState::Training | RunState::Stopping | RunState::Unknown => {
            // No process works on it, or one of a version that writes no status.
            if is_held {
                return RunState::Training;
            }
            if !has_status {
                view.current = view.stages.len().saturating_sub(1);
            }
            if is_finished { RunState::Finished } else { RunState::Failed }
        }
        state @ (RunState::Stopped | RunState::Finished | RunState::Failed) => {
            // A process has just started, before its first status.
            if is_held { RunState::Training } else { state }
        }
    }
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_str(&fsio::read_text_capped(path, limits::STATE_BYTES).ok()?).ok()
}

/// A file of lines that grows, and is truncated when a run resumes.
#[derive(Debug, Default)]
struct Tail {
    /// End of the last complete line that was read.
    offset: u64,
}

impl Tail {
    /// Calls `each` with every new complete line. Returns whether the file was read again from its start.
    fn read(&mut self, path: &Path, mut each: impl FnMut(&str)) -> bool {
        let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
        let Some(mut file) = is_file.then(|| File::open(path).ok()).flatten() else {
            return self.restart();
        };
        let again = !self.continues(&mut file) && self.restart();
        let mut rest: Vec<u8> = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let Ok(n) = file.read(&mut chunk) else { return again };
            let Some(read) = chunk.get(..n).filter(|read| !read.is_empty()) else { return again };
            rest.extend_from_slice(read);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
                // No row is as long: skip to the end of this line.
                if rest.len() > limits::JSONL_LINE_BYTES {
                    self.offset += rest.len() as u64;
                    rest.clear();
                }
                continue;
            };
            let after = rest.split_off(end + 1);
            self.offset += rest.len() as u64;
            for line in rest.split(|byte| *byte == b'\n') {
                if let Ok(line) = std::str::from_utf8(line) {
                    each(line);
                }
            }
            rest = after;
        }
    }

    /// Forgets what was read. Returns whether that was anything.
    fn restart(&mut self) -> bool {
        std::mem::take(&mut self.offset) > 0
    }

    /// Whether the file still has a line's end where reading stopped; moves there.
    fn continues(&self, file: &mut File) -> bool {
        let Some(before) = self.offset.checked_sub(1) else { return true };
        let mut byte = [0];
        let is_end = file.seek(SeekFrom::Start(before)).is_ok()
            && file.read_exact(&mut byte).is_ok()
            && byte == *b"\n";
        if !is_end {
            let _ = file.seek(SeekFrom::Start(0));
        }
        is_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::StageSteps;

    fn write(path: &Path, text: &str) {
        fsio::create_dir_all(path.parent().unwrap()).unwrap();
        fsio::write_atomic(path, text).unwrap();
    }

    fn line(step: u64) -> String {
        format!("{{\"step\":{step},\"loss\":{step}.5,\"lr\":0.1}}\n")
    }

    fn losses(view: &RunView) -> Vec<(u64, f64)> {
        view.stages
            .first()
            .and_then(|stage| stage.curve(&["loss"]))
            .map(|curve| curve.points().collect())
            .unwrap_or_default()
    }

    #[test]
    fn only_new_lines_are_read_and_a_torn_one_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sft/metrics.jsonl");
        let (mut reader, mut view) = (RunReader::new(dir.path()), RunView::new("run"));
        reader.poll(&mut view);
        assert_eq!((view.n_stages(), view.state()), (0, RunState::Failed));
        write(&path, &(line(1) + &line(2) + "{\"step\":3,\"lo"));
        reader.poll(&mut view);
        assert_eq!(losses(&view), [(1, 1.5), (2, 2.5)]);
        write(&path, &(line(1) + &line(2) + &line(3) + "not JSON\n\n" + &line(4)));
        reader.poll(&mut view);
        reader.poll(&mut view);
        assert_eq!(losses(&view), [(1, 1.5), (2, 2.5), (3, 3.5), (4, 4.5)]);
        // Truncated by a process that resumed: shorter, and longer again before this poll.
        write(&path, &line(1));
        reader.poll(&mut view);
        assert_eq!(losses(&view), [(1, 1.5)]);
        write(&path, "{\"step\":7,\"loss\":0.25,\"lr\":0.125,\"longer\":1}\n");
        reader.poll(&mut view);
        assert_eq!(losses(&view), [(7, 0.25)]);
        fsio::remove_file(&path).unwrap();
        reader.poll(&mut view);
        assert_eq!(losses(&view), []);
    }

    #[test]
    fn a_run_is_live_while_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let stage = StageSteps { name: "sft".into(), max_steps: 9, finished: false };
        let status = Status { state: RunState::Training, stages: vec![stage], ..Status::default() };
        status.write(dir.path()).unwrap();
        let (mut reader, mut view) = (RunReader::new(dir.path()), RunView::new("run"));
        let lock = Lock::acquire(dir.path().join("LOCK")).unwrap();
        reader.poll(&mut view);
        assert_eq!(view.state(), RunState::Training);
        drop(lock);
        reader.poll(&mut view);
        assert_eq!(view.state(), RunState::Failed);
        write(&dir.path().join("sft/finished.json"), r#"{"steps":9,"seconds":2.5}"#);
        reader.poll(&mut view);
        assert_eq!(view.state(), RunState::Finished);
        assert_eq!((view.stages[0].step, view.stages[0].elapsed), (9, 2.5));
    }

    #[test]
    fn names_of_a_status_file_stay_in_the_run() {
        for name in ["", "..", ".hidden", "a/b", "/etc"] {
            assert!(!is_plain_name(name), "{name}");
        }
        assert!(is_plain_name("sft"));
    }
}
