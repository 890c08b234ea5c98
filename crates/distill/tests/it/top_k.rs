//! The teacher's most probable tokens: saved once, checked, resumed.

use std::path::PathBuf;

use distill::TEACHER_DIR;
use train::{Event, Outcome};

use crate::support::{Place, metric};

const MODEL: &str = "model/model.safetensors";
const TOP_5: (&str, &str) = ("distill.top_k", "5");

fn part(place: &Place, name: &str) -> PathBuf {
    place.stage_dir(name).join(TEACHER_DIR).join("part-00000").join("top.bin")
}

fn has_warning(events: &[Event], text: &str) -> bool {
    events.iter().any(|event| matches!(event, Event::Warning { message } if message.contains(text)))
}

#[test]
fn all_tokens_but_one_are_all_tokens() {
    let place = Place::new();
    let n = place.plan("n", &[]).stages[0].tokenizer.vocab_size();
    let few = [("distill.max_steps", "3")];
    place.run("all", &few, None);
    let k = (n - 1).to_string();
    place.run("top", &[few[0], ("distill.top_k", &k)], None);
    let (all, top) = (place.metrics("all"), place.metrics("top"));
    assert_eq!(all.len(), top.len());
    for (all, top) in all.iter().zip(&top) {
        let key = if all.get("loss").is_some() { "loss" } else { "eval_loss" };
        let wanted = metric(all, key);
        assert!((metric(top, key) - wanted).abs() < 1e-3 * wanted, "{key}: {top} not {all}");
    }
}

#[test]
fn a_student_learns_from_few_tokens() {
    let place = Place::new();
    for (name, beta) in [("forward", "0.0"), ("jsd", "0.5"), ("reverse", "1.0")] {
        let set = [("distill.top_k", "20"), ("distill.beta", beta), ("distill.max_steps", "60")];
        place.run(name, &set, None);
        let rows = place.metrics(name);
        let first =
            metric(rows.iter().find(|row| row.get("loss").is_some()).expect("a row"), "loss");
        let last = rows.iter().rfind(|row| row.get("eval_loss").is_some()).expect("an evaluation");
        assert!(metric(last, "eval_loss") < 0.9 * first, "{name}: {first} {last}");
    }
}

#[test]
fn none_are_written_into_the_directory_of_another_run() {
    let place = Place::new();
    place.run("cut", &[TOP_5], Some(5));
    fsio::remove_dir_all(place.stage_dir("cut").join(TEACHER_DIR)).expect("removed");
    let error = place.loses_its_directory("cut", &[TOP_5]).to_string();
    assert!(error.contains("the run's directory was removed, moved or replaced"), "{error}");
    assert!(!place.stage_dir("cut").join(TEACHER_DIR).exists());
}

#[test]
fn saved_tokens_are_read_again_and_damaged_ones_computed_again() {
    let place = Place::new();
    place.run("whole", &[TOP_5], None);
    let wanted = place.bytes("whole", MODEL);
    let cut = place.run("cut", &[TOP_5], Some(5));
    assert_eq!(cut.outcome, Some(Outcome::Stopped { step: 5 }));
    let saved = std::fs::read(part(&place, "cut")).expect("saved tokens");
    assert_eq!(saved, std::fs::read(part(&place, "whole")).expect("saved tokens"));
    let mut damaged = saved.clone();
    damaged[100] ^= 1;
    fsio::write_atomic(part(&place, "cut"), damaged).expect("damage");
    let resumed = place.run("cut", &[TOP_5], None);
    assert!(has_warning(&resumed.events, "computed again"), "{:?}", resumed.events);
    assert_eq!(place.bytes("cut", MODEL), wanted);
    assert_eq!(std::fs::read(part(&place, "cut")).expect("saved tokens"), saved);
    // Tokens of another teacher are not used.
    let cut = place.run("other", &[TOP_5], Some(5));
    assert_eq!(cut.outcome, Some(Outcome::Stopped { step: 5 }));
    let of_whole = place.stage_dir("whole").join(TEACHER_DIR);
    let of_other = place.stage_dir("other").join(TEACHER_DIR);
    fsio::remove_dir_all(&of_other).expect("removed");
    fsio::rename(&of_whole, &of_other).expect("moved");
    let resumed = place.run("other", &[TOP_5], None);
    assert!(!has_warning(&resumed.events, "computed again"), "the same inputs have the same key");
    assert_eq!(place.bytes("other", MODEL), wanted);
}

#[test]
fn a_computation_that_was_stopped_continues() {
    let place = Place::new();
    place.run("whole", &[TOP_5], None);
    // Asked to stop before the first batch is complete.
    let stopped = place.run("cut", &[TOP_5], Some(0));
    assert_eq!(stopped.outcome, Some(Outcome::Stopped { step: 0 }));
    let first = std::fs::metadata(part(&place, "cut")).expect("a part").len();
    let whole = std::fs::metadata(part(&place, "whole")).expect("a part").len();
    assert!(first < whole, "{first} of {whole} bytes");
    place.run("cut", &[TOP_5], None);
    assert_eq!(place.bytes("cut", MODEL), place.bytes("whole", MODEL));
    let parts = std::fs::read_dir(place.stage_dir("cut").join(TEACHER_DIR)).expect("a directory");
    assert_eq!(parts.count(), 2);
}

#[test]
fn own_answers_are_taught_by_the_teacher_in_memory() {
    let place = Place::new();
    let set = [TOP_5, ("distill.on_policy", "0.5")];
    place.run("own", &set, None);
    let own: f64 = place.metrics("own").iter().filter_map(|row| row["on_policy"].as_f64()).sum();
    assert!((2.0..=10.0).contains(&own), "{own} of 12 steps are on the student's answers");
    let whole = place.plan("whole", &[TOP_5]);
    let plan = place.plan("plan", &set);
    assert!(whole.stages[0].cost.memory.weights < plan.stages[0].cost.memory.weights);
}

#[test]
fn the_size_is_planned() {
    let place = Place::new();
    place.run("size", &[TOP_5], None);
    let plan = place.plan("plan", &[TOP_5]);
    let planned = crate::support::distill_plan(&plan).saved_bytes();
    let found = std::fs::metadata(part(&place, "size")).expect("a part").len();
    let n_texts = plan.stages[0].dataset.n_source_samples();
    assert!(found <= planned + 20 * n_texts, "{found} bytes, {planned} planned");
    assert!(found * 10 >= planned * 9, "{found} bytes, {planned} planned");
    let n = plan.stages[0].tokenizer.vocab_size().to_string();
    let error = place.refused(&[("distill.top_k", &n)]);
    assert!(error.contains("`top_k` is"), "{error}");
}
