//! Reads the header that a load balancer puts in front of a connection to say whose it is: the
//! PROXY protocol, versions 1 and 2 (specification: HAProxy, doc/proxy-protocol.txt, 2.8).
//!
//! Whoever may send it decides who everybody else is, so that nothing in it is guessed: what is not
//! as the specification writes it is no header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// Octets of version 2 before its addresses.
const FIXED: usize = 16;
/// Most octets of version 1, CR LF included (section 2.1).
const LONGEST_V1: usize = 107;
/// Most octets of version 2. It could be 64 KiB; what balancers say takes some hundred, and a
/// client's certificate a few thousand.
const LONGEST_V2: usize = 16 * 1024;
/// Most octets of an id (section 2.2.5).
const LONGEST_ID: usize = 128;

/// What came of the octets so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// It goes on for at least so many octets more.
    Partial(usize),
    /// It goes on to the end of its line.
    Line,
    /// It ends with the last octet.
    Whole(Announced),
    /// It is none, for this reason.
    Bad(&'static str),
}

/// What a header says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Who connected to the balancer, and where to; `None` where it speaks for itself (a health
    /// check of its own) or does not know.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// What else it says.
    pub(crate) said: Said,
}

/// What a header of version 2 may say beside addresses.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// The host name that the client asked for (SNI).
    pub(crate) authority: Option<Box<str>>,
    /// Its id for the connection.
    pub(crate) unique_id: Option<Box<[u8]>>,
    /// The version of TLS that the client spoke.
    pub(crate) tls: Option<Box<str>>,
    /// The common name of the client's certificate.
    pub(crate) common_name: Option<Box<str>>,
}

/// What is known of a connection that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Via {
    /// The balancer.
    pub(crate) balancer: SocketAddr,
    /// Where the client connected to; `None` where that was not said.
    pub(crate) local: Option<SocketAddr>,
    /// What else was said.
    pub(crate) said: Said,
}

/// Reads the header that `bytes` begin. They are never more than one: whoever reads takes at most
/// what [`Parsed::Partial`] says.
#[must_use]
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let read = match bytes {
        [b'\r', ..] => v2(bytes),
        _ => v1(bytes),
    };
    read.unwrap_or_else(|stop| match stop {
        Stop::More(least) => Parsed::Partial(least),
        Stop::Line => Parsed::Line,
        Stop::Bad(why) => Parsed::Bad(why),
    })
}

enum Stop {
    More(usize),
    Line,
    Bad(&'static str),
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 5000 443 CR LF` (section 2.1).
fn v1(bytes: &[u8]) -> Result<Parsed, Stop> {
    let known = bytes.len().min(WORD.len());
    if bytes[..known] != WORD[..known] {
        return Err(Stop::Bad("it does not begin as one"));
    }
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return match bytes.len() {
            // `UNKNOWN` and CR LF follow at least, or something longer.
            length if length <= WORD.len() => Err(Stop::More(SIGNATURE.len() - length)),
            length if length < LONGEST_V1 => Err(Stop::Line),
            _ => Err(Stop::Bad("its line does not end")),
        };
    };
    let line = bytes[WORD.len()..end]
        .strip_suffix(b"\r")
        .ok_or(Stop::Bad("its line does not end with CR LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| Stop::Bad("it is not ASCII"))?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    let addresses = match family {
        // What follows is to be ignored.
        "UNKNOWN" => None,
        "TCP4" => Some(pair::<Ipv4Addr>(words)?),
        "TCP6" => Some(pair::<Ipv6Addr>(words)?),
        _ => return Err(Stop::Bad("its protocol is not known")),
    };
    Ok(Parsed::Whole(Announced {
        addresses,
        said: Said::default(),
    }))
}

fn pair<A: std::str::FromStr + Into<IpAddr>>(
    mut words: std::str::Split<'_, char>,
) -> Result<(SocketAddr, SocketAddr), Stop> {
    let mut next = || words.next().ok_or(Stop::Bad("an address is missing"));
    let address = |text: &str| {
        text.parse::<A>()
            .map_err(|_| Stop::Bad("an address is none"))
    };
    let (from, to) = (address(next()?)?, address(next()?)?);
    let (from_port, to_port) = (port(next()?)?, port(next()?)?);
    match words.next() {
        Some(_) => Err(Stop::Bad("more follows its addresses")),
        None => Ok((
            SocketAddr::new(from.into(), from_port),
            SocketAddr::new(to.into(), to_port),
        )),
    }
}

/// Without sign and leading zeros.
fn port(text: &str) -> Result<u16, Stop> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    match text.parse() {
        Ok(port) if is_plain && is_short => Ok(port),
        _ => Err(Stop::Bad("a port is none")),
    }
}

/// Section 2.2.
fn v2(bytes: &[u8]) -> Result<Parsed, Stop> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(Stop::Bad("it does not begin as one"));
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Err(Stop::More(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > LONGEST_V2 {
        return Err(Stop::Bad("it is too long"));
    }
    match length.checked_sub(rest.len()) {
        Some(0) => {}
        Some(missing) => return Err(Stop::More(missing)),
        None => return Err(Stop::Bad("it is longer than it says")),
    }
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Stop::Bad("its version or command is not known")),
    };
    if is_local {
        // Whatever else it says is to be ignored (section 2.2).
        return Ok(Parsed::Whole(Announced::default()));
    }
    let (addresses, tail) = match fixed[13] {
        // Not said, and sockets of UNIX, whose names are no addresses here.
        0x00 => (None, rest),
        0x31 => (
            None,
            rest.get(216..).ok_or(Stop::Bad("an address is missing"))?,
        ),
        0x11 => {
            let (block, tail) = block::<12>(rest)?;
            let ip =
                |at: usize| Ipv4Addr::new(block[at], block[at + 1], block[at + 2], block[at + 3]);
            (Some(ports(ip(0).into(), ip(4).into(), &block[8..])), tail)
        }
        0x21 => {
            let (block, tail) = block::<36>(rest)?;
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&block[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            (Some(ports(ip(0).into(), ip(16).into(), &block[32..])), tail)
        }
        _ => return Err(Stop::Bad("its protocol is not TCP")),
    };
    let said = said(bytes, tail)?;
    Ok(Parsed::Whole(Announced { addresses, said }))
}

fn block<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), Stop> {
    bytes
        .split_first_chunk()
        .ok_or(Stop::Bad("an address is missing"))
}

fn ports(from: IpAddr, to: IpAddr, ports: &[u8]) -> (SocketAddr, SocketAddr) {
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    (SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2)))
}

const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_SSL: u8 = 0x20;
const SUBTYPE_SSL_VERSION: u8 = 0x21;
const SUBTYPE_SSL_CN: u8 = 0x22;

/// What the vector of types, lengths and values that ends `header` says.
fn said(header: &[u8], values: &[u8]) -> Result<Said, Stop> {
    let mut said = Said::default();
    let start = header.len() - values.len();
    each_value(values, &mut |kind, value, at| {
        match kind {
            TYPE_AUTHORITY => said.authority = Some(text(value)?),
            TYPE_UNIQUE_ID if value.len() <= LONGEST_ID => said.unique_id = Some(value.into()),
            TYPE_UNIQUE_ID => return Err(Stop::Bad("its id is too long")),
            TYPE_CRC32C => check(header, start + at, value)?,
            TYPE_SSL => {
                let inner = value
                    .get(5..)
                    .ok_or(Stop::Bad("what it says of TLS is cut"))?;
                each_value(inner, &mut |kind, value, _| {
                    match kind {
                        SUBTYPE_SSL_VERSION => said.tls = Some(text(value)?),
                        SUBTYPE_SSL_CN => said.common_name = Some(text(value)?),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(said)
}

/// Takes the type of a value, itself and where it begins.
type Take<'a> = &'a mut dyn FnMut(u8, &[u8], usize) -> Result<(), Stop>;

fn each_value(all: &[u8], f: Take<'_>) -> Result<(), Stop> {
    let mut values = all;
    while let Some((start, rest)) = values.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([start[1], start[2]]));
        let (value, rest) = rest
            .split_at_checked(length)
            .ok_or(Stop::Bad("a value is cut"))?;
        f(start[0], value, all.len() - rest.len() - length)?;
        values = rest;
    }
    match values {
        [] => Ok(()),
        _ => Err(Stop::Bad("a value is cut")),
    }
}

fn text(value: &[u8]) -> Result<Box<str>, Stop> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(|c: char| c.is_control()) => Ok(text.into()),
        _ => Err(Stop::Bad("a name is no text")),
    }
}

/// The checksum of the whole header, its own four octets as zeros (section 2.2.3).
fn check(header: &[u8], at: usize, value: &[u8]) -> Result<(), Stop> {
    let wanted: [u8; 4] = value
        .try_into()
        .map_err(|_| Stop::Bad("its checksum has no four octets"))?;
    let zeroed = header.iter().enumerate().map(|(place, &byte)| match place {
        place if (at..at + 4).contains(&place) => 0,
        _ => byte,
    });
    match crc32c(zeroed) == u32::from_be_bytes(wanted) {
        true => Ok(()),
        false => Err(Stop::Bad("its checksum is another one")),
    }
}

/// RFC 3720 appendix B.4. A header is short, and there is one for each connection: a bit at a time
/// does.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let sum = bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            let carry = if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            (sum >> 1) ^ carry
        })
    });
    !sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Announced {
        match parse(bytes) {
            Parsed::Whole(announced) => announced,
            other => panic!("{other:?}"),
        }
    }

    fn addresses(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[test]
    fn a_line_says_who_and_where_to() {
        assert_eq!(
            whole(b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n").addresses,
            addresses("192.0.2.1:5000", "198.51.100.1:443")
        );
        assert_eq!(
            whole(b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n").addresses,
            addresses("[2001:db8::1]:0", "[2001:db8::2]:65535")
        );
        assert_eq!(whole(b"PROXY UNKNOWN\r\n").addresses, None);
        assert_eq!(whole(b"PROXY UNKNOWN ff:: ff:: 1 1\r\n").addresses, None);
    }

    #[test]
    fn what_is_written_otherwise_is_none() {
        for bad in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 5000 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 05000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +500 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY \r\n",
        ] {
            assert!(matches!(parse(bad.as_bytes()), Parsed::Bad(_)), "{bad:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert!(matches!(parse(endless.as_bytes()), Parsed::Bad(_)));
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb];

    fn value(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [&[kind][..], &length, value].concat()
    }

    #[test]
    fn the_binary_form_says_the_same_and_more() {
        let v4 = addresses("192.0.2.1:5000", "198.51.100.1:443");
        assert_eq!(whole(&binary(0x21, 0x11, &V4)).addresses, v4);
        let mut v6 = [0; 36];
        (v6[0], v6[15], v6[31], v6[33], v6[35]) = (0x20, 1, 2, 80, 90);
        assert_eq!(
            whole(&binary(0x21, 0x21, &v6)).addresses,
            addresses("[2000::1]:80", "[::2]:90")
        );
        assert_eq!(
            whole(&binary(0x20, 0x11, &V4)).addresses,
            None,
            "its own check"
        );
        assert_eq!(whole(&binary(0x20, 0x00, b"")).addresses, None);
        assert_eq!(whole(&binary(0x20, 0x12, b"x")), Announced::default());
        assert_eq!(whole(&binary(0x21, 0x31, &[0; 216])).addresses, None);
        let tls = [
            &[1, 0, 0, 0, 0][..],
            &value(SUBTYPE_SSL_VERSION, b"TLSv1.3"),
            &value(SUBTYPE_SSL_CN, b"phone"),
        ]
        .concat();
        let rest = [
            &V4[..],
            &value(TYPE_AUTHORITY, b"shop.example"),
            &value(TYPE_UNIQUE_ID, &[0, 1]),
            &value(0xe0, b"whatever"),
            &value(TYPE_SSL, &tls),
        ]
        .concat();
        let announced = whole(&binary(0x21, 0x11, &rest));
        assert_eq!(announced.addresses, v4);
        assert_eq!(
            announced.said,
            Said {
                authority: Some("shop.example".into()),
                unique_id: Some([0, 1].into()),
                tls: Some("TLSv1.3".into()),
                common_name: Some("phone".into()),
            }
        );
    }

    #[test]
    fn a_checksum_must_be_right() {
        // RFC 3720 appendix B.4: 32 octets of zeros.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        let unchecked = binary(
            0x21,
            0x11,
            &[&V4[..], &value(TYPE_CRC32C, &[0; 4])].concat(),
        );
        let sum = crc32c(unchecked.iter().copied()).to_be_bytes();
        let with =
            |sum: [u8; 4]| binary(0x21, 0x11, &[&V4[..], &value(TYPE_CRC32C, &sum)].concat());
        assert!(matches!(parse(&with(sum)), Parsed::Whole(_)));
        assert!(matches!(parse(&with([1, 2, 3, 4])), Parsed::Bad(_)));
    }

    #[test]
    fn what_the_binary_form_does_not_know_is_none() {
        for bad in [
            binary(0x11, 0x11, &V4),
            binary(0x22, 0x11, &V4),
            binary(0x21, 0x12, &V4),
            binary(0x21, 0x11, &V4[..11]),
            binary(0x21, 0x21, &V4),
            binary(0x21, 0x11, &[&V4[..], &[2, 0]].concat()),
            binary(0x21, 0x11, &[&V4[..], &[2, 0, 9, b'a']].concat()),
            binary(
                0x21,
                0x11,
                &[&V4[..], &value(TYPE_AUTHORITY, b"a\nb")].concat(),
            ),
            binary(
                0x21,
                0x11,
                &[&V4[..], &value(TYPE_UNIQUE_ID, &[0; 129])].concat(),
            ),
            binary(0x21, 0x11, &[&V4[..], &value(TYPE_SSL, &[1])].concat()),
            binary(0x21, 0x00, &[0; 20_000]),
        ] {
            assert!(matches!(parse(&bad), Parsed::Bad(_)), "{bad:?}");
        }
    }

    proptest! {
        /// Who reads as much as is asked for reads the header and nothing behind it.
        #[test]
        fn what_is_asked_for_is_never_too_much(more in proptest::collection::vec(any::<u8>(), 0..20)) {
            let headers = [
                b"PROXY UNKNOWN\r\n".to_vec(),
                b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n".to_vec(),
                binary(0x21, 0x11, &V4),
                binary(0x20, 0x00, b""),
                binary(0x21, 0x11, &[&V4[..], &value(0xe0, &more)].concat()),
            ];
            for header in headers {
                let mut at = 0;
                loop {
                    match parse(&header[..at]) {
                        Parsed::Partial(least) => {
                            prop_assert!(least > 0 && at + least <= header.len());
                            at += least;
                        }
                        Parsed::Line => at += 1,
                        Parsed::Whole(_) => break,
                        Parsed::Bad(why) => prop_assert!(false, "{}", why),
                    }
                }
                prop_assert_eq!(at, header.len());
            }
        }

        #[test]
        fn any_octets_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300), signed: bool) {
            let bytes = match signed {
                true => [&SIGNATURE[..], &bytes].concat(),
                false => bytes,
            };
            let _ = parse(&bytes);
        }
    }
}
