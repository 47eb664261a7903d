//! Whole edges, with the lane and without it, that must not be told apart.
//!
//! Two edges, which differ in `[server] lane` alone, stand in front of two apps that answer alike.
//! Both get the same octets, cut at the same places; what their clients and their apps saw is
//! compared. One thread plays both clients and both apps, and goes on to the next step when both
//! edges have done all that they can do ([`asleep`]), so that no clock is waited for and an input
//! does the same each time. What hangs on timers (replies that are late) is for the end-to-end tests.

mod app;
mod asleep;
mod bench;
mod edge;
mod message;
mod script;
mod socket;

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};

use app::Answers;
use bench::{Bench, Told};
pub use edge::serve_if_asked;
use message::{Body, Methods};
use script::{Step, steps};

/// How often a difference must show itself again before it counts.
const CONFIRMED: usize = 2;

static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();

/// Octets of a client are answered alike, and the app is asked alike. The first octet says:
/// 1, the app holds its answers back until the client has sent all (or `~n`); 2, no connection is
/// kept to the app; 4, they come on a connection of their own. The steps are in [`script`].
pub fn lane_requests(data: &[u8]) {
    let Some((&flags, input)) = data.split_first() else {
        return;
    };
    // So that what it says of those before it counts, too.
    let bench = BENCH.get_or_init(|| Mutex::new(Bench::start("127.0.0.0/8")));
    let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    compare(
        &mut bench,
        |bench| requests(bench, flags, input),
        |_, _| false,
    );
}

fn requests(bench: &mut Bench, flags: u8, input: &[u8]) -> [Told; 2] {
    let is_set = |bit: u8| flags & bit != 0;
    let steps = steps(input, bench.next_run());
    bench.connect(&["/warm", "/again/warm"], is_set(2), is_set(4));
    bench.answer(|| Answers::ByPath { held: is_set(1) });
    for step in &steps {
        match step {
            Step::Send(bytes) => bench.send(bytes),
            Step::Next => bench.each_app(app::App::release),
            Step::Finish => bench.finish(),
            Step::Reset => bench.reset(),
        }
        bench.settle();
    }
    bench.each_app(app::App::release);
    bench.settle();
    bench.tell(Methods::Unknown)
}

/// Replies of an app reach the client alike. The first octet says: 1, the client asks HEAD; 2, on a
/// route with pages of its own, other retries and a filter; 4, it sends its requests at once; 8, no
/// connection is kept to the app; 64, it is a known visitor on a route with a cache; 128, it sends
/// bodies. `~n` begins the next reply, and so the answer to the next attempt
/// or request.
pub fn lane_replies(data: &[u8]) {
    let Some((&flags, input)) = data.split_first() else {
        return;
    };
    let bench = BENCH.get_or_init(|| Mutex::new(Bench::start("10.0.0.0/8")));
    let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    compare(
        &mut bench,
        |bench| replies(bench, flags, input),
        |with, without| is_known(input, with, without),
    );
}

fn replies(bench: &mut Bench, flags: u8, input: &[u8]) -> [Told; 2] {
    let is_set = |bit: u8| flags & bit != 0;
    let replies = scripted(steps(input, bench.next_run()));
    let folder = match (is_set(64), is_set(2)) {
        (true, _) => "/cached",
        (false, true) => "/again",
        (false, false) => "",
    };
    let cookie = if is_set(64) { "Cookie: sid=1\r\n" } else { "" };
    bench.connect(&["/warm", "/again/warm"], is_set(8), false);
    bench.answer(|| Answers::Scripted(replies.clone()));
    let methods = [is_set(1), false, false];
    let asked: Vec<_> = ["/1", "/2", "/fixed"]
        .iter()
        .zip(methods)
        .map(|(path, is_head)| {
            let folder = if *path == "/fixed" { "" } else { folder };
            let (method, rest) = match (is_head, is_set(128)) {
                (true, _) => ("HEAD", "\r\n"),
                (false, true) => ("PUT", "Content-Length: 2\r\n\r\nab"),
                (false, false) => ("GET", "\r\n"),
            };
            format!("{method} {folder}{path} HTTP/1.1\r\nHost: shop.example\r\n{cookie}{rest}")
        })
        .collect();
    if is_set(4) {
        bench.send(asked.concat().as_bytes());
        bench.play(&methods, methods.len());
    } else {
        for (nth, request) in asked.iter().enumerate() {
            bench.send(request.as_bytes());
            bench.play(&methods, nth + 1);
        }
    }
    bench.tell(Methods::Known(&methods))
}

/// Steps by the reply that they belong to.
fn scripted(steps: Vec<Step>) -> VecDeque<Vec<Step>> {
    let mut replies = VecDeque::from([Vec::new()]);
    for step in steps {
        match (step, replies.back_mut()) {
            (Step::Next, _) => replies.push_back(Vec::new()),
            (step, Some(reply)) => reply.push(step),
            (_, None) => {}
        }
    }
    replies
}

/// Runs an input, and again where it was not answered alike: a difference that does not come
/// again is one of time.
fn compare(
    bench: &mut Bench,
    mut run: impl FnMut(&mut Bench) -> [Told; 2],
    is_allowed: impl Fn(&Told, &Told) -> bool,
) {
    let is_fine =
        |with: &Told, without: &Told| are_alike(with, without) || is_allowed(with, without);
    let [with, without] = run(bench);
    if is_fine(&with, &without) {
        return;
    }
    for _ in 0..CONFIRMED {
        let [again, without] = run(bench);
        if is_fine(&again, &without) {
            return eprintln!("a difference that did not come again:\n{with:?}");
        }
    }
    panic!("with the lane, {with:?}\nwithout it, {without:?}");
}

/// Whether they differ in what is known of replies that are odd.
///
/// - Chunks: the two need not have read equally far before they tell the client of the reply. What is
///   malformed then is another attempt or a 502, and later a reply that is cut off; either is allowed
///   (RFC 9112 section 8).
fn is_known(input: &[u8], with: &Told, without: &Told) -> bool {
    let sent = |reply: &Vec<Step>| {
        let pieces = reply.iter().map_while(|step| match step {
            Step::Send(bytes) => Some(&bytes[..]),
            _ => None,
        });
        pieces.collect::<Vec<_>>().concat()
    };
    let replies: Vec<_> = scripted(steps(input, 0)).iter().map(sent).collect();
    let mut pairs = with.replies.iter().zip(&without.replies);
    let same = pairs
        .position(|(one, other)| one != other)
        .unwrap_or(with.replies.len().min(without.replies.len()));
    // Of two that were both broken, what was asked tells that there was another.
    let differs = without.replies.get(same).or(without.replies.last());
    differs.is_some_and(message::Reply::is_chunked)
        && replies.iter().any(|sent| message::has_bad_chunks(sent))
}

/// Whether clients and apps were told the same.
///
/// A body that was cut off has no length that means anything: how much of it was passed on depends
/// on how much each way reads at once, and on how long it waits for the rest. So of two cut bodies, one
/// begins with the other.
fn are_alike(with: &Told, without: &Told) -> bool {
    let replies = with.replies.iter().zip(&without.replies);
    let asked = with.asked.iter().zip(&without.asked);
    with.replies.len() == without.replies.len()
        && with.asked.len() == without.asked.len()
        && (&with.behind, with.end) == (&without.behind, without.end)
        && replies
            .clone()
            .all(|(one, other)| one.has_head_of(other) && one.body.is_alike(&other.body))
        && asked.clone().all(|(one, other)| one.is_alike(other))
}
