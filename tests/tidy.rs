//! The shape of the source: who may depend on whom, what every module says of
//! itself, that the manual names everything there is.
//!
//! These rules are plain tests, so that breaking one is as visible as breaking
//! behaviour. Each looks at files or at what `cargo metadata` and the binary
//! say; none compiles anything.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines after which a file is to be asked whether it is two things.
const LONGEST: usize = 600;

/// Which crates of ours a crate may use.
const EDGES: &[(&str, &[&str])] = &[
    ("balancer", &[]),
    ("near", &[]),
    ("cache", &["near"]),
    ("conf", &[]),
    ("static-server", &["near"]),
    ("proxy", &["balancer", "cache", "conf", "static-server"]),
    ("tidegate", &["conf", "proxy", "static-server"]),
    (
        "instructions",
        &["balancer", "cache", "conf", "static-server"],
    ),
];

/// Outside libraries that only `proxy` may name.
const PROXY_ONLY: &[&str] = &["pingora", "prometheus"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the checkout that people write, as paths from its root.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(root(), &mut found);
    assert!(found.len() > 30, "only {} files", found.len());
    found.sort();
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    const NOT_OURS: &[&str] = &["target", ".git", "node_modules", "corpus", "artifacts"];
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|e| e == "rs");
    let sources: Vec<_> = files().into_iter().filter(is_rust).collect();
    assert!(sources.len() > 10, "only {} sources", sources.len());
    sources
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| format!("{}: {e}", path.display()))
}

/// Lines that are not comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[track_caller]
fn none_of(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}\n{}", found.join("\n"));
}

/// Dependencies by package: name, and whether it is one of tests or benches.
fn dependencies() -> BTreeMap<String, Vec<(String, bool)>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let said = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let names = dependencies
                .iter()
                .map(|one| (text(&one["name"]), one["kind"] == "dev"));
            (text(&package["name"]), names.collect())
        })
        .collect()
}

#[test]
fn crates_depend_one_way_only() {
    let found = dependencies();
    let ours: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    let there: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(there, ours, "a new crate wants its row in EDGES");
    let mut wrong = Vec::new();
    for (crate_name, allowed) in EDGES {
        for (used, dev) in &found[*crate_name] {
            // The benchmarks of the root package measure the leaves.
            if *dev && *crate_name == "tidegate" {
                continue;
            }
            if ours.contains(used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{crate_name} -> {used}"));
            }
        }
    }
    none_of(&wrong, "edges that the design does not have:");
}

#[test]
fn only_the_proxy_knows_the_machinery() {
    let mut wrong = Vec::new();
    for (crate_name, used) in dependencies() {
        for (name, only_tests) in used {
            let machinery = PROXY_ONLY.iter().any(|m| name.starts_with(m));
            if machinery && crate_name != "proxy" && !only_tests {
                wrong.push(format!("{crate_name} -> {name}"));
            }
        }
    }
    none_of(&wrong, "these belong behind proxy:");
}

#[test]
fn decisions_name_no_carrier_of_bytes() {
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for (path, text) in sources() {
        let place = path.to_string_lossy();
        let decides = ["proxy/src/exchange/", "proxy/src/filter/"]
            .iter()
            .any(|folder| place.starts_with(folder));
        looked_at += usize::from(decides);
        for (at, line) in code(&text) {
            let volatile = line.contains("pingora_cache") || line.contains("pingora::cache");
            let machinery = line.contains("pingora::") || line.contains("pingora_");
            let glue = place == "proxy/src/carry/cache_glue.rs" || place == "tests/tidy.rs";
            if (decides && machinery) || (volatile && !glue) {
                wrong.push(format!("{place}:{at}: {}", line.trim()));
            }
        }
    }
    assert!(looked_at >= 5, "only {looked_at} files decide");
    none_of(
        &wrong,
        "decisions see our own types, and one file the volatile API:",
    );
}

/// What is decided about a request is decided elsewhere, for both carriers.
#[test]
fn the_lane_names_no_filter_and_no_policy() {
    const WORDS: &[&str] = &[
        "balancer::",
        "conf::",
        "PickContext",
        "Outcome",
        "may_retry",
        "is_idempotent",
        "on_statuses",
        "max_header_size",
        "storable",
        "max_body_size",
        "early_refresh",
        "reuse::",
        "condition::",
        "range::",
        "coding::",
        ".retry.",
        "hit_for_miss",
    ];
    const OF_FILTERS: &[&str] = &["Chain", "FieldsMut", "Reply"];
    let mut found = Vec::new();
    let mut count = 0;
    for (path, text) in sources() {
        if !path.starts_with("proxy/src/carry/lane") {
            continue;
        }
        count += 1;
        for (line, text) in code(&text) {
            let named = WORDS.iter().find(|word| text.contains(**word));
            let used = text.trim().strip_prefix("use crate::filter::");
            let used = used.map(|names| names.trim_matches(|c| matches!(c, '{' | '}' | ';')));
            let filter = used
                .into_iter()
                .flat_map(|names| names.split(','))
                .find(|name| !OF_FILTERS.contains(&name.trim()));
            if named.is_some() || filter.is_some() || text.contains("filter::access") {
                found.push(format!("{}:{line}: {}", path.display(), text.trim()));
            }
        }
    }
    assert!(count > 5, "only {count} files of the lane");
    none_of(&found, "the lane decides nothing");
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let first = text.lines().find(|line| !line.trim().is_empty());
        if !first.is_some_and(|line| line.starts_with("//! ")) {
            wrong.push(path.display().to_string());
        }
    }
    none_of(
        &wrong,
        "a module opens with `//!`: what for, why so, what not:",
    );
}

#[test]
fn no_file_is_longer_than_a_reader_has_patience() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let place = path.display().to_string();
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{place}: {lines} lines"));
        }
    }
    none_of(&wrong, "perhaps these are two things:");
}

/// Tests that print a figure for a module's documentation are run by hand; all others always.
#[test]
fn no_test_is_switched_off() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (at, line) in code(&text) {
            let ignored = line.trim_start().starts_with("#[ignore");
            if ignored && !line.contains("a measurement") {
                wrong.push(format!("{}:{at}", path.display()));
            }
        }
    }
    none_of(&wrong, "a test runs or goes:");
}

#[test]
fn nothing_names_a_place_on_the_machine_it_was_written_on() {
    // In two parts, so that this file passes its own test.
    let places = [
        concat!("/wo", "rk/"),
        concat!("sha", "red/"),
        concat!("/var/", "tmp/"),
    ];
    let mut wrong = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (at, line) in text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(**place)) {
                wrong.push(format!("{}:{}: {place}", path.display(), at + 1));
            }
        }
    }
    none_of(&wrong, "a clone elsewhere has no such place:");
}

#[test]
fn every_metric_stands_in_the_manual_and_every_one_there_exists() {
    let manual = read(Path::new("docs/observability.md"));
    let observe = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("proxy/src/observe"));
    let mut in_source = BTreeSet::new();
    for (_, text) in observe {
        for (_, line) in code(&text) {
            in_source.extend(metrics(line));
        }
    }
    assert!(in_source.len() >= 25, "only {in_source:?}");
    let in_source = without_series(&in_source);
    let in_manual = without_series(&metrics(&manual).collect());
    let missing: Vec<String> = in_source.difference(&in_manual).cloned().collect();
    none_of(&missing, "not in docs/observability.md:");
    let invented: Vec<String> = in_manual.difference(&in_source).cloned().collect();
    none_of(
        &invented,
        "in docs/observability.md, but there is no such metric:",
    );
}

/// The series of a histogram stand for the histogram.
fn without_series(names: &BTreeSet<String>) -> BTreeSet<String> {
    let is_series = |name: &String| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|end| name.strip_suffix(end))
            .any(|stem| names.contains(stem))
    };
    names
        .iter()
        .filter(|name| !is_series(name))
        .cloned()
        .collect()
}

/// Every `tidegate_...` name in the text.
fn metrics(text: &str) -> impl Iterator<Item = String> {
    text.match_indices("tidegate_").filter_map(|(at, _)| {
        let name = text[at..].split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let name = name.take(1).collect::<String>();
        (name.len() > "tidegate_".len()).then(|| name.trim_end_matches('_').to_owned())
    })
}

#[test]
fn every_configuration_key_stands_in_the_manual() {
    let binary =
        std::env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    let said = Command::new(binary)
        .arg("schema")
        .output()
        .expect("tidegate schema");
    let schema: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let mut keys = BTreeSet::new();
    properties(&schema, &mut keys);
    assert!(keys.len() > 50, "only {keys:?}");
    let manual = read(Path::new("docs/configuration.md"));
    let missing: Vec<String> = keys
        .into_iter()
        .filter(|key| !manual.contains(key.as_str()))
        .collect();
    none_of(&missing, "not in docs/configuration.md:");
}

fn properties(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| properties(value, keys));
        }
        Value::Array(array) => array.iter().for_each(|value| properties(value, keys)),
        _ => {}
    }
}

#[test]
fn links_between_the_manuals_pages_lead_somewhere() {
    let mut wrong = Vec::new();
    let mut links = 0;
    for path in files() {
        if path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let text = read(&path);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            let outside = target.contains("://") || target.is_empty();
            let folder = root().join(&path).parent().unwrap().to_owned();
            links += 1;
            if !outside && !folder.join(target).exists() {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    none_of(&wrong, "links that lead nowhere:");
    assert!(links > 0, "no link found at all");
}

#[test]
fn the_map_of_the_code_names_files_that_exist() {
    let map = read(Path::new("ARCHITECTURE.md"));
    let mut named = 0;
    let mut wrong = Vec::new();
    for word in map.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && word.ends_with(".rs");
        named += usize::from(is_path);
        if is_path && !root().join(word).exists() {
            wrong.push(word.to_owned());
        }
    }
    none_of(&wrong, "ARCHITECTURE.md names what is not there:");
    assert!(named >= 10, "only {named} files are on the map");
}
