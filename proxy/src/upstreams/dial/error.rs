//! Why no connection to an endpoint came about.
//!
//! Each kind has a few words for a health check's line ([`DialError::reason`])
//! and a sentence that says how to mend it (`Display`).

use std::borrow::Cow;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DialError {
    /// Nobody listens there.
    Refused,
    /// No way leads there, or the Unix socket does not exist.
    Unreachable(io::ErrorKind),
    /// Not done within `connect_timeout`.
    Timeout,
    /// The handshake failed.
    Tls {
        /// In words.
        reason: Cow<'static, str>,
    },
    /// TLS came about, but without the protocol that is to be spoken.
    Alpn,
    /// HTTP/2 is to be spoken, and what answers does not.
    NotHttp2,
    /// The system refused, or the connection broke at once.
    Io(io::ErrorKind),
    /// As many connections as allowed are open, and none of them is idle. Nothing was tried:
    /// the endpoint is not to blame.
    Limit(Limit),
}

/// Which limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `max_connections`.
    Endpoint,
    /// `max_total_connections`.
    Upstream,
}

impl DialError {
    /// Of a connect(2) that failed.
    pub(super) fn connecting(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            kind @ (io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::AddrNotAvailable) => Self::Unreachable(kind),
            io::ErrorKind::TimedOut => Self::Timeout,
            kind => Self::Io(kind),
        }
    }

    /// Of a handshake that failed.
    pub(super) fn handshaking(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let reason: Cow<'static, str> = match inner {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                return Self::Alpn;
            }
            Some(error) => words(error),
            None if error.kind() == io::ErrorKind::TimedOut => return Self::Timeout,
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the connection was closed in the handshake".into()
            }
            None => format!("the connection broke in the handshake ({})", error.kind()).into(),
        };
        Self::Tls { reason }
    }

    /// A few words, with the detail.
    pub(crate) fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Refused => "connect: refused".into(),
            Self::Unreachable(kind) | Self::Io(kind) => format!("connect: {kind}").into(),
            Self::Timeout => "connect: timeout".into(),
            Self::Tls { reason } => format!("tls: {reason}").into(),
            Self::Alpn => "tls: the protocol was not agreed on (ALPN)".into(),
            Self::NotHttp2 => "http/2: what answers does not speak it".into(),
            Self::Limit(Limit::Endpoint) => "limit: max_connections".into(),
            Self::Limit(Limit::Upstream) => "limit: max_total_connections".into(),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        f.write_str(match self {
            Self::Refused => "; nothing listens there: start the app, or mend the endpoint's address",
            Self::Unreachable(io::ErrorKind::NotFound) => {
                "; the socket does not exist: start the app, or mend the endpoint's path"
            }
            Self::Unreachable(io::ErrorKind::PermissionDenied) => {
                "; let the edge's user write to the socket, or the firewall let it through"
            }
            Self::Unreachable(_) => "; look at routes, firewall and the endpoint's address",
            Self::Timeout => {
                "; the host is down, drops packets or is too slow for connect_timeout"
            }
            Self::Tls { .. } => {
                "; compare the endpoint's certificate with tls.ca and tls.server_name"
            }
            Self::Alpn | Self::NotHttp2 => {
                "; switch HTTP/2 on at the endpoint, or write the protocol that it speaks (protocol = \"h1\")"
            }
            Self::Io(_) => "; look at the endpoint, and at this machine's ports and descriptors",
            Self::Limit(_) => "; raise it in limits, or add endpoints",
        })
    }
}

impl std::error::Error for DialError {}

/// Why the peer gave a handshake up that was over for this side, if it did: with TLS 1.3 a server
/// looks at the client's certificate after that, and its alert comes where the reply is expected
/// (RFC 8446 section 2). Nothing that was sent has been read then.
pub(crate) fn refused_certificate(error: &pingora::Error) -> Option<Cow<'static, str>> {
    use AlertDescription as Alert;
    let error = error.root_cause().downcast_ref::<io::Error>()?;
    let error = error.get_ref()?.downcast_ref()?;
    match error {
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Some(words(error)),
        _ => None,
    }
}

/// The library writes each as `DnsName("shop.example")`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name".to_owned();
    }
    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}

/// The common ones in the words of who has to mend them, the rest in the library's.
fn words(error: &rustls::Error) -> Cow<'static, str> {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => "certificate expired".into(),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "certificate is not valid yet".into()
            }
            Bad::NotValidForNameContext {
                expected,
                presented,
            } => format!(
                "certificate is not for {} (it has {})",
                expected.to_str(),
                names(presented)
            )
            .into(),
            Bad::NotValidForName => "certificate is for another name".into(),
            Bad::UnknownIssuer => "certificate of an unknown issuer".into(),
            Bad::BadSignature => "certificate's signature is not its issuer's".into(),
            Bad::Revoked => "certificate is revoked".into(),
            other => format!("certificate: {other}").into(),
        },
        rustls::Error::AlertReceived(alert) => {
            format!("the endpoint refused the handshake ({alert:?})").into()
        }
        rustls::Error::InvalidMessage(_) => "what answers does not speak TLS".into(),
        other => other.to_string().into(),
    }
}
