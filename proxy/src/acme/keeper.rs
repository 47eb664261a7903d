//! The tasks that keep certificates new, one for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Managed, Orders};
use crate::clock;

/// How long a task sleeps at the most: another process may have put a certificate into the storage,
/// and the clock may have been set.
const LOOK: Duration = Duration::from_secs(60);

/// Between two tries to become the process that orders.
const LOCKED: Duration = Duration::from_secs(5);

/// See the module's text. Those that are dropped end once what they have under way is done.
pub(crate) struct Keepers {
    orders: Arc<Orders>,
    running: Vec<(Arc<Managed>, watch::Sender<()>)>,
}

impl Keepers {
    /// Starts a task for each.
    pub(crate) fn start(orders: &Arc<Orders>, wanted: &[Arc<Managed>]) -> Self {
        let mut keepers = Self {
            orders: orders.clone(),
            running: Vec::new(),
        };
        keepers.update(wanted);
        keepers
    }

    /// Keeps these from now on, and no others.
    pub(crate) fn update(&mut self, wanted: &[Arc<Managed>]) {
        let is_wanted = |one: &Arc<Managed>| wanted.iter().any(|other| Arc::ptr_eq(one, other));
        self.running.retain(|(managed, _)| is_wanted(managed));
        for managed in wanted {
            if self
                .running
                .iter()
                .any(|(known, _)| Arc::ptr_eq(known, managed))
            {
                continue;
            }
            let (stop, stopped) = watch::channel(());
            tokio::spawn(keep_on(managed.clone(), self.orders.clone(), stopped));
            self.running.push((managed.clone(), stop));
        }
    }
}

/// Keeps it, whatever happens: a certificate that nobody renews runs out in silence.
async fn keep_on(managed: Arc<Managed>, orders: Arc<Orders>, stopped: watch::Receiver<()>) {
    loop {
        let kept = tokio::spawn(keep(managed.clone(), orders.clone(), stopped.clone()));
        match kept.await {
            Err(error) if error.is_panic() => {
                managed.broke_off();
                tracing::error!(
                    hosts = managed.shown(),
                    "the task that renews this certificate broke off, which is a bug; it begins again"
                );
                sleep(LOOK).await;
            }
            _ => return,
        }
    }
}

async fn keep(managed: Arc<Managed>, orders: Arc<Orders>, mut stopped: watch::Receiver<()>) {
    if managed.has_records() {
        tokio::select! {
            // They may be of an order that another process is making: then it holds the lock.
            free = when_free(&managed) => if let Some(lock) = free {
                if managed.has_records() {
                    managed.withdraw_records(&orders).await;
                }
                drop(lock);
            },
            () = is_stopped(&mut stopped) => return,
        }
    }
    loop {
        managed.look();
        managed.ask_window().await;
        let due = managed.due();
        let rest = due.duration_since(clock::wall()).unwrap_or_default();
        let by_hand = tokio::select! {
            biased;
            () = is_stopped(&mut stopped) => return,
            () = managed.asked.notified() => true,
            () = sleep(rest.min(LOOK)) => false,
        };
        if !by_hand && clock::wall() < due {
            continue;
        }
        tokio::select! {
            // An order that is under way comes to its end: what it made is to be taken away.
            ordered = turn_of(&managed, &orders) => if let Some((lock, turn)) = ordered {
                managed.look();
                // Whoever held the lock may have done what was to be done.
                if by_hand || managed.due() <= clock::wall() {
                    managed.order(&orders).await;
                }
                drop((turn, lock));
            },
            () = is_stopped(&mut stopped) => return,
        }
    }
}

/// Waits until nobody makes an order, here or in another process. Waiting for the turn keeps no
/// other process out for longer than this one may be asked to stop.
async fn turn_of<'a>(
    managed: &Managed,
    orders: &'a Orders,
) -> Option<(std::fs::File, tokio::sync::MutexGuard<'a, ()>)> {
    let lock = when_free(managed).await?;
    Some((lock, orders.turn.lock().await))
}

/// Waits until no other process makes an order; `None`: the storage cannot be used now.
async fn when_free(managed: &Managed) -> Option<std::fs::File> {
    loop {
        match managed.try_lock() {
            Ok(Some(lock)) => return Some(lock),
            Ok(None) => sleep(LOCKED).await,
            Err(error) => {
                tracing::error!("the ACME storage cannot be locked: {error}");
                sleep(LOCKED).await;
                return None;
            }
        }
    }
}

/// Nothing is ever sent: the other end is dropped.
async fn is_stopped(stopped: &mut watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
