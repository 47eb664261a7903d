//! A request's head out of its field section (RFC 9114 sections 4.2 and 4.3).
//!
//! Here is seen what an HTTP/2 layer sees for HTTP/2: which pseudo-fields there are, and that each
//! name and value is one. Everything beyond is for the guard to judge, which knows no protocol.

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Version};

use super::qpack::Section;
use crate::exchange::guard::Reject;

/// The head that `section` says.
///
/// # Errors
/// It is malformed (section 4.1.2).
pub(in crate::listen::quic) fn request(section: &Section) -> Result<Parts, Reject> {
    let mut pseudo = Pseudo::default();
    let mut fields = HeaderMap::with_capacity(16);
    for (name, value) in section.fields() {
        if name.starts_with(b":") {
            // All of them come before the first other field.
            if !fields.is_empty() {
                return Err(Reject::PseudoField);
            }
            pseudo.take(&name, value)?;
        } else {
            let name = field_name(&name)?;
            let value = HeaderValue::from_maybe_shared(value);
            let value = value.map_err(|_| Reject::ControlCharacter)?;
            fields
                .try_append(name, value)
                .map_err(|_| Reject::TooManyFields)?;
        }
    }
    let protocol = pseudo.protocol.take();
    let (method, uri) = pseudo.finish(protocol.is_some())?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    if let Some(protocol) = protocol {
        let protocol = std::str::from_utf8(&protocol).map_err(|_| Reject::PseudoField)?;
        parts.extensions.insert(Protocol::from(protocol));
    }
    parts.method = method;
    parts.uri = uri;
    parts.version = Version::HTTP_3;
    parts.headers = fields;
    Ok(parts)
}

/// The fields behind a body.
///
/// # Errors
/// One of them is malformed.
pub(in crate::listen::quic) fn trailers(section: &Section) -> Result<HeaderMap, Reject> {
    let mut fields = HeaderMap::new();
    for (name, value) in section.fields() {
        if name.starts_with(b":") {
            return Err(Reject::BadTrailer);
        }
        let name = field_name(&name).map_err(|_| Reject::BadTrailer)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Reject::BadTrailer)?;
        // There is an end to how many fit.
        let fits = fields.try_append(name, value);
        fits.map_err(|_| Reject::BadTrailer)?;
    }
    Ok(fields)
}

/// A name has no capital letters (section 4.2).
fn field_name(name: &[u8]) -> Result<HeaderName, Reject> {
    HeaderName::from_lowercase(name).map_err(|_| Reject::BadFieldName)
}

/// Each at most once (section 4.3.1).
#[derive(Default)]
struct Pseudo {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    /// Of the extended CONNECT (RFC 9220, RFC 8441 section 4).
    protocol: Option<Bytes>,
}

impl Pseudo {
    fn take(&mut self, name: &[u8], value: Bytes) -> Result<(), Reject> {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err(Reject::PseudoField),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Reject::PseudoField),
        }
    }

    /// `is_extended`: there is a `:protocol`, which belongs to CONNECT and makes it a request like others.
    fn finish(self, is_extended: bool) -> Result<(Method, Uri), Reject> {
        let method = self.method.ok_or(Reject::PseudoField)?;
        let method = Method::from_bytes(&method).map_err(|_| Reject::BadMethod)?;
        match (method == Method::CONNECT, is_extended) {
            (true, false) => return Err(Reject::ConnectMethod),
            (false, true) => return Err(Reject::PseudoField),
            _ => {}
        }
        let scheme = self.scheme.ok_or(Reject::PseudoField)?;
        let path = self.path.ok_or(Reject::PseudoField)?;
        let scheme = Scheme::try_from(&scheme[..]).map_err(|_| Reject::BadTarget)?;
        // The URI library drops what follows a `#` without a word.
        if path.is_empty() || path.contains(&b'#') {
            return Err(Reject::BadTarget);
        }
        let path = PathAndQuery::from_maybe_shared(path).map_err(|_| Reject::BadTarget)?;
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path);
        if let Some(authority) = self.authority {
            let authority = Authority::from_maybe_shared(authority);
            uri.authority = Some(authority.map_err(|_| Reject::BadHost)?);
            uri.scheme = Some(scheme);
        }
        let uri = Uri::from_parts(uri).map_err(|_| Reject::BadTarget)?;
        Ok((method, uri))
    }
}

#[cfg(test)]
mod tests {
    use super::super::qpack::{Encoder, decode};
    use super::*;

    fn section(fields: &[(&str, &str)]) -> Section {
        let mut encoder = Encoder::new();
        for (name, value) in fields {
            encoder.field(name, value.as_bytes());
        }
        decode(&encoder.finish(), 10_000).unwrap()
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.example"),
        (":path", "/a?b=c"),
    ];

    fn with(more: &[(&str, &str)]) -> Result<Parts, Reject> {
        request(&section(&[&GET[..], more].concat()))
    }

    fn without(name: &str) -> Result<Parts, Reject> {
        let kept: Vec<_> = GET.into_iter().filter(|field| field.0 != name).collect();
        request(&section(&kept))
    }

    fn changed(name: &str, value: &str) -> Result<Parts, Reject> {
        let one = |field: (&'static str, &'static str)| match field.0 == name {
            true => (field.0, value),
            false => field,
        };
        request(&section(&GET.map(one)))
    }

    #[test]
    fn an_ordinary_head_is_read() {
        let parts = with(&[("cookie", "a=1"), ("cookie", "b=2"), ("accept", "*/*")]).unwrap();
        assert_eq!(parts.method, Method::GET);
        assert_eq!(parts.uri, "https://shop.example/a?b=c");
        assert_eq!(parts.version, Version::HTTP_3);
        assert_eq!(parts.headers.get_all("cookie").iter().count(), 2);
        // Host may stand in for it; whether there is one, the guard sees.
        assert_eq!(without(":authority").unwrap().uri, "/a?b=c");
        assert_eq!(changed(":path", "*").unwrap().uri.path(), "*");
    }

    #[test]
    fn pseudo_fields_are_known_single_complete_and_first() {
        for name in [":method", ":scheme", ":path"] {
            assert_eq!(without(name).unwrap_err(), Reject::PseudoField, "{name}");
        }
        for (name, value) in GET {
            assert_eq!(
                with(&[(name, value)]).unwrap_err(),
                Reject::PseudoField,
                "{name}"
            );
        }
        // `:protocol` belongs to CONNECT.
        for name in [":status", ":protocol", ":", ":x", ":Method"] {
            assert_eq!(
                with(&[(name, "200")]).unwrap_err(),
                Reject::PseudoField,
                "{name}"
            );
        }
        let late = [GET[0], GET[1], GET[2], ("accept", "*/*"), GET[3]];
        assert_eq!(request(&section(&late)).unwrap_err(), Reject::PseudoField);
    }

    #[test]
    fn a_connect_with_a_protocol_is_a_request_with_all_that_others_have() {
        let extended = |without: &str| {
            let fields = [(":method", "CONNECT"), GET[1], GET[2], GET[3]];
            let mut fields: Vec<_> = fields.into_iter().filter(|it| it.0 != without).collect();
            fields.push((":protocol", "websocket"));
            request(&section(&fields))
        };
        let parts = extended("").unwrap();
        assert_eq!(parts.method, Method::CONNECT);
        assert_eq!(parts.uri, "https://shop.example/a?b=c");
        let protocol = parts.extensions.get::<Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        for missing in [":scheme", ":path"] {
            assert_eq!(extended(missing).unwrap_err(), Reject::PseudoField);
        }
    }

    #[test]
    fn values_that_are_none_are_refused() {
        for path in ["", "a", "/a#b", "/a b", "/a\0"] {
            let judged = changed(":path", path);
            let passed = judged.is_ok_and(|parts| parts.uri.path().starts_with('/'));
            assert!(!passed, "{path:?}");
        }
        assert_eq!(changed(":authority", "a b").unwrap_err(), Reject::BadHost);
        assert_eq!(changed(":authority", "").unwrap_err(), Reject::BadHost);
        assert_eq!(changed(":scheme", "ht tp").unwrap_err(), Reject::BadTarget);
        assert_eq!(changed(":method", "").unwrap_err(), Reject::BadMethod);
        assert_eq!(
            changed(":method", "CONNECT").unwrap_err(),
            Reject::ConnectMethod
        );
        for name in ["Accept", "", "a b", "a\0", "ä"] {
            assert_eq!(
                with(&[(name, "x")]).unwrap_err(),
                Reject::BadFieldName,
                "{name:?}"
            );
        }
        for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b"] {
            assert_eq!(
                with(&[("x", value)]).unwrap_err(),
                Reject::ControlCharacter,
                "{value:?}"
            );
        }
    }

    #[test]
    fn trailers_are_fields_and_nothing_else() {
        assert!(trailers(&section(&[("x", "y")])).is_ok());
        assert!(trailers(&section(&[(":path", "/")])).is_err());
        assert!(trailers(&section(&[("X", "y")])).is_err());
        assert!(trailers(&section(&[("x", "y\n")])).is_err());
    }
}
