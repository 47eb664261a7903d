//! Every reason for which a request is refused before it is understood.
//!
//! One enum for the guard, the chunk scanner and the normaliser, so that the
//! status, the metric label and the words for the client stand in one table.
//! It does not write a reply: the carrier does, and closes the connection.

use http::StatusCode;

/// Why a request is refused.
///
/// Whatever the reason, the connection must be closed after the reply: where
/// one message ends is no longer certain (RFC 9112 section 11.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.explanation())]
pub(crate) enum Reject {
    /// More than one empty line before the request line (RFC 9112 section 2.2).
    EmptyLine,
    /// The method is no token, is empty, or is longer than 32 octets (RFC 9110 section 9.1).
    BadMethod,
    /// CONNECT: this is no tunnel (RFC 9110 section 9.3.6).
    ConnectMethod,
    /// The target has a form or an octet that it must not have (RFC 9112 section 3.2).
    BadTarget,
    /// The target does not fit into the largest head that is accepted (RFC 9110 section 15.5.15).
    TargetTooLong,
    /// No `HTTP/x.y` where it belongs (RFC 9112 section 2.3).
    BadVersion,
    /// A version other than 1.0 and 1.1 (RFC 9110 section 15.6.6).
    UnsupportedVersion,
    /// A CR that no LF follows (RFC 9112 section 2.2).
    BareCr,
    /// An LF that no CR precedes (RFC 9112 section 2.2).
    BareLf,
    /// NUL or another control character (RFC 9110 section 5.5).
    ControlCharacter,
    /// A line that begins with white space (RFC 9112 section 5.2).
    ObsFold,
    /// White space between a field name and its colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A field name that is empty or no token (RFC 9110 section 5.1).
    BadFieldName,
    /// An HTTP/2 field value with white space around it (RFC 9113 section 8.2.1).
    BadFieldValue,
    /// The head is larger than configured (RFC 6585 section 5).
    HeadTooLarge,
    /// More fields than configured (RFC 6585 section 5).
    TooManyFields,
    /// No Host, and no authority in its place (RFC 9112 section 3.2).
    MissingHost,
    /// More than one Host line (RFC 9112 section 3.2).
    RepeatedHost,
    /// A Host or authority that names no host (RFC 9110 section 7.2).
    BadHost,
    /// Host and the authority of the target differ (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
    HostMismatch,
    /// More than one line of credentials (RFC 9110 sections 5.3 and 11.6.2).
    RepeatedAuthorization,
    /// Content-Length is no decimal number, is a list, or is too large (RFC 9110 section 8.6).
    BadContentLength,
    /// More than one Content-Length line (RFC 9110 section 8.6).
    RepeatedContentLength,
    /// Content-Length beside Transfer-Encoding (RFC 9112 section 6.3).
    ConflictingFraming,
    /// Transfer-Encoding is repeated, malformed, or `chunked` is not last (RFC 9112 section 6.1).
    BadTransferEncoding,
    /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
    UnknownTransferEncoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncodingInHttp10,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    UnknownExpectation,
    /// A field that speaks of the connection, in HTTP/2 or HTTP/3 (RFC 9113 section 8.2.2, RFC 9114
    /// section 4.2).
    ConnectionField,
    /// A pseudo-field that is missing, repeated, unknown, or behind another field, in HTTP/3
    /// (RFC 9114 section 4.3).
    PseudoField,
    /// A chunk size that is no hexadecimal number, or too large (RFC 9112 section 7.1).
    BadChunkSize,
    /// A chunk extension that is malformed or too long (RFC 9112 section 7.1.1).
    BadChunkExtension,
    /// Chunk data that no CRLF ends (RFC 9112 section 7.1).
    BadChunkEnd,
    /// A malformed line in the trailer section (RFC 9112 section 7.1.2).
    BadTrailer,
    /// A trailer section that is too large (RFC 6585 section 5).
    TrailerTooLarge,
    /// A `%` that two hexadecimal digits do not follow (RFC 3986 section 2.1).
    BadEscape,
    /// `%00` in the path.
    NulInPath,
    /// A `..` that leads above the root.
    PathAboveRoot,
    /// A dot segment that only another server would see (`..;x`, `..%2F`).
    HiddenDotSegment,
}

/// How a reason is told: status, metric label, words.
type Row = (u16, &'static str, &'static str);

impl Reject {
    /// Every reason.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 39] = [
        Self::EmptyLine,
        Self::BadMethod,
        Self::ConnectMethod,
        Self::BadTarget,
        Self::TargetTooLong,
        Self::BadVersion,
        Self::UnsupportedVersion,
        Self::BareCr,
        Self::BareLf,
        Self::ControlCharacter,
        Self::ObsFold,
        Self::SpaceBeforeColon,
        Self::BadFieldName,
        Self::BadFieldValue,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::MissingHost,
        Self::RepeatedHost,
        Self::BadHost,
        Self::HostMismatch,
        Self::RepeatedAuthorization,
        Self::BadContentLength,
        Self::RepeatedContentLength,
        Self::ConflictingFraming,
        Self::BadTransferEncoding,
        Self::UnknownTransferEncoding,
        Self::TransferEncodingInHttp10,
        Self::UnknownExpectation,
        Self::ConnectionField,
        Self::PseudoField,
        Self::BadChunkSize,
        Self::BadChunkExtension,
        Self::BadChunkEnd,
        Self::BadTrailer,
        Self::TrailerTooLarge,
        Self::BadEscape,
        Self::NulInPath,
        Self::PathAboveRoot,
        Self::HiddenDotSegment,
    ];

    /// The status of the reply: 400, 414, 417, 431, 501 or 505.
    #[must_use]
    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().0).unwrap_or(StatusCode::BAD_REQUEST)
    }

    /// The metric label: one of a fixed set, lower-case with underscores.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        self.row().1
    }

    /// One plain sentence without a line end, for the body of the reply.
    #[must_use]
    pub(crate) fn explanation(self) -> &'static str {
        self.row().2
    }

    #[rustfmt::skip]
    const fn row(self) -> Row {
        match self {
            Self::EmptyLine => (400, "empty_line", "Empty lines stand before the request line."),
            Self::BadMethod => (400, "bad_method", "The request method is malformed."),
            Self::ConnectMethod => (501, "connect_method", "CONNECT is not supported."),
            Self::BadTarget => (400, "bad_target", "The request target is malformed."),
            Self::TargetTooLong => (414, "target_too_long", "The request target is too long."),
            Self::BadVersion => (400, "bad_version", "The protocol version is malformed."),
            Self::UnsupportedVersion => (505, "unsupported_version", "This version of HTTP is not supported here."),
            Self::BareCr => (400, "bare_cr", "A carriage return stands without its line feed."),
            Self::BareLf => (400, "bare_lf", "A line feed stands without its carriage return."),
            Self::ControlCharacter => (400, "control_character", "A field value contains a control character."),
            Self::ObsFold => (400, "obs_fold", "A line of the head begins with white space."),
            Self::SpaceBeforeColon => (400, "space_before_colon", "White space stands before the colon of a field."),
            Self::BadFieldName => (400, "bad_field_name", "A field name is empty or malformed."),
            Self::BadFieldValue => (400, "bad_field_value", "A field value begins or ends with white space."),
            Self::HeadTooLarge => (431, "head_too_large", "The request head is too large."),
            Self::TooManyFields => (431, "too_many_fields", "The request has too many fields."),
            Self::MissingHost => (400, "missing_host", "The request names no host."),
            Self::RepeatedHost => (400, "repeated_host", "The request has more than one Host field."),
            Self::BadHost => (400, "bad_host", "The host of the request is malformed."),
            Self::HostMismatch => (400, "host_mismatch", "Host and the authority of the target differ."),
            Self::RepeatedAuthorization => (400, "repeated_authorization", "The request has more than one Authorization field."),
            Self::BadContentLength => (400, "bad_content_length", "Content-Length is not one decimal number."),
            Self::RepeatedContentLength => (400, "repeated_content_length", "The request has more than one Content-Length field."),
            Self::ConflictingFraming => (400, "conflicting_framing", "The request has both Content-Length and Transfer-Encoding."),
            Self::BadTransferEncoding => (400, "bad_transfer_encoding", "Transfer-Encoding is malformed."),
            Self::UnknownTransferEncoding => (501, "unknown_transfer_encoding", "This transfer coding is not supported."),
            Self::TransferEncodingInHttp10 => (400, "transfer_encoding_in_http10", "HTTP/1.0 has no Transfer-Encoding."),
            Self::UnknownExpectation => (417, "unknown_expectation", "This expectation cannot be met."),
            Self::ConnectionField => (400, "connection_field", "HTTP/2 and HTTP/3 have no fields about the connection."),
            Self::PseudoField => (400, "pseudo_field", "A pseudo-field is missing, repeated, unknown, or not in front."),
            Self::BadChunkSize => (400, "bad_chunk_size", "A chunk size is malformed."),
            Self::BadChunkExtension => (400, "bad_chunk_extension", "A chunk extension is malformed or too long."),
            Self::BadChunkEnd => (400, "bad_chunk_end", "A chunk is not as long as it says."),
            Self::BadTrailer => (400, "bad_trailer", "A trailer field is malformed."),
            Self::TrailerTooLarge => (431, "trailer_too_large", "The trailer section is too large."),
            Self::BadEscape => (400, "bad_escape", "A percent sign in the path stands without two hexadecimal digits."),
            Self::NulInPath => (400, "nul_in_path", "The path contains an encoded NUL."),
            Self::PathAboveRoot => (400, "path_above_root", "The path leads above the root."),
            Self::HiddenDotSegment => (400, "hidden_dot_segment", "The path hides a dot segment."),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Reject;

    #[test]
    fn every_reason_has_a_label_of_its_own_and_an_error_status() {
        let labels: HashSet<_> = Reject::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(labels.len(), Reject::ALL.len(), "two reasons share a label");
        for reject in Reject::ALL {
            let status = reject.status();
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{reject:?}"
            );
            assert_eq!(
                status.as_u16(),
                reject.row().0,
                "the table holds a real status"
            );
            assert!(
                reject
                    .as_str()
                    .bytes()
                    .all(|b| b == b'_' || b.is_ascii_alphanumeric())
            );
            assert!(reject.explanation().ends_with('.'));
        }
    }
}
