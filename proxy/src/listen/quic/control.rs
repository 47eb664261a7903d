//! The streams beside the requests (RFC 9114 section 6.2): settings, and the end of the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::tally::Ending;
use super::wire::code::Code;
use super::wire::frames::{
    CANCEL_PUSH, Event, Frames, GOAWAY, MAX_PUSH_ID, PRIORITY_UPDATE, PRIORITY_UPDATE_PUSH, Role,
    SETTINGS,
};
use super::wire::settings::{self, CONTROL_STREAM, DECODER_STREAM, ENCODER_STREAM, PUSH_STREAM};
use super::wire::{MOST_VARINT, varint};
use crate::exchange::priority::Wish;

/// Octets that are read at once.
const MOST_READ: usize = 4096;

/// What a stream of an unknown kind costs: it is opened, read, and stopped.
const UNKNOWN: i64 = 5;

/// Which of the streams that there may be one of are there.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicU8);

impl Seen {
    /// Whether this is the first of its kind.
    fn first(&self, kind: u64) -> bool {
        let bit = 1 << (kind & 7);
        self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Our control stream: begins with the settings, goes on with what comes from `messages`. It must
/// not end before the connection does (section 6.2.1). A client has to let the settings come (sections 6.2 and
/// 6.2.1), and has `patience` for that.
pub(super) async fn speak(
    connection: Connection,
    max_field_section_size: usize,
    patience: Duration,
    mut messages: mpsc::Receiver<BytesMut>,
) {
    let begun = async {
        let mut stream = connection.open_uni().await.ok()?;
        let greeting = settings::greeting(max_field_section_size);
        stream.write_all(&greeting).await.ok()?;
        Some(stream)
    };
    let mut stream = match timeout(patience, begun).await {
        Ok(Some(stream)) => stream,
        Ok(None) => return connection.close(Code::ClosedCriticalStream.into(), b""),
        Err(_) => return connection.close(Code::GeneralProtocol.into(), b""),
    };
    let mut next = messages.recv().await;
    while let Some(message) = next {
        if stream.write_all(&message).await.is_err() {
            connection.close(Code::ClosedCriticalStream.into(), b"");
            return;
        }
        next = messages.recv().await;
    }
    connection.closed().await;
}

/// Reads a stream that the client opened in one direction. What is wrong on it ends the connection.
pub(super) async fn listen(ending: Ending, stream: RecvStream, seen: Arc<Seen>) {
    let mut incoming = Incoming {
        stream,
        input: Bytes::new(),
        ending,
    };
    if let Err(code) = incoming.take(&seen).await {
        incoming.ending.end_connection(code);
    }
}

struct Incoming {
    stream: RecvStream,
    input: Bytes,
    ending: Ending,
}

impl Incoming {
    async fn take(&mut self, seen: &Seen) -> Result<(), Code> {
        let Some(kind) = self.kind().await else {
            // One that ends before it says what it is, is nothing (section 6.2), and costs as much as
            // one that nobody knows.
            self.ending.put(-UNKNOWN);
            return Ok(());
        };
        match kind {
            CONTROL_STREAM | ENCODER_STREAM | DECODER_STREAM if !seen.first(kind) => {
                Err(Code::StreamCreation)
            }
            CONTROL_STREAM => self.control().await,
            ENCODER_STREAM => self.encoder().await,
            DECODER_STREAM => self.decoder().await,
            PUSH_STREAM => Err(Code::StreamCreation),
            _ => {
                self.ending.put(-UNKNOWN);
                let _ = self.stream.stop(Code::StreamCreation.into());
                Ok(())
            }
        }
    }

    /// More octets; false at the end.
    async fn more(&mut self) -> bool {
        match self.stream.read_chunk(MOST_READ, true).await {
            Ok(Some(chunk)) => {
                self.input = chunk.bytes;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    async fn kind(&mut self) -> Option<u64> {
        let mut held = BytesMut::new();
        while held.len() < MOST_VARINT {
            if self.input.is_empty() && !self.more().await {
                return None;
            }
            held.extend_from_slice(&self.input.split_to(1));
            if let Some((kind, _)) = varint(&held) {
                return Some(kind);
            }
        }
        None
    }

    async fn control(&mut self) -> Result<(), Code> {
        let mut frames = Frames::new(Role::Control, 0);
        let mut told = Told::default();
        loop {
            let event = frames.next(&mut self.input)?;
            let idle = i64::from(frames.take_empty()) + i64::from(event.is_some());
            if idle > 0 {
                self.ending.put(-idle);
            }
            match event {
                Some(Event::Whole(kind, payload)) => {
                    told.take(kind, &payload)?;
                    if kind == PRIORITY_UPDATE {
                        let (id, octets) = varint(&payload).ok_or(Code::Frame)?;
                        let wish = Wish::read(&payload[octets..]);
                        self.ending.tally.ranks.update(id, wish)?;
                    }
                }
                Some(Event::Data(_)) => return Err(Code::FrameUnexpected),
                Some(Event::TooLarge(_)) => return Err(Code::ExcessiveLoad),
                None if self.more().await => {}
                // Section 6.2.1. Where the connection itself is gone, nothing is left to close.
                None => return Err(Code::ClosedCriticalStream),
            }
        }
    }

    /// Instructions for a table that has no room (RFC 9204 section 4.3).
    async fn encoder(&mut self) -> Result<(), Code> {
        const CAPACITY_OF_NONE: u8 = 0b0010_0000;
        loop {
            if self.input.iter().any(|octet| *octet != CAPACITY_OF_NONE) {
                return Err(Code::QpackEncoderStream);
            }
            self.ending.put(-cost(self.input.len()));
            if !self.more().await {
                return Err(Code::ClosedCriticalStream);
            }
        }
    }

    /// A client may say that it reads a stream no further (RFC 9204 section 4.4.2), and that means
    /// nothing here.
    async fn decoder(&mut self) -> Result<(), Code> {
        let mut cancellations = Cancellations::default();
        loop {
            let count = cancellations.read(&self.input)?;
            self.ending.put(-cost(count));
            if !self.more().await {
                return Err(Code::ClosedCriticalStream);
            }
        }
    }
}

fn cost(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The only instructions that there may be on a decoder stream, where no table is.
#[derive(Default)]
struct Cancellations {
    /// Octets of the one that has not all come.
    octets: usize,
}

impl Cancellations {
    /// How many begin in these octets.
    fn read(&mut self, octets: &[u8]) -> Result<usize, Code> {
        const KIND: u8 = 0b1100_0000;
        const CANCELLATION: u8 = 0b0100_0000;
        const PREFIX: u8 = 0b0011_1111;
        let mut count = 0;
        for &octet in octets {
            let goes_on = match self.octets {
                0 => {
                    // Acknowledgements of what was never sent (sections 4.4.1 and 4.4.3).
                    if octet & KIND != CANCELLATION {
                        return Err(Code::QpackDecoderStream);
                    }
                    count += 1;
                    octet & PREFIX == PREFIX
                }
                // A stream's id has 62 bits, seven in each octet (RFC 7541 section 5.1).
                1..10 => octet & 0x80 != 0,
                _ => return Err(Code::QpackDecoderStream),
            };
            self.octets = if goes_on { self.octets + 1 } else { 0 };
        }
        Ok(count)
    }
}

/// What a control stream said so far.
#[derive(Default)]
struct Told {
    settings: bool,
    /// The last GOAWAY.
    goaway: Option<u64>,
    max_push_id: u64,
}

impl Told {
    fn take(&mut self, kind: u64, payload: &[u8]) -> Result<(), Code> {
        match (kind, self.settings) {
            (SETTINGS, false) => {
                self.settings = true;
                settings::check(payload)
            }
            (SETTINGS, true) => Err(Code::FrameUnexpected),
            (_, false) => Err(Code::MissingSettings),
            (GOAWAY, true) => {
                let id = settings::number(payload)?;
                // It can only be taken back further (section 5.2).
                match self.goaway.replace(id).is_some_and(|before| before < id) {
                    true => Err(Code::Id),
                    false => Ok(()),
                }
            }
            (MAX_PUSH_ID, true) => {
                let id = settings::number(payload)?;
                match id < self.max_push_id {
                    true => Err(Code::Id),
                    false => {
                        self.max_push_id = id;
                        Ok(())
                    }
                }
            }
            (PRIORITY_UPDATE, true) => Ok(()),
            // Nothing was promised that could be cancelled (section 7.2.3), or come sooner (RFC 9218
            // section 7.2).
            (CANCEL_PUSH | PRIORITY_UPDATE_PUSH, true) => Err(Code::Id),
            (_, true) => Err(Code::FrameUnexpected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(frames: &[(u64, &[u8])]) -> Result<(), Code> {
        let mut told = Told::default();
        let mut all = frames.iter();
        all.try_for_each(|(kind, payload)| told.take(*kind, payload))
    }

    #[test]
    fn settings_come_first_and_once() {
        assert_eq!(told(&[(SETTINGS, &[]), (GOAWAY, &[0])]), Ok(()));
        assert_eq!(told(&[(GOAWAY, &[0])]), Err(Code::MissingSettings));
        let twice = [(SETTINGS, &[][..]), (SETTINGS, &[])];
        assert_eq!(told(&twice), Err(Code::FrameUnexpected));
    }

    #[test]
    fn a_decoder_stream_has_cancellations_and_nothing_else() {
        let mut cancellations = Cancellations::default();
        assert_eq!(cancellations.read(&[0x40, 0x44, 0x7f]), Ok(3));
        assert_eq!(cancellations.read(&[0x80, 0x01, 0x48]), Ok(1));
        for odd in [0x80, 0xff, 0x00, 0x01] {
            let read = Cancellations::default().read(&[0x44, odd]);
            assert_eq!(read, Err(Code::QpackDecoderStream), "{odd:#x}");
        }
        let endless = [&[0x7f][..], &[0x80; 20]].concat();
        let read = Cancellations::default().read(&endless);
        assert_eq!(read, Err(Code::QpackDecoderStream));
    }

    #[test]
    fn ids_go_one_way() {
        let said =
            |kind, first, second| told(&[(SETTINGS, &[]), (kind, &[first]), (kind, &[second])]);
        assert_eq!(said(GOAWAY, 8, 4), Ok(()));
        assert_eq!(said(GOAWAY, 4, 8), Err(Code::Id));
        assert_eq!(said(MAX_PUSH_ID, 4, 8), Ok(()));
        assert_eq!(said(MAX_PUSH_ID, 8, 4), Err(Code::Id));
        assert_eq!(said(CANCEL_PUSH, 0, 0), Err(Code::Id));
    }

    #[test]
    fn there_is_one_stream_of_each_kind() {
        let seen = Seen::default();
        for kind in [CONTROL_STREAM, ENCODER_STREAM, DECODER_STREAM] {
            assert!(seen.first(kind));
            assert!(!seen.first(kind));
        }
    }
}
