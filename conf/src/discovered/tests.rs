//! Lists of endpoints, good and bad.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn toml(text: &str) -> Result<Vec<Endpoint>, String> {
    parse(text, Format::Toml)
}

fn json(text: &str) -> Result<Vec<Endpoint>, String> {
    parse(text, Format::Json)
}

fn addresses(endpoints: &[Endpoint]) -> Vec<String> {
    let each = endpoints.iter();
    each.map(|endpoint| endpoint.address.to_string()).collect()
}

#[track_caller]
fn says(said: Result<Vec<Endpoint>, String>, parts: &[&str]) {
    let said = said.expect_err("wrong");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    assert!(!said.contains('\n'), "one line: {said}");
}

#[test]
fn both_forms_say_the_same() {
    let written = toml(
        r#"endpoints = [
  "10.0.0.11:8080",
  { address = "app.internal:80", weight = 2, zone = "eu-1a" },
  { address = "unix:/run/app.sock", backup = true },
  { address = "[::1]:81", priority = 3 },
  { srv = "_http._tcp.app.internal", zone = "eu-1b" },
]"#,
    )
    .expect("TOML");
    let list = r#"[
  "10.0.0.11:8080",
  { "address": "app.internal:80", "weight": 2, "zone": "eu-1a" },
  { "address": "unix:/run/app.sock", "backup": true },
  { "address": "[::1]:81", "priority": 3 },
  { "srv": "_http._tcp.app.internal", "zone": "eu-1b" }
]"#;
    assert_eq!(json(list), Ok(written.clone()));
    assert_eq!(
        json(&format!("{{\"endpoints\": {list}}}")),
        Ok(written.clone())
    );
    assert_eq!(
        addresses(&written),
        [
            "10.0.0.11:8080",
            "app.internal:80",
            "unix:/run/app.sock",
            "[::1]:81",
            "_http._tcp.app.internal"
        ]
    );
    assert_eq!(written[1].weight.get(), 2);
    assert_eq!(written[1].zone.as_deref(), Some("eu-1a"));
    assert!(written[2].backup);
    assert_eq!(written[3].priority, 3);
    assert_eq!(written[0].weight.get(), 1);
}

#[test]
fn an_empty_list_is_a_list_and_an_empty_file_is_none() {
    assert_eq!(toml("endpoints = []"), Ok(Vec::new()));
    assert_eq!(json("[]"), Ok(Vec::new()));
    assert_eq!(json("{\"endpoints\": []}"), Ok(Vec::new()));
    says(toml(""), &["no `endpoints`", "write endpoints = ["]);
    says(json(""), &["not JSON", "ends too early"]);
    says(json("{}"), &["no `endpoints`"]);
}

#[test]
fn a_mistake_is_told_with_its_place_and_its_remedy() {
    says(
        toml("endpoints = [\n  \"10.0.0.1:80\",\n  \"10.0.0.2\",\n]"),
        &[
            "line 3, column 3:",
            "has no port",
            "write \"10.0.0.2:8080\"",
        ],
    );
    says(
        json(r#"["10.0.0.1:80", "10.0.0.2"]"#),
        &["endpoint 2:", "has no port", "write \"10.0.0.2:8080\""],
    );
    says(
        json(r#"[{"adress": "10.0.0.1:80"}]"#),
        &[
            "endpoint 1:",
            "unknown key `adress`",
            "did you mean `address`?",
        ],
    );
    says(
        json(r#"[{"host": "10.0.0.1", "port": 80}]"#),
        &["endpoint 1:", "host and port together", "(and 1 more)"],
    );
    says(
        json(r#"{"nodes": ["10.0.0.1:80"]}"#),
        &["the list:", "unknown key `nodes`"],
    );
    says(json("3"), &["a whole number", "write ["]);
    says(json("null"), &["null", "write ["]);
    says(json("[null]"), &["endpoint 1:", "this is null"]);
    says(
        json(r#"{"endpoints": null}"#),
        &["must be a list, this is null"],
    );
    says(
        json(r#"["10.0.0.1:80""#),
        &["line 1,", "not JSON", "rename"],
    );
    says(json(r#"["10.0.0.1:80"] x"#), &["line 1,", "not JSON"]);
    says(toml("endpoints = [10.0.0.1:80]"), &["line 1,", "quotes"]);
    says(toml("\"endpoints\": []"), &["line 1,"]);
}

#[test]
fn what_is_there_twice_is_refused() {
    says(
        toml("endpoints = [\"10.0.0.1:80\", { address = \"10.0.0.1:80\", weight = 2 }]"),
        &["line 1, column 29:", "twice", "first at line 1, column 14"],
    );
    says(
        json(r#"["10.0.0.1:80", "[::1]:80", "10.0.0.1:80"]"#),
        &["endpoint 3:", "twice", "first at endpoint 1"],
    );
    says(
        json(r#"[{"address": "10.0.0.1:80", "address": "10.0.0.2:80"}]"#),
        &["endpoint 1:", "`address`", "a second time"],
    );
    says(
        json(r#"{"endpoints": [], "endpoints": ["10.0.0.2:80"]}"#),
        &["`endpoints`", "a second time"],
    );
}

#[test]
fn a_socket_has_its_whole_path_because_no_file_names_it() {
    says(
        json(r#"["unix:app.sock"]"#),
        &["endpoint 1:", "relative", "unix:/run/app.sock"],
    );
    says(json(&format!("[\"unix:/{}\"]", "a".repeat(200))), &["107"]);
}

#[test]
fn a_list_has_a_largest_size() {
    let many = |count: usize| {
        let each: Vec<String> = (0..count)
            .map(|n| format!("\"10.{}.{}.{}:80\"", n / 65536, n / 256 % 256, n % 256))
            .collect();
        format!("[{}]", each.join(","))
    };
    assert_eq!(json(&many(MOST)).map(|list| list.len()), Ok(MOST));
    says(json(&many(MOST + 1)), &["10001 endpoints, more than 10000"]);
    says(json(&" ".repeat(MAX_BYTES + 1)), &["more than 8388608"]);
    says(json(&"[".repeat(100_000)), &["not JSON"]);
    says(
        toml(&format!("endpoints = {}", "[".repeat(100_000))),
        &["line 1"],
    );
}

#[test]
fn a_form_is_told_by_the_ending_of_the_name() {
    assert_eq!(Format::of(Path::new("a/nodes.toml")), Some(Format::Toml));
    assert_eq!(Format::of(Path::new("nodes.json")), Some(Format::Json));
    assert_eq!(Format::of(Path::new("nodes.yaml")), None);
    assert_eq!(Format::of(Path::new("toml")), None);
}

/// Endpoints as strings, each once.
fn lists() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(any::<SocketAddr>(), 0..20).prop_map(|set| {
        let usable = set.into_iter().filter(|address| match address {
            SocketAddr::V4(_) => address.port() > 0,
            SocketAddr::V6(v6) => address.port() > 0 && v6.scope_id() == 0 && v6.flowinfo() == 0,
        });
        usable.map(|address| address.to_string()).collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_its_order(list in lists()) {
        let text = serde_json::Value::from(list.clone()).to_string();
        let read = json(&text);
        prop_assert_eq!(read.as_deref().map(addresses), Ok(list));
        // A list of strings is written alike in both.
        let alike = toml(&format!("endpoints = {text}"));
        prop_assert_eq!(alike, read);
    }

    #[test]
    fn a_list_that_is_cut_off_is_refused(list in lists(), cut in any::<prop::sample::Index>()) {
        let text = serde_json::Value::from(list).to_string();
        let cut = cut.index(text.len());
        prop_assert!(json(&text[..cut]).is_err());
        let part = toml(&format!("endpoints = {}", &text[..cut]));
        prop_assert!(part.is_err());
    }

    #[test]
    fn any_text_is_a_list_or_explained_in_one_line(
        text in "(\\PC|[\\[\\]{}\":,=\\n 0-9]|endpoints|address|\"10.0.0.1:80\"|null|true){0,30}"
    ) {
        for format in [Format::Toml, Format::Json] {
            match parse(&text, format) {
                Ok(list) => prop_assert!(list.len() <= MOST),
                Err(why) => prop_assert!(!why.is_empty() && !why.contains('\n'), "{}", why),
            }
        }
    }
}
