//! Sessions that stay with their endpoint, by a cookie.
//!
//! The cookie holds a hash of the endpoint's address and the time at which it ends, encrypted and
//! authenticated with AES-256-GCM-SIV (RFC 8452), so that it tells a client neither which endpoint
//! it is nor whether two clients share one, and cannot be made up. A nonce of 96 random bits goes
//! with each; should two ever be equal, that mode gives away no more than that two cookies say the
//! same.
//!
//! The key is the SHA-256 of the configured secret, so edges with the same secret agree; or random,
//! for as long as the process lives.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Hash of the address (8 bytes), end in seconds since 1970 (8 bytes; 0: none).
const PLAIN_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Bytes of a cookie before they are written in base64.
const COOKIE_LEN: usize = NONCE_LEN + PLAIN_LEN + TAG_LEN;

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Of the endpoint's address.
    pub(crate) hash: u64,
    /// More than half of its time is over: a client that is still here gets a new one.
    pub(crate) renew: bool,
}

/// Reads and writes the cookies of one upstream.
pub(crate) struct Sticky {
    pub(crate) settings: conf::Sticky,
    key: LessSafeKey,
    /// Bound into each cookie: that of another upstream with the same secret is not taken.
    upstream: String,
}

impl Sticky {
    /// `fallback` makes the key where no secret is configured.
    ///
    /// `None` if the cipher refuses its key, which it does only for one of a wrong length.
    pub(crate) fn new(
        settings: &conf::Sticky,
        upstream: &str,
        fallback: &[u8; 32],
    ) -> Option<Self> {
        let material = match &settings.secret {
            Some(secret) => secret.expose().as_bytes(),
            None => fallback,
        };
        let key = digest(&SHA256, material);
        Some(Self {
            settings: settings.clone(),
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key.as_ref()).ok()?),
            upstream: upstream.to_owned(),
        })
    }

    /// What `cookie` says, if it was made here and has not ended.
    pub(crate) fn read(&self, cookie: &[u8], now: SystemTime) -> Option<Kept> {
        let mut bytes = [0; COOKIE_LEN];
        let length = URL_SAFE_NO_PAD.decode_slice(cookie, &mut bytes).ok()?;
        if length != COOKIE_LEN {
            return None;
        }
        let (nonce, sealed) = bytes.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, self.aad(), sealed).ok()?;
        let (hash, until) = plain.split_at_checked(8)?;
        let until = u64::from_be_bytes(until.try_into().ok()?);
        let hash = u64::from_be_bytes(hash.try_into().ok()?);
        if until == 0 {
            return Some(Kept { hash, renew: false });
        }
        let left = until.checked_sub(seconds(now)).filter(|left| *left > 0)?;
        let half = self.settings.ttl.map_or(0, |ttl| ttl.as_secs() / 2);
        Some(Kept {
            hash,
            renew: left < half,
        })
    }

    /// A `Set-Cookie` value that sends the client to the endpoint of this hash.
    ///
    /// `None` if there is no randomness to be had: then the client simply is not bound.
    pub(crate) fn write(&self, hash: u64, secure: bool, now: SystemTime) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let until = match self.settings.ttl {
            Some(ttl) => seconds(now).saturating_add(ttl.as_secs().max(1)),
            None => 0,
        };
        let mut sealed = Vec::with_capacity(PLAIN_LEN + TAG_LEN);
        sealed.extend_from_slice(&hash.to_be_bytes());
        sealed.extend_from_slice(&until.to_be_bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.aad(), &mut sealed)
            .ok()?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        let mut cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Lax",
            self.settings.cookie,
            URL_SAFE_NO_PAD.encode(bytes)
        );
        if let Some(ttl) = self.settings.ttl {
            cookie.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
        }
        if secure {
            cookie.push_str("; Secure");
        }
        Some(cookie)
    }

    fn aad(&self) -> Aad<&[u8]> {
        Aad::from(self.upstream.as_bytes())
    }
}

/// A key for upstreams without a configured secret.
///
/// `None` if there is no randomness to be had.
pub(crate) fn random_key() -> Option<[u8; 32]> {
    let mut key = [0; 32];
    rand::fill(&mut key).ok()?;
    Some(key)
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(ttl: Option<Duration>, secret: &str, upstream: &str) -> Sticky {
        let settings = conf::Sticky {
            cookie: "tg_node".to_owned(),
            ttl,
            secret: Some(conf::Secret::new(secret.to_owned())),
        };
        Sticky::new(&settings, upstream, &[0; 32]).expect("a key")
    }

    fn value(set_cookie: &str) -> &[u8] {
        let pair = set_cookie.split(';').next().expect("a pair");
        pair.split_once('=').expect("a value").1.as_bytes()
    }

    const NOW: SystemTime = UNIX_EPOCH;

    #[test]
    fn a_cookie_is_read_by_whoever_has_the_secret() {
        let cookie = sticky(None, "sixteen bytes and more", "app");
        let cookie = cookie.write(42, false, NOW).expect("randomness");
        let same = sticky(None, "sixteen bytes and more", "app");
        let kept = Kept {
            hash: 42,
            renew: false,
        };
        assert_eq!(same.read(value(&cookie), NOW), Some(kept));
        let other_secret = sticky(None, "another secret, as long", "app");
        assert_eq!(other_secret.read(value(&cookie), NOW), None);
        let other_upstream = sticky(None, "sixteen bytes and more", "search");
        assert_eq!(other_upstream.read(value(&cookie), NOW), None);
    }

    #[test]
    fn two_cookies_for_one_endpoint_have_nothing_in_common() {
        let sticky = sticky(None, "sixteen bytes and more", "app");
        let write = || sticky.write(42, false, NOW).expect("randomness");
        let (one, other) = (write(), write());
        assert_ne!(value(&one), value(&other));
    }

    #[test]
    fn a_changed_cookie_is_not_taken() {
        let sticky = sticky(None, "sixteen bytes and more", "app");
        let cookie = sticky.write(42, false, NOW).expect("randomness");
        let good = value(&cookie);
        for place in 0..good.len() {
            let mut bad = good.to_vec();
            bad[place] = if bad[place] == b'A' { b'B' } else { b'A' };
            // The last digit has bits that stand for nothing.
            if bad != good {
                assert_eq!(sticky.read(&bad, NOW), None, "changed at {place}");
            }
        }
        for bad in [&b""[..], b"x", &good[1..], b"\xff\xfe", &[b'A'; 4000]] {
            assert_eq!(sticky.read(bad, NOW), None);
        }
    }

    #[test]
    fn a_cookie_ends_when_its_time_is_over() {
        let sticky = sticky(
            Some(Duration::from_secs(60)),
            "sixteen bytes and more",
            "app",
        );
        let cookie = sticky.write(42, true, NOW).expect("randomness");
        assert!(cookie.contains("; Max-Age=60"), "{cookie}");
        assert!(cookie.ends_with("; Secure"), "{cookie}");
        let at = |seconds| NOW + Duration::from_secs(seconds);
        let read = |seconds| sticky.read(value(&cookie), at(seconds));
        assert_eq!(read(30).map(|kept| kept.renew), Some(false));
        assert_eq!(read(31).map(|kept| kept.renew), Some(true));
        assert_eq!(read(59).map(|kept| kept.hash), Some(42));
        assert_eq!(sticky.read(value(&cookie), at(60)), None);
    }
}
