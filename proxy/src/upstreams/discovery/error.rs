//! Why a part of the endpoints could not be brought up to date, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// The addresses of a host name.
    Name(String),
    /// The SRV records of a name.
    Srv(String),
    /// A list in a file.
    File(PathBuf),
    /// A list behind a URL, without its query.
    Url(String),
    /// All of them together.
    All,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(host) => write!(f, "the name {host:?}"),
            Self::Srv(name) => write!(f, "the SRV records of {name:?}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Url(url) => write!(f, "the list at {url}"),
            Self::All => f.write_str("discovery"),
        }
    }
}

/// How it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No such name or file, no record of the kind, an empty list.
    NotFound,
    /// No answer in time.
    Timeout,
    /// Nobody listens there, or it will not talk to us.
    Refused,
    /// A DNS server could not find out (SERVFAIL and its like).
    ServerFailure,
    /// The answer cannot be understood.
    BadDocument,
    /// More endpoints than are taken.
    TooMany,
    /// What the file says of the source itself is of no use.
    Settings,
    /// No TLS with the server.
    Tls,
    /// The system's word.
    Io,
    /// Access to a file is denied.
    Denied,
    /// An HTTP status other than 200 and 304.
    Status(u16),
}

impl Trouble {
    /// For the log and for metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::ServerFailure => "server_failure",
            Self::BadDocument => "bad_document",
            Self::TooMany => "too_many",
            Self::Settings => "settings",
            Self::Tls => "tls",
            Self::Io => "io",
            Self::Denied => "denied",
            Self::Status(_) => "http_status",
        }
    }
}

/// A part of the endpoints that could not be brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiscoveryError {
    part: Part,
    kind: Trouble,
    reason: String,
    repeated: bool,
}

impl DiscoveryError {
    pub(super) fn new(part: Part, kind: Trouble, reason: impl Into<String>) -> Self {
        Self {
            part,
            kind,
            reason: reason.into(),
            repeated: false,
        }
    }

    /// Which part.
    #[cfg(test)]
    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    /// How it failed.
    pub(crate) fn kind(&self) -> Trouble {
        self.kind
    }

    /// Whether the part failed in the same way when it was tried before: no news for a log.
    pub(crate) fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Whether somebody must mend something, against what passes by itself: an answer was had, and
    /// it says that the configuration (or the zone, or the document) is wrong.
    pub(crate) fn is_definite(&self) -> bool {
        match self.kind {
            Trouble::NotFound
            | Trouble::BadDocument
            | Trouble::TooMany
            | Trouble::Settings
            | Trouble::Denied => true,
            Trouble::Timeout
            | Trouble::Refused
            | Trouble::ServerFailure
            | Trouble::Tls
            | Trouble::Io
            | Trouble::Status(_) => false,
        }
    }

    /// The same, marked as no news where `before` says so too.
    pub(super) fn after(mut self, before: Option<&Self>) -> Self {
        self.repeated = before.is_some_and(|before| {
            (&self.part, self.kind, &self.reason) == (&before.part, before.kind, &before.reason)
        });
        self
    }

    /// What to do about it.
    fn fix(&self) -> &'static str {
        match (&self.part, self.kind) {
            (_, Trouble::Settings) => "mend it in the configuration",
            (_, Trouble::TooMany) => "split them over several upstreams",
            (Part::Name(_) | Part::Srv(_), Trouble::NotFound) => {
                "mend the name or its zone; to take an endpoint out of service, drain it"
            }
            (Part::Name(_) | Part::Srv(_), Trouble::Timeout) => {
                "see that the DNS server answers and that UDP and TCP port 53 to it are open; where \
                 one kind of query alone is lost, set resolve.family"
            }
            (Part::Name(_) | Part::Srv(_), _) => {
                "see the log of the DNS server, or name another in resolve.servers"
            }
            (Part::File(_), Trouble::NotFound) => {
                "write it, or mend discovery.file; a list that is to be empty needs endpoints in \
                 the configuration beside it"
            }
            (Part::File(_), Trouble::Denied) => {
                "let the user that tidegate runs as read it, and enter its folder"
            }
            (Part::File(_), _) => "mend the file; it is read again as soon as it changes",
            (Part::Url(_), Trouble::Status(_)) => "mend discovery.url, or what it asks for",
            (Part::Url(_), Trouble::Tls) => {
                "see that the certificate names the host, is in date, and is signed by an \
                 authority that the system trusts"
            }
            (Part::Url(_), Trouble::BadDocument | Trouble::NotFound) => {
                "mend what the server sends, or discovery.url"
            }
            (Part::Url(_) | Part::All, _) => {
                "see that the server runs and can be reached from here"
            }
        }
    }
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.part, self.reason, self.fix())
    }
}

impl std::error::Error for DiscoveryError {}
