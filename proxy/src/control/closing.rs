//! Looks, now and then, for the file that closes the site.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;
use tokio::time::interval;

use crate::snapshot::Snapshot;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Never ends. Beside the other work of its thread: a file system that hangs holds up nothing else.
pub(super) async fn watch(snapshot: Arc<ArcSwap<Snapshot>>) {
    let mut every = interval(EVERY);
    loop {
        every.tick().await;
        let maintenance = snapshot.load().maintenance.clone();
        if let Some(maintenance) = maintenance {
            // An error means that the look panicked: the next one may do better.
            let _ = spawn_blocking(move || maintenance.switch().look()).await;
        }
    }
}
