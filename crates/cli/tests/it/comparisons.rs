//! Evaluations with reward models: pairs, the best of several completions, and models compared on prompts.

use serde_json::Value;

use crate::support::{Outcome, Place};

const PAIRS: &str = "{\"prompt\":\"2+3=\",\"chosen\":\"5\",\"rejected\":\"6\",\"subset\":\"add\"}\n\
    {\"prompt\":\"1+3=\",\"chosen\":\"4\",\"rejected\":\"9\",\"subset\":\"add\"}\n\
    {\"prompt\":\"4*2=\",\"chosen\":\"8\",\"rejected\":\"six\",\"subset\":\"mul\"}\n";

const RECIPE: &str = "seed = 3
[tokenizer]
train = { kind = \"byte-bpe\", vocab_size = 300, data = [{ path = \"rows.jsonl\", rows = { text = \"{prompt} {completion}\" } }] }
[model]
family = \"llama\"
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 48
max_position_embeddings = 512
[sft]
data = [{ path = \"rows.jsonl\" }]
sequence_length = 48
tokens_per_step = 96
chat_template = \"plain\"
max_steps = 6
save_every_steps = 3
optimizer = { lr = 1e-2 }
[reward]
start = \"sft\"
data = [{ path = \"pairs.jsonl\" }]
sequence_length = 48
pairs_per_step = 2
max_steps = 4
optimizer = { lr = 1e-2 }
eval = { tasks = [\"pairs.toml\"], every_steps = 2 }
";

fn place() -> Place {
    let place = Place::new();
    place
        .write(
            "rows.jsonl",
            "{\"prompt\":\"2+3=\",\"completion\":\"5\"}\n{\"prompt\":\"1+3=\",\"completion\":\"4\"}\n",
        )
        .write("pairs.jsonl", PAIRS)
        .write("r.toml", RECIPE)
        .write(
            "pairs.toml",
            "kind = \"pairs\"\ndata = \"pairs.jsonl\"\nprompt = \"{{ prompt }}\"\nchosen = \"{{ chosen }}\"\n\
             rejected = \"{{ rejected }}\"\nsubset = \"{{ subset }}\"\n\
             [[sections]]\nname = \"Sums\"\nsubsets = { add = 3, sub = 1 }\n",
        )
        .write(
            "best.toml",
            "kind = \"generate_until\"\ndata = \"rows.jsonl\"\nprompt = \"{{ prompt }}\"\n\
             target = \"{{ completion }}\"\n[generation]\nmax_new_tokens = 4\ntemperature = 1.0\nvotes = 3\n\
             pass_at = [1, 2]\n[[filters]]\nname = \"best\"\nsteps = [{ kind = \"best_of\" }]\n",
        );
    ok(&place.temper(&["run", "r.toml"]));
    place
}

fn ok(outcome: &Outcome) -> String {
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout.clone()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

#[test]
fn reward_models_are_evaluated_on_pairs() {
    let place = place();
    let outcome = place.temper(&["eval", "runs/r/reward", "--task", "pairs.toml", "--json"]);
    let notes = ["sections are without their subsets sub", "subsets in no section: mul"];
    assert!(notes.iter().all(|note| outcome.stderr.contains(note)), "{}", outcome.stderr);
    let shown = lines(&ok(&outcome));
    let (summary, rows) = shown.split_last().expect("a summary");
    assert_eq!(rows.len(), 3);
    // The scores of `temper score`.
    let scored = lines(&ok(&place.temper(&["score", "runs/r/reward", "--pairs", "pairs.jsonl"])));
    let mut n_right = 0.0;
    for (row, scored) in rows.iter().zip(&scored) {
        let scores = [0, 1].map(|idx| number(&row["requests"][idx]["score"]));
        for (score, key) in scores.into_iter().zip(["chosen", "rejected"]) {
            assert!((score - number(&scored[key])).abs() < 1e-5, "{row} {scored}");
        }
        assert_eq!(number(&row["acc"]), f64::from(u8::from(scores[0] > scores[1])));
        n_right += number(&row["acc"]);
    }
    let results = &summary["results"];
    assert_eq!(number(&results["acc,none"]), n_right / 3.0);
    // Only one subset of the section has rows.
    assert_eq!(results["section,Sums"], results["acc,add"]);
    assert_eq!(results["score,none"], results["section,Sums"]);
    let log = place.path().join("runs/r/reward/metrics.jsonl");
    let logged = lines(&std::fs::read_to_string(log).expect("a log"));
    let last = logged.iter().rfind(|row| row.get("task/pairs/acc").is_some()).expect("a row");
    assert_eq!(last["task/pairs/score,none"], Value::Null);
    assert_eq!(number(&last["task/pairs/score"]), number(&results["score,none"]));

    for (args, part) in [
        (&["eval", "runs/r/sft", "--task", "best.toml"][..], "--reward MODEL"),
        (
            &["eval", "runs/r/reward", "--task", "pairs.toml", "--task", "best.toml"],
            "one after the other",
        ),
        (&["eval", "runs/r/reward", "--task", "pairs.toml", "--chat"], "--chat has no meaning"),
        (&["eval", "runs/r/reward", "--task", "pairs.toml", "--shots", "1"], "no answers to show"),
    ] {
        let error = place.error(args);
        assert!(error.starts_with("exit 2") && error.contains(part), "{error}");
    }
}

#[test]
fn the_best_of_several_completions_counts() {
    let place = place();
    let args = ["eval", "runs/r/sft", "--task", "best.toml", "--reward", "runs/r/reward", "--json"];
    let shown = lines(&ok(&place.temper(&args)));
    for row in &shown[..2] {
        let request = &row["requests"][0];
        let texts = request["generations"].as_array().expect("completions");
        let scores: Vec<f64> =
            request["scores"].as_array().expect("scores").iter().map(number).collect();
        assert_eq!((texts.len(), scores.len()), (3, 3));
        let best = (0..3).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).expect("a text");
        assert_eq!(row["filtered"]["best"], texts[best]);
        let n_right = texts.iter().filter(|text| **text == row["target"]).count() as f64;
        assert!((number(&row["pass@1"]["best"]) - n_right / 3.0).abs() < 1e-12, "{row}");
        let of_two = [0.0, 2.0 / 3.0, 1.0, 1.0][n_right as usize];
        assert!((number(&row["pass@2"]["best"]) - of_two).abs() < 1e-12, "{row}");
    }
    assert!(shown[2]["results"]["pass@2,best"].is_f64(), "{}", shown[2]);
}

#[test]
fn answers_of_three_models_are_on_a_page() {
    let place = place();
    place.write("prompts.jsonl", "{\"prompt\": \"2+3=<b>\"}\n1+3=\n");
    let (first, last) = ("runs/r/sft/checkpoints/step-000003", "runs/r/sft");
    let onto_prompts = [
        "compare",
        "runs/r/sft",
        "runs/r/sft",
        "--prompts",
        "prompts.jsonl",
        "--html",
        "prompts.jsonl",
    ];
    let error = place.error(&onto_prompts);
    assert!(error.starts_with("exit 2") && error.contains("prompts.jsonl"), "{error}");
    let page = |models: &[&str], by: &[&str]| {
        let args = ["--prompts", "prompts.jsonl", "--max-new-tokens", "4", "--html", "page.html"];
        let printed = ok(&place.temper(&[&["compare"], models, &args[..], by].concat()));
        let page = std::fs::read_to_string(place.path().join("page.html")).expect("a page");
        assert!(page.starts_with("<!doctype html>") && !page.contains("<script"), "{page}");
        (printed, page)
    };
    let (printed, shown) = page(&[first, last, first], &[]);
    assert_eq!(printed, "page.html\n");
    assert!(shown.contains("2+3=&lt;b&gt;") && shown.contains("sides three"), "{shown}");
    assert!(!shown.contains("Win rate"), "nobody judged");
    // The same answers twice are ties.
    let (printed, shown) = page(&[last, last], &["--reward", "runs/r/reward"]);
    assert!(printed.contains("0.5000"), "{printed}");
    assert!(shown.contains("Win rate of the first model: 50.0 %"), "{shown}");
    assert!(shown.contains("Neither is better (2)") && shown.contains("score "), "{shown}");
    // Nothing to do without a judge and a page.
    let refused = place.error(&["compare", first, last, "--prompts", "prompts.jsonl"]);
    assert!(refused.starts_with("exit 2") && refused.contains("--html"), "{refused}");
}

#[test]
fn two_models_are_compared_in_both_orders() {
    let place = place();
    place.write("prompts.jsonl", "{\"prompt\": \"2+3=\"}\n1+3=\n7+1=\n");
    let (first, last) = ("runs/r/sft/checkpoints/step-000003", "runs/r/sft");
    let compare = |a: &str, b: &str, by: &[&str]| {
        let args = ["compare", a, b, "--prompts", "prompts.jsonl", "--max-new-tokens", "4"];
        ok(&place.temper(&[&args[..], by].concat()))
    };
    let by = ["--reward", "runs/r/reward", "--json"];
    let counts = |text: &str| {
        let shown = lines(text);
        let summary = shown[3]["summary"].clone();
        ["wins", "ties", "losses"].map(|key| summary[key].as_u64().expect("a count"))
    };
    let forth = counts(&compare(first, last, &by));
    let [wins, ties, losses] = counts(&compare(last, first, &by));
    assert_eq!(forth, [losses, ties, wins]);
    assert_eq!(forth.iter().sum::<u64>(), 3);
    // A model against itself: the same answers.
    let table = compare(last, last, &by[..2]);
    insta::assert_snapshot!(table);

    let judged = compare(first, last, &["--judge", "runs/r/sft", "--json"]);
    let shown = lines(&judged);
    for row in &shown[..3] {
        let odds = ["log_odds_a_first", "log_odds_b_first"].map(|key| number(&row[key]));
        let expected = match (odds[0] > 0.0, odds[1] > 0.0) {
            (true, true) => "win",
            (false, false) => "loss",
            _ => "tie",
        };
        assert_eq!(row["result"], expected, "{row}");
    }
    assert!(shown[3]["summary"]["changed_with_order"].is_u64());
    // Equal answers: what the judge prefers is a position.
    let same = lines(&compare(last, last, &["--judge", "runs/r/sft", "--json"]));
    assert_eq!(same[3]["summary"]["ties"], 3);

    place.write("bad.jsonl", "{\"text\": \"x\"}\n").write("tiny.jsonl", "\n");
    for (args, part) in [
        (&["compare", first, last, "--prompts", "prompts.jsonl"][..], "--reward"),
        (
            &["compare", first, last, "--prompts", "bad.jsonl", "--reward", "x"],
            "bad.jsonl:1: no `prompt`",
        ),
        (&["compare", first, last, "--prompts", "tiny.jsonl", "--reward", "x"], "no prompts"),
        (
            &[
                "compare",
                first,
                last,
                "--prompts",
                "prompts.jsonl",
                "--reward",
                "x",
                "--max-new-tokens",
                "600",
            ],
            "new ones do not fit",
        ),
    ] {
        let error = place.error(args);
        assert!(error.starts_with("exit 2") && error.contains(part), "{error}");
    }
}

#[test]
fn training_rows_of_a_task_are_named() {
    let place = Place::new();
    let question =
        "which of the three boats on the grey lake belongs to the old miller and his two sons";
    place
        .write(
            "t.toml",
            "kind = \"loglikelihood\"\ndata = \"t.jsonl\"\nprompt = \"{{ q }}\"\ntarget = \" x\"\n",
        )
        .write("t.jsonl", format!("{{\"q\": \"{question}\"}}\n{{\"q\": \"short\"}}\n"))
        .write(
            "train.jsonl",
            format!("{{\"text\": \"Nothing.\"}}\n{{\"text\": \"So: {question}?\"}}\n"),
        );
    let shown = ok(&place.temper(&["data", "contamination", "train.jsonl", "--task", "t.toml"]));
    assert_eq!(
        shown,
        "1 of 2 rows of t occur in 1 rows of the training data (runs of 13 words; 1 are too short to compare): \
         train.jsonl:2 has t.jsonl:1\n"
    );
    place.write("other.jsonl", "{\"text\": \"Nothing.\"}\n");
    let shown =
        ok(&place.temper(&["data", "contamination", "other.jsonl", "--task", "t.toml", "--json"]));
    assert_eq!(lines(&shown)[0]["n_found"], 0);
}
