//! Recipe changes that a resumed run accepts or refuses.

use serde_json::{Value, json};
use train::differences;

fn recipe() -> Value {
    json!({
        "seed": 1, "device": "cpu", "threads": 2,
        "tokenizer": {"train": {"kind": "char"}},
        "model": {"family": "llama", "hidden_size": 64},
        "pretrain": {
            "data": [{"path": "a.txt", "weight": 1.0}],
            "optimizer": {"kind": "adamw", "lr": 1e-3}, "schedule": {"kind": "cosine"},
            "max_steps": 100, "save_every_minutes": 10.0, "log_every_steps": 10, "micro_batch": 4
        },
        "sft": {
            "start": "pretrain", "optimizer": {"lr": 1e-4}, "schedule": {"kind": "constant"},
            "max_steps": 50
        },
        "checks": {"targets": true}
    })
}

/// The lines refused and tolerated for a stage after one value was changed.
fn after(stage: &str, pointer: &str, value: Value) -> (Vec<String>, Vec<String>) {
    let (old, mut new) = (recipe(), recipe());
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    new.pointer_mut(parent).expect("parent")[key] = value;
    let found = differences(&old, &new, stage);
    (found.refused, found.tolerated)
}

#[test]
fn the_trajectory_is_fixed() {
    for (pointer, value, line) in [
        ("/seed", json!(2), "seed: was `1`, is now `2`"),
        ("/model/hidden_size", json!(128), "model.hidden_size: was `64`, is now `128`"),
        (
            "/pretrain/optimizer/lr",
            json!(2e-3),
            "pretrain.optimizer.lr: was `0.001`, is now `0.002`",
        ),
        (
            "/pretrain/data/0/path",
            json!("b.txt"),
            "pretrain.data[0].path: was `a.txt`, is now `b.txt`",
        ),
        (
            "/pretrain/sequence_length",
            json!(64),
            "pretrain.sequence_length: was unset, is now `64`",
        ),
    ] {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let (old, mut new) = (recipe(), recipe());
        let parent = new.pointer_mut(parent).expect("parent");
        if let Value::Array(items) = parent {
            items[key.parse::<usize>().expect("index")] = value;
        } else {
            parent[key] = value;
        }
        let found = differences(&old, &new, "pretrain");
        assert_eq!((found.refused, found.tolerated), (vec![line.to_owned()], vec![]));
    }
}

#[test]
fn saving_logging_and_other_stages_are_free() {
    for (pointer, value) in [
        ("/pretrain/save_every_minutes", json!(1.0)),
        ("/pretrain/save_every_steps", json!(5)),
        ("/pretrain/keep_checkpoints", json!(7)),
        ("/pretrain/log_every_steps", json!(1)),
        ("/pretrain/sample_prompts", json!(["Hi", "you"])),
        ("/trackers", json!(["wandb"])),
        ("/threads", json!(1)),
        ("/checks/targets", json!(false)),
        ("/sft/max_steps", json!(1)),
    ] {
        assert_eq!(after("pretrain", pointer, value), (vec![], vec![]), "{pointer}");
    }
}

#[test]
fn what_changes_only_bits_is_tolerated() {
    let line = "pretrain.micro_batch: was `4`, is now `2`".to_owned();
    assert_eq!(after("pretrain", "/pretrain/micro_batch", json!(2)), (vec![], vec![line]));
    let line = "device: was `cpu`, is now `cuda`".to_owned();
    assert_eq!(after("sft", "/device", json!("cuda")), (vec![], vec![line]));
    // Unset is the default.
    let line = "deterministic: was unset, is now `true`".to_owned();
    assert_eq!(after("sft", "/deterministic", json!(true)), (vec![], vec![line]));
}

#[test]
fn the_length_may_change_where_the_schedule_lets_it() {
    assert_eq!(after("sft", "/sft/max_steps", json!(80)), (vec![], vec![]));
    let (refused, _) = after("pretrain", "/pretrain/max_steps", json!(200));
    assert_eq!(
        refused,
        [
            "pretrain.max_steps: was `100`, is now `200` (the cosine schedule spans the steps of the \
          stage; `schedule.total_steps` would fix its length)"
        ]
    );
    let (mut old, mut new) = (recipe(), recipe());
    for recipe in [&mut old, &mut new] {
        recipe["pretrain"]["schedule"]["total_steps"] = json!(1000);
    }
    new["pretrain"]["max_steps"] = json!(200);
    assert!(differences(&old, &new, "pretrain").refused.is_empty());
}

#[test]
fn a_stage_depends_on_those_it_starts_from() {
    let (refused, _) = after("sft", "/pretrain/optimizer/lr", json!(1.0));
    assert_eq!(refused, ["pretrain.optimizer.lr: was `0.001`, is now `1.0`"]);
    let (refused, _) = after("sft", "/pretrain/max_steps", json!(1));
    assert_eq!(refused, ["pretrain.max_steps: was `100`, is now `1`"]);
}
