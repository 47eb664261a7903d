//! The log: opening, appending, reading, and letting the oldest go.
//!
//! One writer at a time, behind a lock that no reader takes. It writes a record in as few calls as
//! it can, the header first, and only then tells anybody its address. What a failed write left is
//! cut off again; where the disk is not just full, the next record begins a new segment. There is
//! one attempt for each call and no waiting here: whoever appends decides how often to try.
//!
//! After a start the last segment is written on if all of it is whole; else a new one is begun.

use std::collections::HashMap;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use thiserror::Error;
use twox_hash::XxHash3_64;

use self::writer::Writer;
use super::folder::{Folder, Taken};
use super::record::{self, Damage, HEADER, Header, Kind};
use super::segment::{Address, NotOurs, Scanned, Segment, SegmentId, Whole};

mod writer;

/// Bytes of key and meta block together, at most.
pub const MAX_FRONT: usize = record::MAX_FRONT - HEADER;
/// Bytes of a piece of a body that was read, at most.
pub const MAX_PIECE: usize = 1 << 20;

/// Bytes of a segment, at least and at most, where the limit allows.
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 256 << 20);

/// The log in a folder. Share it behind an `Arc`.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    /// Bytes of a record, at most.
    record_limit: u64,
    writer: Mutex<Writer>,
    shared: Arc<Shared>,
    /// So that nobody returns from [`Log::sync`] while another's is still under way.
    syncing: Mutex<()>,
}

/// What readers need.
#[derive(Debug, Default)]
struct Shared {
    segments: RwLock<HashMap<SegmentId, Arc<Segment>>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    bytes: Count,
    segments: Count,
    appended: Count,
    append_errors: Count,
    corrupt_reads: Count,
    evicted_segments: Count,
    recovered: Count,
    skipped: Count,
    discarded_segments: Count,
}

/// A number for the statistics, which says nothing about other memory.
#[derive(Debug, Default)]
struct Count(AtomicU64);

/// Sizes now, and counters since the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Records appended, notes included.
    pub appended: u64,
    /// Records that could not be appended; those too large do not count.
    pub append_errors: u64,
    /// Reads that found damage.
    pub corrupt_reads: u64,
    /// Segments deleted to make room, or by [`Log::clear`].
    pub evicted_segments: u64,
    /// Records that were there when the log was opened.
    pub recovered: u64,
    /// Records that were damaged or cut off when the log was opened. Several in a row without a
    /// good header count as one.
    pub skipped: u64,
    /// Segments that were deleted when the log was opened, since they could not be opened or are in
    /// another version of the format.
    pub discarded_segments: u64,
}

/// What was there when the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered<'a> {
    /// An object. Its body has not been looked at.
    Object {
        /// Where to read it.
        address: Address,
        /// The key.
        key: &'a [u8],
        /// The meta block.
        meta: &'a [u8],
        /// Bytes of the body.
        body_len: u64,
    },
    /// A note.
    Note(&'a [u8]),
    /// Here something can no longer be read, of which notes may have been a part. Whoever must not
    /// miss one forgets the objects that were reported before. Damage to files does this; a process
    /// that was killed, or a record that was not finished, does not.
    Gap,
}

/// An object that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where to read it.
    pub address: Address,
    /// The segments that had to go, with all that was in them.
    pub evicted: Vec<SegmentId>,
}

/// An object that was read, every byte of it as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The key.
    pub key: Bytes,
    /// The meta block.
    pub meta: Bytes,
    /// The body, in pieces of [`MAX_PIECE`] and a rest; none if it is empty.
    pub body: Vec<Bytes>,
}

/// Why a log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another [`Log`] of this one, has it open.
    #[error("{}: another process uses this folder; give each its own", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// It cannot be created, locked or listed.
    #[error("{}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A record that was not appended.
#[derive(Debug, Error)]
#[error("{refusal}")]
pub struct AppendError {
    /// The segments that went all the same, before it failed.
    pub evicted: Vec<SegmentId>,
    /// Why.
    #[source]
    pub refusal: Refusal,
}

/// Why a record was not appended.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It is larger than an eighth of the size limit, or its key and meta block than [`MAX_FRONT`].
    #[error("a record of {length} bytes is too large: {limit} are allowed")]
    TooLarge {
        /// Bytes of the part that is too large.
        length: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The folder was removed, made again and taken by another process.
    #[error("{}: another process has taken this folder", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The system did not do it: the disk is full, the folder cannot be written, …
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an object could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Its segment was evicted.
    #[error("the object has left the disk")]
    Gone,
    /// It is not as it was appended.
    #[error("the object is damaged: {0}")]
    Corrupt(#[from] Damage),
    /// The system did not read it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Refusal {
    /// Whether it would have been written on a disk with more room.
    fn is_for_want_of_room(&self) -> bool {
        let full = |kind| {
            matches!(
                kind,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        matches!(self, Self::Io { source, .. } if full(source.kind()))
    }
}

impl Log {
    /// Opens the log in `folder`, which is made if it is missing, and reports every record that is
    /// there to `on_record`, in the order in which they were appended. `size_limit` is in bytes, and
    /// all files together never exceed it; what is above it is deleted first, from the oldest on.
    ///
    /// Reads headers, keys and meta blocks, not bodies (but what of small ones lies between).
    ///
    /// # Errors
    /// When the folder cannot be had. What is wrong with single files is counted in [`Stats`].
    pub fn open(
        folder: &Path,
        size_limit: u64,
        on_record: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io {
            folder: folder.to_owned(),
            source,
        };
        let held = Folder::take(folder).map_err(|taken| refused(folder, taken))?;
        let found = held.segments().map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let segment_limit = segment_limit(size_limit);
        let mut writer = Writer::new(held, size_limit, segment_limit, Arc::clone(&shared));
        writer.adopt(found, &mut |segment| {
            recover(segment, &shared.counters, on_record)
        });
        Ok(Self {
            folder: folder.to_owned(),
            record_limit: size_limit / 8,
            writer: Mutex::new(writer),
            shared,
            syncing: Mutex::default(),
        })
    }

    /// Appends an object. The body may come in any pieces. Waits for other appends, and for the
    /// disk; the checksums are made before.
    ///
    /// # Errors
    /// When it is too large or the system does not write it. Nothing of it is there then, and the
    /// next may be tried at once: it makes one attempt of its own.
    pub fn append(&self, key: &[u8], meta: &[u8], body: &[Bytes]) -> Result<Appended, AppendError> {
        let (address, evicted) = self.add(Kind::Object, key, meta, body)?;
        Ok(Appended { address, evicted })
    }

    /// Appends a note, which [`Log::open`] will report between the objects before and after it.
    /// Returns the segments that had to go. To have it outlive a loss of power, call [`Log::sync`].
    ///
    /// # Errors
    /// As for [`Log::append`].
    pub fn note(&self, note: &[u8]) -> Result<Vec<SegmentId>, AppendError> {
        let (_, evicted) = self.add(Kind::Note, &[], note, &[])?;
        Ok(evicted)
    }

    /// Reads an object, and checks every byte.
    ///
    /// # Errors
    /// When it is not there any more, or not as it was. Whoever gets [`ReadError::Corrupt`] may
    /// forget the address.
    pub fn read(&self, address: Address) -> Result<Object, ReadError> {
        let segment = {
            let segments = self.shared.segments.read();
            let segments = segments.unwrap_or_else(PoisonError::into_inner);
            segments.get(&address.segment()).map(Arc::clone)
        };
        let read = read(&*segment.ok_or(ReadError::Gone)?, address);
        if let Err(ReadError::Corrupt(_)) = read {
            self.shared.counters.corrupt_reads.add(1);
        }
        read
    }

    /// Has everything that was appended before this call written to the disk, so that it outlives a
    /// loss of power. Neither reads nor appends wait for it.
    ///
    /// # Errors
    /// When the system says that it is not certain.
    pub fn sync(&self) -> io::Result<()> {
        let _turn = lock(&self.syncing);
        let segments: Vec<_> = {
            let segments = self.shared.segments.read();
            let segments = segments.unwrap_or_else(PoisonError::into_inner);
            segments.values().map(Arc::clone).collect()
        };
        segments.iter().try_for_each(|segment| segment.sync())?;
        Folder::sync(&self.folder)
    }

    /// Deletes all segments, notes included, and returns them. This needs no room on the disk.
    ///
    /// # Errors
    /// When the system does not delete one; those before it are gone.
    pub fn clear(&self) -> Result<Vec<SegmentId>, AppendError> {
        let mut evicted = Vec::new();
        match lock(&self.writer).clear(&mut evicted) {
            Ok(()) => Ok(evicted),
            Err(refusal) => Err(AppendError { evicted, refusal }),
        }
    }

    /// Lets another process open the log. What was appended can still be read here; nothing may be
    /// appended until [`Log::take_back`].
    ///
    /// # Errors
    /// The system does not give up the lock.
    pub(super) fn leave(&self) -> io::Result<()> {
        lock(&self.writer).leave()
    }

    /// Has the log again after [`Log::leave`]. Returns the segments that went meanwhile.
    ///
    /// # Errors
    /// Another process has it, or the folder cannot be listed.
    pub(super) fn take_back(&self) -> Result<Vec<SegmentId>, OpenError> {
        lock(&self.writer)
            .take_back()
            .map_err(|taken| refused(&self.folder, taken))
    }

    /// Sizes and counters.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        Stats {
            bytes: counters.bytes.value(),
            segments: counters.segments.value(),
            appended: counters.appended.value(),
            append_errors: counters.append_errors.value(),
            corrupt_reads: counters.corrupt_reads.value(),
            evicted_segments: counters.evicted_segments.value(),
            recovered: counters.recovered.value(),
            skipped: counters.skipped.value(),
            discarded_segments: counters.discarded_segments.value(),
        }
    }

    fn add(
        &self,
        kind: Kind,
        key: &[u8],
        meta: &[u8],
        body: &[Bytes],
    ) -> Result<(Address, Vec<SegmentId>), AppendError> {
        let mut evicted = Vec::new();
        let counters = &self.shared.counters;
        let added = self.header(kind, key, meta, body).and_then(|header| {
            let added = lock(&self.writer).append(header, key, meta, body, &mut evicted);
            let counter = match added {
                Ok(_) => &counters.appended,
                Err(_) => &counters.append_errors,
            };
            counter.add(1);
            added
        });
        match added {
            Ok(address) => Ok((address, evicted)),
            Err(refusal) => Err(AppendError { evicted, refusal }),
        }
    }

    /// The header of a record that may be appended; its place is still open.
    fn header(
        &self,
        kind: Kind,
        key: &[u8],
        meta: &[u8],
        body: &[Bytes],
    ) -> Result<Header, Refusal> {
        let front = key.len().saturating_add(meta.len());
        let (Ok(key_len), Ok(meta_len), true) = (
            u32::try_from(key.len()),
            u32::try_from(meta.len()),
            front <= MAX_FRONT,
        ) else {
            return Err(Refusal::TooLarge {
                length: front as u64,
                limit: MAX_FRONT as u64,
            });
        };
        let mut header = Header {
            kind,
            key: key_len,
            meta: meta_len,
            body: body.iter().map(|piece| piece.len() as u64).sum(),
            offset: 0,
            front_sum: 0,
            body_sum: 0,
        };
        if header.len() > self.record_limit {
            return Err(Refusal::TooLarge {
                length: header.len(),
                limit: self.record_limit,
            });
        }
        header.front_sum = record::sum([key, meta]);
        header.body_sum = record::sum(body.iter().map(Bytes::as_ref));
        Ok(header)
    }
}

fn refused(folder: &Path, taken: Taken) -> OpenError {
    let folder = folder.to_owned();
    match taken {
        Taken::ByAnother => OpenError::InUse { folder },
        Taken::Io(source) => OpenError::Io { folder, source },
    }
}

/// Bytes of a segment: as many that about 32 of them fill the limit, within bounds. A quarter of a
/// very small limit, so that there is always an older one that can go.
fn segment_limit(size_limit: u64) -> u64 {
    let (least, most) = SEGMENT_BYTES;
    (size_limit / 32).clamp(least, most).min(size_limit / 4)
}

/// Reports what is in a segment, or that one is lost. Returns whether it can be written on.
fn recover(
    segment: Option<&Segment>,
    counters: &Counters,
    on_record: &mut dyn FnMut(Recovered<'_>),
) -> bool {
    let Some(segment) = segment else {
        counters.discarded_segments.add(1);
        on_record(Recovered::Gap);
        return false;
    };
    let scan = segment.scan(&mut |scanned| match scanned {
        Scanned::Gap => on_record(Recovered::Gap),
        Scanned::Record(found) if found.header.kind == Kind::Note => {
            on_record(Recovered::Note(found.meta));
        }
        Scanned::Record(Whole { header, key, meta }) => {
            // None of ours is further back than an address can say.
            if let Some(address) = Address::new(segment.id, header.offset, header.front_len()) {
                on_record(Recovered::Object {
                    address,
                    key,
                    meta,
                    body_len: header.body,
                });
            }
        }
    });
    counters.recovered.add(scan.records);
    counters.skipped.add(scan.skipped);
    scan.whole
}

fn read(segment: &Segment, address: Address) -> Result<Object, ReadError> {
    let (at, front_len) = (address.offset(), address.front());
    if at + front_len as u64 > segment.length() {
        return Err(Damage::Other.into());
    }
    let mut front = vec![0; front_len];
    fill(segment, &mut front, at)?;
    let header = Header::decode(&front, segment.seed(), at)?;
    let same = header.kind == Kind::Object && header.front_len() == front_len as u64;
    if !same || header.len() > segment.length() - at {
        return Err(Damage::Other.into());
    }
    let (key, _) = header.front(&front)?;
    let meta_at = HEADER + key.len();
    let body = read_body(segment, &header, at + front_len as u64)?;
    let front = Bytes::from(front);
    Ok(Object {
        key: front.slice(HEADER..meta_at),
        meta: front.slice(meta_at..),
        body,
    })
}

fn read_body(segment: &Segment, header: &Header, mut at: u64) -> Result<Vec<Bytes>, ReadError> {
    let mut sum = XxHash3_64::new();
    let mut body = Vec::new();
    let mut left = header.body;
    while left > 0 {
        let count = usize::try_from(left).map_or(MAX_PIECE, |left| left.min(MAX_PIECE));
        let mut piece = vec![0; count];
        fill(segment, &mut piece, at)?;
        sum.write(&piece);
        body.push(piece.into());
        at += count as u64;
        left -= count as u64;
    }
    if sum.finish() == header.body_sum {
        Ok(body)
    } else {
        Err(Damage::Body.into())
    }
}

fn fill(segment: &Segment, buffer: &mut [u8], at: u64) -> Result<(), ReadError> {
    match segment.file.read_exact_at(buffer, at) {
        Ok(()) => Ok(()),
        // Somebody has cut the file.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Damage::Short.into()),
        Err(error) => Err(error.into()),
    }
}

impl Shared {
    fn insert(&self, segment: Arc<Segment>) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.insert(segment.id, segment);
    }

    fn remove(&self, id: SegmentId) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let removed = segments.remove(&id);
        drop(segments);
        // Closing the last handle of a deleted file frees its blocks, which may take a while.
        drop(removed);
    }
}

impl Count {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Nothing is left half-changed by a panic that would make the contents unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
