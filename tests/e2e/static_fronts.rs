//! One site behind two fronts: the edge and the small server that needs no configuration give
//! the same answers, field for field.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use static_server::{Site, SiteSettings};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::static_suite::{self as suite, Case};
use crate::support::{Edge, Setup, runtime};

/// What belongs to a connection or a moment, and not to the answer.
const OWN: [&str; 5] = ["date", "x-request-id", "connection", "keep-alive", "server"];

/// Refused by the edge's door, before it is known which site is asked: a path that means different
/// things to different readers. The small server has one reader, and answers 400 or 404.
const AT_THE_DOOR: &[&str] = &[
    "dot segments do not climb",
    "nor from further down",
    "nor escaped",
    "nor with an escaped slash",
    "nor all escaped",
    "nor with a backslash",
    "a NUL ends no name",
    "a broken escape is no name",
    "a lone percent sign is no name",
];

/// The stand-alone front; ended when dropped.
struct Alone {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Alone {
    fn start(root: &Path, fallback: Option<&str>) -> Self {
        let mut settings = SiteSettings::new(root);
        settings.fallback = fallback.map(str::to_owned);
        settings.max_memory_file = suite::MAX_MEMORY_FILE;
        settings.cache_control = Some(suite::CACHE_CONTROL.parse().unwrap());
        let site = Arc::new(Site::new(settings).unwrap());
        let listener = runtime()
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let serve = static_server::serve::serve(listener, site, std::future::pending());
        Self {
            address,
            task: runtime().spawn(serve),
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn edge(setup: Setup, root: &Path, more: &str) -> Edge {
    setup
        .with("ROOT", root.display())
        .with("CONTROL", suite::CACHE_CONTROL)
        .with("MEMORY", format!("{}KiB", suite::MAX_MEMORY_FILE / 1_024))
        .start(&format!(
            "[static.site]\nroot = \"@ROOT@\"\ncache_control = \"@CONTROL@\"\n\
             max_memory_file = \"@MEMORY@\"\n{more}\n[[route]]\nstatic = \"site\"\n"
        ))
}

/// The fields that must be the same, in an order of their own.
fn fields(reply: &suite::Reply) -> BTreeSet<(String, String)> {
    let own = |name: &str| OWN.contains(&name);
    let fields = reply.headers.iter().filter(|(name, _)| !own(name));
    fields.cloned().collect()
}

/// Every case twice: once read anew, once from memory.
#[track_caller]
fn compare(edge: SocketAddr, alone: SocketAddr, cases: &[Case]) {
    for front in [edge, alone] {
        suite::warm(front).expect("the large file gets its tag");
    }
    let mut wrong = Vec::new();
    for case in cases.iter().chain(cases) {
        let (Ok(one), Ok(other)) = (suite::reply(edge, case), suite::reply(alone, case)) else {
            wrong.push(format!("{}: no reply", case.name));
            continue;
        };
        if AT_THE_DOOR.contains(&case.name.as_str()) {
            if one.status != 400 || !matches!(other.status, 400 | 404) {
                wrong.push(format!(
                    "{}: {} and {}",
                    case.name, one.status, other.status
                ));
            }
            continue;
        }
        let (ours, theirs) = (fields(&one), fields(&other));
        let only = |a: &BTreeSet<_>, b: &BTreeSet<_>| format!("{:?}", a - b);
        if one.status != other.status || ours != theirs || one.body != other.body {
            wrong.push(format!(
                "{}\n  edge  {} {} bytes, only there {}\n  alone {} {} bytes, only there {}",
                case.name,
                one.status,
                one.body.len(),
                only(&ours, &theirs),
                other.status,
                other.body.len(),
                only(&theirs, &ours),
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn both_fronts_give_the_same_answers_field_for_field() {
    let setup = Setup::new();
    let root = suite::tree(setup.folder());
    let cases = suite::cases(&root);
    assert!(cases.len() > 250, "only {} cases", cases.len());
    let (alone, edge) = (Alone::start(&root, None), edge(setup, &root, ""));
    compare(edge.http(), alone.address, &cases);
}

#[test]
fn both_fronts_fall_back_alike() {
    let setup = Setup::new();
    let root = suite::tree(setup.folder());
    let cases = suite::spa_cases(&root);
    let alone = Alone::start(&root, Some("index.html"));
    let edge = edge(setup, &root, "fallback = \"index.html\"");
    compare(edge.http(), alone.address, &cases);
}
