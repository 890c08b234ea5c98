//! Episodes, their scores and their refusals.

use burn::tensor::Device;
use rl::{
    Conventions, EndReason, Error, KlEstimator, RewardTerms, Rollout, Rollouts, Sampling, Scored,
    Settings, adapted_kl_coef,
};
use testkit::{Tolerance, assert_close};

use crate::support::{END, roles, rollouts, sampling, scorer, settings};

fn score(rollouts: Rollouts, settings: &Settings) -> Scored {
    let roles = roles();
    let device = Device::flex();
    rl::score(rollouts, &roles.actors, &roles.reference, &roles.reward, settings, &device).unwrap()
}

#[test]
fn an_end_token_counts_in_the_answer_only() {
    let rollouts = rollouts();
    let spans: Vec<_> = rollouts.episodes.iter().map(Rollout::span).collect();
    assert_eq!(spans.iter().map(|span| span.response).collect::<Vec<_>>(), [3, 6, 1, 6]);
    let ended = spans.iter().map(|span| span.end == EndReason::EndToken);
    assert_eq!(ended.collect::<Vec<_>>(), [true, false, true, true]);
    // The prompt holds an end token, the answer none: the limit ended it.
    let cut = Rollout::new(&[END, 5], &[6, 7], &sampling()).unwrap();
    assert_eq!(cut.span().end, EndReason::Length);
    // Sampled ids are stored unchanged, including those after the end token.
    let on = Rollout::new(&[5], &[6, END, 7], &sampling()).unwrap();
    assert_eq!(
        (on.response(), on.sampled(), on.prompt()),
        (&[6, END][..], &[6, END, 7][..], &[5][..])
    );
    assert_eq!((on.episode(), on.ids()), (&[5, 6, END][..], &[5, 6, END, 7][..]));
}

#[test]
fn the_penalty_is_for_the_answer_without_an_end() {
    let with = score(rollouts(), &settings());
    let without = score(rollouts(), &Settings { missing_eos_penalty: None, ..settings() });
    let penalties = with.episodes.iter().zip(&without.episodes);
    let penalties: Vec<f32> = penalties.map(|(a, b)| b.score - a.score).collect();
    assert_close("penalties", &penalties, &[0.0, 1.0, 0.0, 0.0], Tolerance::absolute(1e-6));
}

/// Scores of several reward models are weighted and added; with the rewards of the text, they are one score.
#[test]
fn several_reward_models_are_added_by_their_weights() {
    let (roles, device) = (roles(), Device::flex());
    let other = scorer(9);
    let score_of = |terms: RewardTerms<'_>| {
        let settings = Settings { missing_eos_penalty: None, ..settings() };
        rl::score(rollouts(), &roles.actors, &roles.reference, terms, &settings, &device).unwrap()
    };
    let one = score_of((&roles.reward).into());
    let two = score_of((&other).into());
    let models = [roles.reward.clone(), other];
    let stated = [1.0, 2.0, 3.0, 4.0];
    let both =
        score_of(RewardTerms { models: &models, weights: &[2.0, -0.5], stated: Some(&stated) });
    for (idx, episode) in both.episodes.iter().enumerate() {
        let (one, two) = (one.episodes[idx].score, two.episodes[idx].score);
        assert_ne!(one, two);
        assert_eq!(episode.model_scores, [one, two]);
        let expected = 2.0 * one - 0.5 * two + stated[idx];
        assert_close("score", &[episode.score], &[expected], Tolerance::absolute(1e-6));
    }
}

#[test]
fn rewards_are_the_score_less_the_kl_and_stand_on_tokens() {
    for kl_estimator in [KlEstimator::K1, KlEstimator::K3] {
        let scored = score(rollouts(), &Settings { kl_estimator, ..settings() });
        for (rollout, episode) in scored.rollouts.episodes.iter().zip(&scored.episodes) {
            let n = rollout.span().response;
            let fields = [&episode.rewards, &episode.values, &episode.advantages, &episode.returns];
            assert!(fields.iter().all(|field| field.len() == n));
            let sum: f32 = episode.rewards.iter().sum();
            let expected = episode.score - 0.05 * episode.kl.iter().sum::<f32>();
            assert_close("sum", &[sum], &[expected], Tolerance::absolute(1e-5));
            assert!(kl_estimator == KlEstimator::K1 || episode.kl.iter().all(|kl| *kl >= 0.0));
        }
    }
}

#[test]
fn a_policy_that_is_its_reference_has_no_kl() {
    let mut roles = roles();
    roles.reference = generate::without_autodiff(&roles.actors.policy).into_owned();
    let device = Device::flex();
    let scored =
        rl::score(rollouts(), &roles.actors, &roles.reference, &roles.reward, &settings(), &device);
    assert!(scored.unwrap().episodes.iter().all(|episode| episode.kl.iter().all(|kl| *kl == 0.0)));
}

#[test]
fn neither_neighbours_nor_what_follows_the_end_change_an_episode() {
    // Only numbers that are not whitened over all episodes.
    let together = score(rollouts(), &settings());
    for (number, rollout) in rollouts().episodes.into_iter().enumerate() {
        let mut sampled = rollout.sampled().to_vec();
        if sampled.len() < 4 {
            sampled.extend([17, END, 18]);
        }
        let mut alone = Rollouts::new(sampling());
        alone.push(rollout.prompt(), &sampled).unwrap();
        let alone = score(alone, &settings());
        let (a, b) = (&alone.episodes[0], &together.episodes[number]);
        let close = Tolerance::absolute(2e-5);
        assert_close("logprobs", &a.logprobs, &b.logprobs, close);
        assert_close("ref_logprobs", &a.ref_logprobs, &b.ref_logprobs, close);
        assert_close("values", &a.values, &b.values, close);
        assert_close("rewards", &a.rewards, &b.rewards, close);
        assert_close("returns", &a.returns, &b.returns, close);
    }
}

#[test]
fn trl_has_one_more_value_behind_an_end() {
    let scored = score(rollouts(), &Settings { conventions: Conventions::Trl, ..settings() });
    let n: Vec<usize> = scored.episodes.iter().map(|episode| episode.values.len()).collect();
    assert_eq!(n, [4, 6, 2, 6]);
    assert_eq!(scored.episodes[0].rewards[3], scored.episodes[0].score);
}

#[test]
fn ids_that_could_not_be_sampled_take_no_probability() {
    let all = score(rollouts(), &settings());
    let mut cut = rollouts();
    cut.sampling.vocab_size = Some(36);
    let cut = score(cut, &settings());
    for (cut, all) in cut.episodes.iter().zip(&all.episodes) {
        assert!(cut.logprobs.iter().zip(&all.logprobs).all(|(cut, all)| cut > all));
    }
}

#[test]
fn what_scoring_cannot_follow_is_refused() {
    let refused = |change: &dyn Fn(&mut generate::Settings)| {
        let mut settings = generate::Settings::default();
        change(&mut settings);
        match Sampling::of(&settings) {
            Err(Error::NotScorable { name }) => name,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&|s| s.sampling.top_k = Some(5)), "top_k");
    assert_eq!(refused(&|s| s.sampling.top_p = Some(0.9)), "top_p");
    assert_eq!(refused(&|s| s.sampling.min_p = Some(0.1)), "min_p");
    assert_eq!(refused(&|s| s.sampling.repetition_penalty = 1.1), "repetition_penalty");
    assert_eq!(refused(&|s| s.sampling.greedy = true), "greedy");
    assert_eq!(refused(&|s| s.min_new_tokens = 1), "min_new_tokens");
    let mut plain = generate::Settings::default();
    plain.sampling.temperature = 0.6;
    assert_eq!(Sampling::of(&plain).unwrap().temperature, 0.6);

    assert!(matches!(Rollout::new(&[], &[1], &sampling()), Err(Error::EmptyEpisode { .. })));
    assert!(matches!(Rollout::new(&[1], &[], &sampling()), Err(Error::EmptyEpisode { .. })));
    assert!(matches!(Rollout::new(&[1], &[1; 7], &sampling()), Err(Error::TooLong { .. })));
}

#[test]
fn the_kl_coefficient_follows_its_target() {
    let adapted = |kl| adapted_kl_coef(0.1, kl, 6.0, 64, 640.0);
    assert!((adapted(6.0) - 0.1).abs() < 1e-12);
    assert!((adapted(60.0) - 0.102).abs() < 1e-12 && (adapted(0.0) - 0.098).abs() < 1e-12);
}

/// A judge or a program may give no value: the episode is in no loss and changes no number of the others.
#[test]
fn an_episode_without_a_reward_is_left_out() {
    let (roles, device) = (roles(), Device::flex());
    let settings = Settings { n_minibatches: 1, ..settings() };
    let score_of = |rollouts: Rollouts, stated: &[f32]| {
        let terms = RewardTerms { models: &[], weights: &[], stated: Some(stated) };
        rl::score(rollouts, &roles.actors, &roles.reference, terms, &settings, &device)
    };
    let with = score_of(rollouts(), &[1.0, f32::NAN, -1.0, 0.5]).expect("scored");
    let others = {
        let mut rollouts = rollouts();
        rollouts.episodes.remove(1);
        score_of(rollouts, &[1.0, -1.0, 0.5]).expect("scored")
    };
    let left_out = &with.episodes[1];
    assert!(!left_out.has_reward() && left_out.advantages.iter().all(|x| *x == 0.0));
    let rewarded = with.episodes.iter().filter(|episode| episode.has_reward());
    for (found, wanted) in rewarded.zip(&others.episodes) {
        assert_close(
            "advantages",
            &found.advantages,
            &wanted.advantages,
            Tolerance::absolute(1e-5),
        );
        assert_close("returns", &found.returns, &wanted.returns, Tolerance::absolute(1e-5));
    }
    // All of them may lack one.
    let none = score_of(rollouts(), &[f32::NAN; 4]).expect("scored");
    assert!(none.episodes.iter().all(|episode| !episode.has_reward()));
    // With a model, a NaN is the model's.
    let broken = RewardTerms {
        models: std::slice::from_ref(&roles.reward),
        weights: &[f32::NAN],
        stated: Some(&[0.0; 4]),
    };
    let error = rl::score(rollouts(), &roles.actors, &roles.reference, broken, &settings, &device);
    assert!(matches!(error, Err(Error::RewardSum { .. })));
}
