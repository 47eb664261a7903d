//! Files of the real file system, held inside the root by the kernel.
//!
//! `openat2` with `RESOLVE_BENEATH` resolves a name and refuses to leave the root in one
//! step, so that no link swapped in between can slip through. It also refuses absolute links
//! that lead back inside, which releases are often switched with; for those, and on kernels
//! or in sandboxes without the call, the real path is worked out and compared with the
//! root's. The root itself may be a link that a deploy flips: it is resolved anew before each
//! group of looks or, where changes are watched for, as soon as it leads elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, open, openat, openat2, stat,
};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, preadv2};
use rustix::time::{ClockId, clock_gettime};

use super::list::list;
use super::watch::{Directory, News, Sign, Watches};
use super::{Age, Facts, Files, Found, Listed, Trouble};

/// File systems stamp changes with steps from a few milliseconds up to two seconds (FAT).
const SETTLING: Duration = Duration::from_secs(2);

/// How often a file that changes while it is read is tried.
const READ_ATTEMPTS: u32 = 3;

/// How often it is looked whether the root's name leads elsewhere, for all that no event tells: a
/// link further up its path that is flipped.
const ROOT_LOOK: Duration = Duration::from_millis(500);

/// After how many waits that ended with events the same is looked at nevertheless.
const MOST_HEARD: u32 = 64;

/// The tree below a directory.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    /// The directory that the root's name led to when it was last resolved.
    opened: Mutex<Option<Arc<OwnedFd>>>,
    watches: Option<Watches>,
}

impl Disk {
    /// The tree below `root`, which need not exist yet. Nothing is watched.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            opened: Mutex::default(),
            watches: None,
        }
    }

    /// The tree below `root`, which exists. Changes are watched for by a thread of its own, as
    /// long as the tree is in use; where the system does not tell them, as if by [`Disk::new`].
    pub fn watched(root: PathBuf) -> Arc<Self> {
        let mut disk = Self::new(root);
        disk.watches = match disk.can_be_watched() {
            true => Watches::new().ok(),
            false => None,
        };
        let disk = Arc::new(disk);
        if disk.watches.is_some() {
            disk.watch_root();
            let weak = Arc::downgrade(&disk);
            let name = "files".to_owned();
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || keep_watch(&weak));
            if let Err(error) = thread {
                tracing::warn!(%error, "no thread to watch for changes of files");
                return Arc::new(Self::new(disk.root.clone()));
            }
        }
        disk
    }

    /// What other machines do to a network file system is not told here.
    fn can_be_watched(&self) -> bool {
        const REMOTE: [u32; 8] = [
            0x0000_6969, // NFS
            0x0000_517b, // SMB
            0xff53_4d42, // CIFS
            0xfe53_4d42, // SMB2
            0x0102_1997, // 9p
            0x00c3_6400, // Ceph
            0x6573_5546, // FUSE
            0x0bd0_0bd0, // Lustre
        ];
        let kind = self
            .opened()
            .and_then(|root| fstatfs(&*root).map_err(trouble));
        kind.is_ok_and(|kind| {
            !REMOTE
                .iter()
                .any(|&remote| kind.f_type.cast_unsigned() == u64::from(remote))
        })
    }

    /// Where the root's own name stands, a flip of it is told at once.
    fn watch_root(&self) {
        let (Some(watches), Some(name)) = (&self.watches, self.root.file_name()) else {
            return;
        };
        let parent = match self.root.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if let Ok(parent) = directory(parent) {
            watches.above(&parent, name.as_bytes());
        }
    }

    /// Takes the root's name to lead where it leads now.
    fn follow_root(&self) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        let before = opened.as_ref().and_then(|root| fstat(&**root).ok());
        let now = stat(&self.root).ok();
        if before.map(identity) != now.map(identity) {
            *opened = None;
            if let Some(watches) = &self.watches {
                watches.clear();
            }
        }
    }

    fn watched_directory(&self, path: &str) -> Option<Arc<Directory>> {
        let watches = self.watches.as_ref()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        // A directory behind a link is not watched: the link could be flipped anywhere on its way.
        watches.directory(path, || match self.beneath(path, flags) {
            Ok((fd, false)) => Some(fd),
            _ => None,
        })
    }

    fn opened(&self) -> Result<Arc<OwnedFd>, Trouble> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = &*opened {
            return Ok(Arc::clone(root));
        }
        let root = Arc::new(directory(&self.root)?);
        *opened = Some(Arc::clone(&root));
        Ok(root)
    }

    /// Opens `path` beneath the root; whether a link led there.
    pub(super) fn beneath(&self, path: &str, flags: OFlags) -> Result<(OwnedFd, bool), Trouble> {
        let flags = flags | OFlags::CLOEXEC;
        let path = if path.is_empty() { "." } else { path };
        let root = self.opened()?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let straight = resolve | ResolveFlags::NO_SYMLINKS;
        match openat2(&root, path, flags, Mode::empty(), straight) {
            Ok(file) => return Ok((file, false)),
            Err(Errno::LOOP | Errno::XDEV | Errno::AGAIN | Errno::NOSYS | Errno::PERM) => {}
            Err(errno) => return Err(trouble(errno)),
        }
        self.by_links(&root, path, flags, resolve)
            .map(|file| (file, true))
    }

    /// Opens `path`, which symbolic links are on the way to.
    fn by_links(
        &self,
        root: &OwnedFd,
        path: &str,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Trouble> {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Ok(file) => Ok(file),
            // A link that leaves the root or is absolute; a rename in between; no such call.
            Err(Errno::XDEV | Errno::AGAIN | Errno::NOSYS | Errno::PERM) => {
                self.by_real_path(path, flags)
            }
            Err(errno) => Err(trouble(errno)),
        }
    }

    /// Resolves every link by name, and opens what is inside without following any.
    fn by_real_path(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Trouble> {
        let root = self.root.canonicalize().map_err(io_trouble)?;
        let real = root.join(path).canonicalize().map_err(io_trouble)?;
        let inside = real.strip_prefix(&root).map_err(|_| Trouble::Escapes)?;
        let inside = if inside.as_os_str().is_empty() {
            Path::new(".")
        } else {
            inside
        };
        let root = directory(&root)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&root, inside, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => {
                openat(&root, inside, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(trouble)
            }
            result => result.map_err(trouble),
        }
    }
}

impl Files for Disk {
    fn refresh(&self) {
        if self.watches.is_none() {
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn sign(&self, directory: &str, name: &str) -> Option<Sign> {
        Some(self.watched_directory(directory)?.sign(name))
    }

    fn sign_of_all(&self, directory: &str) -> Option<Sign> {
        Some(self.watched_directory(directory)?.sign_of_all())
    }

    fn look(&self, path: &str) -> Result<Found, Trouble> {
        // O_PATH touches neither a pipe's other end nor a device.
        let (file, linked) = self.beneath(path, OFlags::PATH)?;
        let stat = fstat(&file).map_err(trouble)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Found::File(Facts {
                linked,
                ..facts(&stat)
            })),
            FileType::Directory => Ok(Found::Directory),
            _ => Err(Trouble::Special),
        }
    }

    fn read(&self, path: &str, limit: u64) -> Result<(Bytes, Facts), Trouble> {
        let (file, mut before) = self.open(path)?;
        for _ in 0..READ_ATTEMPTS {
            if before.len > limit {
                break;
            }
            let len = usize::try_from(before.len).map_err(|_| Trouble::Unstable)?;
            let content = read_whole(&file, len)?;
            let after = regular(file.as_fd())?;
            if content.len() == len && before.identical(&after) {
                return Ok((
                    content,
                    Facts {
                        linked: before.linked,
                        ..after
                    },
                ));
            }
            before = Facts {
                linked: before.linked,
                ..after
            };
        }
        Err(Trouble::Unstable)
    }

    fn open(&self, path: &str) -> Result<(Arc<File>, Facts), Trouble> {
        // O_NONBLOCK keeps a pipe that took the file's place since from holding us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let (file, linked) = self.beneath(path, flags)?;
        let facts = regular(file.as_fd())?;
        Ok((Arc::new(File::from(file)), Facts { linked, ..facts }))
    }

    fn list(&self, path: &str, limit: usize) -> Result<Listed, Trouble> {
        list(self, path, limit)
    }
}

/// The work of the thread that watches: it ends with the tree.
fn keep_watch(disk: &Weak<Disk>) {
    let mut heard = 0_u32;
    while let Some(disk) = disk.upgrade() {
        let Some(watches) = &disk.watches else {
            return;
        };
        match watches.wait(ROOT_LOOK) {
            // Among many events the time for a look would never come.
            Ok(News::Below) if heard < MOST_HEARD => heard += 1,
            Ok(_) => {
                heard = 0;
                disk.follow_root();
            }
            Err(errno) => {
                // No event may be lost without a word: what was believed is not any more.
                let root = disk.root.display();
                tracing::warn!(%errno, %root, "changes of files are not told");
                watches.stop();
                return;
            }
        }
    }
}

/// Reads up to `max` bytes at `offset` of a file that is still in the state `expected`.
///
/// # Errors
///
/// `InvalidData` where the file has changed: bytes of two states are never sent as one.
/// `UnexpectedEof` where nothing is left to read.
pub(crate) fn read_unchanged(
    file: &File,
    expected: &Facts,
    offset: u64,
    max: usize,
) -> io::Result<Bytes> {
    let read = pread(file, offset, max);
    let now = regular(file.as_fd()).map_err(io::Error::other)?;
    if !expected.identical(&now) {
        let text = "the file changed while it was sent";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    read
}

/// Reads up to `max` bytes at `offset`. `UnexpectedEof` where there are none.
pub(crate) fn pread(file: &File, offset: u64, max: usize) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(max);
    match rustix::io::pread(file, spare_capacity(&mut buffer), offset)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(Bytes::from(buffer)),
    }
}

/// The same, of what is in the page cache alone: `WouldBlock` where the disk had to be asked.
pub(crate) fn read_cached(file: &File, offset: u64, max: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; max];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    match preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            buffer.truncate(count);
            Ok(Bytes::from(buffer))
        }
    }
}

/// Whether the file behind a descriptor is still in the state `expected`.
pub(crate) fn unchanged(file: &File, expected: &Facts) -> bool {
    regular(file.as_fd()).is_ok_and(|now| expected.identical(&now))
}

/// The facts of an open file as they are now.
pub(crate) fn facts_of(file: &File) -> Result<Facts, Trouble> {
    regular(file.as_fd())
}

/// Reads `len` bytes from the start, fewer where the file ends before.
fn read_whole(file: &File, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0_u8; len];
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read_at(free, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}

fn directory(path: &Path) -> Result<OwnedFd, Trouble> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(trouble)
}

/// The facts of an open file, which must be a regular one.
fn regular(file: BorrowedFd<'_>) -> Result<Facts, Trouble> {
    let stat = fstat(file).map_err(trouble)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(facts(&stat)),
        FileType::Directory => Err(Trouble::Missing),
        _ => Err(Trouble::Special),
    }
}

pub(super) fn facts(stat: &Stat) -> Facts {
    let modified = time(stat.st_mtime, stat.st_mtime_nsec);
    Facts {
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified,
        changed: time(stat.st_ctime, stat.st_ctime_nsec),
        inode: stat.st_ino,
        linked: false,
        age: age(modified),
    }
}

/// Seconds and nanoseconds since 1970; the seconds may be negative.
fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(nanoseconds)))
        .unwrap_or(UNIX_EPOCH)
}

/// Compares with the clock that the kernel stamps files with: whether a stamp is young is a
/// fact of the file system, as the stamp itself is, and no decision's `now`.
fn age(modified: SystemTime) -> Age {
    let stamp = clock_gettime(ClockId::RealtimeCoarse);
    let now = time(stamp.tv_sec, u64::try_from(stamp.tv_nsec).unwrap_or(0));
    match now.duration_since(modified) {
        Ok(age) if age > SETTLING => Age::Settled,
        Ok(_) => Age::Fresh,
        Err(ahead) if ahead.duration() > SETTLING => Age::Future,
        Err(_) => Age::Fresh,
    }
}

fn io_trouble(error: io::Error) -> Trouble {
    Errno::from_io_error(&error).map_or(Trouble::Io(error), trouble)
}

pub(super) fn trouble(errno: Errno) -> Trouble {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL => {
            Trouble::Missing
        }
        Errno::XDEV => Trouble::Escapes,
        Errno::ACCESS | Errno::PERM => Trouble::Forbidden,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Trouble::Exhausted,
        Errno::NXIO | Errno::NODEV => Trouble::Special,
        Errno::AGAIN => Trouble::Unstable,
        errno => Trouble::Io(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree `root/` with a file, and a secret beside it.
    fn tree() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("a.txt"), "a").unwrap();
        fs::write(root.join("sub/b.txt"), "bb").unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let disk = Disk::new(root);
        (dir, disk)
    }

    fn content(disk: &Disk, path: &str) -> Result<Bytes, Trouble> {
        disk.read(path, 1_000).map(|(content, _)| content)
    }

    #[test]
    fn files_and_directories_are_told_apart() {
        let (_dir, disk) = tree();
        assert!(matches!(disk.look("a.txt"), Ok(Found::File(f)) if f.len == 1));
        assert!(matches!(disk.look("sub"), Ok(Found::Directory)));
        assert!(matches!(disk.look(""), Ok(Found::Directory)));
        assert!(matches!(disk.look("none"), Err(Trouble::Missing)));
        assert!(matches!(disk.look("a.txt/x"), Err(Trouble::Missing)));
        assert!(matches!(disk.look(&"x".repeat(300)), Err(Trouble::Missing)));
    }

    #[test]
    fn links_inside_are_followed_and_links_out_are_not() {
        let (dir, disk) = tree();
        let root = dir.path().join("root");
        symlink("sub/b.txt", root.join("relative")).unwrap();
        symlink(root.join("sub/b.txt"), root.join("absolute")).unwrap();
        symlink(&root, root.join("itself")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink(dir.path().join("secret"), root.join("far")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();

        assert_eq!(content(&disk, "relative").unwrap(), "bb");
        assert_eq!(content(&disk, "absolute").unwrap(), "bb");
        assert_eq!(content(&disk, "itself/a.txt").unwrap(), "a");
        for name in ["out", "far", "up/secret", "up/root/../secret"] {
            assert!(
                matches!(content(&disk, name), Err(Trouble::Escapes)),
                "{name}"
            );
        }
        assert!(matches!(content(&disk, "loop"), Err(Trouble::Missing)));
    }

    #[test]
    fn a_root_that_is_a_link_may_be_flipped() {
        let (dir, _) = tree();
        for (release, text) in [("one", "1"), ("two", "2")] {
            fs::create_dir(dir.path().join(release)).unwrap();
            fs::write(dir.path().join(release).join("f"), text).unwrap();
        }
        let link = dir.path().join("current");
        symlink(dir.path().join("one"), &link).unwrap();
        let disk = Disk::new(link.clone());
        assert_eq!(content(&disk, "f").unwrap(), "1");
        fs::remove_file(&link).unwrap();
        symlink(dir.path().join("two"), &link).unwrap();
        disk.refresh();
        assert_eq!(content(&disk, "f").unwrap(), "2");
    }

    #[test]
    fn a_pipe_and_a_socket_are_refused_at_once() {
        let (dir, disk) = tree();
        let root = dir.path().join("root");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("pipe"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        for name in ["pipe", "socket"] {
            assert!(matches!(disk.look(name), Err(Trouble::Special)), "{name}");
            assert!(matches!(disk.open(name), Err(Trouble::Special)), "{name}");
        }
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read() {
        let (_dir, disk) = tree();
        assert!(matches!(disk.read("sub/b.txt", 1), Err(Trouble::Unstable)));
    }

    #[test]
    fn a_change_under_a_descriptor_is_noticed() {
        let (dir, disk) = tree();
        let (file, facts) = disk.open("sub/b.txt").unwrap();
        assert_eq!(read_unchanged(&file, &facts, 1, 10).unwrap(), "b");
        fs::write(dir.path().join("root/sub/b.txt"), "longer").unwrap();
        let error = read_unchanged(&file, &facts, 0, 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn young_old_and_future_times_are_told_apart() {
        let (dir, disk) = tree();
        let path = dir.path().join("root/a.txt");
        let age = || match disk.look("a.txt") {
            Ok(Found::File(facts)) => facts.age,
            other => panic!("{other:?}"),
        };
        assert_eq!(age(), Age::Fresh);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH - Duration::from_secs(5))
            .unwrap();
        assert_eq!(age(), Age::Settled);
        file.set_modified(UNIX_EPOCH + Duration::from_secs(9_000_000_000))
            .unwrap();
        assert_eq!(age(), Age::Future);
    }

    #[test]
    fn times_before_1970_keep_their_order() {
        assert!(time(-1, 0) < time(-1, 5) && time(-1, 5) < time(0, 0));
    }
}
