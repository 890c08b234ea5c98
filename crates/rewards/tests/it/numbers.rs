//! A table of right and wrong numbers that look alike.

use proptest::prelude::*;

use crate::support::{one, value};

/// Place, right answer, completion, expected value.
type Case = (&'static str, &'static str, &'static str, f64);

const CASES: &[Case] = &[
    // Plain integers and their neighbours.
    ("last", "72", "72", 1.0),
    ("last", "72", "72.", 1.0),
    ("last", "72", "The answer is 72.", 1.0),
    ("last", "72", "The answer is 72!", 1.0),
    ("last", "72", "72.0", 1.0),
    ("last", "72", "72.00", 1.0),
    ("last", "72", "072", 1.0),
    ("last", "72", "+72", 1.0),
    ("last", "72", "(72)", 1.0),
    ("last", "72", "**72**", 1.0),
    ("last", "72", "$72$", 1.0),
    ("last", "72", "x=72", 1.0),
    ("last", "72", "72\n", 1.0),
    ("last", "72", "seventy-two", 0.0),
    ("last", "72", "", 0.0),
    ("last", "72", "   \n ", 0.0),
    ("last", "72", "-72", 0.0),
    ("last", "72", "\u{2212}72", 0.0),
    ("last", "72", "7 2", 0.0),
    ("last", "72", "720", 0.0),
    ("last", "72", "172", 0.0),
    ("last", "72", "7.2", 0.0),
    ("last", "72", "72.1", 0.0),
    ("last", "72", "0.72", 0.0),
    ("last", "72", "72000", 0.0),
    ("last", "0", "0", 1.0),
    ("last", "0", "-0", 1.0),
    ("last", "0", "0.000", 1.0),
    ("last", "0", "O", 0.0),
    ("last", "-5", "-5", 1.0),
    ("last", "-5", "The result is \u{2212}5.", 1.0),
    ("last", "-5", "5", 0.0),
    ("last", "5", "10-5", 1.0),
    ("last", "5", "from 3\u{2013}5", 1.0),
    ("last", "5", "(x)-5", 1.0),
    // The right number in passing.
    ("last", "72", "It is 72, no, wait: 71", 0.0),
    ("last", "72", "72 was my first guess; the answer is 70", 0.0),
    ("last", "72", "First I got 71. The answer is 72", 1.0),
    ("last", "72", "48 + 24 = 72", 1.0),
    ("last", "24", "48 + 24 = 72", 0.0),
    ("last", "72", "1 2 3 72 4", 0.0),
    ("last", "72", "72 73", 0.0),
    // Two answers.
    ("last", "72", "71 or 72", 0.0),
    ("last", "72", "72 or 71", 0.0),
    ("last", "72", "The answer is 71 or maybe 72", 0.0),
    ("last", "72", "either 70, or 72", 0.0),
    ("last", "72", "72 or 72", 1.0),
    ("last", "72", "72 or 72.0", 1.0),
    // Thousands separators.
    ("last", "1250", "1,250", 1.0),
    ("last", "1250", "1,250.00", 1.0),
    ("last", "1,250", "1250", 1.0),
    ("last", "1250", "1{,}250", 1.0),
    ("last", "1250", "1\\,250", 1.0),
    ("last", "1250", "1\u{202f}250", 1.0),
    ("last", "1250", "1\u{a0}250", 1.0),
    ("last", "1250", "1.250", 0.0),
    ("last", "1250", "12,50", 0.0),
    ("last", "1250", "1,2,5,0", 0.0),
    ("last", "1250", "1, 250", 0.0),
    ("last", "1000000", "1,000,000", 1.0),
    ("last", "1000000", "1,000,00", 0.0),
    ("last", "1000000", "1,00,0000", 0.0),
    ("last", "1000", "1,000,000", 0.0),
    ("last", "100200", "100,200", 1.0),
    ("last", "3", "1,2,3", 1.0),
    ("last", "3", "1, 2, 3", 1.0),
    // Decimals and their exact values.
    ("last", "0.5", ".5", 1.0),
    ("last", "0.5", "0.50", 1.0),
    ("last", "0.5", "it is...5", 0.0),
    ("last", "5", "it is...5", 1.0),
    ("last", "0.3", "0.1 + 0.2 = 0.3", 1.0),
    ("last", "0.3", "0.30000000000000004", 0.0),
    ("last", "0.1", "0.10000000000000000001", 0.0),
    ("last", "3.14", "3.14", 1.0),
    ("last", "3.14", "3.14.", 1.0),
    ("last", "3.14", "3,14", 0.0),
    ("last", "3.14", "3.141", 0.0),
    ("last", "12345678901234567890", "12345678901234567890", 1.0),
    ("last", "12345678901234567890", "12345678901234567891", 0.0),
    ("last", "9007199254740993", "9007199254740992", 0.0),
    // Fractions.
    ("last", "1/2", "0.5", 1.0),
    ("last", "0.5", "1/2", 1.0),
    ("last", "0.5", "1 / 2", 1.0),
    ("last", "0.5", "2/4", 1.0),
    ("last", "0.5", "\\frac{1}{2}", 1.0),
    ("last", "0.5", "\\dfrac12", 1.0),
    ("last", "0.5", "½", 1.0),
    ("last", "-0.5", "-\\frac{1}{2}", 1.0),
    ("last", "-0.5", "\\frac{-1}{2}", 1.0),
    ("last", "3.5", "3 1/2", 1.0),
    ("last", "3.5", "3½", 1.0),
    ("last", "3.5", "3\\frac{1}{2}", 1.0),
    ("last", "3.5", "7/2", 1.0),
    ("last", "0.5", "2/1", 0.0),
    ("last", "0.5", "1/2/2024", 0.0),
    ("last", "2024", "1/2/2024", 0.0),
    ("last", "0.5", "1/0", 0.0),
    ("last", "2", "1/2", 0.0),
    ("last", "1", "1/2", 0.0),
    ("last", "1/3", "0.333", 0.0),
    ("last", "1/3", "0.3333333333333333", 0.0),
    ("last", "1/3", "2/6", 1.0),
    ("last", "1/3", "\\frac{\\pi}{3}", 0.0),
    // Percent signs.
    ("last", "50", "50%", 1.0),
    ("last", "50%", "50", 1.0),
    ("last", "50%", "50 %", 1.0),
    ("last", "50%", "50\\%", 1.0),
    ("last", "50%", "50 percent", 1.0),
    ("last", "50%", "0.5", 1.0),
    ("last", "0.5", "50%", 1.0),
    ("last", "50%", "0.5%", 0.0),
    ("last", "50%", "5000%", 0.0),
    ("last", "50", "0.5", 0.0),
    ("last", "50", "5000%", 1.0),
    ("last", "50%", "1/2", 1.0),
    // Units and currencies.
    ("last", "5", "$5", 1.0),
    ("last", "5", "$5.00", 1.0),
    ("last", "5", "\\$5", 1.0),
    ("last", "-5", "-$5", 1.0),
    ("last", "-5", "$-5", 1.0),
    ("last", "5", "€5", 1.0),
    ("last", "5", "5€", 1.0),
    ("last", "5", "5kg", 1.0),
    ("last", "5", "5 apples", 1.0),
    ("last", "5", "5 m²", 1.0),
    ("last", "5", "5 cm^2", 1.0),
    ("last", "5", "5 cm^{-2}", 1.0),
    ("last", "2", "5 cm^2", 0.0),
    ("last", "5", "5 litres of H2O", 1.0),
    ("last", "5", "5\\text{ cm}", 1.0),
    ("last", "5", "5°", 1.0),
    ("last", "5", "答案是5元", 1.0),
    ("last", "5", "5th", 1.0),
    ("last", "5", "x5", 0.0),
    ("last", "2", "H2O", 0.0),
    ("last", "2", "2π", 0.0),
    ("last", "2", "2\\pi", 0.0),
    ("last", "2", "\\sqrt{2}", 0.0),
    ("last", "2", "√2", 0.0),
    ("last", "30", "3:30", 0.0),
    ("last", "3", "3:30", 0.0),
    ("last", "3", "2:3", 0.0),
    ("last", "3", "1.2.3", 0.0),
    // Powers and exponents.
    ("last", "2000", "2e3", 1.0),
    ("last", "2000", "2E+3", 1.0),
    ("last", "0.002", "2e-3", 1.0),
    ("last", "2000", "2 × 10^3", 1.0),
    ("last", "2000", "2 \\times 10^{3}", 1.0),
    ("last", "1000", "10^3", 1.0),
    ("last", "0.01", "10^{-2}", 1.0),
    ("last", "3", "10^3", 0.0),
    ("last", "10", "10^3", 0.0),
    ("last", "2", "2e400", 0.0),
    ("last", "5", "5each", 1.0),
    // Text that is no number.
    ("last", "1", "inf", 0.0),
    ("last", "1", "NaN", 0.0),
    ("last", "1", "one", 0.0),
    ("last", "5", "５", 0.0),
    // GSM8K's mark.
    ("####", "72", "48 + 24 = 72\n#### 72", 1.0),
    ("####", "Natalia sold 48/2 = 24 clips.\n#### 72", "#### 72", 1.0),
    ("####", "72", "#### $72", 1.0),
    ("####", "72", "#### 72 clips", 1.0),
    ("####", "72", "####72", 1.0),
    ("####", "72", "#### 24 + 48 = 72", 1.0),
    ("####", "72", "72", 0.0),
    ("####", "72", "### 72", 0.0),
    ("####", "72", "####", 0.0),
    ("####", "72", "#### \n72", 0.0),
    ("####", "72", "#### 71 72", 0.0),
    ("####", "72", "#### 72 (not 71)", 0.0),
    ("####", "72", "#### 72\n#### 71", 0.0),
    ("####", "72", "#### 71\n#### 72", 0.0),
    ("####", "72", "#### 72\n#### 72", 1.0),
    ("####", "72", "#### 71\nI mean 72", 0.0),
    // Boxes.
    ("boxed", "72", "\\boxed{72}", 1.0),
    ("boxed", "72", "so \\(\\boxed{72}\\).", 1.0),
    ("boxed", "0.5", "\\boxed{\\frac{1}{2}}", 1.0),
    ("boxed", "72", "\\boxed{72\\text{ clips}}", 1.0),
    ("boxed", "72", "\\boxed{x = 72}", 1.0),
    ("boxed", "72", "\\boxed{71} so 72", 0.0),
    ("boxed", "72", "\\boxed{72", 0.0),
    ("boxed", "72", "\\boxed{}", 0.0),
    ("boxed", "72", "boxed{72}", 0.0),
    ("boxed", "72", "\\boxed{72}\\boxed{71}", 0.0),
    ("boxed", "72", "\\boxed{71}, \\boxed{72}", 0.0),
    ("boxed", "72", "\\boxed{72} and again \\boxed{72.0}", 1.0),
    ("boxed", "72", "\\boxed{71, 72}", 0.0),
    ("boxed", "72", "\\boxed{72 \\text{ or } 71}", 0.0),
    // Tags.
    ("tag:answer", "72", "<answer>72</answer>", 1.0),
    ("tag:answer", "72", "<think>71?</think><answer> 72 </answer>", 1.0),
    ("tag:answer", "72", "<answer>72", 0.0),
    ("tag:answer", "72", "72</answer>", 0.0),
    ("tag:answer", "72", "<think>72</think>", 0.0),
    ("tag:answer", "72", "<answer>71</answer> 72", 0.0),
    ("tag:answer", "72", "<answer>72</answer><answer>71", 0.0),
    ("tag:answer", "72", "<answer>72</answer><answer>71</answer>", 0.0),
    ("tag:answer", "72", "<answer>71 72</answer>", 0.0),
    ("tag:answer", "72", "<ANSWER>72</ANSWER>", 0.0),
    ("tag:answer", "72", "<answer>72</answer>.", 1.0),
    ("tag:answer", "72", "<answer></answer>72", 0.0),
    ("tag:answer", "72", "<answer>the total is $72</answer>", 1.0),
    // The whole text.
    ("all", "72", " 72 ", 1.0),
    ("all", "72", "72 clips", 1.0),
    ("all", "72", "71 72", 0.0),
    ("all", "72", "72, I think, or 71", 0.0),
];

#[test]
fn right_and_wrong_numbers_that_look_alike() {
    assert!(CASES.len() >= 200, "{} cases", CASES.len());
    let mut wrong = Vec::new();
    for (place, gold, text, expected) in CASES {
        let keys = serde_json::json!({ "kind": "number", "answer": "{a}", "extract": place });
        let (found, why) = value(&one(&keys.to_string()), gold, text);
        if found != Some(*expected) {
            wrong.push(format!("{place} {gold:?} {text:?}: {found:?}, not {expected}; {why}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[test]
fn a_tolerance_is_absolute_and_inclusive() {
    let keys = |tolerance: f64| {
        let keys = serde_json::json!({ "kind": "number", "answer": "{a}", "tolerance": tolerance });
        one(&keys.to_string())
    };
    for (tolerance, text, expected) in [
        (0.01, "3.14", 1.0),
        (0.01, "3.13", 1.0),
        (0.01, "3.12", 0.0),
        (0.0, "3.1400001", 0.0),
        (0.001, "0.333", 0.0),
    ] {
        assert_eq!(value(&keys(tolerance), "3.14", text).0, Some(expected), "{tolerance} {text}");
    }
    assert_eq!(value(&keys(0.001), "1/3", "0.333").0, Some(1.0));
}

#[test]
fn an_answer_without_a_number_is_skipped() {
    let rewards = one(r#"{ "kind": "number", "answer": "{a}" }"#);
    for gold in ["", "none", "3 or 4", "12:30", "1/0", "x^2", "\\sqrt{2}", "1e99"] {
        assert_eq!(value(&rewards, gold, "4").0, None, "{gold}");
        assert_eq!(rewards.applies(&[Some(gold.to_owned())]), [false], "{gold}");
    }
    assert_eq!(rewards.applies(&[None]), [false]);
    assert_eq!(rewards.applies(&[Some("#### 1,000".to_owned())]), [true]);
}

proptest! {
    /// Any text has a value of 0 or 1, and its reason is short enough to log.
    #[test]
    fn no_text_panics(text in "[0-9.,/:^{}\\\\a-z$%×eE+\\-−½ #<>=√π]{0,60}") {
        for place in ["last", "####", "boxed", "tag:a", "all"] {
            let keys = serde_json::json!({ "kind": "number", "answer": "{a}", "extract": place });
            let (found, _) = value(&one(&keys.to_string()), "1", &text);
            prop_assert!(matches!(found, Some(x) if x == 0.0 || x == 1.0));
        }
    }

    /// Every integer is equal to its own ways of being written, and to no neighbour.
    #[test]
    fn an_integer_equals_itself(n in -1_000_000_i64..1_000_000) {
        let rewards = one(r#"{ "kind": "number", "answer": "{a}" }"#);
        let gold = n.to_string();
        for text in [format!("{n}"), format!("{n}.00"), format!("it is {n}."), format!("{}/2", 2 * n)] {
            prop_assert_eq!(value(&rewards, &gold, &text).0, Some(1.0));
        }
        for text in [format!("{}", n + 1), format!("{n}.5"), format!("{n}1")] {
            prop_assert_eq!(value(&rewards, &gold, &text).0, Some(0.0));
        }
    }
}
