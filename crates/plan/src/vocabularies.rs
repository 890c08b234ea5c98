//! Policy, reward models and value model read the same ids, so these must mean the same.

use arch::ModelConfig;
use recipe::Loaded;
use tokenizer::Tokenizer;

use crate::base::recorded_base;
use crate::stage::Start;
use crate::stage_plan::StagePlan;
use crate::starting_point::StartingPoint;
use crate::{Error, Result};

/// Refuses models whose vocabularies have another size than the policy's, or other tokens at the same ids. A model without a
/// tokenizer is compared by size alone, and so are ids that only one of them has.
pub(crate) fn check_vocabularies<'p>(
    loaded: &Loaded,
    policy: &StartingPoint,
    others: impl Iterator<Item = (String, &'p StartingPoint)>,
    earlier: &[StagePlan],
) -> Result<()> {
    let size = |point: &StartingPoint| point.config.as_ref().map(ModelConfig::vocab_size);
    let refused = |key: &str, message: String, label: &str| {
        let hint = "train it with the policy's tokenizer: start both from the same model";
        Err(Error::Recipe(loaded.spans.error(key, message, label, Some(hint.to_owned()))))
    };
    let mut of_policy = None;
    for (key, other) in others {
        if let (Some(wanted), Some(found)) = (size(policy), size(other))
            && wanted != found
        {
            let message =
                format!("its vocabulary has {found} tokens and the policy's has {wanted}");
            return refused(&key, message, "must have the policy's vocabulary");
        }
        if other.start == policy.start {
            continue;
        }
        if of_policy.is_none() {
            of_policy = Some(tokenizer_of(&policy.start, earlier)?);
        }
        let Some(Some(of_policy)) = &of_policy else { continue };
        let Some(found) = tokenizer_of(&other.start, earlier)? else { continue };
        if let Some(difference) = first_difference(of_policy, &found) {
            return refused(&key, difference, "must have the policy's tokens");
        }
    }
    Ok(())
}

/// The tokenizer of a model, for an adapter without one that of its base; `None` where there is none.
fn tokenizer_of(start: &Start, earlier: &[StagePlan]) -> Result<Option<Tokenizer>> {
    let dir = match start {
        Start::Fresh => return Ok(None),
        Start::Stage(name) => {
            let stage = earlier.iter().find(|stage| stage.name == *name);
            return Ok(stage.map(|stage| stage.tokenizer.clone()));
        }
        Start::Directory(dir) => dir,
    };
    // A base model that cannot be read is reported where its weights are planned.
    let base = recorded_base(dir).ok().flatten();
    for dir in std::iter::once(dir).chain(&base) {
        match Tokenizer::from_dir_or_file(dir) {
            Err(tokenizer::Error::Missing { .. } | tokenizer::Error::NoSuchFile { .. }) => {}
            found => return Ok(Some(found?)),
        }
    }
    Ok(None)
}

/// The first id that means another token, as a sentence.
fn first_difference(policy: &Tokenizer, other: &Tokenizer) -> Option<String> {
    let (id, [wanted, found]) = policy.first_difference(other)?;
    Some(format!("its token of the id {id} is `{found}` and the policy's is `{wanted}`"))
}
