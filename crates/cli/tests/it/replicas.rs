//! Every stage of the binary on several replicas: the losses equal those of one replica, also after a change of their
//! number; too many replicas are refused.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Place, tiny_recipe};

const STEPS: usize = 20;

/// All stages, of which all but the first train adapters in the second recipe.
fn recipe(lora: &str) -> String {
    let train = |more: &str| {
        format!("max_steps = {STEPS}\nlog_every_steps = 1\nsave_every_steps = 7\n{more}\n")
    };
    let eval = "eval = { holdout = 0.1, every_steps = 10 }";
    let chats = "chat_template = \"plain\"\nsequence_length = 48\n";
    [
        "seed = 3\n[tokenizer]\ntrain = { kind = \"byte-bpe\", vocab_size = 300 }\n\
         [model]\nfamily = \"llama\"\nhidden_size = 32\nnum_hidden_layers = 2\n\
         num_attention_heads = 4\nnum_key_value_heads = 2\nintermediate_size = 56\n\
         max_position_embeddings = 64\n"
            .to_owned(),
        format!(
            "[pretrain]\ndata = [{{ path = \"texts.jsonl\" }}]\nsequence_length = 32\n\
             tokens_per_step = 256\noptimizer = {{ lr = 1e-3, weight_decay = 0.1 }}\n{}",
            train(eval)
        ),
        format!(
            "[sft]\nstart = \"pretrain\"\n{lora}data = [{{ path = \"chats.jsonl\" }}]\n{chats}\
             tokens_per_step = 288\noptimizer = {{ lr = 1e-3 }}\n{}",
            train(eval)
        ),
        format!(
            "[reward]\nstart = \"sft\"\n{lora}data = [{{ path = \"pairs.jsonl\" }}]\n{chats}\
             pairs_per_step = 6\noptimizer = {{ lr = 1e-3 }}\n{}",
            train(eval)
        ),
        format!(
            "[dpo]\nstart = \"sft\"\n{lora}data = [{{ path = \"pairs.jsonl\" }}]\n{chats}\
             pairs_per_step = 6\nmicro_batch = 2\noptimizer = {{ lr = 3e-4 }}\n{}",
            train(eval)
        ),
        format!(
            "[ppo]\npolicy = {{ start = \"sft\"{} }}\nreward = \"reward\"\n\
             prompts = [{{ path = \"chats.jsonl\" }}]\nchat_template = \"plain\"\n\
             max_prompt_tokens = 30\nmax_new_tokens = 6\nepisodes_per_step = 6\n\
             n_minibatches = 2\nn_ppo_epochs = 2\noptimizer = {{ lr = 1e-4 }}\n{}",
            if lora.is_empty() { "" } else { ", lora = { rank = 2 }" },
            train("eval = { holdout = 0.1, every_steps = 10, max_rows = 2 }")
        ),
        format!(
            "[grpo]\npolicy = {{ start = \"sft\"{} }}\n\
             rewards = [{{ kind = \"regex\", pattern = \"[0-9i]\" }}, {{ kind = \"model\", start = \"reward\" }}]\n\
             prompts = [{{ path = \"chats.jsonl\" }}]\nchat_template = \"plain\"\n\
             max_prompt_tokens = 30\nmax_new_tokens = 6\nprompts_per_step = 3\nnum_generations = 4\n\
             n_minibatches = 2\nbeta = 0.05\noptimizer = {{ lr = 1e-4 }}\n{}",
            if lora.is_empty() { "" } else { ", lora = { rank = 2 }" },
            train("eval = { holdout = 0.1, every_steps = 10, max_rows = 2 }")
        ),
    ]
    .concat()
}

/// A directory with the data and the recipe.
fn place(lora: &str) -> Place {
    let rows = |row: fn(usize) -> String| (0..80).map(row).collect::<String>();
    let place = Place::new();
    place
        .write("all.toml", recipe(lora))
        .write("texts.jsonl", rows(|n| format!("{{\"text\":\"row {n} is a text on {}\"}}\n", n * n)))
        .write(
            "chats.jsonl",
            rows(|n| format!("{{\"prompt\":\"Is {n}?\",\"completion\":\"It is {}.\"}}\n", n % 7)),
        )
        .write(
            "pairs.jsonl",
            rows(|n| {
                let more = " yes".repeat(n % 3);
                format!(
                    "{{\"prompt\":\"Say {n}.\",\"chosen\":\"I like {n}{more}.\",\"rejected\":\"Not {n}!\"}}\n"
                )
            }),
        );
    place
}

const STAGES: [&str; 6] = ["pretrain", "sft", "reward", "dpo", "ppo", "grpo"];

impl Place {
    fn runs(&self, args: &[&str]) {
        let outcome = self.temper(args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {}", outcome.stderr);
    }

    /// A second run with the stages of the first.
    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.path().join("runs").join(from), self.path().join("runs").join(to));
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(copied.expect("cp runs").success());
    }

    fn remove(&self, run: &str, stage: &str) {
        fsio::remove_dir_all(self.path().join("runs").join(run).join(stage)).expect("removed");
    }

    /// The losses of a run's stage, step by step.
    fn losses(&self, run: &str, stage: &str) -> Vec<f64> {
        let path = self.path().join(format!("runs/{run}/{stage}/metrics.jsonl"));
        let text = std::fs::read_to_string(path).expect("metrics");
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let losses: Vec<f64> = rows.filter_map(|row| row["loss"].as_f64()).collect();
        assert_eq!(losses.len(), STEPS, "{run}/{stage}: each step once");
        losses
    }

    /// Largest difference between the losses of two runs, by stage; relative unless they are small.
    fn gaps(&self, one: &str, other: &str) -> BTreeMap<&'static str, f64> {
        let gap = |stage: &str| {
            let (one, other) = (self.losses(one, stage), self.losses(other, stage));
            one.iter()
                .zip(&other)
                .map(|(a, b)| (a - b).abs() / a.abs().max(0.1))
                .fold(0.0, f64::max)
        };
        STAGES.into_iter().map(|stage| (stage, gap(stage))).collect()
    }
}

#[test]
fn every_stage_is_the_same_on_any_number_of_replicas() {
    for lora in ["", "lora = { rank = 2 }\n"] {
        let place = place(lora);
        place.runs(&["run", "all.toml", "--name", "1"]);
        for replicas in ["2", "3"] {
            place.copy("1", replicas);
            let set = format!("replicas={replicas}");
            // The last stage first, so that each starts from the weights of one replica.
            for stage in STAGES.into_iter().rev() {
                place.remove(replicas, stage);
                place.runs(&[
                    "run", "all.toml", "--name", replicas, "--stage", stage, "--set", &set,
                ]);
            }
            let gaps = place.gaps("1", replicas);
            assert!(gaps.values().all(|gap| *gap < 1e-5), "{replicas}: {gaps:?}");
        }
    }
}

/// If shares end where micro-batches do, an adapter's dropout masks equal those of one replica.
#[test]
fn masks_of_dropout_belong_to_a_micro_batch_of_the_whole_step() {
    let place = place("lora = { rank = 2 }\n");
    place.runs(&["run", "all.toml", "--name", "1", "--stage", "pretrain"]);
    let tuned = |name: &str, replicas: &str, dropout: &str| -> Vec<f64> {
        if name != "1" {
            place.copy("1", name);
        }
        let replicas = format!("replicas={replicas}");
        let dropout = format!("sft.lora.dropout={dropout}");
        place.runs(&[
            "run",
            "all.toml",
            "--name",
            name,
            "--stage",
            "sft",
            "--set",
            "sft.micro_batch=1",
            "--set",
            &replicas,
            "--set",
            &dropout,
        ]);
        let losses = place.losses(name, "sft");
        place.remove(name, "sft");
        losses
    };
    let (wanted, without) = (tuned("1", "1", "0.2"), tuned("without", "1", "0.0"));
    let gap = |one: &[f64], other: &[f64]| -> f64 {
        one.iter().zip(other).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
    };
    assert!(gap(&without, &wanted) > 1e-4);
    for replicas in ["2", "3"] {
        let found = tuned(&format!("on-{replicas}"), replicas, "0.2");
        assert!(gap(&found, &wanted) < 1e-5, "{replicas}: {}", gap(&found, &wanted));
    }
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let place = Place::new();
    place.write("text.txt", "A few words, again and again.\n".repeat(40));
    place.write("tiny.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    let refused = |set: &[&str]| {
        let set = set.iter().flat_map(|set| ["--set", *set]);
        place.error(&["plan", "tiny.toml", "--no-probe"].into_iter().chain(set).collect::<Vec<_>>())
    };
    assert_snapshot!(refused(&["replicas=3"]), @r"
    exit 2
    error: [pretrain] has fewer rows in a step than replicas: `2`
      --> the command line
       |
       | --set replicas=3
       |                ^ each replica needs at least one
      hint: lower it, or raise `tokens_per_step`
    ");
    assert_snapshot!(refused(&["replicas=0"]), @r#"
    exit 2
    error: `replicas` must be from 1 to 64: `0`
      --> the command line
       |
       | --set replicas=0
       |                ^
      hint: `replicas`: Number of data-parallel replicas that share the rows of each step
    "#);
    assert_snapshot!(refused(&["replicas=2", "device=\"cuda:1\""]), @r#"
    exit 2
    error: `replicas` cannot be used: `device` names one GPU and each replica needs its own: "cuda" uses the first ones
      --> the command line
       |
       | --set replicas=2
       |       ^^^^^^^^
      hint: remove `replicas`, or change the keys it conflicts with
    "#);
}
