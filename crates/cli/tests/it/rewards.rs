//! PPO on rewards that are computed from the text, through the binary: plan, inspection, training and mistakes.

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::Place;

const ROWS: &str = "{\"prompt\":\"2+3=\",\"completion\":\"5\",\"answer\":5}\n\
    {\"prompt\":\"1+3=\",\"completion\":\"4\",\"answer\":4}\n\
    {\"prompt\":\"4+4=\",\"completion\":\"8\",\"answer\":\"#### 8\"}\n\
    {\"prompt\":\"What?\",\"completion\":\"?\",\"answer\":\"none\"}\n";

/// A recipe with PPO on these rewards, after a short fine-tuning on the same rows.
fn recipe(rewards: &str) -> String {
    let keys = "chat_template = \"plain\"\nmax_steps = 3\noptimizer = { lr = 1e-3 }\n\
                log_every_steps = 1\n";
    format!(
        "seed = 3\n[tokenizer]\ntrain = {{ kind = \"byte-bpe\", vocab_size = 300, data = [{{ path = \"rows.jsonl\", \
         rows = {{ text = \"{{prompt}} {{completion}}\" }} }}] }}\n\
         [model]\nfamily = \"llama\"\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
         intermediate_size = 48\nmax_position_embeddings = 64\n\
         [sft]\ndata = [{{ path = \"rows.jsonl\" }}]\nsequence_length = 48\ntokens_per_step = 96\n{keys}\
         [ppo]\npolicy = {{ start = \"sft\" }}\nvalue = {{ start = \"sft\" }}\n\
         prompts = [{{ path = \"rows.jsonl\" }}]\nmax_prompt_tokens = 30\nmax_new_tokens = 8\n\
         episodes_per_step = 4\nrewards = [{rewards}]\n{keys}"
    )
}

fn place(rewards: &str) -> Place {
    let place = Place::new();
    place.write("rows.jsonl", ROWS).write("r.toml", recipe(rewards));
    place
}

const GOOD: &str = "{ kind = \"number\", answer = \"{answer}\" }, \
    { kind = \"format\", tags = [\"a\"], weight = 0.1 }";

#[test]
fn a_run_plans_inspects_and_logs_its_rewards() {
    let place = place(GOOD);
    let plan = place.temper(&["plan", "r.toml"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    for part in [
        "score = 1 × number + 0.1 × format",
        "policy, reference and value model share",
        "reward `number`: 1 of 4 prompts have no answer to compare with (`{answer}`), the first one at",
        "rows.jsonl:4",
    ] {
        assert!(plan.stdout.contains(part), "{part}: {}", plan.stdout);
    }
    // Time is measured for one answer at once, too, although scores are compared in pairs.
    let plan = place.temper(&["plan", "r.toml", "--set", "ppo.micro_batch=1"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);

    let run = place.temper(&["run", "r.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let metrics = std::fs::read_to_string(place.path().join("runs/r/ppo/metrics.jsonl"));
    let metrics = metrics.expect("metrics");
    let rows: Vec<Value> =
        metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        let number = row["rewards/number/mean"].as_f64().expect("a mean");
        let score = row["objective/scores"].as_f64().expect("a score");
        // Three of the four prompts have an answer, and no completion has the tag.
        assert_eq!(row["rewards/format/mean"], 0.0, "{row}");
        assert!((score - 0.75 * number).abs() < 1e-6, "{row}");
    }

    let inspect = ["data", "inspect", "r.toml", "--stage", "ppo", "--n", "4", "--json"];
    let shown = place.temper(&inspect);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let episodes: Vec<Value> =
        shown.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(episodes.len(), 4);
    let skipped = episodes.iter().filter(|episode| {
        let part = &episode["reward_parts"][0];
        assert_eq!(part["name"], "number");
        part["value"].is_null() && part["why"] == "the row has no such answer"
    });
    assert_eq!(skipped.count(), 1);
    let text = place.temper(&inspect[..inspect.len() - 1]).stdout;
    assert!(text.contains("reward number: skipped, the row has no such answer"), "{text}");
    assert!(text.contains("reward format: 0.0000, no `<a>` in its place"), "{text}");
}

#[test]
fn mistakes_are_found_before_training() {
    let error = |rewards: &str| place(rewards).error(&["plan", "r.toml"]);
    let all = [
        error("{ kind = \"regex\", pattern = \"a(?=b)\" }"),
        error("{ kind = \"json_schema\", schema = '{ \"format\": \"date\" }' }"),
        error("{ kind = \"number\", answer = \"{answr}\" }, { kind = \"repetition\", n = 2 }"),
        error("{ kind = \"number\", answer = \"{answer}\" }"),
        error("{ kind = \"format\", tags = [\"a\", \"b\", \"a\"] }"),
    ];
    assert_snapshot!(all.join("\n\n"));
}

/// A program that gives every fifth completion no value, as `{"reward": null}`.
const SOMETIMES: &str = "n=0\nwhile read line; do n=$((n+1)); if [ $((n % 5)) = 0 ]; then echo '{\"reward\": null}'; else \
    echo '{\"reward\": 0.'$n'}'; fi; done\n";

/// An episode without a reward is left out, with a warning; a resumed run ends with the same bits.
#[test]
fn a_program_may_give_no_value() {
    let place = place("{ kind = \"command\", argv = [\"sh\", \"grade.sh\"] }");
    let keys =
        ["--allow-commands", "--set", "ppo.episodes_per_step=8", "--set", "ppo.save_every_steps=1"];
    let run = |name: &str, args: &[&str]| place.temper(&[args, &["--name", name], &keys].concat());
    place.write("grade.sh", SOMETIMES);
    let whole = run("whole", &["run", "r.toml"]);
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    let text = whole.stdout + &whole.stderr;
    for part in [
        "step 1: 1 of 8 completions have no reward (`command` gave no value)",
        "[ppo] 3 completions had no reward (`command` gave no value)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(run("cut", &["run", "r.toml"]).code, Some(0));
    let of = |name: &str, file: &str| place.path().join("runs").join(name).join("ppo").join(file);
    for part in ["finished.json", "model", "checkpoints/step-000003"] {
        fsio::rename(of("cut", part), place.path().join(part.replace('/', "-"))).expect("moved");
    }
    assert_eq!(run("cut", &["run", "r.toml"]).code, Some(0));
    let bytes = |name: &str| std::fs::read(of(name, "model/model.safetensors")).expect("weights");
    assert!(bytes("cut") == bytes("whole"));

    // Without any value nothing is learned, and the run says so twice.
    place.write("grade.sh", "while read line; do echo '{\"reward\": null}'; done\n");
    let none = run("none", &["run", "r.toml"]);
    assert_eq!(none.code, Some(0), "{}", none.stderr);
    let text = none.stdout + &none.stderr;
    for part in [
        "step 1: no completion has a reward (`command` gave no value)",
        "[ppo] nothing was learned: no completion of any update had a reward (`command` gave no value)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
