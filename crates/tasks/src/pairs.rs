//! Tasks for reward models: pairs of a chosen and a rejected answer, by subset, with weighted sections as in RewardBench
//! (Lambert et al. 2024).

use std::collections::{BTreeMap, BTreeSet};

use crate::definition::Section;
use crate::item::{Gold, Item};
use crate::metrics::{Metric, RowScore};
use crate::summary::{Estimate, summarize};

/// Checks the sections of a task; the error is a sentence.
pub(crate) fn check(sections: &[Section]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for Section { name, subsets } in sections {
        if subsets.is_empty() {
            return Err(format!("section `{name}` has no `subsets`"));
        }
        for (subset, weight) in subsets {
            if !(weight.is_finite() && *weight > 0.0) {
                return Err(format!(
                    "the weight of `{subset}` in section `{name}` must be above 0: `{weight}`"
                ));
            }
            if !seen.insert(subset) {
                return Err(format!("subset `{subset}` is in two sections"));
            }
        }
    }
    Ok(())
}

/// The accuracy over all pairs and of each subset, each section's weighted mean of its subsets, and `score`, the mean of the
/// sections. Subsets without rows are left out of their section.
pub(crate) fn estimates(
    items: &[Item],
    scores: &[Vec<RowScore>],
    sections: &[Section],
) -> Vec<Estimate> {
    let mut all = summarize(scores);
    let mut by_subset: BTreeMap<&str, Vec<Vec<RowScore>>> = BTreeMap::new();
    for (item, score) in items.iter().zip(scores) {
        if let Gold::Pair { subset: Some(subset) } = &item.gold {
            by_subset.entry(subset).or_default().push(score.clone());
        }
    }
    let mut of_subsets: BTreeMap<&str, Estimate> = BTreeMap::new();
    for (subset, scores) in &by_subset {
        for mut estimate in summarize(scores) {
            (*subset).clone_into(&mut estimate.filter);
            of_subsets.insert(subset, estimate.clone());
            all.push(estimate);
        }
    }
    let of_sections: Vec<Estimate> =
        sections.iter().filter_map(|section| of_section(section, &of_subsets)).collect();
    all.extend(of_sections.iter().cloned());
    if !of_sections.is_empty() {
        let equal = of_sections.iter().map(|section| (1.0, section));
        all.push(weighted(Metric::Score, "none", equal));
    }
    all
}

fn of_section(section: &Section, subsets: &BTreeMap<&str, Estimate>) -> Option<Estimate> {
    let parts = section.subsets.iter();
    let parts = parts.filter_map(|(name, weight)| Some((*weight, subsets.get(name.as_str())?)));
    let parts: Vec<(f64, &Estimate)> = parts.collect();
    (!parts.is_empty()).then(|| weighted(Metric::Section, &section.name, parts.into_iter()))
}

/// A weighted mean of independent estimates with its standard error.
fn weighted<'a>(
    metric: Metric,
    filter: &str,
    parts: impl Iterator<Item = (f64, &'a Estimate)>,
) -> Estimate {
    let (mut sum, mut weights, mut n_rows) = (0.0, 0.0, 0);
    let mut variance = Some(0.0);
    for (weight, part) in parts {
        sum += weight * part.value;
        weights += weight;
        n_rows += part.n_rows;
        variance = variance.zip(part.stderr).map(|(sum, error)| sum + (weight * error).powi(2));
    }
    Estimate {
        metric: metric.name().into_owned(),
        filter: filter.to_owned(),
        value: sum / weights,
        stderr: variance.map(|variance| variance.sqrt() / weights),
        interval: None,
        n_rows,
    }
}

/// Subsets of sections without rows, and subsets of rows in no section, as sentences.
pub(crate) fn notes(items: &[Item], sections: &[Section]) -> Vec<String> {
    if sections.is_empty() {
        return Vec::new();
    }
    let subset = |item: &Item| match &item.gold {
        Gold::Pair { subset } => subset.clone(),
        Gold::Choice { .. } | Gold::Texts(_) | Gold::Instructions(_) => None,
    };
    let present: BTreeSet<String> = items.iter().filter_map(subset).collect();
    let named: BTreeSet<&String> =
        sections.iter().flat_map(|section| section.subsets.keys()).collect();
    let missing: Vec<&str> = named
        .iter()
        .filter(|subset| !present.contains(**subset))
        .map(|subset| subset.as_str())
        .collect();
    let unnamed: Vec<&str> =
        present.iter().filter(|subset| !named.contains(subset)).map(String::as_str).collect();
    let mut notes = Vec::new();
    if !missing.is_empty() {
        notes.push(format!(
            "sections are without their subsets {}, which have no rows",
            missing.join(", ")
        ));
    }
    if !unnamed.is_empty() {
        notes.push(format!("subsets in no section: {}", unnamed.join(", ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::{Estimate, Item, Section, check, estimates, notes};
    use crate::item::Gold;
    use crate::metrics::{Metric, RowScore, RowValue};

    fn section(name: &str, subsets: &[(&str, f64)]) -> Section {
        let subsets = subsets.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        Section { name: name.to_owned(), subsets }
    }

    #[test]
    fn sections_weigh_their_subsets() {
        let rows = [
            ("a", 1.0),
            ("a", 0.0),
            ("b", 1.0),
            ("b", 1.0),
            ("b", 0.0),
            ("b", 1.0),
            ("c", 0.0),
            ("x", 1.0),
        ];
        let item = |subset: &str| Item {
            doc_id: 0,
            place: String::new(),
            question: String::new(),
            requests: Vec::new(),
            gold: Gold::Pair { subset: Some(subset.to_owned()) },
        };
        let items: Vec<Item> = rows.iter().map(|(subset, _)| item(subset)).collect();
        let score = |right: f64| {
            let (metric, filter) = (Metric::Acc, "none".to_owned());
            vec![RowScore { metric, filter, value: RowValue::Number(right) }]
        };
        let scores: Vec<Vec<RowScore>> = rows.iter().map(|(_, right)| score(*right)).collect();
        let sections =
            [section("S", &[("a", 3.0), ("b", 1.0)]), section("T", &[("c", 1.0), ("d", 9.0)])];
        check(&sections).unwrap();
        let all = estimates(&items, &scores, &sections);
        let named: Vec<(String, f64, usize)> =
            all.iter().map(|e: &Estimate| (e.label(), e.value, e.n_rows)).collect();
        let expected = [
            ("acc", 0.625, 8),
            ("acc,a", 0.5, 2),
            ("acc,b", 0.75, 4),
            ("acc,c", 0.0, 1),
            ("acc,x", 1.0, 1),
            // (3 × 0.5 + 0.75) / 4, and 0 for the only subset with rows.
            ("section,S", 0.5625, 6),
            ("section,T", 0.0, 1),
            ("score", 0.28125, 7),
        ];
        assert_eq!(named, expected.map(|(name, value, n)| (name.to_owned(), value, n)));
        // Of a: 0.5; of b: √(0.75 × 0.25 / 3).
        let expected = ((3.0 * 0.5f64).powi(2) + 0.0625).sqrt() / 4.0;
        assert!((all[5].stderr.unwrap() - expected).abs() < 1e-12);
        assert_eq!(
            notes(&items, &sections),
            [
                "sections are without their subsets d, which have no rows",
                "subsets in no section: x"
            ]
        );
        assert!(check(&[section("S", &[("a", 0.0)])]).unwrap_err().contains("above 0"));
        assert!(check(&[section("S", &[("a", 1.0)]), section("T", &[("a", 1.0)])]).is_err());
    }
}
