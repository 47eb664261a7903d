//! Why an order came to nothing, and what an operator can do about it.

use std::fmt;
use std::time::{Duration, SystemTime};

use instant_acme::Problem;

use super::challenge::Way;
use super::client::NotReached;

/// How an order ended. The label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is a new certificate.
    Issued,
    /// The directory could not be asked, or broke off.
    Unreachable,
    /// The authority says that it was asked too often.
    RateLimited,
    /// It looked, and did not find that the names are ours.
    Challenge,
    /// It refuses for another reason.
    Refused,
    /// The record in the DNS could not be made.
    Record,
    /// What it sent, or what is in the storage, cannot be used.
    Unusable,
}

impl Outcome {
    pub(crate) const ALL: [Self; 7] = [
        Self::Issued,
        Self::Unreachable,
        Self::RateLimited,
        Self::Challenge,
        Self::Refused,
        Self::Record,
        Self::Unusable,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Unreachable => "unreachable",
            Self::RateLimited => "rate_limited",
            Self::Challenge => "challenge",
            Self::Refused => "refused",
            Self::Record => "record",
            Self::Unusable => "unusable",
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    /// What happened, in the authority's words where it said something.
    what: String,
    /// What to do about it.
    advice: &'static str,
    /// How long the authority wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.advice)
    }
}

impl Failure {
    pub(super) fn new(outcome: Outcome, what: impl Into<String>, advice: &'static str) -> Self {
        Self {
            outcome,
            what: what.into(),
            advice,
            retry_after: None,
        }
    }

    /// What the folder for the account and the certificates does not do.
    pub(super) fn storage(what: impl fmt::Display) -> Self {
        Self::new(
            Outcome::Unusable,
            what.to_string(),
            "make `storage` readable and writable for the account that runs Tidegate",
        )
    }

    /// What the library says of an exchange with the directory.
    pub(super) fn of(error: &instant_acme::Error, way: Way) -> Self {
        use instant_acme::Error;
        match error {
            Error::Api(problem) => Self::refused(problem, way),
            Error::Other(inner) if inner.is::<NotReached>() => Self::new(
                Outcome::Unreachable,
                inner.to_string(),
                "is `directory` right, and may this machine connect to it? It is tried again by itself",
            ),
            Error::Timeout(until) => Self {
                retry_after: until
                    .map(|until| until.saturating_duration_since(crate::clock::now())),
                ..Self::new(
                    Outcome::Unreachable,
                    "the authority did not come to an end in time",
                    "it is tried again by itself",
                )
            },
            other => Self::new(
                Outcome::Unusable,
                format!("the directory's answer cannot be used: {other}"),
                "is `directory` the URL of an ACME directory?",
            ),
        }
    }

    /// A refusal in the authority's own words (RFC 8555 section 6.7).
    pub(super) fn refused(problem: &Problem, way: Way) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or_default();
        let kind = kind.rsplit(':').next().unwrap_or_default();
        Self::new(outcome_of(kind), told(problem), advice(kind, way))
    }

    /// This one, and another that came of asking somebody else.
    pub(super) fn and(self, other: &Self) -> Self {
        // Whoever could not be reached counts nothing; what counts decides.
        let outcome = match self.outcome {
            Outcome::Unreachable => other.outcome,
            outcome => outcome,
        };
        Self {
            outcome,
            what: format!("{self}. Then, at fallback_directory: {}", other.what),
            advice: other.advice,
            retry_after: match (self.retry_after, other.retry_after) {
                (Some(one), Some(two)) => Some(one.min(two)),
                _ => None,
            },
        }
    }

    /// With what the authority said beside its answer.
    pub(super) fn patiently(self, until: Option<SystemTime>, now: SystemTime) -> Self {
        let told = until.and_then(|until| until.duration_since(now).ok());
        Self {
            retry_after: self.retry_after.max(told),
            ..self
        }
    }
}

fn told(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("no reason given");
    let mut text = format!("the authority refuses: {}", one_line(detail));
    for part in &problem.subproblems {
        text.push_str("; ");
        text.push_str(&one_line(&part.to_string()));
    }
    if let Some(kind) = &problem.r#type {
        text.push_str(&format!(" ({})", one_line(kind)));
    }
    text
}

/// What a peer wrote, fit for a log: one line, and not a long one.
fn one_line(text: &str) -> String {
    const MOST: usize = 500;
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MOST).collect()
}

fn outcome_of(kind: &str) -> Outcome {
    match kind {
        "rateLimited" => Outcome::RateLimited,
        "serverInternal" => Outcome::Unreachable,
        "connection" | "dns" | "tls" | "unauthorized" | "incorrectResponse" | "caa" => {
            Outcome::Challenge
        }
        _ => Outcome::Refused,
    }
}

/// What is done about a refusal of this kind.
fn advice(kind: &str, way: Way) -> &'static str {
    match (kind, way) {
        ("rateLimited", _) => {
            "wait: it is tried again by itself, not before the authority allows. Try changes with its staging directory"
        }
        ("connection", Way::Http) => {
            "can port 80 of each name be reached from the internet, and does it lead to a listener of this edge? Look at the A and AAAA records, NAT and firewalls"
        }
        ("connection" | "tls", Way::TlsAlpn) => {
            "can port 443 of each name be reached from the internet, and does it lead to a TLS listener of this edge, with nothing in between that ends TLS?"
        }
        ("dns", Way::Dns) => {
            "is the record made in the zone that the world asks, and `dns_wait` long enough for all of its servers?"
        }
        ("dns", _) => {
            "have the names A or AAAA records that the world can look up, without DNSSEC errors?"
        }
        ("unauthorized" | "incorrectResponse", Way::Http) => {
            "somebody else answered on port 80: do all A and AAAA records lead to this edge?"
        }
        ("unauthorized" | "incorrectResponse", Way::TlsAlpn) => {
            "somebody else answered on port 443: do all A and AAAA records lead to this edge, with nothing in between that ends TLS?"
        }
        ("unauthorized" | "incorrectResponse", Way::Dns) => {
            "the record with the right value was not found: is it made in the right zone, and `dns_wait` long enough?"
        }
        ("caa", _) => {
            "a CAA record of the domain does not allow this authority: add it there, or use another `directory`"
        }
        ("externalAccountRequired", _) => {
            "this authority wants an account that exists already: write eab = { key_id, hmac_key }"
        }
        ("rejectedIdentifier", _) => {
            "this authority makes no certificate for one of the names; see `hosts`"
        }
        ("unsupportedIdentifier", _) => {
            "this authority makes no certificates for names of this kind; see `hosts`"
        }
        ("invalidContact" | "unsupportedContact", _) => "see `email`",
        ("userActionRequired", _) => {
            "read the authority's terms of service at the address that it names"
        }
        ("invalidProfile", _) => "see `profile`: this authority does not have it",
        ("badCSR" | "badPublicKey", _) => "see `key_type`: this authority does not take it",
        _ => "see docs/certificates.md",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> Problem {
        let text = serde_json::json!({
            "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": 400,
        });
        serde_json::from_value(text).expect("a problem")
    }

    #[test]
    fn a_refusal_says_what_the_authority_said_and_what_to_do() {
        let failure =
            Failure::refused(&problem("connection", "Timeout\nduring connect"), Way::Http);
        assert_eq!(failure.outcome, Outcome::Challenge);
        let text = failure.to_string();
        assert!(text.contains("Timeout during connect"), "{text}");
        assert!(text.contains("port 80"), "{text}");
    }

    #[test]
    fn every_kind_of_refusal_has_an_outcome_and_rate_limits_have_their_own() {
        for (kind, outcome) in [
            ("rateLimited", Outcome::RateLimited),
            ("serverInternal", Outcome::Unreachable),
            ("dns", Outcome::Challenge),
            ("caa", Outcome::Challenge),
            ("externalAccountRequired", Outcome::Refused),
            ("somethingNew", Outcome::Refused),
        ] {
            let failure = Failure::refused(&problem(kind, "x"), Way::Dns);
            assert_eq!(failure.outcome, outcome, "{kind}");
        }
        let labels: std::collections::BTreeSet<_> =
            Outcome::ALL.iter().map(|one| one.as_str()).collect();
        assert_eq!(labels.len(), Outcome::ALL.len());
    }
}
