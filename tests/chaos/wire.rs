//! What the load, the nodes and the judge agree on: the bodies that belong to a
//! request's id, and the random numbers.
//!
//! Every byte of a request and of its reply follows from the id, the method and
//! the node's name, so that a reply that belongs to another request cannot pass
//! for the right one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The field that carries the id of a request.
pub(crate) const ID_FIELD: &str = "X-Chaos-Id";

/// Ids from here on are no load: they only ask whether somebody is there.
pub(crate) const NOT_LOAD: u64 = 1 << 40;

/// The body of a POST: 128 to 1,151 bytes.
pub(crate) fn request_body(id: u64) -> Vec<u8> {
    let length = 128 + usize::try_from(id.wrapping_mul(97) % 1_024).unwrap_or_default();
    filler(id, length)
}

/// What a node of this name answers.
pub(crate) fn reply_body(node: &str, id: u64, method: &str, request: &[u8]) -> Vec<u8> {
    let mut body = format!("{node} {id} {method} {:016x}\n", checksum(request)).into_bytes();
    body.extend(filler(!id, 512));
    body
}

fn filler(seed: u64, length: usize) -> Vec<u8> {
    let pattern = format!("{:016x}.", Random::new(seed).next());
    pattern.bytes().cycle().take(length).collect()
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether something with this chance happens.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    /// So many different ones of `0..of`.
    pub(crate) fn choose(&mut self, count: usize, of: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..of).collect();
        (0..count.min(of))
            .map(|_| {
                let places = u64::try_from(left.len()).unwrap_or(1);
                left.remove(usize::try_from(self.next() % places).unwrap_or_default())
            })
            .collect()
    }
}

/// One GET on a connection of its own; the name of the node that answered.
pub(crate) fn ask_once(address: SocketAddr, nth: u64) -> Option<String> {
    let limit = Some(Duration::from_secs(2));
    let id = NOT_LOAD + nth;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(limit).ok()?;
    write!(
        stream,
        "GET /work HTTP/1.1\r\nHost: app.test\r\n{ID_FIELD}: {id}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok()?;
    let text = String::from_utf8_lossy(&reply);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let good = head.starts_with("HTTP/1.1 200 ");
    good.then(|| body.split(' ').next().unwrap_or_default().to_owned())
}
