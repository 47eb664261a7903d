//! Error codes of HTTP/3 (RFC 9114 section 8.1) and QPACK (RFC 9204 section 6).

use quinn::VarInt;

/// Why a stream or a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::listen::quic) enum Code {
    /// Nothing is wrong.
    None = 0x100,
    /// The peer does not do what it must, and no other code says so.
    GeneralProtocol = 0x101,
    /// This side failed.
    Internal = 0x102,
    /// A stream of a kind that there may be one of, or none.
    StreamCreation = 0x103,
    /// A stream was closed that the connection needs.
    ClosedCriticalStream = 0x104,
    /// A frame where it must not be.
    FrameUnexpected = 0x105,
    /// A frame that is malformed or cut.
    Frame = 0x106,
    /// The peer makes more work than it should.
    ExcessiveLoad = 0x107,
    /// A stream or push id that does not exist.
    Id = 0x108,
    /// A SETTINGS frame that contradicts itself.
    Settings = 0x109,
    /// No SETTINGS frame at the control stream's start.
    MissingSettings = 0x10a,
    /// The request was not processed; it can be sent again.
    RequestRejected = 0x10b,
    /// The request or its reply is given up.
    RequestCancelled = 0x10c,
    /// The stream ended before the request did.
    RequestIncomplete = 0x10d,
    /// The request is malformed.
    Message = 0x10e,
    /// A field section that cannot be read.
    QpackDecompression = 0x200,
    /// An instruction for a table that there is none of.
    QpackEncoderStream = 0x201,
    /// An acknowledgement of what was never sent.
    QpackDecoderStream = 0x202,
}

impl From<Code> for VarInt {
    fn from(code: Code) -> Self {
        Self::from_u32(code as u32)
    }
}
