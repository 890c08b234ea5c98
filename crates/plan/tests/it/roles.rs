//! Base models shared in PPO, and the default value model.

use plan::{Plan, PpoPlan, Stage, Start};

use crate::support::{RECIPE, folder, plan_in};

const STAGES: &str = r#"
[reward]
start = "sft"
data = [{ path = "pairs.jsonl" }]
sequence_length = 64
pairs_per_step = 4
max_steps = 3
optimizer = { lr = 1e-3 }

[ppo]
policy = { start = "sft" }
reward = "reward"
prompts = [{ path = "chats.jsonl" }]
max_prompt_tokens = 56
max_new_tokens = 8
episodes_per_step = 6
n_minibatches = 2
micro_batch = 4
max_steps = 4
optimizer = { lr = 1e-3 }
"#;

const POLICY: &str = "policy = { start = \"sft\" }";
const LORA_POLICY: &str = "policy = { start = \"sft\", lora = { rank = 2 } }";
const REWARD: &str = "[reward]\n";
const LORA_REWARD: &str = "[reward]\nlora = { rank = 3 }\n";

fn plan_of(changes: &[(&str, &str)]) -> Plan {
    let recipe = format!("{RECIPE}{STAGES}");
    let recipe = changes.iter().fold(recipe, |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "`{from}`");
        text.replace(from, to)
    });
    let dir = folder(&recipe);
    plan_in(dir.path(), &[], Some("ppo")).expect("a plan")
}

/// Number of base models in memory, and the plan.
fn roles(changes: &[(&str, &str)]) -> (usize, PpoPlan) {
    let mut plan = plan_of(changes);
    let stage = plan.stages.remove(0);
    let Stage::Ppo(ppo) = stage.kind else { panic!("{:?}", stage.kind) };
    let whole = stage.config.n_parameters();
    assert_eq!(ppo.n_base_parameters, ppo.n_bases as u64 * whole, "{changes:?}");
    (ppo.n_bases, *ppo)
}

fn stage(name: &str) -> Start {
    Start::Stage(name.to_owned())
}

#[test]
fn four_models_on_one_base_where_all_are_adapters_of_it() {
    let (n, ppo) = roles(&[(POLICY, LORA_POLICY), (REWARD, LORA_REWARD)]);
    assert_eq!(n, 1);
    // The value model continues the reward model's adapter.
    let [reward] = ppo.rewards.models.as_slice() else { panic!("{:?}", ppo.rewards) };
    assert_eq!((reward.key.as_ref(), reward.weight), ("reward", 1.0));
    assert_eq!((reward.start.clone(), ppo.value), (stage("reward"), stage("reward")));
    let value = ppo.value_lora.expect("an adapter");
    assert_eq!((value.adapter, value.config.rank), (Some(stage("reward")), 3));
}

#[test]
fn a_reward_model_of_its_own_is_a_second_base() {
    let (n, ppo) = roles(&[(POLICY, LORA_POLICY)]);
    assert_eq!(n, 2);
    // The value model trains a new adapter like the policy's on the reward model's weights.
    let value = ppo.value_lora.expect("an adapter");
    assert_eq!((value.adapter, value.config.rank), (None, 2));
    // A value model that starts like the policy shares its base model.
    let value = "value = { start = \"sft\", lora = { rank = 5 } }\nmax_prompt_tokens";
    let (n, ppo) = roles(&[(POLICY, LORA_POLICY), ("max_prompt_tokens", value)]);
    assert_eq!(n, 2);
    assert_eq!((ppo.value, ppo.value_lora.map(|lora| lora.config.rank)), (stage("sft"), Some(5)));
}

#[test]
fn whole_weights_that_are_trained_are_shared_with_nobody() {
    // Policy, reference, reward model, value model.
    let (n, ppo) = roles(&[]);
    assert_eq!((n, ppo.value_lora), (4, None));
    // The value model's first weights are those of the reference model, but they are trained.
    let value = "value = { start = \"sft\" }\nmax_prompt_tokens";
    assert_eq!(roles(&[("max_prompt_tokens", value)]).0, 4);
    // The reward model is an adapter on the reference model's weights.
    assert_eq!(roles(&[(REWARD, LORA_REWARD)]).0, 3);
    // The policy trains an adapter, the value model all weights.
    let value = "value = { start = \"reward\" }\nmax_prompt_tokens";
    assert_eq!(roles(&[(POLICY, LORA_POLICY), ("max_prompt_tokens", value)]).0, 3);
}

#[test]
fn an_adapter_that_a_stage_starts_from_is_merged_into_a_base_of_that_stage() {
    let sft = ("start = \"pretrain\"", "start = \"pretrain\"\nlora = { rank = 2 }");
    // Policy and reward model each merge the adapter of fine-tuning.
    let (n, ppo) = roles(&[sft, (POLICY, LORA_POLICY), (REWARD, LORA_REWARD)]);
    assert_eq!(n, 2);
    assert_eq!(ppo.value_lora.expect("an adapter").adapter, Some(stage("reward")));
    // A policy that continues it has pretraining's weights as its base.
    let goes_on = "policy = { start = \"sft\", lora = { adapter = \"sft\" } }";
    let plan = plan_of(&[sft, (POLICY, goes_on), (REWARD, LORA_REWARD)]);
    assert!(!plan.stages[0].merges_start);
    let Stage::Ppo(ppo) = &plan.stages[0].kind else { panic!("{:?}", plan.stages[0].kind) };
    assert_eq!(ppo.n_bases, 2);
}

#[test]
fn steps_rows_and_needs_are_those_of_the_recipe() {
    let plan = plan_of(&[]);
    let ppo = &plan.stages[0];
    assert_eq!((ppo.rows_per_step, ppo.micro_batch, ppo.max_steps), (6, 4, 4));
    assert_eq!(ppo.sequence_length, 64);
    let mut needs = ppo.needs();
    needs.sort_unstable();
    needs.dedup();
    assert_eq!(needs, ["reward", "sft"]);
}
