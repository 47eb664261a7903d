//! One certificate and its key, as handshakes are answered with it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;

use super::leaf::Leaf;
use crate::ocsp::{Response, Staple};

/// See the module's text.
pub(crate) struct Live {
    /// Without a staple.
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) leaf: Leaf,
    pub(crate) staple: Staple,
    /// The same key with the response that was current when it was last asked for.
    stapled: ArcSwapOption<(Arc<Response>, Arc<CertifiedKey>)>,
}

impl Live {
    /// Reads what the chain says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(key: CertifiedKey) -> Result<Self, String> {
        let leaf = key.cert.first().ok_or("there is no certificate in it")?;
        Ok(Self {
            leaf: Leaf::read(leaf)?,
            staple: Staple::of(&key.cert),
            key: Arc::new(key),
            stapled: ArcSwapOption::empty(),
        })
    }

    /// What a handshake at this time is answered with.
    pub(crate) fn stapled(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let Some(response) = self.staple.current(now) else {
            return self.key.clone();
        };
        if let Some(known) = self.stapled.load().as_ref()
            && Arc::ptr_eq(&known.0, &response)
        {
            return known.1.clone();
        }
        let mut key = CertifiedKey::new(self.key.cert.clone(), self.key.key.clone());
        key.ocsp = Some(response.octets.clone());
        let key = Arc::new(key);
        self.stapled.store(Some(Arc::new((response, key.clone()))));
        key
    }

    /// What to call it: its first name.
    pub(crate) fn name(&self) -> &str {
        self.leaf.names.first().map_or("", String::as_str)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}
