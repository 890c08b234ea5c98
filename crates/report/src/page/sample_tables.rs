//! Generated texts: before and after training, and over the steps.

use super::html::{Html, details, open_details};
use crate::numbers::{counted, thousands, value};
use crate::samples::{Sample, by_prompt};
use crate::stage::StageData;

/// Prompts that are shown.
const MOST_PROMPTS: usize = 6;
/// Steps of a prompt that are shown, spread over all of its steps.
const MOST_STEPS: usize = 8;
/// Characters of a prompt in the title of its answers.
const TITLE_CHARS: usize = 80;
/// Characters of a text that are shown.
const MOST_CHARS: usize = 1_500;

pub(super) fn samples(stage: &StageData) -> Html {
    let groups = by_prompt(&stage.samples);
    let mut cards: Vec<Html> = groups.iter().take(MOST_PROMPTS).filter_map(|g| pair(g)).collect();
    if cards.is_empty() {
        cards.extend(example(stage));
    }
    let mut inner = Html::default();
    if !cards.is_empty() {
        inner.push(Html::class("div", "cards", Html::all(cards)));
    }
    for (idx, group) in groups.iter().take(MOST_PROMPTS).enumerate() {
        if let Some(fold) = over_steps(group, idx) {
            inner.push(fold);
        }
    }
    if inner.is_empty() {
        return inner;
    }
    if groups.len() > MOST_PROMPTS {
        let more = counted((groups.len() - MOST_PROMPTS) as u64, "more prompt");
        inner.push(Html::class("p", "none", Html::text(&format!("{more} in samples.jsonl"))));
    }
    Html::class("div", "part", Html::all([Html::tag("h3", "Samples"), inner])).line()
}

/// The last answer to a prompt beside the first one.
fn pair(group: &[&Sample]) -> Option<Html> {
    let (first, last) = (group.first()?, group.last()?);
    let before = match &last.before {
        Some(before) => (before.as_str(), "before training".to_owned()),
        None if first.step < last.step => {
            (first.text.as_str(), format!("step {}", thousands(first.step)))
        }
        None => return None,
    };
    let after = format!("step {}{}", thousands(last.step), score(last));
    Some(card(&last.prompt, before, (&last.text, after)))
}

/// The example in the result of a stage.
fn example(stage: &StageData) -> Option<Html> {
    let result = &stage.finished.as_ref()?.result;
    let text = |key: &str| result.pointer(&format!("/example/{key}")).and_then(|v| v.as_str());
    let before = (text("before")?, "before training".to_owned());
    Some(card(text("prompt")?, before, (text("after")?, "after training".to_owned())))
}

fn card(prompt: &str, before: (&str, String), after: (&str, String)) -> Html {
    let side = |class: &str, (shown, label): (&str, String)| {
        let label = Html::class("p", "label", Html::text(&label));
        Html::class("div", class, Html::all([label, text(shown)]))
    };
    let sides = Html::all([side("side", before), side("side after", after)]);
    let sides = Html::class("div", "sides", sides);
    // Documents continue no prompt.
    let prompt = match prompt.trim() {
        "" => Html::default(),
        _ => Html::class("div", "prompt", text(prompt)),
    };
    Html::class("div", "card", Html::all([prompt, sides])).line()
}

/// A prompt, or that there is none.
pub(super) fn shown_prompt(prompt: &str) -> Html {
    match prompt.trim() {
        "" => Html::class("p", "none", Html::text("without a prompt")),
        _ => text(prompt),
    }
}

/// A text in a frame of its own direction.
pub(super) fn text(text: &str) -> Html {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(MOST_CHARS).collect();
    let n_more = chars.count();
    if n_more > 0 {
        shown += &format!("… ({} more)", counted(n_more as u64, "character"));
    }
    if shown.is_empty() {
        return Html::class("p", "none", Html::text("empty"));
    }
    Html::element("p", &[("class", "text"), ("dir", "auto")], Html::text(&shown))
}

fn score(sample: &Sample) -> String {
    sample.score.map(|score| format!(", score {}", value(score))).unwrap_or_default()
}

/// The answers to a prompt over the steps. The first prompt is unfolded.
fn over_steps(group: &[&Sample], idx: usize) -> Option<Html> {
    let first = group.first()?;
    if group.len() < 3 {
        return None;
    }
    let last = group.len() - 1;
    let n_shown = group.len().min(MOST_STEPS);
    let places = (0..n_shown).map(|place| place * last / (n_shown - 1).max(1));
    let rows = places.filter_map(|place| group.get(place)).map(|sample| {
        let step = format!("step {}{}", thousands(sample.step), score(sample));
        let label = Html::class("p", "label", Html::text(&step));
        Html::element("li", &[], Html::all([label, text(&sample.text)])).line()
    });
    let list = Html::class("ol", "steps", Html::all(rows));
    let prompt = first.prompt.trim().replace('\n', " ");
    let title = match prompt.chars().count() {
        0 => "Over the steps".to_owned(),
        n if n > TITLE_CHARS => {
            // A chat starts with a system message that all of its prompts share.
            let end: String = prompt.chars().skip(n - TITLE_CHARS).collect();
            format!("Over the steps: …{end}")
        }
        _ => format!("Over the steps: {prompt}"),
    };
    Some(if idx == 0 { open_details(&title, list) } else { details(&title, list) })
}
