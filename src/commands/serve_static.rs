//! `tidegate static`: serve a folder, with no configuration file.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use static_server::{Site, SiteSettings};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::bind;
use crate::cli::StaticArgs;
use crate::failure::Failure;
use crate::term;

/// Serves until SIGINT or SIGTERM, then finishes what is in flight.
///
/// # Errors
/// A folder that is none, an address that cannot be listened on.
pub(crate) fn run(args: &StaticArgs) -> Result<(), Failure> {
    let site = Site::new(SiteSettings::new(&args.dir)).map_err(Failure::wrong)?;
    let runtime = Runtime::new().context("cannot start threads")?;
    runtime.block_on(serve(args, Arc::new(site)))
}

async fn serve(args: &StaticArgs, site: Arc<Site>) -> Result<(), Failure> {
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| bind::refused(args.listen, "--listen", &error))?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let end = stopped()?;
    let line = format!(
        "http://{address}/ serves {} (index.html; .br, .zst and .gz beside a file where accepted)",
        args.dir.display()
    );
    term::say(&line).context("cannot write to standard output")?;
    static_server::serve::serve(listener, site, end).await;
    Ok(())
}

/// Ready when the process is told to stop.
pub(super) fn stopped() -> Result<impl Future<Output = ()>, anyhow::Error> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
