//! Tokens as a person can read them: text coloured by role, targets marked, borders and positions shown.
//!
//! Colour is never the only carrier of meaning: targets have a mark, roles a letter.

use data::{InspectedRow, TokenRole};
use serde_json::{Value, json};
use tokenizer::Tokenizer;

/// The letter and the ANSI colour of a role.
fn role_look(role: TokenRole) -> (&'static str, &'static str) {
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

/// One row: a line a token, borders between samples, and the texts that the targets make.
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
    out += "   at  pos     id  role  text                     learns to write\n";
    let (mut last_segment, mut n_begun) = (None, 0);
    let mut n_padding = 0;
    for at in 0..batch.ids.len() {
        let segment = batch.segments[at];
        if segment < 0 {
            n_padding += 1;
            continue;
        }
        // A pair has two rows, and each counts its samples anew.
        let border = (at / batch.sequence_length.max(1), segment);
        if last_segment != Some(border) {
            last_segment = Some(border);
            let place = view.segments.get(n_begun).and_then(|s| s.location.as_ref());
            let place = place.map(|place| format!("  {place}")).unwrap_or_default();
            n_begun += 1;
            out += &format!("  ── sample {n_begun}{}{place}\n", side(view, n_begun));
        }
        out += &token_line(view, at, tokenizer, colour);
    }
    if n_padding > 0 {
        out +=
            &format!("  ── {n_padding} positions of padding: seen by nothing, learnt by nothing\n");
    }
    for span in view.target_spans() {
        let decoded = tokenizer.decode(&view.target_ids(&span), false);
        out += &format!("  target {}..{}: {decoded:?}\n", span.start, span.end);
    }
    out
}

/// Which text of a pair a sample is; nothing where the row is no pair.
fn side(view: &InspectedRow, number: usize) -> &'static str {
    match (view.batch.rows, number) {
        (2, 1) => " (chosen)",
        // Where no token is a target, the texts are scored.
        (2, 2) if view.batch.n_targets == 0 => {
            " (rejected), its score read at the last token as the chosen one's is"
        }
        (2, 2) => " (rejected)",
        _ => "",
    }
}

fn token_line(view: &InspectedRow, at: usize, tokenizer: &Tokenizer, colour: bool) -> String {
    let batch = &view.batch;
    let role = view.roles.get(at).copied().unwrap_or(TokenRole::Document);
    let (letter, ansi) = role_look(role);
    let shown = |id: u32| format!("{:?}", tokenizer.decode(&[id], false));
    let text = shown(batch.ids[at]);
    // Padded by characters before colour goes around it.
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
    let roles: Vec<&str> = view.roles.iter().map(|role| role_look(*role).0).collect();
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
    json!({
        "row": view.row, "epoch": view.epoch, "ids": batch.ids, "positions": batch.positions,
        "segments": batch.segments, "targets": batch.targets, "roles": roles,
        "samples": samples, "target_spans": targets,
    })
}
