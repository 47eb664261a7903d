//! What an authority finds when it looks whether a name is ours.
//!
//! Only answers to challenges that are pending are here, put there by an order and taken away with
//! its end; nothing that a client sends changes them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::sign::CertifiedKey;

use crate::exchange::pending::PendingPages;

/// The protocol of TLS-ALPN-01 (RFC 8737 section 6.2).
pub(crate) const ALPN: &[u8] = b"acme-tls/1";

/// Pending answers.
#[derive(Debug, Default)]
pub(crate) struct Challenges {
    pages: Arc<PendingPages>,
    /// By host.
    certificates: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// Those that are asked for by HTTP.
    pub(crate) fn pages(&self) -> &Arc<PendingPages> {
        &self.pages
    }

    /// The certificate for a validating handshake.
    pub(crate) fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let certificates = self.certificates.read();
        let certificates = certificates.unwrap_or_else(PoisonError::into_inner);
        certificates.get(host).cloned()
    }

    /// Answers with `authorization` until what it returns is dropped.
    pub(super) fn show_page(self: &Arc<Self>, token: &str, authorization: &str) -> Shown {
        self.pages.show(token, authorization);
        Shown {
            challenges: self.clone(),
            what: What::Page(token.to_owned()),
        }
    }

    /// The same for a handshake.
    pub(super) fn show_certificate(self: &Arc<Self>, host: &str, key: Arc<CertifiedKey>) -> Shown {
        let certificates = self.certificates.write();
        let mut certificates = certificates.unwrap_or_else(PoisonError::into_inner);
        certificates.insert(host.to_owned(), key);
        Shown {
            challenges: self.clone(),
            what: What::Certificate(host.to_owned()),
        }
    }
}

/// An answer that is there while this is.
#[derive(Debug)]
pub(super) struct Shown {
    challenges: Arc<Challenges>,
    what: What,
}

#[derive(Debug)]
enum What {
    Page(String),
    Certificate(String),
}

impl Drop for Shown {
    fn drop(&mut self) {
        match &self.what {
            What::Page(token) => self.challenges.pages.withdraw(token),
            What::Certificate(host) => {
                let certificates = self.challenges.certificates.write();
                let mut certificates = certificates.unwrap_or_else(PoisonError::into_inner);
                certificates.remove(host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_with_what_shows_it() {
        let challenges = Arc::new(Challenges::default());
        let path = "/.well-known/acme-challenge/token-1";
        let shown = challenges.show_page("token-1", "token-1.thumb");
        assert!(
            challenges
                .pages()
                .answer(&http::Method::GET, path)
                .is_some()
        );
        drop(shown);
        assert!(
            challenges
                .pages()
                .answer(&http::Method::GET, path)
                .is_none()
        );
    }
}
