//! How the balancing algorithms fare with one sick node among a hundred: a simulation.
//!
//! Nothing in here waits or opens a socket: nodes are queues in virtual time (see `model`), the pool
//! is the real one, and its `now` is the simulation's. Everything follows from a fixed seed, so two
//! runs give the same bytes.
//!
//! `cargo bench --bench simulation` prints the tables, and fails if they are not the ones in
//! `docs/load-balancing/simulation.md`. With `-- --write` it writes them there, and the plots beside
//! them.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints, and stops at what is not as it should be"
)]

mod model;
mod plot;

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use balancer::{Balance, HashTable};

use model::{Figures, Sickness};
use plot::{Bar, Chart, Scale};

/// One line of a table.
struct Row {
    name: &'static str,
    bare: Figures,
    /// With outlier detection.
    guarded: Figures,
}

fn main() -> ExitCode {
    let slow = rows(Sickness::Slow);
    let failing = rows(Sickness::Failing);
    let page = page(&slow, &failing);
    println!("{page}");
    let files = [
        ("simulation.md", page),
        ("slow-node.svg", slow_chart(&slow).svg()),
        ("failing-node.svg", failing_chart(&failing).svg()),
    ];
    let write = std::env::args().any(|argument| argument == "--write");
    let mut stale = false;
    for (name, text) in files {
        let path = folder().join(name);
        if write {
            std::fs::write(&path, text).expect("the manual can be written");
            println!("wrote {}", path.display());
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            stale = true;
            println!(
                "{} is out of date: cargo bench --bench simulation -- --write",
                path.display()
            );
        }
    }
    if stale {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Where the manual has its figures. Cargo says at run time where the package is.
fn folder() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
    PathBuf::from(package).join("docs/load-balancing")
}

fn algorithms() -> [(&'static str, Balance); 9] {
    let least_request = |choices: u32| Balance::LeastRequest {
        choices: NonZeroU32::MIN.saturating_add(choices - 1),
    };
    let hash = |table, max_load| Balance::Hash { table, max_load };
    [
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("least_request, 2 choices", least_request(2)),
        ("least_request, 5 choices", least_request(5)),
        ("peak_ewma", Balance::PeakEwma),
        ("hash, rendezvous", hash(HashTable::Rendezvous, None)),
        ("hash, ketama", hash(HashTable::Ketama, None)),
        ("hash, maglev", hash(HashTable::Maglev, None)),
        (
            "hash, ketama, max_load 125 %",
            hash(HashTable::Ketama, Some(125)),
        ),
    ]
}

fn rows(sickness: Sickness) -> Vec<Row> {
    algorithms()
        .into_iter()
        .map(|(name, balance)| Row {
            name,
            bare: model::run(balance, sickness, false),
            guarded: model::run(balance, sickness, true),
        })
        .collect()
}

fn page(slow: &[Row], failing: &[Row]) -> String {
    let mut page = String::from(
        "<!-- Written by `cargo bench --bench simulation -- --write`; changes by hand are lost. -->\n\n\
         # One sick node among a hundred\n\n",
    );
    page.push_str(&model::description());
    page.push_str(
        "\n## One node is ten times slower\n\n\
         Latency in milliseconds, timeouts included as what they took. \"Sick\" is the share of \
         requests\nthat went to the slow node.\n\n",
    );
    table(&mut page, slow);
    page.push_str("\n![50th and 99th percentile of latency by algorithm](slow-node.svg)\n");
    page.push_str("\n## One node fails half of its requests, in a millisecond\n\n");
    table(&mut page, failing);
    page.push_str("\n![Share of failed requests by algorithm](failing-node.svg)\n");
    page
}

fn table(page: &mut String, rows: &[Row]) {
    page.push_str(
        "| algorithm | outlier detection | p50 | p99 | p99.9 | failed | sick | ejections |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        for (figures, guarded) in [(&row.bare, "off"), (&row.guarded, "on")] {
            let Figures {
                p50,
                p99,
                p999,
                failed,
                sick,
                ejections,
            } = figures;
            let name = row.name;
            let line = writeln!(
                page,
                "| {name} | {guarded} | {p50:.1} | {p99:.1} | {p999:.1} | {failed:.3} % | {sick:.3} % | {ejections} |"
            );
            line.expect("a string takes every line");
        }
    }
}

fn slow_chart(rows: &[Row]) -> Chart {
    Chart {
        title: "One of 100 nodes is ten times slower: latency in ms, p50 to p99",
        unit: "",
        scale: Scale::Logarithmic {
            from: 5.0,
            to: 1_000.0,
        },
        rows: bars(rows, |figures| Bar {
            from: Some(figures.p50),
            to: figures.p99,
        }),
    }
}

fn failing_chart(rows: &[Row]) -> Chart {
    let most = rows
        .iter()
        .flat_map(|row| [row.bare.failed, row.guarded.failed])
        .fold(0.0, f64::max);
    Chart {
        title: "One of 100 nodes fails half of its requests at once: failed requests",
        unit: " %",
        scale: Scale::Linear {
            to: (most * 10.0).ceil() / 10.0,
        },
        rows: bars(rows, |figures| Bar {
            from: None,
            to: figures.failed,
        }),
    }
}

fn bars(rows: &[Row], bar: impl Fn(&Figures) -> Bar) -> Vec<(&'static str, Bar, Bar)> {
    rows.iter()
        .map(|row| (row.name, bar(&row.bare), bar(&row.guarded)))
        .collect()
}
