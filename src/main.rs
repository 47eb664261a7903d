//! `tidegate`: the command line.
//!
//! Parses the arguments, loads the configuration and hands it to the crates
//! that do the work. This is the only place that ends the process, and the only
//! one that knows `anyhow`: below it every failure has a type of its own.
//!
//! What it does not do: decide anything about a request.

mod admin;
mod bind;
mod cli;
mod commands;
mod demo;
mod failure;
mod term;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// The C library's allocator costs a quarter more CPU on a proxied request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(failure) = install_crypto() {
        return failure.report();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return term::clap(&told),
    };
    let done = match cli.command {
        Command::Run(args) => commands::run::run(args),
        Command::Check(args) => commands::check::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Purge(args) => commands::purge::run(&args),
        Command::Cache(args) => commands::cache::run(&args.command),
        Command::Upstream(args) => commands::upstream::run(&args.command),
        Command::Maintenance(args) => commands::maintenance::run(&args.command),
        Command::Cert(args) => commands::cert::run(&args.command),
        Command::Schema => commands::schema::run(),
        Command::Static(args) => commands::serve_static::run(&args),
        Command::Compress(args) => commands::compress::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Makes aws-lc-rs the process' TLS provider, with the post-quantum key exchange.
///
/// First of all, because whoever comes first wins: Pingora would install `ring`.
fn install_crypto() -> Result<(), Failure> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| Failure::failed(anyhow::anyhow!("another TLS provider was installed first")))
}
