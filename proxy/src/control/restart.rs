//! What a reload cannot change.

/// Whether the disk tier would have to be opened anew, or taken up again after purges that it does
/// not know of.
fn changes_disk(running: &conf::Config, next: &conf::Config) -> bool {
    let (old, new) = (&running.cache, &next.cache);
    old.disk != new.disk || (new.disk.is_some() && old.memory != new.memory)
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
    } else if changes_disk(running, next) {
        "[cache] disk, or memory beside it,"
    } else {
        return Ok(());
    };
    Err(format!("{changed} changed, and that needs a restart"))
}
