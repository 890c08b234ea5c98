//! The README.md of an exported directory: where the model comes from, what it was trained on, how to open it.
//!
//! Paths are named by their last part, so that no layout of a machine is published. The licence is left to the user.

use std::path::{Path, PathBuf};

use arch::Architecture;
use evaluate::proof::{Output, Proof};
use serde_json::Value;
use train::{RECIPE_FILE, StageDir, StageStatus};

use crate::failure::Result;

/// Name of the file.
pub(crate) const CARD_FILE: &str = "README.md";

/// Facts about an exported model.
#[derive(Debug)]
pub(crate) struct ModelCard {
    architecture: Architecture,
    is_adapter: bool,
    /// The model that was exported, as shown.
    source: String,
    base: Option<String>,
    training: Option<Training>,
}

/// The stage that trained a model.
#[derive(Debug)]
struct Training {
    run: String,
    stage: String,
    recipe_sha256: String,
    /// The stage's section of the resolved recipe.
    section: Value,
    steps: u64,
    tokens: u64,
    metrics: Vec<(String, f64)>,
}

impl ModelCard {
    /// The card of a model in `dir`, which may be a stage's `model/` or one of its checkpoints.
    pub(crate) fn of(dir: &Path, base: Option<&Path>, architecture: Architecture) -> Result<Self> {
        let training = Training::find(dir)?;
        let recorded = plan::recorded_base(dir).ok().flatten();
        let base = base.map(Path::to_owned).or(recorded).map(|base| name_of(&base));
        let source = training.as_ref().map_or_else(
            || name_of(dir),
            |training| format!("{}/{}", training.run, training.stage),
        );
        Ok(Self { architecture, is_adapter: false, source, base, training })
    }

    /// The card of a weighted sum of models.
    pub(crate) fn of_merge(dirs: &[PathBuf], weights: &[f64], architecture: Architecture) -> Self {
        let term = |(dir, weight): (&PathBuf, &f64)| format!("{weight} × {}", name_of(dir));
        let terms: Vec<String> = dirs.iter().zip(weights).map(term).collect();
        let source = terms.join(" + ");
        Self { architecture, is_adapter: false, source, base: None, training: None }
    }

    /// The card of an adapter alone.
    pub(crate) fn of_adapter(self) -> Self {
        Self { is_adapter: true, ..self }
    }

    /// The text of the file, for a directory of this name.
    pub(crate) fn text(&self, name: &str, proof: &Proof) -> String {
        let library = if self.is_adapter { "peft" } else { "transformers" };
        let task = match self.architecture {
            Architecture::CausalLm => "text-generation",
            Architecture::SequenceClassifier => "text-classification",
        };
        let mut text = format!(
            "---\nlibrary_name: {library}\npipeline_tag: {task}\ntags:\n- temper\n\
             # license: add the licence that your base model and your data allow\n---\n\n# {name}\n\n"
        );
        text += &self.origin();
        if let Some(training) = &self.training {
            text += &training.text();
        }
        text += &self.usage(name, proof);
        text += &format!(
            "## Proof\n\n`temper_proof.json` has the answers of these files to {} prompts. `temper verify {name}{}` \
             computes them again and compares them (tolerance {}).\n",
            proof.prompts.len(),
            if self.is_adapter { " --base BASE" } else { "" },
            proof.tolerance
        );
        text
    }

    fn origin(&self) -> String {
        let what = match (self.is_adapter, self.architecture) {
            (true, _) => "An adapter",
            (false, Architecture::CausalLm) => "A language model",
            (false, Architecture::SequenceClassifier) => {
                "A reward model (sequence classifier with one label)"
            }
        };
        let base = match (&self.base, self.is_adapter) {
            (Some(base), true) => format!(" Its base model is `{base}`."),
            (Some(base), false) => {
                format!(" An adapter on `{base}` was merged into its base model.")
            }
            (None, _) => String::new(),
        };
        format!("{what}, exported from `{}` by Temper.{base}\n\n", self.source)
    }

    fn usage(&self, name: &str, proof: &Proof) -> String {
        let has_template = proof.prompts.iter().any(|prompt| prompt.messages.is_some());
        let body = match (self.is_adapter, proof.output, has_template) {
            (true, _, _) => format!(
                "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n\
                 base = AutoModelForCausalLM.from_pretrained(\"BASE\")\n\
                 model = PeftModel.from_pretrained(base, \"{name}\")\n"
            ),
            (false, Output::Scores, _) => format!(
                "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n\
                 tokenizer = AutoTokenizer.from_pretrained(\"{name}\")\n\
                 model = AutoModelForSequenceClassification.from_pretrained(\"{name}\")\n\
                 inputs = tokenizer(\"text\", return_tensors=\"pt\")\n\
                 print(model(**inputs).logits)      # one score, read at the last token\n"
            ),
            (false, Output::Logits, true) => format!(
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                 tokenizer = AutoTokenizer.from_pretrained(\"{name}\")\n\
                 model = AutoModelForCausalLM.from_pretrained(\"{name}\")\n\
                 messages = [{{\"role\": \"user\", \"content\": \"What is the capital of Norway?\"}}]\n\
                 inputs = tokenizer.apply_chat_template(\n    messages, add_generation_prompt=True, return_tensors=\"pt\", \
                 return_dict=True\n)\n\
                 print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))\n"
            ),
            (false, Output::Logits, false) => format!(
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                 tokenizer = AutoTokenizer.from_pretrained(\"{name}\")\n\
                 model = AutoModelForCausalLM.from_pretrained(\"{name}\")\n\
                 inputs = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n\
                 print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))\n"
            ),
        };
        format!("## Use\n\n```python\n{body}```\n\n")
    }
}

impl Training {
    /// The stage whose `model/` or checkpoint `dir` is; `None` for a directory outside of a run.
    fn find(dir: &Path) -> Result<Option<Self>> {
        let Some(stage) = dir
            .ancestors()
            .skip(1)
            .take(2)
            .find(|stage| stage.parent().is_some_and(|run| run.join(RECIPE_FILE).is_file()))
        else {
            return Ok(None);
        };
        let Some(root) = stage.parent() else { return Ok(None) };
        let path = root.join(RECIPE_FILE);
        let text = fsio::read_text_capped(&path, fsio::limits::RECIPE_BYTES)?;
        let recipe = recipe::load(&path, &[])?.recipe;
        let name = name_of(stage);
        let sections = serde_json::to_value(&recipe).unwrap_or_default();
        let (mut steps, mut tokens, mut metrics) = (0, 0, Vec::new());
        if let StageStatus::Finished(finished) = StageDir::in_run(root, &name).status()? {
            (steps, tokens) = (finished.steps, finished.tokens);
            if let Some(best) = finished.best_step() {
                steps = best;
            }
            let numbers = finished.result.as_object().into_iter().flatten();
            metrics = numbers.filter_map(|(key, v)| Some((key.clone(), v.as_f64()?))).collect();
        }
        Ok(Some(Self {
            run: name_of(root),
            section: sections.get(&name).cloned().unwrap_or_default(),
            stage: name,
            recipe_sha256: fsio::sha256_hex(text.as_bytes()),
            steps,
            tokens,
            metrics,
        }))
    }

    fn text(&self) -> String {
        let mut rows = vec![
            ("stage", self.stage.clone()),
            ("recipe (sha256)", format!("`{}`", self.recipe_sha256)),
        ];
        let text = |value: &Value| value.as_str().map(|text| name_of(Path::new(text)));
        if let Some(start) = self.section.get("start").and_then(text) {
            rows.push(("started from", format!("`{start}`")));
        }
        let sources = self.section.get("data").and_then(Value::as_array);
        let data: Vec<String> = sources
            .into_iter()
            .flatten()
            .filter_map(|source| source.get("path").and_then(text))
            .map(|name| format!("`{name}`"))
            .collect();
        if !data.is_empty() {
            rows.push(("data", data.join(", ")));
        }
        if self.section.get("lora").is_some_and(|lora| !lora.is_null()) {
            rows.push(("trained", "an adapter (LoRA)".to_owned()));
        }
        if self.steps > 0 {
            rows.push(("steps", self.steps.to_string()));
        }
        if self.tokens > 0 {
            rows.push(("tokens", self.tokens.to_string()));
        }
        let mut text = "## Training\n\n| | |\n| --- | --- |\n".to_owned();
        for (key, value) in rows {
            text += &format!("| {key} | {value} |\n");
        }
        if !self.metrics.is_empty() {
            text += "\n| metric | value |\n| --- | ---: |\n";
        }
        for (key, value) in &self.metrics {
            // Steps and counts are whole numbers.
            let n_decimals = if value.fract() == 0.0 { 0 } else { 4 };
            text += &format!("| {key} | {value:.n_decimals$} |\n");
        }
        text.push('\n');
        text
    }
}

/// The last part of a path; of a stage's `model`, the stage.
pub(crate) fn name_of(path: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = last(path).unwrap_or_else(|| "model".to_owned());
    match path.parent().and_then(last) {
        Some(stage) if name == plan::MODEL_DIR => stage,
        _ => name,
    }
}
