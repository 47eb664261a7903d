//! A site over a real tree that changes while it is served.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LOCATION, ETAG};
use http::{HeaderMap, HeaderName, Method};
use sha2::{Digest, Sha256};
use static_server::files::{Disk, Facts, Files, Found, Listed, Sign, Trouble};
use static_server::{Answer, Body, Outcome, Part, Releases, Request, Sending, Site, SiteSettings};

/// The real files, and how often they were asked.
struct Counted {
    disk: Arc<Disk>,
    calls: Arc<AtomicU64>,
}

impl Counted {
    fn count(&self) -> &Disk {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.disk
    }
}

impl Files for Counted {
    fn refresh(&self) {
        self.disk.refresh();
    }

    fn sign(&self, directory: &str, name: &str) -> Option<Sign> {
        self.disk.sign(directory, name)
    }

    fn sign_of_all(&self, directory: &str) -> Option<Sign> {
        self.disk.sign_of_all(directory)
    }

    fn list(&self, path: &str, limit: usize) -> Result<Listed, Trouble> {
        self.count().list(path, limit)
    }

    fn look(&self, path: &str) -> Result<Found, Trouble> {
        self.count().look(path)
    }

    fn read(&self, path: &str, limit: u64) -> Result<(Bytes, Facts), Trouble> {
        self.count().read(path, limit)
    }

    fn open(&self, path: &str) -> Result<(Arc<fs::File>, Facts), Trouble> {
        self.count().open(path)
    }
}

/// A site whose clock the test moves.
struct World {
    site: Site,
    calls: Arc<AtomicU64>,
    now: Instant,
}

impl World {
    fn new(root: &Path, settings: impl FnOnce(&mut SiteSettings)) -> Self {
        let calls = Arc::<AtomicU64>::default();
        let files = Counted {
            disk: Disk::watched(root.to_owned()),
            calls: Arc::clone(&calls),
        };
        let mut all = SiteSettings::new(root);
        settings(&mut all);
        Self {
            site: Site::over(Arc::new(files), all).unwrap(),
            calls,
            now: tokio::time::Instant::now().into_std(),
        }
    }

    fn ask(&self, path: &str, sending: Sending) -> Answer {
        let request = Request {
            method: &Method::GET,
            path,
            query: None,
            fields: &HeaderMap::new(),
            sending,
        };
        self.site.answer(&request, self.now)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(path, Sending::Copied)
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(content(self.get(path))).unwrap()
    }

    /// Calls since the last question.
    fn calls(&self) -> u64 {
        self.calls.swap(0, Ordering::Relaxed)
    }

    /// Asks until the answer is right; its clock stands still meanwhile.
    #[track_caller]
    fn until(&self, path: &str, right: impl Fn(&Answer) -> bool) -> Answer {
        let start = tokio::time::Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            let answer = self.get(path);
            if right(&answer) {
                return answer;
            }
            std::thread::yield_now();
        }
        panic!("{path} is never right: {:?}", self.get(path));
    }
}

fn content(answer: Answer) -> Vec<u8> {
    let parts = match answer.body {
        Body::Empty => Vec::new(),
        Body::Memory(bytes) => vec![Part::Memory(bytes)],
        Body::File(part) => vec![Part::File(part)],
        Body::Parts(parts) => parts,
    };
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::Memory(bytes) => all.extend_from_slice(&bytes),
            Part::File(mut part) => {
                while let Some(bytes) = part.read_next(64 * 1_024).unwrap() {
                    all.extend_from_slice(&bytes);
                }
            }
        }
    }
    all
}

fn value(answer: &Answer, name: &HeaderName) -> String {
    let value = answer.headers.value(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

fn is(answer: &Answer, text: &str) -> bool {
    matches!(&answer.body, Body::Memory(bytes) if bytes == text)
}

#[test]
fn an_unchanged_file_costs_no_call_for_a_minute_and_a_changed_one_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("css")).unwrap();
    fs::write(dir.path().join("css/app.css"), "one").unwrap();
    let mut world = World::new(dir.path(), |_| {});
    assert_eq!(world.text("/css/app.css"), "one");
    world.calls();
    for _ in 0..59 {
        world.now += Duration::from_secs(1);
        assert_eq!(world.text("/css/app.css"), "one");
    }
    assert_eq!(world.calls(), 0);
    fs::write(dir.path().join("css/app.css"), "two").unwrap();
    world.until("/css/app.css", |answer| is(answer, "two"));
    fs::write(dir.path().join("css/new.css"), "3").unwrap();
    fs::rename(
        dir.path().join("css/new.css"),
        dir.path().join("css/app.css"),
    )
    .unwrap();
    world.until("/css/app.css", |answer| is(answer, "3"));
    fs::remove_file(dir.path().join("css/app.css")).unwrap();
    world.until("/css/app.css", |answer| answer.outcome == Outcome::NotFound);
}

#[test]
fn each_thread_counts_its_own_references_to_a_small_file_in_demand() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("app.css"), "one").unwrap();
    fs::write(dir.path().join("large.css"), "x".repeat(20_000)).unwrap();
    let world = World::new(dir.path(), |_| {});
    let in_demand = |path: &str| {
        let lists = (0..64).map(|_| world.get(path).headers.shared);
        lists.last().unwrap()
    };
    let other = |path| std::thread::scope(|scope| scope.spawn(|| in_demand(path)).join().unwrap());
    let here = in_demand("/app.css");
    assert!(!Arc::ptr_eq(&here, &other("/app.css")));
    assert!(Arc::ptr_eq(&here, &in_demand("/app.css")), "made once");
    assert_eq!(here.lines(), other("/app.css").lines());
    assert!(Arc::ptr_eq(&in_demand("/large.css"), &other("/large.css")));
    // Once more than that there is another, here and there.
    fs::write(dir.path().join("app.css"), "other").unwrap();
    world.until("/app.css", |answer| is(answer, "other"));
    std::thread::scope(|scope| {
        let seen = scope.spawn(|| world.text("/app.css"));
        assert_eq!(seen.join().unwrap(), "other");
    });
}

#[test]
fn a_packed_copy_that_comes_later_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("app.css"), "plain").unwrap();
    let world = World::new(dir.path(), |_| {});
    let vary = |answer: &Answer| answer.headers.value(&http::header::VARY).is_some();
    assert!(!vary(&world.get("/app.css")));
    fs::write(dir.path().join("app.css.gz"), "packed").unwrap();
    world.until("/app.css", vary);
}

#[test]
fn an_index_that_takes_precedence_later_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("second.html"), "2").unwrap();
    let world = World::new(dir.path(), |settings| {
        settings.index = vec!["first.html".to_owned(), "second.html".to_owned()];
    });
    let answer = world.get("/");
    assert_eq!(value(&answer, &CONTENT_LOCATION), "second.html");
    fs::write(dir.path().join("first.html"), "1").unwrap();
    let answer = world.until("/", |answer| is(answer, "1"));
    assert_eq!(value(&answer, &CONTENT_LOCATION), "first.html");
}

#[test]
fn a_release_is_switched_at_once_and_what_it_lacks_comes_from_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    for (release, script) in [("1", "app-3f9a1c2b.js"), ("2", "app-77e0d1aa.js")] {
        let folder = dir.path().join("releases").join(release);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("index.html"), release).unwrap();
        fs::write(folder.join(script), release).unwrap();
    }
    let root = dir.path().join("current");
    symlink("releases/1", &root).unwrap();
    let world = World::new(&root, |settings| {
        settings.releases = Some(Releases {
            keep: 3,
            folder: None,
        });
    });
    assert_eq!(
        (world.text("/"), world.text("/app-3f9a1c2b.js")),
        ("1".into(), "1".into())
    );
    symlink("releases/2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), &root).unwrap();
    world.until("/", |answer| is(answer, "2"));
    let old = world.until("/app-3f9a1c2b.js", |answer| is(answer, "1"));
    assert_eq!(
        value(&old, &CACHE_CONTROL),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(world.text("/app-77e0d1aa.js"), "2");
    assert_eq!(world.get("/never.js").outcome, Outcome::NotFound);
    assert_eq!(world.get("/.hidden").status, 404);
}

#[test]
fn a_link_further_up_that_is_flipped_is_seen_too() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::create_dir_all(dir.path().join(name).join("public")).unwrap();
        fs::write(dir.path().join(name).join("public/f.txt"), name).unwrap();
    }
    let up = dir.path().join("up");
    symlink("a", &up).unwrap();
    let world = World::new(&up.join("public"), |_| {});
    assert_eq!(world.text("/f.txt"), "a");
    fs::remove_file(&up).unwrap();
    symlink("b", &up).unwrap();
    world.until("/f.txt", |answer| is(answer, "b"));
}

#[test]
fn a_listing_is_read_again_when_something_in_the_directory_changes_and_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "").unwrap();
    let mut world = World::new(dir.path(), |settings| settings.listing = true);
    assert!(world.text("/").contains("a.txt"));
    world.calls();
    world.text("/");
    let looks = world.calls();
    assert!(
        looks <= 1,
        "the index is looked for, and nothing read: {looks}"
    );
    fs::write(dir.path().join("b.txt"), "").unwrap();
    let shows = |answer: &Answer, name: &str| match &answer.body {
        Body::Memory(bytes) => String::from_utf8_lossy(bytes).contains(name),
        _ => false,
    };
    world.until("/", |answer| shows(answer, "b.txt"));
    fs::remove_file(dir.path().join("a.txt")).unwrap();
    world.until("/", |answer| !shows(answer, "a.txt"));
    world.calls();
    world.now += Duration::from_secs(10);
    world.text("/");
    assert_eq!(world.calls(), looks + 1);
}

#[test]
fn what_a_link_leads_to_is_looked_at_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/f.txt"), "1").unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    let mut world = World::new(dir.path(), |_| {});
    assert_eq!(world.text("/link/f.txt"), "1");
    world.calls();
    assert_eq!(world.text("/link/f.txt"), "1");
    assert_eq!(world.calls(), 0);
    fs::remove_file(dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    fs::write(dir.path().join("other/f.txt"), "2").unwrap();
    symlink("other", dir.path().join("link")).unwrap();
    world.now += Duration::from_millis(1_001);
    assert_eq!(world.text("/link/f.txt"), "2");
}

#[test]
fn a_large_file_gets_the_tag_of_its_content_and_a_copy_when_it_is_sent_often() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    fs::write(dir.path().join("film.mp4"), &bytes).unwrap();
    let world = World::new(dir.path(), |_| {});
    assert_eq!(world.get("/film.mp4").headers.value(&ETAG), None);
    let tagged = world.until("/film.mp4", |answer| answer.headers.value(&ETAG).is_some());
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(value(&tagged, &ETAG), format!("\"{hash}\""));
    let frozen =
        |answer: &Answer| matches!(&answer.body, Body::File(part) if part.sendable().is_some());
    let answer = world.until("/film.mp4", frozen);
    assert_eq!(value(&answer, &ETAG), format!("\"{hash}\""));
    // What is on its way stays as it was, whatever becomes of the file.
    fs::write(dir.path().join("film.mp4"), vec![0; 1_000_000]).unwrap();
    assert!(content(answer) == bytes);
    world.until("/film.mp4", |answer| !value(answer, &ETAG).contains(&hash));
}

#[test]
fn a_file_in_memory_is_sent_from_a_copy_where_that_is_cheaper() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![b'a'; 100_000];
    fs::write(dir.path().join("app.js"), &bytes).unwrap();
    fs::write(dir.path().join("small.js"), "a").unwrap();
    let world = World::new(dir.path(), |_| {});
    for _ in 0..20 {
        assert!(matches!(world.get("/app.js").body, Body::Memory(_)));
        assert!(matches!(
            world.ask("/small.js", Sending::FromFile).body,
            Body::Memory(_)
        ));
        world.ask("/app.js", Sending::FromFile);
    }
    let answer = world.ask("/app.js", Sending::FromFile);
    assert!(matches!(&answer.body, Body::File(part) if part.sendable().is_some()));
    assert!(content(answer) == bytes);
    assert!(matches!(world.get("/app.js").body, Body::Memory(_)));
}
