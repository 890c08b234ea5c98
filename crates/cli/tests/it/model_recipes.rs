//! The recipes for published models plan, and docs/lora-and-memory.md has the memory that their plans predict.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use arch::ModelInfo;

use crate::published_models::{Published, published};
use crate::support::{Place, root};

/// Rows of data in each plan: enough for an epoch of a few steps.
const N_ROWS: &str = "64";

#[test]
fn published_models_have_the_published_numbers_of_parameters() {
    let place = Place::new();
    for model in published() {
        assert_eq!(model.n_stored(), model.n_parameters, "{}", model.repository);
        model.write(&place, false);
        let info = ModelInfo::read(&place.path().join("models").join(model.repository));
        let n_parameters = info.expect("a configuration").config.n_parameters();
        let distinct = model.n_parameters - model.n_repeated();
        assert_eq!(n_parameters, distinct, "{}", model.repository);
    }
}

#[test]
fn the_recipes_for_published_models_plan() {
    let place = Place::new();
    let recipes = recipes();
    let mut unused = Vec::new();
    for model in published() {
        model.write(&place, true);
        let start = format!("\"hf:{}\"", model.repository);
        let of_model: Vec<_> = recipes.iter().filter(|(_, text)| text.contains(&start)).collect();
        if of_model.is_empty() {
            unused.push(model.repository);
        }
        for (path, text) in of_model {
            let get = format!("#   temper get hf:{} ", model.repository);
            assert!(text.contains(&get), "{path} does not say how to get its model");
            let plan = plan(&place, path, &["--limit", N_ROWS], "cpu");
            let (total, rounding) = match number_before(&plan, " B   ") {
                Some(billions) => (billions * 1e3, 5.0),
                None => (number_before(&plan, " M   ").expect("a number of parameters"), 0.01),
            };
            let trained = number_before(&plan, " M of ").expect("a number of trained parameters");
            let base = (model.n_parameters - model.n_repeated()) as f64 / 1e6;
            let difference = (total - trained - base).abs();
            assert!(difference <= rounding + 0.01, "{path}: {total} M of {base} M\n{plan}");
            assert!(plan.contains("answers end with"), "{path}: {plan}");
        }
    }
    assert_eq!(unused, ["Qwen/Qwen3-4B"], "models without a recipe");
    assert_eq!(recipes.len(), 6, "recipes");
}

/// Paths and texts of the recipes.
fn recipes() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join("recipes/published")).expect("recipes");
    let mut recipes: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a recipe").path();
            let text = std::fs::read_to_string(&path).expect("a recipe");
            (path.display().to_string(), text)
        })
        .collect();
    recipes.sort();
    recipes
}

/// What `temper plan` prints.
fn plan(place: &Place, recipe: &str, args: &[&str], kernels: &str) -> String {
    let args = [&["plan", recipe, "--no-probe", "--force"], args].concat();
    let outcome = place.temper_with_variable(&args, "TEMPER_KERNELS", kernels);
    assert_eq!(outcome.code, Some(0), "{recipe} {args:?}\n{}", outcome.stderr);
    outcome.stdout
}

/// The last word before the first `mark`, as a number.
fn number_before(text: &str, mark: &str) -> Option<f64> {
    let (before, _) = text.split_once(mark)?;
    before.split_whitespace().next_back()?.replace(',', "").parse().ok()
}

/// The methods of the tables: a heading, the lines of the recipe, and whether a GPU has it.
const METHODS: [(&str, &str, bool); 8] = [
    ("all weights", "", true),
    ("all weights, 8-bit AdamW", "optimizer = { kind = \"adamw8bit\", lr = 1e-4 }", true),
    ("all weights, checkpointing", "checkpointing = \"block\"", false),
    ("LoRA on f32", "lora = { rank = 16 }", true),
    ("on bf16", "lora = { rank = 16, base_dtype = \"bf16\" }", true),
    ("on int8", "lora = { rank = 16, base_dtype = \"int8\" }", true),
    ("on nf4", "lora = { rank = 16, base_dtype = \"nf4\" }", true),
    (
        "on nf4, checkpointing",
        "lora = { rank = 16, base_dtype = \"nf4\" }\ncheckpointing = \"block\"",
        false,
    ),
];

/// The recipe of a cell: rows of 1,024 tokens, one at a time.
fn recipe(model: &Published, method: &str) -> String {
    let optimizer = if method.contains("optimizer") { "" } else { "optimizer = { lr = 1e-4 }\n" };
    let data = root().join("datasets/kind/instructions.jsonl.gz");
    format!(
        "[sft]\nstart = \"hf:{}\"\ndata = [{{ path = '{}' }}]\nsplit_turns = true\nsequence_length = 1024\n\
         tokens_per_step = 8192\nmicro_batch = 1\nmax_steps = 2\n{optimizer}{method}\n",
        model.repository,
        data.display()
    )
}

/// A table of GB, which the plans of the recipes predict. On a GPU, one gigabyte is left for the driver and its programs.
fn table(place: &Place, on_gpu: bool) -> String {
    let methods = || METHODS.iter().filter(|(_, _, gpu)| *gpu || !on_gpu);
    let mut text = "| model |".to_owned();
    for (heading, ..) in methods() {
        write!(text, " {heading} |").expect("text");
    }
    text += "\n| --- |";
    text += &" ---: |".repeat(methods().count());
    for model in published() {
        let name = Path::new(model.repository).file_name().expect("a name");
        write!(text, "\n| {} |", name.display()).expect("text");
        for (_, method, _) in methods() {
            place.write("cell.toml", recipe(&model, method));
            let kernels = if on_gpu { "generic" } else { "cpu" };
            let gb = memory(&plan(place, "cell.toml", &["--limit", N_ROWS], kernels));
            let mark = match gb {
                _ if !on_gpu => "",
                gb if gb > 79.0 => " (more than 80)",
                gb if gb > 23.0 => " (80)",
                _ => " (24)",
            };
            let digits = usize::from(gb < 10.0);
            write!(text, " {gb:.digits$}{mark} |").expect("text");
        }
    }
    text + "\n"
}

/// The memory of the only stage in GB.
fn memory(plan: &str) -> f64 {
    let line = plan.lines().find(|line| line.starts_with("sft ")).expect("a stage");
    match (number_before(line, " GB"), number_before(line, " MB")) {
        (Some(gb), _) => gb,
        (None, mb) => mb.expect("memory") / 1000.0,
    }
}

#[test]
fn the_tables_of_memory_are_up_to_date() {
    let place = Place::new();
    for model in published() {
        model.write(&place, false);
    }
    let tables = BTreeMap::from([("cpu", table(&place, false)), ("gpu", table(&place, true))]);
    let path = root().join("docs/lora-and-memory.md");
    let committed = std::fs::read_to_string(&path).expect("the page");
    let mut page = committed.clone();
    for (name, table) in tables {
        let begin = format!("<!-- {name}: ");
        let from = page.find(&begin).expect("a mark");
        let from = from + page[from..].find("-->\n\n").expect("its end") + "-->\n\n".len();
        let to = from + page[from..].find("\n\n").expect("an empty line after the table") + 1;
        page.replace_range(from..to, &table);
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fsio::write_atomic(&path, page.as_bytes()).expect("written");
    } else {
        assert!(
            committed == page,
            "the tables of docs/lora-and-memory.md are not what `temper plan` says: run `UPDATE_DOCS=1 cargo test -p cli \
             tables_of_memory`\n{page}"
        );
    }
}
