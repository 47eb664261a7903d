//! Arguments of `tidegate cert`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `cert`.
#[derive(Debug, Args)]
pub(crate) struct CertArgs {
    /// What is to be seen or done.
    #[command(subcommand)]
    pub(crate) command: CertCommand,
}

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Say which certificates are in use, how long they last, and when they are renewed
    List(CertListArgs),
    /// Order those that are not there, or are over, without waiting for the next try
    Issue(OrderArgs),
    /// Order new ones in place of those that are there
    Renew(OrderArgs),
}

/// Arguments of `cert list`.
#[derive(Debug, Args)]
pub(crate) struct CertListArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cert issue` and `cert renew`.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only the certificate that has this name
    #[arg(long, value_name = "HOST")]
    pub(crate) name: Option<String>,
    /// Seconds to wait for what comes of it
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
}
