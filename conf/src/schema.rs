//! The JSON Schema (draft 2020-12) that editors complete and check by.
//!
//! It knows the form of every key, not what belongs together over several
//! sections: what it refuses the loader refuses too, not the other way round.

use serde_json::{Map, Value, json};

use crate::keys::{Key, Kind, Need, ROOT, Shape};

/// The schema of a configuration file, pretty-printed, with a final newline.
#[must_use]
pub fn schema() -> String {
    let mut definitions = Map::new();
    for shape in ROOT.family().into_iter().skip(1) {
        definitions.insert(shape.id.to_owned(), object(shape));
    }
    let mut whole = object(&ROOT);
    if let Value::Object(root) = &mut whole {
        root.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        root.insert("title".into(), "Tidegate configuration".into());
        root.insert("$defs".into(), definitions.into());
    }
    let mut text = format!("{whole:#}");
    text.push('\n');
    text
}

/// An object with exactly the keys of a shape. An included file need not have
/// what the whole must have, so the root requires nothing.
fn object(shape: &Shape) -> Value {
    let mut properties = Map::new();
    for key in shape.keys {
        properties.insert(key.name.to_owned(), property(key));
    }
    let mut object = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    let required: Vec<&str> = shape
        .keys
        .iter()
        .filter(|key| matches!(key.need, Need::Required))
        .map(|key| key.name)
        .collect();
    if let Value::Object(object) = &mut object {
        if !required.is_empty() && !std::ptr::eq(shape, &ROOT) {
            object.insert("required".into(), json!(required));
        }
        if !shape.doc.is_empty() {
            object.insert("description".into(), shape.doc.into());
        }
    }
    object
}

fn property(key: &Key) -> Value {
    let mut value = of(&key.kind);
    if let Value::Object(value) = &mut value {
        let without = match key.need {
            Need::Required => String::new(),
            Need::Default(text) => format!("\n\nDefault: {text}"),
            Need::Optional(text) => format!("\n\nWithout it: {text}"),
        };
        value.insert("description".into(), format!("{}{without}", key.doc).into());
    }
    value
}

fn of(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Only(flag) => json!({ "const": flag }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration { .. } => {
            json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": ["30s"] })
        }
        Kind::Size { .. } => {
            json!({ "type": "string", "pattern": "^[0-9]+([KMGT]i?)?B$", "examples": ["16MiB"] })
        }
        Kind::Percent { max, .. } => {
            let pattern = match max {
                100 => "^(100|[0-9]{1,2})%$",
                _ => "^[0-9]{1,4}%$",
            };
            json!({ "type": "string", "pattern": pattern, "examples": [kind.sample().trim_matches('"')] })
        }
        Kind::Text(form) => {
            let mut value = json!({ "type": "string", "examples": [form.example] });
            if let (false, Value::Object(value)) = (form.pattern.is_empty(), &mut value) {
                value.insert("pattern".into(), form.pattern.into());
            }
            value
        }
        Kind::Choice(words) => {
            let each: Vec<Value> = words
                .iter()
                .map(|(word, doc)| json!({ "const": word, "description": doc }))
                .collect();
            json!({ "oneOf": each })
        }
        Kind::List { of: item, empty } => {
            json!({ "type": "array", "items": of(item), "minItems": u8::from(!empty), "uniqueItems": true })
        }
        Kind::OneOrMore(item) => json!({
            "anyOf": [of(item), { "type": "array", "items": of(item), "minItems": 1 }]
        }),
        Kind::Table(shape) => json!({ "$ref": reference(shape) }),
        Kind::Tables(shape) => {
            json!({ "type": "array", "items": { "$ref": reference(shape) }, "minItems": 1 })
        }
        Kind::Named(shape) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_.-]{1,64}$" },
            "additionalProperties": { "$ref": reference(shape) },
        }),
        Kind::Map { of: item, .. } => json!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": of(item),
        }),
        Kind::Either(kinds) => {
            let each: Vec<Value> = kinds.iter().map(of).collect();
            json!({ "anyOf": each })
        }
    }
}

fn reference(shape: &Shape) -> String {
    format!("#/$defs/{}", shape.id)
}
