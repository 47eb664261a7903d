//! Another process takes over: from this one, or this one from another. See [`crate::handover`].

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval, timeout, timeout_at};

use super::{Control, RunError};
use crate::assemble::{AssembleError, Surroundings};
use crate::clock;
use crate::handover::{
    Begin, Described, Inheritance, Kind, Predecessor, Program, Relayed, Successor, Taken,
};
use crate::listen::quic;
use crate::snapshot::{Cache, Snapshot};

/// How long an order of a certificate that is under way is waited for.
const ORDER: Duration = Duration::from_secs(30);

/// How long the disk tier may write before another process has it.
const WRITE_OUT: Duration = Duration::from_secs(10);

/// The folder of the disk tier is tried so often, so far apart, if it is not free at once.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// What a process has from the one before, if there is one.
pub(super) fn inherit(predecessor: Option<&Predecessor>) -> Result<Inheritance, RunError> {
    let Some(predecessor) = predecessor else {
        return Ok(Inheritance::default());
    };
    predecessor
        .inherit()
        .map_err(|reason| take_over(predecessor, reason))
}

/// Opens the disk tier once the other process has left it: the last thing that can fail, so that it
/// is left for as short a time as can be.
pub(super) fn disk(
    predecessor: &Predecessor,
    snapshot: &mut Snapshot,
    surroundings: &Surroundings,
) -> Result<(), RunError> {
    predecessor
        .prepared()
        .map_err(|reason| take_over(predecessor, reason))?;
    if snapshot.config.cache.disk.is_some() {
        let counts = surroundings.metrics.cache().counts();
        let cache = Cache::new(&snapshot.config.cache, counts).map_err(AssembleError::from)?;
        snapshot.cache = Arc::new(cache);
    }
    Ok(())
}

fn take_over(predecessor: &Predecessor, reason: String) -> RunError {
    RunError::TakeOver {
        id: predecessor.id(),
        reason,
    }
}

/// The sockets of HTTP/3 of a listener, and where letters for this process come out.
struct Way {
    address: String,
    shared: Arc<quic::Shared>,
    relayed: Relayed,
}

impl Control {
    /// Starts `program` and lets it take over. Whether it has; if not, all is as it was before.
    pub(super) async fn upgrade(&self, program: Option<&Program>) -> bool {
        let result = match program {
            Some(program) => self.try_upgrade(program).await,
            None => Err("this command serves for itself; end it, and start it again".into()),
        };
        match result {
            Ok(id) => {
                tracing::info!(successor = id, "another process accepts connections now");
                true
            }
            Err(reason) => {
                self.take_back().await;
                tracing::error!("not upgraded, this process goes on: {reason}");
                self.last_upgrade.set(Some(reason));
                self.surroundings.metrics.upgraded(0, 1);
                false
            }
        }
    }

    async fn try_upgrade(&self, program: &Program) -> Result<u32, String> {
        let patience = self.snapshot.load().config.server.upgrade_timeout;
        let orders = self.surroundings.orders.clone();
        let rest = timeout(ORDER, orders.rest())
            .await
            .map_err(|_| "a certificate is being ordered; try again once that is done")?;
        let mut successor = Successor::start(program)?;
        let result = self.hand_over(&mut successor, program, patience).await;
        match result {
            // No order begins here any more.
            Ok(_) => std::mem::forget(rest),
            Err(_) => successor.end().await,
        }
        result
    }

    async fn hand_over(
        &self,
        successor: &mut Successor,
        program: &Program,
        patience: Duration,
    ) -> Result<u32, String> {
        let id = successor.id();
        tracing::info!(successor = id, program = %program, "a process was started that is to take over");
        let late = |_| {
            format!(
                "process {id} is not ready after {} s ([server] upgrade_timeout)",
                patience.as_secs_f64()
            )
        };
        let deadline = Instant::now() + patience;
        let prepared = async {
            let ways = self.give(successor).await?;
            successor.prepared().await?;
            Ok::<_, String>(ways)
        };
        let ways = timeout_at(deadline, prepared).await.map_err(late)??;
        self.leave_disk().await?;
        let ready = timeout_at(deadline, successor.ready()).await;
        let taken = ready.map_err(late)??;
        let read_there = |way: &Way| taken.udp.contains(&way.address);
        for way in ways.iter().filter(|way| read_there(way)) {
            way.shared.hand_over(true);
        }
        if let Err(reason) = successor.begin().await {
            for way in &ways {
                way.shared.hand_over(false);
            }
            return Err(reason);
        }
        self.handed_over.set(clock::now());
        for way in ways.into_iter().filter(read_there) {
            tokio::spawn(way.shared.receive(way.relayed));
        }
        self.hand_admin_over(&taken);
        Ok(id)
    }

    /// Gives the new process all sockets.
    async fn give(&self, successor: &mut Successor) -> Result<Vec<Way>, String> {
        let (upgrades_ok, upgrades_failed) = self.surroundings.metrics.upgrades();
        let begin = Begin {
            protocol: 0,
            generation: self.generation,
            cookie_key: self.surroundings.cookie_key,
            upgrades: (upgrades_ok, upgrades_failed),
            sockets: 0,
        };
        let mut given = Vec::new();
        let mut ways: Vec<Way> = Vec::new();
        let none = |error: std::io::Error| format!("sockets cannot be handed over: {error}");
        for held in self.held().iter() {
            let address = held.address.to_string();
            let own = || held.socket.try_clone().map_err(none);
            let Some(shared) = &held.quic else {
                given.push((described(Kind::Tcp, &address, None), own()?));
                continue;
            };
            let key = shared.known_key();
            given.push((described(Kind::Udp, &address, key), own()?));
            if ways.iter().any(|way| way.address == address) {
                continue;
            }
            let (theirs, relayed) = Relayed::new().map_err(none)?;
            let to_this = Kind::Relay(self.generation);
            given.push((described(to_this, &address, None), theirs));
            for relay in shared.relays() {
                let Some(generation) = relay.generation() else {
                    continue;
                };
                let end = relay.as_fd().try_clone_to_owned().map_err(none)?;
                given.push((described(Kind::Relay(generation), &address, None), end));
            }
            ways.push(Way {
                address,
                shared: shared.clone(),
                relayed,
            });
        }
        if let Some(admin) = &self.snapshot.load().config.admin {
            let held = self
                .held_admin
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(held) = held.as_ref() {
                let address = admin.address.to_string();
                let socket = held.socket.try_clone().map_err(none)?;
                given.push((described(Kind::Admin, &address, None), socket));
            }
        }
        let borrowed: Vec<(Described, BorrowedFd<'_>)> = given
            .iter()
            .map(|(described, end)| (described.clone(), end.as_fd()))
            .collect();
        successor.give(begin, &borrowed).await?;
        Ok(ways)
    }

    fn hand_admin_over(&self, taken: &Taken) {
        let mut held = self
            .held_admin
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if taken.admin
            && let Some(held) = held.take()
        {
            held.hand_over();
            self.admin_ends.send_replace(true);
        }
    }

    async fn leave_disk(&self) -> Result<(), String> {
        let cache = self.snapshot.load().cache.clone();
        let under_way = self.disk_moves.clone().lock_owned().await;
        let work = spawn_blocking(move || {
            // Goes on where the upgrade is given up: see `take_back`.
            let _under_way = under_way;
            match cache.store.disk() {
                Some(disk) => disk.leave(WRITE_OUT),
                None => Ok(()),
            }
        });
        let left = work.await.map_err(|error| error.to_string())?;
        left.map_err(|error| format!("the cache's disk tier cannot be left: {error}"))
    }

    /// Has the disk tier again, if it was left to a process that is no more.
    pub(super) async fn take_back(&self) {
        let cache = self.snapshot.load().cache.clone();
        // Not while it is still being left.
        let _under_way = self.disk_moves.lock().await;
        let mut again = interval(PAUSE);
        for tried in 0.. {
            again.tick().await;
            let cache = cache.clone();
            let work = spawn_blocking(move || cache.store.disk().map(cache::disk::Disk::take_back));
            match work.await {
                // The system is still clearing that process away.
                Ok(Some(Err(cache::disk::OpenError::InUse { .. }))) if tried < TRIES => {}
                Ok(Some(Err(error))) => {
                    tracing::error!(%error, "the cache's disk tier is lost; pages stay in memory");
                    return;
                }
                _ => return,
            }
        }
    }
}

fn described(kind: Kind, address: &str, key: Option<u128>) -> Described {
    Described {
        kind,
        address: address.to_owned(),
        key: key.map(|key| format!("{key:x}")),
    }
}
