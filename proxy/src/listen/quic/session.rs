//! One HTTP/3 request as Pingora's session type carries it.
//!
//! As for HTTP/2 ([`crate::listen::h2`]): the loops that move bytes see no difference between the
//! two. What is to be checked of a head is checked by the guard.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream as Messages;
use http::header::{self, HeaderMap};
use http::request::Parts;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType};

use super::connection::Ending;
use super::stream::{Fault, Reader, Unsent, Writer};
use super::wire::code::Code;
use crate::listen::keep_trailers;

/// See the module's text.
pub(super) struct H3Session {
    head: RequestHeader,
    reader: Reader,
    writer: Writer,
    written: Option<Box<ResponseHeader>>,
    read: usize,
    sent: usize,
    digest: Arc<Digest>,
    write_timeout: Option<Duration>,
    ending: Ending,
    /// The client gave it up, or is gone.
    given_up: bool,
}

impl Drop for H3Session {
    fn drop(&mut self) {
        if self.given_up {
            self.ending.given_up();
        }
    }
}

impl H3Session {
    pub(super) fn new(
        head: Parts,
        (reader, writer): (Reader, Writer),
        digest: Arc<Digest>,
        ending: Ending,
    ) -> Self {
        Self {
            head: head.into(),
            reader,
            writer,
            written: None,
            read: 0,
            sent: 0,
            digest,
            write_timeout: None,
            ending,
            given_up: false,
        }
    }

    async fn next_piece(&mut self) -> pingora::Result<Option<Bytes>> {
        match self.reader.data().await {
            Ok(piece) => {
                self.read += piece.as_ref().map_or(0, Bytes::len);
                if let (None, Some(came)) = (&piece, self.reader.take_trailers()) {
                    keep_trailers(self.head.extensions_mut(), came);
                }
                Ok(piece)
            }
            Err(fault) => Err(self.fault(fault)),
        }
    }

    fn fault(&mut self, fault: Fault) -> Box<Error> {
        match fault {
            Fault::Malformed(reject) => Error::explain(ErrorType::ReadError, reject.as_str()),
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

    fn unsent(&mut self, unsent: Unsent) -> Box<Error> {
        let error = match unsent {
            Unsent::Gone => {
                self.given_up = true;
                Error::explain(ErrorType::WriteError, "the client has left")
            }
            Unsent::Timeout => Error::explain(ErrorType::WriteTimedout, "the client takes nothing"),
        };
        error.into_down()
    }

    async fn interim(&mut self, head: &ResponseHeader) -> pingora::Result<()> {
        if self.written.is_some() || self.writer.is_ended() {
            return Ok(());
        }
        let written = self
            .writer
            .head(head.status, &head.headers, self.write_timeout);
        written.await.map_err(|unsent| self.unsent(unsent))
    }

    async fn last(&mut self, mut head: Box<ResponseHeader>, end: bool) -> pingora::Result<()> {
        if self.written.is_some() || self.writer.is_ended() {
            return Ok(());
        }
        if !head.headers.contains_key(header::DATE) {
            head.insert_header(header::DATE, get_cached_date())?;
        }
        let written = self
            .writer
            .head(head.status, &head.headers, self.write_timeout);
        written.await.map_err(|unsent| self.unsent(unsent))?;
        self.written = Some(head);
        if end {
            self.writer.end();
        }
        Ok(())
    }

    async fn piece(&mut self, piece: Bytes, end: bool) -> pingora::Result<()> {
        if self.writer.is_ended() {
            return Ok(());
        }
        if self.written.is_none() {
            return Err(Error::explain(ErrorType::H2Error, "a body without a head"));
        }
        let length = piece.len();
        let written = self.writer.data(piece, self.write_timeout);
        written.await.map_err(|unsent| self.unsent(unsent))?;
        self.sent += length;
        if end {
            self.writer.end();
        }
        Ok(())
    }

    fn end(&mut self) {
        // Without a head there is nothing to end: dropped, the stream is reset.
        if self.written.is_some() {
            self.writer.end();
        }
    }

    async fn last_fields(&mut self, fields: &HeaderMap) -> pingora::Result<()> {
        if self.writer.is_ended() || self.written.is_none() {
            return Ok(());
        }
        let written = self.writer.trailers(fields, self.write_timeout);
        written.await.map_err(|unsent| self.unsent(unsent))?;
        self.writer.end();
        Ok(())
    }
}

#[async_trait]
impl Session for H3Session {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> pingora::Result<Option<Bytes>> {
        self.next_piece().await
    }

    async fn drain_request_body(&mut self) -> pingora::Result<()> {
        while self.next_piece().await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(
        &mut self,
        head: Box<ResponseHeader>,
        end: bool,
    ) -> pingora::Result<()> {
        match head.status.is_informational() {
            true => self.interim(&head).await,
            false => self.last(head, end).await,
        }
    }

    async fn write_response_header_ref(
        &mut self,
        head: &ResponseHeader,
        end: bool,
    ) -> pingora::Result<()> {
        self.write_response_header(Box::new(head.clone()), end)
            .await
    }

    async fn write_body(&mut self, piece: Bytes, end: bool) -> pingora::Result<()> {
        self.piece(piece, end).await
    }

    async fn write_trailers(&mut self, fields: HeaderMap) -> pingora::Result<()> {
        self.last_fields(&fields).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> pingora::Result<bool> {
        let mut ends = false;
        for task in tasks {
            match task {
                HttpTask::Header(head, end) => {
                    self.write_response_header(head, end).await?;
                    ends |= end;
                }
                HttpTask::Body(piece, end) | HttpTask::UpgradedBody(piece, end) => {
                    if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                        self.piece(piece, end).await?;
                    }
                    ends |= end;
                }
                HttpTask::Trailer(fields) => {
                    if let Some(fields) = fields {
                        self.last_fields(&fields).await?;
                    }
                    ends = true;
                }
                HttpTask::Done => ends = true,
                HttpTask::Failed(error) => return Err(error),
            }
        }
        if ends {
            self.end();
        }
        Ok(ends)
    }

    fn proxy_tasks_enabled(&self) -> bool {
        true
    }

    /// One piece at a time.
    fn send_proxy_task(&mut self, task: HttpTask) {
        if let HttpTask::Body(Some(piece), _) | HttpTask::UpgradedBody(Some(piece), _) = task
            && !self.writer.is_ended()
        {
            self.sent += piece.len();
            self.writer.pend(piece);
        }
    }

    fn has_pending_proxy_tasks(&self) -> bool {
        self.writer.has_pending()
    }

    async fn write_proxy_tasks(&mut self) -> pingora::Result<bool> {
        let written = self.writer.push().await;
        written
            .map_err(|unsent| self.unsent(unsent))
            .map(|()| false)
    }

    /// Reading has its clock where it is waited for.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, _: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.writer.abandon(Code::Internal);
    }

    fn is_body_done(&mut self) -> bool {
        self.reader.is_done()
    }

    async fn finish(&mut self) -> pingora::Result<()> {
        self.end();
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        self.read == 0 && self.reader.is_empty()
    }

    async fn read_body_or_idle(&mut self, idle: bool) -> pingora::Result<Option<Bytes>> {
        if idle || self.reader.is_done() {
            let reason = self.writer.left().await;
            self.given_up = true;
            let what = match reason {
                Some(code) => format!("the client wants no reply any more: {code}"),
                None => "the connection is gone".to_owned(),
            };
            return Err(Error::explain(ErrorType::H2Error, what));
        }
        self.next_piece().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    /// For subrequests of Pingora's own proxy, which is not used.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn finish_custom(&mut self) -> pingora::Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Messages<Item = pingora::Result<Bytes>> + Unpin + Send + Sync + 'static>>
    {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Messages<Item = pingora::Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> pingora::Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(
        &mut self,
        _: Box<dyn CustomMessageWrite>,
    ) -> pingora::Result<()> {
        Ok(())
    }
}
