//! Pairs drawn from labelled texts, and rows selected by `where`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use data::{Batch, Content, Dataset, Holdout, Prepared, RunOptions, SampleKind, SourceSpec};
use recipe::{DrawnPairs, Overlong, SplitBy, Template};
use tokenizer::ChatTemplate;

use crate::support::{chars, decoded, file, folder, prepared, run, shown, values};

/// Good, bad and other rows, some with several labels.
fn rows() -> String {
    let mut rows = String::new();
    for n in 0..60 {
        rows += &format!("{{\"text\":\"good {n}\",\"labels\":[\"joy\",\"other\"],\"stars\":5}}\n");
    }
    for n in 0..25 {
        rows += &format!("{{\"text\":\"bad {n}\",\"labels\":[\"anger\"],\"stars\":\"1\"}}\n");
    }
    rows + r#"{"text":"mixed","labels":["anger","joy"],"stars":3}
{"text":"plain","labels":["other"],"stars":3}
{"text":"unlabelled","labels":null,"stars":3}
{"text":" ","labels":["joy"],"stars":5}
"#
}

fn drawn_from(prompt: Option<&str>) -> DrawnPairs {
    DrawnPairs {
        from: "text".into(),
        chosen: values(&[("labels", &["joy", "love"])]),
        rejected: values(&[("labels", &["anger"])]),
        prompt: prompt.map(|prompt| Template::parse(prompt).unwrap()),
    }
}

fn spec(folder: &Path, text: &str, pairs: DrawnPairs) -> SourceSpec {
    let mut spec = SourceSpec::file(file(folder, "rows.jsonl", text));
    spec.path = "rows.jsonl".into();
    spec.pairs = Some(pairs);
    spec
}

fn prepare(folder: &Path, spec: SourceSpec) -> data::Result<Prepared> {
    let template = ChatTemplate::builtin("chatml").unwrap();
    prepared(folder, &[spec], &chars(), Content::Pairs(&template))
}

fn held_out(fraction: f64) -> RunOptions {
    let mut options = run(100, 4, 1.0);
    options.holdout = Some(Holdout { fraction, by: SplitBy::Content });
    options
}

/// Both texts of each pair without the prompt and the template around them.
fn pairs_of(batches: impl IntoIterator<Item = Batch>) -> Vec<[String; 2]> {
    let tokenizer = chars();
    let without_layers = |text: &String| {
        let text = text.rsplit_once("assistant\n").unwrap().1;
        text.strip_suffix("<|im_end|>").unwrap().to_owned()
    };
    let texts = batches.into_iter().flat_map(|batch| decoded(&batch, &tokenizer));
    let texts: Vec<String> = texts.collect();
    texts.chunks(2).map(|pair| [without_layers(&pair[0]), without_layers(&pair[1])]).collect()
}

fn trained(dataset: &Dataset) -> Vec<[String; 2]> {
    pairs_of((0..dataset.n_steps()).map(|step| dataset.batch(step)))
}

#[test]
fn every_text_of_the_larger_pool_is_in_one_pair() {
    let folder = folder();
    let prepared = prepare(folder.path(), spec(folder.path(), &rows(), drawn_from(None))).unwrap();
    let dataset = Dataset::pairs(&prepared, &run(100, 4, 1.0), Overlong::Drop).unwrap();
    let pairs = trained(&dataset);
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for [chosen, rejected] in &pairs {
        assert!(chosen.starts_with("good ") && rejected.starts_with("bad "));
        for text in [chosen, rejected] {
            *times.entry(text).or_default() += 1;
        }
    }
    assert_eq!((pairs.len(), times.len()), (60, 85));
    assert!((0..60).all(|n| times[format!("good {n}").as_str()] == 1));
    // 60 = 2 × 25 + 10: no text of the smaller pool is used a third time before all are used twice.
    assert!((0..25).all(|n| [2, 3].contains(&times[format!("bad {n}").as_str()])));

    let counts = dataset.counts();
    let [drawn] = counts.drawn.as_slice() else { panic!("one source") };
    assert_eq!((drawn.path.as_str(), drawn.chosen, drawn.rejected), ("rows.jsonl", 60, 25));
    assert_eq!((drawn.both, drawn.neither, counts.empty, counts.rows), (1, 2, 1, 89));
    assert_eq!((drawn.train_pairs, drawn.eval_pairs, counts.train_samples), (60, 0, 60));
    let view = dataset.inspect_row(0).unwrap();
    let lines: Vec<u64> =
        view.segments.iter().map(|s| s.location.as_ref().unwrap().position.number()).collect();
    assert!(lines[0] <= 60 && (61..=85).contains(&lines[1]), "{lines:?}");
}

#[test]
fn no_text_is_in_a_training_pair_and_a_validation_pair() {
    let folder = folder();
    // Every text twice, once with other labels: duplicates must be in the same split.
    let rows = rows() + &rows().replace("\"other\"", "\"more\"");
    let prepared = prepare(folder.path(), spec(folder.path(), &rows, drawn_from(None))).unwrap();
    let dataset = Dataset::pairs(&prepared, &held_out(0.3), Overlong::Drop).unwrap();
    let train: BTreeSet<String> = trained(&dataset).into_iter().flatten().collect();
    let eval: BTreeSet<String> =
        pairs_of(dataset.eval_batches(3, None)).into_iter().flatten().collect();
    assert!(train.len() > 40 && eval.len() > 10, "{} and {}", train.len(), eval.len());
    assert!(train.is_disjoint(&eval));
    assert_eq!(train.len() + eval.len(), 85);
    let drawn = &dataset.counts().drawn[0];
    assert_eq!(drawn.eval_pairs, dataset.n_eval_rows());
    assert_eq!(drawn.train_pairs, dataset.n_rows(0));
}

#[test]
fn the_seed_decides_training_pairs_but_not_validation_pairs() {
    let folder = folder();
    let prepared = prepare(folder.path(), spec(folder.path(), &rows(), drawn_from(None))).unwrap();
    let dataset = |seed: u64, stage: &str| {
        let options = RunOptions { seed, stage: stage.into(), ..held_out(0.3) };
        Dataset::pairs(&prepared, &options, Overlong::Drop).unwrap()
    };
    let sorted = |dataset: &Dataset| trained(dataset).into_iter().collect::<BTreeSet<_>>();
    let eval = |dataset: &Dataset| pairs_of(dataset.eval_batches(3, None));
    let (first, again) = (dataset(1, "reward"), dataset(1, "reward"));
    assert_eq!(trained(&first), trained(&again));
    for other in [dataset(2, "reward"), dataset(1, "dpo")] {
        assert_ne!(sorted(&first), sorted(&other));
        assert_eq!(eval(&first), eval(&other));
    }
    // All epochs have the same pairs, in another order.
    let mut options = held_out(0.3);
    options.epochs = Some(2.0);
    let twice = trained(&Dataset::pairs(&prepared, &options, Overlong::Drop).unwrap());
    let (one, two) = twice.split_at(twice.len() / 2);
    assert_ne!(one, two);
    assert_eq!(one.iter().collect::<BTreeSet<_>>(), two.iter().collect::<BTreeSet<_>>());
}

#[test]
fn both_texts_answer_the_prompt_and_are_encoded_for_scoring() {
    let folder = folder();
    let pairs = drawn_from(Some("Say {{it}}."));
    let prepared = prepare(folder.path(), spec(folder.path(), &rows(), pairs)).unwrap();
    let dataset = Dataset::pairs(&prepared, &run(100, 4, 1.0), Overlong::Drop).unwrap();
    let (tokenizer, template) = (chars(), ChatTemplate::builtin("chatml").unwrap());
    let batch = dataset.batch(0);
    let without_layers = pairs_of([batch.clone()]);
    for (ids, text) in batch.texts().iter().zip(without_layers.as_flattened()) {
        let messages = [
            tokenizer::Message::new(tokenizer::Role::User, "Say {it}."),
            tokenizer::Message::new(tokenizer::Role::Assistant, text.as_str()),
        ];
        assert_eq!(*ids, tokenizer.encode_for_scoring(&messages, &template).unwrap().ids);
    }
}

#[test]
fn texts_that_are_too_long_are_dropped_before_pairs_are_drawn() {
    let folder = folder();
    let rows = r#"{"text":"yes","labels":["joy"]}
{"text":"no","labels":["anger"]}
{"text":"no, and that for a long, long while, whatever else may happen","labels":["anger"]}
{"text":"yes","labels":["anger"]}
"#;
    let dataset = |overlong| {
        let prepared = prepare(folder.path(), spec(folder.path(), rows, drawn_from(None))).unwrap();
        Dataset::pairs(&prepared, &run(40, 4, 1.0), overlong).unwrap()
    };
    let dropped = dataset(Overlong::Drop);
    // A text in both pools forms no pair with itself.
    assert_eq!((dropped.counts().too_long, dropped.counts().identical_texts), (1, 1));
    assert_eq!(trained(&dropped), [["yes".to_owned(), "no".to_owned()]]);
    let cut = dataset(Overlong::Cut);
    assert_eq!(
        (cut.counts().truncated, cut.counts().too_long, cut.counts().train_samples),
        (1, 0, 2)
    );
}

#[test]
fn sources_without_drawable_pairs_are_errors() {
    let folder = folder();
    let failed = |change: &dyn Fn(&mut SourceSpec)| {
        let mut spec = spec(folder.path(), &rows(), drawn_from(None));
        change(&mut spec);
        shown(&prepare(folder.path(), spec).unwrap_err())
            .replace(&format!("{}/", folder.path().display()), "")
    };
    let pairs = |spec: &mut SourceSpec, of: &dyn Fn(&mut DrawnPairs)| {
        of(spec.pairs.as_mut().unwrap());
    };
    let nobody = failed(&|spec| pairs(spec, &|p| p.rejected = values(&[("labels", &["Anger"])])));
    insta::assert_snapshot!(nobody, @"
    rows.jsonl: none of its 89 rows matches `rejected` alone
      hint: values are compared exactly as the file has them: `temper data inspect FILE --line 1` shows a row
    ");
    let column = failed(&|spec| pairs(spec, &|p| p.chosen = values(&[("label", &["joy"])])));
    insta::assert_snapshot!(column, @"
    rows.jsonl:1: no column `label`; columns: `text`, `labels`, `stars`
      hint: a similar column: `labels`
    ");
    let from = failed(&|spec| pairs(spec, &|p| p.from = "txt".into()));
    insta::assert_snapshot!(from, @"
    rows.jsonl:1: no column `txt`; columns: `text`, `labels`, `stars`
      hint: a similar column: `text`
    ");
    let nothing = failed(&|spec| spec.filter = Some(values(&[("stars", &["9"])])));
    insta::assert_snapshot!(nothing, @"
    rows.jsonl: `where` matches none of its 89 rows
      hint: values are compared exactly as the file has them: `temper data inspect FILE --line 1` shows a row
    ");
    let error =
        data::conversations(&spec(folder.path(), &rows(), drawn_from(None)), SampleKind::Pairs);
    insta::assert_snapshot!(error.err().unwrap(), @"rows.jsonl: its `pairs` are drawn with the seed of a run, so they are not rows of the file");
}

#[test]
fn where_filters_and_counts_rows_of_every_kind_of_source() {
    let folder = folder();
    let mut spec = SourceSpec::file(file(folder.path(), "rows.jsonl", rows()));
    // A number is compared by its digits, quoted or not; both columns must match.
    spec.filter = Some(values(&[("stars", &["1", "5"]), ("labels", &["other", "anger"])]));
    let documents = prepared(folder.path(), &[spec.clone()], &chars(), Content::Documents).unwrap();
    let options = run(16, 4, 1.0);
    let dataset = Dataset::pretrain(&documents, &options, recipe::Packing::Documents).unwrap();
    let counts = dataset.counts();
    assert_eq!((counts.rows, counts.filtered, counts.samples, counts.bad), (89, 4, 85, 0));

    let mut texts = Vec::new();
    data::texts(&[spec.clone()], SampleKind::Documents, &mut |text| texts.push(text)).unwrap();
    assert_eq!((texts.len(), texts[0].as_str(), texts[84].as_str()), (85, "good 0", "bad 24"));

    // `limit` counts the rows of the file, not those that pass the filter.
    spec.limit = Some(62);
    spec.rows = Some(recipe::Rows {
        prompt: Some(Template::parse("{labels}?").unwrap()),
        completion: Some(Template::parse("{text}").unwrap()),
        ..recipe::Rows::default()
    });
    spec.filter = Some(values(&[("labels", &["anger"])]));
    let template = ChatTemplate::builtin("chatml").unwrap();
    let content = Content::Chats(&template, recipe::ChatTargets::default());
    let chats = prepared(folder.path(), &[spec.clone()], &chars(), content).unwrap();
    let dataset = Dataset::sft(&chats, &run(100, 1, 1.0), true, Overlong::Cut).unwrap();
    assert_eq!((dataset.counts().rows, dataset.counts().filtered), (62, 60));
    assert_eq!(dataset.counts().samples, 2);
    assert_ne!(
        chats.keys().collect::<Vec<_>>(),
        documents.keys().collect::<Vec<_>>(),
        "another filter is another cache"
    );

    // With `where`, a line of a plain text file is a row.
    let mut lines = SourceSpec::file(file(folder.path(), "lines.txt", "yes\nno\nyes\n"));
    lines.filter = Some(values(&[("text", &["yes"])]));
    let lines = prepared(folder.path(), &[lines], &chars(), Content::Documents).unwrap();
    let dataset = Dataset::pretrain(&lines, &options, recipe::Packing::Documents).unwrap();
    assert_eq!((dataset.counts().samples, dataset.counts().filtered), (2, 1));
}

#[test]
fn every_key_of_pairs_is_part_of_the_cache_key() {
    let folder = folder();
    let key = |pairs: DrawnPairs| {
        let prepared = prepare(folder.path(), spec(folder.path(), &rows(), pairs)).unwrap();
        prepared.keys().next().unwrap().to_owned()
    };
    let base = drawn_from(None);
    let changed = [
        drawn_from(Some("Hi")),
        DrawnPairs { from: "stars".into(), ..base.clone() },
        DrawnPairs { chosen: values(&[("labels", &["other"])]), ..base.clone() },
        DrawnPairs { rejected: values(&[("stars", &["1"])]), ..base.clone() },
    ];
    let mut keys: BTreeSet<String> = changed.into_iter().map(key).collect();
    keys.insert(key(base.clone()));
    assert_eq!(keys.len(), 5);
    // An existing cache is opened with its labels.
    assert!(!keys.insert(key(base)));
}
