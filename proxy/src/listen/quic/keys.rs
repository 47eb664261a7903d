//! Keys of a listener's QUIC side that must outlive the process.
//!
//! A client whose server was restarted sends packets that nobody knows any more. A stateless reset
//! (RFC 9000 section 10.3) tells it so at once, if it is made with the key that was in force before.
//! So both keys are derived from what is there before and after a restart without a setting of its
//! own: the private key of the first certificate. Another certificate means other keys; then such
//! clients find out by waiting. Whoever holds that private key can be this server anyway.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, hmac};
use quinn::crypto::HandshakeTokenKey;

/// Keeps these keys apart from whatever else may be derived from the same secret.
const SALT: &[u8] = b"tidegate quic 1";

/// See the module's text.
#[derive(Clone)]
pub(crate) struct Keys {
    reset: Arc<hmac::Key>,
    token: Arc<dyn HandshakeTokenKey>,
    ids: u128,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

impl Keys {
    /// Of nothing that lasts: clients of before a restart are not told of it.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn random() -> Result<Self, Unspecified> {
        let mut secret = [0; LENGTH];
        aws_lc_rs::rand::fill(&mut secret)?;
        Self::derive(&secret)
    }

    /// The same for the same `secret`, which must be one that nobody else knows.
    ///
    /// # Errors
    /// The TLS library does not do it, which it has no reason for.
    pub(crate) fn derive(secret: &[u8]) -> Result<Self, Unspecified> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret);
        let reset = expand(&root, b"stateless reset")?;
        let token = expand(&root, b"address validation")?;
        let ids = expand(&root, b"connection ids")?;
        Ok(Self {
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)),
            token: Arc::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &token)),
            ids: u128::from_be_bytes(std::array::from_fn(|at| ids[at])),
        })
    }

    /// For stateless resets.
    pub(super) fn reset(&self) -> Arc<hmac::Key> {
        self.reset.clone()
    }

    /// For the tokens that prove an address (RFC 9000 section 8.1).
    pub(super) fn token(&self) -> Arc<dyn HandshakeTokenKey> {
        self.token.clone()
    }

    /// For what hides the worker in a connection's id.
    pub(super) fn ids(&self) -> u128 {
        self.ids
    }
}

const LENGTH: usize = 32;

struct Octets;

impl hkdf::KeyType for Octets {
    fn len(&self) -> usize {
        LENGTH
    }
}

/// Octets for one purpose.
fn expand(root: &hkdf::Prk, purpose: &[u8]) -> Result<[u8; LENGTH], Unspecified> {
    let mut octets = [0; LENGTH];
    root.expand(&[purpose], Octets)?.fill(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use quinn::crypto::HmacKey;

    use super::*;

    #[test]
    fn keys_are_the_same_for_the_same_secret_and_for_no_other() {
        let signed = |secret: &[u8]| {
            let keys = Keys::derive(secret).unwrap();
            let mut signature = [0; LENGTH];
            HmacKey::sign(&*keys.reset(), b"id", &mut signature);
            (signature, keys.ids())
        };
        assert_eq!(signed(b"one"), signed(b"one"));
        assert_ne!(signed(b"one").0, signed(b"two").0);
        assert_ne!(signed(b"one").1, signed(b"two").1);
    }
}
