//! What must hold of the parsers at the door, of the cache's keys, of what is read back from a disk,
//! of lists of endpoints, and of the paths and ranges of files, whatever the octets.
//!
//! Each function is one fuzz target. It panics where a promise is broken, and
//! libFuzzer keeps the input. The README says how to run them.

#![expect(
    dead_code,
    unused_imports,
    reason = "the crates use more of these modules than the targets do"
)]

mod cache;
mod cache_key;
mod discovered;
mod disk;
#[cfg(feature = "edges")]
mod edges;
mod exchange;
mod files;

// Of the static server, whose modules name each other from the root of their crate.
#[path = "../../static-server/src/conditions.rs"]
mod conditions;
#[path = "../../static-server/src/confine.rs"]
mod confine;
#[path = "../../static-server/src/date.rs"]
mod date;
#[path = "../../static-server/src/etag.rs"]
mod etag;
#[path = "../../static-server/src/fields.rs"]
mod fields;
#[allow(
    unfulfilled_lint_expectations,
    reason = "one is about what the crate makes public, and nothing is here"
)]
#[path = "../../static-server/src/range.rs"]
mod range;
#[path = "../../static-server/src/serve/normalise.rs"]
mod site_path;
#[path = "../../static-server/src/value.rs"]
mod value;

#[path = "../../proxy/src/acme/update/answer.rs"]
mod signed_answer;
#[path = "../../proxy/src/listen/sni.rs"]
mod sni_peek;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

pub use cache_key::cache_key;
pub use discovered::discovered;
#[cfg(feature = "edges")]
pub use edges::{lane_replies, lane_requests, serve_if_asked};
pub use files::{static_path, static_range};

use disk::record::{Damage, HEADER, Header, Kind, MAGIC, MAX_FRONT, header_sum, sum};
use exchange::chunked::{ChunkScanner, Progress};
use exchange::forwarded::{forwarded as elements, walk, x_forwarded_for};
use exchange::guard::{
    Framing, HeadFacts, Inspect, MAX_FIELDS, MethodKind, Reject, Version, inspect,
};
use exchange::normalise::{normalise, normalise_path};
use exchange::proxy_header::{Parsed, parse};
use sni_peek::{Peek, Peeked};

/// The name that a TLS client asks for is the same however its octets come, and one that can be looked
/// up: what is said before the end stays said.
pub fn sni(data: &[u8]) {
    let (cuts, hello) = data.split_at(data.len().min(4));
    let whole = Peek::new().feed(hello);
    let mut peek = Peek::new();
    let mut rest = hello;
    let mut found = Peeked::Partial;
    for cut in cuts.iter().map(|&cut| usize::from(cut)).chain([usize::MAX]) {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        rest = after;
        found = peek.feed(piece);
        if found != Peeked::Partial {
            break;
        }
    }
    // A later octet may break what an earlier piece was enough for.
    if found != whole {
        assert!(!rest.is_empty(), "{found:?} {whole:?}");
    }
    if let Peeked::Name(Some(name)) = found {
        assert!(!name.is_empty() && name.len() < 256, "{name:?}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || !byte.is_ascii_alphabetic())
        );
    }
}

/// The signature of a DNS server's answer is its last record: its parts are those of the message, in
/// order, and neither a shorter nor a longer message has them.
pub fn dns_answer(data: &[u8]) {
    let Some(found) = signed_answer::signed(data) else {
        return;
    };
    assert_eq!(found.flags_and_counts, &data[2..10]);
    assert_eq!(
        found.additional + 1,
        u16::from_be_bytes([data[10], data[11]])
    );
    assert!(data[12..].starts_with(found.records));
    let behind = &data[12 + found.records.len()..];
    // Time, fudge, length of the MAC; the MAC; identity, error, length of the rest; the rest.
    let tail = 10 + found.mac.len() + 6 + found.other.len();
    let (_, tail) = behind.split_at(behind.len() - tail);
    assert_eq!(&tail[..6], found.time);
    assert_eq!(tail[6..8], found.fudge.to_be_bytes());
    assert_eq!(&tail[10..10 + found.mac.len()], found.mac);
    assert!(tail.ends_with(found.other));
    assert!(signed_answer::signed(&data[..data.len() - 1]).is_none());
    assert!(signed_answer::signed(&[data, &[0]].concat()).is_none());
}

/// A balancer's header is read to its end and no further, however it comes, and what was read stays
/// so whatever follows.
pub fn proxy_header(data: &[u8]) {
    let mut at = 0;
    let announced = loop {
        match parse(&data[..at]) {
            Parsed::Partial(0) => panic!("nothing more, and not whole"),
            Parsed::Partial(least) if at + least > data.len() => return,
            Parsed::Partial(least) => at += least,
            Parsed::Line if at == data.len() => return,
            Parsed::Line => at += 1,
            Parsed::Bad(_) => return,
            Parsed::Whole(announced) => break announced,
        }
    };
    assert!(at <= 16 * 1024, "longer than allowed");
    let header = &data[..at];
    match header.strip_prefix(b"PROXY ") {
        Some(line) => {
            assert!(line.ends_with(b"\r\n") && at <= 107, "{line:?}");
            let line = std::str::from_utf8(line).expect("text");
            let words: Vec<&str> = line.trim_end().split(' ').collect();
            if let Some((from, to)) = announced.addresses {
                let said = [
                    from.ip().to_string(),
                    to.ip().to_string(),
                    from.port().to_string(),
                    to.port().to_string(),
                ];
                // IPv6 has many spellings.
                let is_v4 = words[0] == "TCP4";
                assert!(from.is_ipv4() == is_v4 && to.is_ipv4() == is_v4);
                assert!(!is_v4 || words[1..] == said, "{words:?} {said:?}");
                assert_eq!(words[3..], said[2..]);
            }
        }
        None => {
            let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
            assert_eq!(at, 16 + length);
        }
    }
}

/// Whatever a client wrote itself, the address that a trusted proxy appends to it is the client's; and
/// what stands left of what nobody can read is not believed.
pub fn forwarded(data: &[u8]) {
    let proxy: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
    let client: IpAddr = Ipv4Addr::new(192, 0, 2, 7).into();
    let trusted = |address: IpAddr| address == proxy;
    let behind = |appended: &[u8]| [data, appended].concat();
    let of_list = |line: &[u8]| walk(proxy, x_forwarded_for(line), trusted);
    let of_elements = |line: &[u8]| {
        let elements = elements(line);
        walk(
            proxy,
            elements.iter().map(|element| element.client),
            trusted,
        )
    };
    assert_eq!(of_list(&behind(b", 192.0.2.7")), client);
    assert_eq!(of_elements(&behind(b", for=192.0.2.7")), client);
    assert_eq!(
        of_elements(&behind(b", for=\"192.0.2.7\";proto=https")),
        client
    );
    assert_eq!(of_list(&behind(b", unknown")), proxy);
    assert_eq!(of_elements(&behind(b", for=_hidden")), proxy);
    let commas = data.iter().filter(|&&byte| byte == b',').count();
    assert_eq!(x_forwarded_for(data).count(), commas + 1);
    assert!(elements(data).len() <= commas + 1);
}

/// Heads are judged alike however they are split, and what passes reads the
/// same in httparse. The first octet sets the limit.
pub fn head_guard(data: &[u8]) {
    let Some((limit, bytes)) = data.split_first() else {
        return;
    };
    let limit = if *limit == 0 {
        32 * 1024
    } else {
        usize::from(*limit) * 8
    };
    let whole = inspect(bytes, limit);
    for cut in 0..bytes.len() {
        let part = inspect(&bytes[..cut], limit);
        assert!(
            part == Inspect::Partial || part == whole,
            "cut at {cut}: {part:?}, whole: {whole:?}"
        );
    }
    if let Inspect::Head(facts) = whole {
        assert!(facts.head_len <= limit, "larger than allowed");
        agrees_with_httparse(bytes, &facts);
    }
}

fn agrees_with_httparse(bytes: &[u8], facts: &HeadFacts) {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).expect("what the guard passes parses");
    assert_eq!(parsed, httparse::Status::Complete(facts.head_len));
    assert_eq!(request.version == Some(1), facts.version == Version::Http11);
    assert_eq!(
        request.method == Some("HEAD"),
        facts.method == MethodKind::Head
    );
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request
            .headers
            .iter()
            .filter(|h| h.name.eq_ignore_ascii_case(name));
        named.map(|h| h.value).collect()
    };
    assert_eq!(values("host").len(), 1, "one Host");
    let framing = match (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    ) {
        ([], []) => Framing::None,
        ([length], []) => {
            let digits = std::str::from_utf8(length).expect("digits");
            Framing::Length(digits.parse().expect("a length"))
        }
        ([], [coding]) => {
            assert!(
                coding.eq_ignore_ascii_case(b"chunked"),
                "an unknown coding passed"
            );
            Framing::Chunked
        }
        both => panic!("both framings passed: {both:?}"),
    };
    assert_eq!(framing, facts.body);
    let target = request.path.expect("a target");
    assert!(
        target == "*" || target.parse::<http::Uri>().is_ok(),
        "no URI: {target}"
    );
    // May be refused for its path, but not for an octet.
    assert_ne!(normalise(target, true), Err(Reject::BadTarget), "{target}");
}

/// What reads as a record was written as this record for this place, whatever the file holds. The
/// first 16 octets are the segment's id and the place.
pub fn disk_record(data: &[u8]) {
    let Some((numbers, bytes)) = data.split_at_checked(16) else {
        return;
    };
    let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().expect("8 octets"));
    let (segment, offset) = (number(0), number(8));
    reads_as_written(bytes, segment, offset);
    // Checksums are not guessed, so give the header the right one.
    let mut sealed = bytes.to_vec();
    if let Some(header) = sealed.first_chunk_mut::<HEADER>() {
        header[..4].copy_from_slice(&MAGIC);
        header[24..32].copy_from_slice(&offset.to_le_bytes());
        let sum = header_sum(header, segment);
        header[HEADER - 8..].copy_from_slice(&sum.to_le_bytes());
        reads_as_written(&sealed, segment, offset);
    }
    no_change_passes(bytes, segment, offset / 2);
}

fn reads_as_written(bytes: &[u8], segment: u64, offset: u64) {
    let Ok(header) = Header::decode(bytes, segment, offset) else {
        return;
    };
    assert_eq!(header.encode(segment)[..], bytes[..HEADER], "one form only");
    assert_eq!(header.offset, offset, "at its place only");
    assert!(header.front_len() <= MAX_FRONT as u64, "bounded");
    assert!(offset.checked_add(header.len()).is_some(), "an end");
    if let Ok((key, meta)) = header.front(bytes) {
        assert_eq!(
            (key.len(), meta.len()),
            (header.key as usize, header.meta as usize)
        );
        assert_eq!(sum([key, meta]), header.front_sum);
    }
}

/// A record of these octets, then the same with one of them changed.
fn no_change_passes(bytes: &[u8], segment: u64, offset: u64) {
    let Some((&[at, change, cut], bytes)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let (key, meta) = bytes.split_at(bytes.len().min(usize::from(cut)));
    let (Ok(key_len), Ok(meta_len)) = (u32::try_from(key.len()), u32::try_from(meta.len())) else {
        return;
    };
    let header = Header {
        kind: Kind::Object,
        key: key_len,
        meta: meta_len,
        body: 0,
        offset,
        front_sum: sum([key, meta]),
        body_sum: sum([]),
    };
    let mut record = [&header.encode(segment), key, meta].concat();
    assert_eq!(Header::decode(&record, segment, offset), Ok(header));
    assert_eq!(header.front(&record), Ok((key, meta)));
    if change == 0 {
        return;
    }
    let at = usize::from(at) % record.len();
    record[at] ^= change;
    let read = Header::decode(&record, segment, offset);
    if at < HEADER {
        assert_eq!(read, Err(Damage::Header), "octet {at} of the header");
    } else {
        assert_eq!(read, Ok(header));
        assert_eq!(header.front(&record), Err(Damage::Front), "octet {at}");
    }
}

/// A chunked body ends at one place however it is split, and a reading by
/// other means agrees on it. The first two octets are the sizes of the pieces.
pub fn chunked(data: &[u8]) {
    let Some((sizes, bytes)) = data.split_at_checked(2) else {
        return;
    };
    let whole = ChunkScanner::default().feed(bytes);
    let mut scanner = ChunkScanner::default();
    let mut total = Progress {
        consumed: 0,
        done: false,
    };
    let mut sizes = sizes.iter().cycle();
    let pieces = loop {
        if total.consumed == bytes.len() || total.done {
            break Ok(total);
        }
        let size = usize::from(*sizes.next().expect("endless")).max(1);
        let end = bytes.len().min(total.consumed + size);
        match scanner.feed(&bytes[total.consumed..end]) {
            Ok(progress) => {
                total.consumed += progress.consumed;
                total.done = progress.done;
            }
            Err(reject) => break Err(reject),
        }
    };
    assert_eq!(whole, pieces, "splitting changes the answer");
    if let Ok(Progress {
        consumed,
        done: true,
    }) = whole
    {
        assert_eq!(
            naive_end(bytes),
            Some(consumed),
            "the naive reading ends elsewhere"
        );
    }
}

/// Where a body that is well formed ends, found line by line.
fn naive_end(bytes: &[u8]) -> Option<usize> {
    let line_end = |from: usize| {
        let at = bytes[from..].windows(2).position(|pair| pair == b"\r\n")?;
        Some(from + at)
    };
    let mut at = 0;
    loop {
        let end = line_end(at)?;
        let line = std::str::from_utf8(bytes[at..end].split(|b| *b == b';').next()?).ok()?;
        let size = usize::from_str_radix(line, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        at += size;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let end = line_end(at)?;
        let empty = end == at;
        at = end + 2;
        if empty {
            return Some(at);
        }
    }
}

/// Normalising is a fixed point, leaves no dot segment to anyone, and never
/// decodes what separates. The first octet says whether slashes are merged.
pub fn normalise_target(data: &[u8]) {
    let Some((merge, bytes)) = data.split_first() else {
        return;
    };
    let merge = merge & 1 == 1;
    let Ok(target) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(found) = normalise(target, merge) else {
        return;
    };
    let path = found.path;
    if path == "*" {
        return;
    }
    assert!(path.starts_with('/') && path.is_ascii());
    let again = normalise_path(&path, merge);
    assert!(
        matches!(again, Ok(Cow::Borrowed(again)) if again == path),
        "{target:?} -> {path:?} -> {again:?}"
    );
    assert!(
        !merge || !path.contains("//"),
        "slashes are left in {path:?}"
    );
    let decoded = decoded(&path);
    let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    assert!(
        !decoded.split(|b| matches!(b, b'/' | b'\\')).any(dots),
        "a dot segment is left in {path:?}"
    );
    assert!(!decoded.contains(&0), "a NUL is left in {path:?}");
}

fn decoded(path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.bytes().next() {
        let escape =
            (first == b'%').then(|| u8::from_str_radix(&rest[1..3], 16).expect("an escape"));
        out.push(escape.unwrap_or(first));
        rest = &rest[if escape.is_some() { 3 } else { 1 }..];
    }
    out
}
