//! The figures as a table in Markdown, one row a step, so that servers can
//! stand side by side.

use std::fmt::Write;
use std::time::Duration;

use crate::judge::{BUSY, Back, Failures, Verdict, percentile};
use crate::load::Record;
use crate::plan::Fault;

/// What the run was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) server: &'static str,
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    pub(crate) seed: u64,
}

pub(crate) fn table(about: &About, verdict: &Verdict, records: &[Record]) -> String {
    let mut text = String::from(
        "| server | step | requests | failed GET | failed POST | POST twice | GET again \
         | p50 ms | p99 ms | max ms | driver p99 ms | left after s | p99 normal after s |\n\
         | --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in &verdict.rows {
        let left = match (row.fault, row.diverted) {
            (Fault::None | Fault::Reloads | Fault::Flap, _) => "-".to_owned(),
            (_, Some(after)) => format!("{:.2}", after.as_secs_f64()),
            (_, None) => "not".to_owned(),
        };
        let back = match row.back {
            Back::NotAsked => "-".to_owned(),
            Back::After(after) => format!("{:.2}", after.as_secs_f64()),
            Back::Never => "not".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {left} | {back} |",
            about.server,
            row.name,
            row.requests,
            failures(&row.failed_get),
            failures(&row.failed_post),
            row.posts_twice,
            row.gets_again,
            ms(row.p50),
            ms(row.p99),
            ms(row.max),
            ms(row.lag),
        );
    }
    let lag = |percent| ms(percentile(records.iter().map(|record| record.lag), percent));
    let sum = |of: fn(&Failures) -> usize, get: bool| -> usize {
        let rows = verdict.rows.iter();
        rows.map(|row| {
            of(if get {
                &row.failed_get
            } else {
                &row.failed_post
            })
        })
        .sum()
    };
    let count = |failures: &Failures| failures.values().sum();
    let _ = writeln!(
        text,
        "\n{}: {} requests/s for {} s, seed {}; {} requests, {} GETs and {} POSTs failed, \
         {} POSTs executed twice. A client sent {} GETs once more, since a kept connection was \
         closed as it was used. The driver was late by {} ms at the median, {} ms at p99, \
         {} ms at most.",
        about.server,
        about.rate,
        about.seconds,
        about.seed,
        records.len(),
        sum(count, true),
        sum(count, false),
        verdict
            .rows
            .iter()
            .map(|row| row.posts_twice)
            .sum::<usize>(),
        verdict.rows.iter().map(|row| row.resent).sum::<usize>(),
        lag(50),
        lag(99),
        lag(100),
    );
    if percentile(records.iter().map(|record| record.lag), 99) > BUSY {
        text.push_str("\nThe machine was too busy for these latencies to say much.\n");
    }
    text
}

fn failures(failures: &Failures) -> String {
    let total: usize = failures.values().sum();
    if total == 0 {
        return "0".to_owned();
    }
    let kinds: Vec<String> = failures
        .iter()
        .map(|(kind, count)| format!("{count} × {kind}"))
        .collect();
    format!("{total} ({})", kinds.join(", "))
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1_000.0)
}
