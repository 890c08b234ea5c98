//! docs/security.md names a test for each claim; the tests exist.

use crate::support::root;

#[test]
fn every_test_that_the_page_names_exists() {
    let root = root();
    let page = std::fs::read_to_string(root.join("docs/security.md")).expect("the page");
    let spans = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let named: Vec<(&str, &str)> = spans.filter_map(|span| span.split_once(".rs::")).collect();
    assert!(named.len() > 20, "the tests were not found: {}", named.len());
    for (file, test) in named {
        let text = std::fs::read_to_string(root.join(format!("{file}.rs")));
        let text = text.unwrap_or_else(|error| panic!("{file}.rs: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{file}.rs has no test `{test}`");
    }
}
