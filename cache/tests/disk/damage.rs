//! Files that changed behind the log's back: an object is right or it is an error.

use std::os::unix::fs::FileExt;

use super::*;

const LIMIT: u64 = 1 << 20;
const FIRST: Sample = Sample {
    number: 1,
    length: 33,
};
const SECOND: Sample = Sample {
    number: 2,
    length: 20,
};
const MARK: u64 = 77;

/// A log with an object, a note, another object; its one file and the two addresses.
fn small() -> (tempfile::TempDir, Log, PathBuf, [Address; 2]) {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), LIMIT);
    let first = FIRST.append(&log).address;
    note(&log, MARK);
    let second = SECOND.append(&log).address;
    let file = segments(home.path()).remove(0);
    (home, log, file, [first, second])
}

/// Opens a folder that holds this file alone. All that is reported is one of what was written, and
/// reads as it or as an error. Returns what could be read, and what was reported.
fn readable(file: &Path, bytes: &[u8]) -> (Vec<Sample>, Vec<Seen>) {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(file.file_name().unwrap()), bytes).unwrap();
    let (log, seen) = open(home.path(), LIMIT);
    let mut right = Vec::new();
    for one in &seen {
        match one {
            Seen::Note(number) => assert_eq!(*number, MARK),
            Seen::Gap => {}
            Seen::Object(sample, address) => {
                assert!([FIRST, SECOND].contains(sample));
                match sample.right_or_error(&log, *address) {
                    Ok(()) => right.push(*sample),
                    Err(ReadError::Corrupt(_)) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }
    sample(3, 50).append(&log);
    (right, seen)
}

#[test]
fn a_changed_byte_is_never_a_wrong_object() {
    let (_home, log, path, addresses) = small();
    let bytes = fs::read(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let record = |at: usize| addresses.iter().filter(|a| offset(**a) <= at).count();
    for at in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            file.write_all_at(&changed[at..=at], at as u64).unwrap();
            let read = [(FIRST, addresses[0]), (SECOND, addresses[1])]
                .map(|(sample, address)| sample.right_or_error(&log, address).is_ok());
            let (right, seen) = readable(&path, &changed);
            if at < 40 {
                assert_eq!(read, [true, true], "the segment's header was read before");
                assert_eq!(seen, [Seen::Gap], "byte {at} of the segment's header");
            } else if record(at) == 2 {
                assert_eq!(read, [true, false], "byte {at} of the second");
                assert_eq!(right, [FIRST], "byte {at} of the second, opened");
                // Whether it was an object or the note of a purge, only the header knew.
                let lost = at < offset(addresses[1]) + 56;
                assert_eq!(seen.contains(&Seen::Gap), lost, "byte {at}");
            } else if at < note_at(addresses[0]) {
                assert_eq!(read, [false, true], "byte {at} of the first");
                assert_eq!(right, [SECOND], "byte {at} of the first, opened");
                assert!(
                    seen.contains(&Seen::Note(MARK)),
                    "byte {at}: the note holds"
                );
            } else {
                assert_eq!(right, [FIRST, SECOND], "byte {at} of the note");
                assert!(!seen.contains(&Seen::Note(MARK)), "byte {at} of the note");
            }
        }
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    assert!(log.stats().corrupt_reads > 500);
}

/// Where the record begins. Addresses keep that to themselves, but their `Debug` does not.
fn offset(address: Address) -> usize {
    let text = format!("{address:?}");
    let digits = text.split("offset: ").nth(1).unwrap();
    digits.split(',').next().unwrap().parse().unwrap()
}

fn note_at(first: Address) -> usize {
    offset(first) + 56 + FIRST.key().len() + FIRST.meta().len() + FIRST.length
}

#[test]
fn a_file_cut_at_any_place_gives_whole_objects_only() {
    let (_home, log, path, addresses) = small();
    let bytes = fs::read(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    for length in (0..=bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        let read = [(FIRST, addresses[0]), (SECOND, addresses[1])]
            .map(|(sample, address)| sample.right_or_error(&log, address).is_ok());
        let (right, seen) = readable(&path, &bytes[..length]);
        let whole =
            usize::from(length >= note_at(addresses[0])) + usize::from(length == bytes.len());
        assert_eq!(right.len(), whole, "cut at {length}");
        assert_eq!(read.iter().filter(|ok| **ok).count(), whole);
        let objects = seen.iter().filter(|seen| matches!(seen, Seen::Object(..)));
        assert_eq!(objects.count(), whole, "what is cut off is not reported");
        assert!(!seen.contains(&Seen::Gap), "nothing is known to be lost");
    }
}

#[test]
fn a_file_that_ends_in_zeros_gives_what_is_before_them() {
    let (_home, _log, path, _) = small();
    let mut bytes = fs::read(&path).unwrap();
    for zeros in [1, 55, 56, 57, 5000, 70_000] {
        bytes.resize(bytes.len() + zeros, 0);
        let (right, seen) = readable(&path, &bytes);
        assert_eq!(right, [FIRST, SECOND]);
        assert!(
            !seen.contains(&Seen::Gap),
            "nobody was told of what is not there"
        );
    }
    let end = bytes.len();
    for from in 40..200 {
        let mut bytes = bytes.clone();
        bytes[from..end].fill(0);
        readable(&path, &bytes);
    }
}

#[test]
fn a_record_at_another_place_or_in_another_file_is_none() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), LIMIT);
    let twins = [sample(1, 50), sample(2, 50)];
    let addresses = twins.map(|twin| twin.append(&log).address);
    let path = segments(home.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    let (head, records) = bytes.split_at(40);
    let (one, two) = records.split_at(records.len() / 2);
    fs::write(&path, [head, two, one].concat()).unwrap();
    for address in addresses {
        assert!(matches!(log.read(address), Err(ReadError::Corrupt(_))));
    }
    drop(log);
    assert_eq!(open(home.path(), LIMIT).1, [Seen::Gap]);

    let other = tempfile::tempdir().unwrap();
    let (log, _) = open(other.path(), LIMIT);
    let address = twins[0].append(&log).address;
    let path = segments(other.path()).remove(0);
    let own_head = fs::read(&path).unwrap()[..40].to_vec();
    fs::write(&path, [&own_head, one, two].concat()).unwrap();
    assert!(matches!(log.read(address), Err(ReadError::Corrupt(_))));
    drop(log);
    let seen = open(other.path(), LIMIT).1;
    assert_eq!(seen, [Seen::Gap], "blocks of an older file");
}

#[test]
fn a_copy_of_a_record_in_a_body_is_no_record() {
    let (home, log, path, [first, _]) = small();
    let copy = Bytes::from(fs::read(&path).unwrap());
    let outer = log
        .append(b"key of 9", b"9 0", &[copy.clone(), copy])
        .unwrap();
    note(&log, MARK);
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset(outer.address)] ^= 1;
    let (right, seen) = readable(&path, &bytes);
    assert_eq!(right, [FIRST, SECOND]);
    assert_eq!(
        seen.last(),
        Some(&Seen::Note(MARK)),
        "the scan found its way behind the damage"
    );
    assert_eq!(seen.len(), 5);
    assert_eq!(seen[3], Seen::Gap);
    FIRST.assert_is(&log.read(first).unwrap());
    drop((log, home));
}

#[test]
fn a_damaged_last_segment_is_not_written_on() {
    let (home, log, path, _) = small();
    drop(log);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    for run in 0..3 {
        let (log, _) = open(home.path(), LIMIT);
        sample(100 + run, 10).append(&log);
        assert_eq!(log.stats().skipped, 1);
    }
    assert_eq!(
        segments(home.path()).len(),
        2,
        "one behind the damage, and that goes on"
    );
    assert_eq!(open(home.path(), LIMIT).1.len(), 5);
}

#[test]
fn a_large_log_is_scanned_past_damage_of_any_extent() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 64 << 20);
    for n in 0..300 {
        sample(n, usize::try_from(n).unwrap() * 21).append(&log);
    }
    drop(log);
    let path = segments(home.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    for (from, count) in [
        (5_000, 1),
        (5_000, 40_000),
        (40, 100_000),
        (700_000, 16_384),
    ] {
        let mut changed = bytes.clone();
        changed[from..from + count].fill(b'T');
        fs::write(&path, changed).unwrap();
        let (log, seen) = open(home.path(), 64 << 20);
        assert!(seen.len() > 100, "{} behind {count} bytes", seen.len());
        let last = seen.last().unwrap();
        assert!(matches!(last, Seen::Object(newest, _) if newest.number == 299));
        let right = seen.iter().filter(|seen| match seen {
            Seen::Object(sample, address) => sample.right_or_error(&log, *address).is_ok(),
            Seen::Note(_) | Seen::Gap => false,
        });
        assert!(
            right.count() >= seen.len() - 2,
            "the one before lost its body"
        );
    }
}

/// The search reads 16 KiB at a time.
#[test]
fn a_header_is_found_wherever_the_search_reads_on() {
    for length in (16 << 10) - 200..(16 << 10) + 10 {
        let home = tempfile::tempdir().unwrap();
        let (log, _) = open(home.path(), LIMIT);
        let first = sample(1, length).append(&log).address;
        let second = sample(2, 100).append(&log).address;
        drop(log);
        let path = segments(home.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[offset(first)] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (_log, seen) = open(home.path(), LIMIT);
        let expected = [Seen::Gap, Seen::Object(sample(2, 100), second)];
        assert_eq!(seen, expected, "{length}");
    }
}
