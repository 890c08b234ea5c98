//! GRPO through the binary: plan, inspection, training and mistakes.

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::Place;

const ROWS: &str = "{\"prompt\":\"2+3=\",\"completion\":\"5\",\"answer\":5}\n\
    {\"prompt\":\"1+3=\",\"completion\":\"4\",\"answer\":4}\n\
    {\"prompt\":\"4+4=\",\"completion\":\"8\",\"answer\":\"#### 8\"}\n\
    {\"prompt\":\"3+3=\",\"completion\":\"6\",\"answer\":6}\n";

/// A recipe with GRPO, with these keys, after a short fine-tuning on the same rows.
fn recipe(keys: &str) -> String {
    let train = "chat_template = \"plain\"\nmax_steps = 3\noptimizer = { lr = 1e-3 }\n\
                 log_every_steps = 1\n";
    format!(
        "seed = 3\n[tokenizer]\ntrain = {{ kind = \"byte-bpe\", vocab_size = 300, data = [{{ path = \"rows.jsonl\", \
         rows = {{ text = \"{{prompt}} {{completion}}\" }} }}] }}\n\
         [model]\nfamily = \"llama\"\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
         intermediate_size = 48\nmax_position_embeddings = 64\n\
         [sft]\ndata = [{{ path = \"rows.jsonl\" }}]\nsequence_length = 48\ntokens_per_step = 96\n{train}\
         [grpo]\npolicy = {{ start = \"sft\" }}\nprompts = [{{ path = \"rows.jsonl\" }}]\n\
         max_prompt_tokens = 30\nmax_new_tokens = 8\nprompts_per_step = 2\nnum_generations = 4\n\
         {keys}\n{train}"
    )
}

fn place(keys: &str) -> Place {
    let place = Place::new();
    place.write("rows.jsonl", ROWS).write("r.toml", recipe(keys));
    place
}

const GOOD: &str = "rewards = [{ kind = \"number\", answer = \"{answer}\" }, \
    { kind = \"length\", cache_tokens = 6, weight = 0.5 }]\nbeta = 0.01";

#[test]
fn a_run_plans_inspects_and_logs_its_rewards() {
    let place = place(GOOD);
    let plan = place.temper(&["plan", "r.toml"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    for part in [
        "2 prompts × 4 answers in an update: 24 answers of at most 8 tokens (192 tokens), 3 optimizer steps",
        "training reads 116 tokens an update at most, prompts once for the answers that a forward pass reads",
        "policy, reference on 2 base models",
        "reward = 1 × number + 0.5 × length",
        "8 episodes (up to 38 tokens)",
    ] {
        assert!(plan.stdout.contains(part), "{part}: {}", plan.stdout);
    }

    let run = place.temper(&["run", "r.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("reward "), "{}", run.stderr);
    let metrics = std::fs::read_to_string(place.path().join("runs/r/grpo/metrics.jsonl"));
    let metrics = metrics.expect("metrics");
    let rows: Vec<Value> =
        metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        let mean = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
        let sum = mean("rewards/number/mean") + 0.5 * mean("rewards/length/mean");
        assert!((mean("reward") - sum).abs() < 1e-9, "{row}");
        assert!(mean("kl") >= 0.0 && mean("frac_reward_zero_std") <= 1.0, "{row}");
    }

    let inspect = ["data", "inspect", "r.toml", "--stage", "grpo", "--n", "2", "--json"];
    let shown = place.temper(&inspect);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let answers: Vec<Value> =
        shown.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 8);
    for group in answers.chunks(4) {
        assert!(group.iter().all(|answer| answer["prompt"] == group[0]["prompt"]));
        let sum: f64 = group.iter().filter_map(|answer| answer["advantage"].as_f64()).sum();
        assert!(sum.abs() < 1e-4, "{sum}");
        for answer in group {
            assert_eq!(answer["reward_parts"][0]["name"], "number");
            assert!(answer["reward_parts"][1]["why"].is_string(), "{answer}");
            let n = answer["response"].as_array().expect("ids").len();
            assert_eq!(answer["ref_logprobs"].as_array().expect("numbers").len(), n);
        }
    }
    let text = place.temper(&inspect[..inspect.len() - 1]).stdout;
    for part in ["── prompt 1, ", "answer 1 of 4: ", "reward number: ", "advantage", "in loss"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn mistakes_are_found_before_training() {
    let error = |keys: &str| place(keys).error(&["plan", "r.toml"]);
    let number = "rewards = [{ kind = \"number\", answer = \"{answer}\" }]";
    let all = [
        error(""),
        error(&format!("{number}\nn_minibatches = 3")),
        error(&format!("{number}\nloss_type = \"cispo\"")),
        error(&format!("{number}\nnormalize_advantages = true")),
        error(&format!("{number}\nadvantage = \"leave_one_out\"\ndelta = 2.0")),
        error(&format!("{number}\nloss_type = \"gspo\"")),
        error(&format!("{number}\nnum_generation = 4")),
        error("rewards = [{ kind = \"number\", answer = \"{answr}\" }]"),
        error(&format!("{number}\nsync_ref_model = true")),
        error(&format!("{number}\nref_model_sync_steps = 4")),
        error("rewards = [{ kind = \"command\", argv = [\"python3\", \"grade.py\"] }]"),
    ];
    assert_snapshot!(all.join("\n\n"));
}

/// A program that computes a reward runs only if the command line allows it; the checkpoints name it and its script by hash.
#[test]
fn a_program_is_started_only_if_it_is_allowed() {
    let place = place(
        "rewards = [{ kind = \"command\", argv = [\"sh\", \"grade.sh\"], answer = \"{answer}\" }]",
    );
    // The reward is the length of the line up to 200 bytes, so answers of one prompt differ.
    let script = "while read -r line; do touch started; n=${#line}; echo \"{\\\"reward\\\": $n, \\\"why\\\": \\\"$n bytes\\\"}\"; done\n";
    place.write("grade.sh", script);
    for command in [
        &["plan", "r.toml"][..],
        &["run", "r.toml"],
        &["data", "inspect", "r.toml", "--stage", "grpo"],
    ] {
        let refused = place.temper(command);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("the recipe starts a program: `sh grade.sh`"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains("--allow-commands"), "{}", refused.stderr);
    }
    assert!(!place.path().join("started").exists());

    let plan = place.temper(&["plan", "r.toml", "--allow-commands"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    assert!(plan.stdout.contains("starts `sh grade.sh`"), "{}", plan.stdout);
    assert!(!place.path().join("started").exists());
    let run = place.temper(&["run", "r.toml", "--allow-commands"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(place.path().join("started").exists());
    let metrics = std::fs::read_to_string(place.path().join("runs/r/grpo/metrics.jsonl"));
    for line in metrics.expect("metrics").lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        assert!(row["rewards/command/mean"].as_f64().is_some_and(|mean| mean > 20.0), "{row}");
        assert_eq!(row["rewards/command/failed"], 0.0, "{row}");
    }
    let checkpoints = place.path().join("runs/r/grpo/checkpoints");
    let newest = std::fs::read_dir(checkpoints).expect("checkpoints").flatten().next();
    let newest = newest.expect("a checkpoint").path();
    let recorded: String = std::fs::read_dir(newest)
        .expect("files")
        .flatten()
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .collect();
    assert!(recorded.contains("program of grpo.rewards[0].argv: "));
    assert!(recorded.contains(&fsio::sha256_hex(script.as_bytes())));

    let inspect = ["data", "inspect", "r.toml", "--stage", "grpo", "--n", "1", "--allow-commands"];
    let shown = place.temper(&inspect);
    assert!(shown.stdout.contains(" bytes\n"), "{}", shown.stdout);
}

/// A reward that never has a value: evaluations have no loss, nothing is called the best, and the run says that nothing was
/// learned. A checkpoint of such a run can be resumed.
#[test]
fn a_run_without_any_reward_says_so_and_can_be_resumed() {
    let place = place(
        "rewards = [{ kind = \"command\", argv = [\"sh\", \"grade.sh\"] }]\nsave_every_steps = 1\n\
         eval = { holdout = 0.3, by = \"position\", every_steps = 1, early_stopping = { patience = 2 } }",
    );
    place.write("grade.sh", "while read line; do echo '{\"reward\": null}'; done\n");
    let run = ["run", "r.toml", "--allow-commands"];
    let first = place.temper(&run);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let text = first.stdout + &first.stderr;
    for part in [
        "has no reward: `command` gave no value for any completion of the validation prompts",
        "step 1: no completion has a reward (`command` gave no value)",
        "[grpo] nothing was learned: no completion of any update had a reward",
        "[grpo] has no best evaluation",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("NaN") && !text.contains("best evaluation ("), "{text}");
    let stage = place.path().join("runs/r/grpo");
    let weights = || std::fs::read(stage.join("model/model.safetensors")).expect("weights");
    let whole = weights();
    for part in ["finished.json", "model", "checkpoints/step-000003"] {
        fsio::rename(stage.join(part), place.path().join(part.replace('/', "-"))).expect("moved");
    }
    let again = place.temper(&run);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(weights() == whole);
}
