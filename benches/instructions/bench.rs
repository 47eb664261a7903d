//! What the parts of a request's way may take: `cargo bench -p instructions --profile counted`.
//!
//! Counted by valgrind, in instructions a call. Unlike times these do not depend on what else the
//! machine does, so a change that takes three in a hundred more than what stands here fails.
//! `benches/README.md` says what it needs and when a figure is to be moved.

#![expect(missing_docs, reason = "gungraun's macros make functions without")]

use std::num::NonZeroU32;

use balancer::{Balance, HashTable};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use instructions as part;
use instructions::{Part, request_to_one_of_ten};

// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// So many calls are counted together: what happens once in a while is shared among them.
const CALLS: u64 = 1_000;

/// In a hundred, above what was counted.
const MORE: u64 = 3;

/// What was counted, in instructions a call.
fn counted(instructions: u64) -> LibraryBenchmarkConfig {
    let most = instructions * CALLS * (100 + MORE) / 100;
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, most)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[library_benchmark]
#[bench::head_of_request(args = (part::head_of_request()), config = counted(3_985))]
#[bench::fields_of_request(args = (part::fields_of_request()), config = counted(1_992))]
#[bench::path_in_place(args = (part::path_in_place()), config = counted(467))]
#[bench::path_to_mend(args = (part::path_to_mend()), config = counted(3_758))]
#[bench::route(args = (part::route()), config = counted(2_043))]
#[bench::head_sent_on(args = (part::head_sent_on()), config = counted(2_434))]
#[bench::head_of_reply(args = (part::head_of_reply()), config = counted(3_348))]
#[bench::chunked_body(args = (part::chunked_body()), config = counted(644))]
#[bench::round_robin(args = (request_to_one_of_ten(Balance::RoundRobin)), config = counted(783))]
#[bench::random(args = (request_to_one_of_ten(Balance::Random)), config = counted(825))]
#[bench::least_request(args = (request_to_one_of_ten(least_request())), config = counted(1_030))]
#[bench::peak_ewma(args = (request_to_one_of_ten(Balance::PeakEwma)), config = counted(1_228))]
#[bench::ketama(args = (request_to_one_of_ten(hash(HashTable::Ketama))), config = counted(851))]
#[bench::maglev(args = (request_to_one_of_ten(hash(HashTable::Maglev))), config = counted(822))]
#[bench::key_of_page(args = (part::key_of_page()), config = counted(316))]
#[bench::fresh_page(args = (part::fresh_page()), config = counted(1_769))]
#[bench::page_at_hand(args = (part::page_at_hand()), config = counted(1_286))]
#[bench::file_in_memory(args = (part::file_in_memory()), config = counted(1_871))]
fn calls(mut part: Part) -> Part {
    for _ in 0..CALLS {
        part();
    }
    // Its end is not part of it.
    part
}

fn least_request() -> Balance {
    Balance::LeastRequest {
        choices: NonZeroU32::MIN.saturating_add(1),
    }
}

fn hash(table: HashTable) -> Balance {
    Balance::Hash {
        table,
        max_load: None,
    }
}

library_benchmark_group!(name = way, benchmarks = calls);
main!(library_benchmark_groups = way);
