//! Pages that stand in for the bodies of error replies: which one, for whom, and what is filled in.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};

use crate::filter::FieldsMut;

/// The media type of what machines get.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One `[error_pages.NAME]`.
#[derive(Debug)]
pub(crate) struct Pages {
    exact: Vec<(StatusCode, Page)>,
    client_error: Option<Page>,
    server_error: Option<Page>,
    upstream: bool,
}

/// A page in the pieces between what is filled in.
#[derive(Debug)]
pub(crate) struct Page {
    media_type: HeaderValue,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(Bytes),
    Status,
    Reason,
    RequestId,
}

/// What is filled in. Nothing of it comes from a client: digits, the words of RFC 9110, hexadecimal
/// digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The reply's.
    pub(crate) status: StatusCode,
    /// As it stands in the access log.
    pub(crate) id: &'a str,
}

/// What stands in for a body.
#[derive(Debug)]
pub(crate) struct Cover {
    media_type: HeaderValue,
    /// Whole.
    pub(crate) body: Bytes,
}

impl Pages {
    /// `upstream`: an app's error replies get a page, too.
    pub(crate) fn new(pages: Vec<(conf::PageStatus, Page)>, upstream: bool) -> Self {
        let mut made = Self {
            exact: Vec::new(),
            client_error: None,
            server_error: None,
            upstream,
        };
        for (status, page) in pages {
            match status {
                conf::PageStatus::Exact(status) => made.exact.push((status, page)),
                conf::PageStatus::ClientError => made.client_error = Some(page),
                conf::PageStatus::ServerError => made.server_error = Some(page),
            }
        }
        made
    }

    /// What a client that asked with these fields gets for an error found here.
    pub(crate) fn own(&self, asked: &HeaderMap, facts: Facts<'_>) -> Option<Cover> {
        if prefers_json(asked) {
            return Some(Cover::json(facts));
        }
        self.page(facts.status).map(|page| page.cover(facts))
    }

    /// What it gets in place of an app's reply with these fields; `None`: that reply. Only what is
    /// for people is replaced.
    pub(crate) fn of_upstream(
        &self,
        asked: &HeaderMap,
        reply: &HeaderMap,
        facts: Facts<'_>,
    ) -> Option<Cover> {
        if !self.upstream || prefers_json(asked) || !is_for_people(reply) {
            return None;
        }
        self.page(facts.status).map(|page| page.cover(facts))
    }

    /// Whether a page may take the place of an app's reply with this status.
    pub(crate) fn may_cover(&self, status: StatusCode) -> bool {
        self.upstream && self.page(status).is_some()
    }

    fn page(&self, status: StatusCode) -> Option<&Page> {
        if let Some((_, page)) = self.exact.iter().find(|(known, _)| *known == status) {
            return Some(page);
        }
        if status.is_client_error() {
            return self.client_error.as_ref();
        }
        self.server_error
            .as_ref()
            .filter(|_| status.is_server_error())
    }
}

impl Page {
    /// A page of this media type and content.
    pub(crate) fn new(media_type: &'static str, content: &[u8]) -> Self {
        Self {
            media_type: HeaderValue::from_static(media_type),
            parts: parts(&Bytes::copy_from_slice(content)),
        }
    }

    /// The page with everything filled in.
    pub(crate) fn cover(&self, facts: Facts<'_>) -> Cover {
        if let [Part::Text(whole)] = self.parts.as_slice() {
            return Cover {
                media_type: self.media_type.clone(),
                body: whole.clone(),
            };
        }
        let mut body = BytesMut::new();
        for part in &self.parts {
            body.extend_from_slice(match part {
                Part::Text(text) => text,
                Part::Status => facts.status.as_str().as_bytes(),
                Part::Reason => reason(facts.status).as_bytes(),
                Part::RequestId => facts.id.as_bytes(),
            });
        }
        Cover {
            media_type: self.media_type.clone(),
            body: body.freeze(),
        }
    }
}

/// Cuts at whatever is to be filled in; other braces stay as they are.
fn parts(content: &Bytes) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = 0;
    let mut at = 0;
    while let Some(brace) = memchr::memchr(b'{', &content[at..]) {
        at += brace;
        let (part, length) = match &content[at..] {
            rest if rest.starts_with(b"{status}") => (Part::Status, 8),
            rest if rest.starts_with(b"{reason}") => (Part::Reason, 8),
            rest if rest.starts_with(b"{request_id}") => (Part::RequestId, 12),
            _ => {
                at += 1;
                continue;
            }
        };
        if text < at {
            parts.push(Part::Text(content.slice(text..at)));
        }
        parts.push(part);
        at += length;
        text = at;
    }
    if text < content.len() {
        parts.push(Part::Text(content.slice(text..)));
    }
    parts
}

impl Cover {
    /// The same for machines.
    pub(crate) fn json(facts: Facts<'_>) -> Self {
        let value = serde_json::json!({
            "status": facts.status.as_u16(),
            "reason": reason(facts.status),
            "request_id": facts.id,
        });
        Self {
            media_type: JSON,
            body: Bytes::from(format!("{value}\n")),
        }
    }

    /// Makes the head of a reply the head of this one: what spoke of the body that it had goes, what
    /// speaks of the error (Retry-After, WWW-Authenticate, Allow) stays.
    pub(crate) fn put_on(&self, fields: &mut dyn FieldsMut) {
        static OF_THE_BODY: [HeaderName; 14] = [
            header::TRANSFER_ENCODING,
            header::CONTENT_ENCODING,
            header::CONTENT_LANGUAGE,
            header::CONTENT_LOCATION,
            header::CONTENT_DISPOSITION,
            header::ETAG,
            header::LAST_MODIFIED,
            header::ACCEPT_RANGES,
            header::EXPIRES,
            header::PRAGMA,
            HeaderName::from_static("content-md5"),
            HeaderName::from_static("digest"),
            HeaderName::from_static("content-digest"),
            HeaderName::from_static("repr-digest"),
        ];
        for name in &OF_THE_BODY {
            fields.remove(name);
        }
        fields.set(header::CONTENT_TYPE, self.media_type.clone());
        fields.set(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        fields.set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// Whether a client wants JSON and not HTML. A browser says that it takes HTML; a script that says
/// nothing, or `*/*`, gets what a browser gets.
pub(crate) fn prefers_json(asked: &HeaderMap) -> bool {
    let (mut json, mut html) = (false, false);
    for line in asked.get_all(header::ACCEPT) {
        let members = line.as_bytes().split(|&byte| byte == b',');
        for member in members {
            let mut pieces = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let media_type = pieces.next().unwrap_or_default().to_ascii_lowercase();
            if pieces.any(is_refusal) {
                continue;
            }
            json |= media_type == b"application/json" || media_type.ends_with(b"+json");
            html |= media_type == b"text/html" || media_type == b"application/xhtml+xml";
        }
    }
    json && !html
}

/// `q=0`: what is named is not wanted (RFC 9110 section 12.4.2).
fn is_refusal(parameter: &[u8]) -> bool {
    let weight = match parameter {
        [b'q' | b'Q', b'=', weight @ ..] => weight,
        _ => return false,
    };
    weight.first() == Some(&b'0') && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

/// HTML, plain text, or nothing that says what it is.
fn is_for_people(reply: &HeaderMap) -> bool {
    let Some(media_type) = reply.get(header::CONTENT_TYPE) else {
        return true;
    };
    let essence = media_type.as_bytes().split(|&byte| byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    ["text/html", "text/plain", "application/xhtml+xml", ""]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts {
        status: StatusCode::BAD_GATEWAY,
        id: "0123abcd",
    };

    fn page(text: &str) -> Page {
        Page::new("text/html; charset=utf-8", text.as_bytes())
    }

    fn fields(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn accept(value: &'static str) -> HeaderMap {
        fields(header::ACCEPT, value)
    }

    #[test]
    fn what_stands_in_braces_is_filled_in_and_other_braces_stay() {
        let text = "{status} {reason} ({request_id}) p { color: red } {{status} {other} {";
        let body = page(text).cover(FACTS).body;
        let filled = "502 Bad Gateway (0123abcd) p { color: red } {502 {other} {";
        assert_eq!(std::str::from_utf8(&body), Ok(filled));
        assert_eq!(page("").cover(FACTS).body, "");
        assert_eq!(page("plain").cover(FACTS).body, "plain");
    }

    #[test]
    fn an_exact_status_comes_before_its_class() {
        let pages = Pages::new(
            vec![
                (conf::PageStatus::ClientError, page("4xx")),
                (
                    conf::PageStatus::Exact(StatusCode::NOT_FOUND),
                    page("{status}"),
                ),
            ],
            false,
        );
        let shown = |status| {
            let facts = Facts { status, id: "" };
            pages.own(&HeaderMap::new(), facts).map(|cover| cover.body)
        };
        assert_eq!(shown(StatusCode::NOT_FOUND), Some("404".into()));
        assert_eq!(shown(StatusCode::GONE), Some("4xx".into()));
        assert_eq!(shown(StatusCode::BAD_GATEWAY), None);
    }

    #[test]
    fn json_is_for_who_names_it_and_not_html() {
        for (value, wanted) in [
            ("application/json", true),
            ("application/problem+json, */*;q=0.1", true),
            ("Application/JSON; q=0.5", true),
            ("application/json, text/html;q=0", true),
            ("text/html,application/json", false),
            ("application/json;q=0", false),
            ("*/*", false),
            ("text/html, */*;q=0.8", false),
            ("", false),
        ] {
            assert_eq!(prefers_json(&accept(value)), wanted, "{value}");
        }
        assert!(!prefers_json(&HeaderMap::new()));
    }

    #[test]
    fn an_apps_reply_is_replaced_only_where_it_is_for_people() {
        let pages = Pages::new(vec![(conf::PageStatus::ServerError, page("page"))], true);
        let replaced = |asked: &HeaderMap, media_type| {
            let reply = fields(header::CONTENT_TYPE, media_type);
            pages.of_upstream(asked, &reply, FACTS).is_some()
        };
        let anything = accept("*/*");
        assert!(replaced(&anything, "text/html; charset=utf-8"));
        assert!(replaced(&anything, "Text/Plain"));
        assert!(!replaced(&anything, "application/json"));
        assert!(!replaced(&anything, "application/grpc"));
        assert!(!replaced(&accept("application/json"), "text/html"));
        let bare = pages.of_upstream(&anything, &HeaderMap::new(), FACTS);
        assert!(bare.is_some(), "nothing says that it is not for people");
        let off = Pages::new(vec![(conf::PageStatus::ServerError, page("page"))], false);
        let html = fields(header::CONTENT_TYPE, "text/html");
        assert!(off.of_upstream(&anything, &html, FACTS).is_none());
    }

    #[test]
    fn the_head_says_nothing_of_the_body_that_was_there() {
        let mut head = HeaderMap::from_iter([
            (header::ETAG, HeaderValue::from_static("\"a\"")),
            (header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            (
                header::TRANSFER_ENCODING,
                HeaderValue::from_static("chunked"),
            ),
            (
                header::CACHE_CONTROL,
                HeaderValue::from_static("max-age=60"),
            ),
            (header::RETRY_AFTER, HeaderValue::from_static("7")),
            (header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic")),
        ]);
        page("page").cover(FACTS).put_on(&mut head);
        let mut names: Vec<&str> = head.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "cache-control",
                "content-length",
                "content-type",
                "retry-after",
                "www-authenticate"
            ]
        );
        assert_eq!(head[header::CACHE_CONTROL], "no-store");
        assert_eq!(head[header::CONTENT_LENGTH], "4");
    }

    #[test]
    fn machines_get_the_same_facts() {
        let cover = Cover::json(FACTS);
        let value: serde_json::Value = serde_json::from_slice(&cover.body).expect("JSON");
        assert_eq!(value["status"], 502);
        assert_eq!(value["reason"], "Bad Gateway");
        assert_eq!(value["request_id"], "0123abcd");
    }
}
