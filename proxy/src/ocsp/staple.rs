//! The staple of one certificate: what is known, and how it goes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustls::pki_types::CertificateDer;

use super::question::{Not, Question, Read};

/// A clock that is behind what it was by so much was set back.
const SET_BACK: Duration = Duration::from_secs(60);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Staple {
    /// What is asked, or why nobody is.
    pub(super) question: Result<Question, Not>,
    /// Clients are to refuse the certificate without a staple (RFC 7633).
    pub(crate) must_staple: bool,
    response: ArcSwapOption<Response>,
    progress: Mutex<Progress>,
}

/// One that was verified, and says that the certificate is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// An `OCSPResponse`, DER.
    pub(crate) octets: Vec<u8>,
    /// When that was known to be right.
    pub(crate) this_update: SystemTime,
    /// From when on it counts no more.
    pub(crate) next_update: SystemTime,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new response is stapled.
    Good,
    /// The certificate is revoked.
    Revoked,
    /// The responder does not know the certificate.
    Unknown,
    /// No connection, or no whole answer.
    Unreachable,
    /// Another status than 200, or than "successful".
    Refused,
    /// An answer that cannot be believed.
    Invalid,
    /// An answer that is older than one before it.
    Older,
}

impl Outcome {
    pub(crate) const ALL: [Self; 7] = [
        Self::Good,
        Self::Revoked,
        Self::Unknown,
        Self::Unreachable,
        Self::Refused,
        Self::Invalid,
        Self::Older,
    ];

    /// For metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Older => "older",
        }
    }
}

/// How it goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    is_asking: bool,
    /// When somebody was asked last, by the clock of that time.
    asked: Option<SystemTime>,
    /// When somebody is to be asked again; `None`: nobody was.
    pub(super) next: Option<SystemTime>,
    /// In a row.
    pub(super) failures: u32,
    pub(super) error: Option<String>,
    pub(super) revoked: Option<SystemTime>,
    /// thisUpdate of the newest answer, whatever it said.
    newest: Option<SystemTime>,
    /// What cannot be mended by waiting was said.
    pub(super) was_said: bool,
    /// By [`Outcome::ALL`].
    ended: [u64; Outcome::ALL.len()],
}

impl Progress {
    /// There was an answer.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.error = None;
        self.revoked = None;
    }
}

/// For people and metrics.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// Why nobody is asked.
    pub(crate) not: Option<Not>,
    /// What is stapled now.
    pub(crate) response: Option<Arc<Response>>,
    pub(crate) responder: Option<String>,
    pub(crate) next: Option<SystemTime>,
    pub(crate) failures: u32,
    pub(crate) error: Option<String>,
    /// Since when the certificate is revoked.
    pub(crate) revoked: Option<SystemTime>,
    /// How often asking ended so.
    pub(crate) ended: [u64; Outcome::ALL.len()],
}

impl Staple {
    /// Reads what is to be asked of a chain, leaf first.
    pub(crate) fn of(chain: &[CertificateDer<'static>]) -> Self {
        let read = Read::chain(chain);
        Self {
            question: read.question,
            must_staple: read.must_staple,
            response: ArcSwapOption::empty(),
            progress: Mutex::default(),
        }
    }

    /// What a handshake at this time may carry.
    pub(crate) fn current(&self, now: SystemTime) -> Option<Arc<Response>> {
        let response = self.response.load();
        let response = response.as_ref()?;
        (now < response.next_update).then(|| response.clone())
    }

    /// Goes on with what another one for the same certificate knows.
    pub(crate) fn adopt(&self, before: &Self) {
        let known = before.progress().clone();
        *self.progress() = Progress {
            is_asking: false,
            ..known
        };
        self.response.store(before.response.load_full());
    }

    /// Whether the caller is to ask now; then it has to call one of the others.
    pub(super) fn begin(&self, now: SystemTime) -> bool {
        let mut progress = self.progress();
        let is_due = progress.next.is_none_or(|next| next <= now);
        // Then what was reckoned from it does not hold.
        let was_set_back = progress.asked.is_some_and(|asked| now + SET_BACK < asked);
        let begins = self.question.is_ok() && !progress.is_asking && (is_due || was_set_back);
        if begins {
            progress.is_asking = true;
            progress.asked = Some(now);
        }
        begins
    }

    /// Says what came of it; `change` notes the rest.
    pub(super) fn end(
        &self,
        outcome: Outcome,
        next: SystemTime,
        change: impl FnOnce(&mut Progress),
    ) {
        let mut progress = self.progress();
        progress.is_asking = false;
        progress.next = Some(next);
        let counts = Outcome::ALL.iter().zip(&mut progress.ended);
        for (_, count) in counts.filter(|(one, _)| **one == outcome) {
            *count += 1;
        }
        change(&mut progress);
    }

    /// Whether an answer of this thisUpdate may count: what came after a newer one is an old one sent
    /// again, by a responder's lagging copy or by somebody on the way who wants a revocation unseen.
    pub(super) fn admit(&self, this_update: SystemTime) -> bool {
        let mut progress = self.progress();
        let is_older = progress.newest.is_some_and(|newest| this_update < newest);
        if !is_older {
            progress.newest = Some(this_update);
        }
        !is_older
    }

    /// From now on this one is stapled, or none.
    pub(super) fn put(&self, response: Option<Response>) {
        self.response.store(response.map(Arc::new));
    }

    /// Takes away one that counts no more; whether there was one.
    pub(super) fn expire(&self, now: SystemTime) -> bool {
        let response = self.response.load_full();
        let Some(old) = response.filter(|response| response.next_update <= now) else {
            return false;
        };
        // A newer one may have come meanwhile, and stays.
        let expected = Some(old.clone());
        let before = self.response.compare_and_swap(&expected, None);
        before
            .as_ref()
            .is_some_and(|before| Arc::ptr_eq(before, &old))
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it goes.
    pub(crate) fn shown(&self, now: SystemTime) -> Shown {
        let progress = self.progress();
        Shown {
            not: self.question.as_ref().err().cloned(),
            response: self.current(now),
            responder: self
                .question
                .as_ref()
                .ok()
                .map(|one| one.responder.to_string()),
            next: progress.next,
            failures: progress.failures,
            error: progress.error.clone(),
            revoked: progress.revoked,
            ended: progress.ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn response(next_update: u64) -> Response {
        Response {
            octets: vec![1],
            this_update: at(0),
            next_update: at(next_update),
        }
    }

    #[test]
    fn a_response_is_stapled_until_its_end_and_no_longer() {
        let staple = Staple::of(&[]);
        assert!(staple.current(at(0)).is_none());
        staple.put(Some(response(10)));
        assert!(staple.current(at(9)).is_some());
        assert!(staple.current(at(10)).is_none());
        assert!(!staple.expire(at(9)) && staple.expire(at(10)));
        assert!(!staple.expire(at(11)), "it is gone");
    }

    #[test]
    fn what_is_known_goes_on_and_what_was_under_way_does_not() {
        let before = Staple::of(&[]);
        before.put(Some(response(10)));
        before.end(Outcome::Good, at(5), Progress::succeeded);
        before.progress().is_asking = true;
        let after = Staple::of(&[]);
        after.adopt(&before);
        assert!(after.current(at(9)).is_some());
        assert!(!after.progress().is_asking);
        assert_eq!(after.shown(at(1)).next, Some(at(5)));
        assert_eq!(after.shown(at(1)).ended, [1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_answer_does_not_take_the_place_of_a_newer_one() {
        let staple = Staple::of(&[]);
        assert!(staple.admit(at(5)));
        assert!(staple.admit(at(5)), "the same once more");
        assert!(!staple.admit(at(4)));
        assert!(staple.admit(at(6)));
        let after = Staple::of(&[]);
        after.adopt(&staple);
        assert!(!after.admit(at(5)), "a reload forgets nothing");
    }
}
