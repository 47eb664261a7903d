//! `method SP request-target SP HTTP-version CRLF` (RFC 9112 section 3), with
//! single spaces and the target forms that a server may meet.

use super::host::{Authority, authority_of};
use super::octets::{PATH, QUERY, TOKEN, is};
use super::reject::Reject;
use super::{MAX_METHOD, MethodKind, Place, Stop, Version, line_end, stray};

/// A request line that was accepted.
pub(super) struct RequestLine<'a> {
    pub(super) version: Version,
    pub(super) method: MethodKind,
    /// Present in absolute-form.
    pub(super) target: Option<AbsoluteTarget<'a>>,
}

/// What absolute-form says beyond the path (RFC 9112 section 3.2.2).
pub(super) struct AbsoluteTarget<'a> {
    pub(super) authority: Authority<'a>,
    pub(super) default_port: u16,
}

/// The request line that begins at `start`, and where the next line begins.
pub(super) fn parse(bytes: &[u8], start: usize) -> Result<(RequestLine<'_>, usize), Stop> {
    let method_end = method_end(bytes, start)?;
    let method = &bytes[start..method_end];
    if method == b"CONNECT" {
        return Err(Reject::ConnectMethod.into());
    }
    let target_end = target_end(bytes, method_end + 1)?;
    let target = check_target(&bytes[method_end + 1..target_end], method == b"OPTIONS")?;
    let (version, version_end) = version(bytes, target_end + 1)?;
    if bytes.get(version_end) != Some(&b'\r') {
        return Err(stray(bytes, version_end, Reject::BadVersion));
    }
    let next = line_end(bytes, version_end)?;
    let method = match method {
        b"GET" => MethodKind::Get,
        b"HEAD" => MethodKind::Head,
        _ => MethodKind::Other,
    };
    Ok((
        RequestLine {
            version,
            method,
            target,
        },
        next,
    ))
}

fn method_end(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    let rest = bytes.get(start..).ok_or(Stop::MORE)?;
    let window = &rest[..rest.len().min(MAX_METHOD + 1)];
    match window.iter().position(|&b| !is(b, TOKEN)) {
        Some(len) if len > 0 && window[len] == b' ' => Ok(start + len),
        Some(len) => Err(stray(bytes, start + len, Reject::BadMethod)),
        None if window.len() > MAX_METHOD => Err(Reject::BadMethod.into()),
        None => Err(Stop::MORE),
    }
}

/// Where the space behind the target stands.
fn target_end(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    let mut class = PATH;
    let rest = bytes.get(start..).ok_or(Stop::More(Place::Target))?;
    for (at, &byte) in rest.iter().enumerate() {
        if is(byte, class) {
            continue;
        }
        match byte {
            b' ' if at > 0 => return Ok(start + at),
            b'?' => class = QUERY,
            _ => return Err(stray(bytes, start + at, Reject::BadTarget)),
        }
    }
    Err(Stop::More(Place::Target))
}

/// origin-form, absolute-form for http and https, and `*` for OPTIONS
/// (RFC 9112 section 3.2). authority-form belongs to CONNECT and is refused.
fn check_target(target: &[u8], options: bool) -> Result<Option<AbsoluteTarget<'_>>, Reject> {
    if target.first() == Some(&b'/') || (target == b"*" && options) {
        return Ok(None);
    }
    let (rest, default_port) = if let Some(rest) = strip_scheme(target, b"http://") {
        (rest, 80)
    } else if let Some(rest) = strip_scheme(target, b"https://") {
        (rest, 443)
    } else {
        return Err(Reject::BadTarget);
    };
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    let authority = authority_of(&rest[..end])?;
    Ok(Some(AbsoluteTarget {
        authority,
        default_port,
    }))
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `"HTTP/" DIGIT "." DIGIT`, case-sensitive (RFC 9112 section 2.3), and where it ends.
fn version(bytes: &[u8], start: usize) -> Result<(Version, usize), Stop> {
    const PATTERN: &[u8; 8] = b"HTTP/d.d";
    for (offset, &wanted) in PATTERN.iter().enumerate() {
        let fits = match bytes.get(start + offset) {
            None => return Err(Stop::MORE),
            Some(byte) if wanted == b'd' => byte.is_ascii_digit(),
            Some(byte) => *byte == wanted,
        };
        if !fits {
            return Err(stray(bytes, start + offset, Reject::BadVersion));
        }
    }
    let end = start + PATTERN.len();
    match &bytes[start + 5..end] {
        b"1.1" => Ok((Version::Http11, end)),
        b"1.0" => Ok((Version::Http10, end)),
        _ => Err(Reject::UnsupportedVersion.into()),
    }
}
