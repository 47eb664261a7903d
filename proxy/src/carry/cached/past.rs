//! Requests that go past the cache of their route, for carriers that do not hold them as Pingora's
//! sessions do: uploads and the like, and those that nothing stored answers and whose reply is for
//! nobody else.
//!
//! Whether a reply is indeed for nobody else is known when its head is there. One that others may
//! have, too, is to be left to [`super::serve`], which stores it.

use std::sync::Arc;
use std::time::SystemTime;

use cache::condition;
use cache::range;
use cache::reuse;
use cache::status::{CacheStatus, Forward};
use cache::storable::{Asker, NotStored, storable_for};
use cache::{Fields, KeyBuf, Policy, Request, RequestControl, Response, Storable, Times, validate};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::judge::{capability, changes, not_kept};
use super::purge::{Change, take_out};
use super::purge_method;
use crate::carry::Held;
use crate::carry::stored::CACHE_STATUS;
use crate::clock;
use crate::exchange::Way;
use crate::exchange::caching::Caching;
use crate::filter::FieldsMut;
use crate::snapshot::{Cache, Snapshot};

/// See the module's text.
pub(crate) enum Past {
    /// Nothing that is stored answers it.
    Alone {
        key: KeyBuf,
        why: Forward,
        asker: Asker,
        /// Why the reply is for nobody else.
        reason: Option<NotStored>,
    },
    /// Its method is not one that is answered from the cache, whichever the route.
    Method(Change),
}

impl Past {
    /// For a request for which nothing is stored: if its reply is for nobody else, as far as can be
    /// known. `why`: what was found instead.
    pub(crate) fn alone(
        cache: &Cache,
        caching: &Caching,
        request: Request<'_>,
        (key, why): (KeyBuf, Forward),
    ) -> Option<Self> {
        let fields = request.fields;
        let control = RequestControl::read(fields);
        let is_whole = *request.method == Method::GET
            && !condition::is_for_origin(fields)
            && !range::is_asked(request);
        // Who counts requests must see each once.
        if !is_whole || caching.min_uses > 1 || caching.show_key || !reuse::may_fetch(&control) {
            return None;
        }
        let policy = &caching.policy;
        let view = caching.normal.apply(fields);
        let on_disk = || cache.store.find_on_disk(key.as_key(), &view, &policy.vary);
        if cache.disk.is_some() && on_disk().is_some() {
            return None;
        }
        let is_private = policy.is_personal(fields) || control.no_store;
        let is_alone = control.no_cache || control.no_store;
        let is_marked = || cache.flights.is_marked(key.as_key(), clock::wall());
        if !is_private && (is_alone || !is_marked()) {
            return None;
        }
        if !is_alone {
            let hint = cache.store.hint(key.as_key(), &view, &policy.vary);
            // Another's reply may be for this one, too.
            if cache.flights.follow(key.as_key(), &hint).is_some() {
                return None;
            }
        }
        let asker = Asker::new(request, policy);
        Some(Self::Alone {
            key,
            why,
            asker,
            reason: None,
        })
    }

    /// For a request that is neither GET nor HEAD; `None` for one that is the cache's own business.
    pub(crate) fn method(
        snapshot: &Snapshot,
        method: &Method,
        scheme: &'static str,
        way: &Way,
    ) -> Option<Self> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let is_other = is_read || purge_method::is_asked(method, snapshot);
        (!is_other).then(|| Self::Method(Change::new(method, scheme, way)))
    }

    /// What the cache wants of the request before it goes up.
    pub(crate) fn question(&self, caching: &Caching, asked: &dyn Fields) -> Option<Question> {
        match self {
            Self::Alone { .. } => Some(Question(changes(caching, asked))),
            Self::Method(_) => None,
        }
    }

    /// Whether this reply is for its client alone. `sent`: when it was asked for.
    pub(crate) fn is_for_one(
        &mut self,
        policy: &Policy,
        reply: Response<'_>,
        sent: SystemTime,
    ) -> bool {
        let Self::Alone { asker, reason, .. } = self else {
            return true;
        };
        let received = clock::wall();
        match storable_for(*asker, reply, policy, Times { sent, received }) {
            Storable::No(why) => {
                *reason = Some(why);
                true
            }
            Storable::Store(_) => false,
        }
    }

    /// The reply is the one that the client gets: what is to be done about what is stored. `caching`: of
    /// the route, if it has one.
    pub(crate) fn settle(
        self,
        cache: &Cache,
        caching: Option<&Caching>,
        status: StatusCode,
        reply: &dyn Fields,
    ) -> Settled {
        let (fwd, detail, outdated) = match self {
            Self::Alone {
                key, why, reason, ..
            } => {
                if let Some(reason) = reason {
                    not_kept(cache, &key, reason);
                    if let Some(caching) = caching.filter(|_| reason.is_of_the_response()) {
                        let lifetime = caching.hit_for_miss;
                        cache.flights.mark(key.as_key(), clock::wall(), lifetime);
                    }
                }
                (why, reason.map(NotStored::as_str), Vec::new())
            }
            Self::Method(change) => (Forward::Method, None, change.outdated(status, reply)),
        };
        let status = CacheStatus {
            fwd: Some(fwd),
            detail,
            ..CacheStatus::default()
        };
        Settled { status, outdated }
    }
}

/// What is left to do before the reply goes to the client.
pub(crate) struct Settled {
    status: CacheStatus<'static>,
    outdated: Vec<crate::exchange::purging::Url>,
}

impl Settled {
    /// Takes out what is outdated.
    pub(crate) async fn take_out(&mut self, snapshot: &Arc<Held>) {
        take_out(snapshot, std::mem::take(&mut self.outdated)).await;
    }

    /// What the head says of it: without the tags, which are between the application and the cache.
    pub(crate) fn mark(&self, policy: &Policy, reply: &mut dyn FieldsMut) {
        for name in &policy.tags {
            reply.remove(name);
        }
        if let Ok(value) = HeaderValue::try_from(self.status.to_value()) {
            reply.add(CACHE_STATUS.clone(), value);
        }
    }
}

/// What the cache wants of a request.
pub(crate) struct Question(Vec<(HeaderName, Option<HeaderValue>)>);

impl Question {
    /// Whether a client's field of this name, in whatever case, goes up.
    pub(crate) fn keeps(name: &[u8]) -> bool {
        let is = |one: &HeaderName| one.as_str().as_bytes().eq_ignore_ascii_case(name);
        !validate::NOT_FORWARDED.iter().any(is)
    }

    /// Changes the others.
    pub(crate) fn put(self, fields: &mut dyn FieldsMut) {
        let (name, value) = capability();
        fields.add(name, value);
        for (name, value) in self.0 {
            match value {
                Some(value) => fields.set(name, value),
                None => fields.remove(&name),
            }
        }
    }
}
