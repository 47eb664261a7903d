//! The event log: what happens to the process, on standard error.
//!
//! Our own events come by `tracing`; Pingora speaks through the `log` crate and
//! is bridged. A library that reports each connection that breaks drowns what an
//! operator must see, so libraries speak from `warn` on (HTTP/2, TLS and hyper:
//! also under `debug`, since theirs would be one line a frame). Level and format
//! can change while it runs.
//!
//! Not for requests: those have the access log.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use conf::{LogFormat, LogLevel};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_log::LogTracer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

use super::lines::Lines;

/// Prefixes of the targets whose events are ours to tame, up to `debug`.
const LIBRARIES: [&str; 1] = ["pingora"];
/// Prefixes of those that stay tame under `debug` too.
const CHATTY: [&str; 4] = ["h2", "hyper", "rustls", "tokio"];

/// How long the end of the process waits for lines that are not written yet.
const WRITE_OUT: Duration = Duration::from_secs(1);

type Filtered = Layered<reload::Layer<Targets, Registry>, Registry>;
type Output = Box<dyn Layer<Filtered> + Send + Sync>;

/// The process has one event log, as `tracing` has one subscriber: set up once, then changed.
static LOGGING: OnceLock<Logging> = OnceLock::new();

struct Logging {
    targets: reload::Handle<Targets, Registry>,
    output: reload::Handle<Output, Filtered>,
    lines: Lines,
    /// Of the lines dropped: of how many it was said, and how many there were when it was looked last.
    said: Mutex<(u64, u64)>,
}

/// The event log; what waits is written when it is dropped, if somebody reads it.
#[derive(Debug)]
pub(crate) struct EventLog(Lines);

impl Drop for EventLog {
    fn drop(&mut self) {
        self.0.flush(WRITE_OUT);
    }
}

/// The event log could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// Some other code has set a `tracing` subscriber in this process.
    #[error("an event log is already set up: {0}")]
    Subscriber(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// Some other code has set a `log` logger in this process.
    #[error("a log bridge is already set up: {0}")]
    Bridge(#[from] tracing_log::log::SetLoggerError),
    /// The system has none to spare.
    #[error("no thread for it: {0}")]
    Thread(#[from] io::Error),
}

/// Sets up the process's event log. Called once, first thing.
///
/// # Errors
/// It, or another logger, was set up before, or there is no thread for it.
pub(crate) fn init(log: &conf::Log) -> Result<EventLog, LoggingError> {
    let lines = Lines::to(io::stderr())?;
    let (targets, targets_handle) = reload::Layer::new(targets(log.level));
    let (output, output_handle) = reload::Layer::new(output(log.format, &lines));
    let subscriber = tracing_subscriber::registry().with(targets).with(output);
    tracing::subscriber::set_global_default(subscriber)?;
    LogTracer::init()?;
    bridge_level(log.level);
    // The subscriber could be set only once, and so can this.
    drop(LOGGING.set(Logging {
        targets: targets_handle,
        output: output_handle,
        lines: lines.clone(),
        said: Mutex::default(),
    }));
    Ok(EventLog(lines))
}

/// Lines that were dropped, as nobody read those before them.
pub(crate) fn dropped() -> u64 {
    LOGGING.get().map_or(0, |logging| logging.lines.dropped())
}

/// Says how many lines were dropped, once no more are. Called about once a second.
pub(crate) fn say_dropped() {
    let Some(logging) = LOGGING.get() else {
        return;
    };
    let lines = logging.lines.dropped();
    let mut said = logging.said.lock().unwrap_or_else(PoisonError::into_inner);
    if lines != said.0 && lines == said.1 && logging.lines.are_read() {
        said.0 = lines;
        tracing::warn!(
            lines,
            "lines of this log were dropped in all: nobody read standard error"
        );
    }
    said.1 = lines;
}

/// From now on, the level and format of `log`. Without [`init`] there is nothing to change.
pub(crate) fn set(log: &conf::Log) {
    let Some(logging) = LOGGING.get() else {
        return;
    };
    // These fail when the subscriber is gone, and a global one never is.
    drop(logging.targets.reload(targets(log.level)));
    drop(logging.output.reload(output(log.format, &logging.lines)));
    bridge_level(log.level);
}

/// What each target may say at this level.
fn targets(level: LogLevel) -> Targets {
    let own = filter(level);
    let tame = own.min(LevelFilter::WARN);
    let libraries = if own >= LevelFilter::DEBUG { own } else { tame };
    // Their warnings are about what a client sent, one for each that sends it: a way to fill a disk.
    let chatty = if own >= LevelFilter::TRACE {
        own
    } else {
        own.min(LevelFilter::ERROR)
    };
    Targets::new()
        .with_default(own)
        .with_targets(LIBRARIES.map(|target| (target, libraries)))
        .with_targets(CHATTY.map(|target| (target, chatty)))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Spares the bridge what no target may say.
fn bridge_level(level: LogLevel) {
    use tracing_log::log::{self, LevelFilter};
    log::set_max_level(match level {
        LogLevel::Error => LevelFilter::Error,
        // Libraries, which are all that comes this way, say no more than this below debug.
        LogLevel::Warn | LogLevel::Info => LevelFilter::Warn,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    });
}

fn output(format: LogFormat, lines: &Lines) -> Output {
    let ansi = io::stderr().is_terminal();
    writing(format, ansi, lines.clone())
}

fn writing<S, W>(format: LogFormat, ansi: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => base.with_ansi(ansi).boxed(),
        LogFormat::Json => base
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
        }
    }

    fn logged(format: LogFormat, act: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = {
            let page = page.clone();
            move || page.clone()
        };
        let subscriber = tracing_subscriber::registry()
            .with(targets(LogLevel::Info))
            .with(writing(format, false, writer));
        tracing::subscriber::with_default(subscriber, act);
        page.text()
    }

    #[test]
    fn libraries_are_tame_until_debug_and_the_chatty_ones_until_trace() {
        let says = |level, target: &str, event: Level| targets(level).would_enable(target, &event);
        assert!(says(LogLevel::Info, "proxy::listen", Level::INFO));
        assert!(!says(LogLevel::Info, "proxy::listen", Level::DEBUG));
        assert!(!says(LogLevel::Info, "pingora_core::server", Level::INFO));
        assert!(says(LogLevel::Info, "pingora_core::server", Level::WARN));
        assert!(!says(LogLevel::Error, "pingora_core::server", Level::WARN));
        assert!(says(LogLevel::Debug, "pingora_proxy", Level::DEBUG));
        assert!(!says(LogLevel::Debug, "h2::codec", Level::DEBUG));
        assert!(
            !says(LogLevel::Info, "rustls::msgs::handshake", Level::WARN),
            "a client must not write a line for each handshake"
        );
        assert!(says(LogLevel::Trace, "h2::codec", Level::TRACE));
    }

    #[test]
    fn text_is_one_line_an_event_with_its_fields() {
        let text = logged(LogFormat::Text, || {
            tracing::info!(listener = "https", "ready");
            tracing::debug!("not said");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("INFO") && text.contains("ready"), "{text}");
        assert!(text.contains("listener=\"https\""), "{text}");
    }

    #[test]
    fn json_is_one_flat_object_an_event() {
        let text = logged(LogFormat::Json, || {
            tracing::warn!(path = "a\nb", "reload failed");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let event: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["message"], "reload failed");
        assert_eq!(event["path"], "a\nb");
    }

    #[test]
    fn the_process_log_is_set_up_once_and_can_change() {
        let log = |level, format| conf::Log {
            level,
            format,
            access: None,
        };
        let _log = init(&log(LogLevel::Error, LogFormat::Text)).expect("the first");
        set(&log(LogLevel::Warn, LogFormat::Json));
        assert!(tracing::enabled!(target: "proxy", Level::WARN));
        assert!(!tracing::enabled!(target: "proxy", Level::INFO));
        let bridged = tracing_log::log::max_level();
        assert_eq!(bridged, tracing_log::log::LevelFilter::Warn);
        init(&log(LogLevel::Error, LogFormat::Text)).expect_err("the second");
    }
}
