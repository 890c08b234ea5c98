//! Recipes that are written for models and data of several sizes.

use std::path::Path;

use draft::{Facts, Kind, Lengths, RightAnswer, Section, Values, recipe};

const KINDS: [Kind; 7] =
    [Kind::Pretrain, Kind::Sft, Kind::Reward, Kind::Dpo, Kind::Kto, Kind::Ppo, Kind::Grpo];

fn row() -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(r#"{"prompt": "4 + 5 = ?", "answer": "4 + 5 = 9\n#### 9"}"#)
        .expect("a row")
}

fn facts(n_parameters: u64, lengths: Vec<u64>) -> Facts {
    Facts {
        name: "mine".to_owned(),
        model: "models/o/m".to_owned(),
        is_stage: false,
        data: "my \"chats\".jsonl".to_owned(),
        prompts_of_chats: false,
        n_parameters,
        context_length: 2048,
        split_turns: false,
        reward: None,
        right_answer: None,
        lengths: Lengths::new(lengths),
    }
}

/// Values as the command chooses them once the steps are counted.
fn section(kind: Kind, facts: &Facts, n_steps: u64) -> Section {
    let values = Values { n_steps: Some(n_steps), ..Values::of(kind, facts) };
    Section { kind, facts: facts.clone(), values }
}

fn written(kind: Kind, facts: &Facts, n_steps: u64) -> String {
    recipe(&[section(kind, facts, n_steps)])
}

#[test]
fn sixty_chats_for_a_small_model() {
    let facts = facts(135_000_000, (0..60).map(|idx| 40 + 3 * idx).collect());
    insta::assert_snapshot!(written(Kind::Sft, &facts, 24));
}

#[test]
fn many_pairs_for_a_large_model() {
    let lengths = (0..40_000).map(|idx| 100 + idx % 1500 + if idx == 7 { 9000 } else { 0 });
    let facts = facts(7_000_000_000, lengths.collect());
    insta::assert_snapshot!(written(Kind::Dpo, &facts, 625));
}

#[test]
fn texts_for_a_tiny_model() {
    let facts = facts(2_000_000, vec![100_000; 30]);
    insta::assert_snapshot!(written(Kind::Pretrain, &facts, 360));
}

#[test]
fn word_problems_for_a_small_model() {
    let facts = Facts {
        right_answer: RightAnswer::of_row(&row()),
        ..facts(135_000_000, (0..4000).map(|idx| 40 + idx % 90).collect())
    };
    insta::assert_snapshot!(written(Kind::Grpo, &facts, 200));
}

#[test]
fn prompts_and_a_reward_model() {
    let reward = Some("runs/mine/reward".to_owned());
    let facts = Facts { reward, ..facts(10_000_000, (0..50).map(|idx| 20 + idx).collect()) };
    insta::assert_snapshot!(written(Kind::Ppo, &facts, 20));
}

#[test]
fn a_chain_of_stages() {
    let lengths = |n: u64| (0..n).map(|idx| 30 + idx % 50).collect::<Vec<u64>>();
    let chats = facts(135_000_000, lengths(900));
    let stage = |data: &str, n: u64| Facts {
        model: "sft".to_owned(),
        is_stage: true,
        data: data.to_owned(),
        ..facts(135_000_000, lengths(n))
    };
    let reward = Some("reward".to_owned());
    let prompts = Facts { reward, prompts_of_chats: true, ..stage("my \"chats\".jsonl", 900) };
    let text = recipe(&[
        section(Kind::Sft, &chats, 84),
        section(Kind::Reward, &stage("pairs.jsonl", 2000), 250),
        section(Kind::Ppo, &prompts, 20),
    ]);
    insta::assert_snapshot!(text);
    let loaded = recipe::parse(text.as_bytes(), Path::new("mine.toml"), &[]);
    assert_eq!(loaded.expect("a valid recipe").recipe.stages().len(), 3);
}

/// Every recipe passes the checks of recipes, whatever the sizes are.
#[test]
fn every_recipe_is_valid() {
    let lengths: [Vec<u64>; 5] =
        [vec![], vec![1], vec![9000], (1..3000).collect(), vec![7; 200_000]];
    for kind in KINDS {
        for n_parameters in [1000, 10_000_000, 135_000_000, 8_000_000_000, 1_000_000_000_000] {
            for lengths in &lengths {
                for context_length in [2, 16, 100, 2048, 131_072] {
                    let facts = Facts {
                        context_length,
                        reward: (kind == Kind::Ppo).then(|| "runs/r/reward".to_owned()),
                        right_answer: RightAnswer::of_row(&row()).filter(|_| kind == Kind::Grpo),
                        ..facts(n_parameters, lengths.clone())
                    };
                    let values = Values::of(kind, &facts);
                    assert!(values.sequence_length <= context_length as u64);
                    let with_steps = |n_steps| Values { n_steps, ..values.clone() };
                    let steps = [None, Some(1), Some(1000)].map(with_steps);
                    let measuring = Values::to_measure(kind, context_length);
                    for values in steps.into_iter().chain([measuring]) {
                        let facts = facts.clone();
                        let text = recipe(&[Section { kind, facts, values }]);
                        let parsed = recipe::parse(text.as_bytes(), Path::new("mine.toml"), &[]);
                        let loaded = parsed.unwrap_or_else(|error| panic!("{error}\n{text}"));
                        assert_eq!(loaded.recipe.stages().len(), 1);
                    }
                }
            }
        }
    }
}

#[test]
fn values_shrink_to_one_row() {
    let facts = facts(135_000_000, vec![100; 5000]);
    let mut values = Values::of(Kind::Sft, &facts);
    let mut rows = vec![values.rows_per_step];
    while let Some(smaller) = values.with_less_memory() {
        values = smaller;
        rows.extend(values.micro_batch);
    }
    assert!(rows.windows(2).all(|pair| pair[1] * 2 == pair[0]), "{rows:?}");
    assert_eq!(rows.last(), Some(&1));
    assert_eq!(values.with_more_steps(Kind::Sft, 20), None);
    let more = values.with_more_steps(Kind::Sft, 19).expect("more steps");
    assert_eq!(more.rows_per_step * 2, values.rows_per_step);
    // KTO compares a row with another one.
    let two = Values { rows_per_step: 2, ..values };
    assert_eq!(two.with_more_steps(Kind::Kto, 1), None);
    assert_eq!(two.with_more_steps(Kind::Dpo, 1).map(|one| one.rows_per_step), Some(1));
}
