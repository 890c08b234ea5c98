//! A run in MLflow's file store: a file for each metric and setting.
//!
//! The layout is that of `mlflow/store/tracking/file_store.py`: `mlruns/EXPERIMENT/RUN/{meta.yaml, metrics, params, tags,
//! artifacts}`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fsio::{AppendLog, create_dir_all, read_text_capped, write_atomic};
use serde_json::json;

use super::{History, Identity, MetricsCopy, Tracking, Values, now};
use crate::Result;
use crate::metrics::SampleRow;

/// Longest value of a setting that MLflow reads.
const PARAM_CHARS: usize = 6000;
/// Largest file of a metric of which the times are kept.
const METRIC_BYTES: u64 = 1 << 28;
/// The experiment that MLflow has without being told.
const EXPERIMENT: &str = "0";
/// States of a run.
const RUNNING: u32 = 1;
const FINISHED: u32 = 3;

/// A run in a file store.
pub(super) struct Mlflow {
    identity: Identity,
    tracking: Tracking,
    metrics: BTreeMap<String, AppendLog>,
    samples: Option<AppendLog>,
}

impl Mlflow {
    /// The run of a stage; nothing is written.
    pub(super) fn new(identity: Identity, tracking: Tracking) -> Self {
        Self { identity, tracking, metrics: BTreeMap::new(), samples: None }
    }

    fn store(&self) -> PathBuf {
        self.identity.run_dir.join("mlruns")
    }

    fn dir(&self) -> PathBuf {
        self.store().join(EXPERIMENT).join(self.identity.id())
    }

    fn metric_path(&self, name: &str) -> PathBuf {
        self.dir().join("metrics").join(plain_name(name))
    }

    fn write_meta(&self, status: u32) -> Result<()> {
        let end = (status == FINISHED).then(|| millis(now()));
        // A JSON object is YAML, too.
        let meta = json!({
            "artifact_uri": uri(&self.dir().join("artifacts")),
            "deleted_time": null,
            "end_time": end,
            "entry_point_name": "",
            "experiment_id": EXPERIMENT,
            "lifecycle_stage": "active",
            "run_id": self.identity.id(),
            "run_name": self.tracking.title(),
            "source_name": "",
            "source_type": 4,
            "source_version": "",
            "start_time": millis(self.identity.started()),
            "status": status,
            "tags": [],
            "user_id": "temper",
        });
        Ok(write_atomic(self.dir().join("meta.yaml"), yaml(&meta))?)
    }

    /// The experiment, settings, tags and the recipe.
    fn describe(&self) -> Result<()> {
        let (store, dir) = (self.store(), self.dir());
        for part in ["metrics", "params", "tags", "artifacts"] {
            create_dir_all(dir.join(part))?;
        }
        let experiment = store.join(EXPERIMENT).join("meta.yaml");
        if !experiment.exists() {
            let created = millis(self.identity.started());
            let meta = json!({
                "artifact_location": uri(&store.join(EXPERIMENT)),
                "creation_time": created,
                "experiment_id": EXPERIMENT,
                "last_update_time": created,
                "lifecycle_stage": "active",
                "name": "Default",
            });
            write_atomic(experiment, yaml(&meta))?;
        }
        self.write_meta(RUNNING)?;
        for (name, value) in self.tracking.settings() {
            let value: String = value.chars().take(PARAM_CHARS).collect();
            write_atomic(dir.join("params").join(plain_name(&name)), value)?;
        }
        for (name, value) in
            [("mlflow.runName", self.tracking.title()), ("mlflow.source.type", "LOCAL".to_owned())]
        {
            write_atomic(dir.join("tags").join(name), value)?;
        }
        write_atomic(dir.join("artifacts/recipe.toml"), &self.tracking.recipe_toml)?;
        Ok(())
    }
}

impl MetricsCopy for Mlflow {
    fn start(&mut self, history: &History) -> Result<()> {
        self.identity.save()?;
        self.describe()?;
        let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut times: BTreeMap<PathBuf, BTreeMap<u64, u64>> = BTreeMap::new();
        for (step, values) in &history.values {
            for (name, value) in values {
                let path = self.metric_path(name);
                let known = times.entry(path.clone()).or_insert_with(|| old_times(&path));
                let time = known.get(step).copied().unwrap_or_else(|| millis(now()));
                *files.entry(path).or_default() += &(line(time, *value, *step) + "\n");
            }
        }
        // A metric that appeared after the checkpoint.
        for path in files_below(&self.dir().join("metrics")) {
            files.entry(path).or_default();
        }
        for (path, text) in files {
            if text.is_empty() {
                fsio::remove_file(&path)?;
                continue;
            }
            if let Some(dir) = path.parent() {
                create_dir_all(dir)?;
            }
            write_atomic(&path, text)?;
        }
        let samples = self.dir().join("artifacts/samples.jsonl");
        let rows = history.samples.iter().map(|row| json!(row).to_string() + "\n");
        write_atomic(&samples, rows.collect::<String>())?;
        self.samples = Some(AppendLog::open(samples)?);
        Ok(())
    }

    fn values(&mut self, values: &Values) -> Result<()> {
        let time = millis(now());
        for (name, value) in &values.values {
            let line = line(time, *value, values.step);
            match self.metrics.get_mut(name) {
                Some(log) => log.append(&line)?,
                None => {
                    let path = self.metric_path(name);
                    if let Some(dir) = path.parent() {
                        create_dir_all(dir)?;
                    }
                    let mut log = AppendLog::open(path)?;
                    log.append(&line)?;
                    self.metrics.insert(name.clone(), log);
                }
            }
        }
        Ok(())
    }

    fn sample(&mut self, row: &SampleRow) -> Result<()> {
        if let Some(samples) = &mut self.samples {
            samples.append(&json!(row).to_string())?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.write_meta(FINISHED)
    }
}

fn line(time: u64, value: f64, step: u64) -> String {
    format!("{time} {value} {step}")
}

/// The times of a metric by step, as an earlier process wrote them.
fn old_times(path: &std::path::Path) -> BTreeMap<u64, u64> {
    let text = read_text_capped(path, METRIC_BYTES).unwrap_or_default();
    let time = |line: &str| {
        let mut parts = line.split(' ');
        let time = parts.next()?.parse().ok()?;
        Some((parts.nth(1)?.parse().ok()?, time))
    };
    text.lines().filter_map(time).collect()
}

/// Files below a directory. Links are not followed.
fn files_below(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
    found
}

/// A name in the characters that MLflow reads. Its parts are those of a path, and none leads out of its directory.
fn plain_name(name: &str) -> PathBuf {
    let is_known = |c: char| c.is_alphanumeric() || "_-. ".contains(c);
    let parts = name.replace('[', ".").replace(']', "");
    let parts = parts.split('/').map(|part| {
        let part: String = part.chars().map(|c| if is_known(c) { c } else { '_' }).collect();
        match part.as_str() {
            "" | "." | ".." => "_".to_owned(),
            _ => part.chars().take(250).collect(),
        }
    });
    parts.collect()
}

fn uri(path: &std::path::Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    path.display().to_string().bytes().fold("file://".to_owned(), |text, byte| match byte {
        byte if is_plain(byte) => text + &char::from(byte).to_string(),
        byte => text + &format!("%{byte:02X}"),
    })
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// A flat object as YAML: a line for each key, with its value in JSON.
fn yaml(object: &serde_json::Value) -> String {
    let pairs = object.as_object().into_iter().flatten();
    pairs.fold(String::new(), |text, (key, value)| text + &format!("{key}: {value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for (name, plain) in [
            ("train/loss", "train/loss"),
            ("train/rewards/a:b/mean", "train/rewards/a_b/mean"),
            ("eval/../../x", "eval/_/_/x"),
            ("/etc", "_/etc"),
            ("sft.data[0].path", "sft.data.0.path"),
        ] {
            assert_eq!(plain_name(name), PathBuf::from(plain), "{name}");
        }
        assert_eq!(uri(std::path::Path::new("/a b/c")), "file:///a%20b/c");
    }
}
