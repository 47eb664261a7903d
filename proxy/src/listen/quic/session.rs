//! The stream of an HTTP/3 request, as [`crate::listen::session`] serves it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HeaderMap;
use http::request::Parts;
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::{Error, ErrorType};

use super::stream::{Fault, Gone, Reader, Writer};
use super::tally::{self, Ending};
use super::wire::code::Code;
use crate::listen::conn::{ConnInfo, conn_info};
use crate::listen::session::{Step, Stream, StreamSession};

/// See the module's text.
pub(super) struct H3Stream {
    reader: Reader,
    writer: Writer,
    ending: Ending,
    info: Option<Arc<ConnInfo>>,
    /// How much the connection had taken when it last took some of this reply.
    taken: u64,
    /// The client gave it up, or is gone.
    given_up: bool,
}

/// `None`: nothing is known of the connection.
pub(super) fn session(
    head: Parts,
    (reader, writer): (Reader, Writer),
    digest: Arc<Digest>,
    ending: Ending,
) -> Option<StreamSession<H3Stream>> {
    let stream = H3Stream {
        reader,
        writer,
        ending,
        info: digest.proxy_digest.as_deref().and_then(conn_info).cloned(),
        taken: 0,
        given_up: false,
    };
    StreamSession::new(head.into(), stream, digest)
}

impl Drop for H3Stream {
    fn drop(&mut self) {
        if self.given_up {
            self.ending.given_up();
        }
    }
}

impl H3Stream {
    fn fault(&mut self, fault: Fault) -> Box<Error> {
        match fault {
            Fault::Malformed(reject) => {
                // It has an app at work on it by now, and is broken off.
                self.given_up = true;
                if let Some(info) = &self.info {
                    info.malformed.fetch_add(1, Ordering::Relaxed);
                }
                Error::explain(ErrorType::ReadError, reject.as_str())
            }
            Fault::Connection(code) => {
                self.ending.end_connection(code);
                Error::explain(ErrorType::H2Error, "the client broke a rule of HTTP/3")
            }
            Fault::Gone | Fault::Cut => {
                self.given_up = true;
                Error::explain(ErrorType::H2Error, "the client gave the request up")
            }
        }
    }
}

impl Stream for H3Stream {
    async fn data(&mut self) -> pingora::Result<Option<Bytes>> {
        let piece = self.reader.data().await;
        piece.map_err(|fault| self.fault(fault))
    }

    async fn trailers(&mut self) -> pingora::Result<Option<HeaderMap>> {
        Ok(self.reader.take_trailers())
    }

    fn all_read(&self) -> bool {
        self.reader.is_done()
    }

    async fn interim(&mut self, head: &ResponseHeader) -> pingora::Result<()> {
        self.writer.head(head.status, &head.headers);
        Ok(())
    }

    fn head(&mut self, head: &ResponseHeader, end: bool) -> pingora::Result<()> {
        self.ending.put(tally::REPLY);
        self.writer.head(head.status, &head.headers);
        if end {
            self.writer.end();
        }
        Ok(())
    }

    fn piece(&mut self, piece: Bytes, end: bool) -> pingora::Result<()> {
        self.writer.data(piece);
        if end {
            self.writer.end();
        }
        Ok(())
    }

    fn last_fields(&mut self, fields: HeaderMap) -> pingora::Result<()> {
        self.writer.trailers(&fields);
        self.writer.end();
        Ok(())
    }

    fn end(&mut self) -> pingora::Result<()> {
        self.writer.end();
        Ok(())
    }

    fn abandon(&mut self, is_cancelled: bool) {
        self.writer.abandon(match is_cancelled {
            true => Code::RequestCancelled,
            false => Code::Internal,
        });
    }

    fn is_ended(&self) -> bool {
        self.writer.is_ended()
    }

    fn has_pending(&self) -> bool {
        self.writer.has_pending()
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<pingora::Result<Step>> {
        self.writer.poll_step(cx).map(|step| match step {
            Ok(step) => {
                self.ending.put(tally::of_body(step.body));
                self.taken = self.ending.tally.took(step.octets);
                Ok(step)
            }
            Err(Gone) => {
                self.given_up = true;
                Err(Error::explain(ErrorType::WriteError, "the client has left"))
            }
        })
    }

    fn was_passed_over(&mut self) -> bool {
        let taken = self.ending.tally.took(0);
        let before = std::mem::replace(&mut self.taken, taken);
        before != taken && self.writer.comes_behind()
    }

    async fn left(&mut self) -> Box<Error> {
        let reason = self.writer.left().await;
        self.given_up = true;
        let what = match reason {
            Some(code) => format!("the client wants no reply any more: {code}"),
            None => "the connection is gone".to_owned(),
        };
        Error::explain(ErrorType::H2Error, what)
    }
}
