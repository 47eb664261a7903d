//! The corpus: files that load, files that load with a warning, and files that do not, each with what is said about it.
//!
//! `UPDATE_EXPECT=1 cargo test -p conf --test corpus` writes the expectations anew;
//! read what it changed as somebody who is called at night would.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Least number of files, so that a moved folder is noticed.
const INVALID: usize = 300;
const VALID: usize = 12;

fn corpus() -> PathBuf {
    // Tests run in the package's folder; a relative path keeps this machine out of the messages.
    PathBuf::from("../tests/conf")
}

/// The `*.toml` files of a folder, sorted.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = corpus().join(folder);
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    found.sort();
    found
}

/// A message without the way from here to the corpus.
fn shown(text: &str) -> String {
    let mut shown = text
        .replace("../tests/conf/invalid/", "")
        .replace("../tests/conf/warned/", "");
    shown = shown.replace("../tests/conf/", "");
    shown.push('\n');
    shown
}

/// Compares with the file beside `path`, or writes it.
fn compare(path: &Path, said: &str) -> Result<(), String> {
    let beside = path.with_extension("toml.expected");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&beside, said).expect("written");
        return Ok(());
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    if expected == said {
        return Ok(());
    }
    Err(format!(
        "{}\n--- expected\n{expected}--- said\n{said}",
        path.display()
    ))
}

fn all(checked: Vec<Result<(), String>>) {
    let failed: Vec<String> = checked.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_invalid_file_is_refused_with_the_expected_words() {
    let files = files("invalid");
    assert!(files.len() >= INVALID, "only {} files", files.len());
    all(files
        .iter()
        .map(|path| match conf::load(path) {
            Ok(_) => Err(format!("{} was accepted", path.display())),
            Err(error) => compare(path, &shown(&error.to_string())),
        })
        .collect());
}

#[test]
fn every_odd_file_loads_with_the_expected_warnings() {
    let files = files("warned");
    assert!(files.len() >= 8, "only {} files", files.len());
    all(files
        .iter()
        .map(|path| match conf::load(path) {
            Err(error) => Err(format!("{}\n{error}", path.display())),
            Ok(config) if config.warnings.is_empty() => {
                Err(format!("{}: no warning", path.display()))
            }
            Ok(config) => {
                let each: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
                compare(path, &shown(&each.join("\n\n")))
            }
        })
        .collect());
}

#[test]
fn every_valid_file_loads_without_a_warning() {
    let mut files = files("valid");
    assert!(files.len() >= VALID, "only {} files", files.len());
    files.extend(self::files("../../examples"));
    for path in files {
        match conf::load(&path) {
            Ok(config) => assert!(
                config.warnings.is_empty(),
                "{}: {}",
                path.display(),
                config.warnings[0]
            ),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_expectation_belongs_to_a_file() {
    for folder in ["invalid", "warned"] {
        for entry in fs::read_dir(corpus().join(folder)).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|end| end == "expected") {
                assert!(path.with_extension("").is_file(), "{}", path.display());
            }
        }
    }
}

#[test]
fn every_message_says_where_and_how_to_mend_it() {
    for path in files("invalid") {
        let Err(error) = conf::load(&path) else {
            continue;
        };
        for diagnostic in &error.diagnostics {
            assert!(
                diagnostic.label.is_some() || !diagnostic.help.is_empty(),
                "no way out is shown:\n{diagnostic}"
            );
            assert!(
                diagnostic.line == 0 || diagnostic.excerpt.is_some(),
                "no picture:\n{diagnostic}"
            );
        }
    }
}

/// What a TOML file says, as JSON; `None`: it is not TOML.
fn json(path: &Path) -> Option<Value> {
    fn convert(value: &toml::de::DeValue<'_>) -> Value {
        use toml::de::DeValue;
        match value {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Integer(number) => {
                Value::from(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(-1))
            }
            DeValue::Float(number) => Value::from(number.as_str().parse::<f64>().unwrap_or(0.5)),
            DeValue::Boolean(flag) => Value::from(*flag),
            DeValue::Datetime(date) => Value::from(date.to_string()),
            DeValue::Array(items) => items.iter().map(|item| convert(item.get_ref())).collect(),
            DeValue::Table(table) => object(table),
        }
    }
    fn object(table: &toml::de::DeTable<'_>) -> Value {
        let entries = table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), convert(value.get_ref())));
        Value::Object(entries.collect())
    }
    let text = fs::read_to_string(path).ok()?;
    let table = toml::de::DeTable::parse(&text).ok()?;
    Some(object(table.get_ref()))
}

/// The schema by a validator that knows nothing of this crate.
struct Schema {
    schemas: boon::Schemas,
    index: boon::SchemaIndex,
}

impl Schema {
    fn new() -> Self {
        let text: Value = serde_json::from_str(&conf::schema()).expect("JSON");
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler
            .add_resource("http://localhost/schema.json", text)
            .expect("a resource");
        let index = compiler
            .compile("http://localhost/schema.json", &mut schemas)
            .expect("a schema of draft 2020-12");
        Self { schemas, index }
    }

    fn refusal(&self, value: &Value) -> Option<String> {
        let checked = self.schemas.validate(value, self.index);
        checked.err().map(|error| error.to_string())
    }
}

#[test]
fn what_loads_is_valid_by_the_schema() {
    let schema = Schema::new();
    let mut files = [files("valid"), files("warned")].concat();
    files.extend(self::files("valid/sites"));
    files.extend(self::files("../../examples"));
    for path in files {
        let value = json(&path).unwrap_or_else(|| panic!("{}: TOML", path.display()));
        if let Some(why) = schema.refusal(&value) {
            panic!("{}: {why}", path.display());
        }
    }
}

#[test]
fn what_an_editor_can_see_is_refused_by_the_schema() {
    let schema = Schema::new();
    let invalid: Vec<Value> = files("invalid")
        .iter()
        .filter_map(|path| json(path))
        .collect();
    let refused = invalid
        .iter()
        .filter(|value| schema.refusal(value).is_some())
        .count();
    assert!(
        refused * 2 > invalid.len(),
        "only {refused} of {} are refused",
        invalid.len()
    );
}

/// The keys of the schema that a value has, as `limits.idle_timeout`.
///
/// By its table, not by its name alone: there is more than one `idle_timeout`.
/// What a file says wrongly ends the way there; what stands beside it is still found.
fn follow(
    whole: &Value,
    (table, schema): (&str, &Value),
    value: &Value,
    found: &mut BTreeSet<String>,
) {
    if let Some((_, id)) = schema["$ref"].as_str().and_then(|to| to.rsplit_once('/')) {
        follow(whole, (id, &whole["$defs"][id]), value, found);
        return;
    }
    for one in schema["anyOf"].as_array().into_iter().flatten() {
        follow(whole, (table, one), value, found);
    }
    for item in value.as_array().into_iter().flatten() {
        follow(whole, (table, &schema["items"]), item, found);
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        if let Some(known) = schema["properties"].get(key) {
            found.insert(format!("{table}.{key}"));
            follow(whole, (table, known), inner, found);
        } else {
            // In `[upstream.NAME]` the name is free.
            follow(
                whole,
                (table, &schema["additionalProperties"]),
                inner,
                found,
            );
        }
    }
}

#[test]
fn every_key_of_the_schema_stands_in_an_invalid_file() {
    let whole: Value = serde_json::from_str(&conf::schema()).expect("JSON");
    let mut tables = vec![("file", &whole)];
    let definitions = whole["$defs"].as_object().expect("definitions");
    tables.extend(definitions.iter().map(|(id, table)| (id.as_str(), table)));
    let declared: BTreeSet<String> = tables
        .iter()
        .flat_map(|(id, table)| {
            let keys = table["properties"].as_object().expect("keys").keys();
            keys.map(move |key| format!("{id}.{key}"))
        })
        .collect();
    assert!(declared.len() > 100, "only {} keys", declared.len());

    // A file that is no TOML says nothing about a key: its syntax is what is refused.
    let mut found = BTreeSet::new();
    for value in files("invalid").iter().filter_map(|path| json(path)) {
        follow(&whole, ("file", &whole), &value, &mut found);
    }
    let missing: Vec<&String> = declared.difference(&found).collect();
    assert!(missing.is_empty(), "in no invalid file: {missing:?}");
}
