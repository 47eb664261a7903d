//! Whether a page that is shared is the same for all: sampled, behind the scenes.
//!
//! A page that declares no Vary is served to every visitor. Where an application forgot that it is
//! different for one who is signed in, nobody learns of it but by accident. So of the hits that carry
//! a session, a share is fetched once with it and once without. Pages that differ from fetch to fetch
//! anyway (a clock, a token in a form) are told apart by a third fetch, again without.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use cache::Stored;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderValue, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use tokio::time::timeout;

use super::Cached;
use super::judge::make_question;
use crate::carry::turn::Turn;
use crate::carry::upstream::{self, Incoming, Outgoing, Upload};
use crate::observe::{CacheCounts, Compared, Record};
use crate::snapshot::Cache;
use crate::upstreams::Upstream;

/// Compares this hit, if the dice say so.
pub(super) async fn sample(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    found: &Arc<Stored>,
) {
    let caching = cached.caching;
    let varies = !found.head().variant().spec().names().is_empty();
    let share = f64::from(caching.compare_sessions) / 100.0;
    if varies
        || crate::random::share() >= share
        || !caching.is_of_a_session(&session.req_header().headers)
    {
        return;
    }
    let Ok(mut with) = turn
        .outgoing(session, cached.route, cached.upstream, cached.way)
        .await
    else {
        return;
    };
    let asked = &session.req_header().headers;
    if make_question(&mut with, asked, caching, None).is_err() {
        return;
    }
    let mut without = with.head.clone();
    anonymise(&mut without, &caching.sessions);
    let comparison = Comparison {
        upstream: cached.upstream.clone(),
        worker: turn.carrier.worker(),
        record: turn.background_record(cached.place),
        hasher: RandomState::new(),
        most: caching.policy.max_object_size,
        longest: caching.background_timeout,
        hash: with.hash,
    };
    let task = Task {
        counts: turn.snapshot.cache.counts.clone(),
        cache: turn.snapshot.cache.clone(),
        route: cached.route.name.clone(),
        path: cached.way.path.clone(),
    };
    tokio::spawn(task.run(comparison, with.head, without));
}

/// Takes out what says whose the request is.
fn anonymise(head: &mut RequestHeader, sessions: &[String]) {
    head.remove_header(&AUTHORIZATION);
    let kept: Vec<Vec<u8>> = head
        .headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| {
            let name = pair.split(|byte| *byte == b'=').next();
            let name = name.unwrap_or_default().trim_ascii();
            !sessions.iter().any(|session| session.as_bytes() == name)
        })
        .map(<[u8]>::to_vec)
        .collect();
    head.remove_header(&COOKIE);
    if let Ok(line) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
        && !line.is_empty()
    {
        // The name is typed: it cannot be refused.
        let _ = head.insert_header(COOKIE, line);
    }
}

struct Task {
    counts: Arc<CacheCounts>,
    cache: Arc<Cache>,
    route: String,
    path: String,
}

impl Task {
    async fn run(self, mut comparison: Comparison, with: RequestHeader, without: RequestHeader) {
        // One at a time: it is a sample, and no load.
        let Ok(_one) = self.cache.comparing.try_lock() else {
            return;
        };
        let result = comparison.compare(with, without).await;
        self.counts.compared(&self.route, result);
        if result == Compared::Different {
            tracing::warn!(
                route = self.route,
                path = self.path,
                "a cached page without Vary is another one for a session: let the application say `private` or `Vary: Cookie`"
            );
        }
    }
}

struct Comparison {
    upstream: Arc<Upstream>,
    worker: usize,
    record: Record,
    hasher: RandomState,
    most: u64,
    longest: Duration,
    hash: Option<u64>,
}

impl Comparison {
    async fn compare(&mut self, with: RequestHeader, without: RequestHeader) -> Compared {
        let session = self.fetch(with).await;
        let anonymous = self.fetch(without.clone()).await;
        match (session, anonymous) {
            (Some(session), Some(anonymous)) if session == anonymous => Compared::Same,
            (Some(_), Some(anonymous)) => match self.fetch(without).await {
                Some(again) if again == anonymous => Compared::Different,
                Some(_) => Compared::Unstable,
                None => Compared::Failed,
            },
            _ => Compared::Failed,
        }
    }

    /// A hash of the body that comes with 200; `None` for whatever else comes.
    async fn fetch(&mut self, head: RequestHeader) -> Option<u64> {
        let mut outgoing = Outgoing {
            head,
            upload: Upload::Done,
            trailers: None,
            hash: self.hash,
            sticky: None,
            upgrade: false,
            made_key: false,
            repeatable: false,
            taken: false,
            from: None,
        };
        let (mut incoming, head) = upstream::open(
            &self.upstream,
            self.worker,
            &mut outgoing,
            None,
            &|| true,
            &mut self.record,
            None,
        )
        .await
        .ok()?;
        if head.status != StatusCode::OK {
            incoming.abandon().await;
            return None;
        }
        let mut hasher = self.hasher.build_hasher();
        match timeout(self.longest, self.read(&mut incoming, &mut hasher)).await {
            Ok(true) => {
                incoming.finish().await;
                Some(hasher.finish())
            }
            Ok(false) | Err(_) => {
                incoming.abandon().await;
                None
            }
        }
    }

    /// Whether the whole body came, and was not too large.
    async fn read(&self, incoming: &mut Incoming, hasher: &mut impl Hasher) -> bool {
        let mut length = 0;
        while !incoming.is_done() {
            match incoming.next(&mut Upload::Done, None).await {
                Ok(Some(piece)) => {
                    length += piece.len() as u64;
                    if length > self.most {
                        return false;
                    }
                    hasher.write(&piece);
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_whose_it_is_is_taken_out() {
        let mut head = RequestHeader::build_no_case("GET", b"/", None).unwrap();
        head.insert_header("authorization", "Bearer x").unwrap();
        head.append_header("cookie", "theme=dark; sid=1;lang=de")
            .unwrap();
        head.append_header("accept", "*/*").unwrap();
        anonymise(&mut head, &["sid".to_owned()]);
        assert!(!head.headers.contains_key("authorization"));
        assert_eq!(head.headers["cookie"], "theme=dark; lang=de");
        anonymise(&mut head, &["theme".to_owned(), "lang".to_owned()]);
        assert!(!head.headers.contains_key("cookie"));
        assert!(head.headers.contains_key("accept"));
    }
}
