//! The view on terminals of several sizes, of runs of several kinds.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use watch::{
    Look, MessageKind, Owner, Page, Row, RunState, RunView, Sample, StageStart, StageSteps, Update,
    draw,
};

const LOOK: Look = Look { colour: true, unicode: true };

fn screen(view: &RunView, columns: u16, rows: u16, page: Page, look: Look) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, view, &page, look, Owner::Run)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(columns.into());
    let text = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
    text.map(|row| row.trim_end().to_owned() + "\n").collect()
}

fn steps(names: &[&str], max_steps: u64) -> Vec<StageSteps> {
    let stage = |name: &&str| StageSteps { name: (*name).to_owned(), max_steps, finished: false };
    names.iter().map(stage).collect()
}

fn start(name: &str, max_steps: u64, n_trained: u64) -> Update {
    Update::StageStarted(StageStart {
        name: name.to_owned(),
        step: 0,
        max_steps,
        n_parameters: 2_560_000,
        n_trained,
    })
}

fn row(step: u64, is_eval: bool, values: &[(&str, f64)]) -> Update {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Update::Row(Row { step, is_eval, values })
}

/// A number that looks random.
fn noise(step: u64) -> f64 {
    let mixed = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    mixed as f64 / (1u64 << 24) as f64 - 0.5
}

/// Pretraining, half done.
fn language_model() -> RunView {
    let mut view =
        RunView::starting("quickstart", &steps(&["pretrain", "sft", "reward", "ppo"], 600));
    view.apply(start("pretrain", 600, 2_560_000), 0.0);
    for step in 1..=412 {
        let loss = 3.0 + 5.0 / (1.0 + step as f64 / 40.0) + 0.4 * noise(step);
        let lr = 3e-3 * (step as f64 / 20.0).min(1.0) * (1.0 - step as f64 / 700.0);
        let values = [
            ("loss", loss),
            ("grad_norm", 1.0 + 0.5 * noise(7 * step)),
            ("lr", lr),
            ("tokens", step as f64 * 4096.0),
            ("tokens_per_s", 9800.0 + 300.0 * noise(3 * step)),
        ];
        view.apply(row(step, false, &values), 0.1 * step as f64);
        if step % 100 == 0 {
            let eval = 3.1 + 5.0 / (1.0 + step as f64 / 40.0);
            view.apply(row(step, true, &[("eval_loss", eval)]), 0.1 * step as f64);
            view.apply(
                Update::Sample(Sample {
                    step,
                    text: "i love that you have a great day !\nthanks for the".to_owned(),
                    ..Sample::default()
                }),
                0.1 * step as f64,
            );
        }
    }
    view.apply(Update::Message(MessageKind::Note, "evaluated in 0.4 s".into()), 41.0);
    view.set_memory(Some(410_000_000));
    view
}

/// PPO with samples beside those of before.
fn policy() -> RunView {
    let mut view = RunView::starting("quickstart", &steps(&["sft", "ppo"], 60));
    view.apply(start("ppo", 60, 140_000), 0.0);
    for step in 1..=40 {
        let x = step as f64;
        let values = [
            ("loss", 0.02 * noise(step)),
            ("grad_norm", 0.4),
            ("lr", 4e-3),
            ("tokens_per_s", 2400.0),
            ("objective/scores", 3.0 * (1.0 - (-x / 15.0).exp()) - 0.2 + 0.3 * noise(step)),
            ("objective/kl", 6.0 * (1.0 - (-x / 20.0).exp())),
            ("policy/entropy_avg", 2.5 - x / 40.0),
            ("val/response_length", 24.0 + 3.0 * noise(5 * step)),
            ("loss/value_avg", 1.0 / x),
            ("policy/clipfrac_avg", 0.1),
        ];
        view.apply(row(step, false, &values), 0.8 * x);
        if step % 20 == 0 {
            for prompt in ["Write a comment.", "Antworte höflich: 好"] {
                let sample = Sample {
                    step,
                    prompt: prompt.to_owned(),
                    text: "Thank you so much! I hope you have a great day :)\u{1b}[31m".to_owned(),
                    before: Some("That's not what I said, read it again.".to_owned()),
                    score: Some(2.94),
                };
                view.apply(Update::Sample(sample), 0.8 * x);
            }
        }
    }
    let warning = "the KL divergence is 6.0 nats, twice the target; a larger ppo.kl.coef holds it";
    view.apply(Update::Message(MessageKind::Warning, warning.into()), 32.0);
    view
}

#[test]
fn a_language_model_at_80x24() {
    insta::assert_snapshot!(screen(&language_model(), 80, 24, Page::default(), LOOK));
}

#[test]
fn a_language_model_at_160x50() {
    insta::assert_snapshot!(screen(&language_model(), 160, 50, Page::default(), LOOK));
}

#[test]
fn a_language_model_at_60x20() {
    insta::assert_snapshot!(screen(&language_model(), 60, 20, Page::default(), LOOK));
}

#[test]
fn a_policy_at_80x24() {
    insta::assert_snapshot!(screen(&policy(), 80, 24, Page::default(), LOOK));
}

#[test]
fn a_policy_at_160x50() {
    insta::assert_snapshot!(screen(&policy(), 160, 50, Page::default(), LOOK));
}

#[test]
fn a_policy_at_200x60() {
    insta::assert_snapshot!(screen(&policy(), 200, 60, Page::default(), LOOK));
}

#[test]
fn samples_have_the_whole_screen() {
    let page = Page { samples: true, scroll: 2, ..Page::default() };
    insta::assert_snapshot!(screen(&policy(), 80, 24, page, LOOK));
}

#[test]
fn a_terminal_without_unicode() {
    let look = Look { colour: false, unicode: false };
    let page = Page { log: true, ..Page::default() };
    let text = screen(&language_model(), 80, 24, page, look);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_run_that_has_not_started_a_step() {
    let mut view = RunView::starting("mine", &steps(&["sft"], 10));
    view.apply(start("sft", 10, 2_560_000), 0.0);
    view.apply(Update::Message(MessageKind::Note, "reading the base model".into()), 1.0);
    insta::assert_snapshot!(screen(&view, 60, 12, Page::default(), LOOK));
}

#[test]
fn ends_are_named() {
    for (state, text) in [
        (RunState::Stopping, "stopping after this step"),
        (RunState::Stopped, "stopped"),
        (RunState::Finished, "finished"),
        (RunState::Failed, "not running"),
    ] {
        let mut view = language_model();
        view.apply(Update::Ended(state), 50.0);
        let shown = screen(&view, 80, 24, Page::default(), LOOK);
        assert!(shown.lines().next().unwrap().ends_with(text), "{shown}");
    }
}

/// No size of a terminal panics, and nothing that a foreign text has reaches it as a control character.
#[test]
fn every_size_and_foreign_text() {
    let mut views = [language_model(), policy(), RunView::new("empty"), RunView::default()];
    let text = "\u{1b}]0;x\u{7}\u{202e}\r\n\t好👍🏽e\u{301}\u{0}".repeat(40);
    for view in &mut views {
        let sample = Sample {
            prompt: text.clone(),
            text: text.clone(),
            before: Some(text.clone()),
            ..Sample::default()
        };
        view.apply(Update::Sample(sample), 1.0);
        view.apply(Update::Message(MessageKind::Warning, text.clone()), 1.0);
    }
    let mut odd = RunView::starting(&text, &steps(&[text.as_str(), "b"], 0));
    odd.apply(start(&text, 0, 0), 0.0);
    for (step, value) in [(0, 1e300), (1, -1e300), (u64::MAX, 0.0), (3, f64::INFINITY)] {
        odd.apply(row(step, false, &[("loss", value), ("lr", value)]), 0.0);
    }
    for view in views.iter().chain([&odd]) {
        for samples in [false, true] {
            for log in [false, true] {
                for columns in [1, 2, 9, 20, 41, 79, 120] {
                    for rows in [1, 2, 3, 5, 9, 17, 40] {
                        let page = Page { stage: Some(5), samples, scroll: 3, log };
                        let text = screen(view, columns, rows, page, LOOK);
                        let control = |c: char| c.is_control() && c != '\n';
                        assert!(!text.contains(control), "{text:?}");
                    }
                }
            }
        }
    }
}
