//! Many histories: random ones against a model, copies taken while the log is written, readers
//! while their segments go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cache::disk::Refusal;
use proptest::prelude::*;

use super::*;

/// Segments of 16 KiB, records of 8 KiB at most.
const LIMIT: u64 = 64 << 10;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Note,
    /// Nothing is done when a log is dropped, so this is also what a kill leaves.
    Reopen,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..8400).prop_map(Step::Append),
        6 => (0_usize..200).prop_map(Step::Append),
        3 => Just(Step::Note),
        2 => Just(Step::Reopen),
    ];
    let step = prop_oneof![40 => step, 1 => Just(Step::Clear)];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The model holds objects and notes with the place of the segment they are in. A note goes
    /// with its segment too, but only the log knows which that is, so a note is expected as long as
    /// an older object is, and allowed otherwise.
    #[test]
    fn any_history_gives_whole_and_right_objects(steps in steps()) {
        let home = tempfile::tempdir().unwrap();
        let mut log = Some(open(home.path(), LIMIT).0);
        let mut model: Vec<Seen> = Vec::new();
        for (number, step) in (0..).zip(steps) {
            let open_log = log.as_ref().unwrap();
            let mut evicted = Vec::new();
            match step {
                Step::Append(length) => match sample(number, length).try_append(open_log) {
                    Ok(appended) => {
                        evicted = appended.evicted;
                        model.push(Seen::Object(sample(number, length), appended.address));
                    }
                    Err(error) => {
                        let too_large = matches!(error.refusal, Refusal::TooLarge { .. });
                        prop_assert!(too_large && length > 8000);
                    }
                },
                Step::Note => {
                    evicted = open_log.note(number.to_string().as_bytes()).unwrap();
                    model.push(Seen::Note(number));
                }
                Step::Clear => {
                    open_log.clear().unwrap();
                    model.clear();
                }
                Step::Reopen => {
                    drop(log.take());
                    let (again, seen) = open(home.path(), LIMIT);
                    prop_assert_eq!(again.stats().skipped, 0);
                    prop_assert_eq!(again.stats().discarded_segments, 0);
                    agrees(&model, &seen);
                    log = Some(again);
                }
            }
            model.retain(|seen| !matches!(
                seen,
                Seen::Object(_, address) if evicted.contains(&address.segment())
            ));
            let log = log.as_ref().unwrap();
            prop_assert!(bytes_on_disk(home.path()) <= LIMIT);
            prop_assert_eq!(log.stats().bytes, bytes_on_disk(home.path()));
        }
        let log = log.as_ref().unwrap();
        for seen in &model {
            if let Seen::Object(sample, address) = seen {
                sample.assert_is(&log.read(*address).unwrap());
            }
        }
    }
}

/// The same objects at the same addresses in the same order; of the notes, all behind the first
/// object, and no other.
fn agrees(model: &[Seen], seen: &[Seen]) {
    let objects = |list: &[Seen]| -> Vec<Seen> {
        let objects = list.iter().filter(|seen| matches!(seen, Seen::Object(..)));
        objects.copied().collect()
    };
    assert_eq!(objects(model), objects(seen));
    let first = |list: &[Seen]| {
        list.iter()
            .position(|seen| matches!(seen, Seen::Object(..)))
    };
    if let (Some(in_model), Some(in_seen)) = (first(model), first(seen)) {
        assert_eq!(model[in_model..], seen[in_seen..]);
    }
    assert!(seen.iter().all(|one| model.contains(one)));
}

#[test]
fn a_copy_taken_at_any_moment_holds_whole_objects() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 1 << 20);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let length = usize::try_from(n * 7919 % 120_000).unwrap();
                sample(n, length).append(&log);
            }
        });
        let mut objects = 0;
        let mut torn = 0;
        for _ in 0..60 {
            let copy = tempfile::tempdir().unwrap();
            for path in segments(home.path()) {
                // It may have gone meanwhile.
                let _ = fs::copy(&path, copy.path().join(path.file_name().unwrap()));
            }
            let (log, seen) = open(copy.path(), 1 << 20);
            torn += log.stats().skipped;
            for seen in seen {
                if let Seen::Object(sample, address) = seen {
                    sample.assert_is(&log.read(address).unwrap());
                    objects += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(objects > 100, "only {objects} objects, {torn} cut off");
    });
}

#[test]
fn readers_get_the_right_object_or_none_while_segments_go() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path(), 1 << 20);
    let latest: Mutex<Vec<(Sample, Address)>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let (right, gone) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (log, latest, stop) = (&log, &latest, &stop);
            let (right, gone) = (&right, &gone);
            scope.spawn(move || {
                let mut turn: usize = reader;
                while !stop.load(Ordering::Relaxed) {
                    let picked = {
                        let latest = latest.lock().unwrap();
                        turn = turn.wrapping_mul(31).wrapping_add(7);
                        latest.get(turn % latest.len().max(1)).copied()
                    };
                    let Some((sample, address)) = picked else {
                        continue;
                    };
                    match sample.right_or_error(log, address) {
                        Ok(()) => right.fetch_add(1, Ordering::Relaxed),
                        Err(ReadError::Gone) => gone.fetch_add(1, Ordering::Relaxed),
                        Err(other) => panic!("{other:?}"),
                    };
                }
            });
        }
        for n in 0..1500 {
            let one = sample(n, usize::try_from(n * 7919 % 60_000).unwrap());
            let address = one.append(&log).address;
            let mut latest = latest.lock().unwrap();
            latest.push((one, address));
            let excess = latest.len().saturating_sub(100);
            latest.drain(..excess);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (right, gone) = (right.into_inner(), gone.into_inner());
    assert!(right > 100 && gone > 0, "{right} right, {gone} gone");
    assert_eq!(log.stats().corrupt_reads, 0);
}
