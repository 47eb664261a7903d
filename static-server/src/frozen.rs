//! Content in files that exist in memory alone and that nobody can write to (memfd_create(2),
//! sealed).
//!
//! The kernel sends from a file without copying (sendfile(2)). From a file on the disk that is
//! not safe: what has been sent is not copied until the client has confirmed it, so that a write to
//! the file at that moment changes what is on its way, and the client gets a mixture that looks
//! whole. From our own memory the kernel cannot send without copying at all. A sealed copy has neither
//! fault.
//!
//! Each copy is an open file; all of the process together take no more than an eighth of those
//! that it may open.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_getfl, fcntl_setfl, memfd_create,
};
use rustix::process::{Resource, getrlimit};

/// How many there are at most, whatever the process may open.
const MOST: u64 = 2_048;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// See the module.
#[derive(Debug)]
pub struct Frozen {
    file: File,
    /// Gives its room back.
    _room: Option<Room>,
    /// Gives its place back.
    _place: Place,
}

impl Frozen {
    /// A copy of what `fill` writes.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` where there are too many already; what the system says; those of `fill`.
    pub fn filled(fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        Self::within(None, fill)
    }

    fn within(
        room: Option<Room>,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let place = Place::take().ok_or(io::ErrorKind::QuotaExceeded)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("tidegate-file", flags)?);
        fill(&mut file)?;
        // Else each sending would write down when it was, where other cores do, too.
        fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::NOATIME)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Self {
            file,
            _room: room,
            _place: place,
        })
    }

    /// The file, for reading by position.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// How many bytes some copies may take together.
#[derive(Debug)]
pub struct Allowance {
    most: u64,
    taken: AtomicU64,
}

impl Allowance {
    /// `most` bytes.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            taken: AtomicU64::new(0),
        }
    }

    /// How many bytes are taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A copy of `pieces` one after the other, which are `len` bytes.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` where there is no room, or too many copies already; what the system says.
    pub fn copy<'a>(
        self: &Arc<Self>,
        len: u64,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<Frozen> {
        let room = Room::take(self, len).ok_or(io::ErrorKind::QuotaExceeded)?;
        Frozen::within(Some(room), |file| {
            pieces
                .into_iter()
                .try_for_each(|piece| file.write_all(piece))
        })
    }
}

/// Some bytes of an allowance, while it lives.
#[derive(Debug)]
struct Room {
    of: Arc<Allowance>,
    bytes: u64,
}

impl Room {
    fn take(of: &Arc<Allowance>, bytes: u64) -> Option<Self> {
        // Given back if it turns out to be too much: the drop of `room` does that.
        let room = Self {
            of: Arc::clone(of),
            bytes,
        };
        let sum = of.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (sum <= of.most).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// One of the files that there may be.
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let may_open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = MOST.min(may_open / 8);
        // Given back if it turns out to be one too many: the drop of `place` does that.
        let place = Self;
        (COUNT.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_copy_holds_the_bytes_and_cannot_be_written_to() {
        let frozen = Frozen::filled(|file| file.write_all(b"abc")).unwrap();
        let mut read = [0; 3];
        frozen.file().read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"abc");
        assert!(frozen.file().write_all_at(b"x", 0).is_err());
        assert!(frozen.file().set_len(1).is_err());
    }

    #[test]
    fn a_failed_fill_gives_its_place_back() {
        for _ in 0..2 * MOST {
            let failed = Frozen::filled(|_| Err(io::ErrorKind::UnexpectedEof.into()));
            assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(Frozen::filled(|_| Ok(())).is_ok(), "still room");
    }

    #[test]
    fn copies_take_no_more_than_they_are_allowed_and_give_it_back() {
        let allowance = Arc::new(Allowance::new(10));
        let six = allowance.copy(6, [&b"abc"[..], b"def"]).unwrap();
        let mut read = [0; 6];
        six.file().read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"abcdef");
        let refused = allowance.copy(5, [&b"12345"[..]]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(allowance.taken(), 6);
        drop(six);
        assert!(allowance.copy(10, [&b"1234567890"[..]]).is_ok());
        assert_eq!(allowance.taken(), 0);
    }
}
