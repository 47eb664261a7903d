//! A system that does not do what is asked: deleted files, folders that cannot be written, full
//! disks, and the process killed in the middle.
//!
//! Two of these run the test binary once more, as a child that finds its part in the environment.
//! Real file systems need the right to mount; where it is missing, files that may not grow
//! (`RLIMIT_FSIZE`) stand for the full disk.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cache::disk::{Refusal, SegmentId};

use super::*;

/// Names the folder to a child process.
const FOLDER: &str = "TIDEGATE_TEST_DISK_FOLDER";

#[test]
fn a_file_deleted_under_a_running_log_costs_at_most_what_was_in_it() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 1 << 20);
    let before = sample(1, 1000).append(&log).address;
    fs::remove_file(segments(home.path()).remove(0)).unwrap();
    // The open file has it still.
    sample(1, 1000).assert_is(&log.read(before).unwrap());
    let after = sample(2, 1000).append(&log).address;
    assert_ne!(before.segment(), after.segment(), "not into a deleted file");
    (10..200).for_each(|n| drop(sample(n, 20_000).append(&log)));
    assert!(matches!(log.read(before), Err(ReadError::Gone)));
    drop(log);
    assert!(open(home.path(), 1 << 20).1.len() > 30);
}

/// Between fork and exec a child has all files open, and with them the lock.
#[test]
fn a_closed_log_can_be_opened_while_a_process_is_being_started() {
    let home = tempfile::tempdir().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped() {
                let _ = Command::new("true").status();
            }
        });
        let failed = (0..3000).filter(|_| try_open(home.path(), 1 << 20).is_err());
        let failed = failed.count();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(failed, 0);
    });
}

#[test]
fn a_removed_folder_is_made_again() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("cache");
    let (log, _) = open(&folder, 1 << 20);
    let before = sample(1, 1000).append(&log).address;
    fs::remove_dir_all(&folder).unwrap();
    sample(1, 1000).assert_is(&log.read(before).unwrap());
    let after = sample(2, 1000).append(&log).address;
    sample(2, 1000).assert_is(&log.read(after).unwrap());
    assert!(try_open(&folder, 1 << 20).is_err(), "locked as before");

    // Somebody puts a file where the folder was: an error each time, until it is gone.
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    for _ in 0..3 {
        let error = sample(3, 1000).try_append(&log).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&*folder.to_string_lossy()), "{text}");
    }
    sample(2, 1000).assert_is(&log.read(after).unwrap());
    assert_eq!(log.stats().append_errors, 3);
    fs::remove_file(&folder).unwrap();
    sample(4, 1000).append(&log);
    drop(log);
    assert_eq!(open(&folder, 1 << 20).1.len(), 1);
}

#[test]
fn a_folder_taken_by_another_is_not_written_to() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("cache");
    let (log, _) = open(&folder, 1 << 20);
    sample(1, 1000).append(&log);
    fs::remove_dir_all(&folder).unwrap();
    let (other, _) = open(&folder, 1 << 20);
    let error = sample(2, 1000).try_append(&log).unwrap_err();
    assert!(matches!(error.refusal, Refusal::InUse { .. }), "{error}");
    drop(other);
    sample(3, 1000).append(&log);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_stays_readable() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 256 << 10);
    let mut kept = Vec::new();
    (0..8).for_each(|n| kept.push((n, sample(n, 20_000).append(&log).address)));
    let mode = |mode| fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    if fs::write(home.path().join("probe"), "").is_ok() {
        // Root writes where it likes.
        return;
    }
    let mut failed = 0;
    for n in 8..20 {
        match sample(n, 20_000).try_append(&log) {
            Ok(appended) => kept.push((n, appended.address)),
            Err(error) => {
                failed += 1;
                assert!(matches!(
                    &error.refusal,
                    Refusal::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied
                ));
            }
        }
    }
    assert!(failed > 5);
    for (n, address) in &kept {
        sample(*n, 20_000).assert_is(&log.read(*address).unwrap());
    }
    drop(log);
    let (log, seen) = open(home.path(), 256 << 10);
    assert_eq!(seen.len(), kept.len(), "opening needs no new file");
    mode(0o700);
    sample(100, 20_000).append(&log);
}

#[test]
fn files_that_may_not_grow_are_errors_and_the_log_goes_on() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        fill_under_a_file_limit(Path::new(&folder));
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let name = "faults::files_that_may_not_grow_are_errors_and_the_log_goes_on";
    // An ignored signal stays ignored over exec; writes beyond the limit then fail with EFBIG,
    // after what still fits was written.
    let script = r#"trap "" XFSZ; ulimit -f 128; exec "$0" --exact "$1""#;
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(FOLDER, home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );

    let (log, seen) = open(home.path(), 2 << 20);
    assert!(seen.len() > 20, "only {}", seen.len());
    assert_eq!(log.stats().skipped, 0, "half-written records were cut off");
    for seen in seen {
        if let Seen::Object(sample, address) = seen {
            sample.assert_is(&log.read(address).unwrap());
        }
    }
}

/// Segments of half a MiB in files of 64 or 128 KiB, as the shell counts.
fn fill_under_a_file_limit(folder: &Path) {
    let (log, _) = open(folder, 2 << 20);
    let mut there = Vec::new();
    let mut failed = 0;
    for n in 0..60 {
        let one = sample(n, 30_000);
        match one.try_append(&log) {
            Ok(appended) => there.push((one, appended.address)),
            Err(error) => {
                failed += 1;
                assert!(matches!(
                    &error.refusal,
                    Refusal::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge
                ));
            }
        }
        assert_eq!(log.stats().bytes, bytes_on_disk(folder));
    }
    assert!(
        failed > 5 && there.len() > 30,
        "{failed} of {}",
        there.len()
    );
    for (one, address) in &there {
        one.assert_is(&log.read(*address).unwrap());
    }
    let files = segments(folder).len();
    for n in 0..20 {
        // Larger than any file may be: not even an empty one is left.
        sample(n, 150_000).try_append(&log).unwrap_err();
    }
    assert_eq!(segments(folder).len(), files);
    assert_eq!(log.stats().bytes, bytes_on_disk(folder));
}

/// A file system of its own, for as long as it lives. Needs the right to mount.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(options: &str) -> Option<Self> {
        let mounted = Self(tempfile::tempdir().unwrap());
        mount(&["-t", "tmpfs", "-o", options, "tmpfs"], mounted.0.path()).then_some(mounted)
    }
}

fn mount(options: &[&str], place: &Path) -> bool {
    let done = Command::new("mount").args(options).arg(place).output();
    done.is_ok_and(|output| output.status.success())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn on_a_full_disk_the_oldest_makes_way_and_without_any_room_it_is_an_error() {
    let Some(disk) = Mounted::new("size=1m") else {
        return;
    };
    let folder = disk.0.path().join("cache");
    let other = disk.0.path().join("other");
    fs::write(&other, vec![0; 300_000]).unwrap();
    let (log, _) = open(&folder, 64 << 20);
    let mut there = Vec::new();
    let mut made_way = 0;
    for n in 0..60 {
        let one = sample(n, 30_000);
        let mut forget = |evicted: &[SegmentId], there: &mut Vec<(Sample, Address)>| {
            made_way += usize::from(!evicted.is_empty());
            there.retain(|(_, address)| !evicted.contains(&address.segment()));
        };
        // A child that another test is starting may hold the deleted file, and its room, for a moment.
        let appended = (0..200).find_map(|_| match one.try_append(&log) {
            Ok(appended) => Some(appended),
            Err(error) => {
                forget(&error.evicted, &mut there);
                std::thread::park_timeout(std::time::Duration::from_millis(10));
                None
            }
        });
        let appended = appended.expect("room after the oldest made way");
        forget(&appended.evicted, &mut there);
        there.push((one, appended.address));
        assert_eq!(log.stats().bytes, bytes_on_disk(&folder));
    }
    assert!((1..10).contains(&made_way), "{made_way} times");
    for (one, address) in &there {
        one.assert_is(&log.read(*address).unwrap());
    }
    drop(log);
    let (log, seen) = open(&folder, 64 << 20);
    assert_eq!(seen.len(), there.len());
    assert_eq!(log.stats().skipped, 0);

    // Others take all there is, and what the log gives up for it.
    let mut hog = fs::OpenOptions::new().append(true).open(&other).unwrap();
    let mut refused = None;
    for n in 100..150 {
        while hog.write_all(&[0; 4096]).is_ok() {}
        // Each larger than all that the log can give up.
        let length = 30_000 + usize::try_from(n - 100).unwrap() * 9_000;
        if let Err(error) = sample(n, length).try_append(&log) {
            refused = Some(error.refusal);
            break;
        }
    }
    assert!(matches!(
        refused,
        Some(Refusal::Io { source, .. }) if source.kind() == ErrorKind::StorageFull
    ));
    drop(hog);
    fs::remove_file(&other).unwrap();
    let again = (0..200).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
        sample(300, 30_000).try_append(&log).is_ok()
    });
    assert!(again, "there is room once more");
    drop(log);

    assert!(mount(&["-o", "remount,ro"], disk.0.path()));
    let error = try_open(&folder, 64 << 20).unwrap_err();
    assert!(matches!(
        error,
        OpenError::Io { source, .. } if source.kind() == ErrorKind::ReadOnlyFilesystem
    ));
}

#[test]
fn a_killed_process_leaves_whole_objects() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (log, seen) = open(Path::new(&folder), 4 << 20);
        let last = seen.iter().rev().find_map(|seen| match seen {
            Seen::Object(sample, _) => Some(sample.number),
            Seen::Note(_) | Seen::Gap => None,
        });
        for n in last.map_or(0, |n| n + 1).. {
            sample(n, usize::try_from(n * 7919 % 400_000).unwrap()).append(&log);
        }
    }
    let home = tempfile::tempdir().unwrap();
    let mut newest = 0;
    for _ in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::a_killed_process_leaves_whole_objects"])
            .env(FOLDER, home.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Until it has begun two more segments, and so filled one at least. At once then, as that
        // is somewhere within a record.
        let begun = segments(home.path()).pop();
        let more = || {
            let files = segments(home.path()).into_iter();
            files.filter(|file| Some(file) > begun.as_ref()).count()
        };
        while more() < 2 {
            assert!(child.try_wait().unwrap().is_none(), "it writes for ever");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (log, seen) = open(home.path(), 4 << 20);
        let mut numbers = Vec::new();
        assert!(!seen.contains(&Seen::Gap), "nothing was damaged");
        for seen in seen {
            if let Seen::Object(sample, address) = seen {
                sample.assert_is(&log.read(address).unwrap());
                numbers.push(sample.number);
            }
        }
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        let last = numbers.last().copied().unwrap_or_default();
        assert!(last > newest, "what it appended is there");
        newest = last;
        assert!(bytes_on_disk(home.path()) <= 4 << 20);
    }
}
