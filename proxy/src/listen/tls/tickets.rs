//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): what seals them, and for whom they are good.
//!
//! A ticket holds what the handshake established, the client's certificate included. One that was
//! made where clients are not asked for a certificate must not open a listener where they are, so
//! listeners that ask differently have different keys.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use rustls::server::ProducesTickets;

use super::{TlsError, read};
use crate::clock;

/// How long a key seals; it opens for as long again.
const PERIOD: Duration = Duration::from_secs(12 * 3600);

/// Least length of a secret in a file.
const LEAST: usize = 32;

const NAME_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// For whom tickets are good: a digest of what clients are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Audience(pub(super) [u8; 32]);

/// Sealers of this process, kept over reloads, so that sessions stay resumable.
#[derive(Clone, Default)]
pub(crate) struct Tickets(Arc<Mutex<HashMap<Audience, Arc<dyn ProducesTickets>>>>);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    /// What seals for `audience`: with secrets from `files`, or, where there are none, with a key
    /// that is forgotten when it is old.
    ///
    /// # Errors
    /// A file cannot be read or is too short, or there is no randomness.
    pub(crate) fn sealer(
        &self,
        audience: Audience,
        files: &[PathBuf],
    ) -> Result<Arc<dyn ProducesTickets>, TlsError> {
        if !files.is_empty() {
            let secrets = files
                .iter()
                .map(|path| secret(path))
                .collect::<Result<_, _>>()?;
            return Ok(Arc::new(Shared::new(secrets, audience, clock::wall())));
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sealer) = known.get(&audience) {
            return Ok(sealer.clone());
        }
        let sealer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        known.insert(audience, sealer.clone());
        Ok(sealer)
    }
}

fn secret(path: &Path) -> Result<Vec<u8>, TlsError> {
    let secret = read(path)?;
    match secret.len() {
        LEAST.. => Ok(secret),
        len => Err(TlsError::TicketKey {
            path: path.to_owned(),
            len,
        }),
    }
}

/// Keys made from secrets that several processes have, the same for all of them at a time.
struct Shared {
    secrets: Vec<Vec<u8>>,
    audience: Audience,
    keys: ArcSwap<Keys>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The keys of a time.
struct Keys {
    period: u64,
    /// The first seals.
    each: Vec<Key>,
}

struct Key {
    name: [u8; NAME_LEN],
    aead: RandomizedNonceKey,
}

impl Shared {
    fn new(secrets: Vec<Vec<u8>>, audience: Audience, now: SystemTime) -> Self {
        let keys = Keys::new(&secrets, audience, period(now));
        Self {
            secrets,
            audience,
            keys: ArcSwap::from_pointee(keys),
        }
    }

    fn keys(&self, now: SystemTime) -> Arc<Keys> {
        let keys = self.keys.load();
        let period = period(now);
        if keys.period == period {
            return Arc::clone(&keys);
        }
        let new = Arc::new(Keys::new(&self.secrets, self.audience, period));
        self.keys.store(new.clone());
        new
    }

    fn seal(&self, plain: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let keys = self.keys(now);
        let key = keys.each.first()?;
        let mut body = plain.to_vec();
        let aad = Aad::from(&key.name);
        let nonce = key.aead.seal_in_place_append_tag(aad, &mut body).ok()?;
        Some([&key.name[..], nonce.as_ref(), &body].concat())
    }

    fn open(&self, sealed: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let (name, rest) = sealed.split_at_checked(NAME_LEN)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys(now);
        let key = keys.each.iter().find(|key| key.name == name)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let aad = Aad::from(&key.name);
        let length = key.aead.open_in_place(nonce, aad, &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

impl Keys {
    /// Of each secret, the key of now, of before, and of what comes: clocks of servers differ.
    fn new(secrets: &[Vec<u8>], audience: Audience, period: u64) -> Self {
        let periods = [period, period.saturating_sub(1), period + 1];
        let each = secrets
            .iter()
            .flat_map(|secret| periods.map(|period| Key::new(secret, audience, period)))
            .flatten()
            .collect();
        Self { period, each }
    }
}

impl Key {
    fn new(secret: &[u8], audience: Audience, period: u64) -> Option<Self> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                NAME_LEN + KEY_LEN
            }
        }
        let salt = Salt::new(HKDF_SHA256, b"tidegate session tickets 1");
        let extracted = salt.extract(secret);
        let period = period.to_be_bytes();
        let info = [&audience.0[..], &period[..]];
        let mut bytes = [0; NAME_LEN + KEY_LEN];
        extracted
            .expand(&info, Length)
            .ok()?
            .fill(&mut bytes)
            .ok()?;
        let (name, key) = bytes.split_at(NAME_LEN);
        Some(Self {
            name: name.try_into().ok()?,
            aead: RandomizedNonceKey::new(&AES_256_GCM, key).ok()?,
        })
    }
}

impl ProducesTickets for Shared {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(PERIOD.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, clock::wall())
    }

    fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open(sealed, clock::wall())
    }
}

fn period(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / PERIOD.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: Audience = Audience([1; 32]);

    fn at(periods: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + PERIOD * u32::try_from(periods).unwrap()
    }

    fn of(secrets: &[&[u8]], audience: Audience) -> Shared {
        let secrets = secrets.iter().map(|secret| secret.to_vec()).collect();
        Shared::new(secrets, audience, at(50_000))
    }

    const ONE: &[u8] = &[1; 40];
    const TWO: &[u8] = &[2; 40];

    #[test]
    fn servers_with_one_secret_open_each_others_tickets_while_they_are_young() {
        let (a, b) = (
            of(&[ONE], Audience::default()),
            of(&[ONE], Audience::default()),
        );
        let ticket = a.seal(b"session", at(50_000)).unwrap();
        assert_ne!(
            ticket,
            a.seal(b"session", at(50_000)).unwrap(),
            "a nonce each"
        );
        for (periods, opens) in [
            (49_998, false),
            (49_999, true),
            (50_000, true),
            (50_001, true),
            (50_002, false),
        ] {
            let opened = b.open(&ticket, at(periods));
            assert_eq!(
                opened.as_deref(),
                opens.then_some(&b"session"[..]),
                "{periods}"
            );
        }
    }

    #[test]
    fn a_change_of_secrets_goes_by_way_of_both() {
        let old = of(&[ONE], Audience::default());
        let both = of(&[TWO, ONE], Audience::default());
        let new = of(&[TWO], Audience::default());
        let now = at(50_000);
        let (first, second) = (old.seal(b"1", now).unwrap(), both.seal(b"2", now).unwrap());
        assert!(both.open(&first, now).is_some() && both.open(&second, now).is_some());
        assert!(new.open(&first, now).is_none() && new.open(&second, now).is_some());
        assert!(old.open(&second, now).is_none());
    }

    #[test]
    fn tickets_of_another_audience_and_damaged_ones_do_not_open() {
        let (ours, theirs) = (of(&[ONE], Audience::default()), of(&[ONE], OTHERS));
        let now = at(50_000);
        let ticket = ours.seal(b"session", now).unwrap();
        assert!(theirs.open(&ticket, now).is_none());
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert!(ours.open(&damaged, now).is_none(), "octet {at}");
            assert!(ours.open(&ticket[..at], now).is_none(), "{at} octets");
        }
    }
}
