//! Early hints on their way to the client, and what an app's reply teaches.

use http::header;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::respond;
use super::turn::Turn;
use crate::exchange::Way;
use crate::exchange::hints::{Origin, Page};
use crate::snapshot::Route;

impl Turn {
    /// Tells the client what the page will want, once for a request, if it can use that.
    pub(super) async fn hint(&mut self, session: &mut ServerSession, route: &Route, way: &Way) {
        let Some(hints) = route.hints.as_ref().filter(|_| !self.record.hinted) else {
            return;
        };
        let asked = session.req_header();
        if !hints.helps(&asked.method, asked.version, &asked.headers) {
            return;
        }
        let links = hints.links(&page(self.scheme(session), way));
        if links.is_empty() {
            return;
        }
        let Ok(mut head) = ResponseHeader::build_no_case(103, Some(links.len())) else {
            return;
        };
        for link in links {
            // The name is typed: it cannot be refused.
            let _ = head.append_header(header::LINK, link);
        }
        // Where it fails, the client is gone, and whatever comes next finds that out.
        if respond::interim(session, Box::new(head)).await.is_ok() {
            self.record.hinted = true;
        }
    }

    /// Takes in which links the app's reply to this request has.
    pub(super) fn learn(
        &self,
        session: &ServerSession,
        route: &Route,
        way: &Way,
        reply: &ResponseHeader,
    ) {
        if let Some(hints) = &route.hints {
            let asked = session.req_header();
            let page = page(self.scheme(session), way);
            let fields = &asked.headers;
            hints.learn(&page, &asked.method, fields, reply.status, &reply.headers);
        }
    }
}

fn page<'a>(scheme: &'a str, way: &'a Way) -> Page<'a> {
    let (path, query) = way.as_asked();
    Page {
        origin: Origin {
            scheme,
            authority: &way.authority,
        },
        path,
        has_query: query.is_some(),
    }
}
