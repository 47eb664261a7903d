//! Pictures in the form that suits the client, where the site makes any.
//!
//! A variant that was sent is kept in memory like a file, under a name that says of which state of
//! which file it was made: when the file changes, nobody finds it any more. Once a second the
//! folder is asked too, so that what is sent does not count as forgotten there.

use std::sync::Arc;

use http::HeaderValue;

use super::prepare::Preparation;
use super::{Request, is_current};
use crate::answer::Answer;
use crate::images::choice::{Original, Variant as Form};
use crate::images::{Images, Lookup, Ready};
use crate::mime;
use crate::representation::Representation;
use crate::resource::{Named, Resource, Seen, Variant};

/// What a picture is answered with.
pub(super) enum Picture {
    /// A variant.
    Made(Answer),
    /// The file itself, until the variant is made.
    ForNow,
    /// The file itself.
    Original,
}

/// Looks for the form of `resource` that the request gets, and has it made where it is missing.
pub(super) fn picture(
    images: &Images,
    preparation: &Preparation,
    request: &Request<'_>,
    resource: &Resource,
    at: u64,
) -> Picture {
    let file = resource.plain();
    let Some(original) = Original::of(mime::of(&file.path)) else {
        return Picture::Original;
    };
    let Some(form) = images.choose(original, request.fields, request.query) else {
        return Picture::Original;
    };
    let name = name(file, form);
    let ask = || {
        images.variant(
            resource.files(),
            &file.path,
            &file.facts,
            original,
            form,
            at,
        )
    };
    let held = preparation.memory().find_shared(&name);
    if let Some(held) = held
        && let Some(ready) = held.plain().ready.as_deref().filter(|r| is_current(r))
    {
        if !held.trusted(at) {
            let _ = ask();
        }
        return Picture::Made(ready.answer(request.method, request.fields, request.sending));
    }
    match ask() {
        Lookup::Ready(ready) => match keep(preparation, &name, resource, ready, at) {
            Some(ready) => {
                let (method, fields) = (request.method, request.fields);
                Picture::Made(ready.answer(method, fields, request.sending))
            }
            None => Picture::ForNow,
        },
        Lookup::Making => Picture::ForNow,
        Lookup::Useless | Lookup::Failed => Picture::Original,
    }
}

/// What a variant is called in memory. No path has two slashes in a row.
fn name(file: &Variant, form: Form) -> String {
    let facts = &file.facts;
    let nanoseconds = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos())
    };
    format!(
        "//{}/{}/{}/{:x}/{:x}/{:x}/{:x}",
        form.format
            .map_or("", crate::images::choice::Format::as_str),
        form.width.unwrap_or(0),
        file.path,
        facts.len,
        facts.inode,
        nanoseconds(facts.modified),
        nanoseconds(facts.changed),
    )
}

/// Makes the representation of a variant, and keeps it.
fn keep(
    preparation: &Preparation,
    name: &str,
    resource: &Resource,
    ready: Ready,
    at: u64,
) -> Option<Arc<Representation>> {
    let (tag, facts) = (ready.tag, ready.facts);
    let content_type = HeaderValue::from_static(ready.media_type);
    let made = preparation.picture(resource, content_type, (ready.file, facts, tag))?;
    let made = Arc::new(made);
    let seen = Seen {
        files: Arc::clone(resource.files()),
        plain: Variant {
            encoding: None,
            path: name.into(),
            facts,
            ready: Some(Arc::clone(&made)),
        },
        packed: Vec::new(),
        named: Named::Itself,
        signs: None,
    };
    let kept = Arc::new(Resource::new(seen, at));
    preparation.memory().keep(name, &kept);
    Some(made)
}
