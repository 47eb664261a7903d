//! `tidegate compress`: compress the files of a folder ahead.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use static_server::Encoding;
use static_server::compress::{self, Level, Progress, Report, Settings, Work};
use tokio::runtime;

use super::serve_static::stopped;
use crate::cli::{CompressArgs, Effort, Format};
use crate::failure::Failure;
use crate::term;

/// Compresses, and says in one line what came of it.
///
/// # Errors
/// A folder that is none; a file that could not be read or a copy that could not be written,
/// after all others are done.
pub(crate) fn run(args: &CompressArgs) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    // Lives until the end of the work: its thread waits for signals.
    let _waiting = stop_on_signal(&stop)?;
    let bar = bar();
    let progress = |progress| match progress {
        Progress::Begun(bytes) => bar.set_length(bytes),
        Progress::Done(bytes) => bar.inc(bytes),
    };
    let report = compress::run(&settings(args), &progress, &stop).map_err(Failure::wrong)?;
    bar.finish_and_clear();
    for trouble in &report.troubles {
        term::complain(&format!("error: {trouble}"));
    }
    term::say(&summary(&report, args)).context("cannot write to standard output")?;
    match (report.stopped, report.troubles.len()) {
        (true, _) => Err(Failure::failed(anyhow!("stopped before the end"))),
        (false, 0) => Ok(()),
        (false, 1) => Err(Failure::failed(anyhow!("1 thing failed"))),
        (false, count) => Err(Failure::failed(anyhow!("{count} things failed"))),
    }
}

fn settings(args: &CompressArgs) -> Settings {
    let one = NonZeroUsize::MIN;
    let mut formats: Vec<Encoding> = Vec::new();
    for format in &args.formats {
        let encoding = match format {
            Format::Br => Encoding::Brotli,
            Format::Zst => Encoding::Zstd,
            Format::Gz => Encoding::Gzip,
        };
        if !formats.contains(&encoding) {
            formats.push(encoding);
        }
    }
    Settings {
        root: args.dir.clone(),
        formats,
        jobs: args
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(one)),
        min_size: args.min_size,
        level: match args.level {
            Effort::Fast => Level::Fast,
            Effort::Best => Level::Best,
        },
        previous: args.previous.clone(),
        work: if args.remove {
            Work::Remove
        } else {
            Work::Write
        },
        dry: args.dry_run,
    }
}

/// Sets `stop` when the process is told to stop.
fn stop_on_signal(stop: &Arc<AtomicBool>) -> Result<runtime::Runtime, Failure> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let told = {
        let _inside = runtime.enter();
        stopped()?
    };
    let stop = Arc::clone(stop);
    runtime.spawn(async move {
        told.await;
        stop.store(true, Ordering::Relaxed);
    });
    Ok(runtime)
}

/// The progress in bytes, where somebody looks on.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn summary(report: &Report, args: &CompressArgs) -> String {
    let would = if args.dry_run { "would be " } else { "" };
    if args.remove {
        return format!("{} {would}removed", copies(report.removed));
    }
    let files = match report.files {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    let mut line = format!(
        "{files}: {} {would}written, {} up to date, {} not worth it",
        copies(report.written),
        report.current,
        report.useless,
    );
    if report.removed > 0 {
        let _ = write!(line, ", {} removed", report.removed);
    }
    if report.unclear > 0 {
        let _ = write!(line, ", {} of several with one pattern", report.unclear);
    }
    for (name, sum) in &report.formats {
        let (before, after) = (bytes(sum.before), bytes(sum.after));
        let _ = write!(line, "; {name} {before} -> {after}");
    }
    line
}

fn copies(count: u64) -> String {
    match count {
        1 => "1 copy".to_owned(),
        count => format!("{count} copies"),
    }
}

/// `812 B`, `12.3 KiB`, `4.5 MiB`.
fn bytes(count: u64) -> String {
    const KIB: u64 = 1 << 10;
    let tenths = |unit: u64| {
        let tenths = count.saturating_mul(10) / unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match count {
        0..KIB => format!("{count} B"),
        KIB..0x10_0000 => format!("{} KiB", tenths(KIB)),
        _ => format!("{} MiB", tenths(KIB * KIB)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_are_short() {
        for (count, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (12_700, "12.4 KiB"),
            (5_000_000, "4.7 MiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }
}
