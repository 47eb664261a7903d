//! What the run comes to: figures for each step from the clients' records and
//! the nodes' ledgers, and which requirements are not met.
//!
//! How long a dead node still gets traffic is read in its ledger, from the ids
//! of what it executed: the client knows when each request began. A stopped
//! node executes what was sent to it after it goes on again, so nothing is
//! missed. Only a killed one keeps no book; for it the last request that failed
//! counts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{Entry, NODES};
use crate::load::{Failure, Record};
use crate::plan::Fault;
use crate::timeline::Span;

/// A node that gets 80 requests a second and sees none for so long is left out.
const QUIET: Duration = Duration::from_millis(500);

/// Of latencies after a fault, the least that is looked at together.
const WINDOW: Duration = Duration::from_secs(1);

/// How often a step may close a kept connection just as a client uses it.
const RACES: usize = 2;

/// Failures by their kind.
pub(crate) type Failures = BTreeMap<Failure, usize>;

/// When the 99th percentile was back to normal after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Back {
    /// No fault, or no time after it.
    NotAsked,
    /// From then on to the end of the step.
    After(Duration),
    /// Not within the step.
    Never,
}

/// One step's figures.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    pub(crate) requests: usize,
    pub(crate) failed_get: Failures,
    pub(crate) failed_post: Failures,
    /// POSTs that stand in the ledgers more than once.
    pub(crate) posts_twice: usize,
    /// Executions of GETs beyond the first.
    pub(crate) gets_again: usize,
    /// Sent once more by the client, on another connection.
    pub(crate) resent: usize,
    /// Of the requests answered well.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
    /// 99th percentile of the driver's own delay.
    pub(crate) lag: Duration,
    /// From the fault until its nodes got no more requests; `None`: they did to its end.
    pub(crate) diverted: Option<Duration>,
    pub(crate) back: Back,
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) rows: Vec<Row>,
    /// Good replies that their node has no entry of.
    pub(crate) unbooked: usize,
    /// Nodes that executed nothing in the last second.
    pub(crate) idle_at_the_end: usize,
}

/// Joins records and ledgers.
pub(crate) fn judge(spans: &[Span], records: &[Record], ledger: &[Entry]) -> Verdict {
    let book = Book::new(records, ledger);
    let normal = spans
        .iter()
        .rfind(|span| span.step.fault == Fault::None)
        .map_or(Duration::ZERO, |calm| {
            percentile(good(within(records, calm.begun, calm.ended)), 99)
        });
    let rows = spans.iter().map(|span| row(span, records, &book, normal));
    let end = records.last().map_or(Duration::ZERO, |last| last.start);
    let late = end.saturating_sub(Duration::from_secs(1));
    let idle = |node: &usize| book.starts(*node, late, end + QUIET).is_empty();
    Verdict {
        rows: rows.collect(),
        unbooked: book.unbooked(records),
        idle_at_the_end: (0..NODES).filter(idle).count(),
    }
}

fn row(span: &Span, records: &[Record], book: &Book<'_>, normal: Duration) -> Row {
    let (first, asked) = within_from(records, span.begun, span.ended);
    let mut row = Row {
        name: span.step.name,
        fault: span.step.fault,
        requests: asked.len(),
        failed_get: Failures::new(),
        failed_post: Failures::new(),
        posts_twice: 0,
        gets_again: 0,
        resent: asked.iter().filter(|record| record.resent).count(),
        p50: percentile(good(asked), 50),
        p99: percentile(good(asked), 99),
        max: percentile(good(asked), 100),
        lag: percentile(asked.iter().map(|record| record.lag), 99),
        diverted: diverted(span, records, book),
        back: back(span, records, normal),
    };
    for (nth, record) in asked.iter().enumerate() {
        let times = book.executions[first + nth];
        if record.post {
            row.posts_twice += usize::from(times > 1);
        } else {
            row.gets_again += times.saturating_sub(1);
        }
        if let Err(failure) = record.outcome {
            let failed = match record.post {
                true => &mut row.failed_post,
                false => &mut row.failed_get,
            };
            *failed.entry(failure).or_default() += 1;
        }
    }
    row
}

/// The ledgers by request and by node.
struct Book<'a> {
    /// How often each request was executed.
    executions: Vec<usize>,
    entries: BTreeMap<usize, Vec<usize>>,
    records: &'a [Record],
}

impl<'a> Book<'a> {
    fn new(records: &'a [Record], ledger: &[Entry]) -> Self {
        let mut executions = vec![0; records.len()];
        let mut entries: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for entry in ledger {
            let id = usize::try_from(entry.id).unwrap_or(usize::MAX);
            let Some(record) = records.get(id) else {
                continue;
            };
            assert_eq!(record.post, entry.post, "request {id} changed its method");
            executions[id] += 1;
            entries.entry(entry.node).or_default().push(id);
        }
        entries.values_mut().for_each(|ids| ids.sort_unstable());
        Self {
            executions,
            entries,
            records,
        }
    }

    /// When the requests began that this node executed, of those that began in this time.
    fn starts(&self, node: usize, from: Duration, to: Duration) -> Vec<Duration> {
        let ids = self.entries.get(&node).map_or(&[][..], Vec::as_slice);
        ids.iter()
            .map(|id| self.records[*id].start)
            .filter(|start| (from..to).contains(start))
            .collect()
    }

    fn unbooked(&self, records: &[Record]) -> usize {
        let booked = |id: usize, node: usize| {
            let ids = self.entries.get(&node);
            ids.is_some_and(|ids| ids.binary_search(&id).is_ok())
        };
        records
            .iter()
            .enumerate()
            .filter(|(id, record)| record.outcome.is_ok_and(|node| !booked(*id, node)))
            .count()
    }
}

fn diverted(span: &Span, records: &[Record], book: &Book<'_>) -> Option<Duration> {
    let (from, to) = (span.begun, span.cleared);
    let seen = |node: &usize| book.starts(*node, from, to);
    match span.step.fault {
        Fault::None | Fault::Reloads | Fault::Flap => None,
        Fault::Kill(_) => {
            let failed = within(records, Duration::ZERO, to)
                .iter()
                .filter(|record| record.outcome.is_err())
                .map(|record| record.start + record.latency)
                .filter(|end| *end >= from);
            Some(failed.max().map_or(Duration::ZERO, |end| end - from))
        }
        Fault::Stop | Fault::Slow | Fault::Dns => {
            let last = span.victims.iter().filter_map(|node| seen(node).pop());
            let last = last.max().map_or(Duration::ZERO, |start| start - from);
            (from + last + QUIET <= to).then_some(last)
        }
        Fault::Silent | Fault::ResetHead | Fault::ResetBody | Fault::Errors => {
            let mut last = from;
            let seen: Vec<Duration> = span.victims.iter().flat_map(seen).collect();
            for start in seen.into_iter().chain([to]) {
                if start.saturating_sub(last) >= QUIET {
                    return Some(last - from);
                }
                last = start;
            }
            None
        }
    }
}

fn back(span: &Span, records: &[Record], normal: Duration) -> Back {
    if span.step.fault == Fault::None || span.ended < span.cleared + WINDOW {
        return Back::NotAsked;
    }
    let limit = (normal * 2).max(normal + Duration::from_millis(20));
    let mut from = span.cleared;
    while from + WINDOW <= span.ended {
        let rest = within(records, from, span.ended);
        // The driver's own delay is in every latency, and no server's fault.
        let lag = percentile(rest.iter().map(|record| record.lag), 99);
        if percentile(good(rest), 99) <= limit + lag {
            return Back::After(from - span.cleared);
        }
        from += Duration::from_millis(250);
    }
    Back::Never
}

fn good(records: &[Record]) -> impl Iterator<Item = Duration> {
    let good = records.iter().filter(|record| record.outcome.is_ok());
    good.map(|record| record.latency)
}

/// Requests that began in this time.
fn within(records: &[Record], from: Duration, to: Duration) -> &[Record] {
    within_from(records, from, to).1
}

/// The same with the id of the first.
fn within_from(records: &[Record], from: Duration, to: Duration) -> (usize, &[Record]) {
    let first = records.partition_point(|record| record.start < from);
    let end = records.partition_point(|record| record.start < to);
    (first, &records[first..end.max(first)])
}

/// Nearest rank; zero of nothing.
pub(crate) fn percentile(values: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut values: Vec<Duration> = values.collect();
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    let at = rank.saturating_sub(1);
    values.get(at).copied().unwrap_or_default()
}

/// What must hold besides "no GET fails and no POST is executed twice".
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// From a node's death until it gets nothing more, where checks find it out.
    pub(crate) by_checks: Duration,
    /// Where only requests do.
    pub(crate) by_requests: Duration,
    /// From another answer of the DNS.
    pub(crate) by_dns: Duration,
    /// From the end of a fault to a normal 99th percentile.
    pub(crate) back: Duration,
    /// Whether `back` is judged, and that every node serves at the end.
    pub(crate) full: bool,
}

/// A driver later than this at the 99th percentile measures itself.
pub(crate) const BUSY: Duration = Duration::from_millis(20);

/// Every requirement that is not met, as a sentence.
pub(crate) fn broken(verdict: &Verdict, bounds: &Bounds) -> Vec<String> {
    let mut broken = Vec::new();
    for row in &verdict.rows {
        let mut complain = |what: String| broken.push(format!("{}: {what}", row.name));
        for (kind, count) in &row.failed_get {
            // What has begun to arrive cannot be asked for again by anybody but
            // the client.
            let cut = row.fault == Fault::ResetBody && *kind == Failure::CutBody;
            if !cut {
                complain(format!("{count} GETs failed ({kind})"));
            }
        }
        let mixed = row.failed_post.get(&Failure::WrongBody);
        if let Some(count) = mixed {
            complain(format!("{count} POSTs got a wrong body"));
        }
        if row.posts_twice > 0 {
            complain(format!("{} POSTs were executed twice", row.posts_twice));
        }
        // A rare race with a connection's end is no fault; an edge that hangs up
        // in place of an answer is.
        if row.resent > RACES {
            complain(format!("clients had to send {} GETs again", row.resent));
        }
        let bound = match row.fault {
            Fault::Kill(_) | Fault::Stop | Fault::Slow => Some(bounds.by_checks),
            Fault::Silent | Fault::ResetHead => Some(bounds.by_requests),
            Fault::Dns => Some(bounds.by_dns),
            _ => None,
        };
        // A load that itself came late measured the machine.
        let busy = row.lag > BUSY;
        if let Some(bound) = bound
            && !busy
            && row.diverted.is_none_or(|after| after > bound)
        {
            let after = row.diverted.map_or("never".into(), |d| format!("{d:?}"));
            complain(format!(
                "its nodes were left after {after}, bound {bound:?}"
            ));
        }
        let late = match row.back {
            Back::NotAsked => false,
            Back::After(after) => after > bounds.back,
            Back::Never => true,
        };
        if bounds.full && late && !busy {
            let (back, bound) = (row.back, bounds.back);
            complain(format!("p99 normal again: {back:?}, bound {bound:?}"));
        }
    }
    if verdict.unbooked > 0 {
        let count = verdict.unbooked;
        broken.push(format!("{count} good replies of which no ledger knows"));
    }
    if bounds.full && verdict.idle_at_the_end > 0 {
        let count = verdict.idle_at_the_end;
        broken.push(format!("{count} nodes got nothing in the last second"));
    }
    broken
}
