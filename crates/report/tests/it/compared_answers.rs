//! The page of answers beside each other.

use report::{ComparedAnswers, ComparedVerdict, Comparison, comparison_page};

fn row(place: &str, scores: &[f64], verdict: ComparedVerdict) -> ComparedAnswers {
    ComparedAnswers {
        place: place.to_owned(),
        prompt: "Say <hello>.".to_owned(),
        answers: vec!["Hello!".to_owned(), "<script>bye</script>".to_owned()],
        scores: scores.to_vec(),
        verdict: Some(verdict),
    }
}

#[test]
fn answers_are_grouped_by_verdict() {
    let comparison = Comparison {
        models: vec!["a".to_owned(), "b".to_owned()],
        judge: Some("the reward model r".to_owned()),
        settings: "greedy, at most 8 tokens".to_owned(),
        prompts: "prompts.jsonl".to_owned(),
        win_rate: Some((0.5, (0.2, 0.8))),
        rows: vec![
            row("prompts.jsonl:1", &[0.1, 0.2], ComparedVerdict::Loss),
            row("prompts.jsonl:2", &[0.1, 0.1], ComparedVerdict::Tie),
            row("prompts.jsonl:3", &[2.0, -0.5], ComparedVerdict::Win),
        ],
    };
    let page = comparison_page(&comparison);
    let (_, main) = page.split_once("<main>").expect("a main part");
    insta::assert_snapshot!(main);
    // Without verdicts there is one group.
    let rows = comparison.rows.into_iter();
    let rows = rows.map(|row| ComparedAnswers { scores: Vec::new(), verdict: None, ..row });
    let without =
        Comparison { judge: None, win_rate: None, rows: rows.collect(), ..Comparison::default() };
    let page = comparison_page(&without);
    assert!(page.contains("Answers (3)") && !page.contains("Win rate"), "{page}");
}
