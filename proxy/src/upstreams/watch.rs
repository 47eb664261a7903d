//! Looking an upstream's endpoints up again and again.
//!
//! A look-up that fails changes nothing: the last known endpoints stay. How old they are is a
//! metric, and the failure is logged when it begins, when it changes, and once a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Upstream;
use super::discovery::DiscoveryError;
use crate::clock;

/// Between two look-ups after one that failed as a whole.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Between two lines about the same failure.
const REMIND: Duration = Duration::from_secs(60);

/// The look-ups of one configuration; they end when this is dropped.
pub(crate) struct Watchers {
    _tasks: JoinSet<()>,
}

impl Watchers {
    /// Starts them on the current runtime. `changed` is told when an upstream's endpoints are others.
    pub(crate) fn start(upstreams: &[Arc<Upstream>], changed: &UnboundedSender<()>) -> Self {
        let mut tasks = JoinSet::new();
        for upstream in upstreams {
            if upstream.common.found_at().is_some() {
                tasks.spawn(watch(upstream.clone(), changed.clone()));
            }
        }
        Self { _tasks: tasks }
    }
}

async fn watch(upstream: Arc<Upstream>, changed: UnboundedSender<()>) {
    let mut failures = Failures::default();
    loop {
        let looked_up = upstream.source.lock().await.look_up().await;
        let again_in = match looked_up {
            Ok(found) => {
                upstream.common.found_now(found.as_of);
                failures.note(&upstream, &found.failures);
                // Gone while the process ends, and then nobody needs to know.
                if upstream.found(found.endpoints) {
                    let _ = changed.send(());
                }
                found.again_in
            }
            Err(error) => {
                failures.note(&upstream, &[error]);
                let again_in = upstream.source.lock().await.again_in();
                again_in.max(AFTER_FAILURE)
            }
        };
        sleep(again_in).await;
    }
}

/// When a failure was said last.
#[derive(Default)]
struct Failures {
    said: Option<Instant>,
}

impl Failures {
    fn note(&mut self, upstream: &Upstream, failures: &[DiscoveryError]) {
        if failures.is_empty() {
            if self.said.take().is_some() {
                tracing::info!(upstream = upstream.name(), "endpoints are known again");
            }
            return;
        }
        upstream.common.metrics.discovery_failed();
        let now = clock::now();
        let lately = self
            .said
            .is_some_and(|at| now.saturating_duration_since(at) < REMIND);
        if lately && failures.iter().all(DiscoveryError::is_repeated) {
            return;
        }
        for failure in failures {
            tracing::warn!(
                upstream = upstream.name(),
                kind = failure.kind().as_str(),
                reason = %failure,
                "endpoints cannot be looked up; the last known ones stay"
            );
        }
        self.said = Some(now);
    }
}
