//! What can be written on the command line.
//!
//! Only shapes and help texts; what a command does stands in
//! [`crate::commands`] and [`crate::demo`].

mod cert;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hyper::header::HeaderValue;

pub(crate) use cert::{CertArgs, CertCommand, CertListArgs, OrderArgs};

/// Port of the demo's shop.
pub(crate) const DEMO_HTTPS_PORT: u16 = 8443;
/// Port of the demo's redirect to HTTPS.
pub(crate) const DEMO_HTTP_PORT: u16 = 8080;
/// Port of the demo's admin listener.
pub(crate) const DEMO_ADMIN_PORT: u16 = 9901;

/// Where `tidegate static` listens unless told otherwise.
const STATIC_ADDRESS: &str = "127.0.0.1:8000";

/// One HTTP edge: TLS, load balancing, caching and static files, from one TOML file.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, arg_required_else_help = true)]
#[command(after_help = "\
First steps:
  tidegate demo                       a shop with three app nodes behind the edge, nothing to set up
  tidegate check shop.toml            is the file right?
  tidegate run --config shop.toml     serve it

Exit codes: 0 fine, 1 failed, 2 wrong use or wrong configuration")]
pub(crate) struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve what a configuration file says, until told to stop
    #[command(after_help = "\
Signals:
  TERM, INT   stop accepting, finish what is in flight, exit
  HUP         load the file anew; if it is wrong, the running state stays
  USR1        reopen the access log

Example:
  tidegate run --config shop.toml")]
    Run(RunArgs),
    /// Say whether a configuration file is right, and where it is not
    #[command(after_help = "\
All mistakes are shown at once, each with its line and what would be right.
The exit code is 0 for a file that can be run, else 2.

Example:
  tidegate check shop.toml && systemctl reload tidegate")]
    Check(CheckArgs),
    /// Show everything at once: a small shop on three app nodes, TLS, cache, static files
    #[command(after_help = "\
Needs no file, no root and no network. Everything listens on 127.0.0.1 and is gone at the end.

Examples:
  tidegate demo
  tidegate demo --https-port 9443 --http-port 9080 --admin-port 0
  tidegate demo --print-config > shop.toml")]
    Demo(DemoArgs),
    /// Purge pages from the cache of a running edge, or make them stale
    #[command(after_help = "\
The running edge is found by the [admin] section of its configuration file.

Examples:
  tidegate purge -c shop.toml https://shop.example/catalog?page=2
  tidegate purge -c shop.toml --tag product-42 --soft
  tidegate purge -c shop.toml --prefix https://shop.example/catalog/ --dry-run
  tidegate purge -c shop.toml --all")]
    Purge(PurgeArgs),
    /// Look into the cache of a running edge
    #[command(after_help = "\
Examples:
  tidegate cache inspect -c shop.toml https://shop.example/catalog
  tidegate cache status -c shop.toml")]
    Cache(CacheArgs),
    /// See the app nodes of a running edge, and take one out or put it back
    #[command(after_help = "\
What is changed by hand holds until the next reload, or with --keep until it is changed again.

Examples:
  tidegate upstream list -c shop.toml
  tidegate upstream drain -c shop.toml app 10.0.0.11:8080
  tidegate upstream undrain -c shop.toml app 10.0.0.11:8080
  tidegate upstream weight -c shop.toml app 10.0.0.11:8080 5 --keep")]
    Upstream(UpstreamArgs),
    /// Close the site of a running edge for a while, and open it again
    #[command(after_help = "\
The file that maintenance of [server] names is made or removed; while it is there the edge answers 503.

Examples:
  tidegate maintenance on -c shop.toml
  tidegate maintenance status -c shop.toml
  tidegate maintenance off -c shop.toml")]
    Maintenance(MaintenanceCommands),
    /// See the certificates of a running edge, and order those that it obtains by itself now
    #[command(after_help = "\
Certificates are obtained and renewed without this, see acme of [tls]. Challenges are answered by the
running edge, which is found by the [admin] section of its configuration file; `list` reads the disk
where there is none.

Examples:
  tidegate cert list -c shop.toml
  tidegate cert issue -c shop.toml
  tidegate cert renew -c shop.toml --name shop.example")]
    Cert(CertArgs),
    /// Print the JSON Schema of the configuration file, for editors
    #[command(after_help = "\
Example:
  tidegate schema > tidegate.schema.json

An editor that knows TOML schemas takes it from the file's first line:
  #:schema ./tidegate.schema.json")]
    Schema,
    /// Serve a folder, with no configuration file
    #[command(after_help = "\
Example:
  tidegate static public --listen 127.0.0.1:8000
  tidegate static dist --fallback index.html --no-listing
  tidegate static current --keep-releases 3")]
    Static(StaticArgs),
    /// Compress the files of a folder ahead, once, for all who will ask for them
    #[command(after_help = "\
Writes app.js.br, app.js.zst and app.js.gz beside app.js, where they are smaller by 5 percent. What is up
to date is left alone, so that it can run after each build. A server may run meanwhile.

With --previous, also the differences of files with a hash in their names to their former releases
(app.3f9a1c2b.js.91d2c0ab01234567.dcz), for browsers that still have those; see docs/static-files.md.

Examples:
  tidegate compress public
  tidegate compress public --formats br,gz --jobs 2
  tidegate compress releases/42 --previous releases/41 --previous releases/40
  tidegate compress public --remove")]
    Compress(CompressArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Configuration file (TOML)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Arguments of `purge`.
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Pages, each with all its variants
    #[arg(value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// All pages with this tag; can be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// All pages whose URL begins so, whatever their scheme; can be given several times
    #[arg(long = "prefix", value_name = "URL")]
    pub(crate) prefixes: Vec<String>,
    /// All pages of this host; can be given several times
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// Everything
    #[arg(long)]
    pub(crate) all: bool,
    /// Make stale instead of removing: pages are validated, and served stale where that is allowed
    #[arg(long)]
    pub(crate) soft: bool,
    /// Only say how many objects would be purged
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `maintenance`.
#[derive(Debug, Args)]
pub(crate) struct MaintenanceCommands {
    /// What is to be seen or done.
    #[command(subcommand)]
    pub(crate) command: MaintenanceCommand,
}

/// What can be done about maintenance.
#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Close the site
    On(MaintenanceArgs),
    /// Open it again
    Off(MaintenanceArgs),
    /// Say whether it is closed
    Status(MaintenanceArgs),
}

/// Arguments of each command of `maintenance`.
#[derive(Debug, Args)]
pub(crate) struct MaintenanceArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Arguments of `cache`.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// What is to be seen.
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

/// What can be seen of a cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Say what is stored for a URL, what a request for it would get now, and why
    Inspect(InspectArgs),
    /// Say how full the cache is, what is used most, and which tags are largest
    Status(StatusArgs),
}

/// Arguments of `cache inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The page
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// A header of the request, as 'accept-language: de'; can be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cache status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `upstream`.
#[derive(Debug, Args)]
pub(crate) struct UpstreamArgs {
    /// What is to be seen or done.
    #[command(subcommand)]
    pub(crate) command: UpstreamCommand,
}

/// What can be done with upstreams.
#[derive(Debug, Subcommand)]
pub(crate) enum UpstreamCommand {
    /// Say how each endpoint stands: health, requests, latency, ejections, changes by hand
    List(ListArgs),
    /// Send an endpoint nothing new; what it is doing is finished
    Drain(ChangeArgs),
    /// Send a drained endpoint requests again
    Undrain(ChangeArgs),
    /// Give an endpoint another share of the requests
    Weight(WeightArgs),
    /// Take an endpoint for dead: nothing new, no health checks
    Down(ChangeArgs),
    /// Take an endpoint that was forced down back
    Up(ChangeArgs),
}

/// Arguments of `upstream list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only this upstream
    #[arg(value_name = "UPSTREAM")]
    pub(crate) upstream: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which endpoint is changed.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Configuration file that the edge runs on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The upstream
    #[arg(value_name = "UPSTREAM")]
    pub(crate) upstream: String,
    /// The endpoint, by the address or name that `upstream list` shows
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoint: String,
    /// Let it stay so over reloads
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Arguments of `upstream weight`.
#[derive(Debug, Args)]
pub(crate) struct WeightArgs {
    #[command(flatten)]
    pub(crate) of: ChangeArgs,
    /// 1 to 1000, or `default` for the configured one
    #[arg(value_name = "WEIGHT")]
    pub(crate) weight: String,
}

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Port of the shop (HTTPS); 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = DEMO_HTTPS_PORT)]
    pub(crate) https_port: u16,
    /// Port that redirects to HTTPS; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = DEMO_HTTP_PORT)]
    pub(crate) http_port: u16,
    /// Port of metrics, health and state; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = DEMO_ADMIN_PORT)]
    pub(crate) admin_port: u16,
    /// Print the demo's configuration file and do nothing else
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// Arguments of `static`.
#[derive(Debug, Args)]
pub(crate) struct StaticArgs {
    /// Folder to serve
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = STATIC_ADDRESS)]
    pub(crate) listen: SocketAddr,
    /// Do not show directories that have no index.html
    #[arg(long)]
    pub(crate) no_listing: bool,
    /// File in DIR that answers for pages that are not there, for single-page applications
    #[arg(long, value_name = "FILE")]
    pub(crate) fallback: Option<String>,
    /// Cache-Control of files that may change under their name
    #[arg(long, value_name = "VALUE")]
    pub(crate) cache_control: Option<HeaderValue>,
    /// Paths whose files never change, beside those with a hash in their name, as 'assets/*'; can be given several times
    #[arg(
        long = "immutable",
        value_name = "PATTERN",
        conflicts_with = "no_immutable"
    )]
    pub(crate) immutable: Vec<glob::Pattern>,
    /// No file is immutable, not even with a hash in its name
    #[arg(long)]
    pub(crate) no_immutable: bool,
    /// How many older releases still answer for files that DIR, a symbolic link, lacks
    #[arg(long, value_name = "COUNT")]
    pub(crate) keep_releases: Option<NonZeroUsize>,
    /// Send pictures as AVIF and WebP, and narrower by ?w=640; they are made in the background and kept in FOLDER
    #[arg(long, value_name = "FOLDER")]
    pub(crate) images: Option<PathBuf>,
}

/// Arguments of `compress`.
#[derive(Debug, Args)]
pub(crate) struct CompressArgs {
    /// Folder to compress
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The copies to write
    #[arg(
        long,
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        default_value = "br,zst,gz"
    )]
    pub(crate) formats: Vec<Format>,
    /// Files packed at the same time; one a core unless said
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Leave smaller files alone
    #[arg(long, value_name = "SIZE", default_value = "256B", value_parser = conf::size)]
    pub(crate) min_size: u64,
    /// `best` packs a tenth better, `fast` is about twenty times as fast
    #[arg(long, value_enum, default_value_t = Effort::Best)]
    pub(crate) level: Effort,
    /// Folder of a former release, to write the differences to; can be given several times
    #[arg(long, value_name = "OLD_DIR")]
    pub(crate) previous: Vec<PathBuf>,
    /// Pack and measure, but write and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove the copies and the differences instead
    #[arg(long, conflicts_with = "previous")]
    pub(crate) remove: bool,
}

/// A kind of copy, by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Brotli
    Br,
    /// Zstandard
    Zst,
    /// gzip
    Gz,
}

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Effort {
    /// Brotli 5, Zstandard 9, gzip 6
    Fast,
    /// Brotli 11, Zstandard 19, gzip 9
    Best,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_its_file_by_the_long_and_the_short_flag() {
        for line in [
            "tidegate run --config a.toml",
            "tidegate run -c a.toml",
            "tidegate run --config=a.toml",
        ] {
            let Command::Run(args) = parse(line).expect(line).command else {
                panic!("{line} is not read as `run`");
            };
            assert_eq!(args.config, PathBuf::from("a.toml"), "{line}");
        }
    }

    #[test]
    fn the_demo_has_the_documented_ports() {
        let Command::Demo(args) = parse("tidegate demo")
            .expect("no argument is needed")
            .command
        else {
            panic!("not read as `demo`");
        };
        assert_eq!(
            (args.https_port, args.http_port, args.admin_port),
            (8443, 8080, 9901)
        );
        assert!(!args.print_config);
    }

    #[test]
    fn static_listens_on_loopback_unless_told_otherwise() {
        let Command::Static(args) = parse("tidegate static public")
            .expect("a folder is enough")
            .command
        else {
            panic!("not read as `static`");
        };
        assert_eq!(args.listen, "127.0.0.1:8000".parse().expect("an address"));
        assert!(parse("tidegate static public --listen [::1]:80").is_ok());
    }

    #[test]
    fn compress_needs_a_folder_alone() {
        let Command::Compress(args) = parse("tidegate compress public")
            .expect("a folder is enough")
            .command
        else {
            panic!("not read as `compress`");
        };
        assert_eq!(args.formats, [Format::Br, Format::Zst, Format::Gz]);
        assert_eq!((args.min_size, args.level), (256, Effort::Best));
    }

    #[test]
    fn wrong_use_exits_with_2() {
        for line in [
            "tidegate",
            "tidegate fly",
            "tidegate run",
            "tidegate run a.toml",
            "tidegate check",
            "tidegate check a.toml b.toml",
            "tidegate purge https://shop.example/",
            "tidegate cache",
            "tidegate cache inspect -c a.toml",
            "tidegate upstream",
            "tidegate upstream drain -c a.toml app",
            "tidegate demo --https-port 70000",
            "tidegate static public --listen 8000",
            "tidegate compress",
            "tidegate compress public --formats br,lz4",
            "tidegate compress public --min-size 256",
            "tidegate compress public --jobs 0",
            "tidegate compress public --remove --previous old",
        ] {
            let told = parse(line).expect_err(line);
            assert_eq!(told.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_version_line_is_name_and_number() {
        let told = parse("tidegate --version").expect_err("a version is not a command");
        assert_eq!(told.kind(), ErrorKind::DisplayVersion);
        assert_eq!(
            told.to_string(),
            format!("tidegate {}\n", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn every_command_shows_an_example_of_itself() {
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let example = format!("\n  tidegate {}", command.get_name());
            assert!(
                help.contains(&example),
                "`{}` has no example",
                command.get_name()
            );
        }
    }
}
