//! The task that asks responders, and says what operators have to know.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::interval;

use super::fetch::{self, Unanswered};
use super::question::{Not, Question};
use super::response::{self, Verdict, Wrong};
use super::schedule;
use super::staple::{Outcome, Progress, Response, Staple};
use crate::listen::{Live, provider};
use crate::snapshot::Snapshot;
use crate::{clock, random};

/// How often is looked whether a certificate came, or is due.
const LOOK: Duration = Duration::from_secs(1);
/// Responders that are asked at once.
const AT_ONCE: usize = 8;

/// Asks for all certificates that are in use, whenever it is time. Never ends.
pub(crate) async fn keep(snapshot: Arc<ArcSwap<Snapshot>>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut every = interval(LOOK);
    loop {
        every.tick().await;
        let snapshot = snapshot.load_full();
        let Some(certificates) = &snapshot.certificates else {
            continue;
        };
        let now = clock::wall();
        for live in certificates.lives() {
            warn(&live, certificates.staples());
            if !certificates.staples() {
                continue;
            }
            if live.staple.expire(now) {
                say_over(&live);
            }
            if !live.staple.begin(now) {
                continue;
            }
            let (turns, snapshot) = (turns.clone(), snapshot.clone());
            tokio::spawn(async move {
                // It is never closed.
                let turn = turns.acquire().await;
                let is_newly_revoked = ask(&live).await;
                drop(turn);
                if is_newly_revoked {
                    replace(&live, &snapshot);
                }
            });
        }
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Unanswered(#[from] Unanswered),
    #[error("{0}")]
    Wrong(#[from] Wrong),
    #[error("the responder does not know the certificate: does the authority still answer for it?")]
    Unknown,
    #[error(
        "the answer is older than one before it: is there something on the way that keeps answers?"
    )]
    Older,
}

impl Failure {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Unanswered(Unanswered::Unreachable(_)) => Outcome::Unreachable,
            Self::Unanswered(Unanswered::Refused(_)) | Self::Wrong(Wrong::Refused(_)) => {
                Outcome::Refused
            }
            Self::Wrong(_) => Outcome::Invalid,
            Self::Unknown => Outcome::Unknown,
            Self::Older => Outcome::Older,
        }
    }
}

/// Good or revoked.
enum Said {
    Good(Response),
    Revoked(SystemTime),
}

async fn try_ask(staple: &Staple, question: &Question) -> Result<Said, Failure> {
    let octets = fetch::ask(&question.responder, question.request.clone()).await?;
    let algorithms = provider().signature_verification_algorithms;
    let now = clock::wall();
    let admit = |this_update| match staple.admit(this_update) {
        true => Ok(()),
        false => Err(Failure::Older),
    };
    match response::judge(&octets, &question.id, &question.issuer, &algorithms, now)? {
        Verdict::Good {
            this_update,
            next_update,
        } => admit(this_update).map(|()| {
            Said::Good(Response {
                octets: octets.to_vec(),
                this_update,
                next_update,
            })
        }),
        Verdict::Revoked { this_update, since } => {
            admit(this_update).map(|()| Said::Revoked(since))
        }
        Verdict::Unknown => Err(Failure::Unknown),
    }
}

/// Asks once; whether the certificate was found revoked and was not before.
async fn ask(live: &Live) -> bool {
    let staple = &live.staple;
    let Ok(question) = &staple.question else {
        return false;
    };
    let name = live.name();
    let responder = &question.responder;
    let said = try_ask(staple, question).await;
    let now = clock::wall();
    match said {
        Ok(Said::Good(response)) => {
            let life = (response.this_update, response.next_update);
            let next = schedule::renewal(life, now, random::share());
            let until = httpdate::fmt_http_date(response.next_update);
            let is_news = staple.current(now).is_none();
            staple.put(Some(response));
            staple.end(Outcome::Good, next, Progress::succeeded);
            match is_news {
                true => tracing::info!(name, %responder, until, "an OCSP response is stapled"),
                false => tracing::debug!(name, %responder, until, "a new OCSP response is stapled"),
            }
            false
        }
        Ok(Said::Revoked(since)) => {
            staple.put(None);
            let next = now + schedule::LONGEST_PAUSE.mul_f64(1.0 + random::share() / 4.0);
            let mut was_known = false;
            staple.end(Outcome::Revoked, next, |progress| {
                was_known = progress.revoked.is_some();
                progress.succeeded();
                progress.revoked = Some(since);
            });
            if !was_known {
                let since = httpdate::fmt_http_date(since);
                tracing::error!(
                    name,
                    %responder,
                    since,
                    "this certificate is REVOKED: clients that look refuse it, and nothing is stapled; put another one in its place, with another key if that one may have been stolen"
                );
            }
            !was_known
        }
        Err(failure) => {
            failed(live, &failure, now);
            false
        }
    }
}

fn failed(live: &Live, failure: &Failure, now: SystemTime) {
    let staple = &live.staple;
    let failures = staple.progress().failures.saturating_add(1);
    let pause = schedule::pause(failures, random::share());
    staple.end(failure.outcome(), now + pause, |progress| {
        progress.failures = failures;
        progress.error = Some(failure.to_string());
    });
    let (name, seconds) = (live.name(), pause.as_secs());
    let shown = staple.shown(now);
    let responder = shown.responder.unwrap_or_default();
    match shown.response {
        Some(old) => {
            let until = httpdate::fmt_http_date(old.next_update);
            tracing::warn!(
                name,
                responder,
                failures,
                next_try_in_seconds = seconds,
                until,
                "no new OCSP response, the old one is stapled until then: {failure}"
            );
        }
        None if staple.must_staple => tracing::error!(
            name,
            responder,
            failures,
            next_try_in_seconds = seconds,
            "no OCSP response, and clients refuse this certificate without one (must-staple): {failure}"
        ),
        None => tracing::warn!(
            name,
            responder,
            failures,
            next_try_in_seconds = seconds,
            "no OCSP response, nothing is stapled: {failure}; see that this machine reaches the responder, or write ocsp_stapling = false in [tls]"
        ),
    }
}

/// Says once what waiting does not mend.
fn warn(live: &Live, staples: bool) {
    let staple = &live.staple;
    let why = match (&staple.question, staples) {
        (Ok(_), true) => return,
        (_, false) if !staple.must_staple => return,
        (_, false) => "[tls] has ocsp_stapling = false".to_owned(),
        (Err(Not::Unnamed), true) if !staple.must_staple => return,
        (Err(not), true) => not.to_string(),
    };
    if std::mem::replace(&mut staple.progress().was_said, true) {
        return;
    }
    let name = live.name();
    match staple.must_staple {
        true => tracing::warn!(
            name,
            "nothing is stapled, and clients refuse this certificate without a staple (must-staple): {why}"
        ),
        false => tracing::warn!(name, "nothing is stapled: {why}"),
    }
}

fn say_over(live: &Live) {
    let name = live.name();
    tracing::error!(
        name,
        "the last OCSP response is over, nothing is stapled any more; the failures before say why"
    );
}

/// One that is obtained by itself is obtained anew, once.
fn replace(live: &Arc<Live>, snapshot: &Snapshot) {
    let is_it = |current: &Arc<Live>| Arc::ptr_eq(current, live);
    let mut managed = snapshot.managed.iter();
    if let Some(managed) = managed.find(|one| one.current().as_ref().is_some_and(is_it)) {
        tracing::warn!(
            name = live.name(),
            "another certificate is ordered in its place"
        );
        managed.order_now();
    }
}
