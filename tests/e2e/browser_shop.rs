//! A front-end as vite builds it, in a real browser: types, caching, reload and back, and a new
//! release under an open page.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::HOST;
use crate::support::edge::root;
use crate::support::tools::{self, Running, tool};
use crate::support::{Ask, Edge, Setup, wait};

/// Installing, building, and a browser, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(180);

/// What npm says where there is no network.
const UNREACHABLE: &[&str] = &[
    "code ENOTFOUND",
    "code EAI_AGAIN",
    "code ECONNREFUSED",
    "code ECONNRESET",
    "code ENETUNREACH",
    "code ETIMEDOUT",
    "code ERR_SOCKET_TIMEOUT",
];

/// Copies the front-end's sources and builds two releases of it. `None` where packages cannot be
/// installed.
fn build(npm: &Path, folder: &Path) -> Option<PathBuf> {
    let project = folder.join("frontend");
    copy(&root().join("tests/frontend"), &project);
    let mut install = Command::new(npm);
    install
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(&project);
    let said = tools::run(&mut install, PATIENCE);
    if said.code != Some(0) {
        // Only a registry that cannot be reached is a reason to go without.
        let unreachable = UNREACHABLE.iter().any(|code| said.stderr.contains(code));
        assert!(unreachable, "npm ci in tests/frontend: {said:?}");
        tools::missing("packages from npm", "a network");
        return None;
    }
    for release in ["one", "two"] {
        let target = folder.join("releases").join(release);
        let mut vite = Command::new(npm);
        vite.args(["run", "build", "--", "--emptyOutDir", "--outDir"])
            .arg(&target)
            .env("RELEASE", release)
            .current_dir(&project);
        let said = tools::run(&mut vite, PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    Some(project)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true if entry.file_name() == "node_modules" => {}
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A browser on its way through the site.
struct Visit {
    driver: Running,
    heard: usize,
}

impl Visit {
    fn start(node: &Path, chromium: &Path, project: &Path, edge: &Edge) -> Self {
        let mut driver = Command::new(node);
        driver
            .arg("drive.mjs")
            .arg(chromium)
            .arg(format!("https://{HOST}:{}/", edge.https().port()))
            .arg(edge.folder().join("shop.pem"))
            .current_dir(project);
        Self {
            driver: Running::start_talking(&mut driver),
            heard: 0,
        }
    }

    /// All that is said until the browser waits, which must be at `step`.
    #[track_caller]
    fn until(&mut self, step: &str) -> Vec<Value> {
        let said = wait::until(step, PATIENCE, || {
            let running = self.driver.is_running();
            let out = self.driver.stdout();
            let whole = out
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let mut lines: Vec<Value> = whole.skip(self.heard).collect();
            let waits = lines.iter().position(|line| line["wait"].is_string());
            if let Some(at) = waits {
                lines.truncate(at + 1);
                return Some(lines);
            }
            assert!(
                running,
                "before {step}: {lines:?}\n{}",
                self.driver.stderr()
            );
            None
        });
        self.heard += said.len();
        let last = said.last().expect("a line");
        assert_eq!(last["wait"], step, "{said:?}");
        let problems: Vec<&Value> = said
            .iter()
            .filter(|line| !line["problem"].is_null())
            .collect();
        assert!(problems.is_empty(), "{step}: {problems:?}");
        for line in said.iter().filter(|line| line["status"].is_number()) {
            assert!(line["status"].as_u64().unwrap() < 400, "{step}: {line}");
        }
        said
    }

    fn go_on(&mut self) {
        self.driver.say("go on");
    }
}

/// Requests since `from` in the access log: target and status.
fn log(edge: &Edge, from: &mut usize) -> Vec<(String, u64)> {
    let text = fs::read_to_string(edge.folder().join("access.log")).unwrap_or_default();
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let new = lines.iter().skip(*from);
    let new: Vec<(String, u64)> = new
        .map(|line| {
            let target = line["target"].as_str().expect("a target").to_owned();
            (target, line["status"].as_u64().expect("a status"))
        })
        .collect();
    *from = lines.len();
    new
}

#[track_caller]
fn find<'a>(said: &'a [Value], key: &str) -> &'a Value {
    let line = said.iter().find(|line| !line[key].is_null());
    line.unwrap_or_else(|| panic!("no {key} in {said:?}"))
}

#[track_caller]
fn has_type(said: &[Value], ending: &str, kind: &str) {
    let path = |line: &&Value| {
        line["path"]
            .as_str()
            .is_some_and(|path| path.ends_with(ending))
    };
    let line = said.iter().find(path);
    let line = line.unwrap_or_else(|| panic!("no {ending} in {said:?}"));
    assert_eq!(line["type"], kind, "{line}");
}

/// The one file in the assets of a release whose name has these ends.
fn asset(edge: &Edge, release: &str, start: &str, end: &str) -> String {
    let folder = edge.folder().join("releases").join(release).join("assets");
    let names = fs::read_dir(folder).unwrap().flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = names.find(|name| name.starts_with(start) && name.ends_with(end));
    format!("/assets/{}", name.expect("a file of the build"))
}

#[test]
fn a_browser_opens_reloads_and_goes_on_over_a_deploy() {
    let chromium = tool!("chromium", "chromium");
    let npm = tool!("npm", "npm");
    let node = tool!("node", "nodejs");
    let setup = Setup::new();
    let Some(project) = build(&npm, setup.folder()) else {
        return;
    };
    let current = setup.folder().join("current");
    symlink("releases/one", &current).unwrap();
    let edge = setup.start(
        r#"
        [log]
        access = { path = "access.log", format = "json" }
        [static.shop]
        root = "current"
        releases = { keep = 3 }
        [[route]]
        static = "shop"
        "#,
    );
    let lazy = asset(&edge, "one", "lazy-", ".js");
    assert_ne!(lazy, asset(&edge, "two", "lazy-", ".js"), "two releases");
    let map = edge.get(&format!("{lazy}.map")).expect(200);
    assert_eq!(map.field("content-type"), Some("application/json"));

    let mut visit = Visit::start(&node, &chromium, &project, &edge);
    let said = visit.until("opened");
    let page = find(&said, "release");
    assert_eq!(
        (&page["release"], &page["sum"]),
        (&"one".into(), &"5".into())
    );
    assert_eq!(
        (&page["font"], &page["protocol"]),
        (&true.into(), &"h2".into())
    );
    has_type(&said, "/", "text/html; charset=utf-8");
    has_type(&said, ".css", "text/css; charset=utf-8");
    has_type(&said, ".js", "text/javascript; charset=utf-8");
    has_type(&said, ".woff2", "font/woff2");
    has_type(&said, ".wasm", "application/wasm");
    has_type(&said, ".svg", "image/svg+xml");

    let mut read = 0;
    wait::eventually("the log", wait::SOON, || {
        let all = fs::read_to_string(edge.folder().join("access.log")).unwrap_or_default();
        all.contains(".woff2") && all.contains(".wasm")
    });
    log(&edge, &mut read);
    visit.go_on();
    visit.until("reloaded");
    let mut reloaded = Vec::new();
    wait::eventually("the reload in the log", wait::SOON, || {
        reloaded.extend(log(&edge, &mut read));
        reloaded.contains(&("/".to_owned(), 304))
    });
    assert!(
        reloaded.iter().all(|(_, status)| *status == 304),
        "nothing comes twice: {reloaded:?}"
    );

    visit.go_on();
    visit.until("left");
    log(&edge, &mut read);
    visit.go_on();
    let said = visit.until("came back");
    assert_eq!(find(&said, "release")["release"], "one");
    let back = log(&edge, &mut read);
    // The other page has files of its own, which may still be written to the log.
    let again =
        |target: &str| target == "/" || target.ends_with(".wasm") || target.ends_with(".woff2");
    assert!(
        !back
            .iter()
            .any(|(target, status)| again(target) && *status != 304),
        "going back asks for nothing that is there: {back:?}"
    );

    deploy(&edge, &current);
    visit.go_on();
    let said = visit.until("lazy part loaded");
    assert_eq!(
        find(&said, "lazy")["lazy"],
        "more of one",
        "the page's own release"
    );
    let path = |line: &Value| line["path"] == lazy.as_str() && line["status"] == 200;
    assert!(said.iter().any(path), "it came after the deploy: {said:?}");

    visit.go_on();
    let said = visit.until("the new release opened");
    assert_eq!(find(&said, "release")["release"], "two");
    assert_eq!(find(&said, "lazy")["lazy"], "more of two");
    visit.go_on();
    assert_eq!(visit.driver.wait(PATIENCE), Some(0));
}

/// Flips the link, as a deploy does, and waits until the new release is there.
fn deploy(edge: &Edge, current: &Path) {
    let next = current.with_extension("next");
    symlink("releases/two", &next).unwrap();
    fs::rename(&next, current).unwrap();
    let script = asset(edge, "two", "index-", ".js");
    wait::eventually("the new release", wait::SOON, || {
        edge.ask(&Ask::get("/"))
            .expect(200)
            .text()
            .contains(&script)
    });
}
