//! Rows of a task: the first of its paths that exists, read with the readers of training data.

use std::path::{Path, PathBuf};

use data::{BytesRead, Row};
use recipe::DATA_PREFIX;

use crate::error::{Error, Result, listed};

/// The place of a task's files.
#[derive(Clone, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) task: &'a str,
    /// Directory of the task file.
    pub(crate) task_dir: &'a Path,
    /// Directory of `data:` paths.
    pub(crate) data_dir: Option<&'a Path>,
    /// Where the data can be had, as a sentence.
    pub(crate) source: Option<&'a str>,
}

impl Places<'_> {
    /// Rows of the first path that exists, at most `limit`. `what` is `data` or `few-shot data`.
    pub(crate) fn rows(
        &self,
        paths: &[String],
        what: &'static str,
        limit: Option<usize>,
    ) -> Result<Vec<Row>> {
        let files = self.files(paths, what)?;
        let mut rows = Vec::new();
        for file in &files {
            for row in data::read_rows(file, None, None, &BytesRead::default())? {
                if limit.is_some_and(|limit| rows.len() >= limit) {
                    return Ok(rows);
                }
                rows.push(row?);
            }
        }
        if rows.is_empty() {
            let (reason, hint) =
                (format!("no rows in {}", listed(&files)), "check the file".to_owned());
            return Err(Error::NoData { task: self.task.to_owned(), what, reason, hint });
        }
        Ok(rows)
    }

    fn files(&self, paths: &[String], what: &'static str) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for path in paths {
            if path.starts_with(DATA_PREFIX) && self.data_dir.is_none() {
                missing.push(PathBuf::from(path));
                continue;
            }
            let data_dir = self.data_dir.unwrap_or(Path::new(""));
            let path = data::resolve(path, self.task_dir, data_dir)?;
            match data::expand(&path, None, None) {
                Ok(files) => return Ok(files.paths),
                Err(data::Error::NotFound { .. } | data::Error::PatternMatchesNothing { .. }) => {
                    missing.push(path);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let reason = format!("found none of {}", listed(&missing));
        if paths.iter().any(|path| path.starts_with(DATA_PREFIX)) {
            return Err(self.missing(what, reason));
        }
        let hint = "paths of a task file start at its directory".to_owned();
        Err(Error::NoData { task: self.task.to_owned(), what, reason, hint })
    }

    fn missing(&self, what: &'static str, reason: String) -> Error {
        let mut hint = match self.data_dir {
            Some(_) => "put one of these files into the directory of --data-dir".to_owned(),
            None => "name the directory of these files with --data-dir DIR".to_owned(),
        };
        if let Some(source) = self.source {
            hint = format!("{hint}; {source}");
        }
        Error::NoData { task: self.task.to_owned(), what, reason, hint }
    }
}
