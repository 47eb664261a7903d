//! The account of one request: opened when its head is there, closed when its
//! reply is out or given up.
//!
//! Every carrier of a request goes through these two, so that log and metrics
//! say the same of all.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{self, HeaderName, HeaderValue};

use crate::clock;
use crate::exchange;
use crate::exchange::head::HeadView;
use crate::listen::{ConnInfo, ListenerSettings, ListenerState, NO_PLACE};
use crate::observe::{Captured, Protocol, Record, Text};
use crate::snapshot::Snapshot;

/// What is known of a request before anything is decided.
pub(super) struct Arrival<'a> {
    pub(super) info: &'a ConnInfo,
    pub(super) settings: &'a ListenerSettings,
    pub(super) head: &'a dyn HeadView,
    pub(super) protocol: Protocol,
    /// `:authority` of HTTP/2; Host where there is none.
    pub(super) authority: Option<&'a str>,
    /// As it came.
    pub(super) target: &'a [u8],
    pub(super) start: Instant,
    pub(super) wall: SystemTime,
}

/// Counts a request as begun. Whoever opens closes.
pub(super) fn open(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Record {
    arrival.settings.metrics.request_begins();
    prepare(snapshot, arrival)
}

/// The record of a request that does not count as begun yet.
pub(super) fn prepare(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Record {
    let Arrival { info, settings, .. } = arrival;
    let mut record = Record::new(
        arrival.start,
        arrival.wall,
        crate::random::id(),
        place(snapshot, info),
        exchange::client::address(
            info.peer.ip(),
            arrival.head,
            &snapshot.config.server.trusted_proxies,
        ),
    );
    record.tls = info.tls;
    record.protocol = arrival.protocol;
    if settings.access_log && snapshot.access.is_some() {
        record.captured = capture(arrival);
        record.via = info.via.clone();
        record.client_cert = info.client_cert.clone();
    }
    record
}

/// Counts and logs a request that is over; when that was.
pub(super) fn close(
    record: &mut Record,
    snapshot: &Snapshot,
    settings: &ListenerSettings,
) -> Instant {
    let now = clock::now();
    record.end(now);
    settings.metrics.request_ends();
    snapshot.table.finish(record);
    if let Some(log) = snapshot.access.as_ref().filter(|_| settings.access_log) {
        log.write(record, snapshot.table.names());
    }
    now
}

/// The listener's place in this very snapshot: its own settings may be of another by now.
pub(super) fn place(snapshot: &Snapshot, info: &ConnInfo) -> u16 {
    place_of(snapshot, &info.listener)
}

/// The same for a connection of which nothing else is known.
pub(super) fn place_of(snapshot: &Snapshot, listener: &Arc<ListenerState>) -> u16 {
    let place = snapshot
        .listeners
        .iter()
        .position(|other| Arc::ptr_eq(other, listener));
    place.map_or(NO_PLACE, |place| u16::try_from(place).unwrap_or(NO_PLACE))
}

fn capture(arrival: &Arrival<'_>) -> Captured {
    let head = arrival.head;
    let field = |name: &HeaderName| head.field(name).unwrap_or_default();
    Captured::new(Text {
        method: head.method().as_str().as_bytes(),
        host: match arrival.authority {
            Some(authority) => authority.as_bytes(),
            None => field(&header::HOST),
        },
        target: arrival.target,
        user_agent: field(&header::USER_AGENT),
        referer: field(&header::REFERER),
    })
}

/// A request's id as it is sent.
pub(super) fn id_digits(id: u128) -> [u8; 32] {
    static PAIRS: [[u8; 2]; 256] = pairs();
    let mut digits = [0; 32];
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(id.to_be_bytes()) {
        *pair = PAIRS[usize::from(byte)];
    }
    digits
}

const fn pairs() -> [[u8; 2]; 256] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
}

/// The same as a field's value.
pub(super) fn id_value(id: u128) -> HeaderValue {
    HeaderValue::from_bytes(&id_digits(id)).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_32_digits() {
        for id in [0, 1, 0xabc << 100, u128::MAX, crate::random::id()] {
            assert_eq!(id_digits(id), *format!("{id:032x}").as_bytes());
        }
    }
}
