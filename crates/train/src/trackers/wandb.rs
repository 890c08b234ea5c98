//! An offline run of Weights & Biases: `wandb/offline-run-DATE-ID/run-ID.wandb`, which `wandb sync` uploads.
//!
//! The file has a log of `Record`s (`wandb/proto/wandb_internal.proto`): header, run with its settings, history, summary, exit.
//! Values of one step are one record, so they wait until the next step. Field numbers are named beside each message.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fsio::{AppendLog, create_dir_all, write_atomic};
use serde_json::{Value, json};

use super::proto::{Field, Message, fields};
use super::record_log::{FILE_HEADER, append_record, records};
use super::{History, Identity, MetricsCopy, Tracking, Values, now};
use crate::Result;
use crate::metrics::SampleRow;

/// Digits of the identity that are the run's.
const ID_DIGITS: usize = 12;
/// The project, which `wandb sync --project` replaces.
const PROJECT: &str = "temper";
/// The oldest version whose reader knows all fields.
const MIN_CONSUMER: &str = "0.40.0";

/// Largest file of which the times are kept.
const MAX_BYTES: u64 = 1 << 30;

/// Kinds of a record: numbers of the fields of `Record`.
mod kind {
    pub(super) const HISTORY: u64 = 2;
    pub(super) const SUMMARY: u64 = 3;
    pub(super) const FILES: u64 = 6;
    pub(super) const RUN: u64 = 17;
    pub(super) const EXIT: u64 = 18;
    pub(super) const HEADER: u64 = 21;
}

/// An offline run.
pub(super) struct Wandb {
    identity: Identity,
    tracking: Tracking,
    out: Out,
    n_records: u64,
    /// The latest step, which may get more values.
    waiting: Waiting,
    summary: BTreeMap<String, Value>,
}

/// The place of the next record.
enum Out {
    /// A file that is written at once.
    Memory(Vec<u8>),
    File(AppendLog),
}

/// Values and samples of one step.
#[derive(Default)]
struct Waiting {
    step: u64,
    /// When the first of them came.
    time: f64,
    values: Vec<(String, f64)>,
    samples: Vec<SampleRow>,
}

impl Wandb {
    /// The run of a stage; nothing is written.
    pub(super) fn new(identity: Identity, tracking: Tracking) -> Self {
        let (waiting, summary) = (Waiting::default(), BTreeMap::new());
        Self { identity, tracking, out: Out::Memory(Vec::new()), n_records: 0, waiting, summary }
    }

    fn id(&self) -> String {
        self.identity.id().chars().take(ID_DIGITS).collect()
    }

    fn dir(&self) -> PathBuf {
        let [year, month, day, hour, minute, second] =
            fsio::utc_date_time(self.identity.started() as u64);
        let date = format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}");
        self.identity.run_dir.join("wandb").join(format!("offline-run-{date}-{}", self.id()))
    }

    /// Appends a record.
    fn record(&mut self, kind: u64, content: &Message) -> Result<()> {
        self.n_records += 1;
        let record = Message::new().int(1, self.n_records).message(kind, content).into_bytes();
        match &mut self.out {
            Out::Memory(bytes) => append_record(bytes, bytes.len() as u64, &record),
            Out::File(log) => {
                let mut bytes = Vec::new();
                append_record(&mut bytes, log.len(), &record);
                log.append_bytes(&bytes)?;
            }
        }
        Ok(())
    }

    /// `HeaderRecord` {1: `VersionInfo` {1: producer, 2: `min_consumer`}} and `RunRecord` {1: `run_id`, 3: project, 4: config,
    /// 6: `run_group`, 7: `job_type`, 8: `display_name`, 17: `start_time`}.
    fn describe(&mut self) -> Result<()> {
        let producer = format!("temper {}", env!("CARGO_PKG_VERSION"));
        let version = Message::new().text(1, producer).text(2, MIN_CONSUMER);
        self.record(kind::HEADER, &Message::new().message(1, &version))?;
        let sections = self.tracking.recipe.as_object().cloned().unwrap_or_default();
        let config = sections.iter().filter(|(_, value)| !value.is_null()).fold(
            Message::new(),
            |config, (key, value)| {
                // ConfigItem {1: key, 16: value_json}
                config.message(1, &Message::new().text(1, key).text(16, value.to_string()))
            },
        );
        let started = self.identity.started();
        let nanos = (started.fract() * 1e9) as u64;
        let run = Message::new()
            .text(1, self.id())
            .text(3, PROJECT)
            .message(4, &config)
            .text(6, &self.tracking.run)
            .text(7, &self.tracking.stage)
            .text(8, self.tracking.title())
            .message(17, &Message::new().int(1, started as u64).int(2, nanos));
        self.record(kind::RUN, &run)
    }

    /// Writes the step that waits.
    fn write_waiting(&mut self) -> Result<()> {
        let Waiting { step, time, values, samples } = std::mem::take(&mut self.waiting);
        (self.waiting.step, self.waiting.time) = (step, time);
        if values.is_empty() && samples.is_empty() {
            return Ok(());
        }
        let mut row: Vec<(String, Value)> =
            values.into_iter().map(|(name, value)| (name, json!(value))).collect();
        if !samples.is_empty() {
            row.push(("samples".to_owned(), self.table(step, &samples)?));
        }
        row.push(("_step".to_owned(), json!(step)));
        row.push(("_timestamp".to_owned(), json!(time)));
        row.push(("_runtime".to_owned(), json!((time - self.identity.started()).max(0.0))));
        // HistoryItem {1: key, 16: value_json}; HistoryStep {1: num}
        let history = row.iter().fold(Message::new(), |history, (name, value)| {
            history.message(1, &Message::new().text(1, name).text(16, value.to_string()))
        });
        let history = history.message(2, &Message::new().int(1, step));
        self.summary.extend(row);
        self.record(kind::HISTORY, &history)
    }

    /// Writes a table of samples to a file of the run, and returns the value that names it.
    fn table(&mut self, step: u64, samples: &[SampleRow]) -> Result<Value> {
        let rows = samples
            .iter()
            .map(|row| json!([row.step, row.prompt, row.text, row.before, row.score]))
            .collect::<Vec<_>>();
        let columns = ["step", "prompt", "text", "before", "score"];
        let text = json!({ "columns": columns, "data": rows }).to_string();
        let hash = fsio::sha256_hex(text.as_bytes());
        let digits: String = hash.chars().take(20).collect();
        let path = format!("media/table/samples_{step}_{digits}.table.json");
        let files = self.dir().join("files");
        create_dir_all(files.join("media/table"))?;
        write_atomic(files.join(&path), &text)?;
        // FilesRecord {1: FilesItem {1: path}}
        let item = Message::new().text(1, &path);
        self.record(kind::FILES, &Message::new().message(1, &item))?;
        Ok(json!({
            "_type": "table-file", "path": path, "sha256": hash, "size": text.len(),
            "ncols": columns.len(), "nrows": rows.len(),
        }))
    }

    /// Adds values of a step; those of the step before are complete then.
    fn wait_for(&mut self, step: u64) -> Result<()> {
        if self.waiting.step != step || self.waiting.time == 0.0 {
            self.write_waiting()?;
            (self.waiting.step, self.waiting.time) = (step, now());
        }
        Ok(())
    }

    /// `SummaryRecord` {1: `SummaryItem` {1: key, 16: `value_json`}}: the latest value of each name.
    fn write_summary(&mut self) -> Result<()> {
        let summary = self.summary.iter().fold(Message::new(), |summary, (name, value)| {
            summary.message(1, &Message::new().text(1, name).text(16, value.to_string()))
        });
        self.record(kind::SUMMARY, &summary)
    }
}

impl MetricsCopy for Wandb {
    fn start(&mut self, history: &History) -> Result<()> {
        self.identity.save()?;
        let dir = self.dir();
        create_dir_all(dir.join("files"))?;
        create_dir_all(dir.join("logs"))?;
        let path = dir.join(format!("run-{}.wandb", self.id()));
        let times = times(&fsio::read_capped(&path, MAX_BYTES).unwrap_or_default());
        self.out = Out::Memory(FILE_HEADER.to_vec());
        self.describe()?;
        let mut samples = history.samples.iter().peekable();
        let steps = history.values.keys().chain(history.samples.iter().map(|row| &row.step));
        let steps: std::collections::BTreeSet<u64> = steps.copied().collect();
        for step in steps {
            let time = times.get(&step).copied().unwrap_or_else(now);
            (self.waiting.step, self.waiting.time) = (step, time);
            self.waiting.values = history.values.get(&step).cloned().unwrap_or_default();
            while let Some(row) = samples.next_if(|row| row.step <= step) {
                self.waiting.samples.push(row.clone());
            }
            self.write_waiting()?;
        }
        if !self.summary.is_empty() {
            self.write_summary()?;
        }
        if let Out::Memory(bytes) = &self.out {
            write_atomic(&path, bytes)?;
        }
        self.out = Out::File(AppendLog::open(path)?);
        Ok(())
    }

    fn values(&mut self, values: &Values) -> Result<()> {
        self.wait_for(values.step)?;
        self.waiting.values.extend(values.values.iter().cloned());
        Ok(())
    }

    fn sample(&mut self, row: &SampleRow) -> Result<()> {
        self.wait_for(row.step)?;
        self.waiting.samples.push(row.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.write_waiting()?;
        self.write_summary()
    }

    fn finish(&mut self) -> Result<()> {
        self.write_waiting()?;
        self.write_summary()?;
        // RunExitRecord {1: exit_code, 2: runtime}
        let runtime = (now() - self.identity.started()).max(0.0) as u64;
        self.record(kind::EXIT, &Message::new().int(1, 0).int(2, runtime))
    }
}

/// The times of the steps in a file, as an earlier process wrote them.
fn times(file: &[u8]) -> BTreeMap<u64, f64> {
    let mut times = BTreeMap::new();
    for record in records(file) {
        let of =
            |number| fields(&record).filter_map(move |(at, field)| (at == number).then_some(field));
        for history in of(kind::HISTORY).filter_map(Field::bytes) {
            let item = |item: &[u8]| {
                let text = |number| {
                    let found = fields(item).find(|(at, _)| *at == number)?.1.bytes()?;
                    std::str::from_utf8(found).ok()
                };
                (text(1)? == "_timestamp").then(|| text(16)?.parse::<f64>().ok()).flatten()
            };
            let step = |step: &[u8]| fields(step).find_map(|(at, field)| field.int(at == 1));
            let parts = || fields(history).filter_map(|(at, field)| Some((at, field.bytes()?)));
            let time = parts().filter(|(at, _)| *at == 1).find_map(|(_, part)| item(part));
            let step = parts().filter(|(at, _)| *at == 2).map(|(_, part)| step(part).unwrap_or(0));
            times.extend(step.zip(time));
        }
    }
    times
}
