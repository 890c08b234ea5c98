//! Sections in which the model answers prompts: PPO and GRPO.

use crate::lines::{Lines, lora, optimizer, quoted, validation};
use crate::{Facts, Kind, RightAnswer, Values};

/// The section's lines.
pub(crate) fn section(kind: Kind, facts: &Facts, values: &Values, lines: &mut Lines) {
    let adapter = if values.lora { ", lora = { rank = 16, alpha = 32 }" } else { "" };
    let policy = format!("{{ start = {}{adapter} }}", quoted(&facts.model));
    lines.add("policy", &policy, if values.lora { lora(facts) } else { String::new() });
    if let Some(reward) = &facts.reward {
        lines.add("reward", &quoted(reward), "the reward model, which is not trained".to_owned());
    }
    let comment = if facts.prompts_of_chats { "the chats without their answers" } else { "" };
    let prompts = format!("[{{ path = {} }}]", quoted(&facts.data));
    lines.add("prompts", &prompts, comment.to_owned());
    if let Some((rewards, comment)) = facts.right_answer.as_ref().map(RightAnswer::rewards) {
        lines.add("rewards", &rewards, comment);
    }
    lines.add("max_prompt_tokens", &values.sequence_length.to_string(), fitting(facts, values));
    let room = "longer answers are cut there".to_owned();
    lines.add("max_new_tokens", &values.max_new_tokens.to_string(), room);
    let (key, _) = kind.step_key();
    lines.add(key, &values.rows_per_step.to_string(), String::new());
    if kind == Kind::Grpo {
        let compared = "answers to each prompt, compared with each other".to_owned();
        lines.add("num_generations", &values.num_generations.to_string(), compared);
    }
    if let Some(micro_batch) = values.micro_batch {
        let comment = "answers at a time: limits memory, same result".to_owned();
        lines.add("micro_batch", &micro_batch.to_string(), comment);
    }
    if kind == Kind::Ppo {
        lines.add("missing_eos_penalty", "1.0", "for answers that are cut".to_owned());
    }
    lines.add("max_steps", &values.max_steps.unwrap_or(1).to_string(), String::new());
    optimizer(values, lines);
    lines.add("schedule", "{ kind = \"constant\" }", String::new());
    validation(values, lines);
}

/// How the lengths of the prompts led to the limit.
fn fitting(facts: &Facts, values: &Values) -> String {
    let lengths = &facts.lengths;
    let (typical, longest) = (lengths.quantile(0.5), lengths.longest());
    let n_longer = lengths.n_longer_than(values.sequence_length);
    let dropped = match n_longer {
        0 => String::new(),
        1 => "; 1 is dropped".to_owned(),
        n => format!("; {n} are dropped"),
    };
    format!("prompts: median {typical} tokens, longest {longest}{dropped}")
}
