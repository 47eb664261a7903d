//! Pages that a certificate authority looks for, to see whether a name is ours (HTTP-01, RFC 8555
//! section 8.3).
//!
//! Only those of orders that are under way are here; nothing that a client sends changes them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use http::Method;

/// Where an authority looks.
const FOLDER: &str = "/.well-known/acme-challenge/";

/// Key authorizations by token.
#[derive(Debug, Default)]
pub(crate) struct PendingPages(RwLock<HashMap<String, String>>);

impl PendingPages {
    /// What a certificate authority is answered, where it is one that asks.
    pub(crate) fn answer(&self, method: &Method, path: &str) -> Option<String> {
        match *method {
            Method::GET | Method::HEAD if path.starts_with(FOLDER) => self.page(path),
            _ => None,
        }
    }

    /// The page for this path, while it is wanted.
    fn page(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(FOLDER)?;
        let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pages.get(token).cloned()
    }

    /// Answers for this token from now on.
    pub(crate) fn show(&self, token: &str, authorization: &str) {
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pages.insert(token.to_owned(), authorization.to_owned());
    }

    /// Does so no more.
    pub(crate) fn withdraw(&self, token: &str) {
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pages.remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_there_while_it_is_pending_and_no_other_is() {
        let pages = PendingPages::default();
        let path = "/.well-known/acme-challenge/token-1";
        assert_eq!(pages.answer(&Method::GET, path), None);
        pages.show("token-1", "token-1.thumb");
        assert_eq!(
            pages.answer(&Method::GET, path).as_deref(),
            Some("token-1.thumb")
        );
        assert_eq!(pages.answer(&Method::POST, path), None);
        for other in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/token-2",
            "/.well-known/acme-challenge/token-1/",
            "/x/.well-known/acme-challenge/token-1",
            "/token-1",
        ] {
            assert_eq!(pages.answer(&Method::GET, other), None, "{other}");
        }
        pages.withdraw("token-1");
        assert_eq!(pages.answer(&Method::GET, path), None);
    }
}
