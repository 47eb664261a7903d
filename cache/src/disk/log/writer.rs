//! The one who writes: where the next record goes, and what goes for it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{NotOurs, Refusal, Shared};
use crate::disk::folder::{Folder, Found, Taken};
use crate::disk::record::Header;
use crate::disk::segment::{Address, SEGMENT_HEADER, Segment, SegmentId};

/// Pieces up to this many bytes are gathered and written together; larger ones are not copied.
const GATHERED: usize = 256 << 10;

/// State of the writer.
#[derive(Debug)]
pub(super) struct Writer {
    folder: Folder,
    size_limit: u64,
    segment_limit: u64,
    shared: Arc<Shared>,
    /// The files, the oldest first.
    files: VecDeque<OnDisk>,
    /// The segment that is written to, which is the last of `files`.
    active: Option<Arc<Segment>>,
    /// Bytes of all files.
    total: u64,
    next_number: u64,
    buffer: Vec<u8>,
}

/// A file that takes room.
#[derive(Debug)]
struct OnDisk {
    /// None if it could be neither opened nor deleted.
    id: Option<SegmentId>,
    path: PathBuf,
    length: u64,
}

impl Writer {
    pub(super) fn new(
        folder: Folder,
        size_limit: u64,
        segment_limit: u64,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            folder,
            size_limit,
            segment_limit,
            shared,
            files: VecDeque::new(),
            active: None,
            total: 0,
            next_number: 0,
            buffer: Vec::new(),
        }
    }

    /// Takes over the files that were found, the oldest first. `recover` reports what is in one, or
    /// that nobody can know it, and says whether it may be written on.
    pub(super) fn adopt(
        &mut self,
        found: Vec<Found>,
        recover: &mut dyn FnMut(Option<&Segment>) -> bool,
    ) {
        let mut excess = found
            .iter()
            .map(|one| one.length)
            .sum::<u64>()
            .saturating_sub(self.size_limit);
        for one in found {
            self.next_number = one.number.saturating_add(1);
            if excess > 0 && remove(&one.path).is_ok() {
                excess = excess.saturating_sub(one.length);
                self.shared.counters.evicted_segments.add(1);
                continue;
            }
            self.active = None;
            let segment = match Segment::open(&one.path, one.number) {
                Ok(segment) => Some(Arc::new(segment)),
                Err(NotOurs::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(why) => {
                    if !matches!(why, NotOurs::Unfinished) {
                        recover(None);
                    }
                    if remove(&one.path).is_ok() {
                        continue;
                    }
                    None
                }
            };
            if let Some(segment) = &segment {
                let whole = recover(Some(segment));
                let room = segment.length() < self.segment_limit;
                self.active = (whole && room && segment.writable).then(|| Arc::clone(segment));
                self.shared.insert(Arc::clone(segment));
            }
            let length = segment.as_ref().map_or(one.length, |one| one.length());
            self.total += length;
            self.files.push_back(OnDisk {
                id: segment.map(|segment| segment.id),
                path: one.path,
                length,
            });
        }
        self.publish();
    }

    /// Lets another process have the folder; nothing is written until [`Writer::take_back`].
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.active = None;
        self.folder.leave()
    }

    /// Takes the folder again, as it is now. What another process has written takes room, and goes
    /// with the oldest; it is not found here. Returns segments that are not there any more.
    pub(super) fn take_back(&mut self) -> Result<Vec<SegmentId>, Taken> {
        self.folder.take_back()?;
        let found = self.folder.segments().map_err(Taken::Io)?;
        let mut before = std::mem::take(&mut self.files);
        self.active = None;
        self.total = 0;
        for one in found {
            self.next_number = self.next_number.max(one.number.saturating_add(1));
            self.total += one.length;
            let known = before.iter().position(|file| file.path == one.path);
            self.files.push_back(OnDisk {
                id: known
                    .and_then(|at| before.remove(at))
                    .and_then(|file| file.id),
                path: one.path,
                length: one.length,
            });
        }
        let gone: Vec<SegmentId> = before.into_iter().filter_map(|file| file.id).collect();
        for id in &gone {
            self.shared.remove(*id);
        }
        self.publish();
        Ok(gone)
    }

    /// Writes a record, whose header gets its place here, and says where it is.
    pub(super) fn append(
        &mut self,
        header: Header,
        key: &[u8],
        meta: &[u8],
        body: &[Bytes],
        evicted: &mut Vec<SegmentId>,
    ) -> Result<Address, Refusal> {
        let mut added = self.try_append(header, [key, meta], body, evicted);
        // A disk with less room than was granted is a smaller limit: the oldest makes way.
        let mut left = self.files.len();
        while added.as_ref().is_err_and(Refusal::is_for_want_of_room) && left > 0 {
            left -= 1;
            if self.files.len() == 1 {
                self.active = None;
            }
            if let Err(refusal) = self.evict(evicted) {
                added = Err(refusal);
                break;
            }
            added = self.try_append(header, [key, meta], body, evicted);
        }
        self.publish();
        added
    }

    fn try_append(
        &mut self,
        header: Header,
        front: [&[u8]; 2],
        body: &[Bytes],
        evicted: &mut Vec<SegmentId>,
    ) -> Result<Address, Refusal> {
        let segment = self.place(header.len(), evicted)?;
        self.write(&segment, header, front, body)
    }

    /// Deletes all files.
    pub(super) fn clear(&mut self, evicted: &mut Vec<SegmentId>) -> Result<(), Refusal> {
        self.active = None;
        let mut cleared = Ok(());
        while cleared.is_ok() && !self.files.is_empty() {
            cleared = self.evict(evicted);
        }
        self.publish();
        cleared
    }

    /// The segment to which a record of this length goes, with room made for it.
    fn place(
        &mut self,
        length: u64,
        evicted: &mut Vec<SegmentId>,
    ) -> Result<Arc<Segment>, Refusal> {
        if let Some(active) = &self.active {
            let end = active.length() + length;
            let alone = active.length() == SEGMENT_HEADER as u64;
            if (end <= self.segment_limit || alone) && !active.is_deleted() {
                let active = Arc::clone(active);
                self.make_room(length, evicted)?;
                return Ok(active);
            }
        }
        self.active = None;
        self.make_room(length + SEGMENT_HEADER as u64, evicted)?;
        self.begin()
    }

    /// Deletes files, the oldest first, until so many bytes more are within the limit. The one that
    /// is written to stays.
    fn make_room(&mut self, bytes: u64, evicted: &mut Vec<SegmentId>) -> Result<(), Refusal> {
        let active = self.active.as_ref().map(|active| active.id);
        while self.total.saturating_add(bytes) > self.size_limit {
            let oldest = self.files.front();
            if oldest.is_none_or(|oldest| active.is_some() && oldest.id == active) {
                break;
            }
            self.evict(evicted)?;
        }
        Ok(())
    }

    /// Deletes the oldest file.
    fn evict(&mut self, evicted: &mut Vec<SegmentId>) -> Result<(), Refusal> {
        let Some(oldest) = self.files.front() else {
            return Ok(());
        };
        remove(&oldest.path).map_err(|source| at(&oldest.path, source))?;
        self.total -= oldest.length;
        if let Some(id) = oldest.id {
            self.shared.remove(id);
            evicted.push(id);
        }
        self.files.pop_front();
        self.shared.counters.evicted_segments.add(1);
        Ok(())
    }

    /// Begins a new segment.
    fn begin(&mut self) -> Result<Arc<Segment>, Refusal> {
        self.folder.hold().map_err(|taken| match taken {
            Taken::ByAnother => Refusal::InUse {
                folder: self.folder.path().to_owned(),
            },
            Taken::Io(source) => at(self.folder.path(), source),
        })?;
        let path = self.folder.segment(self.next_number);
        // Used up even if this fails: what is left of the file must not be met again.
        self.next_number = self.next_number.saturating_add(1);
        let segment = match Segment::create(path.clone(), self.next_number - 1) {
            Ok(segment) => Arc::new(segment),
            Err(source) => {
                if source.kind() != io::ErrorKind::AlreadyExists {
                    // It is of no use, and what cannot be deleted is deleted at the next start.
                    let _ = fs::remove_file(&path);
                }
                return Err(at(&path, source));
            }
        };
        self.total += segment.length();
        self.files.push_back(OnDisk {
            id: Some(segment.id),
            path,
            length: segment.length(),
        });
        self.shared.insert(Arc::clone(&segment));
        self.active = Some(Arc::clone(&segment));
        Ok(segment)
    }

    fn write(
        &mut self,
        segment: &Arc<Segment>,
        header: Header,
        front: [&[u8]; 2],
        body: &[Bytes],
    ) -> Result<Address, Refusal> {
        let begin = segment.length();
        let header = Header {
            offset: begin,
            ..header
        };
        let address = Address::new(segment.id, begin, header.front_len());
        let encoded = header.encode(segment.seed());
        let pieces = [&encoded[..]]
            .into_iter()
            .chain(front)
            .chain(body.iter().map(Bytes::as_ref));
        let written = gather(segment, begin, pieces, &mut self.buffer);
        match (written, address) {
            (Ok(()), Some(address)) => {
                let end = begin + header.len();
                segment.grow_to(end);
                self.settle(end);
                Ok(address)
            }
            (written, _) => {
                let source = written
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::FileTooLarge.into());
                self.undo(segment, begin, header.len(), source.kind());
                Err(at(&segment.path, source))
            }
        }
    }

    /// Cuts off what a failed write left. On a full disk the segment is as good as any other, once
    /// there is room. After other errors, or where it cannot be cut, it is left alone, and the next
    /// record begins a new one.
    fn undo(&mut self, segment: &Segment, begin: u64, length: u64, why: io::ErrorKind) {
        let cut = segment.file.set_len(begin).is_ok();
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&why);
        if cut && full {
            return;
        }
        self.active = None;
        let empty = begin == SEGMENT_HEADER as u64;
        if empty && remove(&segment.path).is_ok() {
            // Else a disk that fails for long would be littered with headers.
            self.shared.remove(segment.id);
            self.settle(0);
            self.files.pop_back();
            return;
        }
        let there = segment.file.metadata().map(|metadata| metadata.len());
        self.settle(there.unwrap_or(begin + length));
    }

    /// Notes the length of the last file.
    fn settle(&mut self, length: u64) {
        if let Some(last) = self.files.back_mut() {
            self.total = self.total - last.length + length;
            last.length = length;
        }
    }

    fn publish(&self) {
        let counters = &self.shared.counters;
        counters.bytes.set(self.total);
        counters.segments.set(self.files.len() as u64);
    }
}

/// Writes pieces one behind the other in as few calls as it takes without copying large ones.
fn gather<'a>(
    segment: &Segment,
    mut at: u64,
    pieces: impl Iterator<Item = &'a [u8]>,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    let mut write = |bytes: &[u8]| {
        segment.file.write_all_at(bytes, at)?;
        at += bytes.len() as u64;
        io::Result::Ok(())
    };
    buffer.clear();
    for piece in pieces {
        if buffer.len() + piece.len() > GATHERED && !buffer.is_empty() {
            write(buffer)?;
            buffer.clear();
        }
        if piece.len() > GATHERED {
            write(piece)?;
        } else {
            buffer.extend_from_slice(piece);
        }
    }
    write(buffer)
}

/// Deletes a file; one that is not there is deleted.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn at(path: &Path, source: io::Error) -> Refusal {
    Refusal::Io {
        path: path.to_owned(),
        source,
    }
}
