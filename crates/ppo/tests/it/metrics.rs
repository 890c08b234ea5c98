//! Metrics of a set of answers against numbers computed by hand.

use ppo::AnswerMetrics;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn metrics_of_four_answers_by_hand() {
    let answers = texts(&["a b a b", "a b", "a b", "c"]);
    let metrics = AnswerMetrics::of(&answers, &[1.0, 2.0, 3.0, 6.0], &[0.0, 1.0, -0.5, 1.5], 3);
    assert_eq!((metrics.n, metrics.score, metrics.kl), (4, 3.0, 0.5));
    // Squares of −2, −1, 0, 3: 14 over 4.
    assert!((metrics.score_std - 3.5_f64.sqrt()).abs() < 1e-12);
    assert_eq!(metrics.ended, 0.75);
    // Three texts of four; one of them occurs twice.
    assert_eq!((metrics.distinct, metrics.most_frequent), (0.75, 0.5));
    // Pairs: ab ba ab, ab, ab, none: two of five are different.
    assert_eq!(metrics.distinct_2, 0.4);
    let names: Vec<String> = metrics.named().into_keys().collect();
    let wanted = ["distinct", "distinct_2", "ended", "kl", "most_frequent", "score", "score_std"];
    assert_eq!(names, wanted);
    let row = metrics.row(12);
    assert_eq!((row.step, row.eval_loss, row.n_targets), (12, Some(-3.0), 4));
}

/// One answer to everything is what a policy that has found a hole in its reward model gives.
#[test]
fn one_answer_to_everything_shows() {
    let same = AnswerMetrics::of(&texts(&["ha ha ha"; 8]), &[1.0; 8], &[0.0; 8], 8);
    assert_eq!((same.distinct, same.most_frequent, same.distinct_2), (0.125, 1.0, 0.0625));
    assert_eq!(same.score_std, 0.0);
}

#[test]
fn no_answers_and_answers_without_words_are_numbers() {
    for metrics in [
        AnswerMetrics::of(&[], &[], &[], 0),
        AnswerMetrics::of(&texts(&["", ""]), &[0.0, 0.0], &[0.0, 0.0], 2),
    ] {
        assert!(metrics.named().values().all(|value| value.is_finite()), "{metrics:?}");
        assert_eq!(metrics.distinct_2, 0.0);
    }
}
