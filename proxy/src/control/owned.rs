//! What must belong to the account that the process changes to.

use std::path::PathBuf;

use crate::acme;

/// Files made as root that the account to change to must be able to write: the access log, which
/// is opened anew after a rotation, the admin socket, which is removed at the end, and what is kept of
/// certificates.
pub(super) fn owned(config: &conf::Config) -> Vec<PathBuf> {
    let log = config.log.access.iter().map(|log| log.path.clone());
    let disk = config.cache.disk.iter().flat_map(|disk| {
        let files = std::fs::read_dir(&disk.path).into_iter().flatten();
        let files = files.filter_map(|entry| Some(entry.ok()?.path()));
        files.chain([disk.path.clone()])
    });
    let socket = config
        .admin
        .iter()
        .filter_map(|admin| match &admin.address {
            conf::AdminAddress::Unix(path) => Some(path.clone()),
            conf::AdminAddress::Tcp(_) => None,
        });
    let acme = config.tls.iter().flat_map(|tls| &tls.acme);
    let acme = acme.flat_map(|acme| acme::files(&acme.storage));
    log.chain(socket).chain(disk).chain(acme).collect()
}
