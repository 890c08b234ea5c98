//! Tokens as a person can read them: text coloured by role, targets marked, borders and positions shown.
//!
//! Without colour, targets still have a mark and roles a letter.

use data::{InspectedRow, TokenRole};
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::printable::printable;

/// Letter and ANSI colour of a role.
fn role_style(role: TokenRole) -> (&'static str, &'static str) {
    match role {
        TokenRole::Document => ("d", "\x1b[0m"),
        TokenRole::System => ("s", "\x1b[35m"),
        TokenRole::User => ("u", "\x1b[36m"),
        TokenRole::Assistant => ("a", "\x1b[32m"),
        TokenRole::Tool => ("o", "\x1b[33m"),
        TokenRole::Template => ("t", "\x1b[2m"),
        TokenRole::Padding => ("-", "\x1b[2m"),
    }
}

/// One row: a line per token, borders between samples, and the decoded targets.
pub(crate) fn text(view: &InspectedRow, tokenizer: &Tokenizer, colour: bool) -> String {
    let batch = &view.batch;
    let mut out = format!(
        "row {} (epoch {}): {} positions, {} targets, {} samples\n",
        view.row,
        view.epoch,
        batch.sequence_length,
        batch.n_targets,
        view.segments.len()
    );
    out += "   at  pos     id  role  text                     target\n";
    let (mut last_segment, mut n_samples) = (None, 0);
    let mut n_padding = 0;
    for at in 0..batch.ids.len() {
        let segment = batch.segments[at];
        if segment < 0 {
            n_padding += 1;
            continue;
        }
        // A pair has two rows, each with its own segments.
        let border = (at / batch.sequence_length.max(1), segment);
        if last_segment != Some(border) {
            last_segment = Some(border);
            let place = view.segments.get(n_samples).and_then(|s| s.location.as_ref());
            let place = place
                .map(|place| format!("  {}", printable(&place.to_string())))
                .unwrap_or_default();
            n_samples += 1;
            out += &format!("  ── sample {n_samples}{}{place}\n", side(view, n_samples));
        }
        out += &token_line(view, at, tokenizer, colour);
    }
    if n_padding > 0 {
        out += &format!("  ── {n_padding} padding positions, masked\n");
    }
    for span in view.target_spans() {
        let decoded = tokenizer.decode(&view.target_ids(&span), false);
        out += &format!("  target {}..{}: {decoded:?}\n", span.start, span.end);
    }
    out
}

/// Side of a text in a pair, or label of an answer; empty for other rows.
fn side(view: &InspectedRow, number: usize) -> &'static str {
    match view.batch.labels.first() {
        Some(true) => return " (desirable)",
        Some(false) => return " (undesirable)",
        None => {}
    }
    match (view.batch.rows, number) {
        (2, 1) => " (chosen)",
        // Without targets, the texts are scored.
        (2, 2) if view.batch.n_targets == 0 => {
            " (rejected); scores are read at the last token of each text"
        }
        (2, 2) => " (rejected)",
        _ => "",
    }
}

fn token_line(view: &InspectedRow, at: usize, tokenizer: &Tokenizer, colour: bool) -> String {
    let batch = &view.batch;
    let role = view.roles.get(at).copied().unwrap_or(TokenRole::Document);
    let (letter, ansi) = role_style(role);
    let shown = |id: u32| format!("{:?}", tokenizer.decode(&[id], false));
    let text = shown(batch.ids[at]);
    // Padded before colour is added, because escape codes have no width.
    let text = format!("{text:<24}");
    let text = if colour { format!("{ansi}{text}\x1b[0m") } else { text };
    let target = match u32::try_from(batch.targets[at]) {
        Ok(id) if colour => format!("· \x1b[4m{}\x1b[0m", shown(id)),
        Ok(id) => format!("· {}", shown(id)),
        Err(_) => String::new(),
    };
    let line = format!(
        "{at:>5} {:>4} {:>6}  {letter:<4}  {text} {target}",
        batch.positions[at], batch.ids[at]
    );
    format!("{}\n", line.trim_end())
}

/// One row as JSON.
pub(crate) fn json(view: &InspectedRow, tokenizer: &Tokenizer) -> Value {
    let batch = &view.batch;
    let roles: Vec<&str> = view.roles.iter().map(|role| role_style(*role).0).collect();
    let targets: Vec<Value> = view
        .target_spans()
        .iter()
        .map(|span| {
            let ids = view.target_ids(span);
            json!({
                "from": span.start, "to": span.end, "ids": ids,
                "text": tokenizer.decode(&ids, false),
            })
        })
        .collect();
    let samples: Vec<Value> = view
        .segments
        .iter()
        .map(|segment| {
            let place = segment.location.as_ref().map(ToString::to_string);
            json!({
                "sample": segment.sample, "place": place,
                "from": segment.range.start, "to": segment.range.end,
            })
        })
        .collect();
    let mut row = json!({
        "row": view.row, "epoch": view.epoch, "ids": batch.ids, "positions": batch.positions,
        "segments": batch.segments, "targets": batch.targets, "roles": roles,
        "samples": samples, "target_spans": targets,
    });
    if let Some(label) = batch.labels.first() {
        row["label"] = json!(label);
    }
    row
}
