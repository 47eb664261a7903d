//! A reply's body on its way down a stream of HTTP/2, as the client makes room for it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::time::Sleep;

use super::flight::{Ending, InFlight, Went};
use super::wire::{Body, Client, Step};
use crate::carry::failure::{ClientFault, Failure};
use crate::clock;
use crate::listen::ConnInfo;
use crate::listen::room::{Gone, send};
use crate::observe::Record;

impl From<Gone> for Failure {
    fn from(Gone: Gone) -> Self {
        Self::Client(ClientFault::Gone)
    }
}

/// Passes on a body that is not all there, as it comes.
pub(super) async fn pass_on(
    writer: SendStream<Bytes>,
    (mut flight, mut body): (InFlight, Body),
    waits: (Duration, &ConnInfo),
    record: &mut Record,
    ending: Ending,
) -> Went {
    let mut client = Writing {
        writer,
        deadline: Deadline::default(),
    };
    let sent = &mut record.bytes_out;
    let broken = match transfer(&mut client, &mut flight, &mut body, waits, sent).await {
        Ok(()) => {
            ending.finish(flight, clock::now());
            return Went::Whole { last: false };
        }
        Err(failure) => failure,
    };
    flight.asked.broke_off(broken);
    // So that the client does not take what there is for all.
    client.writer.send_reset(Reason::INTERNAL_ERROR);
    Went::Broken(broken)
}

async fn transfer(
    client: &mut Writing,
    InFlight { asked, wire }: &mut InFlight,
    body: &mut Body,
    waits: (Duration, &ConnInfo),
    sent: &mut u64,
) -> Result<(), Failure> {
    loop {
        let piece = wire.take(body)?;
        let ends = body.is_done();
        let trailers = wire.trailers.take();
        if ends || !piece.is_empty() {
            let is_last = ends && trailers.is_none();
            send(&mut client.writer, piece, is_last, waits, sent).await?;
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
