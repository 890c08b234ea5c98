//! The text of a first recipe.

use std::fmt::Write as _;

use crate::lines::{Lines, lora, optimizer, quoted, validation};
use crate::{Facts, Kind, Section, Values, online};

/// A recipe with comments.
///
/// A sample of a kind that is dropped or cut when it is longer than a row is counted in a comment.
pub fn recipe(sections: &[Section]) -> String {
    let mut lines = Lines { text: head(sections) };
    let is_chain = sections.len() > 1;
    for Section { kind, facts, values } in sections {
        lines.text.push('\n');
        if is_chain {
            lines.text += &format!("# {}\n", aim(*kind));
        }
        lines.text += &format!("[{}]\n", kind.section());
        if kind.is_online() {
            online::section(*kind, facts, values, &mut lines);
        } else {
            offline(*kind, facts, values, &mut lines);
        }
    }
    let Lines { mut text } = lines;
    if sections.iter().any(|section| section.values.measures) {
        text += "\n[checks]\ntargets = false\n";
    }
    text
}

/// A section that trains on the data as it is.
fn offline(kind: Kind, facts: &Facts, values: &Values, lines: &mut Lines) {
    let comment = if facts.is_stage {
        "the fine-tuned model"
    } else {
        "its tokenizer and chat template come with it"
    };
    lines.add("start", &quoted(&facts.model), comment.to_owned());
    lines.add("data", &format!("[{{ path = {} }}]", quoted(&facts.data)), String::new());
    if values.lora {
        lines.add("lora", "{ rank = 16, alpha = 32 }", lora(facts));
    }
    if facts.split_turns {
        let comment = "the template rewrites earlier turns: a sample for each answer".to_owned();
        lines.add("split_turns", "true", comment);
    }
    let length = values.sequence_length.to_string();
    lines.add("sequence_length", &length, fitting(kind, facts, values));
    let (key, counts_tokens) = kind.step_key();
    let step = values.rows_per_step * if counts_tokens { values.sequence_length } else { 1 };
    let rows = match values.rows_per_step {
        _ if !counts_tokens => String::new(),
        1 => "1 row".to_owned(),
        n => format!("{n} rows"),
    };
    lines.add(key, &step.to_string(), rows);
    if let Some(micro_batch) = values.micro_batch {
        let comment = "at a time: limits memory, same result".to_owned();
        lines.add("micro_batch", &micro_batch.to_string(), comment);
    }
    lines.add("epochs", &values.epochs.to_string(), steps(values));
    optimizer(values, lines);
    let warmup = values.warmup_steps();
    let schedule = format!("{{ kind = \"cosine\", warmup_steps = {warmup} }}");
    lines.add("schedule", &schedule, String::new());
    validation(values, lines);
}

/// Purpose of a stage, as a sentence.
fn aim(kind: Kind) -> &'static str {
    match kind {
        Kind::Pretrain => "Continued pretraining on your texts.",
        Kind::Sft => "Fine-tuning on your chats: the assistant's answers are learned.",
        Kind::Reward => "A reward model from your pairs: it scores an answer.",
        Kind::Dpo => {
            "Direct preference optimization (DPO) on your pairs of a better and a worse answer."
        }
        Kind::Kto => "Kahneman–Tversky optimization (KTO) on your rated answers.",
        Kind::Ppo => "PPO on your prompts: answers that the reward model scores highly.",
        Kind::Grpo => "GRPO on your prompts: answers that are right become more likely.",
    }
}

/// The comment at the top, and the keys above the first section.
fn head(sections: &[Section]) -> String {
    let (Some(first), Some(last)) = (sections.first(), sections.last()) else {
        return String::new();
    };
    let name = &first.facts.name;
    let aim = if sections.len() == 1 {
        aim(first.kind).to_owned()
    } else {
        let names: Vec<&str> = sections.iter().map(|section| section.kind.section()).collect();
        format!("Stages that continue each other: {}.", names.join(", "))
    };
    let (kind, section) = (last.kind, last.kind.section());
    let after = match kind {
        Kind::Pretrain => format!("temper generate runs/{name}/{section} --prompt \"…\""),
        Kind::Sft | Kind::Dpo | Kind::Kto | Kind::Ppo | Kind::Grpo => {
            format!("temper chat runs/{name}/{section}")
        }
        Kind::Reward => format!("temper score runs/{name}/{section} --pairs FILE"),
    };
    format!(
        "# {aim} docs/recipe.md lists every key.\n#\n#   temper plan {name}.toml\n#   temper run  {name}.toml\n#   {after}\n\nname = {}\nseed = 1\n",
        quoted(name)
    )
}

/// How the lengths of the samples led to the row length.
fn fitting(kind: Kind, facts: &Facts, values: &Values) -> String {
    let lengths = &facts.lengths;
    if kind == Kind::Pretrain {
        let length = values.sequence_length;
        return if length == facts.context_length as u64 {
            "the model's context length".to_owned()
        } else {
            format!("the model can read {} tokens", facts.context_length)
        };
    }
    let samples = match kind {
        Kind::Pretrain | Kind::Sft => "chats",
        Kind::Reward | Kind::Dpo => "texts",
        Kind::Kto => "rows",
        Kind::Ppo | Kind::Grpo => "prompts",
    };
    let (typical, longest) = (lengths.quantile(0.5), lengths.longest());
    let mut comment = format!("{samples}: median {typical} tokens, longest {longest}");
    let n_longer = lengths.n_longer_than(values.sequence_length + 1);
    if n_longer > 0 {
        let fate = if kind == Kind::Sft { "cut" } else { "dropped" };
        let _ = write!(comment, "; {n_longer} {} {fate}", if n_longer == 1 { "is" } else { "are" });
    }
    comment
}

fn steps(values: &Values) -> String {
    values.n_steps.map(|n| format!("{n} steps")).unwrap_or_default()
}
