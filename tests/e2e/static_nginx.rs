//! The list of cases against Debian's nginx: it agrees, or the difference stands in
//! [`DIFFERENCES`] with its rule and its reason, and in the manual.

mod differences;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::static_suite as suite;
use crate::support::Setup;
use crate::support::edge::root;
use crate::support::nginx::Nginx;
use crate::support::tools::tool;
use differences::DIFFERENCES;

/// nginx set up for the same site as closely as it can be.
fn nginx(program: &Path, site: &Path) -> Nginx {
    let server = format!(
        r#"
        root {};
        index index.html;
        etag on;
        if_modified_since before;
        max_ranges 16;
        absolute_redirect off;
        gzip_static on;
        gzip_vary on;
        add_header Cache-Control "{}";
        location ~ "/\.(?!well-known/)" {{ return 404; }}
        charset utf-8;
        charset_types text/css text/javascript text/plain text/markdown text/csv;
        default_type application/octet-stream;
        types {{
            text/html html; text/css css; text/javascript js mjs; text/plain txt;
            text/markdown md; text/csv csv; application/json json map;
            application/manifest+json webmanifest; application/xml xml; application/wasm wasm;
            image/svg+xml svg; image/png png; image/jpeg jpg; image/gif gif; image/webp webp;
            image/avif avif; image/x-icon ico; font/woff2 woff2; video/mp4 mp4; video/webm webm;
            audio/mpeg mp3; application/pdf pdf; application/zip zip; application/gzip gz;
        }}
        "#,
        site.display(),
        suite::CACHE_CONTROL
    );
    Nginx::serving(program, &server)
}

#[test]
fn nginx_agrees_but_for_what_is_listed() {
    let program = tool!("nginx", "nginx-light");
    let setup = Setup::new();
    let site = suite::tree(setup.folder());
    let cases = suite::cases(&site);
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "a name stands for one case");

    let nginx = nginx(&program, &site);
    let failed: BTreeMap<&str, String> = cases
        .iter()
        .filter_map(|case| Some((case.name.as_str(), suite::run(nginx.address, case).err()?)))
        .collect();
    let listed: Vec<&str> = DIFFERENCES
        .iter()
        .flat_map(|difference| difference.cases)
        .copied()
        .collect();
    let new = failed.iter().filter(|(name, _)| !listed.contains(name));
    let new: Vec<&str> = new.map(|(_, problem)| problem.as_str()).collect();
    assert!(
        new.is_empty(),
        "{} not listed:\n{}",
        new.len(),
        new.join("\n")
    );
    let stale: Vec<&&str> = listed
        .iter()
        .filter(|name| !failed.contains_key(**name))
        .collect();
    assert!(
        stale.is_empty(),
        "nginx agrees, or there is no such case: {stale:#?}"
    );
    assert_eq!(listed.len(), failed.len(), "a case is listed once");
}

/// Between these two lines, the manual has what [`DIFFERENCES`] says.
const START: &str =
    "<!-- The table is made by tests/e2e/static_nginx.rs; UPDATE_DOCS=1 writes it anew. -->";
const END: &str = "<!-- End of the table. -->";

#[test]
fn the_manual_lists_the_differences() {
    let path = root().join("docs/static-files.md");
    let text = std::fs::read_to_string(&path).expect("the manual");
    let (before, rest) = text.split_once(START).expect("the start of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    let mut table = String::from("\n\n| asked for | Tidegate | nginx | rule | reason |\n");
    table.push_str("| --- | --- | --- | --- | --- |\n");
    for one in DIFFERENCES {
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            one.request, one.ours, one.nginx, one.rule, one.reason
        ));
    }
    let right = format!("{before}{START}{table}\n{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &right).expect("the manual can be written");
    }
    let text = std::fs::read_to_string(&path).expect("the manual");
    assert!(text == right, "run this test with UPDATE_DOCS=1");
}
