//! Records made by the zone's own server: dynamic updates (RFC 2136), signed with a shared key (TSIG,
//! RFC 8945).
//!
//! One message over one TCP connection. That a change was made is believed if the answer is signed with
//! the key, too. Refusals count also without: a server that does not know the key cannot sign them.

mod answer;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::{Failure, Outcome};
use crate::{clock, random};

/// Connecting, asking and hearing.
const PATIENCE: Duration = Duration::from_secs(20);
/// Seconds that a record may be remembered; it is there for a minute or so.
const TTL: u32 = 60;
/// Seconds that the clocks may differ (RFC 8945 section 10).
const FUDGE: u16 = 300;

const NOT_BASE64: &str = "the secret is not base64";

const TXT: u16 = 16;
const SOA: u16 = 6;
const TSIG: u16 = 250;
const IN: u16 = 1;
const NONE: u16 = 254;
const ANY: u16 = 255;
/// Opcode UPDATE in its place.
const UPDATE: u16 = 5 << 11;

/// What is done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

/// Whether a message can be signed so.
///
/// # Errors
/// What is wrong.
pub(super) fn verify(settings: &conf::DnsUpdate) -> Result<(), &'static str> {
    let record = Record {
        what: Change::Add,
        name: &settings.zone,
        value: "",
    };
    Key::new(settings)
        .and_then(|key| signed(&key, &settings.zone, 0, &record, UNIX_EPOCH))
        .map(drop)
        .map_err(|reason| match reason {
            NOT_BASE64 => {
                "rfc2136: `secret` is not base64; write it as in the server's configuration"
            }
            other => other,
        })
}

/// Adds or removes the TXT record `name` with this value.
pub(super) async fn change(
    settings: &conf::DnsUpdate,
    what: Change,
    name: &str,
    value: &str,
) -> Result<(), Failure> {
    let failed = |reason: String, advice: &'static str| {
        let shown = format!("update of {name} at {}: {reason}", settings.server);
        Failure::new(Outcome::Record, shown, advice)
    };
    let id = u16::try_from(random::bits() & 0xffff).unwrap_or(0);
    let record = Record { what, name, value };
    let wrong = |reason: &str| failed(reason.to_owned(), "see `rfc2136`");
    let key = Key::new(settings).map_err(wrong)?;
    let (message, mac) = signed(&key, &settings.zone, id, &record, clock::wall()).map_err(wrong)?;
    let exchanged = timeout(PATIENCE, exchange(settings.server, &message)).await;
    let answer = match exchanged {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(error.to_string(), "see `server` of `rfc2136`")),
        Err(_) => {
            let late = format!("no answer within {PATIENCE:?}");
            return Err(failed(late, "see `server` of `rfc2136`"));
        }
    };
    match code(&answer, id) {
        Some(0) => key
            .verify(&answer, mac.as_ref(), clock::wall())
            .map_err(|reason| {
                let what = format!("the server says that it is done, and {reason}");
                failed(
                    what,
                    "who answers at `server` of `rfc2136`, and does it sign its answers?",
                )
            }),
        Some(code) => Err(failed(called(code), advice(code))),
        None => Err(failed(
            "what answers is no answer to this".to_owned(),
            "see `server` of `rfc2136`",
        )),
    }
}

async fn exchange(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A record, and what is done with it.
struct Record<'a> {
    what: Change,
    name: &'a str,
    value: &'a str,
}

/// The whole message with its signature, and the signature.
fn signed(
    key: &Key,
    zone: &str,
    id: u16,
    record: &Record<'_>,
    now: SystemTime,
) -> Result<(Vec<u8>, hmac::Tag), &'static str> {
    let mut message = Vec::with_capacity(512);
    // Identity, opcode; one zone, no prerequisites, one update, nothing more.
    for field in [id, UPDATE, 1, 0, 1, 0] {
        put(&mut message, field);
    }
    put_name(&mut message, zone)?;
    put(&mut message, SOA);
    put(&mut message, IN);
    put_name(&mut message, record.name)?;
    put(&mut message, TXT);
    let (class, ttl) = match record.what {
        Change::Add => (IN, TTL),
        // This one of the set, and no other (RFC 2136 section 2.5.4).
        Change::Remove => (NONE, 0),
    };
    put(&mut message, class);
    message.extend_from_slice(&ttl.to_be_bytes());
    let length = u8::try_from(record.value.len()).map_err(|_| "the value is too long")?;
    put(&mut message, u16::from(length) + 1);
    message.push(length);
    message.extend_from_slice(record.value.as_bytes());

    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = &seconds.to_be_bytes()[2..];
    // RFC 8945 section 4.3.3: the message, then the fields of the signature but for the MAC.
    let mut digested = message.clone();
    key.put_variables(&mut digested, time, FUDGE, 0, &[]);
    let mac = hmac::sign(&key.key, &digested);

    let mut data = key.algorithm.clone();
    data.extend_from_slice(time);
    put(&mut data, FUDGE);
    put_long(&mut data, mac.as_ref())?;
    put(&mut data, id);
    put(&mut data, 0);
    put(&mut data, 0);
    message.extend_from_slice(&key.owner);
    put(&mut message, TSIG);
    put(&mut message, ANY);
    message.extend_from_slice(&0_u32.to_be_bytes());
    put_long(&mut message, &data)?;
    // One more record, now that it is there.
    message[11] = 1;
    Ok((message, mac))
}

/// What a zone's server and this process share.
struct Key {
    key: hmac::Key,
    /// Its name, as it is signed.
    owner: Vec<u8>,
    /// The algorithm's name, likewise.
    algorithm: Vec<u8>,
}

impl Key {
    fn new(settings: &conf::DnsUpdate) -> Result<Self, &'static str> {
        let (algorithm, name) = match settings.algorithm {
            conf::TsigAlgorithm::Sha256 => (hmac::HMAC_SHA256, "hmac-sha256"),
            conf::TsigAlgorithm::Sha384 => (hmac::HMAC_SHA384, "hmac-sha384"),
            conf::TsigAlgorithm::Sha512 => (hmac::HMAC_SHA512, "hmac-sha512"),
        };
        let secret = BASE64_STANDARD.decode(settings.secret.expose());
        let mut key = Self {
            key: hmac::Key::new(algorithm, &secret.map_err(|_| NOT_BASE64)?),
            owner: Vec::new(),
            algorithm: Vec::new(),
        };
        put_name(&mut key.owner, &settings.key_name)?;
        put_name(&mut key.algorithm, name)?;
        Ok(key)
    }

    /// The fields of a signature that are signed themselves (RFC 8945 section 4.3.3).
    fn put_variables(
        &self,
        digested: &mut Vec<u8>,
        time: &[u8],
        fudge: u16,
        error: u16,
        other: &[u8],
    ) {
        digested.extend_from_slice(&self.owner);
        put(digested, ANY);
        digested.extend_from_slice(&0_u32.to_be_bytes());
        digested.extend_from_slice(&self.algorithm);
        digested.extend_from_slice(time);
        put(digested, fudge);
        put(digested, error);
        // It was read with a length of two octets.
        put(digested, u16::try_from(other.len()).unwrap_or(u16::MAX));
        digested.extend_from_slice(other);
    }

    /// Whether an answer to the request with this MAC is signed with the key (RFC 8945 section 5.3).
    fn verify(&self, answer: &[u8], request: &[u8], now: SystemTime) -> Result<(), &'static str> {
        let signed = answer::signed(answer).ok_or("its answer is not signed")?;
        let mut digested = Vec::with_capacity(answer.len() + request.len());
        // Section 5.3.1: the request's MAC, the message as it was, the fields of the signature.
        put_long(&mut digested, request)?;
        put(&mut digested, signed.original_id);
        digested.extend_from_slice(signed.flags_and_counts);
        put(&mut digested, signed.additional);
        digested.extend_from_slice(signed.records);
        self.put_variables(
            &mut digested,
            signed.time,
            signed.fudge,
            signed.error,
            signed.other,
        );
        hmac::verify(&self.key, &digested, signed.mac)
            .map_err(|_| "its answer is signed with another key")?;
        let time = signed.time.iter();
        let time = time.fold(0, |time, octet| time << 8 | u64::from(*octet));
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match now.abs_diff(time) <= u64::from(signed.fudge) && signed.error == 0 {
            true => Ok(()),
            false => Err("its answer is signed at another time: look at both clocks"),
        }
    }
}

/// Its length in two octets, and itself.
fn put_long(message: &mut Vec<u8>, octets: &[u8]) -> Result<(), &'static str> {
    put(
        message,
        u16::try_from(octets.len()).map_err(|_| "the signature is too long")?,
    );
    message.extend_from_slice(octets);
    Ok(())
}

fn put(message: &mut Vec<u8>, field: u16) {
    message.extend_from_slice(&field.to_be_bytes());
}

/// In lower case, as it is signed (RFC 8945 section 4.3.3), and not compressed.
fn put_name(message: &mut Vec<u8>, name: &str) -> Result<(), &'static str> {
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
        if !(1..=63).contains(&length) {
            return Err("a name cannot be sent");
        }
        message.push(length);
        message.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    message.push(0);
    Ok(())
}

/// The answer's code, if it is one to this question.
fn code(answer: &[u8], id: u16) -> Option<u8> {
    let head = answer.get(..4)?;
    let is_answer = head[..2] == id.to_be_bytes() && head[2] & 0x80 != 0;
    is_answer.then_some(head[3] & 0x0f)
}

/// RFC 1035 section 4.1.1, RFC 2136 section 2.2.
fn called(code: u8) -> String {
    let name = match code {
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        _ => return format!("the server answers with code {code}"),
    };
    format!("the server answers {name}")
}

fn advice(code: u8) -> &'static str {
    match code {
        5 => "does the server allow updates of this name with this key?",
        9 => {
            "are `key_name`, `algorithm` and `secret` those of the server, its clock and this one right, and is it the primary server of `zone`?"
        }
        10 => "is the name in `zone`?",
        _ => "see the log of the server",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> conf::DnsUpdate {
        conf::DnsUpdate {
            server: SocketAddr::from(([192, 0, 2, 53], 53)),
            zone: "shop.example".into(),
            key_name: "Tidegate".into(),
            algorithm: conf::TsigAlgorithm::Sha256,
            secret: conf::Secret::new("c2VjcmV0LXNlY3JldC1zZWNyZXQ=".into()),
        }
    }

    #[test]
    fn the_message_is_laid_out_as_the_standards_say() {
        let record = Record {
            what: Change::Add,
            name: "_acme-challenge.shop.example",
            value: "v",
        };
        let now = UNIX_EPOCH + Duration::from_secs(0x0102_0304);
        let key = Key::new(&settings()).expect("a key");
        let (message, _) = signed(&key, "shop.example", 0xabcd, &record, now).expect("made");
        assert_eq!(message[..12], [0xab, 0xcd, 0x28, 0, 0, 1, 0, 0, 0, 1, 0, 1]);
        let zone = b"\x04shop\x07example\x00\x00\x06\x00\x01";
        assert_eq!(message[12..12 + zone.len()], zone[..]);
        let record = b"\x0f_acme-challenge\x04shop\x07example\x00\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x02\x01v";
        let rest = &message[12 + zone.len()..];
        assert_eq!(rest[..record.len()], record[..]);
        let tsig = b"\x08tidegate\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x3d\x0bhmac-sha256\x00\x00\x00\x01\x02\x03\x04\x01\x2c\x00\x20";
        let rest = &rest[record.len()..];
        assert_eq!(rest[..tsig.len()], tsig[..]);
        assert_eq!(rest[tsig.len() + 32..], [0xab, 0xcd, 0, 0, 0, 0]);
    }

    #[test]
    fn what_cannot_be_sent_is_told_before() {
        let record = |name| Record {
            what: Change::Remove,
            name,
            value: "v",
        };
        let now = UNIX_EPOCH;
        let key = Key::new(&settings()).expect("a key");
        assert!(signed(&key, "shop.example", 1, &record("a..b"), now).is_err());
        let secret = conf::DnsUpdate {
            secret: conf::Secret::new("*".into()),
            ..settings()
        };
        assert!(Key::new(&secret).is_err());
    }

    #[test]
    fn only_an_answer_to_this_question_counts() {
        assert_eq!(code(&[0, 7, 0xa8, 0x09, 0], 7), Some(9));
        assert_eq!(code(&[0, 7, 0x28, 0x00], 7), None, "a question");
        assert_eq!(code(&[0, 8, 0xa8, 0x00], 7), None, "another one");
        assert_eq!(code(&[0, 7], 7), None);
        assert!(called(9).contains("NOTAUTH") && advice(9).contains("key_name"));
    }

    /// An answer as a server signs it.
    fn answer(key: &Key, request: &[u8], seconds: u64, error: u16) -> Vec<u8> {
        let mut message = vec![0, 7, 0xa8, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        put_name(&mut message, "shop.example").expect("a name");
        put(&mut message, SOA);
        put(&mut message, IN);
        let time = &seconds.to_be_bytes()[2..];
        let mut digested = Vec::new();
        put_long(&mut digested, request).expect("short");
        digested.extend_from_slice(&message);
        key.put_variables(&mut digested, time, FUDGE, error, &[]);
        let mac = hmac::sign(&key.key, &digested);
        let mut data = key.algorithm.clone();
        data.extend_from_slice(time);
        put(&mut data, FUDGE);
        put_long(&mut data, mac.as_ref()).expect("short");
        for field in [7, error, 0] {
            put(&mut data, field);
        }
        message.extend_from_slice(&key.owner);
        put(&mut message, TSIG);
        put(&mut message, ANY);
        message.extend_from_slice(&0_u32.to_be_bytes());
        put_long(&mut message, &data).expect("short");
        message[11] = 1;
        message
    }

    #[test]
    fn an_answer_is_believed_that_the_key_signed_for_this_request() {
        let key = Key::new(&settings()).expect("a key");
        let now = UNIX_EPOCH + Duration::from_secs(100_000);
        let good = answer(&key, b"mac", 100_000, 0);
        assert_eq!(key.verify(&good, b"mac", now), Ok(()));
        assert!(key.verify(&good, b"other", now).is_err(), "another request");
        let other = conf::DnsUpdate {
            secret: conf::Secret::new("b3RoZXI=".into()),
            ..settings()
        };
        let other = Key::new(&other).expect("a key");
        assert!(other.verify(&good, b"mac", now).is_err(), "another key");
        let fudge = u64::from(FUDGE);
        for (seconds, is_good) in [
            (100_000 - fudge, true),
            (100_000 - fudge - 1, false),
            (100_000 + fudge + 1, false),
        ] {
            let at = answer(&key, b"mac", seconds, 0);
            assert_eq!(key.verify(&at, b"mac", now).is_ok(), is_good, "{seconds}");
        }
        let bad_time = answer(&key, b"mac", 100_000, 18);
        assert!(key.verify(&bad_time, b"mac", now).is_err());
        assert!(key.verify(&good[..good.len() - 1], b"mac", now).is_err());
    }

    #[test]
    fn no_octet_of_a_signed_answer_can_be_another() {
        let key = Key::new(&settings()).expect("a key");
        let now = UNIX_EPOCH + Duration::from_secs(100_000);
        let good = answer(&key, b"mac", 100_000, 0);
        // The names of key and algorithm are not read: those that are known are signed.
        let unread = 12 + 18..good.len();
        for at in (2..good.len()).filter(|at| !unread.contains(at)) {
            let mut other = good.clone();
            other[at] ^= 1;
            assert!(key.verify(&other, b"mac", now).is_err(), "octet {at}");
        }
        let mac = good.len() - 6 - 32..good.len();
        for at in mac {
            let mut other = good.clone();
            other[at] ^= 1;
            assert!(key.verify(&other, b"mac", now).is_err(), "octet {at}");
        }
    }
}
