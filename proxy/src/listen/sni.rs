//! Which name a TLS client asks for, found out without answering it.

use rustls::server::Acceptor;

/// Most octets of a ClientHello. Browsers send less than two KiB, and with a ticket for a client's
/// certificate about eight.
const MOST: usize = 32 * 1024;

/// What the first octets of a connection tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// There must be more.
    Partial,
    /// The name in lower case (RFC 6066 section 3); `None`: the client asks for none.
    Name(Option<String>),
    /// It is no ClientHello, or one that is too long.
    Other,
}

/// Looks at the octets of a connection as they come.
pub(crate) struct Peek {
    acceptor: Acceptor,
    seen: usize,
}

impl Peek {
    pub(crate) fn new() -> Self {
        Self {
            acceptor: Acceptor::default(),
            seen: 0,
        }
    }

    /// Looks at further octets; nothing may follow on anything but [`Peeked::Partial`].
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Peeked {
        self.seen += bytes.len();
        if self.seen > MOST {
            return Peeked::Other;
        }
        while !bytes.is_empty() {
            if !matches!(self.acceptor.read_tls(&mut bytes), Ok(1..)) {
                return Peeked::Other;
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Peeked::Name(name);
                }
                Err(_) => return Peeked::Other,
            }
        }
        Peeked::Partial
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_cut() {
        let whole = hello("Pay.example");
        for size in [1, 2, 7, 500, whole.len()] {
            let mut peek = Peek::new();
            let mut found = Peeked::Partial;
            for piece in whole.chunks(size) {
                assert_eq!(found, Peeked::Partial);
                found = peek.feed(piece);
            }
            assert_eq!(found, Peeked::Name(Some("pay.example".into())), "{size}");
        }
    }

    #[test]
    fn an_address_is_no_name() {
        assert_eq!(Peek::new().feed(&hello("192.0.2.1")), Peeked::Name(None));
    }

    #[test]
    fn what_is_not_tls_is_told_apart_at_once() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0; 64]] {
            assert_eq!(Peek::new().feed(bytes), Peeked::Other);
        }
        // A hello that never ends.
        let mut peek = Peek::new();
        let record = [&[22, 3, 1, 64, 0, 1, 0, 255, 255][..], &[0; 16_380]].concat();
        assert_eq!(peek.feed(&record), Peeked::Partial);
        let more = [&[22, 3, 1, 64, 0][..], &[0; 16_384]].concat();
        assert_eq!(peek.feed(&more), Peeked::Other);
    }

    proptest! {
        #[test]
        fn whatever_comes_ends_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0_usize..300) {
            let mut damaged = hello("pay.example");
            let at = at.min(damaged.len());
            damaged.splice(at.., bytes.iter().copied());
            let mut peek = Peek::new();
            let _ = peek.feed(&damaged);
        }
    }
}
