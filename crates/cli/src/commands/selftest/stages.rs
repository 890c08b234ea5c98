//! Trains each kind of stage for a few steps on generated rows, by the same code as `temper run`.

use std::fmt::Write as _;
use std::path::Path;

use crate::args::{LogStyle, RecipeArgs, SelftestArgs};
use crate::commands::run::train_stages;
use crate::failure::Result;
use crate::render::progress::PlanProgress;

/// All stages, with a model of a hundred thousand parameters. DPO trains an adapter.
const RECIPE: &str = include_str!("stages.toml");

/// Trains the stages and returns their names. Progress is printed to stderr.
pub(super) fn run(scratch: &Path, args: &SelftestArgs, precision: &str) -> Result<Vec<String>> {
    let dir = scratch.join("stages");
    fsio::create_dir_all(&dir)?;
    let recipe = dir.join("selftest.toml");
    for (name, text) in [
        ("selftest.toml", RECIPE.to_owned()),
        ("text.txt", texts()),
        ("chats.jsonl", chats()),
        ("pairs.jsonl", pairs()),
    ] {
        fsio::write_atomic(dir.join(name), text)?;
    }
    let deterministic = if args.deterministic { "true" } else { "false" };
    let set = [
        ("device", args.device.as_str()),
        ("precision", precision),
        ("deterministic", deterministic),
    ];
    let args = RecipeArgs {
        recipe: recipe.clone(),
        data_dir: None,
        set: set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        limit: None,
        name: None,
        stage: None,
        allow_commands: false,
    };
    let loaded = recipe::load(&args.recipe, &args.set)?;
    let request = plan::Request { runs_dir: Some(dir.join("runs")), ..plan::Request::default() };
    let plan = plan::plan(&loaded, &request, &mut PlanProgress::new(LogStyle::Plain))?;
    let stages = train_stages(&plan, &args, LogStyle::Plain)?;
    Ok(stages.iter().map(|(stage, _)| stage.name.clone()).collect())
}

const WORDS: [&str; 8] = ["a", "small", "model", "learns", "to", "count", "its", "steps"];

/// Words in an order that depends on `n`.
fn sentence(n: usize) -> String {
    (0..6 + n % 5)
        .map(|i| WORDS[(n * 3 + i * (1 + n % 7)) % WORDS.len()])
        .collect::<Vec<_>>()
        .join(" ")
}

fn texts() -> String {
    (0..400).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{}.", sentence(n));
        text
    })
}

fn chats() -> String {
    (0..64).fold(String::new(), |mut rows, n| {
        let _ = writeln!(
            rows,
            r#"{{"prompt": "{}?", "completion": "{}!"}}"#,
            sentence(n),
            sentence(n + 1)
        );
        rows
    })
}

fn pairs() -> String {
    (0..64).fold(String::new(), |mut rows, n| {
        let (chosen, rejected) = (sentence(n + 1), sentence(n + 2));
        let _ = writeln!(
            rows,
            r#"{{"prompt": "{}?", "chosen": "{chosen}!", "rejected": "{rejected}."}}"#,
            sentence(n)
        );
        rows
    })
}
