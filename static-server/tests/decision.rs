//! The decision over made-up files: what is looked at when, and what each trouble becomes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, LAST_MODIFIED, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use static_server::files::{Age, Facts, Files, Found, Trouble};
use static_server::{Answer, Body, Outcome, Request, Sending, Site, SiteError, SiteSettings};

/// A trouble cannot be copied, so that it is made each time.
type MakeTrouble = fn() -> Trouble;

/// Files that exist in a map only.
#[derive(Clone, Default)]
struct Fake(Arc<State>);

#[derive(Default)]
struct State {
    files: Mutex<HashMap<String, (Vec<u8>, Facts)>>,
    trouble: Mutex<Option<MakeTrouble>>,
    looks: AtomicU64,
    reads: AtomicU64,
    inodes: AtomicU64,
}

impl Fake {
    fn put(&self, path: &str, content: &str, second: u64) {
        self.put_aged(path, content, second, Age::Settled);
    }

    fn put_aged(&self, path: &str, content: &str, second: u64, age: Age) {
        let facts = Facts {
            len: content.len() as u64,
            modified: UNIX_EPOCH + Duration::from_secs(second),
            changed: UNIX_EPOCH + Duration::from_secs(second),
            inode: self.0.inodes.fetch_add(1, Ordering::Relaxed),
            linked: false,
            age,
        };
        self.set(path, content, facts);
    }

    fn set(&self, path: &str, content: &str, facts: Facts) {
        let mut files = self.0.files.lock().unwrap();
        files.insert(path.to_owned(), (content.as_bytes().to_vec(), facts));
    }

    fn facts(&self, path: &str) -> Facts {
        self.0.files.lock().unwrap()[path].1
    }

    fn remove(&self, path: &str) {
        self.0.files.lock().unwrap().remove(path);
    }

    fn fail(&self, trouble: Option<MakeTrouble>) {
        *self.0.trouble.lock().unwrap() = trouble;
    }

    fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (count(&self.0.looks), count(&self.0.reads))
    }

    fn entry(&self, path: &str) -> Result<(Vec<u8>, Facts), Trouble> {
        if let Some(trouble) = *self.0.trouble.lock().unwrap() {
            return Err(trouble());
        }
        let files = self.0.files.lock().unwrap();
        files.get(path).cloned().ok_or(Trouble::Missing)
    }
}

impl Files for Fake {
    fn refresh(&self) {}

    fn look(&self, path: &str) -> Result<Found, Trouble> {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        let directory = format!("{path}/");
        if self
            .0
            .files
            .lock()
            .unwrap()
            .keys()
            .any(|name| name.starts_with(&directory))
        {
            return Ok(Found::Directory);
        }
        self.entry(path).map(|(_, facts)| Found::File(facts))
    }

    fn read(&self, path: &str, limit: u64) -> Result<(Bytes, Facts), Trouble> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        let (content, facts) = self.entry(path)?;
        if facts.len > limit {
            return Err(Trouble::Unstable);
        }
        Ok((content.into(), facts))
    }

    fn open(&self, path: &str) -> Result<(Arc<File>, Facts), Trouble> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        let (content, facts) = self.entry(path)?;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        Ok((Arc::new(file), facts))
    }
}

/// A site over fake files, and a clock that the test moves.
struct World {
    files: Fake,
    site: Site,
    now: Instant,
}

fn world(settings: impl FnOnce(&mut SiteSettings)) -> World {
    let files = Fake::default();
    files.put("index.html", "home", 1_000);
    files.put("app.css", "plain css", 1_000);
    let mut all = SiteSettings::new("/nowhere");
    settings(&mut all);
    World {
        site: Site::over(Arc::new(files.clone()), all).unwrap(),
        files,
        now: tokio::time::Instant::now().into_std(),
    }
}

impl World {
    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn ask(&self, method: &Method, path: &str, fields: &[(HeaderName, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            method,
            path,
            query: None,
            fields: &map,
            sending: Sending::Copied,
        };
        self.site.answer(&request, self.now)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&Method::GET, path, &[])
    }
}

fn text(answer: &Answer) -> String {
    match &answer.body {
        Body::Memory(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

fn value(answer: &Answer, name: &HeaderName) -> String {
    let value = answer.headers.value(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

#[test]
fn a_held_file_costs_no_look_within_a_second() {
    let mut world = world(|_| {});
    assert_eq!(text(&world.get("/app.css")), "plain css");
    world.files.counts();
    for _ in 0..9 {
        world.wait(100);
        assert_eq!(world.get("/app.css").outcome, Outcome::Full);
    }
    assert_eq!(world.files.counts(), (0, 0));
}

#[test]
fn after_a_second_one_look_at_each_name_renews_the_trust() {
    let mut world = world(|_| {});
    world.get("/app.css");
    world.files.counts();
    world.wait(1_001);
    world.get("/app.css");
    let (looks, reads) = world.files.counts();
    assert_eq!(
        (looks, reads),
        (4, 0),
        "the file and three possible siblings; nothing read"
    );
    world.get("/app.css");
    assert_eq!(world.files.counts(), (0, 0));
}

#[test]
fn a_changed_file_is_seen_after_a_second() {
    let mut world = world(|_| {});
    let before = world.get("/app.css");
    world.files.put("app.css", "other css", 2_000);
    world.wait(1_001);
    let after = world.get("/app.css");
    assert_eq!(text(&after), "other css");
    assert_ne!(value(&before, &ETAG), value(&after, &ETAG));
}

#[test]
fn a_file_that_was_too_young_is_read_again_though_its_stamp_is_the_same() {
    let mut world = world(|_| {});
    world.files.put_aged("young.css", "one", 1_000, Age::Fresh);
    assert_eq!(text(&world.get("/young.css")), "one");
    let mut facts = world.files.facts("young.css");
    facts.age = Age::Settled;
    world.files.set("young.css", "two", facts);
    world.wait(1_001);
    assert_eq!(text(&world.get("/young.css")), "two");
}

#[test]
fn a_removed_file_is_gone_after_a_second() {
    let mut world = world(|_| {});
    world.get("/app.css");
    world.files.remove("app.css");
    world.wait(1_001);
    assert_eq!(world.get("/app.css").outcome, Outcome::NotFound);
    world.files.put("app.css", "back", 3_000);
    assert_eq!(
        text(&world.get("/app.css")),
        "back",
        "what is missing is not remembered"
    );
}

#[test]
fn a_sibling_that_comes_later_is_found_and_vary_comes_with_it() {
    let mut world = world(|_| {});
    let gzip = [(ACCEPT_ENCODING, "gzip")];
    assert_eq!(
        value(&world.ask(&Method::GET, "/app.css", &gzip), &VARY),
        ""
    );
    world.files.put("app.css.gz", "packed", 1_000);
    world.wait(1_001);
    let answer = world.ask(&Method::GET, "/app.css", &gzip);
    assert_eq!(text(&answer), "packed");
    assert_eq!(value(&answer, &VARY), "accept-encoding");
    assert_eq!(
        value(&world.get("/app.css"), &VARY),
        "accept-encoding",
        "of both forms"
    );
}

#[test]
fn a_sibling_left_behind_by_an_edit_is_not_sent() {
    let mut world = world(|_| {});
    let gzip = [(ACCEPT_ENCODING, "gzip")];
    world.files.put("app.css.gz", "packed", 1_000);
    assert_eq!(text(&world.ask(&Method::GET, "/app.css", &gzip)), "packed");
    world.files.put("app.css", "edited", 1_001);
    world.wait(1_001);
    assert_eq!(text(&world.ask(&Method::GET, "/app.css", &gzip)), "edited");
}

#[test]
fn a_sibling_that_vanishes_between_look_and_read_costs_nobody_the_file() {
    let world = world(|_| {});
    world.files.put("app.css.gz", "packed", 1_000);
    world.get("/app.css");
    world.files.remove("app.css.gz");
    let answer = world.ask(&Method::GET, "/app.css", &[(ACCEPT_ENCODING, "gzip")]);
    assert_eq!(text(&answer), "plain css");
    assert_eq!(value(&answer, &CONTENT_ENCODING), "");
}

#[test]
fn the_common_answer_shares_its_headers() {
    let world = world(|_| {});
    let first = world.get("/app.css");
    let second = world.get("/app.css");
    assert!(Arc::ptr_eq(&first.headers.shared, &second.headers.shared));
    assert!(second.headers.own.is_empty());
}

#[test]
fn a_large_file_is_not_read_to_answer() {
    let world = world(|settings| settings.max_memory_file = 4);
    let answer = world.get("/app.css");
    assert!(matches!(&answer.body, Body::File(part) if part.len == 9 && part.offset == 0));
    assert_eq!(answer.body.content_length(), 9);
    let answer = world.ask(
        &Method::GET,
        "/app.css",
        &[(http::header::RANGE, "bytes=2-4")],
    );
    assert!(matches!(&answer.body, Body::File(part) if part.len == 3 && part.offset == 2));
    let answer = world.ask(
        &Method::GET,
        "/app.css",
        &[(http::header::RANGE, "bytes=0-0,8-8")],
    );
    assert!(matches!(&answer.body, Body::Parts(parts) if parts.len() == 5));
    assert_eq!(
        value(&answer, &http::header::CONTENT_LENGTH),
        answer.body.content_length().to_string()
    );
}

#[test]
fn a_large_file_that_was_not_read_through_has_no_tag() {
    let world = world(|settings| settings.max_memory_file = 1);
    world.files.put("old.bin", "0123456789", 1_000);
    let answer = world.get("/old.bin");
    assert_eq!(answer.headers.value(&ETAG), None);
    assert!(answer.headers.value(&LAST_MODIFIED).is_some());
}

#[test]
fn a_tag_is_that_of_the_content_wherever_it_lies() {
    let world = world(|_| {});
    world.files.put("elsewhere.css", "plain css", 5_000);
    assert_eq!(
        value(&world.get("/app.css"), &ETAG),
        value(&world.get("/elsewhere.css"), &ETAG)
    );
}

#[test]
fn a_time_that_is_yet_to_come_is_not_sent() {
    let world = world(|_| {});
    world
        .files
        .put_aged("future.css", "x", 9_000_000_000, Age::Future);
    let answer = world.get("/future.css");
    assert_eq!(answer.outcome, Outcome::Full);
    assert_eq!(value(&answer, &LAST_MODIFIED), "");
}

#[test]
fn a_time_that_no_date_can_name_does_no_harm() {
    let world = world(|_| {});
    let mut facts = world.files.facts("app.css");
    facts.modified = UNIX_EPOCH - Duration::from_secs(10);
    world.files.set("odd.css", "x", facts);
    facts.modified = SystemTime::UNIX_EPOCH + Duration::from_secs(300_000_000_000);
    world.files.set("odder.css", "x", facts);
    for path in ["/odd.css", "/odder.css"] {
        let answer = world.get(path);
        assert_eq!(
            (answer.outcome, value(&answer, &LAST_MODIFIED)),
            (Outcome::Full, String::new())
        );
    }
}

#[test]
fn a_packed_form_is_as_old_as_what_it_packs() {
    let world = world(|_| {});
    world.files.put("app.css.gz", "packed", 50_000);
    let plain = world.get("/app.css");
    let packed = world.ask(&Method::GET, "/app.css", &[(ACCEPT_ENCODING, "gzip")]);
    assert_eq!(
        value(&plain, &LAST_MODIFIED),
        value(&packed, &LAST_MODIFIED)
    );
}

#[test]
fn each_trouble_has_its_status_and_passes() {
    let world = world(|_| {});
    let troubles: [(MakeTrouble, Outcome, u16); 6] = [
        (|| Trouble::Missing, Outcome::NotFound, 404),
        (|| Trouble::Escapes, Outcome::OffLimits, 404),
        (|| Trouble::Special, Outcome::OffLimits, 404),
        (|| Trouble::Forbidden, Outcome::Unreadable, 403),
        (|| Trouble::Exhausted, Outcome::Unavailable, 503),
        (
            || Trouble::Io(io::ErrorKind::Other.into()),
            Outcome::Failed,
            500,
        ),
    ];
    for (trouble, outcome, status) in troubles {
        world.files.fail(Some(trouble));
        let answer = world.get("/app.css");
        assert_eq!((answer.outcome, answer.status.as_u16()), (outcome, status));
        if outcome == Outcome::Unavailable {
            assert_eq!(value(&answer, &RETRY_AFTER), "1");
        }
        world.files.fail(None);
    }
    assert_eq!(world.get("/app.css").outcome, Outcome::Full, "and is over");
}

#[test]
fn a_held_file_outlives_a_full_descriptor_table_for_as_long_as_it_is_trusted() {
    let mut world = world(|_| {});
    world.get("/app.css");
    world.files.fail(Some(|| Trouble::Exhausted));
    world.wait(500);
    assert_eq!(world.get("/app.css").outcome, Outcome::Full);
}

#[test]
fn a_refused_path_is_never_looked_up() {
    let world = world(|settings| settings.fallback = Some("index.html".to_owned()));
    world.files.counts();
    for path in ["/../x", "/.env", "/a%2fb", "/a%00", "//x", "/%ff", "/a\\b"] {
        let answer = world.get(path);
        assert!(matches!(answer.outcome, Outcome::Refused(_)), "{path}");
        assert_eq!(answer.status, 404, "{path}");
    }
    assert_eq!(
        world.ask(&Method::POST, "/app.css", &[]).outcome,
        Outcome::MethodNotAllowed
    );
    assert_eq!(world.files.counts(), (0, 0));
}

#[test]
fn the_first_index_that_is_there_is_the_page() {
    let mut world = world(|settings| settings.index = vec!["a.html".into(), "b.html".into()]);
    world.files.put("docs/b.html", "b", 1);
    assert_eq!(text(&world.get("/docs/")), "b");
    assert_eq!(world.get("/docs").outcome, Outcome::Redirect);
    world.files.put("docs/a.html", "a", 1);
    world.wait(1_001);
    assert_eq!(text(&world.get("/docs/")), "a");
}

#[test]
fn without_memory_every_request_reads_anew() {
    let world = world(|settings| settings.memory = 0);
    world.get("/app.css");
    world.files.put("app.css", "new", 9_999);
    assert_eq!(text(&world.get("/app.css")), "new");
}

#[test]
fn memory_is_bounded_by_bytes() {
    let world = world(|settings| settings.memory = 64 * 1_024);
    let content = "x".repeat(4_096);
    for number in 0..200 {
        world.files.put(&format!("{number}.css"), &content, 1);
        world.get(&format!("/{number}.css"));
    }
    // The store tidies up as it is used.
    for _ in 0..2_000 {
        world.get("/app.css");
    }
    let held = world.site.held();
    assert!(held.bytes <= 64 * 1_024, "{held:?}");
    assert!(held.entries > 0, "{held:?}");
}

#[test]
fn impossible_settings_are_named() {
    let make = |change: fn(&mut SiteSettings)| {
        let files = Fake::default();
        files.put("index.html", "home", 1);
        files.put("docs/x", "x", 1);
        let mut settings = SiteSettings::new("/nowhere");
        change(&mut settings);
        Site::over(Arc::new(files), settings)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(make(|s| s.index = vec!["a/b.html".into()]).contains("index \"a/b.html\""));
    assert!(make(|s| s.index = vec!["..".into()]).contains("index \"..\""));
    assert!(make(|s| s.fallback = Some("../x".into())).contains("expected a path below the root"));
    assert!(make(|s| s.fallback = Some("idnex.html".into())).contains("no such file"));
    assert!(make(|s| s.fallback = Some("docs".into())).contains("directory"));
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    let error = Site::new(SiteSettings::new("/nowhere/at/all")).unwrap_err();
    assert!(matches!(&error, SiteError::Root { .. }), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Site::new(SiteSettings::new(file.path())).unwrap_err();
    assert!(matches!(&error, SiteError::NotADirectory(_)), "{error}");
}
