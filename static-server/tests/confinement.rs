//! Whatever path is asked for, nothing from outside of the root comes back.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use http::{HeaderMap, Method};
use proptest::prelude::*;
use static_server::serve::normalise;
use static_server::{Answer, Body, Request, Site, SiteSettings};

/// Stands in every file outside of the root, and in every hidden one inside.
const SECRET: &str = "SECRET";

/// Stands in every file that may be seen.
const PUBLIC: &str = "PUBLIC";

struct World {
    _dir: tempfile::TempDir,
    small: Site,
    large: Site,
    now: Instant,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/root");
    let put = |path: &str, content: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for outside in ["a", "a/b", "b", "a/root2/a", "index.html", "a/index.html"] {
        let path = format!("{outside}{}", if outside.len() == 1 { ".txt" } else { "" });
        put(&path, SECRET);
    }
    for inside in ["a", "b/a", "b/index.html", "index.html"] {
        put(&format!("a/root/{inside}"), PUBLIC);
    }
    for hidden in [".a", "b/.b", ".git/a"] {
        put(&format!("a/root/{hidden}"), SECRET);
    }
    links(&root);
    let site = |max_memory_file| {
        let mut settings = SiteSettings::new(&root);
        settings.fallback = Some("index.html".to_owned());
        settings.max_memory_file = max_memory_file;
        Site::new(settings).unwrap()
    };
    World {
        small: site(1_000),
        large: site(0),
        now: tokio::time::Instant::now().into_std(),
        _dir: dir,
    }
});

fn links(root: &Path) {
    symlink("..", root.join("up")).unwrap();
    symlink("../b", root.join("b/out")).unwrap();
    symlink("../../index.html", root.join("out")).unwrap();
    symlink(root.parent().unwrap().join("root2"), root.join("far")).unwrap();
    symlink("b", root.join("in")).unwrap();
    symlink(root.join("b"), root.join("abs")).unwrap();
}

fn content(answer: Answer) -> Vec<u8> {
    match answer.body {
        Body::Empty => Vec::new(),
        Body::Memory(bytes) => bytes.to_vec(),
        Body::File(mut part) => part.read_next(10_000).unwrap().unwrap_or_default().to_vec(),
        Body::Parts(_) => panic!("no ranges were asked for"),
    }
}

fn check(path: &str) -> Result<(), TestCaseError> {
    let world = &*WORLD;
    let mut texts = Vec::new();
    for site in [&world.small, &world.large] {
        let request = Request {
            method: &Method::GET,
            path,
            query: None,
            fields: &HeaderMap::new(),
            sending: static_server::Sending::Copied,
        };
        let answer = site.answer(&request, world.now);
        let status = answer.status.as_u16();
        let text = String::from_utf8(content(answer)).unwrap();
        prop_assert!(!text.contains(SECRET), "{} gave what is outside", path);
        prop_assert!(
            matches!(status, 200 | 301 | 404),
            "{} gave {}",
            path,
            status
        );
        prop_assert_eq!(status == 200, text == PUBLIC, "{} gave {:?}", path, text);
        texts.push(text);
    }
    prop_assert_eq!(&texts[0], &texts[1], "memory and disk agree on {}", path);
    Ok(())
}

#[test]
fn the_tree_is_there_to_be_missed() {
    let world = &*WORLD;
    let request = Request {
        method: &Method::GET,
        path: "/in/a",
        query: None,
        fields: &HeaderMap::new(),
        sending: static_server::Sending::Copied,
    };
    let answer = world.small.answer(&request, world.now);
    assert_eq!(
        content(answer),
        PUBLIC.as_bytes(),
        "a link inside is followed"
    );
    let outside = world._dir.path().join("a/root/up/b");
    assert_eq!(
        fs::read_to_string(outside).unwrap(),
        SECRET,
        "the link out works for others"
    );
}

/// Pieces that paths are stirred from.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "a",
        "b",
        "in",
        "abs",
        "up",
        "out",
        "far",
        "root",
        "root2",
        "index.html",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "\\",
        "%00",
        "%c0%ae",
        "%252e",
        "%25",
        "%",
        ".a",
        ".git",
        ".b",
        "a.txt",
        "\u{e4}",
        "%ff",
        "~",
        ";",
        ":",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_path_leads_out_of_the_root(path in soup()) {
        check(&path)?;
    }

    #[test]
    fn no_normalised_path_leads_out_of_the_root(path in soup()) {
        if let Ok(path) = normalise(&path) {
            check(&path)?;
        }
    }

    #[test]
    fn no_text_leads_out_of_the_root(path in "/\\PC{0,30}") {
        check(&path)?;
    }
}
