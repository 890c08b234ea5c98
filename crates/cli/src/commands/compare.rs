//! `temper compare`: how often a model's answers are better than another's, by a reward model or a judge.

use std::path::Path;

use ::generate::{Sampling, Settings, generate};
use evaluate::{Match, MatchResult, Scorer, Verdict, WinRate, judge_by_model, judge_by_reward};
use model::{CausalLm, ScalarModel};
use report::{ComparedAnswers, ComparedVerdict, Comparison, PAGE_START, comparison_page};
use serde_json::{Value, json};

use super::generate::{encode, prompt_rows};
use super::{open_model, print};
use crate::args::CompareArgs;
use crate::failure::{Failure, Result};
use crate::render::progress::warn;
use crate::render::table::columns;
use crate::render::tasks::TaskProgress;

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let check = |path| fsio::check_replaceable(path, PAGE_START.as_bytes());
    args.html.as_deref().map(check).transpose()?;
    let prompts = prompts(&args.prompts, args.limit)?;
    let a = answers(args, &args.a, &prompts)?;
    let b = answers(args, &args.b, &prompts)?;
    let both = a.into_iter().zip(b);
    let matches: Vec<Match> = prompts
        .into_iter()
        .zip(both)
        .map(|((place, prompt), (a, b))| Match { place, prompt, a, b })
        .collect();
    let verdicts = verdicts(args, &matches)?;
    if let Some(path) = &args.html {
        let third = args.c.as_ref().map(|c| {
            let prompts: Vec<(String, String)> =
                matches.iter().map(|of| (of.place.clone(), of.prompt.clone())).collect();
            answers(args, c, &prompts)
        });
        let page = comparison_page(&comparison(args, &matches, &verdicts, third.transpose()?));
        // The answers took a while.
        check(path)?;
        fsio::write_atomic(path, page)?;
        if verdicts.is_empty() {
            return print(&format!("{}\n", path.display()));
        }
    }
    let all = WinRate::of(verdicts.iter().map(|verdict| verdict.result()));
    if args.json {
        let lines = matches.iter().zip(&verdicts).map(|(of, verdict)| line(of, *verdict));
        let mut text = lines.fold(String::new(), |text, line| text + &line.to_string() + "\n");
        text += &format!("{}\n", summary(&all, &verdicts));
        return print(&text);
    }
    print(&table(args, &all))?;
    if let Some(path) = &args.html {
        print(&format!("answers in {}\n", path.display()))?;
    }
    match n_changed(&verdicts) {
        Some(0) | None => Ok(()),
        Some(n) => print(&format!(
            "the judge preferred another answer to {n} of {} prompts when the order changed; these are ties\n",
            all.n()
        )),
    }
}

/// Prompts with their locations: lines of JSON with `prompt`, or of plain text.
fn prompts(path: &Path, limit: Option<usize>) -> Result<Vec<(String, String)>> {
    let rows = prompt_rows(path)?.into_iter().take(limit.unwrap_or(usize::MAX));
    let prompts = rows.map(|(value, place)| {
        let text = value.as_str().or_else(|| value.get("prompt").and_then(Value::as_str));
        let text = text.map(str::to_owned).ok_or_else(|| {
            Failure::input(
                format!("{place}: no `prompt`"),
                "a line is {\"prompt\": …} or plain text",
            )
        })?;
        Ok((place, text))
    });
    let prompts = prompts.collect::<Result<Vec<_>>>()?;
    if prompts.is_empty() {
        return Err(Failure::input(
            format!("no prompts in `{}`", path.display()),
            "a line is {\"prompt\": …} or plain text",
        ));
    }
    Ok(prompts)
}

/// A model's answers to the prompts.
fn answers(args: &CompareArgs, path: &Path, prompts: &[(String, String)]) -> Result<Vec<String>> {
    let (model, tokenizer) = open_model::<CausalLm>(path, None, &args.device)?;
    if !args.raw && tokenizer.chat_template().is_none() {
        return Err(Failure::input(
            format!("the model has no chat template: `{}`", path.display()),
            "add --raw to continue prompts as plain text",
        ));
    }
    let room = model.config().max_positions().saturating_sub(args.max_new_tokens);
    let mut ids = Vec::with_capacity(prompts.len());
    for (place, prompt) in prompts {
        let encoded = encode(Value::from(prompt.as_str()), place, !args.raw, &tokenizer)?.ids;
        if encoded.len() > room {
            return Err(Failure::input(
                format!(
                    "{place}: the prompt has {} tokens, and {} new ones do not fit",
                    encoded.len(),
                    args.max_new_tokens
                ),
                format!(
                    "the context of `{}` is {} tokens",
                    path.display(),
                    model.config().max_positions()
                ),
            ));
        }
        ids.push(encoded);
    }
    let sampling = if args.temperature == 0.0 {
        Sampling::greedy()
    } else {
        Sampling { temperature: args.temperature, ..Sampling::default() }
    };
    let settings = Settings {
        sampling,
        max_new_tokens: args.max_new_tokens,
        eos_ids: tokenizer.eos_ids(),
        vocab_size: Some(tokenizer.vocab_size()),
        ..Settings::default()
    };
    let mut progress = TaskProgress::new(format!("answers of {}", path.display()));
    let mut n_done = 0;
    let completions = kernels::on_pool(|| {
        generate(&model, &ids, &settings, args.seed, |token| {
            n_done += usize::from(token.finish_reason.is_some());
            progress.update(n_done, ids.len());
        })
    })?;
    progress.finish();
    Ok(completions.iter().map(|completion| completion.text(&tokenizer)).collect())
}

fn verdicts(args: &CompareArgs, matches: &[Match]) -> Result<Vec<Verdict>> {
    let mut progress = TaskProgress::new("verdicts".to_owned());
    let mut on_progress = |done, all| progress.update(done, all);
    let verdicts = match (&args.reward, &args.judge) {
        (Some(reward), _) => {
            let (model, tokenizer) = open_model::<ScalarModel>(reward, None, &args.device)?;
            let scorer = Scorer::new(&model, &tokenizer)?;
            kernels::on_pool(|| judge_by_reward(&scorer, matches, &mut on_progress))?
        }
        (None, Some(judge)) => {
            let (model, tokenizer) = open_model::<CausalLm>(judge, None, &args.device)?;
            if tokenizer.chat_template().is_none() {
                warn("the judge has no chat template, so it completes a plain text");
            }
            kernels::on_pool(|| judge_by_model(&model, &tokenizer, matches, &mut on_progress))?
        }
        // Answers are shown without verdicts.
        (None, None) => return Ok(Vec::new()),
    };
    progress.finish();
    Ok(verdicts)
}

/// The matches for a page. `third` has the answers of a third model.
fn comparison(
    args: &CompareArgs,
    matches: &[Match],
    verdicts: &[Verdict],
    third: Option<Vec<String>>,
) -> Comparison {
    let name = |path: &Path| path.display().to_string();
    let sampling = match args.temperature {
        0.0 => "greedy".to_owned(),
        temperature => format!("temperature {temperature}, seed {}", args.seed),
    };
    let rows = matches.iter().enumerate().map(|(idx, of)| {
        let third = third.iter().filter_map(|answers| answers.get(idx).cloned());
        let verdict = verdicts.get(idx);
        ComparedAnswers {
            place: of.place.clone(),
            prompt: of.prompt.clone(),
            answers: [of.a.clone(), of.b.clone()].into_iter().chain(third).collect(),
            scores: match verdict {
                Some(Verdict::Scores { a, b }) => vec![*a, *b],
                Some(Verdict::Orders { .. }) | None => Vec::new(),
            },
            verdict: verdict.map(|verdict| match verdict.result() {
                MatchResult::Win => ComparedVerdict::Win,
                MatchResult::Tie => ComparedVerdict::Tie,
                MatchResult::Loss => ComparedVerdict::Loss,
            }),
        }
    });
    let judge = match (&args.reward, &args.judge) {
        (Some(reward), _) => Some(format!("the reward model {}", name(reward))),
        (None, Some(judge)) => Some(name(judge)),
        (None, None) => None,
    };
    Comparison {
        models: [&args.a, &args.b].into_iter().chain(&args.c).map(|path| name(path)).collect(),
        judge,
        settings: format!("{sampling}, at most {} tokens", args.max_new_tokens),
        prompts: name(&args.prompts),
        win_rate: WinRate::of(verdicts.iter().map(|verdict| verdict.result())).rate(),
        rows: rows.collect(),
    }
}

/// Number of prompts for which a judge changed its preference with the order; `None` for a reward model.
fn n_changed(verdicts: &[Verdict]) -> Option<usize> {
    let mut n = None;
    for verdict in verdicts {
        if let Verdict::Orders { .. } = verdict {
            let changed = usize::from(verdict.result() == MatchResult::Tie);
            n = Some(n.unwrap_or(0) + changed);
        }
    }
    n
}

fn line(of: &Match, verdict: Verdict) -> Value {
    let result = match verdict.result() {
        MatchResult::Win => "win",
        MatchResult::Tie => "tie",
        MatchResult::Loss => "loss",
    };
    let mut line =
        json!({ "place": of.place, "prompt": of.prompt, "a": of.a, "b": of.b, "result": result });
    match verdict {
        Verdict::Scores { a, b } => {
            line["score_a"] = json!(a);
            line["score_b"] = json!(b);
        }
        Verdict::Orders { a_first, b_first } => {
            line["log_odds_a_first"] = json!(a_first);
            line["log_odds_b_first"] = json!(b_first);
        }
    }
    line
}

fn summary(all: &WinRate, verdicts: &[Verdict]) -> Value {
    let (rate, interval) = all.rate().unzip();
    let mut summary = json!({
        "prompts": all.n(), "wins": all.wins, "ties": all.ties, "losses": all.losses,
        "win_rate": rate, "interval_95": interval,
    });
    if let Some(n) = n_changed(verdicts) {
        summary["changed_with_order"] = json!(n);
    }
    json!({ "summary": summary })
}

fn table(args: &CompareArgs, all: &WinRate) -> String {
    let heads = ["prompts", "wins", "ties", "losses", "win rate", "95 % interval"];
    let (rate, interval) = match all.rate() {
        Some((rate, (low, high))) => (format!("{rate:.4}"), format!("{low:.4} to {high:.4}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let counts = [all.n(), all.wins, all.ties, all.losses].map(|n| n.to_string());
    let line: Vec<String> = counts.into_iter().chain([rate, interval]).collect();
    let lines = [heads.map(str::to_owned).to_vec(), line];
    let names = format!("{} against {}\n", args.a.display(), args.b.display());
    names + &columns(&lines, &[0, 1, 2, 3, 4])
}
