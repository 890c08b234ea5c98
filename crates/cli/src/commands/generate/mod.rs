//! `temper generate`: completes prompts and prints or writes one JSON line per completion, or one per pair of the best and the
//! worst completion of a prompt.

mod parts;
mod prompts;
mod rows;

pub(super) use prompts::{encode, prompt_rows};

use ::generate::{FinishReason, Sampling, Settings, Stop, generate};
use model::CausalLm;
use tokenizer::Tokenizer;

use self::parts::Parts;
use self::prompts::Prompt;
use self::rows::{Answer, Rows};
use super::{open_model_as, print};
use crate::args::GenerateArgs;
use crate::failure::{Failure, Result};
use crate::render::progress::warn;

/// Prompts whose lines are saved together with --out.
const PROMPTS_PER_PART: usize = 32;

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    if args.pairs && args.n < 2 {
        return Err(Failure::input("one completion is no pair", "add --n 8"));
    }
    if let Some(out) = &args.out {
        parts::refuse_existing(out)?;
    }
    let template = prompts::template(args)?;
    let (model, tokenizer) =
        open_model_as::<CausalLm>(&args.dtype, &args.model, args.base.as_deref(), &args.device)?;
    let prompts = prompts::read(args, template.as_ref(), &tokenizer)?;
    let rows = Rows::open(args, &prompts)?;
    let completing = Completing { args, model: &model, tokenizer: &tokenizer, rows: &rows };
    let mut counts = Counts::default();
    let Some(out) = &args.out else {
        print(&completing.lines(&prompts, 0, &mut counts)?)?;
        counts.report(args);
        return Ok(());
    };
    let mut parts = Parts::open(out, &parts::key(args, template.as_ref(), &tokenizer, &prompts)?)?;
    for (number, group) in prompts.chunks(PROMPTS_PER_PART).enumerate() {
        if !parts.has(number) {
            let lines = completing.lines(group, number * PROMPTS_PER_PART, &mut counts)?;
            parts.save(number, &lines)?;
        }
    }
    parts.join(prompts.len().div_ceil(PROMPTS_PER_PART))?;
    counts.report(args);
    Ok(())
}

/// Numbers that the user should know of, of the completions that this command made.
#[derive(Debug, Default)]
struct Counts {
    completions: usize,
    /// Completions that ended at --max-new-tokens or at the end of the context.
    cut: usize,
    /// Prompts without a pair.
    unpaired: usize,
}

impl Counts {
    fn report(&self, args: &GenerateArgs) {
        let Self { completions, cut, unpaired } = self;
        if args.pairs && *unpaired > 0 {
            warn(&format!(
                "{unpaired} prompts have no pair: fewer than two of their completions ended within --max-new-tokens \
                 {}, or all have the same text or score",
                args.max_new_tokens
            ));
        } else if *cut > 0 && (args.out.is_some() || args.has_template()) {
            warn(&format!(
                "{cut} of {completions} completions were cut at --max-new-tokens {}",
                args.max_new_tokens
            ));
        }
    }
}

struct Completing<'a> {
    args: &'a GenerateArgs,
    model: &'a CausalLm,
    tokenizer: &'a Tokenizer,
    rows: &'a Rows,
}

impl Completing<'_> {
    /// The lines of some prompts. Random draws depend on the number of the first one.
    fn lines(&self, prompts: &[Prompt], first: usize, counts: &mut Counts) -> Result<String> {
        let settings = self.settings(first);
        let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
        let seed = self.args.seed;
        let completions = kernels::on_pool(|| generate(self.model, &ids, &settings, seed, |_| ()))?;
        let mut answers: Vec<Vec<Answer>> = prompts.iter().map(|_| Vec::new()).collect();
        for completion in completions {
            let is_cut = completion.finish_reason == FinishReason::Length;
            counts.completions += 1;
            counts.cut += usize::from(is_cut);
            let text = completion.text(self.tokenizer);
            if let Some(of_prompt) = answers.get_mut(completion.prompt_idx) {
                let finish_reason = completion.finish_reason;
                of_prompt.push(Answer { text, tokens: completion.tokens, finish_reason });
            }
        }
        let mut lines = String::new();
        for (prompt, answers) in prompts.iter().zip(answers) {
            let of_prompt = self.rows.lines(prompt, answers)?;
            counts.unpaired += usize::from(of_prompt.is_empty());
            lines += &of_prompt;
        }
        Ok(lines)
    }

    fn settings(&self, first_prompt: usize) -> Settings {
        let (args, tokenizer) = (self.args, self.tokenizer);
        let sampling = Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty.unwrap_or(1.0),
            greedy: args.greedy,
        };
        Settings {
            sampling,
            n: args.n,
            first_prompt,
            max_new_tokens: args.max_new_tokens,
            eos_ids: tokenizer.eos_ids(),
            stop: (!args.stop.is_empty()).then(|| Stop::new(args.stop.clone(), tokenizer)),
            vocab_size: Some(tokenizer.vocab_size()),
            ..Settings::default()
        }
    }
}
