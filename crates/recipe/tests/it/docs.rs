//! The committed pages are up to date.

use std::path::Path;

use crate::root;

/// Compares a committed page with the generated one, or writes it if `UPDATE_DOCS` is set.
#[track_caller]
fn check(name: &str, expected: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fsio::write_atomic(&path, expected.as_bytes()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == expected,
        "docs/{name} is not what crates/recipe says; write it anew with `UPDATE_DOCS=1 cargo test -p recipe`"
    );
}

#[test]
fn the_reference_page_is_up_to_date() {
    check("recipe.md", &recipe::reference_markdown());
}

#[test]
fn the_json_schema_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&recipe::json_schema()).unwrap();
    check("recipe.schema.json", &format!("{schema}\n"));
}

#[test]
fn every_key_is_documented_and_every_link_leads_somewhere() {
    let page = recipe::reference_markdown();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let (key, meaning) = (cells[0], cells.last().unwrap());
        let is_tag = ["| `kind`", "| `family`", "| `rope_type`"].contains(&key);
        assert!(is_tag || meaning.trim_matches([' ', '|']).len() > 5, "no documentation: {row}");
    }
    let slug = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect::<String>()
    };
    let headings: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("## "))
        .map(|line| slug(line.trim_start_matches("## ")))
        .collect();
    let mut unique = headings.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), headings.len(), "two headings would share an anchor");
    for link in page.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(headings.iter().any(|heading| heading == anchor), "no heading for #{anchor}");
    }
}

#[test]
fn every_optional_key_has_a_documented_default() {
    let page = recipe::reference_markdown();
    let mut n_keys = 0;
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [_, _, default, meaning] = cells[..] else { panic!("not four cells: {row}") };
        n_keys += 1;
        assert!(
            !default.trim().is_empty() || meaning.contains("Default: "),
            "no default; end its comment with `Default: …`: {row}"
        );
    }
    assert!(n_keys > 300, "only {n_keys} keys");
}

/// The defaults of the schema and of serde agree.
#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let text = crate::GOOD;
    let loaded = recipe::parse(text.as_bytes(), Path::new("r.toml"), &[]).unwrap();
    let written = serde_json::to_value(&loaded.recipe).unwrap();
    let schema = recipe::json_schema();
    let defaults = &schema["$defs"]["SftSection"]["properties"];
    let mut n_defaults = 0;
    for (key, property) in defaults.as_object().unwrap() {
        if let Some(default) = property.get("default") {
            assert_eq!(&written["sft"][key], default, "{key}");
            n_defaults += 1;
        }
    }
    assert!(n_defaults >= 8, "only {n_defaults} defaults");
}
