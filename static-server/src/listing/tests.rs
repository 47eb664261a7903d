//! The listing of real directories, and of names that nobody would choose.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{ACCEPT, IF_MATCH, IF_NONE_MATCH, RANGE};
use proptest::prelude::*;

use super::*;
use crate::confine::Target;
use crate::files::{Disk, Entry, EntryKind, Listed};

fn ask(root: &Path, method: &Method, directory: &str, fields: &HeaderMap) -> Answer {
    let asked = Asked {
        method,
        directory,
        query: None,
        fields,
    };
    Listings::new(0)
        .answer(&Disk::new(root.to_owned()), &asked, 0)
        .unwrap()
}

fn fields(name: HeaderName, value: &HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(name, value.clone())])
}

fn json() -> HeaderMap {
    fields(ACCEPT, &HeaderValue::from_static("application/json"))
}

fn text_of(answer: &Answer) -> String {
    match &answer.body {
        Body::Memory(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("no text: {other:?}"),
    }
}

/// Names, kinds and sizes of a listing in JSON.
fn listed(root: &Path, directory: &str) -> Vec<(String, String, Option<u64>)> {
    let answer = ask(root, &Method::GET, directory, &json());
    let value: serde_json::Value = serde_json::from_str(&text_of(&answer)).unwrap();
    let entries = value.as_array().unwrap().iter();
    entries
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            (text("name"), text("type"), entry["size"].as_u64())
        })
        .collect()
}

fn names(root: &Path, directory: &str) -> Vec<String> {
    let entries = listed(root, directory).into_iter();
    entries.map(|(name, _, _)| name).collect()
}

/// A root with a file and a directory, and a secret beside the root.
fn tree() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("a.txt"), "abc").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    (dir, root)
}

#[test]
fn a_page_has_all_that_a_browser_needs_and_may_do_nothing() {
    let (_dir, root) = tree();
    let time = UNIX_EPOCH + Duration::from_secs(1_704_164_645);
    let file = File::options()
        .write(true)
        .open(root.join("a.txt"))
        .unwrap();
    file.set_modified(time).unwrap();
    let answer = ask(&root, &Method::GET, "", &HeaderMap::new());
    let page = text_of(&answer);
    let value = |name| answer.headers.value(&name).unwrap().to_str().unwrap();
    assert_eq!(value(CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(value(CONTENT_LENGTH), page.len().to_string());
    assert_eq!(value(CONTENT_SECURITY_POLICY), POLICY);
    assert_eq!(value(X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(value(CACHE_CONTROL), "no-cache");
    assert_eq!(value(VARY), "accept");
    assert!(
        page.contains("<a href=\"a.txt\"><bdi>a.txt</bdi></a></td><td title=\"3 bytes\">3 B</td>")
    );
    assert!(
        page.contains("<time datetime=\"2024-01-02T03:04:05Z\">2024-01-02<span> 03:04:05</span>")
    );
    assert!(page.contains("<a href=\"sub/\"><bdi>sub/</bdi></a>"));
    assert!(
        page.contains("href=\"?sort=name&amp;order=desc\"")
            && page.contains("href=\"?sort=size&amp;order=asc\"")
    );
    assert!(!page.contains("href=\"../\""), "nothing above the root");
    for word in ["<script", "src=", "url(", "http:", "https:", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
    let below = text_of(&ask(&root, &Method::GET, "sub/", &HeaderMap::new()));
    assert!(below.contains("href=\"../\"") && below.contains("Nothing here."));
}

#[test]
fn json_is_an_array_of_entries() {
    let (_dir, root) = tree();
    assert_eq!(
        listed(&root, ""),
        [
            ("sub".to_owned(), "directory".to_owned(), None),
            ("a.txt".to_owned(), "file".to_owned(), Some(3)),
        ]
    );
    assert!(listed(&root, "sub/").is_empty());
    let answer = ask(&root, &Method::GET, "", &json());
    let value = |name| answer.headers.value(&name).map(|v| v.to_str().unwrap());
    assert_eq!(value(CONTENT_TYPE), Some("application/json"));
    assert_eq!(value(VARY), Some("accept"));
    assert_eq!(value(TRUNCATED), None);
}

#[test]
fn conditions_hold_and_ranges_do_not() {
    let (_dir, root) = tree();
    let whole = ask(&root, &Method::GET, "", &HeaderMap::new());
    let etag = whole.headers.value(&ETAG).unwrap();
    let again = ask(&root, &Method::GET, "", &fields(IF_NONE_MATCH, etag));
    assert_eq!(again.status, 304);
    for name in [ETAG, VARY, CACHE_CONTROL] {
        assert_eq!(again.headers.value(&name), whole.headers.value(&name));
    }
    assert_eq!(again.headers.value(&CONTENT_LENGTH), None);
    let other = HeaderValue::from_static("\"other\"");
    let refused = ask(&root, &Method::GET, "", &fields(IF_MATCH, &other));
    assert_eq!(refused.status, 412);
    let range = HeaderValue::from_static("bytes=0-1");
    let part = ask(&root, &Method::GET, "", &fields(RANGE, &range));
    assert_eq!(
        (part.status.as_u16(), text_of(&part)),
        (200, text_of(&whole))
    );
    let json = ask(&root, &Method::GET, "", &json());
    assert_ne!(
        json.headers.value(&ETAG),
        Some(etag),
        "each form has its tag"
    );
    fs::write(root.join("new"), "").unwrap();
    let changed = ask(&root, &Method::GET, "", &fields(IF_NONE_MATCH, etag));
    assert_eq!(changed.status, 200);
}

#[test]
fn a_head_has_the_fields_and_no_body() {
    let (_dir, root) = tree();
    let get = ask(&root, &Method::GET, "", &HeaderMap::new());
    let head = ask(&root, &Method::HEAD, "", &HeaderMap::new());
    let all = |answer: &Answer| -> Vec<(HeaderName, HeaderValue)> {
        let fields = answer.headers.iter();
        fields
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    assert_eq!(all(&get), all(&head));
    assert_eq!(head.body.content_length(), 0);
}

#[test]
fn links_are_shown_as_what_they_lead_to_inside_and_not_at_all_outside() {
    let (dir, root) = tree();
    symlink("a.txt", root.join("link")).unwrap();
    symlink(root.join("a.txt"), root.join("absolute")).unwrap();
    symlink("sub", root.join("folder")).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink(dir.path().join("secret"), root.join("far")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("nothing", root.join("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let shown = listed(&root, "");
    let shown: Vec<_> = shown
        .iter()
        .map(|(n, k, s)| (n.as_str(), k.as_str(), *s))
        .collect();
    assert_eq!(
        shown,
        [
            ("folder", "directory", None),
            ("sub", "directory", None),
            ("a.txt", "file", Some(3)),
            ("absolute", "file", Some(3)),
            ("link", "file", Some(3)),
        ]
    );
}

#[test]
fn a_directory_outside_cannot_be_listed() {
    let (_dir, root) = tree();
    symlink("..", root.join("up")).unwrap();
    for (directory, missing) in [("up/", false), ("none/", true), ("a.txt/", true)] {
        let asked = Asked {
            method: &Method::GET,
            directory,
            query: None,
            fields: &HeaderMap::new(),
        };
        let listings = Listings::new(0);
        let trouble = listings.answer(&Disk::new(root.clone()), &asked, 0);
        let trouble = trouble.unwrap_err();
        assert_eq!(
            matches!(trouble, Trouble::Missing),
            missing,
            "{directory}: {trouble:?}"
        );
        assert!(missing || matches!(trouble, Trouble::Escapes));
    }
}

#[test]
fn names_that_are_no_text_are_left_out_and_odd_ones_are_safe() {
    let (_dir, root) = tree();
    fs::remove_file(root.join("a.txt")).unwrap();
    fs::remove_dir(root.join("sub")).unwrap();
    let odd = [
        "<script>alert(1)</script>".replace('/', "_"),
        "\" onmouseover=\"x".to_owned(),
        "' & co".to_owned(),
        "invoice\u{202e}gpj.exe".to_owned(),
        "zero\u{200b}width".to_owned(),
        "javascript:alert(1)".to_owned(),
        "a?b#c".to_owned(),
        "100%".to_owned(),
        "\u{1f600}".to_owned(),
    ];
    for name in &odd {
        fs::write(root.join(name), "").unwrap();
    }
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "").unwrap();
    for hidden in [".env", "line\nbreak", "back\\slash", "bell\u{7}"] {
        fs::write(root.join(hidden), "").unwrap();
    }
    let mut shown = names(&root, "");
    let mut expected = odd.to_vec();
    shown.sort();
    expected.sort();
    assert_eq!(shown, expected);
    let page = text_of(&ask(&root, &Method::GET, "", &HeaderMap::new()));
    assert!(!page.contains("<script") && !page.contains("\u{202e}") && !page.contains("\u{200b}"));
    assert!(page.contains("href=\"javascript%3Aalert%281%29\""));
}

#[test]
fn of_a_very_large_directory_a_part_is_shown_and_said_so() {
    let many = |count: usize| Listed {
        entries: (0..count).map(|n| entry(&format!("{n:05}"))).collect(),
        more: count == MAX_ENTRIES,
    };
    let page = page::render("", &View::new(many(MAX_ENTRIES), Order::default()));
    assert!(page.contains("And more: only 10,000 names"));
    let page = page::render("", &View::new(many(9), Order::default()));
    assert!(!page.contains("And more"));

    let (_dir, root) = tree();
    for name in 0..4 {
        fs::write(root.join("sub").join(name.to_string()), "").unwrap();
    }
    let disk = Disk::new(root);
    for (limit, shown, more) in [(3, 3, true), (4, 4, false), (5, 4, false)] {
        let listed = disk.list("sub", limit).unwrap();
        assert_eq!(
            (listed.entries.len(), listed.more),
            (shown, more),
            "{limit}"
        );
    }
}

fn entry(name: &str) -> Entry {
    Entry {
        name: name.to_owned(),
        kind: EntryKind::File(1),
        modified: UNIX_EPOCH,
    }
}

fn view(names: &[String]) -> View {
    let entries = names.iter().map(|name| entry(name)).collect();
    let more = false;
    View::new(Listed { entries, more }, Order::default())
}

/// Names that a file system may hold: everything but a slash and NUL, at most 255 bytes.
fn any_name() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => prop::sample::select("<>&\"'%:?#;= \\./\u{202e}\u{2066}\u{200b}\u{7f}\n\u{85}\u{e4}-_~a".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ];
    prop::collection::vec(character, 1..40).prop_map(|characters| {
        let kept = characters.into_iter().filter(|c| !matches!(c, '/' | '\0'));
        kept.collect()
    })
}

proptest! {
    #[test]
    fn no_markup_of_a_name_survives(name in any_name()) {
        let view = view(std::slice::from_ref(&name));
        let page = page::render(&format!("{name}/"), &view);
        let harmless: Vec<String> = view.entries().iter().map(|_| "a".to_owned()).collect();
        let same = page::render("a/", &self::view(&harmless));
        for sign in ['<', '>', '"', '\''] {
            prop_assert_eq!(page.matches(sign).count(), same.matches(sign).count(), "{} of {:?}", sign, name);
        }
        // Apart from the lines of the page itself.
        let shown = page.chars().filter(|c| *c != '\n');
        prop_assert!(!shown.into_iter().any(text::deceives), "{:?}", name);
        prop_assert_eq!(page.lines().count(), same.lines().count());
    }

    #[test]
    fn every_link_leads_back_to_its_name(name in any_name()) {
        let view = view(std::slice::from_ref(&name));
        let page = page::render("", &view);
        let rows = page.split("<td><a href=\"").skip(1);
        let links: Vec<&str> = rows.map(|row| row.split('"').next().unwrap()).collect();
        prop_assert_eq!(links.len(), view.entries().len());
        for link in links {
            prop_assert!(link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            let path = format!("/{link}");
            let target = Target::parse(&path);
            prop_assert_eq!(target.map(|t| t.as_str().to_owned()), Ok(name.clone()));
        }
    }

    #[test]
    fn json_says_every_name_as_it_is(names in prop::collection::vec(any_name(), 0..5)) {
        let view = view(&names);
        let json = json::render(&view);
        prop_assert!(json.chars().all(|c| c == '\n' || !text::deceives(c)));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let said: Vec<&str> = value.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        let shown: Vec<&str> = view.entries().iter().map(|e| e.name.as_str()).collect();
        prop_assert_eq!(said, shown);
    }
}
