//! Certificates, and what each listener speaks TLS with.

use std::sync::Arc;

use rustls::ServerConfig;

use super::Surroundings;
use crate::acme::{AcmeError, Managed};
use crate::listen::{self, Certificates, TlsError};
use crate::snapshot::Snapshot;

/// One that did not change goes on, with its certificate and the order that may be under way.
pub(super) fn managed(
    config: &conf::Config,
    previous: Option<&Snapshot>,
) -> Result<Vec<Arc<Managed>>, AcmeError> {
    let before = previous.map_or(&[][..], |previous| &previous.managed);
    let acme = config.tls.iter().flat_map(|tls| &tls.acme);
    acme.map(|settings| {
        let kept = before.iter().find(|one| one.settings() == settings);
        match kept {
            Some(kept) => Ok(kept.clone()),
            None => Managed::open(settings).map(Arc::new),
        }
    })
    .collect()
}

/// Those from files, and those that are obtained.
pub(super) fn certificates(
    config: &conf::Config,
    surroundings: &Surroundings,
    previous: Option<&Snapshot>,
    managed: &[Arc<Managed>],
) -> Result<Option<Arc<Certificates>>, TlsError> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    let obtained = managed.iter().map(|one| one.obtained().clone()).collect();
    let challenges = surroundings.orders.challenges.clone();
    let certificates =
        Certificates::load(&tls.certificates, obtained, challenges, tls.ocsp_stapling)?;
    if let Some(before) = previous.and_then(|previous| previous.certificates.as_ref()) {
        certificates.keep_staples(before);
    }
    Ok(Some(Arc::new(certificates)))
}

/// By the listeners' places; `None` where TLS is not spoken.
pub(super) fn of_listeners(
    config: &conf::Config,
    surroundings: &Surroundings,
    certificates: Option<&Arc<Certificates>>,
) -> Result<Vec<Option<Arc<ServerConfig>>>, TlsError> {
    let (Some(tls), Some(certificates)) = (&config.tls, certificates) else {
        return Ok(config.listeners.iter().map(|_| None).collect());
    };
    let mut acme = tls.acme.iter();
    let validates = acme.any(|acme| acme.challenge == conf::AcmeChallenge::TlsAlpn01);
    config
        .listeners
        .iter()
        .map(|listener| {
            listener
                .tls
                .then(|| {
                    listen::server_config(
                        certificates.clone(),
                        &surroundings.tickets,
                        &tls.ticket_keys,
                        &listener.tls_options,
                        (listener.h1, listener.h2),
                        validates,
                    )
                })
                .transpose()
        })
        .collect()
}
