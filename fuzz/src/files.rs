//! What a static file is asked for with: the path, and the ranges.

use std::time::{Duration, UNIX_EPOCH};

use crate::conditions::Validators;
use crate::confine::Target;
use crate::date;
use crate::etag::EntityTag;
use crate::range::{DEFAULT_MAX_RANGES, Limits, RangeOutcome, evaluate};
use crate::site_path::normalise;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE};

/// What passes is plain, is what a naive reading decodes, and is found again under its escaped name.
/// Normalising is a fixed point, and changes nothing of where a path leads.
pub fn static_path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(target) = Target::parse(path) {
        is_plain(&target);
        assert_eq!(decoded(path), format!("/{}", target.as_str()).into_bytes());
        let again = format!("/{}", escaped(target.as_str()));
        assert_eq!(Target::parse(&again).as_ref(), Ok(&target), "{again}");
    }
    let Ok(normal) = normalise(path) else {
        return;
    };
    assert!(normal.starts_with('/'), "{normal}");
    let again = normalise(&normal).map(|again| again.into_owned());
    assert_eq!(again.ok().as_deref(), Some(&*normal), "{path:?}");
    assert!(!normal.contains("//"), "{normal}");
    let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    assert!(!decoded(&normal).split(|byte| *byte == b'/').any(dots) || normal.contains("%2F"));
    if let Ok(target) = Target::parse(&normal) {
        is_plain(&target);
    }
}

fn is_plain(target: &Target<'_>) {
    let path = target.as_str();
    assert!(path.len() <= 4_096);
    assert!(!path.contains('\\') && !path.bytes().any(|byte| byte.is_ascii_control()));
    let whole = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return;
    }
    for (at, segment) in whole.split('/').enumerate() {
        assert!(!segment.is_empty(), "{path:?}");
        let hidden = segment.starts_with('.');
        assert!(!hidden || (at == 0 && segment == ".well-known"), "{path:?}");
    }
}

fn escaped(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        match byte {
            b'/' => out.push('/'),
            byte => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// Two hex digits behind a percent sign are one octet, everything else is itself.
fn decoded(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let octet = digits
            .filter(|two| first == b'%' && two.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        out.push(octet.unwrap_or(first));
        rest = if octet.is_some() { &after[2..] } else { after };
    }
    out
}

const TAG: &[u8] = b"\"a\"";
const MODIFIED: u64 = 784_111_777;

/// Ranges lie inside and come to no more than the whole, a naive reading agrees on them, and nothing
/// but the strong validators that are current lets them pass an If-Range. The first octet is flags,
/// the second and third the length; then lines, of which those that begin with `i` are If-Range.
pub fn static_range(data: &[u8]) {
    let Some((&[flags, high, low], lines)) = data.split_first_chunk::<3>() else {
        return;
    };
    let len = u64::from(u16::from_be_bytes([high, low]));
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let (name, value): (HeaderName, &[u8]) = match line {
            [b'i', value @ ..] => (IF_RANGE, value),
            value => (RANGE, value),
        };
        // A carrier hands values over without the blanks around them.
        if let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) {
            fields.append(name, value);
        }
    }
    let date_is_strong = flags & 1 == 1;
    let validators = Validators {
        etag: EntityTag::parse(if flags & 2 == 0 { TAG } else { b"W/\"a\"" }),
        last_modified: Some(UNIX_EPOCH + Duration::from_secs(MODIFIED)),
        date_is_strong,
    };
    let limits = Limits::default();
    let head = evaluate(&Method::HEAD, &fields, len, &validators, limits);
    assert_eq!(head, RangeOutcome::Whole, "ranges are for GET");
    let outcome = evaluate(&Method::GET, &fields, len, &validators, limits);
    lies_inside(&outcome, len);
    let conditions: Vec<&[u8]> = fields
        .get_all(IF_RANGE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let current = match conditions[..] {
        [] => true,
        [TAG] => flags & 2 == 0,
        [date] => {
            let modified = UNIX_EPOCH + Duration::from_secs(MODIFIED);
            date_is_strong && date::parse(date) == Some(modified)
        }
        _ => false,
    };
    let ranges: Vec<&[u8]> = fields
        .get_all(RANGE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let expected = match ranges[..] {
        [range] if current => naive(range, len),
        _ => None,
    };
    match (outcome, expected) {
        (RangeOutcome::Whole, None) => {}
        (RangeOutcome::Unsatisfiable, Some(ranges)) => assert_eq!(ranges, []),
        (RangeOutcome::Single(one), Some(ranges)) => {
            assert_eq!(ranges, [(one.first(), one.last())]);
        }
        (RangeOutcome::Multiple(all), Some(ranges)) => {
            let all: Vec<_> = all.iter().map(|one| (one.first(), one.last())).collect();
            assert_eq!(ranges, all);
        }
        other => panic!("{other:?} of {len}"),
    }
}

fn lies_inside(outcome: &RangeOutcome, len: u64) {
    match outcome {
        RangeOutcome::Whole | RangeOutcome::Unsatisfiable => {}
        RangeOutcome::Single(one) => assert!(one.last() < len && one.len() <= len),
        RangeOutcome::Multiple(all) => {
            assert!((2..=DEFAULT_MAX_RANGES).contains(&all.len()));
            assert!(
                all.iter()
                    .all(|one| one.first() <= one.last() && one.last() < len)
            );
            assert!(all.iter().map(|one| one.len()).sum::<u64>() <= len);
        }
    }
}

/// What lies inside; `None` is the whole.
fn naive(range: &[u8], len: u64) -> Option<Vec<(u64, u64)>> {
    let text = std::str::from_utf8(range).ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |digits: &str| {
        let right = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        right.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let members = set
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']));
    let members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    if members.is_empty() || members.len() > DEFAULT_MAX_RANGES {
        return None;
    }
    let mut found = Vec::new();
    let mut whole = false;
    for member in members {
        let (first, last) = member.split_once('-')?;
        let (first, last) = match (first, last) {
            ("", count) => match number(count)? {
                0 => continue,
                _ if len == 0 => {
                    whole = true;
                    continue;
                }
                count => (len.saturating_sub(count), u64::MAX),
            },
            (first, "") => (number(first)?, u64::MAX),
            (first, last) => (number(first)?, number(last)?),
        };
        if first > last {
            return None;
        }
        if first < len {
            found.push((first, last.min(len - 1)));
        }
    }
    let total: u64 = found.iter().map(|(first, last)| last - first + 1).sum();
    (!whole && (found.len() < 2 || total <= len)).then_some(found)
}
