//! Samples: when they are logged, that they change no training, and that a resumed run has each of them once.

use serde_json::Value;

use crate::support::Place;

const PROMPTS: (&str, &str) = ("dpo.sample_prompts", r#"["Say 3.", "Say 77."]"#);

fn samples(place: &Place, name: &str) -> Vec<Value> {
    let text = String::from_utf8(place.bytes(name, "samples.jsonl")).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Steps and prompts of the samples.
fn places(rows: &[Value]) -> Vec<(u64, &str)> {
    let place = |row: &Value| row["step"].as_u64().expect("a step");
    rows.iter().map(|row| (place(row), row["prompt"].as_str().expect("a prompt"))).collect()
}

#[test]
fn prompts_of_the_recipe_are_answered_before_training_at_evaluations_and_at_the_end() {
    let place = Place::new();
    place.run("x", &[PROMPTS, ("dpo.max_steps", "6"), ("dpo.sample_max_new_tokens", "5")], None);
    let rows = samples(&place, "x");
    let steps = [0, 4, 6];
    let wanted: Vec<(u64, &str)> =
        steps.iter().flat_map(|step| [(*step, "Say 3."), (*step, "Say 77.")]).collect();
    assert_eq!(places(&rows), wanted);
    for row in &rows {
        let of_start = rows.iter().find(|first| first["prompt"] == row["prompt"]).expect("a row");
        let before = if row["step"] == 0 { &Value::Null } else { &of_start["text"] };
        assert_eq!(&row["before"], before, "{row}");
        assert!(row["text"].as_str().expect("text").chars().count() <= 5, "{row}");
    }
    // A schedule of their own.
    place.run("y", &[PROMPTS, ("dpo.max_steps", "6"), ("dpo.sample_every_steps", "3")], None);
    let of_y = samples(&place, "y");
    let steps: Vec<u64> = places(&of_y).into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [0, 0, 3, 3, 6, 6]);
    // Greedy answers are a function of the weights.
    let at = |rows: &[Value]| rows.last().map(|row| row["text"].as_str().map(str::to_owned));
    place.run("z", &[PROMPTS, ("dpo.max_steps", "6")], None);
    assert_eq!(at(&samples(&place, "z")), at(&of_y));
    // Without any, the first prompt of the validation pairs at each evaluation.
    place.run("none", &[("dpo.max_steps", "6")], None);
    let rows = samples(&place, "none");
    assert_eq!(places(&rows).into_iter().map(|(step, _)| step).collect::<Vec<_>>(), [4, 6]);
    assert!(rows[0]["prompt"].as_str().expect("a prompt").contains("Say "), "{rows:?}");
}

#[test]
fn samples_change_no_weights_and_a_resumed_run_has_each_once() {
    let place = Place::new();
    place.run("base", &[("dpo.max_steps", "2")], None);
    // Dropout draws random numbers in every step.
    place.start_with_lora("base");
    let warm = ("dpo.sample_temperature", "0.7");
    let every = ("dpo.sample_every_steps", "1");
    place.run("without", &[("dpo.max_steps", "7")], None);
    place.run("with", &[PROMPTS, every, warm, ("dpo.max_steps", "7")], None);
    let weights = "model/adapter_model.safetensors";
    assert!(place.bytes("with", weights) == place.bytes("without", weights));
    let [with, without] = ["with", "without"].map(|name| {
        let mut rows = place.metrics(name);
        for row in &mut rows {
            row.as_object_mut().expect("a row").remove("tokens_per_s");
        }
        rows
    });
    assert_eq!(with, without);
    for stop_at in [2, 5] {
        let name = format!("cut-{stop_at}");
        let set = [PROMPTS, every, warm, ("dpo.max_steps", "7")];
        place.run(&name, &set, Some(stop_at));
        place.run(&name, &set, None);
        assert!(place.bytes(&name, weights) == place.bytes("with", weights), "{name}");
        assert_eq!(samples(&place, &name), samples(&place, "with"), "{name}");
    }
}
