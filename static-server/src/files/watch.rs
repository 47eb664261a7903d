//! What changes below a root, told by the kernel (inotify(7)) instead of asked for.
//!
//! Whoever looks at a name takes a [`Sign`] of it first. An event about that name puts the sign
//! out, and the next request looks again; while it is lit, what was seen is still so, and costs no
//! system call. Signs are kept for groups of names, 64 to a directory, so that a directory of a
//! hundred thousand files needs no more room than one of ten: an event about one name puts out
//! those of a few others too, which costs each of them one look. A file and its precompressed
//! copies are in one group.
//!
//! What inotify does not tell: writes through a memory map or through another name of the file
//! (hard link), and what other machines do to a network file system. The first two are bounded by a
//! look once a minute (see `resource.rs`), on the last nothing is watched. Nor is what a symbolic link
//! below the root leads to.
//!
//! The `notify` crate is not used: it watches for every opening of a file too, and our own
//! openings would wake it each time.

use std::collections::{BTreeMap, HashMap};
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::dictionary::Delta;
use crate::encoding::Encoding;

/// Groups of names in a directory.
const GROUPS: usize = 64;

/// The group of all of them.
const ALL: usize = GROUPS;

/// How many directories of one root are watched; in others one looks. The kernel's own bound
/// (fs.inotify.max_user_watches) is for the whole user.
const MOST_DIRECTORIES: usize = 8_192;

/// How long events are gathered.
const GATHERING: Duration = Duration::from_millis(2);

/// How much of the queue of events is taken at once.
const EVENTS: usize = 16 * 1_024;

/// A directory that is watched.
#[derive(Debug)]
pub struct Directory {
    /// How often something in each group changed, and anything at all.
    changes: [AtomicU32; GROUPS + 1],
    /// A bit for each group that may have compressed copies of files; all until it was read.
    packed: AtomicU64,
}

/// What was known of a group of names at a moment.
#[derive(Clone, Debug)]
pub struct Sign {
    directory: Arc<Directory>,
    group: usize,
    changes: u32,
}

impl Sign {
    /// Whether a file of the group may have compressed copies beside it.
    pub(crate) fn may_be_packed(&self) -> bool {
        let packed = self.directory.packed.load(Ordering::Acquire);
        packed >> self.group & 1 == 1
    }

    /// Whether nothing has changed since.
    pub fn is_lit(&self) -> bool {
        self.directory
            .changes
            .get(self.group)
            .is_some_and(|changes| changes.load(Ordering::Acquire) == self.changes)
    }
}

impl Directory {
    fn new() -> Self {
        Self {
            changes: std::array::from_fn(|_| AtomicU32::new(0)),
            packed: AtomicU64::new(u64::MAX),
        }
    }

    /// Reads which groups have compressed copies. Nothing is missed: what comes while this reads
    /// is told by an event, which is heard by the same thread afterwards.
    fn read(&self, path: &OwnedFd) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(fd) = openat(path, ".", flags, Mode::empty()) else {
            return;
        };
        let Ok(names) = Dir::new(fd) else {
            return;
        };
        let mut packed = 0;
        for name in names {
            let Ok(name) = name else {
                return;
            };
            packed |= packed_bit(name.file_name().to_bytes());
        }
        self.packed.store(packed, Ordering::Release);
    }

    pub(super) fn sign(self: &Arc<Self>, name: &str) -> Sign {
        self.sign_of(group(name.as_bytes()))
    }

    /// A sign of all names.
    pub(super) fn sign_of_all(self: &Arc<Self>) -> Sign {
        self.sign_of(ALL)
    }

    fn sign_of(self: &Arc<Self>, group: usize) -> Sign {
        Sign {
            changes: self
                .changes
                .get(group)
                .map_or(0, |changes| changes.load(Ordering::Acquire)),
            directory: Arc::clone(self),
            group,
        }
    }

    fn changed(&self, name: &[u8]) {
        self.packed.fetch_or(packed_bit(name), Ordering::Release);
        for group in [group(name), ALL] {
            if let Some(changes) = self.changes.get(group) {
                changes.fetch_add(1, Ordering::Release);
            }
        }
    }

    fn all_changed(&self) {
        for changes in &self.changes {
            changes.fetch_add(1, Ordering::Release);
        }
    }
}

/// The bit of a compressed copy's group; none for other names.
fn packed_bit(name: &[u8]) -> u64 {
    let copies = Encoding::ALL.map(Encoding::suffix);
    let deltas = Delta::ALL.map(Delta::suffix);
    let mut endings = copies.into_iter().chain(deltas);
    let packed = endings.any(|ending| name.ends_with(ending.as_bytes()));
    u64::from(packed) << group(name)
}

/// The group of a name: by what stands before its first dot, so that `app.css` and `app.css.br`
/// are in one.
fn group(name: &[u8]) -> usize {
    let stem = name
        .split(|&byte| byte == b'.')
        .find(|part| !part.is_empty());
    // FNV-1a, 32 bits.
    let hash = stem
        .unwrap_or_default()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    (hash ^ (hash >> 16)) as usize % GROUPS
}

/// The watched directories of one root.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: OwnedFd,
    table: Mutex<Table>,
}

/// A watched directory and its path.
type Named = (Box<str>, Arc<Directory>);

#[derive(Debug, Default)]
struct Table {
    by_path: BTreeMap<Box<str>, (i32, Arc<Directory>)>,
    /// A directory that is mounted twice has one watch for both.
    by_watch: HashMap<i32, Vec<Named>>,
    /// The watch on what holds the name of the root itself.
    above: Option<(i32, Box<[u8]>)>,
    full: bool,
    /// Directories that were not read yet.
    unread: Vec<(Arc<Directory>, OwnedFd)>,
}

/// What was heard in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// Something below the root.
    Below,
    /// The name of the root may lead elsewhere now.
    Root,
}

impl Watches {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            table: Mutex::default(),
        })
    }

    /// The directory at `path`, watched from now on; `open` gives a descriptor of it.
    pub(super) fn directory(
        &self,
        path: &str,
        open: impl FnOnce() -> Option<OwnedFd>,
    ) -> Option<Arc<Directory>> {
        let mut table = self.table();
        if let Some((_, directory)) = table.by_path.get(path) {
            return Some(Arc::clone(directory));
        }
        if table.full || table.by_path.len() >= MOST_DIRECTORIES {
            return None;
        }
        let fd = open()?;
        let contents = WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let watch = match self.add(&fd, contents) {
            Ok(watch) => watch,
            Err(errno) => {
                table.full = errno == Errno::NOSPC;
                if table.full {
                    tracing::warn!(
                        "no more directories can be watched (fs.inotify.max_user_watches): files \
                         in others are looked at once a second"
                    );
                }
                return None;
            }
        };
        let directory = Arc::new(Directory::new());
        let named = (path.into(), Arc::clone(&directory));
        table.by_watch.entry(watch).or_default().push(named);
        table
            .by_path
            .insert(path.into(), (watch, Arc::clone(&directory)));
        table.unread.push((Arc::clone(&directory), fd));
        Some(directory)
    }

    /// Watches for `name`, the root's own, in the directory that holds it: for names alone, so that
    /// a log beside the root wakes nobody.
    pub(super) fn above(&self, parent: &OwnedFd, name: &[u8]) {
        if let Ok(watch) = self.add(parent, WatchFlags::empty()) {
            self.table().above = Some((watch, name.into()));
        }
    }

    fn add(&self, directory: &OwnedFd, more: WatchFlags) -> Result<i32, Errno> {
        let events = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            // The watch on the root's parent may be one of a root as well.
            | WatchFlags::MASK_ADD;
        // By descriptor, so that no name is resolved twice.
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        inotify::add_watch(&self.inotify, path, events | more)
    }

    /// Waits for events, `patience` at most, and puts out the signs that they concern.
    pub(super) fn wait(&self, patience: Duration) -> Result<News, Errno> {
        let unread = std::mem::take(&mut self.table().unread);
        for (directory, fd) in &unread {
            directory.read(fd);
        }
        let timeout = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(News::None),
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
        // Events come in swarms: what is written to wakes us no more than 500 times a second.
        if let Ok(moment) = Timespec::try_from(GATHERING) {
            let _ = poll(&mut [], Some(&moment));
        }
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
        let mut news = News::Below;
        let mut table = self.table();
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes());
                    if table.heard(event.wd(), event.events(), name, &self.inotify) {
                        news = News::Root;
                    }
                }
                Err(Errno::AGAIN) => return Ok(news),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Forgets all directories: the root is another now.
    pub(super) fn clear(&self) {
        let mut table = self.table();
        table.forget("", &self.inotify);
        table.full = false;
    }

    /// Forgets all directories, and watches none any more.
    pub(super) fn stop(&self) {
        let mut table = self.table();
        table.forget("", &self.inotify);
        table.full = true;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// One event; whether it concerns the root's own name.
    fn heard(
        &mut self,
        watch: i32,
        what: ReadFlags,
        name: Option<&[u8]>,
        inotify: &OwnedFd,
    ) -> bool {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            for (_, directory) in self.by_path.values() {
                directory.all_changed();
            }
            return true;
        }
        let above = self.above.as_ref();
        let root = above.is_some_and(|(above, root)| *above == watch && name == Some(root));
        let known = self.by_watch.get(&watch).cloned().unwrap_or_default();
        for (path, directory) in &known {
            let Some(name) = name else {
                // The directory itself: moved, removed, unmounted.
                directory.all_changed();
                if !what.intersects(ReadFlags::ATTRIB) {
                    self.forget(path, inotify);
                }
                continue;
            };
            directory.changed(name);
            if what.contains(ReadFlags::ISDIR) && !what.contains(ReadFlags::ATTRIB) {
                // What is watched below a name that was moved is no longer what it leads to.
                let name = String::from_utf8_lossy(name);
                let below = match &**path {
                    "" => name.into_owned(),
                    path => format!("{path}/{name}"),
                };
                self.forget(&below, inotify);
            }
        }
        root
    }

    /// Stops watching `path` and all below it; their signs go out.
    fn forget(&mut self, path: &str, inotify: &OwnedFd) {
        let below = |known: &str| {
            path.is_empty()
                || known == path
                || known
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        let from = (Bound::Included(path), Bound::Unbounded);
        let known = self.by_path.range::<str, _>(from);
        let gone: Vec<Box<str>> = known
            .map(|(known, _)| known.clone())
            .take_while(|known| known.starts_with(path))
            .filter(|known| below(known))
            .collect();
        for known in gone {
            let Some((watch, directory)) = self.by_path.remove(&known) else {
                continue;
            };
            directory.all_changed();
            let rest = self.by_watch.entry(watch).or_default();
            rest.retain(|(path, _)| *path != known);
            if rest.is_empty() {
                self.by_watch.remove(&watch);
                if self.above.as_ref().is_none_or(|(above, _)| *above != watch) {
                    // Fails where the directory is gone, and its watch with it.
                    let _ = inotify::remove_watch(inotify, watch);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustix::fs::open;

    use super::*;

    fn fd(path: &Path) -> Option<OwnedFd> {
        open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()
    }

    /// A watched root with a directory in it.
    fn watched() -> (tempfile::TempDir, Watches) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/app.css"), "a").unwrap();
        (dir, Watches::new().unwrap())
    }

    fn sign(watches: &Watches, dir: &tempfile::TempDir, path: &str, name: &str) -> Sign {
        let directory = watches.directory(path, || fd(&dir.path().join(path)));
        directory.unwrap().sign(name)
    }

    /// Takes what has been queued.
    fn settle(watches: &Watches) {
        while watches.wait(Duration::ZERO).is_ok() {
            let mut fds = [PollFd::new(&watches.inotify, PollFlags::IN)];
            let now = Timespec::try_from(Duration::ZERO).unwrap();
            if poll(&mut fds, Some(&now)) == Ok(0) {
                break;
            }
        }
    }

    #[test]
    fn a_file_and_its_copies_are_in_one_group_and_hidden_names_are_no_group_of_all() {
        assert_eq!(group(b"app.css"), group(b"app.css.br"));
        assert_eq!(group(b"app.css"), group(b"app.3f9a1c.js"));
        assert_eq!(group(b".app.swp"), group(b"app"));
        let groups: std::collections::HashSet<_> = (0..1_000)
            .map(|n| group(format!("{n}.html").as_bytes()))
            .collect();
        assert_eq!(groups.len(), GROUPS, "names spread over the groups");
    }

    #[test]
    fn a_change_puts_out_its_sign_and_not_those_of_other_groups() {
        let (dir, watches) = watched();
        let of = |name| sign(&watches, &dir, "sub", name);
        let (app, other) = (of("app.css"), of("other.css"));
        assert_ne!(group(b"app"), group(b"other"));
        fs::write(dir.path().join("sub/app.css.br"), "packed").unwrap();
        settle(&watches);
        assert!(!app.is_lit() && other.is_lit());
        let app = of("app.css");
        assert!(app.is_lit());
        fs::remove_file(dir.path().join("sub/app.css")).unwrap();
        settle(&watches);
        assert!(!app.is_lit() && other.is_lit());
    }

    #[test]
    fn it_is_known_where_there_are_no_compressed_copies() {
        let (dir, watches) = watched();
        fs::write(dir.path().join("sub/packed.js.gz"), "").unwrap();
        let (app, packed) = (
            sign(&watches, &dir, "sub", "app.css"),
            sign(&watches, &dir, "sub", "packed.js"),
        );
        assert!(
            app.may_be_packed() && packed.may_be_packed(),
            "not read yet"
        );
        settle(&watches);
        assert!(!app.may_be_packed() && packed.may_be_packed());
        fs::write(dir.path().join("sub/app.css.br"), "").unwrap();
        settle(&watches);
        assert!(app.may_be_packed());
    }

    #[test]
    fn a_directory_that_is_replaced_is_watched_anew() {
        let (dir, watches) = watched();
        let top = sign(&watches, &dir, "", "sub");
        let before = sign(&watches, &dir, "sub", "app.css");
        fs::rename(dir.path().join("sub"), dir.path().join("old")).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        settle(&watches);
        assert!(!top.is_lit() && !before.is_lit());
        let after = sign(&watches, &dir, "sub", "app.css");
        fs::write(dir.path().join("old/app.css"), "b").unwrap();
        settle(&watches);
        assert!(after.is_lit(), "it is the new directory that is watched");
        fs::write(dir.path().join("sub/app.css"), "b").unwrap();
        settle(&watches);
        assert!(!after.is_lit());
    }

    #[test]
    fn when_events_were_lost_nothing_is_believed() {
        let (dir, watches) = watched();
        let app = sign(&watches, &dir, "sub", "app.css");
        let mut table = watches.table();
        assert!(table.heard(-1, ReadFlags::QUEUE_OVERFLOW, None, &watches.inotify));
        assert!(!app.is_lit());
    }

    #[test]
    fn the_name_of_the_root_is_watched_from_above() {
        let (dir, watches) = watched();
        watches.above(&fd(dir.path()).unwrap(), b"current");
        std::os::unix::fs::symlink("sub", dir.path().join("other")).unwrap();
        assert_eq!(watches.wait(Duration::from_secs(5)), Ok(News::Below));
        std::os::unix::fs::symlink("sub", dir.path().join("current")).unwrap();
        assert_eq!(watches.wait(Duration::from_secs(5)), Ok(News::Root));
    }
}
