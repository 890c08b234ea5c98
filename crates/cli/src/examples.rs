//! The command line as clap knows it, with an example in the help of every command.

use clap::{Command, CommandFactory as _};

use crate::args::Cli;

/// An example for each command, by the names that lead to it.
const EXAMPLES: &[(&[&str], &str)] = &[
    (&["init"], "temper init sft --model models/o/m --data chats.jsonl --out mine.toml"),
    (&["plan"], "temper plan recipes/quickstart.toml --set sft.max_steps=60"),
    (&["run"], "temper run recipes/quickstart.toml --name mine"),
    (&["resume"], "temper resume quickstart"),
    (&["sweep"], "temper sweep chats.toml --set sft.optimizer.lr=1e-5,3e-5,1e-4 --set seed=1,2"),
    (&["watch"], "temper watch quickstart"),
    (&["generate"], "temper generate runs/quickstart/ppo --chat --prompt Hello --n 3"),
    (&["chat"], "temper chat runs/quickstart/ppo"),
    (&["serve"], "temper serve quickstart --port 8080"),
    (&["eval"], "temper eval runs/quickstart/sft --task arc_easy --limit 200"),
    (
        &["compare"],
        "temper compare runs/q/ppo runs/q/sft --prompts prompts.jsonl --reward runs/q/reward",
    ),
    (&["score"], "temper score runs/quickstart/reward --pairs pairs.jsonl"),
    (&["verify"], "temper verify out/quickstart"),
    (&["export"], "temper export runs/quickstart/ppo --to out/quickstart"),
    (&["merge"], "temper merge runs/a/sft runs/b/sft --weights 0.7,0.3 --to out/merged"),
    (&["bench"], "temper bench pretrain7m"),
    (&["devices"], "temper devices"),
    (&["selftest"], "temper selftest --device cuda"),
    (&["runs"], "temper runs --json"),
    (&["runs", "show"], "temper runs show quickstart"),
    (&["runs", "diff"], "temper runs diff quickstart second"),
    (&["runs", "rm"], "temper runs rm quickstart --keep-model"),
    (&["runs", "reproduce"], "temper runs reproduce quickstart"),
    (&["report"], "temper report quickstart"),
    (&["cache"], "temper cache"),
    (&["cache", "clear"], "temper cache clear --yes"),
    (&["get"], "temper get hf:HuggingFaceTB/SmolLM2-135M-Instruct"),
    (&["data", "inspect"], "temper data inspect recipes/quickstart.toml --stage sft --n 2"),
    (&["data", "contamination"], "temper data contamination chats.jsonl --task gsm8k"),
    (&["tokenizer", "encode"], "temper tokenizer encode runs/quickstart/sft --file texts.txt"),
    (&["tokenizer", "decode"], "temper tokenizer decode runs/quickstart/sft --file ids.jsonl"),
    (&["tokenizer", "render"], "temper tokenizer render runs/quickstart/sft --messages chat.json"),
    (
        &["tokenizer", "train"],
        "temper tokenizer train texts.txt --kind byte-bpe --vocab-size 4096 --to tok",
    ),
    (
        &["completions"],
        "temper completions bash > ~/.local/share/bash-completion/completions/temper",
    ),
    (&["man"], "temper man ~/.local/share/man/man1"),
];

/// The parser of the command line.
pub(crate) fn command() -> Command {
    let with_example = |command: Command, (path, example): &(&[&str], &str)| {
        add_example(command, path, &format!("Example: {example}"))
    };
    EXAMPLES.iter().fold(Cli::command(), with_example)
}

fn add_example(command: Command, path: &[&str], text: &str) -> Command {
    match path {
        [] => command.after_help(text.to_owned()),
        [name, rest @ ..] => {
            command.mut_subcommand(*name, |command| add_example(command, rest, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::{EXAMPLES, command};

    /// Commands without further commands.
    fn leaves(command: &Command, path: &[String], found: &mut Vec<Vec<String>>) {
        for inner in command.get_subcommands() {
            let path: Vec<String> =
                path.iter().cloned().chain([inner.get_name().to_owned()]).collect();
            if inner.has_subcommands() {
                leaves(inner, &path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_command_has_an_example_and_clap_accepts_it() {
        command().debug_assert();
        let mut found = Vec::new();
        leaves(&command(), &[], &mut found);
        let mut with_example: Vec<Vec<String>> = Vec::new();
        for (path, example) in EXAMPLES {
            let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
            assert!(example.starts_with(&format!("temper {}", path.join(" "))), "{example}");
            let words = example.split(" > ").next().unwrap_or_default().split_whitespace();
            if let Err(error) = command().try_get_matches_from(words) {
                panic!("{example}: {error}");
            }
            with_example.push(path);
        }
        // The order of the list is that of the help, because an example moves its command to the end.
        with_example.retain(|path| found.contains(path));
        assert_eq!(with_example, found);
    }
}
