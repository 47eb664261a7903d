//! The judge finds what is planted: a run that it passes has really passed.

use std::time::Duration;

use crate::cluster::{Entry, NODES};
use crate::judge::{Back, Bounds, Verdict, broken, judge, percentile};
use crate::load::{Failure, Record};
use crate::plan::{Fault, Step};
use crate::timeline::Span;

const BOUNDS: Bounds = Bounds {
    by_checks: Duration::from_secs(2),
    by_requests: Duration::from_secs(1),
    by_dns: Duration::from_secs(2),
    back: Duration::from_secs(3),
    full: true,
};

fn millis(n: usize) -> Duration {
    Duration::from_millis(u64::try_from(n).unwrap())
}

/// 100 requests a second, all well, answered in turn; every fifth is a POST.
fn flawless(seconds: usize) -> (Vec<Record>, Vec<Entry>) {
    let record = |id: usize| Record {
        post: id.is_multiple_of(5),
        start: millis(id * 10),
        lag: Duration::ZERO,
        latency: millis(2),
        outcome: Ok(id % NODES),
        resent: false,
    };
    let entry = |id: usize| Entry {
        node: id % NODES,
        id: u64::try_from(id).unwrap(),
        post: id.is_multiple_of(5),
    };
    let count = seconds * 100;
    (
        (0..count).map(record).collect(),
        (0..count).map(entry).collect(),
    )
}

fn span(fault: Fault, victims: &[usize], begun: usize, cleared: usize, ended: usize) -> Span {
    let [begun, cleared, ended] = [begun, cleared, ended].map(millis);
    Span {
        step: Step {
            name: "step",
            fault,
            hold: cleared - begun,
            recover: ended - cleared,
            reload: false,
        },
        victims: victims.to_vec(),
        begun,
        cleared,
        ended,
    }
}

/// Two calm seconds, then five of this fault on node 1, then five after it.
fn spans(fault: Fault) -> [Span; 2] {
    [
        span(Fault::None, &[], 0, 2_000, 2_000),
        span(fault, &[1], 2_000, 7_000, 12_000),
    ]
}

/// Node 1 executes nothing of what begins between these two.
fn leave(records: &mut [Record], ledger: &mut [Entry], from: usize, to: usize) {
    for (record, entry) in records.iter_mut().zip(ledger) {
        if entry.node == 1 && (millis(from)..millis(to)).contains(&record.start) {
            entry.node = 2;
            record.outcome = Ok(2);
        }
    }
}

fn complaints(verdict: &Verdict) -> String {
    broken(verdict, &BOUNDS).join("; ")
}

pub(crate) fn a_flawless_run_passes() {
    let (mut records, mut ledger) = flawless(12);
    leave(&mut records, &mut ledger, 2_500, 7_000);
    let verdict = judge(&spans(Fault::Stop), &records, &ledger);
    assert_eq!(complaints(&verdict), "");
    let [calm, stopped] = &verdict.rows[..] else {
        panic!("{verdict:?}")
    };
    assert_eq!((calm.requests, stopped.requests), (200, 1_000));
    assert_eq!(calm.p99, millis(2));
    let last = stopped.diverted.expect("left");
    assert!((millis(400)..millis(500)).contains(&last), "{last:?}");
    assert_eq!(stopped.back, Back::After(Duration::ZERO));
}

pub(crate) fn failures_and_second_executions_are_found() {
    let (mut records, mut ledger) = flawless(12);
    leave(&mut records, &mut ledger, 2_000, 7_000);
    records[301].outcome = Err(Failure::Status(502));
    records[305].outcome = Err(Failure::Closed);
    ledger.push(ledger[310]);
    ledger.push(ledger[311]);
    ledger.retain(|entry| entry.id != 330);
    for id in [401, 402, 403] {
        records[id].resent = true;
    }
    let verdict = judge(&spans(Fault::Stop), &records, &ledger);
    let row = &verdict.rows[1];
    assert_eq!(row.resent, 3);
    assert_eq!(row.failed_get[&Failure::Status(502)], 1);
    assert_eq!(
        row.failed_post[&Failure::Closed],
        1,
        "request 305 is a POST"
    );
    assert_eq!((row.posts_twice, row.gets_again), (1, 1));
    let said = complaints(&verdict);
    for expected in [
        "1 GETs failed (502)",
        "1 POSTs were executed twice",
        "clients had to send 3 GETs again",
        "1 good replies of which no ledger knows",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in: {said}");
    }
}

pub(crate) fn traffic_to_a_dead_node_is_found() {
    let (records, ledger) = flawless(12);
    let verdict = judge(&spans(Fault::Stop), &records, &ledger);
    assert_eq!(verdict.rows[1].diverted, None);
    assert!(complaints(&verdict).contains("left after never"));

    // It is left after a while, tried again, left again: the first time counts
    // where only requests can tell, the last one where checks do.
    let (mut records, mut ledger) = flawless(12);
    leave(&mut records, &mut ledger, 2_800, 4_500);
    leave(&mut records, &mut ledger, 5_000, 7_000);
    let by_requests = judge(&spans(Fault::Silent), &records, &ledger);
    assert_eq!(complaints(&by_requests), "");
    let by_checks = judge(&spans(Fault::Slow), &records, &ledger);
    assert!(complaints(&by_checks).contains("bound 2s"));

    // A killed node keeps no ledger: the last failure counts.
    let (mut records, mut ledger) = flawless(12);
    leave(&mut records, &mut ledger, 2_000, 7_000);
    records[505].outcome = Err(Failure::Status(502));
    let killed = judge(&spans(Fault::Kill(1)), &records, &ledger);
    assert_eq!(killed.rows[1].diverted, Some(millis(3_052)));
    assert!(complaints(&killed).contains("bound 2s"));
}

pub(crate) fn latency_that_stays_high_is_found() {
    let (mut records, mut ledger) = flawless(12);
    leave(&mut records, &mut ledger, 2_000, 7_000);
    for record in &mut records {
        if (millis(7_000)..millis(7_600)).contains(&record.start) {
            record.latency = millis(200);
        }
    }
    let verdict = judge(&spans(Fault::Stop), &records, &ledger);
    assert_eq!(verdict.rows[1].back, Back::After(millis(750)));
    assert_eq!(complaints(&verdict), "");

    for record in records.iter_mut().skip(700).step_by(10) {
        record.latency = millis(200);
    }
    let verdict = judge(&spans(Fault::Stop), &records, &ledger);
    assert_eq!(verdict.rows[1].back, Back::Never);
    assert!(complaints(&verdict).contains("p99 normal again: Never"));
    // The same delay of the driver itself is no server's.
    for record in records.iter_mut().skip(700).step_by(10) {
        record.lag = millis(198);
    }
    let verdict = judge(&spans(Fault::Stop), &records, &ledger);
    assert_eq!(complaints(&verdict), "");
}

pub(crate) fn a_cut_body_is_counted_and_forgiven_only_where_nobody_can_help() {
    let (mut records, ledger) = flawless(12);
    records[301].outcome = Err(Failure::CutBody);
    let forgiven = judge(&spans(Fault::ResetBody), &records, &ledger);
    assert_eq!(forgiven.rows[1].failed_get[&Failure::CutBody], 1);
    assert_eq!(complaints(&forgiven), "");
    let blamed = judge(&spans(Fault::Reloads), &records, &ledger);
    assert!(complaints(&blamed).contains("1 GETs failed (cut body)"));
}

pub(crate) fn percentiles_are_by_nearest_rank() {
    let hundred = || (1..=100).map(millis);
    assert_eq!(percentile(hundred(), 50), millis(50));
    assert_eq!(percentile(hundred(), 99), millis(99));
    assert_eq!(percentile(hundred(), 100), millis(100));
    assert_eq!(percentile([millis(7)].into_iter(), 99), millis(7));
    assert_eq!(percentile(std::iter::empty(), 99), Duration::ZERO);
}
