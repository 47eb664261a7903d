//! What the user wrote: a tree in which every key and every value knows its place.
//!
//! Syntax is the `toml` crate's business. It recovers from mistakes, so a file
//! with three of them shows three; where the rest of the tree can be trusted in
//! spite of them (a value without quotes), checking goes on. Its messages are
//! written for people who know the grammar; [`syntax`] says them in words for
//! people who know nginx.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::courtesy::give_way;
use crate::source::{FileId, Place, Sources};

mod syntax;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    /// Saturated where it is too large even for 128 bits.
    Integer(i128),
    Float(String),
    Bool(bool),
    Date,
    /// Only in JSON.
    Null,
    List(Vec<Node>),
    /// In file order.
    Table(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Value {
    /// What it is, with its article.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Bool(_) => "true or false",
            Self::Date => "a date",
            Self::Null => "null",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A file's tree, and the mistakes of syntax in it.
pub(crate) struct Parsed {
    pub(crate) root: Node,
    pub(crate) mistakes: Vec<syntax::Mistake>,
    /// Whether the tree says what the file says in spite of the mistakes.
    pub(crate) sound: bool,
}

/// Parses one file and marks the secrets in it that must not be shown.
pub(crate) fn parse(sources: &mut Sources, file: FileId) -> Parsed {
    let text = sources.text(file).to_owned();
    let (table, errors) = DeTable::parse_recoverable(&text);
    give_way();
    let mistakes = syntax::explain(&text, file, &errors);
    let sound = mistakes.iter().all(|mistake| mistake.harmless);
    let root = Node {
        place: Place::whole(file),
        value: convert_table(file, table.get_ref()),
    };
    give_way();
    let mut masked = Vec::new();
    secrets(&root, &mut masked);
    if !sound {
        masked.extend(syntax::secret_lines(&text));
    }
    if let Some(source) = sources.0.get_mut(file.0) {
        source.masked = masked;
    }
    Parsed {
        root,
        mistakes,
        sound,
    }
}

fn convert(file: FileId, value: &Spanned<DeValue<'_>>) -> Node {
    Node {
        place: Place::new(file, value.span()),
        value: match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Integer(
                i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX),
            ),
            DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| convert(file, item)).collect())
            }
            DeValue::Table(table) => convert_table(file, table),
        },
    }
}

fn convert_table(file: FileId, table: &DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            place: Place::new(file, key.span()),
            node: convert(file, value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.place);
    Value::Table(entries)
}

/// The values of every `token` written in plain: the only kind of secret there is.
fn secrets(node: &Node, masked: &mut Vec<std::ops::Range<usize>>) {
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                let plain = !matches!(entry.node.value, Value::Table(_));
                if plain && is_secret(&entry.key) {
                    masked.push(entry.node.place.start..entry.node.place.end);
                } else {
                    secrets(&entry.node, masked);
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| secrets(item, masked)),
        _ => {}
    }
}

/// Whether a key's value may be a secret: `token`, also misspelt or as others call it.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "secret", "passw", "tokn", "api_key", "apikey"]
        .iter()
        .any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Sources, Parsed) {
        let mut sources = Sources::default();
        let file = sources.add("a.toml".into(), text.into());
        let parsed = parse(&mut sources, file);
        (sources, parsed)
    }

    #[test]
    fn keys_stand_in_the_order_of_the_file() {
        let (_, parsed) = tree("[z]\nb = 1\na = 2\n[a]\n");
        let Value::Table(entries) = &parsed.root.value else {
            panic!("a table")
        };
        let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["z", "a"]);
    }

    #[test]
    fn a_plain_token_is_masked_in_a_sound_file_and_in_a_broken_one() {
        for text in [
            "[admin]\ntoken = \"hunter2\"\n",
            "admin = { token = \"hunter2\" }\n",
            "[admin\ntoken = \"hunter2\"\n",
            "[admin]\ntoken = \"hunter2\n",
            "[admin]\ntoken = hunter2 ;\n",
        ] {
            let (sources, parsed) = tree(text);
            let at = text.find("hunter2").expect("there");
            let place = Place::new(parsed.root.place.file, at..at + 1);
            let shown = sources.excerpt(place).expect("a line").text;
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_value_without_quotes_does_not_hide_other_mistakes() {
        let (_, parsed) = tree("a = 30s\nb = 1\n");
        assert!(parsed.sound, "the tree can be trusted");
        assert_eq!(parsed.mistakes.len(), 1);
    }
}
