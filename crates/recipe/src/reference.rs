//! Reference page and JSON Schema, generated from the documentation of the types. Writes no file; a
//! test compares the committed ones.

use std::fmt::Write;

use serde_json::Value;

use crate::input_keys::InputKeys;
use crate::schema_tree::{self, Key, Marker, Node, Table, Text, Variant};
use crate::train_keys::TrainKeys;
use crate::validate::plain;

const INTRO: &str = "\
<!-- Generated from the doc comments in crates/recipe by `UPDATE_DOCS=1 cargo test -p recipe`. Edit those, not this page. -->

# Recipe reference

A recipe is a TOML file. `recipes/` has commented examples, and `docs/recipe.schema.json` is a JSON Schema for editors
that complete TOML. Keys that are not on this page are errors.

`--set` overrides a key for one run: `--set pretrain.max_steps=60`, `--set sft.data[0].limit=100`, `--set device=cuda`.
A value that is not TOML is read as a string.

Paths are relative to the recipe. `data:sft/x.json` is a path in the data directory: `--data-dir`, or the environment
variable `TEMPER_DATA`, or the key `data_dir`, or `data` in the working directory, in this order.
";

/// Content of docs/recipe.md: every key with its values, default and description.
pub fn reference_markdown() -> String {
    let mut page =
        Page { text: INTRO.to_owned(), written: Vec::new(), anchors: Vec::new(), groups: groups() };
    let root = schema_tree::recipe();
    page.heading(2, "Top level");
    page.paragraph(&root.doc);
    page.keys(root, "required");
    for key in &root.keys {
        page.section(&format!("`[{}]`", key.name), &key.node);
    }
    for group in groups() {
        page.heading(2, group.heading);
        page.paragraph(&group.table.doc);
        page.keys(&group.table, "required");
        page.nested(&group.table);
    }
    for (placeholder, anchor) in page.anchors {
        page.text = page.text.replace(&placeholder, &anchor);
    }
    page.text
}

/// Content of docs/recipe.schema.json.
pub fn json_schema() -> Value {
    crate::schema::of::<crate::Recipe>()
}

/// Keys of several sections, which the page lists once.
struct Group {
    heading: &'static str,
    table: Table,
}

fn groups() -> [Group; 2] {
    [
        Group {
            heading: "Keys of every stage that reads data",
            table: schema_tree::of::<InputKeys>(),
        },
        Group { heading: "Keys of every training stage", table: schema_tree::of::<TrainKeys>() },
    ]
}

struct Page {
    text: String,
    /// Types that are already on the page.
    written: Vec<String>,
    /// Placeholder and anchor of each type.
    anchors: Vec<(String, String)>,
    groups: [Group; 2],
}

impl Page {
    fn heading(&mut self, level: usize, text: &str) {
        let _ = write!(self.text, "\n{} {text}\n", "#".repeat(level));
    }

    fn paragraph(&mut self, text: &str) {
        if !text.is_empty() {
            let _ = write!(self.text, "\n{text}\n");
        }
    }

    /// A table or a choice of tables under a heading, with its nested tables.
    fn section(&mut self, heading: &str, node: &Node) {
        if let Node::Table(Table { title, .. }) | Node::Choice { title, .. } = node
            && !self.written.contains(title)
        {
            self.anchors.push((placeholder(node), slug(heading)));
        }
        match node {
            Node::Table(table) => {
                if self.is_written(table) {
                    return;
                }
                self.heading(2, heading);
                self.paragraph(&table.doc);
                self.own_keys(table);
                self.nested(&self.without_groups(table));
            }
            Node::Choice { title, doc, variants } => {
                if self.written.contains(title) {
                    return;
                }
                self.written.push(title.clone());
                self.heading(2, heading);
                self.paragraph(doc);
                self.variants(variants);
            }
            Node::List { .. }
            | Node::Map(_)
            | Node::Text(_)
            | Node::Integer { .. }
            | Node::Number(_)
            | Node::Boolean => {}
        }
    }

    fn is_written(&mut self, table: &Table) -> bool {
        let written = self.written.contains(&table.title);
        self.written.push(table.title.clone());
        written
    }

    fn variants(&mut self, variants: &[Variant]) {
        // Tables that differ by one key each form one list of keys.
        if variants.iter().all(|variant| matches!(variant.marker, Marker::Key(_))) {
            let keys = variants.iter().flat_map(|variant| variant.table.keys.clone()).collect();
            let table = Table { keys, ..Table::default() };
            self.keys(&table, "one of these");
            return self.nested(&table);
        }
        for variant in variants {
            match &variant.marker {
                Marker::Tag { key, value } => self.heading(3, &format!("`{key} = \"{value}\"`")),
                Marker::Key(key) => self.heading(3, &format!("`{key} = …`")),
            }
            self.paragraph(&variant.table.doc);
            self.keys(&variant.table, "required");
        }
        for variant in variants {
            self.nested(&variant.table);
        }
    }

    /// Keys of a section, without those of a group.
    fn own_keys(&mut self, table: &Table) {
        let links: Vec<String> = self
            .groups
            .iter()
            .filter(|group| has_group(table, group))
            .map(|group| format!("[{}](#{})", lower_first(group.heading), slug(group.heading)))
            .collect();
        if !links.is_empty() {
            self.paragraph(&format!(
                "This section has the {}, and these:",
                links.join(" and the ")
            ));
        }
        self.keys(&self.without_groups(table), "required");
    }

    fn without_groups(&self, table: &Table) -> Table {
        let in_group = |key: &Key| {
            self.groups
                .iter()
                .any(|group| has_group(table, group) && group.table.key(&key.name).is_some())
        };
        let keys = table.keys.iter().filter(|key| !in_group(key)).cloned().collect();
        Table { keys, ..table.clone() }
    }

    /// A table of keys. `required` is the text for a required key, in place of a default.
    fn keys(&mut self, table: &Table, required: &str) {
        self.text
            .push_str("\n| key | value | default | description |\n| --- | --- | --- | --- |\n");
        for key in &table.keys {
            let row =
                [format!("`{}`", key.name), values(key), default(key, required), description(key)];
            let row: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
    }

    /// Sections of the tables within a table.
    fn nested(&mut self, table: &Table) {
        for key in &table.keys {
            if let Node::List { item, .. } = &key.node {
                self.section(&entry_heading(&key.name), item);
            } else {
                self.section(&format!("`{}`", key.name), &key.node);
            }
        }
    }
}

fn has_group(table: &Table, group: &Group) -> bool {
    group.table.keys.iter().all(|key| table.key(&key.name) == Some(key))
}

fn entry_heading(name: &str) -> String {
    format!("An entry of `{name}`")
}

/// Placeholder for the anchor of a type, which is known once its section has been written.
fn placeholder(node: &Node) -> String {
    match node {
        Node::Table(Table { title, .. }) | Node::Choice { title, .. } => format!("@{title}@"),
        Node::List { .. }
        | Node::Map(_)
        | Node::Text(_)
        | Node::Integer { .. }
        | Node::Number(_)
        | Node::Boolean => String::new(),
    }
}

/// Values of a key.
fn values(key: &Key) -> String {
    match &key.node {
        Node::Table(_) | Node::Choice { .. } => {
            format!("[table](#{})", placeholder(&key.node))
        }
        Node::List { item, or_one: true, .. } => format!("{}, or a list of them", scalar(item)),
        Node::List { item, min, max, or_one: false } => match item.as_ref() {
            Node::Table(_) | Node::Choice { .. } => {
                format!("list of [tables](#{})", placeholder(item))
            }
            Node::List { .. }
            | Node::Map(_)
            | Node::Text(_)
            | Node::Integer { .. }
            | Node::Number(_)
            | Node::Boolean => {
                let n = if min == max { format!(" {min}") } else { String::new() };
                format!("list of{n}: {}", scalar(item))
            }
        },
        Node::Map(value) => {
            if let Node::List { item, .. } = value.as_ref() {
                format!("table: `column = […]` of {}s", scalar(item))
            } else {
                format!("table: `column =` {}", scalar(value))
            }
        }
        Node::Text(_) | Node::Integer { .. } | Node::Number(_) | Node::Boolean => scalar(&key.node),
    }
}

fn scalar(node: &Node) -> String {
    match node {
        Node::Text(Text { words, .. }) if !words.is_empty() => {
            words.iter().map(|word| format!("`\"{}\"`", word.value)).collect::<Vec<_>>().join(", ")
        }
        Node::Text(Text { format: Some(format), .. }) => format.label().to_owned(),
        Node::Text(_) => "string".to_owned(),
        Node::Integer { min: i64::MIN | 0, max: i64::MAX } => "integer".to_owned(),
        Node::Integer { min, max: i64::MAX } => format!("integer, at least {min}"),
        Node::Integer { min, max } => format!("integer, {min} to {}", grouped(*max)),
        Node::Number(bounds) => format!("number, {}", bounds.words()),
        Node::Boolean => "`true`, `false`".to_owned(),
        Node::Table(_) | Node::Choice { .. } | Node::List { .. } | Node::Map(_) => {
            "table".to_owned()
        }
    }
}

/// An integer with digit groups, as in TOML: `1_048_576`.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let start = digits.len() % 3;
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && idx % 3 == start % 3 && digits.len() > 4 {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

fn default(key: &Key, required: &str) -> String {
    match &key.default {
        _ if key.required => required.to_owned(),
        None => String::new(),
        Some(Value::Object(_)) => "that of each key".to_owned(),
        Some(Value::Number(number)) if number.is_f64() => {
            format!("`{}`", plain(number.as_f64().unwrap_or_default()))
        }
        Some(value) => format!("`{value}`"),
    }
}

/// Documentation of a key and of its words.
fn description(key: &Key) -> String {
    let mut text = key.doc.clone();
    let node = if let Node::List { item, or_one: true, .. } = &key.node { item } else { &key.node };
    if let Node::Text(Text { words, .. }) = node {
        for word in words.iter().filter(|word| !word.doc.is_empty()) {
            let _ = write!(text, "<br>`{}`: {}", word.value, word.doc);
        }
    }
    text
}

/// Anchor of a heading in rendered Markdown.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Text with a lower-case first letter, unless it starts with an acronym.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second))
            if first.is_uppercase() && (second.is_lowercase() || second == ' ') =>
        {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}
