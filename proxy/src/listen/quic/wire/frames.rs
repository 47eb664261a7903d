//! Frames out of the octets of a stream, as they come.
//!
//! DATA is handed on as it is, in the pieces that came; a frame that is needed whole is collected
//! up to a bound; frames of unknown types are skipped without being held (RFC 9114 section 9).

use bytes::{Buf, Bytes, BytesMut};

use super::code::Code;
use super::{MOST_VARINT, put_varint, varint};

pub(in crate::listen::quic) const DATA: u64 = 0x0;
pub(in crate::listen::quic) const HEADERS: u64 = 0x1;
pub(in crate::listen::quic) const CANCEL_PUSH: u64 = 0x3;
pub(in crate::listen::quic) const SETTINGS: u64 = 0x4;
pub(in crate::listen::quic) const PUSH_PROMISE: u64 = 0x5;
pub(in crate::listen::quic) const GOAWAY: u64 = 0x7;
pub(in crate::listen::quic) const MAX_PUSH_ID: u64 = 0xd;
/// For a request's stream, and for a push (RFC 9218 section 7.2).
pub(in crate::listen::quic) const PRIORITY_UPDATE: u64 = 0xf0700;
pub(in crate::listen::quic) const PRIORITY_UPDATE_PUSH: u64 = 0xf0701;

/// Octets of one frame of the control stream.
const MOST_CONTROL: usize = 4096;

/// What a stream is for: which frames there may be on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::listen::quic) enum Role {
    /// Of a request and its reply.
    Request,
    /// The client's control stream.
    Control,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::listen::quic) enum Event {
    /// A piece of a DATA frame, never empty.
    Data(Bytes),
    /// A whole frame of another type.
    Whole(u64, Bytes),
    /// A frame that is longer than it may be. The stream cannot be read any further.
    TooLarge(u64),
}

/// See the module's text.
#[derive(Debug)]
pub(in crate::listen::quic) struct Frames {
    role: Role,
    /// Octets that a HEADERS frame may have.
    most: usize,
    state: State,
    /// Frames that carried nothing.
    empty: u32,
}

#[derive(Debug)]
enum State {
    /// Type and length are not there yet.
    Header(BytesMut),
    Data(u64),
    Whole {
        kind: u64,
        left: usize,
        held: BytesMut,
    },
    Skip(u64),
}

impl State {
    fn start() -> Self {
        Self::Header(BytesMut::new())
    }
}

impl Frames {
    /// `most`: octets that a HEADERS frame may have.
    pub(in crate::listen::quic) fn new(role: Role, most: usize) -> Self {
        Self {
            role,
            most,
            state: State::start(),
            empty: 0,
        }
    }

    /// How many frames carried nothing since this was asked: unknown ones, and pieces without octets.
    pub(in crate::listen::quic) fn take_empty(&mut self) -> u32 {
        std::mem::take(&mut self.empty)
    }

    /// Takes octets off `input` until there is something to say; `None`: more are needed.
    ///
    /// # Errors
    /// A connection error: the frame must not be here.
    pub(in crate::listen::quic) fn next(
        &mut self,
        input: &mut Bytes,
    ) -> Result<Option<Event>, Code> {
        loop {
            match &mut self.state {
                State::Header(held) => {
                    let Some((kind, length)) = header(held, input) else {
                        return Ok(None);
                    };
                    if let Some(event) = self.begin(kind, length)? {
                        return Ok(Some(event));
                    }
                }
                State::Data(0) | State::Skip(0) => self.state = State::start(),
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let piece = input.split_to(part(*left, input.len()));
                    *left -= piece.len() as u64;
                    return Ok(Some(Event::Data(piece)));
                }
                State::Skip(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let skipped = part(*left, input.len());
                    input.advance(skipped);
                    *left -= skipped as u64;
                }
                State::Whole { kind, left, held } => {
                    let kind = *kind;
                    let piece = input.split_to((*left).min(input.len()));
                    *left -= piece.len();
                    let whole = match (*left, held.is_empty()) {
                        (0, true) => piece,
                        (0, false) => {
                            held.extend_from_slice(&piece);
                            std::mem::take(held).freeze()
                        }
                        _ => {
                            held.extend_from_slice(&piece);
                            return Ok(None);
                        }
                    };
                    self.state = State::start();
                    return Ok(Some(Event::Whole(kind, whole)));
                }
            }
        }
    }

    /// Whether the stream may end here: no frame is begun.
    pub(in crate::listen::quic) fn is_between(&self) -> bool {
        match &self.state {
            State::Header(held) => held.is_empty(),
            State::Data(left) | State::Skip(left) => *left == 0,
            State::Whole { .. } => false,
        }
    }

    fn begin(&mut self, kind: u64, length: u64) -> Result<Option<Event>, Code> {
        let most = match (self.role, kind) {
            // Frames of HTTP/2 that HTTP/3 has no use for (RFC 9114 section 7.2.8).
            (_, 0x2 | 0x6 | 0x8 | 0x9) => return Err(Code::FrameUnexpected),
            (Role::Request, DATA) => {
                self.empty += u32::from(length == 0);
                self.state = State::Data(length);
                return Ok(None);
            }
            (Role::Request, HEADERS) => self.most,
            (
                Role::Control,
                CANCEL_PUSH | SETTINGS | GOAWAY | MAX_PUSH_ID | PRIORITY_UPDATE
                | PRIORITY_UPDATE_PUSH,
            ) => MOST_CONTROL,
            // Only a server may promise (section 7.2.5); each other frame has one place.
            (
                _,
                DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID
                | PRIORITY_UPDATE | PRIORITY_UPDATE_PUSH,
            ) => return Err(Code::FrameUnexpected),
            _ => {
                self.empty += 1;
                self.state = State::Skip(length);
                return Ok(None);
            }
        };
        match usize::try_from(length) {
            Ok(left) if left <= most => {
                let held = BytesMut::new();
                self.state = State::Whole { kind, left, held };
                Ok(None)
            }
            _ => Ok(Some(Event::TooLarge(kind))),
        }
    }
}

/// Octets that are taken where `left` are wanted and `there` are.
fn part(left: u64, there: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(there)
}

/// Type and length. What is there of them is taken off `input` and held.
fn header(held: &mut BytesMut, input: &mut Bytes) -> Option<(u64, u64)> {
    if held.is_empty()
        && let Some((kind, length, octets)) = two(input)
    {
        input.advance(octets);
        return Some((kind, length));
    }
    while held.len() < 2 * MOST_VARINT && !input.is_empty() {
        held.extend_from_slice(&input.split_to(1));
        if let Some((kind, length, _)) = two(held) {
            held.clear();
            return Some((kind, length));
        }
    }
    None
}

fn two(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, first) = varint(bytes)?;
    let (length, second) = varint(bytes.get(first..)?)?;
    Some((kind, length, first + second))
}

/// Writes a frame's type and length.
pub(in crate::listen::quic) fn put_header(out: &mut BytesMut, kind: u64, length: usize) {
    put_varint(out, kind);
    put_varint(out, length as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_header(&mut out, kind, payload.len());
        out.extend_from_slice(payload);
        out.to_vec()
    }

    /// Every event, pieces of data joined, of octets that come `step` at a time.
    fn read(role: Role, bytes: &[u8], step: usize) -> Result<Vec<Event>, Code> {
        let mut frames = Frames::new(role, 64);
        let mut events: Vec<Event> = Vec::new();
        for piece in bytes.chunks(step) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(event) = frames.next(&mut input)? {
                match (events.last_mut(), event) {
                    (_, event @ Event::TooLarge(_)) => {
                        events.push(event);
                        return Ok(events);
                    }
                    (Some(Event::Data(before)), Event::Data(piece)) => {
                        *before = [before.as_ref(), piece.as_ref()].concat().into();
                    }
                    (_, event) => events.push(event),
                }
            }
        }
        Ok(events)
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_come(step in 1_usize..40, head in 0_usize..64, body in 1_usize..300) {
            let mut bytes = frame(HEADERS, &vec![1; head]);
            bytes.extend(frame(0x21, &[9; 70]));
            bytes.extend(frame(DATA, &vec![2; body]));
            bytes.extend(frame(DATA, b""));
            bytes.extend(frame(HEADERS, b"end"));
            let events = read(Role::Request, &bytes, step).unwrap();
            prop_assert_eq!(events, vec![
                Event::Whole(HEADERS, vec![1; head].into()),
                Event::Data(vec![2; body].into()),
                Event::Whole(HEADERS, Bytes::from_static(b"end")),
            ]);
        }

        #[test]
        fn no_octets_make_it_panic_or_hold_more_than_it_may(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for role in [Role::Request, Role::Control] {
                let _ = read(role, &bytes, 7);
            }
        }
    }

    #[test]
    fn a_head_that_is_too_long_is_told_before_it_is_there() {
        let mut out = BytesMut::new();
        put_header(&mut out, HEADERS, 1 << 29);
        let events = read(Role::Request, &out, 1).unwrap();
        assert_eq!(events, [Event::TooLarge(HEADERS)]);
        let huge = frame(SETTINGS, &[0; MOST_CONTROL + 1]);
        let events = read(Role::Control, &huge, 9000).unwrap();
        assert_eq!(events, [Event::TooLarge(SETTINGS)]);
    }

    #[test]
    fn each_frame_has_its_place() {
        for kind in [
            2,
            6,
            8,
            9,
            SETTINGS,
            GOAWAY,
            MAX_PUSH_ID,
            CANCEL_PUSH,
            PUSH_PROMISE,
        ] {
            let read = read(Role::Request, &frame(kind, b"\0"), 8);
            assert_eq!(read, Err(Code::FrameUnexpected), "{kind:#x}");
        }
        for kind in [2, 6, 8, 9, DATA, HEADERS, PUSH_PROMISE] {
            let read = read(Role::Control, &frame(kind, b"\0"), 8);
            assert_eq!(read, Err(Code::FrameUnexpected), "{kind:#x}");
        }
    }

    #[test]
    fn an_end_within_a_frame_is_noticed() {
        let mut frames = Frames::new(Role::Request, 64);
        assert!(frames.is_between());
        for (octets, between) in [
            (&[0x00][..], false),
            (&[0x02], false),
            (&[7], false),
            (&[7], true),
            (&[0x01, 0x01], false),
            (&[7], true),
            (&[0x21, 0x00], true),
        ] {
            let mut input = Bytes::copy_from_slice(octets);
            while frames.next(&mut input).unwrap().is_some() {}
            assert_eq!(frames.is_between(), between, "after {octets:?}");
        }
    }
}
