//! TCP ports that no two tests share, whether they run as threads of one
//! process (`cargo test`) or each in its own (`nextest`).
//!
//! A port is handed out long before the server that binds it runs, so asking
//! the kernel for a free one is not enough: an outgoing connection of a load
//! test may take it meanwhile. Ports here lie below Linux's range for outgoing
//! connections; each process claims blocks of them by locking a file, and the
//! lock ends with the process, however it ends.

use std::fs::{File, create_dir_all};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

const FIRST: u16 = 10_240;
const LAST: u16 = 31_999;
const BLOCK: u16 = 32;

struct Blocks {
    /// Held for the life of the process.
    locks: Vec<File>,
    next: u16,
    end: u16,
}

static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks {
    locks: Vec::new(),
    next: 0,
    end: 0,
});

/// A loopback address that nothing listens on and nobody else will be given.
pub(crate) fn free() -> SocketAddr {
    let mut blocks = BLOCKS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    loop {
        if blocks.next == blocks.end {
            claim(&mut blocks);
        }
        let address = SocketAddr::from(([127, 0, 0, 1], blocks.next));
        blocks.next += 1;
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn claim(blocks: &mut Blocks) {
    let folder = std::env::temp_dir().join("tidegate-test-ports");
    create_dir_all(&folder).expect("a folder for port locks");
    let count = (LAST - FIRST + 1) / BLOCK;
    let start = std::process::id() as usize * 7;
    for step in 0..usize::from(count) {
        let block = u16::try_from((start + step) % usize::from(count)).expect("fewer than 2^16");
        let Ok(file) = File::create(folder.join(format!("{block}.lock"))) else {
            continue;
        };
        if file.try_lock().is_ok() {
            blocks.locks.push(file);
            blocks.next = FIRST + block * BLOCK;
            blocks.end = blocks.next + BLOCK;
            return;
        }
    }
    panic!("every block of test ports is taken: {}", folder.display());
}
