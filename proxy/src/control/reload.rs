//! A reload: the next configuration is built whole, then put in force, or not at all.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::sockets::{Bound, Next, bind_next};
use super::{Control, restart};
use crate::assemble::{self, Surroundings, assemble};
use crate::listen::{self, Command, ListenerState, NO_PLACE};
use crate::observe::logging;

impl Control {
    /// Loads and applies the configuration; whether it is in force now.
    pub(super) async fn reload(
        &self,
        load: Arc<dyn Fn() -> Result<conf::Config, String> + Send + Sync>,
    ) -> bool {
        let result = self.try_reload(load).await;
        self.surroundings.metrics.reloaded(result.is_ok());
        self.last_reload.set(result.as_ref().err().cloned());
        match result {
            Ok(()) => {
                self.publish();
                let snapshot = self.snapshot.load();
                for warning in &snapshot.config.warnings {
                    tracing::warn!("{warning}");
                }
                let hash = format!("{:016x}", snapshot.config.hash);
                tracing::info!(hash, "configuration reloaded");
                true
            }
            Err(reason) => {
                tracing::error!("configuration not reloaded, the running one stays: {reason}");
                false
            }
        }
    }

    async fn try_reload(
        &self,
        load: Arc<dyn Fn() -> Result<conf::Config, String> + Send + Sync>,
    ) -> Result<(), String> {
        let previous = self.snapshot.load_full();
        let surroundings = Surroundings {
            is_taking_over: false,
            ..self.surroundings.clone()
        };
        let generation = self.generation;
        // Files and names are read off the event loop.
        let work = tokio::task::spawn_blocking(move || {
            let config = load()?;
            restart::needs_none(&previous.config, &config)?;
            let assembled =
                assemble(config, &surroundings, Some(&previous)).map_err(|e| e.to_string())?;
            bind_next(assembled, &previous, surroundings.workers, generation)
                .map_err(|e| e.to_string())
        });
        let (snapshot, new) = work.await.map_err(|error| error.to_string())??;
        self.apply(snapshot, new);
        Ok(())
    }

    /// Nothing in here can fail.
    fn apply(&self, next: Next, new: Bound) {
        logging::set(&next.snapshot.config.log);
        let previous = self.snapshot.load_full();
        let next_snapshot = Arc::new(next.snapshot);
        self.snapshot.store(next_snapshot.clone());
        for carrier in &self.carriers {
            carrier.let_go();
        }
        let named: HashMap<&str, _> = next_snapshot
            .upstreams
            .iter()
            .map(|it| (it.name(), &**it))
            .collect();
        for upstream in &previous.upstreams {
            upstream.retire(named.get(upstream.name()).copied());
        }
        for (listener, settings) in next.kept {
            let before = listener.settings.swap(Arc::new(settings));
            if before.quic.is_some() && listener.settings.load().quic.is_none() {
                self.held()
                    .retain(|one| one.address != listener.address || one.quic.is_none());
                self.tell_all(|| Command::ForgetQuic(listener.address));
            }
        }
        for (listener, sockets) in new {
            self.hand_out(&listener, sockets);
        }
        for gone in &previous.listeners {
            if assemble::listening(Some(&next_snapshot), gone.address).is_none() {
                self.forget(gone);
            }
        }
        // A log that was replaced is written out once the last request that knows it is done.
    }

    fn forget(&self, listener: &Arc<ListenerState>) {
        {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.retain(|listener| listener.open() > 0);
            retired.push(listener.clone());
        }
        self.held().retain(|one| one.address != listener.address);
        self.tell_all(|| Command::Forget(listener.address));
        self.tell_all(|| Command::ForgetQuic(listener.address));
        let settings = listener.settings.load();
        listener.settings.store(Arc::new(listen::ListenerSettings {
            place: NO_PLACE,
            name: settings.name.clone(),
            metrics: settings.metrics.clone(),
            tls: settings.tls.clone(),
            h1: settings.h1,
            h2: settings.h2,
            quic: None,
            alt_svc: None,
            announced: settings.announced.clone(),
            forward: settings.forward.clone(),
            access_log: settings.access_log,
            limits: settings.limits.clone(),
        }));
    }
}
