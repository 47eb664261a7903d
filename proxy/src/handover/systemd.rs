//! What a service manager is told (sd_notify(3)), if one asked to be.

use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where it wants to be told.
const SOCKET: &str = "NOTIFY_SOCKET";

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// This process serves, and is the service's main one.
    Serving,
    /// The service is ending.
    Stopping,
}

/// Tells it. A manager that is not there is no reason not to serve; that it was not told is logged.
pub(crate) fn tell(word: Word) {
    let Some(socket) = env::var_os(SOCKET) else {
        return;
    };
    let text = match word {
        Word::Serving => format!("MAINPID={}\nREADY=1", std::process::id()),
        Word::Stopping => "STOPPING=1".to_owned(),
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&socket),
    };
    let told = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager was not told ({SOCKET})");
    }
}

/// Why an upgrade would end the service, if it would: the new process has another id.
pub(super) fn forbids() -> Option<&'static str> {
    forbidden(
        std::process::id(),
        env::var("SYSTEMD_EXEC_PID").ok().as_deref(),
        env::var_os(SOCKET).is_some(),
    )
}

fn forbidden(own: u32, started: Option<&str>, is_told: bool) -> Option<&'static str> {
    if own == 1 {
        return Some(
            "this is process 1 of a container, which ends with it; start a new container instead",
        );
    }
    let by_systemd = started.and_then(|id| id.parse().ok()) == Some(own);
    if by_systemd && !is_told {
        return Some(
            "systemd would take the end of this process for the end of the service; write Type=notify and NotifyAccess=all into the unit, and restart it once",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_must_not_end_is_not_replaced() {
        assert!(forbidden(1, None, true).is_some());
        assert!(forbidden(7, Some("7"), false).is_some());
        assert_eq!(forbidden(7, Some("7"), true), None);
        assert_eq!(
            forbidden(7, Some("6"), false),
            None,
            "inherited from a shell"
        );
        assert_eq!(forbidden(7, None, false), None);
    }
}
