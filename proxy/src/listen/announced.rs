//! Connections that a load balancer announces: the header in front of them is read before all else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::exchange::proxy_header::{Announced, Parsed, Via, parse};

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAnnounced {
    /// It is not as the specification writes it.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
    /// Not an octet came.
    #[error("the connection ended without a PROXY header")]
    Silent,
    /// The connection ended before its end.
    #[error("the connection ended within the PROXY header")]
    Ended,
    /// The connection failed.
    #[error("reading the PROXY header: {0}")]
    Failed(#[from] io::Error),
}

/// Reads the header, and not an octet of what follows it. Gives the client's address, where it is
/// said, too.
pub(crate) async fn read(
    socket: &mut TcpStream,
    balancer: SocketAddr,
) -> Result<(SocketAddr, Arc<Via>), NotAnnounced> {
    let Announced { addresses, said } = header(socket).await?;
    let (client, local) = match addresses {
        Some((client, local)) => (client, Some(local)),
        None => (balancer, None),
    };
    let via = Via {
        balancer,
        local,
        said,
    };
    Ok((client, Arc::new(via)))
}

async fn header(socket: &mut TcpStream) -> Result<Announced, NotAnnounced> {
    let mut bytes = Vec::with_capacity(128);
    loop {
        let least = match parse(&bytes) {
            Parsed::Whole(announced) => return Ok(announced),
            Parsed::Bad(why) => return Err(NotAnnounced::Malformed(why)),
            Parsed::Line => up_to_line_end(socket).await?,
            Parsed::Partial(least) => least,
        };
        let start = bytes.len();
        bytes.resize(start + least, 0);
        match socket.read_exact(&mut bytes[start..]).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(match start {
                    0 => NotAnnounced::Silent,
                    _ => NotAnnounced::Ended,
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How many octets are there up to the end of the line; without one, all of them. At least 1.
async fn up_to_line_end(socket: &TcpStream) -> Result<usize, NotAnnounced> {
    let mut there = [0; 107];
    match socket.peek(&mut there).await? {
        0 => Err(NotAnnounced::Ended),
        count => Ok(memchr::memchr(b'\n', &there[..count]).map_or(count, |end| end + 1)),
    }
}
