//! `tidegate static`: serve a folder, with no configuration file.

use std::future::Future;
use std::num::NonZeroUsize;
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

/// Widths that pictures are made in: those of phones, tablets and screens.
const IMAGE_WIDTHS: [u32; 4] = [320, 640, 1_280, 1_920];

/// Bytes that they may take.
const IMAGE_FOLDER: u64 = 1 << 30;

const IMAGE_QUALITY: u8 = 70;

/// Larger pictures are served as they are.
const IMAGE_PIXELS: u64 = 40_000_000;

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
    settings.images = args.images.as_ref().map(|cache| ImageSettings {
        formats: Format::ALL.to_vec(),
        widths: IMAGE_WIDTHS.to_vec(),
        cache: cache.clone(),
        size: IMAGE_FOLDER,
        quality: IMAGE_QUALITY,
        workers: NonZeroUsize::MIN,
        max_pixels: IMAGE_PIXELS,
    });
    settings
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
        let formats = images.formats.iter().map(|format| format.as_str());
        let formats = formats.collect::<Vec<_>>().join(" and ");
        on.push(format!(
            "pictures as {formats} from {}",
            images.cache.display()
        ));
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
