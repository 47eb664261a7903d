//! What stands between finding a route and doing what it says.
//!
//! One file a filter, each a decision that needs neither socket nor clock. A
//! [`Chain`] is what one route's filters became when the configuration was
//! loaded. Each filter runs its steps in one order: access, rewrite, redirect,
//! respond, request headers; then the next filter of the route begins. The
//! first step that has a reply ends the request. Response headers are changed
//! in the same order of filters, in replies made here as in those of an upstream.
//!
//! A new filter is one file here, one variant in `conf`, and one line in
//! `Steps::new`.

mod access;
mod headers;
mod redirect;
mod respond;
mod rewrite;

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use access::{Access, Admission};
use headers::HeaderEdits;

use rewrite::{Rewriting, Rewritten};

pub(crate) use headers::FieldsMut;
pub(crate) use redirect::Redirection;
pub(crate) use respond::FixedReply;

/// What a request is, as far as filters look and change.
pub(crate) struct Context<'a> {
    /// Who asks: the peer, or whom a trusted proxy says it asks for.
    pub(crate) client: IpAddr,
    /// How the client reached us.
    pub(crate) scheme: Scheme,
    /// Lower-case, without port.
    pub(crate) host: &'a str,
    /// Normalised path; replaced by a rewrite.
    pub(crate) path: Cow<'a, str>,
    /// Without `?`; replaced by a rewrite.
    pub(crate) query: Option<Cow<'a, str>>,
    /// The request's fields.
    pub(crate) fields: &'a mut dyn FieldsMut,
}

/// The scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What a chain decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request goes on to the route's action.
    Continue,
    /// The request is answered.
    Reply(Reply),
}

/// An answer made here, whole. The carrier adds Content-Length and Date, and
/// leaves the body out for HEAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Why there is one, for the log.
    pub(crate) by: Step,
    /// Status.
    pub(crate) status: StatusCode,
    /// Fields, without those of framing.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; may be empty.
    pub(crate) body: Bytes,
}

/// The steps that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client's address is not let in.
    Access,
    /// A rewrite made a path that is none.
    Rewrite,
    /// A redirect.
    Redirect,
    /// A fixed reply.
    Respond,
}

impl Step {
    /// The word for logs and metrics.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Rewrite => "rewrite",
            Self::Redirect => "redirect",
            Self::Respond => "respond",
        }
    }
}

impl Reply {
    /// A line of plain text.
    fn plain(by: Step, status: StatusCode, text: &str) -> Self {
        let media_type = HeaderValue::from_static("text/plain; charset=utf-8");
        Self {
            by,
            status,
            headers: vec![(header::CONTENT_TYPE, media_type)],
            body: Bytes::from(format!("{text}\n")),
        }
    }
}

/// The filters of one route, compiled.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    filters: Vec<Steps>,
    merge_slashes: bool,
}

impl Chain {
    /// Compiles the filters in the order in which a route names them.
    /// `merge_slashes` as for [`crate::exchange::normalise::normalise`]: rewritten
    /// paths are normalised again.
    #[must_use]
    pub(crate) fn new(filters: &[&conf::Filter], merge_slashes: bool) -> Self {
        Self {
            filters: filters.iter().map(|filter| Steps::new(filter)).collect(),
            merge_slashes,
        }
    }

    /// Whether [`Chain::request`] and [`Chain::response`] have nothing to do.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether [`Chain::request`] may change fields of a request.
    #[must_use]
    pub(crate) fn edits_requests(&self) -> bool {
        self.filters.iter().any(|filter| !filter.request.is_empty())
    }

    /// Runs the steps on a request. What filters before a reply changed stays changed.
    pub(crate) fn request(&self, context: &mut Context<'_>) -> Verdict {
        for filter in &self.filters {
            if let Some(reply) = filter.request(context, self.merge_slashes) {
                return Verdict::Reply(reply);
            }
        }
        Verdict::Continue
    }

    /// Changes the fields of a response.
    pub(crate) fn response(&self, fields: &mut dyn FieldsMut) {
        for filter in &self.filters {
            filter.response.apply(fields);
        }
    }
}

/// One filter's steps, in their order.
#[derive(Debug)]
struct Steps {
    access: Option<Access>,
    rewrite: Option<Rewriting>,
    redirect: Option<Redirection>,
    respond: Option<FixedReply>,
    request: HeaderEdits,
    response: HeaderEdits,
}

impl Steps {
    fn new(filter: &conf::Filter) -> Self {
        Self {
            access: Access::new(&filter.allow, &filter.deny),
            rewrite: filter.rewrite.as_ref().map(Rewriting::new),
            redirect: filter.redirect.as_ref().map(Redirection::new),
            respond: filter.respond.as_ref().map(FixedReply::new),
            request: HeaderEdits::new(&filter.request_headers),
            response: HeaderEdits::new(&filter.response_headers),
        }
    }

    fn request(&self, context: &mut Context<'_>, merge_slashes: bool) -> Option<Reply> {
        if let Some(access) = &self.access
            && access.judge(context.client) == Admission::Denied
        {
            let words = "You are not allowed to see this.";
            return Some(Reply::plain(Step::Access, StatusCode::FORBIDDEN, words));
        }
        if let Some(rewrite) = &self.rewrite {
            match rewrite.apply(&context.path, context.query.as_deref(), merge_slashes) {
                Ok(None) => {}
                Ok(Some(Rewritten { path, query })) => {
                    context.path = Cow::Owned(path);
                    context.query = query.map(Cow::Owned);
                }
                Err(reject) => {
                    let words = reject.explanation();
                    return Some(Reply::plain(Step::Rewrite, reject.status(), words));
                }
            }
        }
        if let Some(redirect) = &self.redirect {
            let query = context.query.as_deref();
            return Some(redirect.reply(context.scheme, context.host, &context.path, query));
        }
        if let Some(respond) = &self.respond {
            return Some(respond.reply());
        }
        self.request.apply(context.fields);
        None
    }
}

#[cfg(test)]
mod tests;
