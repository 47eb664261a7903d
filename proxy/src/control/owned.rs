//! What must belong to the account that the process changes to.

use crate::privileges::Owned;

/// What is made as root and the account to change to must be able to write: the access log, which
/// is opened anew after a rotation, the admin socket, which is removed at the end, the cache's folder,
/// and what is kept of certificates.
pub(super) fn owned(config: &conf::Config) -> Owned {
    let log = config.log.access.iter().map(|log| log.path.clone());
    let socket = config
        .admin
        .iter()
        .filter_map(|admin| match &admin.address {
            conf::AdminAddress::Unix(path) => Some(path.clone()),
            conf::AdminAddress::Tcp(_) => None,
        });
    let disk = config.cache.disk.iter().map(|disk| disk.path.clone());
    let acme = config.tls.iter().flat_map(|tls| &tls.acme);
    let acme = acme.map(|acme| acme.storage.clone());
    Owned {
        files: log.chain(socket).collect(),
        folders: disk.chain(acme).collect(),
    }
}
