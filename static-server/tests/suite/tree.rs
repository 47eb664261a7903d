//! The files that the suite asks for, and some that it must not get.

#![expect(
    clippy::expect_used,
    reason = "a test that has no files fails by panicking"
)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The letters, for ranges that are easy to read.
pub(super) const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

/// What stands outside of the root.
pub(super) const SECRET: &str = "secret: nobody outside may read this";

/// How long `big.bin` is.
pub(super) const BIG: usize = 3 * 1_024 * 1_024 + 17;

/// 2024-01-02 03:04:05 UTC.
const MODIFIED: u64 = 1_704_164_645;

const DAY: u64 = 86_400;

/// What `big.bin` holds: bytes that tell where they stand.
pub(super) fn big() -> Vec<u8> {
    (0..=250_u8).cycle().take(BIG).collect()
}

/// Makes the tree below `dir`, with a secret beside it, and returns the site's root.
///
/// # Panics
///
/// Where the files cannot be made.
pub fn tree(dir: &Path) -> PathBuf {
    let root = dir.join("site");
    fs::create_dir_all(&root).expect("the root can be made");
    write(&dir.join("secret.txt"), SECRET.as_bytes(), MODIFIED);
    for (name, content) in PLAIN {
        write(&root.join(name), content.as_bytes(), MODIFIED);
    }
    for name in TYPED {
        write(&root.join("types").join(name), b"0123456789", MODIFIED);
    }
    write(&root.join("letters.txt"), ALPHABET, MODIFIED);
    write(&root.join("big.bin"), &big(), MODIFIED);
    // Older than what it claims to pack.
    write(&root.join("stale.js.gz"), b"gz of old", MODIFIED - DAY);
    fs::create_dir_all(root.join("bare")).expect("a directory can be made");
    links(&root);
    pipe(&root.join("pipe"));
    root
}

/// Names and contents. The packed ones are no real packs: they are told apart more easily.
const PLAIN: &[(&str, &str)] = &[
    ("index.html", "<!doctype html><title>Home</title>"),
    ("404.js", "there is a file of this name"),
    ("css/app.css", "body { margin: 0 }"),
    ("css/app.css.br", "br of css"),
    ("css/app.css.zst", "zst of css"),
    ("css/app.css.gz", "gz of css!"),
    ("js/app.js", "let shop = 1;"),
    ("js/app.js.gz", "gz of js"),
    ("stale.js", "new text"),
    ("docs/index.html", "<!doctype html><title>Docs</title>"),
    ("docs/guide.md", "# Guide"),
    ("with space.txt", "space"),
    ("caf\u{e9}.txt", "umlaut or so"),
    ("100%.txt", "percent"),
    ("%2e%2e.txt", "a name that looks like an escape"),
    ("a+b;c=d,e@f.txt", "marks"),
    ("UPPER.TXT", "upper"),
    ("LICENSE", "no ending"),
    ("empty.txt", ""),
    (".env", "PASSWORD=1"),
    (".git/config", "[core]"),
    ("docs/.draft.html", "draft"),
    (".well-known/security.txt", "Contact: mailto:a@shop.example"),
    (".well-known/.hidden", "hidden"),
];

/// Names whose type is checked.
const TYPED: &[&str] = &[
    "a.html",
    "a.css",
    "a.js",
    "a.mjs",
    "a.json",
    "a.map",
    "a.svg",
    "a.xml",
    "a.txt",
    "a.md",
    "a.csv",
    "a.webmanifest",
    "a.wasm",
    "a.woff2",
    "a.png",
    "a.jpg",
    "a.avif",
    "a.webp",
    "a.gif",
    "a.ico",
    "a.mp4",
    "a.webm",
    "a.mp3",
    "a.pdf",
    "a.zip",
    "A.JPG",
    "a.unknown",
];

fn links(root: &Path) {
    for (name, target) in [
        ("inside.txt", "letters.txt"),
        ("styles", "css"),
        ("out.txt", "../secret.txt"),
        ("up", ".."),
        ("passwd", "/etc/passwd"),
        ("loop", "loop"),
        ("dangling", "nothing-here"),
    ] {
        symlink(target, root.join(name)).expect("a link can be made");
    }
    symlink(root.join("letters.txt"), root.join("absolute.txt")).expect("a link can be made");
}

/// A pipe, for which the standard library has no call.
fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "mkfifo is in every Unix"
    );
}

fn write(path: &Path, content: &[u8], modified: u64) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a directory can be made");
    }
    fs::write(path, content).expect("a file can be written");
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(modified);
    let file = File::options()
        .write(true)
        .open(path)
        .expect("a file can be opened");
    file.set_modified(time).expect("a time can be set");
}
