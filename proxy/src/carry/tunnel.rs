//! After a 101: bytes pass both ways until either side ends (RFC 9110 section 7.8).
//!
//! The two directions are independent: a side that does not read until what it
//! wrote is read must not stop us from reading it. So in each direction one
//! piece waits here while the other direction goes on.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use pingora::protocols::http::{HttpTask, ServerSession};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{timeout, timeout_at};

use super::failure::{ClientFault, Failure};
use super::upstream::BothWays;
use crate::clock;
use crate::listen::is_h2;

/// Bytes read from the endpoint at a time.
const PIECE: usize = 16 * 1024;

/// How long an endpoint may go on when its client has ended its direction.
const LAST_WORDS: Duration = Duration::from_secs(10);

type Reading = ReadHalf<Box<dyn BothWays>>;
type Writing = WriteHalf<Box<dyn BothWays>>;

/// What came of looking at the client's connection in both directions.
enum Client {
    Written,
    Read(Option<Bytes>),
}

/// Joins `session` and `endpoint`; `first` is what came from the endpoint already. An endpoint that
/// takes nothing of what is there for it for `patience` is given up: nothing is read from the client
/// meanwhile, so that nobody would see it go.
///
/// # Errors
/// A side broke its connection off; an orderly end of either is none.
pub(super) async fn join(
    session: &mut ServerSession,
    endpoint: Box<dyn BothWays>,
    first: Option<Bytes>,
    patience: Duration,
) -> Result<(), Failure> {
    let (mut from_endpoint, mut to_endpoint) = split(endpoint);
    let mut up = Bytes::new();
    let mut unflushed = false;
    let mut until = clock::now();
    let mut piece = vec![0; PIECE];
    let mut down = first.is_some();
    if let Some(first) = first {
        session.send_downstream_proxy_task(HttpTask::UpgradedBody(Some(first), false));
    }
    loop {
        let take = up.is_empty() && !unflushed;
        // Each branch can be dropped half way without losing a byte: reads give all or nothing,
        // a write that was taken is followed by its own flush, and a task's write is resumed.
        tokio::select! {
            read = from_endpoint.read(&mut piece), if !down => match read {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    let bytes = Bytes::copy_from_slice(&piece[..count]);
                    session.send_downstream_proxy_task(HttpTask::UpgradedBody(Some(bytes), false));
                    down = true;
                }
                Err(_) => return Err(Failure::Reset),
            },
            written = push(&mut to_endpoint, &up, unflushed, until), if !take => {
                let count = written?;
                unflushed = !unflushed;
                up.advance(count);
                until = clock::now() + patience;
            }
            news = poll_fn(|cx| poll_client(session, down, take, cx)), if down || take => {
                match news? {
                    Client::Written => down = false,
                    Client::Read(Some(bytes)) => {
                        up = bytes;
                        until = clock::now() + patience;
                    }
                    // It has ended its direction alone, as browsers do behind their last word.
                    Client::Read(None) if is_h2(session) => {
                        let halves = (from_endpoint, to_endpoint);
                        return Box::pin(last_words(session, halves)).await;
                    }
                    Client::Read(None) => return Ok(()),
                }
            }
        }
    }
}

/// The endpoint is told that the client says no more, and the client what the endpoint still says.
async fn last_words(
    session: &mut ServerSession,
    (mut from_endpoint, mut to_endpoint): (Reading, Writing),
) -> Result<(), Failure> {
    let gone = |_| Failure::Client(ClientFault::Gone);
    let rest = async {
        session.write_downstream_proxy_tasks().await.map_err(gone)?;
        to_endpoint.shutdown().await.map_err(|_| Failure::Reset)?;
        let mut piece = vec![0; PIECE];
        loop {
            let count = from_endpoint.read(&mut piece).await;
            match count.map_err(|_| Failure::Reset)? {
                0 => return Ok(()),
                count => {
                    let bytes = Bytes::copy_from_slice(&piece[..count]);
                    let written = session.write_response_body(bytes, false).await;
                    written.map_err(gone)?;
                }
            }
        }
    };
    timeout(LAST_WORDS, rest).await.unwrap_or(Ok(()))
}

/// Writes on to the client if `down`, reads from it if `take`. Both need the whole
/// session, and both may be dropped while they wait, so each has its look in turn.
fn poll_client(
    session: &mut ServerSession,
    down: bool,
    take: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Client, Failure>> {
    let gone = |_| Failure::Client(ClientFault::Gone);
    if down {
        let written = pin!(session.write_downstream_proxy_tasks()).poll(cx);
        if let Poll::Ready(written) = written {
            return Poll::Ready(written.map(|_| Client::Written).map_err(gone));
        }
    }
    if take && is_h2(session) && session.is_body_done() {
        return Poll::Ready(Ok(Client::Read(None)));
    }
    if take {
        let read = pin!(session.read_body_or_idle(false)).poll(cx);
        if let Poll::Ready(read) = read {
            return Poll::Ready(read.map(Client::Read).map_err(gone));
        }
    }
    Poll::Pending
}

/// Flushes, or writes some of `bytes`: one of the two, so that it can be dropped while it waits.
async fn push(
    endpoint: &mut Writing,
    bytes: &[u8],
    unflushed: bool,
    until: Instant,
) -> Result<usize, Failure> {
    let step = async {
        if unflushed {
            endpoint.flush().await.map(|()| 0)
        } else {
            endpoint.write(bytes).await
        }
    };
    match timeout_at(until.into(), step).await {
        Ok(written) => written.map_err(|_| Failure::Reset),
        Err(_) => Err(Failure::ReadTimeout),
    }
}
