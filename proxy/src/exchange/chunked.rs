//! Finds the end of a chunked request body, and refuses what has two readings
//! (RFC 9112 section 7.1).
//!
//! The carrier shows it each octet that it hands on, so that a body never
//! takes a part of the next request with it, and a request never hides in an
//! ill-formed chunk. It changes nothing, and keeps nothing but the trailer section: it is a state
//! machine of a few words. Where the grammar allows a sender to be odd (white
//! space around a chunk extension, endless extensions), it does not.

use std::ops::Range;

use super::guard::Reject;
use super::guard::octets::{TOKEN, is};

/// Most hexadecimal digits of a chunk size, leading zeros included: sizes stay below 2^60.
const MAX_SIZE_DIGITS: u8 = 15;
/// Most octets of the extensions of one chunk.
pub(crate) const MAX_EXTENSION: usize = 256;
/// Most octets of the trailer section.
pub(crate) const MAX_TRAILER: usize = 8 * 1024;

/// How far a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Octets of the input that belong to the body; all of them unless `done`.
    pub(crate) consumed: usize,
    /// Whether the body ends there.
    pub(crate) done: bool,
}

/// The state between two reads.
#[derive(Debug, Clone)]
pub(crate) struct ChunkScanner {
    state: State,
    /// Octets of the present extensions, or of the trailer section.
    spent: usize,
    /// The lines of the trailer section as far as they were read.
    trailer: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    /// Directly behind `;`.
    ExtensionName {
        size: u64,
        any: bool,
    },
    /// Directly behind `=`.
    ExtensionValue {
        size: u64,
    },
    ExtensionToken {
        size: u64,
    },
    Quoted {
        size: u64,
    },
    QuotedPair {
        size: u64,
    },
    QuotedEnd {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(Reject),
}

impl Default for ChunkScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkScanner {
    /// Stands at the first octet of a body.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            spent: 0,
            trailer: Vec::new(),
        }
    }

    /// Stands within a chunk of which `left` octets of data are to come; before a chunk where it is 0.
    #[must_use]
    pub(crate) const fn within(left: u64) -> Self {
        let mut scanner = Self::new();
        if left > 0 {
            scanner.state = State::Data { left };
        }
        scanner
    }

    /// Octets of data that are to come of the chunk that it stands in.
    #[must_use]
    pub(crate) const fn left(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Looks at the next octets of the connection.
    ///
    /// Once the body is done, consumes nothing more.
    ///
    /// # Errors
    /// The first rule that is broken; from then on each call gives the same.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Progress, Reject> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let step = left.min((bytes.len() - at) as u64);
                    self.state = match left - step {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                    // At most what is left of `bytes`, which is a usize.
                    at += usize::try_from(step).unwrap_or(usize::MAX);
                }
                state => {
                    self.state = self.step(state, bytes[at]).unwrap_or_else(State::Failed);
                    if let State::Failed(reject) = self.state {
                        return Err(reject);
                    }
                    at += 1;
                }
            }
        }
        if let State::Failed(reject) = self.state {
            return Err(reject);
        }
        Ok(Progress {
            consumed: at,
            done: matches!(self.state, State::Done),
        })
    }

    /// The same, and the trailer section is kept for [`Self::take_trailer`].
    ///
    /// # Errors
    /// See [`Self::feed`].
    pub(crate) fn feed_all(&mut self, bytes: &[u8]) -> Result<Progress, Reject> {
        let progress = self.feed(bytes)?;
        // Where there is no trailer section, one octet of it is all: the empty line's CR.
        if self.spent > 1 || matches!(self.state, State::TrailerName) {
            self.keep(&bytes[..progress.consumed]);
        }
        Ok(progress)
    }

    /// Whether fields came behind the last chunk of a body that is done.
    #[must_use]
    pub(crate) fn has_trailers(&self) -> bool {
        // Of the section that is done; CR of the empty line is its last octet that counts.
        matches!(self.state, State::Done) && self.spent > 1
    }

    /// Whether it stands within a trailer, which may still be malformed.
    #[must_use]
    pub(crate) const fn is_in_trailers(&self) -> bool {
        matches!(
            self.state,
            State::TrailerName | State::TrailerValue | State::TrailerLf
        )
    }

    /// The lines of the trailer section behind a body that is done; empty where there are none.
    pub(crate) fn take_trailer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailer)
    }

    /// Takes the next octets up to the end of the first stretch of data in them, and says where in
    /// them that stands; empty where there is none.
    ///
    /// # Errors
    /// See [`Self::feed`].
    pub(crate) fn next_data(&mut self, bytes: &[u8]) -> Result<(Progress, Range<usize>), Reject> {
        let mut at = 0;
        while at < bytes.len() {
            if let State::Data { left } = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX);
                let end = at.saturating_add(here).min(bytes.len());
                let progress = self.feed(&bytes[at..end])?;
                let consumed = at + progress.consumed;
                return Ok((
                    Progress {
                        consumed,
                        done: false,
                    },
                    at..end,
                ));
            }
            let progress = self.feed_all(&bytes[at..=at])?;
            at += progress.consumed;
            if progress.done {
                break;
            }
        }
        let done = matches!(self.state, State::Done);
        Ok((Progress { consumed: at, done }, at..at))
    }

    /// The state behind `byte`, which is not chunk data.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Reject> {
        match state {
            State::Size { size, digits } => size_step(size, digits, byte),
            State::ExtensionName { size, .. }
            | State::ExtensionValue { size }
            | State::ExtensionToken { size }
            | State::Quoted { size }
            | State::QuotedPair { size }
            | State::QuotedEnd { size } => {
                self.spend(MAX_EXTENSION, Reject::BadChunkExtension)?;
                extension_step(state, size, byte)
            }
            State::SizeLf { size } => {
                expect(byte, b'\n', Reject::BareCr)?;
                self.spent = 0;
                Ok(if size == 0 {
                    State::TrailerStart
                } else {
                    State::Data { left: size }
                })
            }
            State::DataCr => {
                expect(byte, b'\r', Reject::BadChunkEnd)?;
                Ok(State::DataLf)
            }
            State::DataLf => {
                expect(byte, b'\n', Reject::BadChunkEnd)?;
                Ok(State::Size { size: 0, digits: 0 })
            }
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.spend(MAX_TRAILER, Reject::TrailerTooLarge)?;
                trailer_step(state, byte)
            }
            State::EndLf => {
                expect(byte, b'\n', Reject::BareCr)?;
                Ok(State::Done)
            }
            State::Data { .. } | State::Done | State::Failed(_) => Ok(state),
        }
    }

    /// Keeps those octets at the end of `bytes` that are of a trailer section's lines.
    #[cold]
    #[inline(never)]
    fn keep(&mut self, bytes: &[u8]) {
        // Octets of the lines so far, and of the empty line behind them.
        let (lines, empty_line) = match self.state {
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                (self.spent, 0)
            }
            State::EndLf => (self.spent - 1, 1),
            State::Done => (self.spent - 1, 2),
            _ => return,
        };
        let end = bytes.len().saturating_sub(empty_line);
        let new = lines.saturating_sub(self.trailer.len());
        self.trailer
            .extend_from_slice(&bytes[end.saturating_sub(new)..end]);
    }

    fn spend(&mut self, most: usize, reject: Reject) -> Result<(), Reject> {
        self.spent += 1;
        if self.spent > most {
            Err(reject)
        } else {
            Ok(())
        }
    }
}

fn expect(byte: u8, wanted: u8, reject: Reject) -> Result<(), Reject> {
    if byte == wanted { Ok(()) } else { Err(reject) }
}

/// `1*HEXDIG`, then `;` or CR.
fn size_step(size: u64, digits: u8, byte: u8) -> Result<State, Reject> {
    if let Some(digit) = (byte as char).to_digit(16) {
        if digits == MAX_SIZE_DIGITS {
            return Err(Reject::BadChunkSize);
        }
        return Ok(State::Size {
            size: size << 4 | u64::from(digit),
            digits: digits + 1,
        });
    }
    match byte {
        b'\n' => Err(Reject::BareLf),
        b';' if digits > 0 => Ok(State::ExtensionName { size, any: false }),
        b'\r' if digits > 0 => Ok(State::SizeLf { size }),
        _ => Err(Reject::BadChunkSize),
    }
}

/// `*( ";" token [ "=" ( token / quoted-string ) ] )` (RFC 9112 section 7.1.1),
/// without the "bad white space" that a sender must not make.
fn extension_step(state: State, size: u64, byte: u8) -> Result<State, Reject> {
    let token = is(byte, TOKEN);
    let next = match state {
        State::ExtensionName { .. } if token => State::ExtensionName { size, any: true },
        State::ExtensionName { any: true, .. } if byte == b'=' => State::ExtensionValue { size },
        State::ExtensionValue { .. } if byte == b'"' => State::Quoted { size },
        State::ExtensionValue { .. } | State::ExtensionToken { .. } if token => {
            State::ExtensionToken { size }
        }
        State::Quoted { .. } if byte == b'"' => State::QuotedEnd { size },
        State::Quoted { .. } if byte == b'\\' => State::QuotedPair { size },
        State::Quoted { .. } | State::QuotedPair { .. } if is_text(byte) => State::Quoted { size },
        State::ExtensionName { any: true, .. }
        | State::ExtensionToken { .. }
        | State::QuotedEnd { .. } => match byte {
            b';' => State::ExtensionName { size, any: false },
            b'\r' => State::SizeLf { size },
            _ => return Err(wrong(byte, Reject::BadChunkExtension)),
        },
        _ => return Err(wrong(byte, Reject::BadChunkExtension)),
    };
    Ok(next)
}

/// `*( field-line CRLF ) CRLF` (RFC 9112 section 7.1.2).
fn trailer_step(state: State, byte: u8) -> Result<State, Reject> {
    match (state, byte) {
        (State::TrailerStart, b'\r') => Ok(State::EndLf),
        (State::TrailerName, b':') => Ok(State::TrailerValue),
        (State::TrailerStart | State::TrailerName, _) if is(byte, TOKEN) => Ok(State::TrailerName),
        (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
        (State::TrailerValue, _) if is_text(byte) => Ok(State::TrailerValue),
        (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
        (State::TrailerLf, _) => Err(Reject::BareCr),
        _ => Err(wrong(byte, Reject::BadTrailer)),
    }
}

/// HTAB, SP, VCHAR and obs-text.
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

const fn wrong(byte: u8, otherwise: Reject) -> Reject {
    if byte == b'\n' {
        Reject::BareLf
    } else {
        otherwise
    }
}

#[cfg(test)]
mod tests;
