//! A head as bytes, for tiers that outlive the process.
//!
//! Written and read by this version alone: whoever keeps the bytes keeps a version number with them
//! ([`VERSION`]) and throws away what another one wrote. What is read back may be damaged in any way
//! that a checksum let through, so nothing is taken for granted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use super::Head;
use super::packed::{Moment, Packed};
use crate::freshness::{Freshness, Source};
use crate::vary::{Spec, Variant};

/// The version of what [`Head::write_to`] writes.
pub(crate) const VERSION: u8 = 1;

const SOURCES: [Source; 6] = [
    Source::SMaxage,
    Source::MaxAge,
    Source::Expires,
    Source::Policy,
    Source::Heuristic,
    Source::Nowhere,
];

const NO_CACHE: u8 = 1;
const NO_STALE: u8 = 2;
const IMMUTABLE: u8 = 4;
const BY_ORIGIN: u8 = 8;

impl Head {
    /// Appends the head to `out`.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        let freshness = self.freshness();
        out.extend_from_slice(&self.status.as_u16().to_le_bytes());
        put(out, &self.block);
        put_u64(out, u64::from(self.lines));
        put_time(out, self.last_modified());
        put_time(out, Some(self.date()));
        put_u64(out, self.content_length);
        put_time(out, Some(freshness.received));
        for duration in [
            freshness.initial_age,
            freshness.lifetime,
            freshness.stale_while_revalidate,
            freshness.stale_if_error,
        ] {
            put_duration(out, duration);
        }
        let source = SOURCES.iter().position(|one| *one == freshness.source);
        out.push(
            source
                .and_then(|at| u8::try_from(at).ok())
                .unwrap_or(u8::MAX),
        );
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            flag(freshness.no_cache, NO_CACHE)
                | flag(freshness.no_stale, NO_STALE)
                | flag(freshness.immutable, IMMUTABLE)
                | flag(self.variant.is_by_origin(), BY_ORIGIN),
        );
        let names: Vec<&str> = self
            .variant
            .spec()
            .names()
            .iter()
            .map(HeaderName::as_str)
            .collect();
        put(out, names.join(",").as_bytes());
        put(out, self.variant.values());
    }

    /// Reads a head from the beginning of `rest`, which is cut. `None`: that is none.
    pub(crate) fn read_from(rest: &mut &[u8]) -> Option<Self> {
        let status = StatusCode::from_u16(u16::from_le_bytes(*take(rest)?)).ok()?;
        let block = Bytes::copy_from_slice(get(rest)?);
        let lines = u32::try_from(get_u64(rest)?).ok()?;
        let last_modified = get_time(rest)?;
        let date = get_time(rest)??;
        let content_length = get_u64(rest)?;
        let received = get_time(rest)??;
        let initial_age = get_duration(rest)?;
        let lifetime = get_duration(rest)?;
        let stale_while_revalidate = get_duration(rest)?;
        let stale_if_error = get_duration(rest)?;
        let [source, flags] = *take::<2>(rest)?;
        let freshness = Freshness {
            received,
            initial_age,
            lifetime,
            source: *SOURCES.get(usize::from(source))?,
            stale_while_revalidate,
            stale_if_error,
            no_cache: flags & NO_CACHE != 0,
            no_stale: flags & NO_STALE != 0,
            immutable: flags & IMMUTABLE != 0,
        };
        let names = std::str::from_utf8(get(rest)?).ok()?;
        let names: Option<Vec<HeaderName>> = names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| name.parse().ok())
            .collect();
        let spec = Spec::of(names?);
        let variant = Variant::of(spec, get(rest)?, flags & BY_ORIGIN != 0);
        // The lines begin behind the status line.
        let (status_line, fields) = block.split_at_checked(lines as usize)?;
        let whole = status_line.ends_with(b"\r\n") && are_lines(fields);
        let head = Self {
            status,
            block,
            lines,
            etag: 0..0,
            last_modified: Moment::new(last_modified),
            date: Moment::new(Some(date)),
            content_length,
            freshness: Packed::new(&freshness),
            variant,
        };
        whole.then(|| head.indexed())
    }
}

/// Whether these are field lines as [`Head::new`] writes them.
fn are_lines(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(end) = memchr::memchr(b'\r', rest) else {
            return false;
        };
        let colon = memchr::memchr(b':', &rest[..end]);
        let parted = colon.is_some_and(|colon| rest[..end].get(colon + 1) == Some(&b' '));
        if !parted || rest.get(end + 1) != Some(&b'\n') {
            return false;
        }
        rest = &rest[end + 2..];
    }
    true
}

/// Appends bytes with their length.
pub(crate) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // A head is bounded at a few hundred kilobytes.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads what [`put`] wrote.
pub(crate) fn get<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_le_bytes(*take(rest)?)).ok()?;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

pub(crate) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub(crate) fn get_u64(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*take(rest)?))
}

/// Nanoseconds since 1970, in both directions; `i128::MIN` for none.
pub(crate) fn put_time(out: &mut Vec<u8>, time: Option<SystemTime>) {
    let nanos = time.map_or(i128::MIN, |time| match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => {
            i128::try_from(before.duration().as_nanos()).map_or(i128::MIN + 1, |nanos| -nanos)
        }
    });
    out.extend_from_slice(&nanos.to_le_bytes());
}

pub(crate) fn get_time(rest: &mut &[u8]) -> Option<Option<SystemTime>> {
    let nanos = i128::from_le_bytes(*take(rest)?);
    if nanos == i128::MIN {
        return Some(None);
    }
    let distance = u64::try_from(nanos.unsigned_abs() / 1_000_000_000).ok()?;
    let fraction = u32::try_from(nanos.unsigned_abs() % 1_000_000_000).ok()?;
    let distance = Duration::new(distance, fraction);
    let time = match nanos >= 0 {
        true => UNIX_EPOCH.checked_add(distance),
        false => UNIX_EPOCH.checked_sub(distance),
    };
    time.map(Some)
}

fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    put_u64(out, duration.as_secs());
    out.extend_from_slice(&duration.subsec_nanos().to_le_bytes());
}

fn get_duration(rest: &mut &[u8]) -> Option<Duration> {
    let seconds = get_u64(rest)?;
    let nanos = u32::from_le_bytes(*take(rest)?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (bytes, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;
    use crate::testing::{date, head_for};

    fn example() -> Head {
        let modified = format!("last-modified: {}", date(3));
        head_for(
            &["accept-language: de", "x: 1"],
            200,
            &[
                "cache-control: max-age=60, stale-if-error=9, immutable",
                "etag: \"a\"",
                "vary: accept-language, x",
                "content-length: 3",
                &modified,
            ],
        )
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        for head in [example(), head_for(&[], 404, &["cache-control: no-cache"])] {
            let mut bytes = Vec::new();
            head.write_to(&mut bytes);
            let mut rest = bytes.as_slice();
            let read = Head::read_from(&mut rest).expect("a head");
            assert!(rest.is_empty());
            assert_eq!(read.status(), head.status());
            assert_eq!(read.as_http1(), head.as_http1());
            assert_eq!(read.freshness(), head.freshness());
            assert_eq!(read.variant(), head.variant());
            assert_eq!(read.etag(), head.etag());
            assert_eq!(read.last_modified(), head.last_modified());
            assert_eq!(read.date(), head.date());
            assert_eq!(read.content_length(), head.content_length());
            let mut names = 0;
            read.all(&mut |_, _| names += 1);
            assert_eq!(names, head.iter().count());
        }
    }

    #[test]
    fn a_cut_head_is_none() {
        let mut bytes = Vec::new();
        example().write_to(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Head::read_from(&mut &bytes[..length]).is_none(), "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_is_total(bytes: Vec<u8>, at: usize, byte: u8) {
            let _ = Head::read_from(&mut bytes.as_slice());
            let mut damaged = Vec::new();
            example().write_to(&mut damaged);
            let at = at % damaged.len();
            damaged[at] = byte;
            if let Some(head) = Head::read_from(&mut damaged.as_slice()) {
                let _ = (head.iter().count(), head.etag(), head.to_header_map());
            }
        }
    }
}
