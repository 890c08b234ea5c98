//! A task: rows to prompts, responses to metrics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::{Location, Row};
use serde_json::{Map, Value};

use crate::builtin;
use crate::contamination::{RowTexts, texts_of};
use crate::context::{Chat, Context, Delimiters};
use crate::data_files::Places;
use crate::definition::Section;
use crate::definition::{Definition, FewShotKeys, PathsKey, RowsKey};
use crate::error::{Error, Result};
use crate::few_shot::{self, FewShot};
use crate::filters::Filter;
use crate::item::{Gold, Item, Response};
use crate::kind::{Generation, Kind, kind, template};
use crate::metrics::{self, Metric, MetricName, RowScore, metrics_of};
use crate::pairs;
use crate::summary::{Estimate, not_finite_notes, summarize};
use crate::template::{Columns, Template};

/// Maximum size of a task file.
const FILE_BYTES: u64 = 1 << 20;

/// A task.
#[derive(Debug)]
pub struct Task {
    name: String,
    dir: PathBuf,
    data: Vec<String>,
    source: Option<String>,
    description: Option<Template>,
    kind: Kind,
    metrics: Vec<Metric>,
    delimiters: Delimiters,
    shots: usize,
    few_shot: FewShotSettings,
}

#[derive(Debug)]
struct FewShotSettings {
    data: Option<Vec<String>>,
    examples: Option<Vec<Map<String, Value>>>,
    rows: RowsKey,
    seed: u64,
    leave_out_row: bool,
    same: Option<String>,
}

/// Options of [`Task::items`].
#[derive(Clone, Debug, Default)]
pub struct TaskOptions {
    /// Directory of `data:` paths.
    pub data_dir: Option<PathBuf>,
    /// Only the first rows.
    pub limit: Option<usize>,
    /// Number of few-shot examples.
    pub shots: usize,
}

impl Task {
    /// A built-in task by its name, or the task of a file whose name ends in `.toml`.
    pub fn open(name_or_path: &Path) -> Result<Self> {
        let is_file = name_or_path.extension().is_some_and(|extension| extension == "toml");
        if is_file {
            let text = fsio::read_text_capped(name_or_path, FILE_BYTES)?;
            let dir = name_or_path.parent().unwrap_or(Path::new(""));
            let stem = name_or_path.file_stem().unwrap_or_default().to_string_lossy();
            return Self::parse(&text, &name_or_path.display().to_string(), &stem, dir);
        }
        let name = name_or_path.to_string_lossy();
        match builtin::text_of(&name) {
            Some(text) => Self::parse(text, &format!("built-in task {name}"), &name, Path::new("")),
            None => {
                Err(Error::Unknown { nearest: builtin::nearest(&name), name: name.into_owned() })
            }
        }
    }

    /// Reads a task file. `origin` is named in errors, `stem` is the name of a task without one, and relative paths start
    /// at `dir`.
    fn parse(text: &str, origin: &str, stem: &str, dir: &Path) -> Result<Self> {
        let definition: Definition = toml_edit::de::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| before.matches('\n').count() + 1);
            let reason = error.message().trim().replace('\n', " ");
            Error::Definition { origin: origin.to_owned(), line, reason, hint: None }
        })?;
        let wrong = |reason: String| Error::definition(origin, reason);
        let kind_key = definition.kind;
        let name = definition.name.clone().unwrap_or_else(|| stem.to_owned());
        let metrics = metrics_of(kind_key, definition.metrics.as_deref()).map_err(wrong)?;
        let description =
            definition.description.as_deref().map(|text| template("description", text));
        let few_shot = few_shot_settings(&definition.few_shot);
        let (data, source) = (definition.data.clone().into_list(), definition.source.clone());
        if data.is_empty() {
            return Err(wrong("`data` is empty".to_owned()));
        }
        Ok(Self {
            name,
            dir: dir.to_path_buf(),
            data,
            source,
            description: description.transpose().map_err(wrong)?,
            metrics,
            delimiters: Delimiters {
                answer: definition.answer_delimiter.clone(),
                shot: definition.shot_delimiter.clone(),
            },
            shots: definition.shots,
            kind: kind(definition).map_err(wrong)?,
            few_shot,
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of few-shot examples where none is given.
    pub fn default_shots(&self) -> usize {
        self.shots
    }

    /// Arguments of generation, for tasks with completions.
    pub fn generation(&self) -> Option<&Generation> {
        match &self.kind {
            Kind::Generate { generation, .. } | Kind::Instructions { generation, .. } => {
                Some(generation)
            }
            Kind::Choices { .. }
            | Kind::Prompts { .. }
            | Kind::LogLikelihood { .. }
            | Kind::Rolling { .. }
            | Kind::Pairs { .. } => None,
        }
    }

    /// Whether the task is for reward models, which score texts. All other tasks are for language models.
    pub fn needs_scores(&self) -> bool {
        matches!(self.kind, Kind::Pairs { .. })
    }

    /// Whether a reward model ranks the task's completions.
    pub fn needs_rewards(&self) -> bool {
        matches!(&self.kind, Kind::Generate { filters, .. } if filters.iter().any(Filter::needs_rewards))
    }

    /// Metrics, in the order of [`Self::score`].
    pub fn metric_names(&self) -> Vec<MetricName> {
        match &self.kind {
            Kind::Generate { filters, generation, .. } => {
                let passes = generation.pass_at.iter().map(|k| Metric::PassAt(*k));
                let metrics: Vec<Metric> =
                    std::iter::once(Metric::ExactMatch).chain(passes).collect();
                let of = |filter: &Filter| -> Vec<MetricName> {
                    metrics.iter().map(|metric| MetricName::new(*metric, &filter.name)).collect()
                };
                filters.iter().flat_map(of).collect()
            }
            Kind::Pairs { sections, .. } => {
                let mut names = vec![MetricName::new(Metric::Acc, "none")];
                let of = |section: &Section| MetricName::new(Metric::Section, &section.name);
                names.extend(sections.iter().map(of));
                if !sections.is_empty() {
                    names.push(MetricName::new(Metric::Score, "none"));
                }
                names
            }
            Kind::Choices { .. }
            | Kind::Prompts { .. }
            | Kind::LogLikelihood { .. }
            | Kind::Rolling { .. }
            | Kind::Instructions { .. } => {
                self.metrics.iter().map(|metric| MetricName::new(*metric, "none")).collect()
            }
        }
    }

    /// Every text of the rows, to compare training data with them.
    pub fn texts(&self, options: &TaskOptions) -> Result<Vec<RowTexts>> {
        let rows = self.places(options).rows(&self.data, "data", options.limit)?;
        let of =
            |row: &Row| RowTexts { place: row.location.to_string(), texts: texts_of(&row.columns) };
        Ok(rows.iter().map(of).collect())
    }

    fn places<'a>(&'a self, options: &'a TaskOptions) -> Places<'a> {
        Places {
            task: &self.name,
            task_dir: &self.dir,
            data_dir: options.data_dir.as_deref(),
            source: self.source.as_deref(),
        }
    }

    /// Rows with their requests, in the order of the data.
    pub fn items(&self, options: &TaskOptions) -> Result<Vec<Item>> {
        self.items_in(options, None)
    }

    /// As [`Self::items`], with prompts that a chat template renders: the description is the system message, examples are
    /// messages of user and assistant, and no delimiter is before an answer.
    pub fn items_as_chat(&self, options: &TaskOptions, chat: Chat<'_>) -> Result<Vec<Item>> {
        self.items_in(options, Some(chat))
    }

    fn items_in(&self, options: &TaskOptions, chat: Option<Chat<'_>>) -> Result<Vec<Item>> {
        let places = self.places(options);
        let mut few_shot = self.few_shot(options.shots, &places)?;
        let rows = places.rows(&self.data, "data", options.limit)?;
        let mut items = Vec::with_capacity(rows.len());
        for (doc_id, row) in rows.iter().enumerate() {
            let place = row.location.to_string();
            let shots = few_shot.select(&row.columns, options.shots).map_err(|reason| {
                let hint =
                    "use fewer with --shots, or name a file with more rows as `few_shot.data`";
                let (task, shots) = (self.name.clone(), options.shots);
                Error::Shots { task, shots, reason, hint }
            })?;
            let columns = Columns::new(&row.columns);
            let fails = |reason| self.row_error(&place, reason);
            let description = match &self.description {
                Some(description) => description.text(&columns).map_err(fails)?,
                None => String::new(),
            };
            let mut examples = Vec::with_capacity(shots.len());
            for example in shots.into_iter().filter_map(|idx| few_shot.pool.get(idx)) {
                let shown = self.kind.example(&Columns::new(&example.columns));
                let fails = |reason| self.row_error(&example.location.to_string(), reason);
                examples.push(shown.map_err(fails)?);
            }
            let context = Context { description, examples, delimiters: &self.delimiters, chat };
            let (requests, gold) = self.kind.requests(&row.columns, &context).map_err(fails)?;
            let question = self.kind.question(&row.columns).map_err(fails)?;
            items.push(Item { doc_id, place, question, requests, gold });
        }
        Ok(items)
    }

    fn row_error(&self, place: &str, reason: String) -> Error {
        Error::Row { place: place.to_owned(), reason, task: self.name.clone() }
    }

    fn few_shot(&self, shots: usize, places: &Places<'_>) -> Result<FewShot> {
        let settings = &self.few_shot;
        if shots > 0 && matches!(self.kind, Kind::Rolling { .. }) {
            let reason = "a text is scored from its beginning".to_owned();
            let hint = "leave out --shots, or use 0";
            return Err(Error::Shots { task: self.name.clone(), shots, reason, hint });
        }
        if shots > 0 && matches!(self.kind, Kind::Instructions { .. } | Kind::Pairs { .. }) {
            let reason = "its rows have no answers to show".to_owned();
            let hint = "leave out --shots, or use 0";
            return Err(Error::Shots { task: self.name.clone(), shots, reason, hint });
        }
        let pool = match (&settings.examples, &settings.data) {
            _ if shots == 0 => Vec::new(),
            (Some(examples), _) => {
                let file: Arc<Path> = Arc::from(Path::new(&self.name));
                let row = |(idx, columns): (usize, &Map<String, Value>)| Row {
                    columns: columns.clone(),
                    location: Location::row(&file, idx as u64 + 1),
                };
                examples.iter().enumerate().map(row).collect()
            }
            (None, Some(paths)) => places.rows(paths, "few-shot data", None)?,
            (None, None) => places.rows(&self.data, "data", None)?,
        };
        Ok(FewShot::new(
            pool,
            settings.rows,
            settings.seed,
            settings.leave_out_row,
            settings.same.clone(),
        ))
    }

    /// Metrics of a row from the responses to its requests, and the answers that filters extracted.
    ///
    /// # Panics
    /// If the responses do not belong to the item.
    pub fn score(
        &self,
        item: &Item,
        responses: &[Response],
    ) -> (Vec<RowScore>, Vec<(String, String)>) {
        assert_eq!(item.requests.len(), responses.len(), "one response for each request");
        match (&self.kind, &item.gold, responses) {
            (Kind::Generate { filters, exact, generation, .. }, Gold::Texts(right), [response]) => {
                let (texts, rewards) = completions(response);
                let pass_at = &generation.pass_at;
                metrics::of_completions(filters, exact, right, &texts, rewards.as_deref(), pass_at)
            }
            (Kind::Rolling { .. }, Gold::Texts(texts), [Response::Rolling { sum }]) => {
                let text = texts.first().map_or("", String::as_str);
                (metrics::of_text(&self.metrics, text, *sum), Vec::new())
            }
            (Kind::LogLikelihood { .. }, _, [Response::LogLikelihood { sum, is_greedy }]) => {
                (metrics::of_continuation(&self.metrics, *sum, *is_greedy), Vec::new())
            }
            (_, Gold::Choice { index, choices }, _) => {
                let sums = metrics::log_likelihoods(responses).expect("log-likelihoods of choices");
                (metrics::of_choices(&self.metrics, *index, choices, &sums), Vec::new())
            }
            (_, Gold::Instructions(instructions), [response]) => {
                let followed = instructions.followed(&first_completion(response));
                (metrics::of_instructions(&self.metrics, &followed), Vec::new())
            }
            (_, Gold::Pair { .. }, [Response::Score(chosen), Response::Score(rejected)]) => {
                (metrics::of_pair(*chosen, *rejected), Vec::new())
            }
            (_, Gold::Texts(_) | Gold::Instructions(_) | Gold::Pair { .. }, _) => {
                panic!("responses of another kind")
            }
        }
    }

    /// The metrics over all rows, from the scores of [`Self::score`].
    pub fn summarize(&self, items: &[Item], scores: &[Vec<RowScore>]) -> Vec<Estimate> {
        match &self.kind {
            Kind::Pairs { sections, .. } => pairs::estimates(items, scores, sections),
            Kind::Choices { .. }
            | Kind::Prompts { .. }
            | Kind::LogLikelihood { .. }
            | Kind::Rolling { .. }
            | Kind::Generate { .. }
            | Kind::Instructions { .. } => summarize(scores),
        }
    }

    /// Notes that a reader of the metrics should know, as sentences: instructions that are not checked, subsets without rows,
    /// metrics that are no finite numbers.
    pub fn notes(
        &self,
        items: &[Item],
        scores: &[Vec<RowScore>],
        estimates: &[Estimate],
    ) -> Vec<String> {
        let mut notes = match &self.kind {
            Kind::Pairs { sections, .. } => pairs::notes(items, sections),
            Kind::Choices { .. }
            | Kind::Prompts { .. }
            | Kind::LogLikelihood { .. }
            | Kind::Rolling { .. }
            | Kind::Generate { .. }
            | Kind::Instructions { .. } => Vec::new(),
        };
        let mut n_unchecked: BTreeMap<&str, usize> = BTreeMap::new();
        for item in items {
            if let Gold::Instructions(instructions) = &item.gold {
                for name in instructions.unchecked() {
                    *n_unchecked.entry(name).or_default() += 1;
                }
            }
        }
        for (name, n) in n_unchecked {
            notes.push(format!(
                "{n} of the instructions are not checked (`{name}`); the metrics per prompt leave out their prompts"
            ));
        }
        notes.extend(not_finite_notes(estimates, scores));
        notes
    }

    /// The object that describes a scored row: `target`, `requests`, `filtered` and the metrics.
    pub fn row_json(
        &self,
        item: &Item,
        responses: &[Response],
        scores: &[RowScore],
        answers: &[(String, String)],
    ) -> Map<String, Value> {
        let requests = item.requests.iter().zip(responses).map(|(request, response)| {
            let mut object = Map::new();
            request.describe(&mut object);
            response.describe(&mut object);
            Value::Object(object)
        });
        let mut row = metrics::row_json(&item.gold, requests.collect(), scores, answers);
        if let (Gold::Instructions(instructions), [response]) = (&item.gold, responses) {
            row.insert(
                "instructions".to_owned(),
                instructions.describe(&first_completion(response)),
            );
        }
        row
    }
}

/// Completions and their scores.
fn completions(response: &Response) -> (Vec<String>, Option<Vec<f64>>) {
    match response {
        Response::Generated(texts) => (texts.clone(), None),
        Response::Ranked(ranked) => {
            let (texts, rewards) = ranked.iter().cloned().unzip();
            (texts, Some(rewards))
        }
        Response::LogLikelihood { .. } | Response::Rolling { .. } | Response::Score(_) => {
            panic!("responses of another kind")
        }
    }
}

fn first_completion(response: &Response) -> String {
    completions(response).0.into_iter().next().unwrap_or_default()
}

fn few_shot_settings(keys: &FewShotKeys) -> FewShotSettings {
    let is_same_file = keys.data.is_none() && keys.examples.is_none();
    FewShotSettings {
        data: keys.data.clone().map(PathsKey::into_list),
        examples: keys.examples.clone(),
        rows: keys.rows,
        seed: keys.seed.unwrap_or(few_shot::SEED),
        leave_out_row: keys.leave_out_row.unwrap_or(is_same_file),
        same: keys.same.clone(),
    }
}
