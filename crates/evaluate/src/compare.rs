//! Comparison of two models' answers to the same prompts, by a reward model or by a language model as a judge.

use model::CausalLm;
use tokenizer::{Message, Role, Tokenizer};

use crate::error::{Error, Result};
use crate::scorer::{Answer, Scorer};
use crate::task_run::likelihoods_after;

/// Answers of two models to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Location of the prompt.
    pub place: String,
    /// The prompt.
    pub prompt: String,
    /// Answer of the first model.
    pub a: String,
    /// Answer of the second model.
    pub b: String,
}

/// Judgement of a match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Scores of both answers by a reward model.
    Scores {
        /// Of the first model's answer.
        a: f64,
        /// Of the second model's answer.
        b: f64,
    },
    /// Log-odds that the first model's answer is the better one, by a judge that reads the answers in both orders.
    Orders {
        /// With the first model's answer first.
        a_first: f64,
        /// With the second model's answer first.
        b_first: f64,
    },
}

/// Outcome of a match for the first model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchResult {
    /// The first model's answer is better.
    Win,
    /// Equal scores, or a judge who prefers another answer when the order changes.
    Tie,
    /// The second model's answer is better.
    Loss,
}

impl Verdict {
    /// The outcome. A judge's verdict counts if it is the same in both orders.
    pub fn result(self) -> MatchResult {
        let of = |difference: f64| {
            if difference > 0.0 {
                MatchResult::Win
            } else if difference < 0.0 {
                MatchResult::Loss
            } else {
                MatchResult::Tie
            }
        };
        match self {
            Self::Scores { a, b } => of(a - b),
            Self::Orders { a_first, b_first } if of(a_first) == of(b_first) => of(a_first),
            Self::Orders { .. } => MatchResult::Tie,
        }
    }
}

/// Numbers of wins, ties and losses of the first model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WinRate {
    /// Number of wins.
    pub wins: usize,
    /// Number of ties.
    pub ties: usize,
    /// Number of losses.
    pub losses: usize,
}

impl WinRate {
    /// Counts results.
    pub fn of(results: impl IntoIterator<Item = MatchResult>) -> Self {
        let mut all = Self::default();
        for result in results {
            match result {
                MatchResult::Win => all.wins += 1,
                MatchResult::Tie => all.ties += 1,
                MatchResult::Loss => all.losses += 1,
            }
        }
        all
    }

    /// Number of matches.
    pub fn n(&self) -> usize {
        self.wins + self.ties + self.losses
    }

    /// Share of wins, a tie being half a win, with Wilson's 95 % score interval; `None` without matches.
    pub fn rate(&self) -> Option<(f64, (f64, f64))> {
        let n = self.n();
        let rate = (self.wins as f64 + self.ties as f64 / 2.0) / n as f64;
        (n > 0).then(|| (rate, tasks::wilson_interval(rate, n)))
    }
}

/// Verdicts by the scores of a reward model. The order of the answers plays no role.
pub fn judge_by_reward(
    reward: &Scorer<'_>,
    matches: &[Match],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Verdict>> {
    let answer = |of: &Match, text: &String| Answer {
        place: of.place.clone(),
        prompt: of.prompt.clone(),
        text: text.clone(),
    };
    let answers: Vec<Answer> =
        matches.iter().flat_map(|of| [answer(of, &of.a), answer(of, &of.b)]).collect();
    let scores = reward.scores(&answers, progress)?;
    let pairs = scores.chunks_exact(2);
    Ok(pairs.map(|pair| Verdict::Scores { a: pair[0], b: pair[1] }).collect())
}

/// Verdicts by a language model that reads prompt and answers, in both orders, and names the letter of the better one.
/// Its preference is the difference of the log-likelihoods of the two letters.
///
/// Errors: a text that the judge's context cannot hold.
pub fn judge_by_model(
    judge: &CausalLm,
    tokenizer: &Tokenizer,
    matches: &[Match],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Verdict>> {
    let mut contexts = Vec::with_capacity(2 * matches.len());
    for of in matches {
        for (first, second) in [(&of.a, &of.b), (&of.b, &of.a)] {
            contexts.push((of.place.clone(), question(tokenizer, &of.prompt, first, second)?));
        }
    }
    let letters = if tokenizer.chat_template().is_some() { ["A", "B"] } else { [" A", " B"] };
    let likelihoods = likelihoods_after(judge, tokenizer, &contexts, &letters, progress)?;
    let odds: Vec<f64> = likelihoods.chunks_exact(2).map(|pair| pair[0] - pair[1]).collect();
    // In the second order, the letter B is the first model's answer.
    let pairs = odds.chunks_exact(2);
    Ok(pairs.map(|pair| Verdict::Orders { a_first: pair[0], b_first: -pair[1] }).collect())
}

/// The judge's prompt, up to the letter.
fn question(tokenizer: &Tokenizer, prompt: &str, first: &str, second: &str) -> Result<String> {
    let text = format!(
        "Which of two answers to a prompt is better?\n\n[Prompt]\n{prompt}\n\n[Answer A]\n{first}\n\n[Answer \
         B]\n{second}\n\nReply with the letter of the better answer, A or B."
    );
    let Some(template) = tokenizer.chat_template() else {
        return Ok(format!("{text}\n\nThe better answer is"));
    };
    let messages = [Message::new(Role::User, text)];
    tokenizer.render_chat(&messages, template, true).map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::{MatchResult, Verdict, WinRate};

    #[test]
    fn a_judge_must_agree_with_itself() {
        let result = |a_first, b_first| Verdict::Orders { a_first, b_first }.result();
        assert_eq!(result(0.5, 2.0), MatchResult::Win);
        assert_eq!(result(-0.5, -0.1), MatchResult::Loss);
        assert_eq!(result(0.5, -0.1), MatchResult::Tie);
        assert_eq!(Verdict::Scores { a: 1.0, b: 1.0 }.result(), MatchResult::Tie);
        assert_eq!(Verdict::Scores { a: -2.0, b: -1.0 }.result(), MatchResult::Loss);
    }

    #[test]
    fn a_tie_is_half_a_win() {
        use MatchResult::{Loss, Tie, Win};
        let all = WinRate::of([Win, Win, Tie, Tie, Loss, Win, Win, Loss, Loss, Loss]);
        assert_eq!((all.wins, all.ties, all.losses), (4, 2, 4));
        let (rate, (low, high)) = all.rate().unwrap();
        assert_eq!(rate, 0.5);
        // Of 5 in 10 by scipy's `binomtest(5, 10).proportion_ci(method="wilson")`.
        assert!((low - 0.236_593_090_512_564).abs() < 1e-12, "{low}");
        assert!((high - 0.763_406_909_487_436_1).abs() < 1e-12, "{high}");
        assert!(WinRate::default().rate().is_none());
    }
}
