//! `tidegate static`: serve a folder, with no configuration file.

use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use static_server::images::ImageSettings;
use static_server::images::choice::Format;
use static_server::{Immutable, Releases, Site, SiteSettings};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::bind;
use crate::cli::StaticArgs;
use crate::failure::Failure;
use crate::term;

/// The widths that pictures are made in, in pixels.
const WIDTHS: [u32; 4] = [320, 640, 1_280, 1_920];

/// Serves until SIGINT or SIGTERM, then finishes what is in flight.
///
/// # Errors
/// A folder that is none, an address that cannot be listened on.
pub(crate) fn run(args: &StaticArgs) -> Result<(), Failure> {
    let settings = settings(args);
    let line = what_is_on(&settings);
    let site = Site::new(settings).map_err(Failure::wrong)?;
    let runtime = Runtime::new().context("cannot start threads")?;
    runtime.block_on(serve(args, Arc::new(site), &line))
}

fn settings(args: &StaticArgs) -> SiteSettings {
    let mut settings = SiteSettings::new(&args.dir);
    settings.listing = !args.no_listing;
    settings.fallback.clone_from(&args.fallback);
    if let Some(value) = &args.cache_control {
        settings.cache_control = Some(value.clone());
    }
    settings.immutable = (!args.no_immutable).then(|| Immutable {
        patterns: args.immutable.clone(),
        ..Immutable::default()
    });
    settings.releases = args.keep_releases.map(|keep| Releases {
        keep: keep.get(),
        folder: None,
    });
    settings.dictionaries = true;
    settings.images = args.images.clone().map(images);
    settings
}

/// What a configuration file has where it says no more than these.
fn images(cache: PathBuf) -> ImageSettings {
    let threads = std::thread::available_parallelism().map_or(1, |all| all.get() / 2);
    ImageSettings {
        formats: vec![Format::Avif, Format::WebP],
        widths: WIDTHS.to_vec(),
        cache,
        size: conf::defaults::IMAGES_SIZE,
        quality: conf::defaults::IMAGES_QUALITY,
        workers: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
        max_pixels: u64::from(conf::defaults::IMAGES_MAX_MEGAPIXELS) * 1_000_000,
    }
}

/// What the folder is served with, for the line at the start.
fn what_is_on(settings: &SiteSettings) -> String {
    let mut on = settings.index.clone();
    if settings.listing {
        on.push("listing".to_owned());
    }
    if let Some(fallback) = &settings.fallback {
        on.push(format!("fallback {fallback}"));
    }
    let copies = settings.precompressed.iter().map(|coding| coding.suffix());
    on.push(format!("copies {}", copies.collect::<Vec<_>>().join(" ")));
    if let Some(immutable) = &settings.immutable {
        on.push("hashed names immutable".to_owned());
        let patterns = immutable.patterns.iter();
        on.extend(patterns.map(|pattern| format!("{pattern} immutable")));
    }
    if let Some(releases) = &settings.releases {
        on.push(format!("{} older releases", releases.keep));
    }
    if settings.dictionaries {
        on.push("dictionaries".to_owned());
    }
    if let Some(images) = &settings.images {
        on.push(format!("smaller pictures in {}", images.cache.display()));
    }
    on.join(", ")
}

async fn serve(args: &StaticArgs, site: Arc<Site>, on: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| bind::refused(args.listen, "--listen", &error))?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let end = stopped()?;
    let line = format!("http://{address}/ serves {}: {on}", args.dir.display());
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
