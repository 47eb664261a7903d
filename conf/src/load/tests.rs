//! The table of keys against the reader, the manual, the schema and the corpus; and bad input.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::environment::Plenty;
use crate::keys::{self, Kind, Need, Shape};
use crate::raw::{self, Node, Value};

/// A file in which every key appears.
const WHOLE: &str = include_str!("../../../tests/conf/valid/every-key.toml");

fn try_load(text: &str) -> Result<Config, LoadError> {
    load_with(text, Path::new("edge.toml"), &Plenty)
}

fn loaded(text: &str) -> Config {
    match try_load(text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// The keys of every shape, as the reader records them.
fn declared() -> BTreeSet<String> {
    ROOT.family()
        .iter()
        .flat_map(|shape| {
            shape
                .keys
                .iter()
                .map(|key| format!("{}.{}", shape.id, key.name))
        })
        .collect()
}

#[test]
fn every_declared_key_is_read_and_every_key_read_is_declared() {
    let findings = Findings::default();
    let mut reading = Reading {
        environment: &Plenty,
        findings: &findings,
        sources: Sources::default(),
        documents: Vec::new(),
        bytes: Vec::new(),
    };
    reading.take(Path::new("edge.toml"), WHOLE.as_bytes().to_vec());
    let (config, used) = understand(&reading);
    assert!(config.is_some());
    let declared = declared();
    let unread: Vec<_> = declared.difference(&used).collect();
    let undeclared: Vec<_> = used.difference(&declared).collect();
    assert!(unread.is_empty(), "declared and never read: {unread:?}");
    assert!(
        undeclared.is_empty(),
        "read and not declared: {undeclared:?}"
    );
}

#[test]
fn every_declared_key_appears_in_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conf/valid");
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "toml") {
            let mut sources = Sources::default();
            let file = sources.add(path.clone(), fs::read_to_string(path).expect("text"));
            let parsed = raw::parse(&mut sources, file);
            walk(&parsed.root, &ROOT, &mut seen);
        }
    }
    let missing: Vec<_> = declared().difference(&seen).cloned().collect();
    assert!(missing.is_empty(), "in no valid file: {missing:?}");
}

fn walk(node: &Node, shape: &'static Shape, seen: &mut BTreeSet<String>) {
    let Value::Table(entries) = &node.value else {
        return;
    };
    for entry in entries {
        let Some(key) = shape.key(&entry.key) else {
            continue;
        };
        seen.insert(format!("{}.{}", shape.id, key.name));
        into(&entry.node, &key.kind, seen);
    }
}

fn into(node: &Node, kind: &'static Kind, seen: &mut BTreeSet<String>) {
    match (kind, &node.value) {
        (Kind::Table(shape), _) => walk(node, shape, seen),
        (Kind::Named(shape), Value::Table(entries)) => {
            for entry in entries {
                walk(&entry.node, shape, seen);
            }
        }
        (Kind::Tables(shape), Value::List(items)) => {
            items.iter().for_each(|item| walk(item, shape, seen));
        }
        (Kind::List { of, .. } | Kind::OneOrMore(of), Value::List(items)) => {
            items.iter().for_each(|item| into(item, of, seen));
        }
        (Kind::Map { of, .. }, Value::Table(entries)) => {
            entries.iter().for_each(|entry| into(&entry.node, of, seen));
        }
        (Kind::Either(kinds), _) => kinds.iter().for_each(|kind| into(node, kind, seen)),
        _ => {}
    }
}

/// The text without one entry and the comma that goes with it.
fn without(text: &str, entry: &raw::Entry) -> String {
    let (before, rest) = text.split_at(entry.place.start);
    let after = &rest[entry.node.place.end - entry.place.start..];
    match after.trim_start().strip_prefix(',') {
        Some(after) => format!("{before}{after}"),
        None => format!("{}{after}", before.trim_end_matches([',', ' '])),
    }
}

/// Every entry written as `key = value`, those inside tables and lists too.
fn entries(node: &Node) -> Vec<&raw::Entry> {
    match &node.value {
        Value::Table(inner) => inner
            .iter()
            .flat_map(|entry| {
                let plain = entry.node.place.start > entry.place.end;
                let own = plain.then_some(entry);
                own.into_iter().chain(entries(&entry.node))
            })
            .collect(),
        Value::List(items) => items.iter().flat_map(entries).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_key_changes_the_configuration_or_is_missed() {
    let mut sources = Sources::default();
    let file = sources.add("edge.toml".into(), WHOLE.into());
    let parsed = raw::parse(&mut sources, file);
    let whole = format!(
        "{:?}",
        Config {
            hash: 0,
            warnings: Vec::new(),
            ..loaded(WHOLE)
        }
    );
    let entries = entries(&parsed.root);
    assert!(entries.len() > 100, "only {} entries", entries.len());
    for entry in entries {
        let value = &WHOLE[entry.node.place.start..entry.node.place.end];
        if is_default(&entry.key, value) {
            continue;
        }
        if let Ok(config) = try_load(&without(WHOLE, entry)) {
            let fewer = format!(
                "{:?}",
                Config {
                    hash: 0,
                    warnings: Vec::new(),
                    ..config
                }
            );
            let (line, _) = sources.position(entry.place);
            assert!(
                whole != fewer,
                "`{}` in line {line} changes nothing",
                entry.key
            );
        }
    }
}

fn is_default(name: &str, value: &str) -> bool {
    let family = ROOT.family();
    let mut keys = family.iter().filter_map(|shape| shape.key(name));
    keys.any(|key| matches!(key.need, Need::Default(default) if default == value))
}

/// Every default of a shape spelled out, each in a line.
fn spelled(shape: &Shape, between: &str) -> String {
    let each: Vec<String> = shape
        .keys
        .iter()
        .filter_map(|key| match key.need {
            Need::Default(value) => Some(format!("{} = {value}", key.name)),
            _ => None,
        })
        .collect();
    each.join(between)
}

#[test]
fn the_defaults_in_the_manual_are_those_in_force() {
    let inner = |id: &str| {
        let family = ROOT.family();
        let shape = family.iter().find(|shape| shape.id == id);
        spelled(shape.expect("a shape"), ", ")
    };
    let file = |full: bool| {
        let lines = |shape| {
            if full {
                spelled(shape, "\n")
            } else {
                String::new()
            }
        };
        let more = |id| match full {
            true => format!(", {}", inner(id)),
            false => String::new(),
        };
        let only = |id| if full { inner(id) } else { String::new() };
        [
            format!("[server]\nzone = \"z\"\nmaintenance = {{ file = \"closed\"{} }}\n{}", more("maintenance"), lines(&keys::SERVER)),
            format!("[log]\n{}\n[log.access]\npath = \"-\"\n{}", lines(&keys::LOG), only("access_log").replace(", ", "\n")),
            format!("[limits]\n{}\n[overload]\n{}", lines(&keys::LIMITS), lines(&keys::OVERLOAD)),
            format!("[cache]\n{}", lines(&keys::CACHE)),
            format!("[[listener]]\naddress = \"127.0.0.1:80\"\n{}", lines(&keys::LISTENER)),
            "[[listener]]\naddress = \"127.0.0.1:443\"\ntls = true".into(),
            format!(
                "[tls]\ncertificates = [{{ cert = \"a.pem\", key = \"a.key\" }}]\nacme = [{{ hosts = [\"a.example\"], storage = \"acme\"{} }}, {{ hosts = [\"b.example\"], storage = \"acme\", challenge = \"dns-01\", rfc2136 = {{ server = \"192.0.2.1:53\", zone = \"b.example\", key_name = \"k\", secret = {{ env = \"S\" }}{} }} }}]\n{}",
                more("acme"), more("rfc2136"), lines(&keys::TLS)
            ),
            format!(
                "[upstream.a]\nendpoints = [{{ address = \"a:1\", zone = \"z\"{} }}, {{ address = \"b:1\", backup = true }}]\nhealth_check = {{ type = \"http\"{} }}\ntls = {{ {} }}\n{}",
                more("endpoint"), more("health_check"), only("upstream_tls"), lines(&keys::UPSTREAM)
            ),
            format!(
                "[upstream.b]\nendpoints = [\"a:1\"]\nprotocol = \"h2\"\ndiscovery = {{ url = \"http://a/\"{} }}\nresolve = {{ {} }}",
                more("discovery"), only("resolve")
            ),
            format!("balance = {{ least_request = {{ {} }} }}\nqueue = {{ size = 1{} }}", only("least_request"), more("queue")),
            format!("adaptive_concurrency = {{ {} }}\nkeepalive = {{ {} }}", only("adaptive_concurrency"), only("keepalive")),
            format!("outlier_detection = {{ error_rate = \"50%\"{} }}", more("outlier_detection")),
            format!("retry = {{ {} }}\nhedge = {{ {} }}", only("retry"), only("hedge")),
            format!(
                "[static.s]\nroot = \"public\"\nimages = {{ cache = \"/var/cache/images\"{} }}\n{}",
                more("images"), lines(&keys::STATIC)
            ),
            format!("[error_pages.e]\nroot = \"errors\"\npages = {{ 4xx = \"4.html\" }}\n{}", lines(&keys::ERROR_PAGES)),
            format!("[[route]]\nmatch = {{ path = \"/a\" }}\nerror_pages = \"e\"\nupstream = \"a\"\ncache = {{ {} }}\nearly_hints = {{ {} }}\n{}", only("route_cache"), only("early_hints"), lines(&keys::ROUTE)),
            "[[route]]\nmatch = { path = \"/e\" }\nupstream = \"b\"".into(),
            "[[route]]\nmatch = { path = \"/b\" }\nstatic = \"s\"".into(),
            format!("[[route]]\nmatch = {{ path = \"/c\" }}\nredirect = {{ to = \"/\"{} }}", more("redirect")),
            format!("[[route]]\nmatch = {{ path = \"/d\" }}\nrespond = {{ {} }}", only("respond")),
        ]
        .join("\n")
    };
    let told = loaded(&file(true));
    let silent = loaded(&file(false));
    assert_eq!(told.warnings, [], "nothing odd in it");
    assert_eq!(
        format!("{:#?}", Config { hash: 0, ..told }),
        format!("{:#?}", Config { hash: 0, ..silent })
    );
}

#[test]
fn the_examples_of_the_manual_make_one_file_that_loads_without_a_warning() {
    let examples: Vec<&str> = ROOT
        .keys
        .iter()
        .flat_map(|key| key.kind.shapes())
        .map(|shape| shape.example)
        .collect();
    assert!(examples.iter().all(|example| !example.is_empty()));
    let config = loaded(&examples.concat());
    assert_eq!(config.warnings, []);
    let smallest = crate::reference();
    let smallest = smallest
        .split("```")
        .nth(1)
        .and_then(|block| block.strip_prefix("toml\n"));
    assert_eq!(loaded(smallest.expect("the first example")).routes.len(), 1);
}

#[test]
fn the_manual_on_the_disk_is_the_one_written_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, crate::reference()).expect("written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == crate::reference(),
        "docs/configuration.md is out of step; write it anew with UPDATE_DOCS=1 cargo test -p conf"
    );
}

#[test]
fn every_key_stands_in_the_manual_and_in_the_schema() {
    let manual = crate::reference();
    let schema = crate::schema();
    for shape in ROOT.family() {
        for key in shape.keys {
            let row = format!("| `{}` | ", key.name);
            assert!(
                manual.contains(&row),
                "{}.{} is not in the manual",
                shape.id,
                key.name
            );
            assert!(schema.contains(&format!("\"{}\": {{", key.name)));
        }
    }
    let rows = manual
        .lines()
        .filter(|line| line.starts_with("| `"))
        .count();
    assert_eq!(
        rows,
        declared().len(),
        "no row without a key, and none twice"
    );
}

#[test]
fn the_hash_tells_files_apart() {
    let one = hash(&[b"ab".to_vec(), b"c".to_vec()]);
    assert_ne!(
        one,
        hash(&[b"a".to_vec(), b"bc".to_vec()]),
        "where one ends counts"
    );
    assert_eq!(one, hash(&[b"ab".to_vec(), b"c".to_vec()]));
    assert_ne!(loaded(WHOLE).hash, 0);
}

/// What must hold whatever stands in the file.
fn holds_for(text: &str) -> Result<(), TestCaseError> {
    let lines = text.lines().count().max(1);
    match try_load(text) {
        Ok(config) => prop_assert!(!config.listeners.is_empty() && !config.routes.is_empty()),
        Err(error) => {
            prop_assert!(!error.diagnostics.is_empty());
            for diagnostic in &error.diagnostics {
                prop_assert!(diagnostic.severity == Severity::Error);
                prop_assert!(diagnostic.line <= lines + 1, "{}", diagnostic);
                prop_assert!(!diagnostic.message.contains("without a reason"), "{}", text);
                prop_assert!(!diagnostic.message.contains('\n'), "{}", diagnostic.message);
            }
            prop_assert!(!error.to_string().is_empty());
        }
    }
    Ok(())
}

/// One change of a text.
#[derive(Debug, Clone)]
enum Edit {
    Delete(usize, usize),
    Insert(usize, String),
    SwapLines(usize, usize),
    DoubleLine(usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let piece = prop_oneof![
        "[\\[\\]{}=\",.'#;:$\\\\*/\\n -]{1,2}",
        "\\PC{1,3}",
        "(true|false|1|-1|0|99999999999999999999|1.5|\"\"|\"0s\"|\"1B\"|\\[\\]|\\{\\}|1979-05-27)",
    ];
    let edit = prop_oneof![
        (0usize..8000, 1usize..12).prop_map(|(at, n)| Edit::Delete(at, n)),
        (0usize..8000, piece).prop_map(|(at, text)| Edit::Insert(at, text)),
        (0usize..200, 0usize..200).prop_map(|(a, b)| Edit::SwapLines(a, b)),
        (0usize..200).prop_map(Edit::DoubleLine),
    ];
    prop::collection::vec(edit, 1..6)
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for edit in edits {
        let len = chars.len();
        match edit {
            Edit::Delete(at, n) => {
                let at = at % (len + 1);
                chars.drain(at..(at + n).min(len));
            }
            Edit::Insert(at, text) => {
                let at = at % (len + 1);
                chars.splice(at..at, text.chars());
            }
            Edit::SwapLines(a, b) => {
                let whole: String = chars.iter().collect();
                let mut lines: Vec<&str> = whole.split('\n').collect();
                let count = lines.len();
                lines.swap(a % count, b % count);
                chars = lines.join("\n").chars().collect();
            }
            Edit::DoubleLine(at) => {
                let whole: String = chars.iter().collect();
                let mut lines: Vec<&str> = whole.split('\n').collect();
                let at = at % lines.len();
                lines.insert(at, lines[at]);
                chars = lines.join("\n").chars().collect();
            }
        }
    }
    chars.into_iter().collect()
}

/// A value where it does not belong, under keys that exist: what an editor's completion can produce.
fn soup() -> impl Strategy<Value = String> {
    let names: Vec<String> = ROOT
        .family()
        .iter()
        .flat_map(|shape| shape.keys.iter().map(|key| key.name.to_owned()))
        .collect();
    let value = prop_oneof![
        Just("true".to_owned()),
        Just("-5".to_owned()),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        Just("[[]]".to_owned()),
        Just("[{}]".to_owned()),
        Just("\"/\"".to_owned()),
        Just("\"127.0.0.1:80\"".to_owned()),
        Just("\"a\"".to_owned()),
        Just("2.5".to_owned()),
        Just("07:32:00".to_owned()),
        Just("{ a = { b = [1] } }".to_owned()),
    ];
    let header = prop::sample::select(vec![
        "[server]",
        "[admin]",
        "[log]",
        "[limits]",
        "[overload]",
        "[[listener]]",
        "[tls]",
        "[upstream.a]",
        "[static.a]",
        "[error_pages.a]",
        "[cache]",
        "[filter.a]",
        "[[route]]",
        "[route]",
        "[upstream]",
        "[[upstream]]",
    ]);
    let line = (prop::sample::select(names), value)
        .prop_map(|(name, value)| format!("{name} = {value}\n"));
    let section = (header, prop::collection::vec(line, 0..6))
        .prop_map(|(header, lines)| format!("{header}\n{}", lines.concat()));
    prop::collection::vec(section, 0..6).prop_map(|sections| sections.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_explained_and_nothing_panics(edits in edits()) {
        holds_for(&edited(WHOLE, &edits))?;
    }

    #[test]
    fn known_keys_with_wrong_values_are_explained(text in soup()) {
        holds_for(&text)?;
    }

    #[test]
    fn any_text_is_explained(text in "(\\PC|[\\[\\]{}=\"'\\n.#a]){0,60}") {
        holds_for(&text)?;
    }
}
