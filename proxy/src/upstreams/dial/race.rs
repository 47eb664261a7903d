//! Connecting to an endpoint with an address of each family.
//!
//! RFC 8305 ("Happy Eyeballs"), section 5: the second address is tried when the
//! first has not answered within the delay, or at once when it failed; the
//! first connection that comes about is the one.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::DialError;

/// The "Connection Attempt Delay" that RFC 8305 section 8 recommends.
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection on which nothing happens is asked after this whether the host still lives ...
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// ... again and again ...
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// ... so often, before it is given up.
const KEEPALIVE_TIMES: u32 = 3;

/// A TCP connection to either address.
pub(super) async fn connect(
    first: SocketAddr,
    second: Option<SocketAddr>,
    silence: Duration,
) -> Result<TcpStream, DialError> {
    let Some(second) = second else {
        return one(first, silence).await;
    };
    race(one(first, silence), one(second, silence), HEAD_START).await
}

/// The first of both that comes about; the failure of the one that failed last.
async fn race<T>(
    first: impl Future<Output = Result<T, DialError>>,
    second: impl Future<Output = Result<T, DialError>>,
    head_start: Duration,
) -> Result<T, DialError> {
    let mut first = pin!(first);
    let first_failed = tokio::select! {
        biased;
        done = &mut first => match done {
            Ok(done) => return Ok(done),
            Err(_) => true,
        },
        () = sleep(head_start) => false,
    };
    let mut second = pin!(second);
    if first_failed {
        return second.await;
    }
    tokio::select! {
        done = &mut first => match done {
            Ok(done) => Ok(done),
            Err(_) => second.await,
        },
        done = &mut second => match done {
            Ok(done) => Ok(done),
            Err(_) => first.await,
        },
    }
}

/// `silence`: sent bytes that nobody acknowledges for so long end the connection.
async fn one(address: SocketAddr, silence: Duration) -> Result<TcpStream, DialError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| DialError::connecting(&error))?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TIMES);
    // Heads and bodies are written whole: waiting to fill a packet only costs time.
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        .and_then(|()| socket.set_tcp_user_timeout(Some(silence)));
    match set {
        Ok(()) => Ok(stream),
        // It was reset in the same instant.
        Err(error) => Err(DialError::Io(error.kind())),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    async fn late(after: u64, result: Result<u8, DialError>) -> Result<u8, DialError> {
        sleep(Duration::from_millis(after)).await;
        result
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_has_a_head_start() {
        let began = tokio::time::Instant::now();
        let won = race(late(200, Ok(1)), ready(Ok(2)), HEAD_START).await;
        assert_eq!(won, Ok(1));
        assert_eq!(began.elapsed().as_millis(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_first_address_costs_no_more_than_the_head_start() {
        let began = tokio::time::Instant::now();
        let won = race(pending(), late(30, Ok(2)), HEAD_START).await;
        assert_eq!(won, Ok(2));
        assert_eq!(began.elapsed().as_millis(), 280);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_address_that_fails_costs_nothing() {
        let began = tokio::time::Instant::now();
        let won = race(late(5, Err(DialError::Refused)), late(1, Ok(2)), HEAD_START).await;
        assert_eq!(won, Ok(2));
        assert_eq!(began.elapsed().as_millis(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_first_address_may_still_win() {
        let won = race(late(300, Ok(1)), late(500, Ok(2)), HEAD_START).await;
        assert_eq!(won, Ok(1));
        let won = race(
            late(600, Ok(1)),
            late(5, Err(DialError::Refused)),
            HEAD_START,
        )
        .await;
        assert_eq!(won, Ok(1), "the second one's failure is not the end");
        let won = race(
            late(300, Err(DialError::Refused)),
            late(500, Ok(2)),
            HEAD_START,
        )
        .await;
        assert_eq!(won, Ok(2), "nor is the first one's");
    }

    #[tokio::test(start_paused = true)]
    async fn when_both_fail_the_last_failure_is_told() {
        let won = race(
            ready(Err::<u8, _>(DialError::Unreachable(
                std::io::ErrorKind::NetworkUnreachable,
            ))),
            ready(Err(DialError::Refused)),
            HEAD_START,
        );
        assert_eq!(won.await, Err(DialError::Refused));
    }
}
