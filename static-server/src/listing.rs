//! A directory without an index, shown: as a page for people, as JSON for programs.
//!
//! [`Listings`] reads the names through [`Files`], keeps what it made of them for a while, and
//! decides; what else stands under this module is pure: which entries are shown and in which order
//! ([`View`]), and how they are written. The page needs no script, no picture and no other
//! request, so that it can be sent with a policy that allows none.
//!
//! What it does not do: it says nothing of what is never served (hidden names, links that
//! leave the root, pipes), and nothing of copies that are only another coding of a file.

mod accept;
mod json;
mod kept;
mod page;
mod text;
mod view;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method};

pub use accept::Form;
pub use kept::Listings;
pub use view::{Order, SortBy, View};

use crate::answer::{Answer, Body, Headers, Outcome, plain};
use crate::conditions::{self, Precondition, Validators};
use crate::etag::EntityTag;
use crate::fields::Fields;
use crate::files::{Files, Trouble};
use crate::hash::Hash;
use crate::representation::entity_tag;

/// How many names of one directory are read. A folder of more is no list for a person any
/// more, and every request for it would be long work.
pub const MAX_ENTRIES: usize = 10_000;

/// A page of links, with its own style and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Says that a list in JSON, where nothing else could say it, is not all.
const TRUNCATED: HeaderName = HeaderName::from_static("x-listing-truncated");

/// What is asked of a listing.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// GET or HEAD.
    pub method: &'a Method,
    /// The directory below the root: empty, or with a slash at its end.
    pub directory: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The header fields.
    pub fields: &'a dyn Fields,
}

/// A directory as it is shown in one form and order.
struct Shown {
    body: Bytes,
    etag: HeaderValue,
    /// There are more names than are shown.
    more: bool,
}

impl Listings {
    /// Shows a directory. `at` is in milliseconds of the site's life.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read; see [`Trouble`].
    pub fn answer(&self, files: &dyn Files, asked: &Asked<'_>, at: u64) -> Result<Answer, Trouble> {
        let order = Order::from_query(asked.query);
        let form = Form::preferred(asked.fields);
        let key = (asked.directory.into(), form, order);
        let shown = self.shown(key, files, at, || show(files, asked.directory, form, order))?;
        Ok(send(asked, form, &shown))
    }
}

fn show(files: &dyn Files, directory: &str, form: Form, order: Order) -> Result<Shown, Trouble> {
    let listed = files.list(directory.trim_end_matches('/'), MAX_ENTRIES)?;
    let view = View::new(listed, order);
    let body: Bytes = match form {
        Form::Page => page::render(directory, &view),
        Form::Json => json::render(&view),
    }
    .into();
    Ok(Shown {
        etag: entity_tag(Hash::of(&body), None),
        more: view.more(),
        body,
    })
}

/// Conditions decide as for a file; ranges do not apply (RFC 9110, 14.2, lets a server ignore
/// them).
fn send(asked: &Asked<'_>, form: Form, shown: &Shown) -> Answer {
    let head = asked.method == Method::HEAD;
    let validators = Validators {
        etag: EntityTag::parse(shown.etag.as_bytes()),
        ..Validators::default()
    };
    let precondition = conditions::evaluate(asked.method, asked.fields, &validators);
    let mut own = vec![
        (ETAG, shown.etag.clone()),
        // RFC 9110, 12.5.5: which form comes depends on this field, for a 304 as well.
        (VARY, HeaderValue::from_static("accept")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    let (outcome, body) = match precondition {
        Precondition::Failed => return plain(Outcome::PreconditionFailed, head),
        Precondition::NotModified => (Outcome::NotModified, Body::Empty),
        Precondition::Proceed => {
            own.extend(content_fields(form, shown.more, shown.body.len()));
            let body = if head {
                Body::Empty
            } else {
                Body::Memory(shown.body.clone())
            };
            (Outcome::Listed, body)
        }
    };
    Answer {
        outcome,
        status: outcome.status(),
        headers: Headers {
            own,
            ..Headers::default()
        },
        body,
    }
}

fn content_fields(
    form: Form,
    more: bool,
    len: usize,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let (kind, particular) = match form {
        Form::Page => (
            "text/html; charset=utf-8",
            Some((CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))),
        ),
        Form::Json => (
            "application/json",
            more.then(|| (TRUNCATED, HeaderValue::from(MAX_ENTRIES))),
        ),
    };
    [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_LENGTH, HeaderValue::from(len)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
    .into_iter()
    .chain(particular)
}

#[cfg(test)]
mod tests;
