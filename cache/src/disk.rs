//! The disk tier: an index in memory ([`Disk`]) over an append-only log of objects in segment files
//! ([`Log`]).
//!
//! A cache may lose what it holds, but must never give out what it did not take in. From this
//! follows the form: records are only ever added at the end, each under checksums and bound to its
//! place, so that what a crash, a full disk or a bad sector leaves behind reads as an error. When
//! the disk space that was granted is used up, the oldest file goes as a whole; nothing is ever
//! moved or rewritten.
//!
//! The log knows no HTTP: a record is a key, a `meta` block and a body, and what they mean is for
//! whoever puts an index on top. For that index [`Log::open`] tells all that is there, in the order
//! in which it came. A purge that must outlive a restart is a [note](Log::note) between the objects:
//! what was reported before it is older. As the oldest goes first, a note goes only after every
//! object that it could concern. Where damage may have swallowed a note, [`Recovered::Gap`] is
//! reported in its place.
//!
//! **What survives.** The kill of the process, at any moment: all records that were appended. The
//! loss of power: what the kernel had written out, since no record is synced for its own sake; who
//! wants certainty, as for a purge, calls [`Log::sync`]. What did not survive is found out by the
//! checksums and is no object.
//!
//! **Calls block**, as files do: they belong on threads that may wait. Readers share nothing with
//! the one writer but a table of open files, which is locked for the change of a pointer only. One
//! file is open for each segment, and there are about 32 of them, or one for each 256 MiB where the
//! limit is above 8 GiB.
//!
//! Checksums are XXH3 with 64 bits. They are there against accidents; against somebody who may
//! write to the folder, nothing here helps.

mod folder;
mod log;
mod note;
mod record;
mod segment;
mod tier;

pub use self::log::{
    AppendError, Appended, Log, MAX_FRONT, MAX_PIECE, Object, OpenError, ReadError, Recovered,
    Refusal, Stats,
};
pub use self::record::Damage;
pub use self::segment::{Address, SegmentId};
pub use self::tier::{Disk, Figures, Found, Settings};
