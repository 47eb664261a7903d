//! Why an address cannot be listened on, in words.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

/// One line that names the address, the flag that changes it, and the reason.
pub(crate) fn refused(address: SocketAddr, flag: &str, error: &Error) -> anyhow::Error {
    let why = match error.kind() {
        ErrorKind::AddrInUse => "the port is in use by another program".to_owned(),
        ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
        }
        ErrorKind::AddrNotAvailable => "no network interface has this address".to_owned(),
        _ => error.to_string(),
    };
    anyhow::anyhow!("cannot listen on {address}: {why}; choose another with {flag}")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_in_use_is_said_with_the_address_and_the_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error = TcpListener::bind(address).expect_err("it is taken");
        let line = refused(address, "--https-port", &error).to_string();
        assert!(line.contains(&address.to_string()), "{line}");
        assert!(line.contains("in use"), "{line}");
        assert!(line.contains("--https-port"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
