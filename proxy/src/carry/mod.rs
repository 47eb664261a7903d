//! Those who move bytes. They ask `exchange` what is to be done and do it.
//!
//! There are Pingora's sessions towards clients (HTTP/2 streams behind its trait for
//! other protocols, see [`crate::listen`]) and towards upstreams,
//! joined by loops of our own ([`turn`]), and in front of them the lane ([`lane`])
//! for plain requests, which needs none of the sessions.

mod account;
mod answer;
mod cached;
mod failure;
mod fields;
mod files;
mod forward;
mod grpc;
mod hints;
mod lane;
mod passed;
mod request;
mod respond;
mod sticky;
mod stored;
mod tunnel;
mod turn;
mod upstream;

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::Version;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use cached::purge;
pub(crate) use lane::{Going, Stream as LaneStream, Taken, TakenStream, Twins};
pub(crate) use passed::Forward;
pub(crate) use respond::Refused;
pub(crate) use turn::Pending;

use turn::Turn;

use crate::clock;
use crate::handover::HandedOver;
use crate::listen::{ConnInfo, ListenerSettings, ListenerState, NO_PLACE, Slot, conn_info, is_h2};
use crate::observe::{Protocol, Record};
use crate::overload::Load;
use crate::snapshot::Snapshot;

/// The snapshot as a worker holds it: the references of its requests are counted here, where no
/// other core writes.
pub(crate) struct Held {
    snapshot: Arc<Snapshot>,
    worker: usize,
}

impl Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// How long the rest of an HTTP/2 request body is read after its answer.
const LINGER: Duration = Duration::from_secs(1);

/// One worker's carrier.
pub(crate) struct Carrier {
    worker: usize,
    snapshot: Arc<ArcSwap<Snapshot>>,
    held: ArcSwap<Held>,
    draining: watch::Receiver<bool>,
    handed_over: Arc<HandedOver>,
    load: Arc<Load>,
}

impl Carrier {
    pub(crate) fn new(
        worker: usize,
        snapshot: Arc<ArcSwap<Snapshot>>,
        draining: watch::Receiver<bool>,
        handed_over: Arc<HandedOver>,
    ) -> Self {
        Self {
            worker,
            held: ArcSwap::from_pointee(Held {
                snapshot: snapshot.load_full(),
                worker,
            }),
            load: snapshot.load().load.clone(),
            snapshot,
            draining,
            handed_over,
        }
    }

    /// What is in force.
    fn snapshot(&self) -> Arc<Held> {
        let in_force = self.snapshot.load();
        let held = self.held.load_full();
        match Arc::ptr_eq(&held.snapshot, &in_force) {
            true => held,
            false => {
                let held = Arc::new(Held {
                    snapshot: Guard::into_inner(in_force),
                    worker: self.worker,
                });
                self.held.store(held.clone());
                held
            }
        }
    }

    /// Lets go of what is no longer in force; requests that hold it go on with it.
    pub(crate) fn let_go(&self) {
        self.snapshot();
    }

    /// One request and its reply; gives an HTTP/1 connection back when it can go on.
    /// `last`: it is the connection's last one. `pending`: it was begun on the lane.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        mut session: ServerSession,
        last: bool,
        pending: Option<Box<Pending>>,
    ) -> Option<Stream> {
        if !matches!(session.read_request().await, Ok(true)) {
            return None;
        }
        if last {
            session.set_keepalive(None);
        }
        let info = session
            .digest()
            .and_then(|digest| digest.proxy_digest.as_deref())
            .and_then(conn_info)
            .cloned()?;
        let turn = match pending {
            None => Turn::new(self.clone(), info, &session),
            Some(pending) => Turn::pending(self.clone(), info, *pending),
        };
        if turn.run(&mut session).await {
            if is_h2(&session) && !session.is_body_done() {
                // Answered before the body was whole. Resetting the stream at once makes some
                // clients throw the answer away; so the rest is taken for a moment.
                let _ = timeout(LINGER, session.drain_request_body()).await;
            }
            let (stream, _) = session.finish().await.ok()??.into_parts();
            return Some(stream);
        }
        if is_h2(&session) {
            session.shutdown().await;
        } else if session.req_header().version == Version::HTTP_10
            && session.response_written().is_some()
        {
            let digest = session.digest().and_then(|it| it.proxy_digest.as_deref());
            if let Some(info) = digest.and_then(conn_info) {
                info.broke_off.store(true, Ordering::Relaxed);
            }
        }
        // Dropping an HTTP/1 session ends its connection without ending the
        // body, so that the client can tell a cut reply from a whole one.
        None
    }

    /// Counts and logs what never becomes a request; gives the reply.
    pub(crate) fn refuse(&self, slot: &Slot, refused: Refused) -> Vec<u8> {
        let snapshot = self.snapshot.load();
        let settings = slot.listener().settings.load();
        let client = slot.peer().ip().to_canonical();
        note(&snapshot, &settings, client, |record| {
            record.status = refused.status().as_u16();
            record.why = Some(refused.as_str());
        });
        count(slot.listener(), &settings, client, &refused);
        refused.to_bytes()
    }

    /// The same for a stream of its own; gives the reply's body.
    pub(crate) fn refuse_stream(
        &self,
        info: &ConnInfo,
        refused: Refused,
        protocol: Protocol,
    ) -> String {
        let snapshot = self.snapshot.load();
        let settings = info.listener.settings.load();
        note(
            &snapshot,
            &settings,
            info.peer.ip().to_canonical(),
            |record| {
                record.protocol = protocol;
                record.tls = info.tls;
                record.status = refused.status().as_u16();
                record.why = Some(refused.as_str());
            },
        );
        count(&info.listener, &settings, info.peer.ip(), &refused);
        refused.to_body()
    }

    /// Whether the process is ending. It ends once, so that the version tells; to read the value
    /// would take a lock that all workers share.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.has_changed().unwrap_or(true)
    }

    /// Whether another process has taken over, and accepts.
    pub(crate) fn handed_over(&self) -> &HandedOver {
        &self.handed_over
    }

    /// How overloaded the process is.
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Whether connections end with what is under way on them: the process is ending, or overloaded.
    pub(crate) fn ends_connections(&self) -> bool {
        self.is_draining() || self.load.shedding().ends_connections()
    }

    /// Tells the client that the connection ends with this reply, if it does.
    fn close_if_draining(&self, session: &mut ServerSession) {
        if self.ends_connections() && !is_h2(session) {
            session.set_keepalive(None);
        }
    }

    fn worker(&self) -> usize {
        self.worker
    }
}

/// Counts what is refused; of limits the log says it now and then, too.
fn count(listener: &ListenerState, settings: &ListenerSettings, client: IpAddr, refused: &Refused) {
    match refused.is_limit() {
        true => listener.rejected(refused.as_str(), client),
        false => settings.metrics.rejected(refused.as_str()),
    }
}

/// Counts and logs what never becomes a request. `fill` says what it was.
fn note(
    snapshot: &Snapshot,
    settings: &ListenerSettings,
    client: IpAddr,
    fill: impl FnOnce(&mut Record),
) {
    if settings.place == NO_PLACE {
        return;
    }
    let id = crate::random::id();
    let mut record = Record::new(clock::now(), clock::wall(), id, settings.place, client);
    fill(&mut record);
    record.end(clock::now());
    snapshot.table.finish(&record);
    if let Some(log) = snapshot.access.as_ref().filter(|_| settings.access_log) {
        log.write(&record, snapshot.table.names());
    }
}
