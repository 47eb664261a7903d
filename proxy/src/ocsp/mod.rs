//! OCSP stapling: with a certificate, handshakes carry the newest word of its authority that it is
//! not revoked (RFC 6960; the extension `status_request`, RFC 6066 section 8).
//!
//! [`Staple`] belongs to one certificate. A task of the control thread ([`keep`]) asks the responder
//! that the certificate names, verifies what it says ([`response`]) and puts it there; handshakes
//! only look. When it is asked again is decided without I/O in [`schedule`]. What is not there: a
//! nonce, because authorities sign their answers ahead; responders over https; signatures with
//! SHA-1.

mod fetch;
mod keeper;
mod question;
mod response;
mod schedule;
mod staple;

pub(crate) use keeper::keep;
pub(crate) use staple::{Outcome, Response, Staple};
