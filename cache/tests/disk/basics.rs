//! Round trips, order, eviction, the folder.

use std::os::unix::fs::symlink;

use cache::disk::{MAX_FRONT, MAX_PIECE, Refusal};

use super::*;

const LIMIT: u64 = 64 << 20;

#[test]
fn what_goes_in_comes_out() {
    let home = tempfile::tempdir().unwrap();
    let (log, seen) = open(home.path(), LIMIT);
    assert_eq!(seen, []);
    let lengths = [0, 1, 4096, 300_000, MAX_PIECE, MAX_PIECE + 1, 5_000_000];
    let samples = (0..).zip(lengths).map(|(n, length)| sample(n, length));
    for sample in samples {
        let address = sample.append(&log).address;
        let object = log.read(address).unwrap();
        sample.assert_is(&object);
        assert!(object.body.iter().all(|piece| piece.len() <= MAX_PIECE));
        assert_eq!(object.body.is_empty(), sample.length == 0);
    }
    let empty = log.append(b"", b"", &[]).unwrap();
    let object = log.read(empty.address).unwrap();
    assert!(object.key.is_empty() && object.meta.is_empty() && object.body.is_empty());
    let stats = log.stats();
    assert_eq!(stats.appended, 8);
    assert_eq!(stats.bytes, bytes_on_disk(home.path()));
}

#[test]
fn a_log_opened_again_tells_all_in_the_order_in_which_it_came() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("made/on/the/way");
    let mut expected = Vec::new();
    for run in 0..4 {
        let (log, seen) = open(&folder, LIMIT);
        assert_eq!(seen, expected, "run {run}");
        for n in 0..40 {
            let sample = sample(run * 100 + n, 100_000);
            let appended = sample.append(&log);
            expected.push(Seen::Object(sample, appended.address));
            note(&log, n);
            expected.push(Seen::Note(n));
        }
    }
    let (log, seen) = open(&folder, LIMIT);
    assert_eq!(seen, expected);
    assert_eq!(log.stats().recovered, expected.len() as u64);
    assert_eq!(log.stats().skipped, 0);
    assert_eq!(log.stats().segments, segments(&folder).len() as u64);
    assert_eq!(
        log.stats().segments,
        16_000_000 / (2 << 20) + 1,
        "a start does not begin a new segment while the last one has room"
    );
    for seen in seen {
        if let Seen::Object(sample, address) = seen {
            sample.assert_is(&log.read(address).unwrap());
        }
    }
}

#[test]
fn the_oldest_segment_goes_and_is_named() {
    let home = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let (log, _) = open(home.path(), limit);
    let mut there: Vec<Seen> = Vec::new();
    let mut evicted_segments = 0;
    for n in 0..200 {
        let one = sample(n, 20_000);
        let appended = one.append(&log);
        assert!(bytes_on_disk(home.path()) <= limit, "after {n}");
        assert_eq!(log.stats().bytes, bytes_on_disk(home.path()));
        for segment in &appended.evicted {
            evicted_segments += 1;
            let before = there.len();
            there.retain(|seen| {
                let Seen::Object(_, address) = seen else {
                    return true;
                };
                let gone = address.segment() == *segment;
                assert_eq!(gone, matches!(log.read(*address), Err(ReadError::Gone)));
                !gone
            });
            assert!(there.len() < before, "what is named held something");
        }
        there.push(Seen::Object(one, appended.address));
    }
    assert!(evicted_segments > 10);
    assert_eq!(log.stats().evicted_segments, evicted_segments);
    assert!(
        there.len() > 30,
        "most of the room is used: {}",
        there.len()
    );
    drop(log);
    let (_log, seen) = open(home.path(), limit);
    assert_eq!(seen, there);
}

#[test]
fn a_smaller_limit_holds_from_the_start() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 16 << 20);
    (0..120).for_each(|n| drop(sample(n, 100_000).append(&log)));
    drop(log);
    let (log, seen) = open(home.path(), 4 << 20);
    assert!(bytes_on_disk(home.path()) <= 4 << 20);
    assert_eq!(log.stats().bytes, bytes_on_disk(home.path()));
    let last = seen.last().unwrap();
    assert!(matches!(last, Seen::Object(newest, _) if newest.number == 119));
    assert!(seen.len() > 20, "only {}", seen.len());
}

#[test]
fn what_is_too_large_is_refused_and_nothing_goes_for_it() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 1 << 20);
    let kept = sample(1, 1000).append(&log).address;
    let refused = |result: Result<Appended, cache::disk::AppendError>| {
        let error = result.unwrap_err();
        assert!(error.evicted.is_empty());
        assert!(matches!(error.refusal, Refusal::TooLarge { .. }), "{error}");
    };
    refused(sample(2, 1 << 17).try_append(&log));
    sample(3, (1 << 17) - 200).append(&log);
    refused(log.append(&vec![0; MAX_FRONT], b"1", &[]));
    assert!(log.note(&vec![0; MAX_FRONT + 1]).is_err());
    sample(1, 1000).assert_is(&log.read(kept).unwrap());
    for limit in [0, 1, 100, 447] {
        let home = tempfile::tempdir().unwrap();
        let (log, _) = open(home.path(), limit);
        refused(log.append(b"", b"", &[]));
        assert_eq!(bytes_on_disk(home.path()), 0);
    }
}

#[test]
fn the_smallest_logs_hold_to_their_limit() {
    for limit in (448..2000).step_by(50) {
        let home = tempfile::tempdir().unwrap();
        let (log, _) = open(home.path(), limit);
        for _ in 0..30 {
            let appended = log.append(b"", b"", &[]).unwrap();
            assert!(log.read(appended.address).is_ok());
            assert!(bytes_on_disk(home.path()) <= limit);
        }
    }
}

#[test]
fn one_folder_has_one_log() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), LIMIT);
    let error = try_open(home.path(), LIMIT).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    let name = home.path().to_string_lossy().into_owned();
    assert!(error.to_string().contains(&name), "{error}");
    drop(log);
    let (log, _) = open(home.path(), LIMIT);
    drop(log);
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let error = try_open(&file, LIMIT).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 1 << 20);
    sample(1, 1000).append(&log);
    drop(log);
    let place = |name: &str| home.path().join(name);
    fs::write(place("notes.txt"), "mine").unwrap();
    fs::write(place("segment-1.tglog"), "mine").unwrap();
    fs::create_dir(place("segment-00000000000000aa.tglog")).unwrap();
    symlink(place("notes.txt"), place("segment-00000000000000bb.tglog")).unwrap();
    let (log, seen) = open(home.path(), 1 << 20);
    assert_eq!(seen.len(), 1);
    (0..200).for_each(|n| drop(sample(n, 20_000).append(&log)));
    log.clear().unwrap();
    drop(log);
    let (log, _) = open(home.path(), 0);
    assert_eq!(log.stats().discarded_segments, 0);
    for name in ["notes.txt", "segment-1.tglog"] {
        assert_eq!(fs::read_to_string(place(name)).unwrap(), "mine");
    }
    assert!(place("segment-00000000000000aa.tglog").is_dir());
    assert!(place("segment-00000000000000bb.tglog").is_symlink());
}

#[test]
fn a_segment_of_another_version_is_deleted_and_counted() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 1 << 20);
    (0..30).for_each(|n| drop(sample(n, 20_000).append(&log)));
    drop(log);
    let files = segments(home.path());
    let mut bytes = fs::read(&files[1]).unwrap();
    bytes[8] += 1;
    fs::write(&files[1], bytes).unwrap();
    let (log, seen) = open(home.path(), 1 << 20);
    assert_eq!(log.stats().discarded_segments, 1);
    assert!(!files[1].exists() && files[0].exists());
    assert!((10..30).contains(&seen.len()));
    assert!(seen.contains(&Seen::Gap), "it may have held notes");
    assert_eq!(log.stats().bytes, bytes_on_disk(home.path()));
}

#[test]
fn a_cleared_log_is_empty_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), u64::MAX);
    let old = sample(1, 1000).append(&log).address;
    assert_eq!(log.clear().unwrap(), [old.segment()]);
    assert!(matches!(log.read(old), Err(ReadError::Gone)));
    assert_eq!((log.stats().bytes, bytes_on_disk(home.path())), (0, 0));
    let new = sample(2, 1000).append(&log).address;
    log.sync().unwrap();
    drop(log);
    let (log, seen) = open(home.path(), u64::MAX);
    assert_eq!(seen, [Seen::Object(sample(2, 1000), new)]);
    assert!(
        matches!(log.read(old), Err(ReadError::Gone)),
        "an address from before leads nowhere"
    );
}
