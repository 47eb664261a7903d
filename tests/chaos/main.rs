//! No request is lost to a sick node: six nodes behind an edge, under load that
//! does not wait, while they are killed, stopped, slowed down, and made to fail.
//!
//! Required: no GET fails as long as one node is well, no POST is executed
//! twice, traffic leaves a dead node in the time that the configuration says,
//! and latency is back to normal within `slow_start`. The same program measures
//! HAProxy and nginx, of which nothing is required.
//!
//! | variable | default | |
//! | --- | --- | --- |
//! | `TIDEGATE_CHAOS_SERVER` | `tidegate` | `tidegate`, `haproxy` or `nginx` |
//! | `TIDEGATE_CHAOS_SECONDS` | 25 | from 90 on all faults, and latency is judged; meant for 120 |
//! | `TIDEGATE_CHAOS_RATE` | 500 | requests a second |
//! | `TIDEGATE_CHAOS_SEED` | 7 | who is hit, and which request is a POST |
//! | `TIDEGATE_CHAOS_OUT` | | a file for the table |
//! | `TIDEGATE_CHAOS_CONFIG` | `full` | `reduced`: with what older builds know too; reported, not judged |
//! | `TIDEGATE_BIN` | this build | another build under test |
//!
//! The nodes are this same program, started again: hence a `main` of its own in
//! place of libtest's, with as much of its command line as cargo and nextest use.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod cluster;
mod judge;
mod judge_tests;
mod load;
mod node;
mod node_tests;
mod plan;
mod report;
mod servers;
mod support;
mod timeline;
mod wire;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tempfile::TempDir;

use cluster::{Cluster, NODES};
use judge::Bounds;
use load::{Load, Order};
use plan::{Fault, Plan};
use report::About;
use servers::{Backend, Edge, Server};
use support::dns::{Dns, hosts};
use support::{tools, wait};
use timeline::Stage;
use wire::Random;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "no_request_is_lost_to_a_sick_node",
        no_request_is_lost_to_a_sick_node,
    ),
    (
        "a_node_fails_as_it_is_told",
        node_tests::a_node_fails_as_it_is_told,
    ),
    (
        "a_reply_of_another_request_is_noticed",
        load::a_reply_of_another_request_is_noticed,
    ),
    ("a_flawless_run_passes", judge_tests::a_flawless_run_passes),
    (
        "failures_and_second_executions_are_found",
        judge_tests::failures_and_second_executions_are_found,
    ),
    (
        "traffic_to_a_dead_node_is_found",
        judge_tests::traffic_to_a_dead_node_is_found,
    ),
    (
        "latency_that_stays_high_is_found",
        judge_tests::latency_that_stays_high_is_found,
    ),
    (
        "a_cut_body_is_counted_and_forgiven_only_where_nobody_can_help",
        judge_tests::a_cut_body_is_counted_and_forgiven_only_where_nobody_can_help,
    ),
    (
        "percentiles_are_by_nearest_rank",
        judge_tests::percentiles_are_by_nearest_rank,
    ),
];

fn main() -> ExitCode {
    if let Ok(settings) = std::env::var(node::VARIABLE) {
        return match node::run(&settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => panic!("a node: {error}"),
        };
    }
    let wanted = Wanted::read(std::env::args().skip(1));
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| wanted.has(name)).collect();
    if wanted.list {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, test) in &tests {
        // The panic's own message is on stderr by then.
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("{} tests, {failed} failed", tests.len());
    ExitCode::from(if failed == 0 { 0 } else { 101 })
}

/// What of libtest's command line decides which tests run.
#[derive(Default)]
struct Wanted {
    list: bool,
    exact: bool,
    /// None here is.
    ignored_only: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut wanted = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => wanted.list = true,
                "--exact" => wanted.exact = true,
                "--ignored" => wanted.ignored_only = true,
                "--skip" => wanted.skip.extend(arguments.next()),
                "--format" | "--color" | "--test-threads" | "--logfile" | "-Z" => {
                    arguments.next();
                }
                flag if flag.starts_with('-') => {}
                filter => wanted.filters.push(filter.to_owned()),
            }
        }
        wanted
    }

    fn has(&self, name: &str) -> bool {
        let matches = |filter: &String| match self.exact {
            true => name == filter,
            false => name.contains(filter.as_str()),
        };
        !self.ignored_only
            && (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skip.iter().any(matches)
    }
}

/// A number from the environment.
fn number(variable: &str, default: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} takes a whole number, not {text:?}")),
        Err(_) => default,
    }
}

fn no_request_is_lost_to_a_sick_node() {
    let server = match std::env::var("TIDEGATE_CHAOS_SERVER") {
        Ok(name) => Server::named(&name),
        Err(_) => Server::Tidegate,
    };
    let seconds = number("TIDEGATE_CHAOS_SECONDS", 25);
    let rate = number("TIDEGATE_CHAOS_RATE", 500);
    let seed = u64::from(number("TIDEGATE_CHAOS_SEED", 7));
    assert!(seconds >= 20 && rate >= 50, "too little to judge anything");
    let Some(program) = server.program() else {
        return;
    };
    tools::raise_open_files(8_192);
    let about = About {
        server: server.name(),
        rate,
        seconds,
        seed,
    };
    println!("{about:?}");

    // Dropped last: those who live in it have ended by then.
    let folder = TempDir::with_prefix("tidegate-chaos-").expect("a folder");
    let mut plan = Plan::of(seconds);
    let mut cluster = Cluster::start(folder.path(), seed);
    let all: Vec<_> = (0..NODES).map(cluster::ip).collect();
    let dns = match server.follows_dns() {
        true => match Dns::start(&hosts(servers::NAME, &all), &[]) {
            Some(dns) => Some(dns),
            None => return,
        },
        false => None,
    };
    if dns.is_none() {
        plan.steps.retain(|step| step.fault != Fault::Dns);
    }
    let slow_start = if plan.full { 3 } else { 1 };
    let backend = Backend {
        nodes: cluster.addresses(),
        dns: dns.as_ref().map(|dns| dns.address),
        slow_start,
    };
    let mut edge = server.start(&program, folder.path(), &backend);
    await_all_nodes(&mut edge);

    let begin = wait::now();
    let order = Order {
        edge: edge.address,
        rate,
        seed,
        begin,
    };
    let load = Load::start(order);
    let mut random = Random::new(seed);
    let mut stage = Stage {
        cluster: &mut cluster,
        dns: dns.as_ref(),
        edge: &edge,
        begin,
    };
    let spans = stage.play(&plan, &mut random);
    let records = load.end();
    let ledger = cluster.ledgers();

    let verdict = judge::judge(&spans, &records, &ledger);
    let table = report::table(&about, &verdict, &records);
    println!("{table}");
    if let Some(file) = std::env::var_os("TIDEGATE_CHAOS_OUT") {
        std::fs::write(Path::new(&file), &table).expect("write TIDEGATE_CHAOS_OUT");
    }

    if server != Server::Tidegate || servers::reduced() {
        return;
    }
    assert!(edge.is_running(), "the edge has ended\n{}", edge.messages());
    // Two failed checks, each begun an interval after the one before, and half a
    // second for a machine that is busy; three requests that time out beside
    // each other; a record's second and a look-up's. A return takes two checks
    // and the node's own start.
    let bounds = Bounds {
        by_checks: Duration::from_millis(2 * (500 + 300) + 500),
        by_requests: Duration::from_millis(500 + 1_000),
        by_dns: Duration::from_millis(1_000 + 1_000 + 500),
        back: Duration::from_secs(u64::from(slow_start) + 1),
        full: plan.full,
    };
    let broken = judge::broken(&verdict, &bounds);
    if !broken.is_empty() {
        show_failures(&edge, &records);
    }
    assert!(broken.is_empty(), "not held:\n{}", broken.join("\n"));
}

/// Names come from the DNS and checks take a moment: the load begins when every
/// node has answered through the edge.
fn await_all_nodes(edge: &mut Edge) {
    let mut answered = BTreeSet::new();
    let mut nth = 0;
    let all = wait::try_until(3 * wait::SOON, || {
        nth += 1;
        answered.extend(wire::ask_once(edge.address, nth));
        let over = answered.len() == NODES || !edge.is_running();
        over.then_some(answered.len() == NODES)
    });
    assert!(
        all == Some(true),
        "only {answered:?} answer through the edge\n{}",
        edge.messages()
    );
}

/// The first few failed requests, and what the edge logged about them.
fn show_failures(edge: &Edge, records: &[load::Record]) {
    let failed = records.iter().enumerate().filter(|(_, record)| {
        let cut = record.outcome == Err(load::Failure::CutBody);
        record.outcome.is_err() && !record.post && !cut
    });
    for (id, record) in failed.take(5) {
        println!("request {id}: {record:?}\n{}", edge.evidence(id));
    }
}
