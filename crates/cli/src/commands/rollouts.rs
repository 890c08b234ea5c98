//! The lines of `temper plan` about stages that sample answers: models, rewards, numbers of answers and the time to sample
//! them.

use std::time::Instant;

use model::CausalLm;
use plan::{GrpoPlan, PpoPlan, PromptLayout, RewardsPlan, StagePlan};
use recipe::{Reward, RewardKind};
use rl::Rollouts;

use crate::failure::Result;
use crate::render::table;

/// Models and rewards of a PPO stage.
pub(super) fn rollouts_note(ppo: &PpoPlan) -> String {
    let bases = if ppo.n_bases == 1 { "base model" } else { "base models" };
    let mut models = vec!["policy".to_owned(), "reference".to_owned()];
    models.extend(reward_models(&ppo.rewards));
    let mut note = format!("{} and value model share {} {bases}", models.join(", "), ppo.n_bases);
    if !ppo.section.rewards.is_empty() {
        note += &format!("; score = {}", sum_of(&ppo.section.rewards));
    }
    note + &programs(&ppo.section.rewards)
}

/// Reward models and judges, counted.
fn reward_models(rewards: &RewardsPlan) -> Vec<String> {
    let counted = |n: usize, name: &str| match n {
        0 => None,
        1 => Some(name.to_owned()),
        n => Some(format!("{n} {name}s")),
    };
    let kinds = [(rewards.models.len(), "reward model"), (rewards.judges.len(), "judge")];
    kinds.into_iter().filter_map(|(n, name)| counted(n, name)).collect()
}

/// The programs that rewards start.
fn programs(rewards: &[Reward]) -> String {
    let argv = |reward: &Reward| {
        let RewardKind::Command(keys) = &reward.kind else { return None };
        Some(format!("`{}`", keys.argv.join(" ")))
    };
    let all: Vec<String> = rewards.iter().filter_map(argv).collect();
    if all.is_empty() { String::new() } else { format!("; starts {}", all.join(", ")) }
}

/// Rewards with their weights, as a sum.
fn sum_of(rewards: &[Reward]) -> String {
    let reward = |reward: &Reward| format!("{} × {}", reward.weight, reward.kind.name());
    rewards.iter().map(reward).collect::<Vec<_>>().join(" + ")
}

/// Answers, optimizer steps and models of a GRPO stage.
pub(super) fn groups_note(stage: &StagePlan, grpo: &GrpoPlan) -> String {
    let (section, n) = (&grpo.section, table::thousands);
    let answers = stage.max_steps.saturating_mul(section.episodes_per_step() as u64);
    let sampled = answers.saturating_mul(section.max_new_tokens as u64);
    let mut models = vec!["policy".to_owned()];
    models.extend(grpo.has_reference.then(|| "reference".to_owned()));
    models.extend(reward_models(&grpo.rewards));
    let bases = if grpo.n_bases == 1 { "base model" } else { "base models" };
    let filters = [
        ("top_p", section.top_p.is_some()),
        ("top_k", section.top_k.is_some()),
        ("min_p", section.min_p.is_some()),
    ];
    let filters: Vec<&str> =
        filters.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
    let tries = match section.dynamic_sampling_max_tries {
        0 => String::new(),
        n => format!(
            "; up to {n} × as many are sampled besides, in place of groups with equal rewards"
        ),
    };
    let reference = section.ref_model_sync_steps().map(|every| {
        let alpha = section.ref_model_mixup_alpha();
        format!("; every {every} updates the reference moves towards the policy by {alpha}")
    });
    let filters = if filters.is_empty() {
        String::new()
    } else {
        format!(
            "; sampled with {}, without which the loss computes probabilities",
            filters.join(", ")
        )
    };
    let pass = grpo.pass_shape(stage.rows_per_step, stage.micro_batch).n_tokens;
    let layout = match grpo.prompt_layout {
        PromptLayout::Shared => "prompts once for the answers that a forward pass reads".to_owned(),
        PromptLayout::Repeated(reason) => format!("the prompt before each answer ({reason})"),
    };
    let pass = format!("; training reads {} tokens an update at most, {layout}", n(pass));
    format!(
        "{} prompts × {} answers in an update: {} answers of at most {} tokens ({} tokens), {} optimizer steps{pass}; {} on {} \
         {bases}; reward = {}{}{tries}{}{filters}",
        section.prompts_per_step,
        section.num_generations,
        n(answers),
        n(section.max_new_tokens as u64),
        n(sampled),
        n(stage.n_updates()),
        models.join(", "),
        grpo.n_bases,
        sum_of(&section.rewards),
        programs(&section.rewards),
        reference.unwrap_or_default(),
    )
}

/// Seconds in which the answers of an update are sampled, all at full length, from a few tokens of some of them.
pub(super) fn sampling_seconds(
    model: &CausalLm,
    stage: &StagePlan,
    grpo: &GrpoPlan,
) -> Result<f64> {
    const FEW: usize = 2;
    let section = &grpo.section;
    let settings = grpo::sampling(grpo, stage);
    let rows = settings.batch_rows.min(stage.rows_per_step);
    let n = section.num_generations.min(rows);
    let prompts = vec![vec![0; section.max_prompt_tokens]; rows.div_ceil(n)];
    let seconds = |n_tokens: usize| -> Result<f64> {
        let settings = generate::Settings {
            n,
            max_new_tokens: n_tokens,
            // No answer ends early.
            eos_ids: Vec::new(),
            ..settings.clone()
        };
        let start = Instant::now();
        generate::generate(model, &prompts, &settings, 0, |_| {})?;
        Ok(start.elapsed().as_secs_f64())
    };
    let many = section.max_new_tokens.clamp(FEW, 16);
    seconds(FEW)?;
    let (few, all) = (seconds(FEW)?, seconds(many)?);
    let per_token = if many > FEW { (all - few).max(0.0) / (many - FEW) as f64 } else { 0.0 };
    let rest = section.max_new_tokens.saturating_sub(many) as f64;
    let n_batches = stage.rows_per_step.div_ceil(rows.max(1)) as f64;
    Ok(n_batches * (all + per_token * rest))
}

/// A micro-batch of answers of full length, those of a prompt adjacent.
pub(super) fn full_length(stage: &StagePlan, grpo: &GrpoPlan) -> Result<Rollouts> {
    let section = &grpo.section;
    let mut rollouts = Rollouts::new(rl::Sampling {
        temperature: section.temperature,
        end_ids: Vec::new(),
        max_new_tokens: section.max_new_tokens,
        vocab_size: Some(stage.tokenizer.vocab_size()),
    });
    let n_ids = stage.tokenizer.vocab_size().max(1);
    for idx in 0..stage.micro_batch {
        let group = idx / section.num_generations.max(1);
        let prompt = vec![(group % n_ids) as u32; section.max_prompt_tokens];
        let pushed = rollouts.push(&prompt, &vec![0; section.max_new_tokens]);
        pushed.map_err(grpo::Error::from)?;
    }
    Ok(rollouts)
}
