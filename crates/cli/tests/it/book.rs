//! The commands of the guide, run as they stand there, page after page.
//!
//! A block that begins with ```console has commands after `$ `; all of them must succeed. A block that begins with ```json and
//! a name is a file that later commands read. Blocks of other kinds are examples for models and files that are not here.

use std::path::Path;

use crate::support::{Place, TEXT, root, tiny_recipe};

/// Pages in reading order; files and runs of earlier pages are there for later ones.
const PAGES: [&str; 10] = [
    "install",
    "chats",
    "preferences",
    "pretrain",
    "models",
    "data",
    "templates",
    "choosing",
    "exports",
    "reproduce",
];

/// A directory with a small model and the files that the guide names.
fn place() -> Place {
    let place = Place::new();
    let recipe = tiny_recipe("{ path = \"books.txt\" }", "")
        .replace("max_position_embeddings = 32", "max_position_embeddings = 256");
    let sft = "[sft]\nstart = \"pretrain\"\ndata = [{ path = \"chats.jsonl\" }]\nchat_template = \"chatml\"\n\
               sequence_length = 64\ntokens_per_step = 128\nmax_steps = 2\noptimizer = { lr = 1e-3 }\n";
    place.write("books.txt", TEXT.repeat(60)).write("tiny.toml", format!("{recipe}{sft}"));
    write_data(&place);
    let run = place.temper(&["run", "tiny.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let export = place.temper(&["export", "tiny", "--to", "model"]);
    assert_eq!(export.code, Some(0), "{}", export.stderr);
    place
}

fn write_data(place: &Place) {
    let chats = |from: usize| -> String {
        let chat = |n: usize| {
            let question = format!("What is {n} and {n}?");
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{question}\"}}, {{\"role\": \"assistant\", \"content\": \"It is {}.\"}}]}}\n",
                2 * n
            )
        };
        (from..from + 60).map(chat).collect()
    };
    let pair = |n: usize| {
        format!(
            "{{\"prompt\": \"Number {n}?\", \"chosen\": \"Yes, {n}.\", \"rejected\": \"No.\"}}\n"
        )
    };
    let pairs: String = (0..60).map(pair).collect();
    place
        .write("chats.jsonl", chats(0))
        .write("more-chats.jsonl", chats(100))
        .write("pairs.jsonl", pairs)
        .write("messages.json", "[{\"role\": \"user\", \"content\": \"Hi\"}]");
}

/// The text of a page.
fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("docs/{name}.md"))).expect("a page")
}

/// The files that a page has, by name.
fn files(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("```json ").skip(1).map(|block| {
        let (name, block) = block.split_once('\n').expect("a name");
        (name, block.split("```").next().unwrap_or_default())
    })
}

/// The commands of a page.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```console\n").skip(1);
    let lines = blocks.flat_map(|block| {
        let end = block.find("```").expect("an end");
        block[..end].lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.map(|line| line.strip_prefix("$ temper ").expect("`$ temper …`").to_owned()).collect()
}

#[test]
fn the_commands_of_the_guide_run() {
    let place = place();
    let mut n_run = 0;
    for name in PAGES {
        let text = page(name);
        for (file, contents) in files(&text) {
            place.write(file, contents);
        }
        for command in commands(&text) {
            let args: Vec<&str> = command.split_whitespace().collect();
            let outcome = place.temper(&args);
            assert_eq!(
                outcome.code,
                Some(0),
                "docs/{name}.md: temper {command}\n{}{}",
                outcome.stdout,
                outcome.stderr
            );
            n_run += 1;
        }
    }
    assert!(n_run > 40, "{n_run} commands were found");
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).expect("the summary");
    for dir in ["docs", "docs/design"] {
        for entry in std::fs::read_dir(root().join(dir)).expect("pages") {
            let name = entry.expect("a page").file_name().to_string_lossy().into_owned();
            let path = format!("{dir}/{name}").replacen("docs/", "", 1);
            let is_page = Path::new(&name).extension().is_some_and(|ending| ending == "md");
            let is_page = is_page && name != "SUMMARY.md";
            assert!(
                !is_page || summary.contains(&format!("({path})")),
                "{path} is not in SUMMARY.md"
            );
        }
    }
}
