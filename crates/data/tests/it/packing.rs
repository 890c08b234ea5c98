//! Batches: every target once per epoch, nothing in both splits, the same batches after a resume.

use std::collections::BTreeMap;
use std::path::Path;

use data::{Batch, Content, Dataset, Holdout, Prepared, RunOptions, SourceSpec};
use proptest::prelude::*;
use recipe::{Overlong, Packing, SplitBy};
use tokenizer::{ChatTemplate, Tokenizer};

use crate::support::{chars, file, folder, prepared, run};

/// A tokenizer of 5,000 characters, built once.
fn many_chars() -> &'static Tokenizer {
    static TOKENIZER: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let text: String = (0..5000).map(character).collect();
        let specials = tokenizer::default_special_tokens();
        Tokenizer::train_char(std::iter::once(text), &specials).unwrap()
    })
}

fn character(number: usize) -> char {
    char::from_u32(0x4e00 + number as u32).unwrap()
}

/// JSON lines of documents with the given lengths in which no character occurs twice.
fn documents(folder: &Path, name: &str, lengths: &[usize]) -> SourceSpec {
    let (mut lines, mut used) = (String::new(), 0);
    for length in lengths {
        let text: String = (used..used + length).map(character).collect();
        used += length;
        lines.push_str(&format!("{{\"text\": {text:?}}}\n"));
    }
    SourceSpec::file(file(folder, &format!("{name}.jsonl"), lines))
}

/// Ids of all samples from a plain loop: prefix, text, end.
fn sequences(tokenizer: &Tokenizer, specs: &[SourceSpec]) -> Vec<Vec<u32>> {
    let mut sequences = Vec::new();
    data::texts(specs, data::SampleKind::Documents, &mut |text| {
        let mut ids = tokenizer.prefix_ids();
        ids.extend(tokenizer.encode_plain(&text).unwrap());
        ids.push(tokenizer.eos().unwrap());
        sequences.push(ids);
    })
    .unwrap();
    sequences
}

/// Every batch of a run.
fn batches(dataset: &Dataset) -> Vec<Batch> {
    (0..dataset.n_steps()).map(|step| dataset.batch(step)).collect()
}

/// Segments of batches as (sample, ids read, targets), checking positions, padding and shifting.
fn segments(batches: &[Batch]) -> Vec<(u64, Vec<u32>, Vec<i32>)> {
    let mut found = Vec::new();
    for batch in batches {
        let t = batch.sequence_length;
        let n = batch.rows * t;
        for column in
            [batch.ids.len(), batch.positions.len(), batch.segments.len(), batch.targets.len()]
        {
            assert_eq!(column, n);
        }
        assert_eq!(batch.n_targets, batch.targets.iter().filter(|target| **target >= 0).count());
        assert_eq!(batch.sample_starts.len(), batch.rows + 1);
        for row in 0..batch.rows {
            let samples = &batch.samples[batch.sample_starts[row]..batch.sample_starts[row + 1]];
            let mut at = row * t;
            for (number, sample) in samples.iter().enumerate() {
                let start = at;
                while at < (row + 1) * t && batch.segments[at] == number as i32 {
                    assert_eq!(batch.positions[at] as usize, at - start);
                    at += 1;
                }
                assert!(at > start, "an empty segment");
                let targets = batch.targets[start..at].to_vec();
                // A target inside a segment is the id that the next position reads.
                for (offset, target) in targets.iter().enumerate().take(at - start - 1) {
                    assert!(*target < 0 || *target as u32 == batch.ids[start + offset + 1]);
                }
                found.push((*sample, batch.ids[start..at].to_vec(), targets));
            }
            for pad in at..(row + 1) * t {
                assert_eq!((batch.segments[pad], batch.targets[pad]), (-1, -1));
            }
        }
    }
    found
}

/// Number of times each target of each sample was seen. No character occurs twice in these documents, so the first id of
/// a part determines its position in the document.
fn seen_targets(
    found: &[(u64, Vec<u32>, Vec<i32>)],
    sequences: &[Vec<u32>],
) -> BTreeMap<(u64, usize), usize> {
    let mut seen = BTreeMap::new();
    for (sample, ids, targets) in found {
        let sequence = &sequences[*sample as usize];
        let at = sequence.iter().position(|id| *id == ids[0]).unwrap();
        assert_eq!(ids[..], sequence[at..at + ids.len()]);
        for (offset, target) in targets.iter().enumerate() {
            assert_eq!(*target as u32, sequence[at + offset + 1]);
            *seen.entry((*sample, at + offset + 1)).or_insert(0) += 1;
        }
    }
    seen
}

fn all_once(
    sequences: &[Vec<u32>],
    samples: impl Iterator<Item = u64>,
) -> BTreeMap<(u64, usize), usize> {
    samples
        .flat_map(|sample| (1..sequences[sample as usize].len()).map(move |at| ((sample, at), 1)))
        .collect()
}

fn pretrain(prepared: &Prepared, options: &RunOptions, packing: Packing) -> Dataset {
    Dataset::pretrain(prepared, options, packing).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn documents_are_packed_without_losing_a_target(
        lengths in prop::collection::vec(1_usize..80, 1..30),
        sequence_length in 1_usize..40,
        rows_per_step in 1_usize..7,
        seed in 0_u64..1000,
    ) {
        let folder = folder();
        let tokenizer = many_chars();
        let specs = [documents(folder.path(), "d", &lengths)];
        let prepared = prepared(folder.path(), &specs, tokenizer, Content::Documents).unwrap();
        let options = RunOptions { seed, ..run(sequence_length, rows_per_step, 1.0) };
        let dataset = pretrain(&prepared, &options, Packing::Documents);
        let sequences = sequences(tokenizer, &specs);
        let batches = batches(&dataset);
        let seen = seen_targets(&segments(&batches), &sequences);
        prop_assert_eq!(&seen, &all_once(&sequences, 0..sequences.len() as u64));
        let n_targets: usize = batches.iter().map(|batch| batch.n_targets).sum();
        prop_assert_eq!(n_targets as u64, dataset.run_targets());
        prop_assert_eq!(n_targets as u64, dataset.counts().epoch_targets);
        // Only the last row of the epoch is padded.
        let n_positions: usize = sequences.iter().map(|ids| ids.len() - 1).sum();
        prop_assert_eq!(dataset.n_run_rows() as usize, n_positions.div_ceil(sequence_length));
    }

    #[test]
    fn a_split_cuts_no_target_and_shares_none(
        lengths in prop::collection::vec(1_usize..60, 2..20),
        sequence_length in 1_usize..30,
        fraction in 0.05_f64..0.5,
        by_position in any::<bool>(),
    ) {
        let folder = folder();
        let tokenizer = many_chars();
        let specs = [documents(folder.path(), "d", &lengths)];
        let prepared = prepared(folder.path(), &specs, tokenizer, Content::Documents).unwrap();
        let by = if by_position { SplitBy::Position } else { SplitBy::Content };
        let holdout = Some(Holdout { fraction, by });
        let options = RunOptions { holdout, ..run(sequence_length, 3, 1.0) };
        let Ok(dataset) = Dataset::pretrain(&prepared, &options, Packing::Documents) else {
            // A split by content may put all texts in one set.
            return Ok(());
        };
        let sequences = sequences(tokenizer, &specs);
        let train = seen_targets(&segments(&batches(&dataset)), &sequences);
        let eval: Vec<Batch> = dataset.eval_batches(2, None).collect();
        let eval = seen_targets(&segments(&eval), &sequences);
        prop_assert!(!train.is_empty() && !eval.is_empty());
        let mut both = train.clone();
        for (target, n) in &eval {
            prop_assert!(!by_position || !train.contains_key(target));
            *both.entry(*target).or_insert(0) += n;
        }
        prop_assert_eq!(&both, &all_once(&sequences, 0..sequences.len() as u64));
        prop_assert_eq!(eval.len() as u64, dataset.counts().eval_targets);
        if by_position {
            // The first validation target follows the last training target in the file.
            let last = train.keys().max().unwrap();
            let first = eval.keys().min().unwrap();
            prop_assert!(last < first);
            let wanted = both.len() as f64 * fraction;
            prop_assert!((eval.len() as f64 - wanted).abs() <= 1.0);
        }
    }

    #[test]
    fn a_stream_shows_each_token_once_at_any_phase(
        lengths in prop::collection::vec(1_usize..50, 1..6),
        sequence_length in 1_usize..20,
        seed in 0_u64..1000,
        plain in any::<bool>(),
    ) {
        let folder = folder();
        let tokenizer = many_chars();
        let spec = if plain {
            let text: String = (0..lengths.iter().sum()).map(character).collect();
            SourceSpec::file(file(folder.path(), "t.txt", text))
        } else {
            documents(folder.path(), "d", &lengths)
        };
        let specs = [spec];
        let mut stream = Vec::new();
        for ids in sequences(tokenizer, &specs) {
            stream.extend_from_slice(&ids[1..]);
        }
        stream.pop();
        if stream.len() < 2 { return Ok(()); }
        let prepared = prepared(folder.path(), &specs, tokenizer, Content::Documents).unwrap();
        let options = RunOptions { seed, ..run(sequence_length, 2, 2.0) };
        let dataset = pretrain(&prepared, &options, Packing::Stream);
        let n_rows = dataset.n_rows(0);
        prop_assert_eq!(n_rows as usize, (stream.len() - 1).div_ceil(sequence_length));
        let mut targets: Vec<i32> = batches(&dataset).iter().flat_map(|b| b.targets.clone()).filter(|t| *t >= 0).collect();
        let mut expected: Vec<i32> = stream[1..].iter().chain(&stream[1..]).map(|id| *id as i32).collect();
        targets.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(targets, expected);
    }
}

#[test]
fn the_position_split_of_a_stream_is_nanogpts() {
    let folder = folder();
    let tokenizer = chars();
    let text: String = (0..1115_u32).map(|i| char::from(b'a' + (i * i % 26) as u8)).collect();
    let spec = SourceSpec::file(file(folder.path(), "t.txt", &text));
    let prepared = prepared(folder.path(), &[spec], &tokenizer, Content::Documents).unwrap();
    let holdout = Some(Holdout { fraction: 0.1, by: SplitBy::Position });
    let options = RunOptions { holdout, ..run(64, 12, 1.0) };
    let dataset = pretrain(&prepared, &options, Packing::Stream);
    // int(1115 * 0.9) = 1003 training characters, 112 validation characters.
    assert_eq!(dataset.counts().epoch_targets, 1002);
    assert_eq!(dataset.counts().eval_targets, 111);
    let eval: Vec<Batch> = dataset.eval_batches(8, None).collect();
    let found = segments(&eval);
    let ids = tokenizer.encode_plain(&text).unwrap();
    let read: Vec<u32> = found.iter().flat_map(|(_, ids, _)| ids.clone()).collect();
    assert_eq!(read, ids[1003..1114]);
    let sampled: usize = dataset.eval_batches(8, Some(1)).map(|batch| batch.rows).sum();
    assert_eq!(sampled, 1);
}

#[test]
fn batches_are_the_same_from_any_step_over_two_epochs() {
    let folder = folder();
    let tokenizer = many_chars();
    let mut specs = vec![
        documents(folder.path(), "a", &[30, 5, 77, 1, 12, 40]),
        documents(folder.path(), "b", &[9, 90, 14]),
    ];
    specs[1].weight = 1.5;
    let prepared = prepared(folder.path(), &specs, tokenizer, Content::Documents).unwrap();
    let options = run(16, 3, 2.0);
    for packing in [Packing::Documents, Packing::Stream] {
        let whole = batches(&pretrain(&prepared, &options, packing));
        assert!(whole.len() > 4);
        assert_ne!(whole[0], whole[1]);
        for cut in 0..whole.len() {
            let resumed = pretrain(&prepared, &options, packing);
            for (step, batch) in whole.iter().enumerate().skip(cut) {
                assert_eq!(resumed.batch(step as u64), *batch, "step {step} after {cut}");
            }
        }
        let other = pretrain(&prepared, &RunOptions { seed: 2, ..options.clone() }, packing);
        assert_ne!(batches(&other), whole);
        let later =
            pretrain(&prepared, &RunOptions { stage: "sft".into(), ..options.clone() }, packing);
        assert_ne!(batches(&later), whole);
    }
}

#[test]
fn the_first_limit_reached_ends_the_run() {
    let folder = folder();
    let tokenizer = many_chars();
    let specs = [documents(folder.path(), "d", &[39, 39])];
    let prepared = prepared(folder.path(), &specs, tokenizer, Content::Documents).unwrap();
    let steps = |max_steps, epochs, max_tokens| {
        let options = RunOptions { max_steps, epochs, max_tokens, ..run(8, 4, 1.0) };
        let dataset = Dataset::pretrain(&prepared, &options, Packing::Documents)?;
        Ok((dataset.n_steps(), dataset.n_run_rows(), dataset.batch(dataset.n_steps() - 1).rows))
    };
    let show = |found: data::Result<(u64, u64, usize)>| match found {
        Ok(found) => format!("{found:?}"),
        Err(error) => crate::support::shown(&error),
    };
    // 80 positions are 10 rows per epoch, with 4 rows per step.
    insta::assert_snapshot!(show(steps(None, Some(1.0), None)), @"(3, 10, 2)");
    insta::assert_snapshot!(show(steps(None, Some(2.5), None)), @"(7, 25, 1)");
    insta::assert_snapshot!(show(steps(Some(2), Some(1.0), None)), @"(2, 8, 4)");
    insta::assert_snapshot!(show(steps(Some(9), None, Some(50))), @"(2, 7, 3)");
    insta::assert_snapshot!(show(steps(None, None, None)), @"
    the stage has no steps: nothing limits its length
      hint: set `max_steps`, `epochs` or `max_tokens` in the stage's section
    ");
    let dataset = pretrain(&prepared, &run(8, 4, 1.0), Packing::Documents);
    assert_eq!(dataset.batch(3).rows, 0);
    let batch = dataset.batch(0);
    let parts: Vec<Batch> = batch.micro_batches(3).collect();
    assert_eq!(parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(segments(&parts), segments(&[batch]));
}

/// Chats whose answers have the given lengths.
fn chats(folder: &Path, name: &str, lengths: &[(usize, usize)]) -> SourceSpec {
    let mut lines = String::new();
    for (index, (asked, answered)) in lengths.iter().enumerate() {
        let prompt: String = format!("{name}{index}?").chars().cycle().take(*asked).collect();
        let answer: String = format!("{index}!{name}").chars().cycle().take(*answered).collect();
        lines.push_str(&format!("{{\"prompt\": {prompt:?}, \"completion\": {answer:?}}}\n"));
    }
    SourceSpec::file(file(folder, &format!("{name}.jsonl"), lines))
}

/// Targets of every chat that fits, as (sample, index of token), from the tokenizer.
fn chat_targets(
    folder: &Path,
    specs: &[SourceSpec],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> Vec<(Vec<u32>, Vec<bool>)> {
    let _ = folder;
    let mut texts = Vec::new();
    data::texts(specs, data::SampleKind::Chats, &mut |text| texts.push(text)).unwrap();
    texts
        .chunks(2)
        .map(|pair| {
            let messages = [
                tokenizer::Message::new(tokenizer::Role::User, pair[0].clone()),
                tokenizer::Message::new(tokenizer::Role::Assistant, pair[1].clone()),
            ];
            let encoded = tokenizer.encode_chat(&messages, template).unwrap();
            (encoded.ids, encoded.loss_mask)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chats_are_packed_whole_and_once(
        lengths in prop::collection::vec((1_usize..30, 1_usize..30), 1..40),
        sequence_length in 60_usize..120,
        packing in any::<bool>(),
        cut in any::<bool>(),
        seed in 0_u64..100,
    ) {
        let folder = folder();
        let tokenizer = chars();
        let template = ChatTemplate::builtin("chatml").unwrap();
        let specs = [chats(folder.path(), "c", &lengths)];
        let prepared = prepared(folder.path(), &specs, &tokenizer, Content::Chats(&template, recipe::ChatTargets::default())).unwrap();
        let options = RunOptions { seed, ..run(sequence_length, 3, 1.0) };
        let overlong = if cut { Overlong::Cut } else { Overlong::Drop };
        let dataset = match Dataset::sft(&prepared, &options, packing, overlong) {
            Ok(dataset) => dataset,
            Err(data::Error::NoTargets { .. }) => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        let encoded = chat_targets(folder.path(), &specs, &tokenizer, &template);
        let batches = batches(&dataset);
        let found = segments(&batches);
        let mut samples: Vec<u64> = found.iter().map(|(sample, _, _)| *sample).collect();
        samples.sort_unstable();
        let mut expected = Vec::new();
        let (mut n_cut, mut n_dropped, mut n_without) = (0, 0, 0);
        for (sample, (ids, mask)) in encoded.iter().enumerate() {
            let targets: Vec<usize> = (1..ids.len()).filter(|at| mask[*at]).collect();
            let last = *targets.last().unwrap();
            let kept = targets.iter().filter(|at| **at <= sequence_length).count();
            if last > sequence_length && !cut {
                n_dropped += 1;
            } else if kept == 0 {
                n_without += 1;
            } else {
                n_cut += u64::from(last > sequence_length);
                expected.push(sample as u64);
                let (_, read, predicted) = found.iter().find(|(s, _, _)| *s == sample as u64).unwrap();
                let n = last.min(sequence_length);
                prop_assert_eq!(read, &ids[..n]);
                let wanted: Vec<i32> = (1..=n).map(|at| if mask[at] { ids[at] as i32 } else { -1 }).collect();
                prop_assert_eq!(predicted, &wanted);
            }
        }
        prop_assert_eq!(samples, expected);
        let counts = dataset.counts();
        prop_assert_eq!((counts.truncated, counts.too_long, counts.without_targets), (n_cut, n_dropped, n_without));
        prop_assert_eq!(dataset.sample_issues().count() as u64, n_cut + n_dropped + n_without);
        let n_targets: usize = batches.iter().map(|batch| batch.n_targets).sum();
        prop_assert_eq!(n_targets as u64, dataset.run_targets());
        if !packing {
            prop_assert!(batches.iter().all(|batch| batch.samples.len() == batch.rows));
        }
    }
}

#[test]
fn packed_chats_are_the_same_from_any_step_over_two_epochs() {
    let folder = folder();
    let tokenizer = chars();
    let template = ChatTemplate::builtin("chatml").unwrap();
    let lengths: Vec<(usize, usize)> = (0..60).map(|i| (1 + i * 7 % 20, 1 + i * 11 % 40)).collect();
    let mut specs =
        vec![chats(folder.path(), "a", &lengths), chats(folder.path(), "b", &lengths[..9])];
    specs[1].weight = 0.5;
    let prepared = prepared(
        folder.path(),
        &specs,
        &tokenizer,
        Content::Chats(&template, recipe::ChatTargets::default()),
    )
    .unwrap();
    let holdout = Some(Holdout { fraction: 0.1, by: SplitBy::Content });
    let options = RunOptions { holdout, ..run(128, 4, 2.0) };
    let make = || Dataset::sft(&prepared, &options, true, Overlong::Cut).unwrap();
    let whole = batches(&make());
    for cut in 0..whole.len() {
        let resumed = make();
        for step in (cut..whole.len()).rev() {
            assert_eq!(resumed.batch(step as u64), whole[step]);
        }
    }
    // First fit leaves little padding.
    let positions: usize = whole.iter().map(|batch| batch.ids.len()).sum();
    let used: usize =
        whole.iter().flat_map(|b| &b.segments).filter(|segment| **segment >= 0).count();
    assert!(used * 100 > positions * 85, "{used} of {positions}");
    let train: Vec<u64> = segments(&whole).iter().map(|(sample, _, _)| *sample).collect();
    let eval: Vec<Batch> = make().eval_batches(4, None).collect();
    let eval: Vec<u64> = segments(&eval).iter().map(|(sample, _, _)| *sample).collect();
    assert!(!eval.is_empty() && eval.iter().all(|sample| !train.contains(sample)));
    let held_out_of_b = eval.iter().filter(|sample| **sample >= 60).count();
    assert_eq!(train.iter().filter(|sample| **sample >= 60).count(), 9 - held_out_of_b);
}

#[test]
fn an_inspected_row_is_the_batch_with_roles() {
    let folder = folder();
    let tokenizer = chars();
    let template = ChatTemplate::builtin("chatml").unwrap();
    let specs = [chats(folder.path(), "c", &[(3, 4), (5, 2), (1, 9)])];
    let prepared = prepared(
        folder.path(),
        &specs,
        &tokenizer,
        Content::Chats(&template, recipe::ChatTargets::default()),
    )
    .unwrap();
    let dataset = Dataset::sft(&prepared, &run(256, 1, 1.0), true, Overlong::Cut).unwrap();
    let view = dataset.inspect_row(0).unwrap();
    assert_eq!(view.batch, dataset.batch(0));
    assert!(dataset.inspect_row(1).is_none());
    let spans = view.target_spans();
    let answers: Vec<String> =
        spans.iter().map(|span| tokenizer.decode(&view.target_ids(span), false)).collect();
    let mut sorted = answers.clone();
    sorted.sort();
    assert_eq!(sorted, ["0!c0<|im_end|>", "1!<|im_end|>", "2!c2!c2!c<|im_end|>"]);
    let locations: Vec<String> = view
        .segments
        .iter()
        .map(|segment| segment.location.as_ref().unwrap().position.number().to_string())
        .collect();
    assert_eq!(locations.len(), 3);
    assert_eq!(view.roles.len(), 256);
    assert_eq!(view.roles[255], data::TokenRole::Padding);
}

#[test]
fn duplicates_and_the_chats_of_a_tree_are_in_one_split() {
    let folder = folder();
    let tokenizer = chars();
    let template = ChatTemplate::builtin("chatml").unwrap();
    let mut lines = String::new();
    for index in 0..200 {
        // Every chat occurs twice.
        let row = serde_json::json!({ "prompt": format!("p{}", index % 100), "completion": "c" });
        lines.push_str(&format!("{row}\n"));
    }
    let pairs = SourceSpec::file(file(folder.path(), "pairs.jsonl", lines));
    let mut lines = String::new();
    for index in 0..60 {
        let answer = |text: &str| serde_json::json!({ "role": "assistant", "text": text });
        let replies = [answer("a"), answer("b"), answer("c")];
        let root = serde_json::json!(
            { "role": "prompter", "text": format!("q{index}"), "replies": replies }
        );
        lines.push_str(&format!("{root}\n"));
    }
    let trees = SourceSpec::file(file(folder.path(), "trees.jsonl", lines));
    let content = Content::Chats(&template, recipe::ChatTargets::default());
    let prepared = prepared(folder.path(), &[pairs, trees], &tokenizer, content).unwrap();
    for by in [SplitBy::Content, SplitBy::Position] {
        let holdout = Some(Holdout { fraction: 0.31, by });
        let options = RunOptions { holdout, ..run(64, 4, 1.0) };
        let dataset = Dataset::sft(&prepared, &options, false, Overlong::Cut).unwrap();
        let eval: Vec<Batch> = dataset.eval_batches(4, None).collect();
        let held: Vec<u64> = segments(&eval).iter().map(|(sample, _, _)| *sample).collect();
        assert_eq!(dataset.counts().duplicates, 100);
        assert_eq!(held.len() as u64, dataset.counts().eval_samples);
        assert_eq!(dataset.counts().eval_samples + dataset.counts().train_samples, 380);
        let twin = |sample: u64| if sample < 100 { sample + 100 } else { sample - 100 };
        for sample in &held {
            if *sample >= 200 {
                let tree = (sample - 200) / 3;
                let paths = (0..3).filter(|path| held.contains(&(200 + tree * 3 + path)));
                assert_eq!(paths.count(), 3);
            } else if by == SplitBy::Content {
                assert!(held.contains(&twin(*sample)));
            }
        }
    }
}

#[test]
fn in_order_reads_a_file_in_its_order() {
    let folder = folder();
    let tokenizer = many_chars();
    let specs = [documents(folder.path(), "d", &[12, 1, 30, 5])];
    let prepared = prepared(folder.path(), &specs, tokenizer, Content::Documents).unwrap();
    let sequences = sequences(tokenizer, &specs);
    let pass = Dataset::in_order(&prepared, 7, 2, Packing::Documents).unwrap();
    let found = segments(&batches(&pass));
    let order: Vec<u64> = found.iter().map(|(sample, _, _)| *sample).collect();
    assert!(order.is_sorted());
    assert_eq!(seen_targets(&found, &sequences), all_once(&sequences, 0..4));
    let stream = Dataset::in_order(&prepared, 7, 2, Packing::Stream).unwrap();
    let targets: Vec<i32> = batches(&stream).iter().flat_map(|b| b.targets.clone()).collect();
    let targets: Vec<u32> = targets.iter().filter_map(|t| u32::try_from(*t).ok()).collect();
    let mut wanted: Vec<u32> = sequences.iter().flat_map(|ids| ids[1..].to_vec()).collect();
    wanted.pop();
    assert_eq!(targets, wanted[1..]);
}

#[test]
fn data_that_cannot_be_split_or_packed_is_an_error() {
    let folder = folder();
    let tokenizer = chars();
    let text = SourceSpec::file(file(folder.path(), "t.txt", "one text"));
    let documents = prepared(folder.path(), &[text], &tokenizer, Content::Documents).unwrap();
    let template = ChatTemplate::builtin("chatml").unwrap();
    let specs = [chats(folder.path(), "c", &[(90, 4), (95, 3)])];
    let chats = prepared(
        folder.path(),
        &specs,
        &tokenizer,
        Content::Chats(&template, recipe::ChatTargets::default()),
    )
    .unwrap();
    let dir = folder.path().display().to_string();
    let said = |made: data::Result<Dataset>| {
        crate::support::shown(&made.unwrap_err()).replace(&dir, "DIR")
    };
    let holdout = Some(Holdout { fraction: 0.1, by: SplitBy::Content });
    let split = RunOptions { holdout, ..run(8, 1, 1.0) };
    insta::assert_snapshot!(said(Dataset::pretrain(&documents, &split, Packing::Stream)), @r#"
    holdout = 0.1 leaves no training rows: 1 rows in all
      hint: a split by content needs several rows: use `by = "position"`, or another `holdout`
    "#);
    insta::assert_snapshot!(said(Dataset::sft(&chats, &run(32, 1, 1.0), true, Overlong::Cut)), @"
    DIR/c.jsonl: no sample has a target at sequence_length = 32
      hint: raise `sequence_length` if answers are cut off; chats without an answer, and messages with a weight of 0, have no target; `temper data inspect` shows the rows
    ");
    let tiny = Some(Holdout { fraction: 1e-9, by: SplitBy::Position });
    let split = RunOptions { holdout: tiny, ..run(8, 1, 1.0) };
    insta::assert_snapshot!(said(Dataset::sft(&chats, &split, true, Overlong::Cut)), @r#"
    holdout = 0.000000001 leaves no validation rows: 2 rows in all
      hint: a split by content needs several rows: use `by = "position"`, or another `holdout`
    "#);
}

/// nanoGPT's numbers for this file: 1,003,854 training characters, 111,540 validation characters.
#[test]
fn tiny_shakespeare_is_split_as_in_nanogpt() {
    let Some(data) = crate::support::shared_data() else {
        println!("skipped: no shared data");
        return;
    };
    let folder = folder();
    let spec = SourceSpec::file(data.join("pretrain/tinyshakespeare.txt"));
    let mut texts = Vec::new();
    data::texts(std::slice::from_ref(&spec), data::SampleKind::Documents, &mut |text| {
        texts.push(text);
    })
    .unwrap();
    let specials = tokenizer::default_special_tokens();
    let tokenizer = Tokenizer::train_char(texts.into_iter(), &specials).unwrap();
    let prepared = prepared(folder.path(), &[spec], &tokenizer, Content::Documents).unwrap();
    let holdout = Some(Holdout { fraction: 0.1, by: SplitBy::Position });
    let options = RunOptions { holdout, max_steps: Some(2000), epochs: None, ..run(64, 12, 0.0) };
    let dataset = pretrain(&prepared, &options, Packing::Stream);
    assert_eq!(dataset.counts().epoch_targets, 1_003_854 - 1);
    assert_eq!(dataset.counts().eval_targets, 111_540 - 1);
    assert_eq!((dataset.n_steps(), dataset.n_run_rows()), (2000, 24_000));
    let batch = dataset.batch(1999);
    assert_eq!((batch.rows, batch.ids.len()), (12, 768));
    assert!(batch.ids.iter().all(|id| !tokenizer.is_special(*id)));
}
