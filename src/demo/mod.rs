//! `tidegate demo`: the whole edge on one machine, with nothing to set up.
//!
//! Three app nodes and a control service run in this process behind the real
//! edge, which is configured by a real file: a temporary folder gets that file,
//! a certificate made a moment before, the shop's static files and the access
//! log, and is removed at the end. So whatever the demo shows, a user can look
//! up in the file and take along.
//!
//! Everything listens on 127.0.0.1. What it does not do: keep anything, or show
//! how an app should be written.

mod app;
mod backstage;
mod catalogue;
mod certs;
mod config;
mod control;
mod folder;
mod guide;
mod node;
mod pages;
mod ports;
mod random;
mod reply;
mod session;

use std::time::SystemTime;

use anyhow::{Context, anyhow};

use crate::cli::DemoArgs;
use crate::commands::run::serve;
use crate::failure::Failure;
use crate::term;

/// How many app nodes there are.
const NODES: usize = 3;

/// Reads the wall clock; app nodes get it as an argument.
type Clock = fn() -> SystemTime;

/// Runs until the process is told to stop.
///
/// # Errors
/// A port in use, or a temporary folder that cannot be written.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.print_config {
        term::say(&config::example(args)).context("cannot write to standard output")?;
        return Ok(());
    }
    let ports = ports::Ports::reserve(args)?;
    let backstage = backstage::Backstage::start(wall_clock)?;
    let folder = folder::Folder::create(wall_clock())?;
    let places = config::Places {
        https: ports.https(),
        http: ports.http(),
        admin: ports.admin(),
        nodes: backstage.nodes(),
        control: backstage.control(),
    };
    let file = folder.write_config(&config::render(&places))?;
    let config = conf::load(&file)
        .map_err(|error| anyhow!(error).context("the demo's own configuration is wrong"))?;
    let text = guide::render(&places, folder.path(), std::process::id());
    // The edge binds the ports next; until here nobody else could take them.
    drop(ports);
    let served = serve(config, file, Box::new(move || drop(term::say(&text))));
    backstage.end();
    let removed = folder.remove();
    served?;
    Ok(removed?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "app nodes are origins of their own and do not decide for the edge; this is their one clock"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
