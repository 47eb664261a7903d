//! The chunks of a client as chunks of our own, piece by piece (RFC 9112 section 7.1).
//!
//! Somebody else may have to go on with the rest of the body, and knows nothing of what went before. So
//! what is taken ends where the rest is a body, too: between two chunks, or within the data of
//! one, whose rest then gets a size line of its own ([`Rechunk::size_of_the_rest`]). In both places the
//! scanner that guards the other way knows no more than how much of the chunk is left, so it judges the
//! rest as it would have judged the whole.
//!
//! Therefore nothing is taken of a size line before its chunk's data is there, and the last octet of a chunk
//! only with the CRLF behind it: no chunk without data could stand before that CRLF. What is
//! malformed, more than is allowed, or followed by trailers is not taken at all. Extensions end here
//! (section 7.1.1).

use super::chunked::ChunkScanner;

/// Most octets that are looked at for one piece: as many as are read at once.
const MOST: usize = 48 * 1024;

/// Octets of the longest [`chunk_head`].
pub(crate) const CHUNK_HEAD: usize = 18;

const CRLF: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How far a body was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rechunk {
    /// Octets of data that are left of the chunk that what was taken ends in.
    left: u64,
    /// Octets of data that may still come.
    room: u64,
    is_done: bool,
}

/// What came of the octets that were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A chunk of them.
    Taken {
        /// So many of them are in it.
        octets: usize,
        /// And so many are data.
        data: usize,
        /// Where the chunk begins in what was written.
        start: usize,
    },
    /// There is nothing to take before more is there. `held`: but for an octet of data.
    None { held: bool },
    /// They are malformed, too many, or followed by trailers.
    Other,
}

impl Rechunk {
    /// Of a body from its start, with at most `room` octets of data.
    pub(crate) fn new(room: u64) -> Self {
        Self {
            left: 0,
            room,
            is_done: false,
        }
    }

    /// The whole body was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// What has to stand before the octets that were not taken, so that they are a body.
    pub(crate) fn size_of_the_rest(self, room: &mut [u8; CHUNK_HEAD]) -> &[u8] {
        match self.left {
            0 => &[],
            left => chunk_head(left, room),
        }
    }

    /// Makes a chunk of what there is in `bytes`, which begin where it stopped before. The
    /// last one has the end of the body behind it. `out` holds nothing else.
    pub(crate) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Piece {
        let bytes = &bytes[..bytes.len().min(MOST)];
        out.clear();
        // No more than that: it is held while the endpoint takes nothing.
        out.reserve_exact(CHUNK_HEAD + bytes.len() + CRLF.len() + LAST_CHUNK.len());
        out.extend_from_slice(&[0; CHUNK_HEAD]);
        let mut scanner = ChunkScanner::within(self.left);
        let mut at = 0;
        let mut octets = 0;
        let rest = loop {
            let Ok((progress, data)) = scanner.next_data(&bytes[at..]) else {
                break Piece::Other;
            };
            let data = &bytes[at..][data];
            at += progress.consumed;
            if progress.done {
                if scanner.has_trailers() {
                    break Piece::Other;
                }
                (octets, self.left, self.is_done) = (at, 0, true);
                break Piece::None { held: false };
            }
            let Some((_, but_last)) = data.split_last() else {
                break match scanner.is_in_trailers() {
                    // All of it is looked at anew each time: they are not waited for.
                    true => Piece::Other,
                    false => Piece::None { held: false },
                };
            };
            if data.len() as u64 > self.room {
                break Piece::Other;
            }
            let left = scanner.left();
            let ends = left == 0;
            let data = match ends {
                true if !bytes[at..].starts_with(CRLF) => but_last,
                _ => data,
            };
            if !data.is_empty() {
                out.extend_from_slice(data);
                self.room -= data.len() as u64;
            }
            match (
                ends,
                scanner.feed(&bytes[at..bytes.len().min(at + CRLF.len())]),
            ) {
                (false, _) => (octets, self.left) = (at, left),
                (true, Ok(progress)) if progress.consumed == CRLF.len() => {
                    at += progress.consumed;
                    (octets, self.left) = (at, 0);
                }
                (true, came) => {
                    if !data.is_empty() {
                        (octets, self.left) = (at - 1, 1);
                    }
                    break came.map_or(Piece::Other, |_| Piece::None { held: true });
                }
            }
        };
        self.frame(octets, out).unwrap_or(rest)
    }

    /// Makes a chunk of the data in `out`, which has room for its head.
    fn frame(self, octets: usize, out: &mut Vec<u8>) -> Option<Piece> {
        let data = out.len() - CHUNK_HEAD;
        let mut start = CHUNK_HEAD;
        if data > 0 {
            let mut room = [0; CHUNK_HEAD];
            let head = chunk_head(data as u64, &mut room);
            start -= head.len();
            out[start..CHUNK_HEAD].copy_from_slice(head);
            out.extend_from_slice(CRLF);
        }
        if self.is_done {
            out.extend_from_slice(LAST_CHUNK);
        }
        let taken = Piece::Taken {
            octets,
            data,
            start,
        };
        (octets > 0).then_some(taken)
    }
}

/// `size CRLF` of a chunk.
pub(crate) fn chunk_head(size: u64, room: &mut [u8; CHUNK_HEAD]) -> &[u8] {
    let mut at = CHUNK_HEAD - CRLF.len();
    room[at..].copy_from_slice(CRLF);
    let mut left = size;
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[(left & 15) as usize];
        left >>= 4;
        if left == 0 {
            return &room[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::guard::Reject;

    /// Data and verdict of a body; `None`: it is not whole.
    fn read(body: &[u8]) -> (Vec<u8>, Option<Result<usize, Reject>>) {
        let mut scanner = ChunkScanner::new();
        let (mut at, mut data) = (0, Vec::new());
        loop {
            match scanner.next_data(&body[at..]) {
                Err(reject) => return (data, Some(Err(reject))),
                Ok((progress, stretch)) => {
                    data.extend_from_slice(&body[at..][stretch]);
                    at += progress.consumed;
                    match progress.done {
                        true => return (data, Some(Ok(at))),
                        false if at == body.len() => return (data, None),
                        false => {}
                    }
                }
            }
        }
    }

    /// What of `body`, which comes in pieces of `sizes`, is taken as long as it is; and the body that
    /// is left.
    fn taken(body: &[u8], sizes: &[usize], most: u64) -> (Vec<u8>, Vec<u8>, Rechunk, Piece) {
        let mut rechunk = Rechunk::new(most);
        let (mut up, mut out) = (Vec::new(), Vec::new());
        let (mut at, mut there) = (0, 0);
        let mut sizes = sizes.iter().cycle();
        let last = loop {
            let before = up.len();
            let piece = rechunk.take(&body[at..there], &mut out);
            let held = match piece {
                Piece::Taken {
                    octets,
                    data,
                    start,
                } => {
                    at += octets;
                    up.extend_from_slice(&out[start..]);
                    let (got, _) = read(&up[before..]);
                    assert_eq!(got.len(), data);
                    assert!(octets > 0);
                    false
                }
                Piece::None { held } => held,
                Piece::Other => break piece,
            };
            // Wherever somebody else goes on, both parts are the whole.
            let rest = rest(&rechunk, &body[at..]);
            let (mut whole, verdict) = read(&up);
            if rechunk.is_done() {
                assert_eq!(verdict, Some(Ok(up.len())));
            } else {
                assert_eq!(verdict, None);
                assert!(up.is_empty() || up.ends_with(CRLF));
                whole.extend(read(&rest).0);
            }
            assert_eq!(whole, read(body).0);
            // No more than an octet waits here.
            let ahead = rest.len() - (body.len() - there);
            let (waiting, _) = read(&rest[..ahead]);
            if matches!(piece, Piece::None { .. }) && !rechunk.is_done() {
                assert_eq!(waiting.len(), usize::from(held), "{body:?} to {there}");
            }
            if rechunk.is_done() || (there == body.len() && matches!(piece, Piece::None { .. })) {
                break piece;
            }
            if matches!(piece, Piece::None { .. }) {
                there = body.len().min(there + sizes.next().copied().unwrap_or(1));
            }
        };
        (up, rest(&rechunk, &body[at..]), rechunk, last)
    }

    fn rest(rechunk: &Rechunk, left: &[u8]) -> Vec<u8> {
        let room = &mut [0; CHUNK_HEAD];
        [rechunk.size_of_the_rest(room), left].concat()
    }

    #[test]
    fn a_chunk_head_is_its_size_in_hexadecimal() {
        for size in [0, 1, 15, 16, 65_536, u64::MAX] {
            let mut room = [0; CHUNK_HEAD];
            let wanted = format!("{size:x}\r\n");
            assert_eq!(chunk_head(size, &mut room), wanted.as_bytes());
        }
    }

    #[test]
    fn a_whole_body_is_one_chunk_and_what_follows_it_stays() {
        let body = b"3\r\nabc\r\n00A;x=y\r\n0123456789\r\n0;z\r\n\r\nGET /";
        let mut rechunk = Rechunk::new(13);
        let mut out = Vec::new();
        let piece = rechunk.take(body, &mut out);
        let Piece::Taken {
            octets,
            data: 13,
            start,
        } = piece
        else {
            panic!("{piece:?}");
        };
        assert_eq!(&out[start..], b"d\r\nabc0123456789\r\n0\r\n\r\n");
        assert_eq!(&body[octets..], b"GET /");
        assert!(rechunk.is_done());
    }

    #[test]
    fn a_body_without_data_is_its_end() {
        let (up, _, rechunk, _) = taken(b"0\r\n\r\n", &[1], 0);
        assert_eq!(up, b"0\r\n\r\n");
        assert!(rechunk.is_done());
    }

    #[test]
    fn the_rest_of_a_chunk_gets_a_size_and_its_last_octet_waits_for_its_end() {
        let mut rechunk = Rechunk::new(100);
        let mut out = Vec::new();
        let mut take = |bytes: &[u8]| {
            let piece = rechunk.take(bytes, &mut out);
            let made = match piece {
                Piece::Taken { start, .. } => out[start..].to_vec(),
                _ => Vec::new(),
            };
            let rest = rest(&rechunk, b"");
            (piece, made, rest)
        };
        let of = |octets, data, head: usize| Piece::Taken {
            octets,
            data,
            start: CHUNK_HEAD - head,
        };
        assert_eq!(take(b"14").0, Piece::None { held: false });
        assert_eq!(take(b"14\r\n").0, Piece::None { held: false });
        let (piece, made, rest) = take(b"14\r\nabc");
        assert_eq!((piece, &made[..]), (of(7, 3, 3), &b"3\r\nabc\r\n"[..]));
        assert_eq!(rest, b"11\r\n");
        let (piece, made, rest) = take(b"defghijklmnopqrst\r");
        assert_eq!(piece, of(16, 16, 4));
        assert_eq!(made, b"10\r\ndefghijklmnopqrs\r\n");
        assert_eq!(rest, b"1\r\n");
        assert_eq!(take(b"t\r").0, Piece::None { held: true });
        let (piece, made, rest) = take(b"t\r\n1\r\nu");
        assert_eq!((piece, &made[..]), (of(3, 1, 3), &b"1\r\nt\r\n"[..]));
        assert_eq!(rest, b"");
        assert_eq!(take(b"1\r\nu").0, Piece::None { held: true });
        assert_eq!(take(b"1\r\nux").0, Piece::Other);
    }

    #[test]
    fn more_than_is_allowed_and_trailers_are_left() {
        let (up, rest, _, last) = taken(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", &[1], 5);
        assert_eq!(read(&up).0, b"abcde");
        assert_eq!(rest, b"1\r\nf\r\n0\r\n\r\n");
        assert_eq!(last, Piece::Other);
        let (up, rest, _, last) = taken(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", &[100], 5);
        assert_eq!(read(&up).0, b"abc");
        assert_eq!(rest, b"3\r\ndef\r\n0\r\n\r\n");
        assert_eq!(last, Piece::Other);
        let (up, rest, _, last) = taken(b"3\r\nabc\r\n0\r\nX: y\r\n\r\n", &[1], 5);
        assert_eq!(read(&up).0, b"abc");
        assert_eq!(rest, b"0\r\nX: y\r\n\r\n");
        assert_eq!(last, Piece::Other);
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let chunk = (
            proptest::collection::vec(any::<u8>(), 1..40),
            "(;[a-z]{1,4}(=[a-z]{1,4})?){0,2}",
        );
        let end = prop_oneof![
            Just("0\r\n\r\n"),
            Just("0\r\nx: y\r\n\r\n"),
            Just("g\r\n"),
            Just("1\r\nab\r\n"),
            Just("")
        ];
        let chunks = proptest::collection::vec(chunk, 0..6);
        (chunks, end, "[ -~]{0,10}").prop_map(|(chunks, end, behind)| {
            let mut bytes = Vec::new();
            for (data, extension) in chunks {
                bytes.extend_from_slice(format!("{:X}{extension}\r\n", data.len()).as_bytes());
                bytes.extend_from_slice(&data);
                bytes.extend_from_slice(CRLF);
            }
            bytes.extend_from_slice(end.as_bytes());
            bytes.extend_from_slice(behind.as_bytes());
            bytes
        })
    }

    proptest! {
        #[test]
        fn both_parts_are_the_whole_wherever_somebody_else_goes_on(
            body in body(),
            sizes in proptest::collection::vec(1_usize..20, 1..5),
            most in 0_u64..120,
        ) {
            let (up, rest, rechunk, _) = taken(&body, &sizes, most);
            let (data, verdict) = read(&body);
            let (mut whole, _) = read(&up);
            prop_assert!(whole.len() as u64 <= most);
            match rechunk.is_done() {
                true => prop_assert!(matches!(verdict, Some(Ok(_)))),
                false => {
                    let (behind, judged) = read(&rest);
                    whole.extend(behind);
                    // The same, but for where it ends.
                    prop_assert_eq!(
                        judged.map(|judged| judged.map(|_| ())),
                        verdict.map(|verdict| verdict.map(|_| ()))
                    );
                }
            }
            prop_assert_eq!(whole, data);
        }

        #[test]
        fn any_octets_are_judged_as_if_nothing_had_been_taken(
            body in "[0-3a;=\" x:\\r\\n\u{e4}\\t]{0,60}",
            sizes in proptest::collection::vec(1_usize..20, 1..5),
        ) {
            let (_, rest, rechunk, _) = taken(body.as_bytes(), &sizes, u64::MAX);
            if !rechunk.is_done() {
                let judged = |bytes: &[u8]| read(bytes).1.map(|verdict| verdict.map(|_| ()));
                prop_assert_eq!(judged(&rest), judged(body.as_bytes()));
            }
        }
    }
}
