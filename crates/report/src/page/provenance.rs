//! The end of the page: how to repeat the run, its recipe, hashes, machine and versions.

use super::facts;
use super::html::{Html, details, table};
use crate::numbers::{bytes, counted};
use crate::run::{Launch, RunData};
use crate::stage::StageData;
use crate::time::utc;

pub(super) fn provenance(run: &RunData) -> Html {
    let mut out = Html::tag("h2", "Repeating this run").line();
    let commands = commands(run).join("\n");
    out.push(Html::element("pre", &[], Html::tag("code", &commands)).line());
    out.push(facts(&machine(run)));
    if let Some(recipe) = &run.recipe {
        let recipe = Html::element("pre", &[], Html::tag("code", recipe));
        out.push(details("Recipe, with overrides applied", recipe));
    }
    let hashes = hashes(&run.stages);
    if !hashes.is_empty() {
        out.push(details("Hashes of inputs and results (SHA-256)", hashes));
    }
    let section = Html::element("section", &[("id", "repeat")], out).line();
    let version = run.plan.as_ref().map(|plan| format!(" {}", plan.temper)).unwrap_or_default();
    let text = format!("Written by Temper{version} from the files of the run's directory.");
    Html::all([section, Html::tag("footer", &text).line()])
}

/// The commands that make, continue, repeat and use the run.
fn commands(run: &RunData) -> Vec<String> {
    let mut commands = vec![format!("temper runs reproduce {}", shell(&run.name))];
    if let Some(launch) = &run.launch {
        commands.insert(0, launch_command(launch, &run.name));
    }
    if let Some(stage) = run.stages.iter().rev().find(|stage| stage.finished.is_some()) {
        let model = run.path.join(&stage.name).display().to_string();
        let to = format!("out/{}", run.name);
        commands.push(format!("temper export {} --to {}", shell(&model), shell(&to)));
    }
    commands
}

fn launch_command(launch: &Launch, name: &str) -> String {
    let mut words = vec!["temper".to_owned(), "run".to_owned()];
    words.push(launch.recipe.clone().unwrap_or_else(|| "recipe.toml".to_owned()));
    let mut option = |key: &str, value: &str| words.extend([key.to_owned(), value.to_owned()]);
    option("--name", name);
    if let Some(dir) = &launch.data_dir {
        option("--data-dir", dir);
    }
    for (key, value) in &launch.set {
        option("--set", &format!("{key}={value}"));
    }
    if let Some(limit) = launch.limit {
        option("--limit", &limit.to_string());
    }
    if let Some(stage) = &launch.stage {
        option("--stage", stage);
    }
    words.iter().map(|word| shell(word)).collect::<Vec<_>>().join(" ")
}

/// A word of a command line, in quotes if a shell would read it as something else.
fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn machine(run: &RunData) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(plan) = &run.plan {
        let machine = &plan.machine;
        let temper = format!("{}, burn {}", plan.temper, plan.burn);
        facts.extend([
            ("Temper", temper),
            ("Device", format!("{}, {}", plan.device, plan.precision)),
            ("Processor", machine.processor.clone()),
            ("Processors", counted(machine.n_processors as u64, "processor")),
            ("Instruction sets", machine.cpu_features.join(" ")),
            ("System", machine.system.clone()),
            ("Seed", plan.seed.to_string()),
        ]);
        if machine.memory_bytes > 0 {
            facts.push(("Memory", bytes(machine.memory_bytes)));
        }
    } else if let Some(of) = run.stages.iter().find_map(|stage| stage.environment.as_ref()) {
        facts.extend([
            ("Temper", format!("{}, burn {}", of.temper, of.burn)),
            ("Processor", of.arch.clone()),
            ("Instruction sets", of.cpu_features.join(" ")),
            ("Threads", of.threads.to_string()),
        ]);
    }
    if let Some(report) = run.report.as_ref().filter(|report| report.ended > 0) {
        facts.push(("Last session ended", utc(report.ended)));
    }
    if let Some(date) = run.launch.as_ref().and_then(|launch| launch.date.clone()) {
        facts.push(("Date in chat templates", date));
    }
    facts
}

fn hashes(stages: &[StageData]) -> Html {
    let mut rows = Vec::new();
    for stage in stages {
        let inputs = stage.inputs.iter().map(|(name, hash)| (name.clone(), "input", hash));
        let files = stage.model_files.iter();
        let files = files.map(|file| (format!("model/{}", file.name), "result", &file.sha256));
        for (name, kind, hash) in inputs.chain(files) {
            let hash = Html::class("code", "hash", Html::text(hash));
            rows.push(vec![
                Html::text(&stage.name),
                Html::text(kind),
                Html::tag("code", &name),
                hash,
            ]);
        }
    }
    if rows.is_empty() {
        return Html::default();
    }
    table("", &["Stage", "", "Name", "Hash"], rows, &[])
}
