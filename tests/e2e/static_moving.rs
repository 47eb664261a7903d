//! Files that change while they are sent to a slow reader: what came is a beginning of one state,
//! and whole only where it is whole. Never padded, never mixed. And how much waits for him in the kernel.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::support::client::HOST;
use crate::support::{Ask, Broken, Conn, Edge, H2, Setup, wait};

/// Read in pieces from the disk, but small enough for buffers on the way.
const SMALL: usize = 300 * 1024;
/// More than any buffer on the way takes.
const LARGE: usize = 20 * 1024 * 1024;

/// What happens to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Shrinks,
    Grows,
    IsOverwritten,
    Vanishes,
    IsReplaced,
}

impl Change {
    const ALL: [Self; 5] = [
        Self::Shrinks,
        Self::Grows,
        Self::IsOverwritten,
        Self::Vanishes,
        Self::IsReplaced,
    ];

    fn happen(self, path: &Path, len: usize) {
        let other = vec![b'b'; len];
        let open = || OpenOptions::new().write(true).open(path).unwrap();
        match self {
            Self::Shrinks => open().set_len(len as u64 / 2).unwrap(),
            Self::Grows => {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(&other[..1_000]).unwrap();
            }
            Self::IsOverwritten => open().write_all(&other).unwrap(),
            Self::Vanishes => fs::remove_file(path).unwrap(),
            Self::IsReplaced => {
                let new = path.with_extension("new");
                fs::write(&new, other).unwrap();
                fs::rename(new, path).unwrap();
            }
        }
    }

    /// The old file is still there, without its name.
    fn leaves_the_old(self) -> bool {
        matches!(self, Self::Vanishes | Self::IsReplaced)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    PlainH2,
    TlsH2,
}

impl Way {
    const ALL: [Self; 4] = [Self::Plain, Self::Tls, Self::PlainH2, Self::TlsH2];
}

/// What came, and whether it came to its end.
struct Came {
    body: Vec<u8>,
    whole: bool,
}

/// Asks, reads the beginning, lets the change happen, and reads the rest.
fn fetch(edge: &Edge, way: Way, target: &str, change: &dyn Fn()) -> Came {
    let ask = Ask::get(target);
    match way {
        Way::Plain => by_h1(edge.plain(), &ask, change),
        Way::Tls => by_h1(edge.tls(), &ask, change),
        Way::PlainH2 => by_h2(H2::narrow(edge.http(), None), &ask, change),
        Way::TlsH2 => by_h2(H2::narrow(edge.https(), Some(HOST)), &ask, change),
    }
}

fn by_h1(mut conn: Conn, ask: &Ask, change: &dyn Fn()) -> Came {
    let head = conn.send(ask.bytes()).head().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.field("transfer-encoding"), None, "the length is known");
    let len: usize = head.field("content-length").unwrap().parse().unwrap();
    let mut body = conn.exactly(1_000).unwrap();
    change();
    match conn.exactly(len - body.len()) {
        Ok(rest) => {
            body.extend(rest);
            Came { body, whole: true }
        }
        Err(Broken::Cut(rest)) => {
            body.extend(rest.into_bytes());
            Came { body, whole: false }
        }
        Err(Broken::ClosedSilently) => Came { body, whole: false },
        Err(silence) => panic!("{} bytes, and then {silence:?}", body.len()),
    }
}

fn by_h2(mut client: H2, ask: &Ask, change: &dyn Fn()) -> Came {
    let (status, mut unread) = client.begin(ask);
    assert_eq!(status, 200);
    let mut body = unread.piece().unwrap().unwrap().to_vec();
    change();
    loop {
        match unread.piece() {
            None => return Came { body, whole: true },
            Some(Ok(piece)) => body.extend_from_slice(&piece),
            Some(Err(error)) => {
                assert_ne!(error, "silence", "after {} bytes", body.len());
                return Came { body, whole: false };
            }
        }
    }
}

fn check(edge: &Edge, site: &Path, len: usize) {
    let mut wrong = Vec::new();
    for way in Way::ALL {
        for change in Change::ALL {
            let name = format!("{way:?}-{change:?}-{len}.bin");
            let path = site.join(&name);
            File::create(&path)
                .unwrap()
                .write_all(&vec![b'a'; len])
                .unwrap();
            let came = fetch(edge, way, &format!("/{name}"), &|| {
                change.happen(&path, len);
            });
            if came.body.iter().any(|byte| *byte != b'a') {
                wrong.push(format!("{name}: bytes that the file did not have"));
            }
            if came.whole != (came.body.len() == len) {
                wrong.push(format!(
                    "{name}: {} bytes, whole: {}",
                    came.body.len(),
                    came.whole
                ));
            }
            if change.leaves_the_old() && !came.whole {
                wrong.push(format!("{name}: the old file did not come to its end"));
            }
            if !change.leaves_the_old() && came.whole && len == LARGE {
                wrong.push(format!("{name}: whole, though the file is not any more"));
            }
            let _ = fs::remove_file(&path);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    edge.get("/index.html").expect(200);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_never_padded_nor_mixed() {
    let edge = Setup::new()
        .file("site/index.html", "home")
        .start("[static.site]\nroot = \"site\"\n[[route]]\nstatic = \"site\"\n");
    let site = edge.folder().join("site");
    check(&edge, &site, SMALL);
    check(&edge, &site, LARGE);
}

/// The most bytes that wait in the kernel to be sent or confirmed, of all connections to this port.
fn most_unsent(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of connections");
    let port = format!(":{port:04X}");
    let queues = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next().filter(|local| local.ends_with(&port))?;
        // Behind the peer's address and the state.
        let (sending, _) = columns.nth(2)?.split_once(':')?;
        u64::from_str_radix(sending, 16).ok()
    });
    queues.max().unwrap_or(0)
}

#[test]
fn what_waits_to_be_sent_is_bounded_again_after_a_file_that_was_not() {
    let setup = Setup::new()
        .file("site/often.bin", vec![b'o'; 1 << 20])
        .file("site/large.bin", vec![b'l'; 32 << 20]);
    let edge = setup.start("[static.site]\nroot = \"site\"\n[[route]]\nstatic = \"site\"\n");
    let mut conn = edge.plain();
    for _ in 0..12 {
        let reply = conn.ask(&Ask::get("/often.bin")).expect(200);
        assert_eq!(reply.body.len(), 1 << 20);
    }
    // Larger than what is ever sent by the kernel itself, and nobody reads it.
    conn.send(Ask::get("/large.bin").bytes());
    let port = edge.http().port();
    let settled = wait::until("all that waits", wait::SOON, || {
        let waits = most_unsent(port);
        wait::hold(wait::millis(300));
        Some(waits).filter(|&waits| waits > 0 && waits == most_unsent(port))
    });
    // 128 KiB by configuration of the socket, and what was on its way.
    assert!(settled < 512 << 10, "{settled} bytes wait");
}
