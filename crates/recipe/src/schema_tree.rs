//! Tree of the keys and values of a recipe, read from the JSON Schema of its types. Checks, hints and
//! the reference page use it.

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::text_format::TextFormat;

/// Type of a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Table(Table),
    /// One of several tables, selected by a key.
    Choice {
        title: String,
        doc: String,
        variants: Vec<Variant>,
    },
    List {
        item: Box<Node>,
        min: usize,
        max: usize,
        /// Whether a single item can be written in place of the list.
        or_one: bool,
    },
    /// A table with arbitrary keys, such as columns of the data.
    Map(Box<Node>),
    Text(Text),
    Integer {
        min: i64,
        max: i64,
    },
    Number(Bounds),
    Boolean,
}

/// A section or an inline table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    /// Name of the Rust type, for links between tables.
    pub(crate) title: String,
    pub(crate) doc: String,
    pub(crate) keys: Vec<Key>,
}

/// A key of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) node: Node,
    pub(crate) required: bool,
    pub(crate) default: Option<Value>,
}

/// One of several tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variant {
    pub(crate) marker: Marker,
    pub(crate) table: Table,
}

/// The key that selects a table of a choice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Marker {
    /// Selected by the value of this key.
    Tag { key: String, value: String },
    /// Selected by the presence of this key.
    Key(String),
}

/// A string: one of several words, or text of a format.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text {
    pub(crate) words: Vec<Word>,
    pub(crate) format: Option<TextFormat>,
    pub(crate) non_empty: bool,
}

/// A valid word of a string.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Word {
    pub(crate) value: String,
    pub(crate) doc: String,
}

/// Range of a number.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) min: Option<f64>,
    pub(crate) above: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) below: Option<f64>,
}

impl Table {
    pub(crate) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that a value written in place of the table is probably meant for.
    pub(crate) fn only_required(&self) -> Option<&str> {
        let mut required = self.keys.iter().filter(|key| key.required);
        match (required.next(), required.next()) {
            (Some(only), None) => Some(&only.name),
            (None, _) => self.key("kind").map(|key| key.name.as_str()),
            (Some(_), Some(_)) => None,
        }
    }
}

impl Variant {
    /// Whether a table without the marker selects this variant.
    pub(crate) fn is_default(&self) -> bool {
        match &self.marker {
            Marker::Tag { key, .. } => self.table.key(key).is_some_and(|key| !key.required),
            Marker::Key(_) => false,
        }
    }
}

impl Node {
    /// The table, or the default of a choice.
    pub(crate) fn default_table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            Self::Choice { variants, .. } => {
                variants.iter().find(|variant| variant.is_default()).map(|variant| &variant.table)
            }
            Self::List { .. }
            | Self::Map(_)
            | Self::Text(_)
            | Self::Integer { .. }
            | Self::Number(_)
            | Self::Boolean => None,
        }
    }
}

impl Marker {
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Tag { key, .. } | Self::Key(key) => key,
        }
    }
}

/// Table of a whole recipe.
pub(crate) fn recipe() -> &'static Table {
    static RECIPE: LazyLock<Table> = LazyLock::new(of::<crate::Recipe>);
    &RECIPE
}

/// Table of a type.
pub(crate) fn of<T: JsonSchema>() -> Table {
    let root = crate::schema::of::<T>();
    let reader = Reader { definitions: root.get("$defs").and_then(Value::as_object) };
    match reader.node(&root) {
        Node::Table(table) => table,
        Node::Choice { .. }
        | Node::List { .. }
        | Node::Map(_)
        | Node::Text(_)
        | Node::Integer { .. }
        | Node::Number(_)
        | Node::Boolean => Table::default(),
    }
}

/// Converts a schema with its definitions to nodes.
struct Reader<'s> {
    definitions: Option<&'s Map<String, Value>>,
}

impl Reader<'_> {
    fn node(&self, schema: &Value) -> Node {
        if let Some(name) = definition(schema)
            && let Some(schema) = self.definitions.and_then(|all| all.get(name))
        {
            let mut node = self.node(schema);
            if let Node::Table(Table { title, .. }) | Node::Choice { title, .. } = &mut node {
                name.clone_into(title);
            }
            return node;
        }
        if let Some(options) = variants_of(schema) {
            return match options.as_slice() {
                [only] => self.node(only),
                [one, list] if list.get("items") == Some(one) => match self.node(list) {
                    Node::List { item, min, max, .. } => {
                        Node::List { item, min, max, or_one: true }
                    }
                    other @ (Node::Table(_)
                    | Node::Choice { .. }
                    | Node::Map(_)
                    | Node::Text(_)
                    | Node::Integer { .. }
                    | Node::Number(_)
                    | Node::Boolean) => other,
                },
                options if options.iter().all(|option| is_type(option, "string")) => {
                    Node::Text(words(options))
                }
                _ => {
                    // Properties next to the options belong to each of them.
                    let shared = self.table(schema).keys;
                    let variants = options.iter().flat_map(|option| self.variants(option, &shared));
                    let variants = variants.collect();
                    Node::Choice { title: String::new(), doc: doc(schema), variants }
                }
            };
        }
        match type_of(schema) {
            Some("object") => match schema.get("additionalProperties") {
                Some(value @ Value::Object(_)) => Node::Map(Box::new(self.node(value))),
                _ => Node::Table(self.table(schema)),
            },
            Some("array") => Node::List {
                item: Box::new(schema.get("items").map_or(Node::Boolean, |items| self.node(items))),
                min: integer(schema, "minItems").map_or(0, |n| n as usize),
                max: integer(schema, "maxItems").map_or(usize::MAX, |n| n as usize),
                or_one: false,
            },
            Some("string") => Node::Text(text(schema)),
            Some("integer") => Node::Integer {
                min: integer(schema, "minimum").unwrap_or(i64::MIN),
                max: integer(schema, "maximum").unwrap_or(i64::MAX),
            },
            Some("number") => Node::Number(Bounds {
                min: schema.get("minimum").and_then(Value::as_f64),
                above: schema.get("exclusiveMinimum").and_then(Value::as_f64),
                max: schema.get("maximum").and_then(Value::as_f64),
                below: schema.get("exclusiveMaximum").and_then(Value::as_f64),
            }),
            _ => Node::Boolean,
        }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        definition(schema).and_then(|name| self.definitions?.get(name)).unwrap_or(schema)
    }

    /// Tables of one option of a choice, each with the `shared` keys. A nested choice is flattened.
    fn variants(&self, option: &Value, shared: &[Key]) -> Vec<Variant> {
        match self.node(option) {
            Node::Table(mut table) => {
                let marker = marker(self.resolve(option), &table);
                let at = table.keys.iter().position(|key| key.name == marker.key());
                let at = at.map_or(0, |idx| idx + 1);
                table.keys.splice(at..at, shared.iter().cloned());
                // The key of an externally tagged enum has the documentation of its variant.
                for key in table
                    .keys
                    .iter_mut()
                    .filter(|key| key.name == marker.key() && key.doc.is_empty())
                {
                    key.doc.clone_from(&table.doc);
                }
                vec![Variant { marker, table }]
            }
            Node::Choice { variants, .. } => variants,
            Node::List { .. }
            | Node::Map(_)
            | Node::Text(_)
            | Node::Integer { .. }
            | Node::Number(_)
            | Node::Boolean => Vec::new(),
        }
    }

    fn table(&self, schema: &Value) -> Table {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| required.is_some_and(|names| names.iter().any(|n| n == name));
        let properties = schema.get("properties").and_then(Value::as_object);
        let keys = properties.into_iter().flatten().map(|(name, schema)| Key {
            name: name.clone(),
            doc: doc(schema),
            node: self.node(schema),
            required: is_required(name),
            default: schema.get("default").cloned(),
        });
        Table { title: title(schema), doc: doc(schema), keys: keys.collect() }
    }
}

/// Name of the type that a schema refers to.
fn definition(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

/// Options of a choice.
fn variants_of(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()
}

/// Marker of a table of a choice: a key with a fixed value, or else the first required key.
fn marker(schema: &Value, table: &Table) -> Marker {
    let properties = schema.get("properties").and_then(Value::as_object);
    let tag = properties.into_iter().flatten().find_map(|(key, schema)| {
        let value = schema.get("const").and_then(Value::as_str)?;
        Some(Marker::Tag { key: key.clone(), value: value.to_owned() })
    });
    tag.unwrap_or_else(|| {
        Marker::Key(
            table
                .keys
                .iter()
                .find(|key| key.required)
                .map(|key| key.name.clone())
                .unwrap_or_default(),
        )
    })
}

fn text(schema: &Value) -> Text {
    let named = |value: &Value| Word {
        value: value.as_str().unwrap_or_default().to_owned(),
        doc: doc(schema),
    };
    let words = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(only), _) => vec![named(only)],
        (None, Some(words)) => words.iter().map(named).collect(),
        (None, None) => Vec::new(),
    };
    Text {
        words,
        format: schema.get("format").and_then(Value::as_str).and_then(TextFormat::from_name),
        non_empty: integer(schema, "minLength").is_some_and(|n| n > 0),
    }
}

fn words(options: &[Value]) -> Text {
    Text {
        words: options.iter().flat_map(|option| text(option).words).collect(),
        ..Text::default()
    }
}

fn is_type(schema: &Value, name: &str) -> bool {
    type_of(schema) == Some(name)
}

fn type_of(schema: &Value) -> Option<&str> {
    schema.get("type")?.as_str()
}

fn integer(schema: &Value, key: &str) -> Option<i64> {
    schema.get(key)?.as_i64()
}

/// A doc comment as one paragraph.
fn doc(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn title(schema: &Value) -> String {
    schema.get("title").and_then(Value::as_str).unwrap_or_default().to_owned()
}
