//! One file of the log: a header, and records behind it.
//!
//! The header is `TGsegmnt`, the version of the format (4 bytes), four bytes of nothing, the number
//! that the file's name says, the random id, and the checksum of all that (8 bytes each). Numbers
//! only grow, also over restarts, and give the order. The id is what an [`Address`] names and what
//! the checksums of the records are seeded with, so that neither an old address nor an old block of
//! the disk can pass in a newer file.
//!
//! A segment is written by one, and read by many by position. It stays readable to whoever holds it
//! when its file has been deleted.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memchr::memmem;
use twox_hash::XxHash3_64;

use super::record::{self, Damage, HEADER, Header, Kind};

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 40;
const MAGIC: &[u8; 8] = b"TGsegmnt";
/// To be raised when anything changes in how a segment or a record looks.
const VERSION: u32 = 1;
/// Where the header's checksum stands.
const SUM_AT: usize = SEGMENT_HEADER - 8;
/// Bytes that are read at once when a segment is scanned: several small records, or the front of a
/// large one.
const WINDOW: u64 = 16 << 10;

/// A segment of the log. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentId(u64);

/// Where an object is in the log. It holds as long as the process, and never leads to anything but
/// this object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    segment: SegmentId,
    offset: u32,
    /// Bytes of header, key and meta block, so that one read gets them.
    front: u32,
}

impl Address {
    pub(super) fn new(segment: SegmentId, offset: u64, front: u64) -> Option<Self> {
        Some(Self {
            segment,
            offset: u32::try_from(offset).ok()?,
            front: u32::try_from(front).ok()?,
        })
    }

    /// The segment that it is in, and goes with.
    pub fn segment(self) -> SegmentId {
        self.segment
    }

    pub(super) fn offset(self) -> u64 {
        self.offset.into()
    }

    pub(super) fn front(self) -> usize {
        // As wide as it needs to be on what we run on; elsewhere no such record could be read.
        usize::try_from(self.front).unwrap_or(0)
    }
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Whether it could be opened for writing.
    pub(super) writable: bool,
    /// Bytes of the file that are whole records.
    length: AtomicU64,
    /// Something was written since the last sync.
    dirty: AtomicBool,
}

/// Why a file is no segment.
#[derive(Debug)]
pub(super) enum NotOurs {
    /// Too short for a header: the process was killed when it began the segment.
    Unfinished,
    /// Not in this version of the format, or damaged.
    Unknown,
    Io(io::Error),
}

/// What a scan of a segment found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Records reported.
    pub(super) records: u64,
    /// Stretches without a good record that were passed over, or at which the scan ended.
    pub(super) skipped: u64,
    /// Every byte of the file belongs to a record that has its header.
    pub(super) whole: bool,
}

impl Segment {
    /// Makes the file. An error may leave it behind.
    pub(super) fn create(path: PathBuf, number: u64) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let id = random();
        let header = encode(number, id);
        file.write_all_at(&header, 0)?;
        Ok(Self {
            id: SegmentId(id),
            file,
            path,
            writable: true,
            length: AtomicU64::new(SEGMENT_HEADER as u64),
            dirty: AtomicBool::new(true),
        })
    }

    /// Opens a file that was found, for writing too where that is allowed.
    pub(super) fn open(path: &Path, number: u64) -> Result<Self, NotOurs> {
        let mut writable = true;
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .or_else(|_| {
                writable = false;
                File::open(path)
            })
            .map_err(NotOurs::Io)?;
        let length = file.metadata().map_err(NotOurs::Io)?.len();
        let mut header = [0; SEGMENT_HEADER];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(NotOurs::Unfinished);
            }
            Err(error) => return Err(NotOurs::Io(error)),
        }
        let id = decode(&header, number).ok_or(NotOurs::Unknown)?;
        Ok(Self {
            id: SegmentId(id),
            file,
            path: path.to_owned(),
            writable,
            length: AtomicU64::new(length),
            dirty: AtomicBool::new(false),
        })
    }

    /// The seed of its records' checksums.
    pub(super) fn seed(&self) -> u64 {
        self.id.0
    }

    /// Bytes of the file that hold records, its header included.
    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Says that records reach up to here. Called by the one who writes.
    pub(super) fn grow_to(&self, length: u64) {
        self.length.store(length, Ordering::Release);
        self.dirty.store(true, Ordering::Release);
    }

    /// Whether its file has been deleted by somebody.
    pub(super) fn is_deleted(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Has what was written since the last time put on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.file
            .sync_data()
            .inspect_err(|_| self.dirty.store(true, Ordering::Release))
    }

    /// Goes through the records in their order and shows each that is whole, as far as can be said
    /// without the body. Where a header is damaged the next good one is looked for: behind it may
    /// be the note of a purge, without which older objects would come back.
    pub(super) fn scan(&self, each: &mut dyn FnMut(Scanned<'_>)) -> Scan {
        let mut scan = Scan {
            whole: true,
            ..Scan::default()
        };
        let mut window = Window::new(&self.file, self.length());
        let mut at = SEGMENT_HEADER as u64;
        while at < window.length {
            match self.look(&mut window, at) {
                Ok(found) => {
                    scan.records += 1;
                    at += found.header.len();
                    each(Scanned::Record(found));
                }
                Err(Torn::Within(header)) => {
                    scan.skipped += 1;
                    at += header.len();
                    if header.kind == Kind::Note {
                        each(Scanned::Gap);
                    }
                }
                Err(Torn::NoRecord) => {
                    scan.skipped += 1;
                    scan.whole = false;
                    match self.next_header(&mut window, at + 1) {
                        Some(next) => {
                            at = next;
                            each(Scanned::Gap);
                        }
                        None => {
                            if self.is_damaged(&mut window, at) {
                                each(Scanned::Gap);
                            }
                            break;
                        }
                    }
                }
            }
        }
        scan
    }

    /// The record at this place.
    fn look<'a>(&self, window: &'a mut Window<'_>, at: u64) -> Result<Whole<'a>, Torn> {
        let header = window
            .bytes(at, HEADER as u64)
            .and_then(|bytes| Header::decode(bytes, self.seed(), at))
            .map_err(|_| Torn::NoRecord)?;
        // Decoded, so that the sum is a number; cut off, if the file ends before.
        if at + header.len() > window.length {
            return Err(Torn::NoRecord);
        }
        window
            .bytes(at, header.front_len())
            .and_then(|front| header.front(front))
            .map(|(key, meta)| Whole { header, key, meta })
            .map_err(|_| Torn::Within(header))
    }

    /// Whether a whole header at the end was changed after it was written. What was never finished is
    /// cut off within the header or behind it, or nothing but zeros where the power went: nobody was
    /// told of it.
    fn is_damaged(&self, window: &mut Window<'_>, at: u64) -> bool {
        window.bytes(at, HEADER as u64).is_ok_and(|bytes| {
            Header::decode(bytes, self.seed(), at).is_err() && bytes.iter().any(|byte| *byte != 0)
        })
    }

    /// Where the next good header is, if there is one from here on.
    fn next_header(&self, window: &mut Window<'_>, from: u64) -> Option<u64> {
        let header = HEADER as u64;
        let mut at = from;
        while at + header <= window.length {
            let count = WINDOW.min(window.length - at);
            let bytes = window.bytes(at, count).ok()?;
            let good = memmem::find_iter(bytes, &record::MAGIC).find(|found| {
                Header::decode(&bytes[*found..], self.seed(), at + *found as u64).is_ok()
            });
            if let Some(found) = good {
                return Some(at + found as u64);
            }
            // The last bytes could be those of a header that goes on in the next stretch.
            at += count - header + 1;
        }
        None
    }
}

/// A record whose header, key and meta block are as they were written, and whose body has its bytes
/// in the file.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    pub(super) header: Header,
    pub(super) key: &'a [u8],
    pub(super) meta: &'a [u8],
}

/// What a scan shows.
#[derive(Debug)]
pub(super) enum Scanned<'a> {
    Record(Whole<'a>),
    /// Between records there is something that can no longer be read, and that may have held notes.
    Gap,
}

/// What a scan meets instead of a record.
enum Torn {
    /// No header, or one of a record that the file is too short for.
    NoRecord,
    /// A record with this header, but its key or meta block are damaged.
    Within(Header),
}

/// A stretch of a file that was read ahead.
struct Window<'a> {
    file: &'a File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, length: u64) -> Self {
        Self {
            file,
            length,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `count` bytes from `at` on. `count` must be bounded by the caller.
    fn bytes(&mut self, at: u64, count: u64) -> Result<&[u8], Damage> {
        let end = at.checked_add(count).filter(|end| *end <= self.length);
        let end = end.ok_or(Damage::Short)?;
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let wanted = count.max(WINDOW).min(self.length - at);
            self.bytes.clear();
            self.bytes.resize(size(wanted)?, 0);
            self.start = at;
            if self.file.read_exact_at(&mut self.bytes, at).is_err() {
                // A bad sector, or the file has become shorter.
                self.bytes.clear();
                return Err(Damage::Short);
            }
        }
        let from = size(at - self.start)?;
        let range = from..from + size(count)?;
        self.bytes.get(range).ok_or(Damage::Short)
    }
}

fn size(bytes: u64) -> Result<usize, Damage> {
    usize::try_from(bytes).map_err(|_| Damage::Short)
}

fn encode(number: u64, id: u64) -> [u8; SEGMENT_HEADER] {
    let mut out = [0; SEGMENT_HEADER];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&number.to_le_bytes());
    out[24..32].copy_from_slice(&id.to_le_bytes());
    let sum = XxHash3_64::oneshot(&out[..SUM_AT]);
    out[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The id, if this is the header of the segment with this number.
fn decode(header: &[u8; SEGMENT_HEADER], number: u64) -> Option<u64> {
    let id = header[24..32].first_chunk::<8>()?;
    let id = u64::from_le_bytes(*id);
    // Everything in it is known, so it has to be what would be written.
    (encode(number, id) == *header).then_some(id)
}

/// A number that was not there before, from the keys that the standard library makes for its hash
/// maps. Nothing is decided by it; that two differ is all that is asked.
fn random() -> u64 {
    RandomState::new().hash_one(MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_holds_for_its_number_only() {
        let header = encode(7, 99);
        assert_eq!(decode(&header, 7), Some(99));
        assert_eq!(decode(&header, 8), None, "a file under another name");
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut changed = header;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&changed, 7), None, "bit {bit}");
        }
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<u64> = (0..1000).map(|_| random()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn an_address_is_small() {
        assert_eq!(size_of::<Address>(), 16, "there is one for each object");
    }
}
