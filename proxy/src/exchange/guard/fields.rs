//! What the fields of an HTTP/1 head mean for its framing, its host and its
//! connection, gathered line by line so that the first wrong line is the one
//! that is named.

use super::host::{Authority, authority_of};
use super::octets::{TOKEN, is};
use super::reject::Reject;
use super::request_line::RequestLine;
use super::{Framing, HeadFacts, Upgrade, Version, members};

/// What the lines so far said.
pub(super) struct Semantics<'a> {
    version: Version,
    host: Option<Authority<'a>>,
    framing: Framing,
    /// Connection options (RFC 9110 section 7.6.1).
    close: bool,
    keep_alive: bool,
    upgrade_option: bool,
    /// The Upgrade field, whatever Connection says.
    upgrade: Upgrade,
    expect_continue: bool,
    has_authorization: bool,
    claims_certificate: bool,
}

impl<'a> Semantics<'a> {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            host: None,
            framing: Framing::None,
            close: false,
            keep_alive: false,
            upgrade_option: false,
            upgrade: Upgrade::None,
            expect_continue: false,
            has_authorization: false,
            claims_certificate: false,
        }
    }

    /// One field line; `value` is free of white space around it.
    pub(super) fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Reject> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade(value),
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            11 if name.eq_ignore_ascii_case(b"client-cert") => self.certificate(),
            13 if name.eq_ignore_ascii_case(b"authorization") => self.authorization(),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            21 if name.eq_ignore_ascii_case(b"x-client-cert-subject") => self.certificate(),
            25 if name.eq_ignore_ascii_case(b"x-client-cert-fingerprint") => self.certificate(),
            _ => Ok(()),
        }
    }

    /// The whole, once the empty line came.
    pub(super) fn finish(
        self,
        line: &RequestLine<'_>,
        head_len: usize,
        fields: usize,
    ) -> Result<HeadFacts, Reject> {
        // RFC 9112 section 3.2 demands Host of HTTP/1.1 only. We demand it of
        // HTTP/1.0 too: without one there is no route, and what went upstream
        // would be an HTTP/1.1 request without Host.
        let host = self.host.ok_or(Reject::MissingHost)?;
        if let Some(target) = &line.target
            && !target.authority.same_as(&host, target.default_port)
        {
            return Err(Reject::HostMismatch);
        }
        let http11 = self.version == Version::Http11;
        let upgrade = if http11 && self.upgrade_option {
            self.upgrade
        } else {
            Upgrade::None
        };
        Ok(HeadFacts {
            head_len,
            fields,
            version: self.version,
            method: line.method,
            body: self.framing,
            upgrade,
            expect_continue: http11 && self.expect_continue,
            keep_alive: !self.close && (http11 || self.keep_alive),
            claims_certificate: self.claims_certificate,
        })
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), Reject> {
        if self.host.is_some() {
            return Err(Reject::RepeatedHost);
        }
        self.host = Some(authority_of(value)?);
        Ok(())
    }

    /// It is no list (RFC 9110 section 11.6.2), so that with two of them the edge, or an application, would check
    /// one and act on the other.
    fn authorization(&mut self) -> Result<(), Reject> {
        match std::mem::replace(&mut self.has_authorization, true) {
            true => Err(Reject::RepeatedAuthorization),
            false => Ok(()),
        }
    }

    /// What a client says of its certificate may have to be taken out.
    fn certificate(&mut self) -> Result<(), Reject> {
        self.claims_certificate = true;
        Ok(())
    }

    /// RFC 9110 section 8.6 lets a recipient merge equal repeats or refuse
    /// them. We refuse: no sender needs them, and the next hop may choose otherwise.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        let length = content_length(value)?;
        match self.framing {
            Framing::None => self.framing = Framing::Length(length),
            Framing::Length(_) => return Err(Reject::RepeatedContentLength),
            Framing::Chunked => return Err(Reject::ConflictingFraming),
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.version == Version::Http10 {
            return Err(Reject::TransferEncodingInHttp10);
        }
        match self.framing {
            Framing::None => {}
            Framing::Length(_) => return Err(Reject::ConflictingFraming),
            Framing::Chunked => return Err(Reject::BadTransferEncoding),
        }
        transfer_encoding(value)?;
        self.framing = Framing::Chunked;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Reject> {
        for option in members(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade_option |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }

    fn upgrade(&mut self, value: &[u8]) -> Result<(), Reject> {
        let alone = self.upgrade == Upgrade::None;
        self.upgrade = match value {
            b"" if alone => Upgrade::None,
            _ if alone && value.eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
            _ => Upgrade::Other,
        };
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Reject> {
        expect(value)?;
        self.expect_continue = true;
        Ok(())
    }
}

/// `1*DIGIT` up to 2^63 - 1, the most that every signed reader on the way can hold.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Reject> {
    const MOST: u64 = i64::MAX.unsigned_abs();
    if value.is_empty() {
        return Err(Reject::BadContentLength);
    }
    let mut length: u64 = 0;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return Err(Reject::BadContentLength);
        }
        length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
            .filter(|&length| length <= MOST)
            .ok_or(Reject::BadContentLength)?;
    }
    Ok(length)
}

/// `100-continue` and nothing else (RFC 9110 section 10.1.1).
pub(super) fn expect(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"100-continue") {
        Ok(())
    } else {
        Err(Reject::UnknownExpectation)
    }
}

/// `chunked` alone passes. A list that is well formed and ends in it, or never
/// names it, speaks of codings that we do not know: 501. The rest is malformed.
fn transfer_encoding(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut after_chunked = false;
    for coding in members(value) {
        let end = coding
            .iter()
            .position(|&b| !is(b, TOKEN))
            .unwrap_or(coding.len());
        let (name, rest) = coding.split_at(end);
        let chunked = name.eq_ignore_ascii_case(b"chunked");
        let parameters = matches!(rest.first(), None | Some(b';' | b' ' | b'\t'));
        if after_chunked || name.is_empty() || !parameters || (chunked && !rest.is_empty()) {
            return Err(Reject::BadTransferEncoding);
        }
        after_chunked = chunked;
    }
    Err(Reject::UnknownTransferEncoding)
}
