//! A reply's body on its way down a stream of HTTP/2, as the client makes room for it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::time::{Sleep, timeout};

use super::proxied::{Ending, Went};
use super::wire::{Body, Client, Step, Wire};
use crate::carry::failure::{ClientFault, Failure};
use crate::carry::upstream::Asked;
use crate::clock;
use crate::observe::Record;

/// The client has left, or takes nothing.
pub(super) struct Gone;

impl From<Gone> for Failure {
    fn from(Gone: Gone) -> Self {
        Self::Client(ClientFault::Gone)
    }
}

/// Sends `data`, `ends` that of the whole body. `patience`: how long the client may make no room.
pub(super) async fn send(
    writer: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
    patience: Duration,
    count: &mut u64,
) -> Result<(), Gone> {
    while !data.is_empty() {
        writer.reserve_capacity(data.len());
        let room = timeout(patience, poll_fn(|cx| writer.poll_capacity(cx))).await;
        let Ok(Some(Ok(room))) = room else {
            return Err(Gone);
        };
        // Room that was given may have been taken back (RFC 9113 section 6.9.2).
        if room == 0 {
            continue;
        }
        let piece = data.split_to(room.min(data.len()));
        *count += piece.len() as u64;
        let is_last = ends && data.is_empty();
        writer.send_data(piece, is_last).map_err(|_| Gone)?;
        if is_last {
            return Ok(());
        }
    }
    match ends {
        true => writer.send_data(data, true).map_err(|_| Gone),
        false => Ok(()),
    }
}

/// Passes on a body that is not all there, as it comes.
pub(super) async fn pass_on(
    writer: SendStream<Bytes>,
    (asked, mut wire, mut body): (Asked, Wire, Body),
    patience: Duration,
    record: &mut Record,
    ending: Ending,
) -> Went {
    let mut client = Writing {
        writer,
        deadline: Deadline::default(),
    };
    let sent = &mut record.bytes_out;
    let broken = match transfer(&mut client, &asked, &mut wire, &mut body, patience, sent).await {
        Ok(()) => {
            ending.finish(asked, wire, clock::now());
            return Went::Whole { last: false };
        }
        Err(failure) => failure,
    };
    asked.broke_off(broken);
    // So that the client does not take what there is for all.
    client.writer.send_reset(Reason::INTERNAL_ERROR);
    Went::Broken(broken)
}

async fn transfer(
    client: &mut Writing,
    asked: &Asked,
    wire: &mut Wire,
    body: &mut Body,
    patience: Duration,
    sent: &mut u64,
) -> Result<(), Failure> {
    loop {
        let piece = wire.take(body)?;
        let ends = body.is_done();
        let trailers = wire.trailers.take();
        if ends || !piece.is_empty() {
            let is_last = ends && trailers.is_none();
            send(&mut client.writer, piece, is_last, patience, sent).await?;
        }
        if let Some(trailers) = trailers {
            let sent = client.writer.send_trailers(trailers);
            return sent.map_err(|_| Gone.into());
        }
        if ends {
            return Ok(());
        }
        wire.make_room();
        client.set_deadline(Some(clock::now() + asked.read_timeout()));
        match wire.more(client).await {
            Step::Done => {}
            Step::Ended => return Err(Failure::Reset),
            Step::Gone => return Err(Gone.into()),
            Step::Late => return Err(Failure::ReadTimeout),
        }
    }
}

/// A time that is waited for, with a timer from the first wait on.
#[derive(Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
        if let (Some(timer), Some(at)) = (&mut self.timer, at) {
            timer.as_mut().reset(at.into());
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        timer.as_mut().poll(cx)
    }
}

/// A stream whose client is watched while the next piece is waited for.
struct Writing {
    writer: SendStream<Bytes>,
    deadline: Deadline,
}

impl Client for Writing {
    fn poll_gone(&mut self, cx: &mut Context<'_>, _: usize) -> Poll<()> {
        self.writer.poll_reset(cx).map(|_| ())
    }

    fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll(cx)
    }
}
