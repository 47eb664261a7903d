//! What has to be done now and then, beside requests.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::interval;

use crate::clock;
use crate::observe::logging;
use crate::overload;
use crate::snapshot::Snapshot;

/// How often idle upstream connections are looked through and ejections end.
const TICK: Duration = Duration::from_secs(1);

/// Never ends.
pub(super) async fn tick(snapshot: Arc<ArcSwap<Snapshot>>) {
    let load = snapshot.load().load.clone();
    tokio::spawn(overload::watch(load, snapshot.clone()));
    let mut every = interval(TICK);
    loop {
        every.tick().await;
        let snapshot = snapshot.load_full();
        let now = clock::now();
        for upstream in &snapshot.upstreams {
            upstream.tick(now);
        }
        for listener in &snapshot.listeners {
            listener.say_rest(now);
        }
        logging::say_dropped();
    }
}
