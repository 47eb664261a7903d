//! Redirects and fixed replies, which a route and a filter write in the same way.

use http::{HeaderValue, StatusCode};

use crate::config::{Redirect, Respond, TemplatePart};
use crate::defaults;
use crate::keys;
use crate::raw::Value;
use crate::read::{Finding, Table, not_empty};
use crate::suggest::nearest;
use crate::text::{self, Wrong, quoted};

/// Statuses with a Location that a client follows (RFC 9110 section 15.4).
const REDIRECTS: [u64; 5] = [301, 302, 303, 307, 308];

/// The words that can stand in braces.
const WORDS: [(&str, TemplatePart); 4] = [
    ("scheme", TemplatePart::Scheme),
    ("host", TemplatePart::Host),
    ("path", TemplatePart::Path),
    ("query", TemplatePart::Query),
];

/// The value of `redirect`; `None`: there is none, or it is wrong (reported).
pub(super) fn redirect(table: &Table<'_>) -> Option<Redirect> {
    let entry = table.entry("redirect")?;
    let standard = StatusCode::from_u16(defaults::REDIRECT_STATUS).unwrap_or_default();
    if !matches!(entry.node.value, Value::Table(_)) {
        let to = table.text("redirect", location)?;
        return Some(Redirect {
            to,
            status: standard,
        });
    }
    let inner = table.open_inner(&keys::REDIRECT, entry)?;
    inner.require("to");
    let to = inner.text("to", location);
    let status = inner.get("status").map(|node| {
        let number = inner.cx.integer(node, "status", &keys::ANY_STATUS)?;
        if !REDIRECTS.contains(&number) {
            inner.cx.error(
                Finding::error(node.place, format!("status: {number} is no redirect"))
                    .label("one of 301, 302, 303, 307 and 308")
                    .help("help: 308 for good and 307 for now keep the method; 303 makes it GET"),
            );
            return None;
        }
        StatusCode::from_u16(u16::try_from(number).ok()?).ok()
    });
    Some(Redirect {
        to: to?,
        status: status.unwrap_or(Some(standard))?,
    })
}

/// `https://{host}{path}{query}` in parts.
pub(super) fn location(text: &str) -> Result<Vec<TemplatePart>, Wrong> {
    let text = not_empty(text)?;
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(Wrong::new(
            format!("{odd:?} cannot stand in a location"),
            "write it percent-encoded",
        ));
    }
    let starts = ["/", "http://", "https://", "{scheme}://", "{path}"];
    if !starts.iter().any(|start| text.starts_with(start)) {
        return Err(Wrong::new(
            format!("{} is neither a path nor a whole URL", quoted(&text)),
            if text.starts_with('$') {
                "here it is \"https://{host}{path}{query}\"".to_owned()
            } else {
                format!("write \"https://{text}\", or \"/...\" for the same host")
            },
        ));
    }
    if let Some(variable) = text.split('$').nth(1) {
        let word: String = variable
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let fix = match word.as_str() {
            "" => "write it percent-encoded: %24",
            "request_uri" => "write {path}{query}",
            "host" | "http_host" | "server_name" => "write {host}",
            "uri" | "document_uri" => "write {path}",
            "args" | "query_string" | "is_args" => "write {query}; it has the `?` in it",
            "scheme" => "write {scheme}",
            _ => "known are {scheme}, {host}, {path} and {query}",
        };
        return Err(Wrong::new(format!("`${word}` is not replaced here"), fix));
    }
    parts(&text)
}

fn parts(text: &str) -> Result<Vec<TemplatePart>, Wrong> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(open);
        if !before.is_empty() {
            parts.push(TemplatePart::Text(before.to_owned()));
        }
        let inner = after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'));
        let Some((word, after)) = inner else {
            return Err(Wrong::new(
                "a brace without its partner",
                "words to be replaced stand in braces: {host}",
            ));
        };
        parts.push(word_part(word)?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    if let Some(query) = parts.iter().position(|p| *p == TemplatePart::Query)
        && parts[..query]
            .iter()
            .any(|part| matches!(part, TemplatePart::Text(text) if text.contains('?')))
    {
        return Err(Wrong::new(
            "the location has a `?` already, and {query} brings its own",
            "leave one of them out",
        ));
    }
    Ok(parts)
}

fn word_part(word: &str) -> Result<TemplatePart, Wrong> {
    let found = WORDS.iter().find(|(known, _)| *known == word);
    if let Some((_, part)) = found {
        return Ok(part.clone());
    }
    let near = match word {
        "uri" | "request_uri" | "http.request.uri" => Some("path}{query"),
        _ => nearest(word, WORDS.iter().map(|(known, _)| *known)),
    };
    Err(Wrong::new(
        format!("`{{{word}}}` is not replaced here"),
        match near {
            Some(near) => format!("did you mean {{{near}}}?"),
            None => "known are {scheme}, {host}, {path} and {query}".into(),
        },
    ))
}

/// The value of `respond`; `None`: there is none, or it is wrong (reported).
pub(super) fn respond(table: &Table<'_>) -> Option<Respond> {
    let inner = table.table("respond")?;
    let status = inner.integer_or::<u16>("status", defaults::RESPOND_STATUS);
    let body = inner.text("body", |text| Ok(text.to_owned()));
    let content_type = inner.text("content_type", text::media_type);
    if let Some(number) = [204, 304].iter().find(|bare| **bare == status) {
        for name in ["body", "content_type"] {
            inner.no_effect(
                name,
                &format!("a {number} response has no content"),
                "delete it, or write status = 200",
            );
        }
    }
    Some(Respond {
        status: StatusCode::from_u16(status).ok()?,
        body: body.unwrap_or_default(),
        content_type: content_type
            .unwrap_or_else(|| HeaderValue::from_static(defaults::RESPOND_CONTENT_TYPE)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_location_is_cut_into_text_and_words() {
        assert_eq!(
            location("https://{host}/new{path}{query}"),
            Ok(vec![
                TemplatePart::Text("https://".into()),
                TemplatePart::Host,
                TemplatePart::Text("/new".into()),
                TemplatePart::Path,
                TemplatePart::Query,
            ])
        );
    }

    #[test]
    fn a_word_of_another_server_is_translated() {
        let fix = |text| location(text).expect_err("wrong").fix;
        assert_eq!(fix("https://{hots}/"), "did you mean {host}?");
        assert_eq!(fix("https://{host}{uri}"), "did you mean {path}{query}?");
        assert_eq!(fix("https://x$request_uri"), "write {path}{query}");
        assert!(fix("shop.example").starts_with("write \"https://shop.example\""));
        assert!(location("/a?b=c{query}").is_err(), "two question marks");
        assert!(location("/a{path").is_err());
        assert!(location("/a b").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(/|https://)?(\\PC|[{}$?]|\\{host\\}){0,20}") {
            let _ = location(&text);
        }
    }
}
