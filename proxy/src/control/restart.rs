//! What a reload cannot change.

/// Whether the disk tier would have to be opened while it is open.
fn keeps_disk(running: &conf::Config, next: &conf::Config) -> bool {
    let (old, new) = (&running.cache, &next.cache);
    old.disk.is_some() && new.disk.is_some() && (old.memory != new.memory || old.disk != new.disk)
}

/// What only a new process can change is refused, so that nobody believes it in force.
pub(super) fn needs_none(running: &conf::Config, next: &conf::Config) -> Result<(), String> {
    let changed = if running.server.workers != next.server.workers {
        "[server] workers"
    } else if running.server.user != next.server.user {
        "[server] user"
    } else if running.admin.as_ref().map(|a| &a.address) != next.admin.as_ref().map(|a| &a.address)
    {
        "[admin] address"
    } else if keeps_disk(running, next) {
        "[cache] disk (or its memory)"
    } else {
        return Ok(());
    };
    Err(format!("{changed} changed, and that needs a restart"))
}
