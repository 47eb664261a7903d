//! How much memory the process has in use, and how much it may have.

use std::fs;
use std::path::PathBuf;

/// Bytes in RAM (proc(5), statm); `None`: the system does not say.
pub(super) fn in_use() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(page).ok()?)
}

/// Bytes that it may have: the least of its cgroups' limits and the machine's memory.
pub(super) fn there_is() -> Option<u64> {
    let machine = machine(&fs::read_to_string("/proc/meminfo").ok()?);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = files(&groups).into_iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        limit(&text)
    });
    limits.chain(machine).min()
}

fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The files that hold limits: those of each group up to the root, by the lines of
/// /proc/self/cgroup (cgroups(7)). In a container the root is the group itself.
fn files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut folder = PathBuf::from(root);
        files.push(folder.join(name));
        for part in path.split('/').filter(|part| !part.is_empty()) {
            folder.push(part);
            files.push(folder.join(name));
        }
    }
    files
}

/// `max` and what is more than any machine has are no limit.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_memory_and_may_have_more() {
        let (used, there) = (in_use().unwrap(), there_is().unwrap());
        assert!(used > 100_000 && used < there, "{used} of {there}");
    }

    #[test]
    fn limits_are_looked_for_up_to_the_root() {
        let shown = |text| -> Vec<String> {
            let files = files(text).into_iter();
            files.map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            shown("0::/a.slice/b.service\n"),
            [
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/a.slice/memory.max",
                "/sys/fs/cgroup/a.slice/b.service/memory.max"
            ]
        );
        assert_eq!(
            shown("5:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
            [
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes"
            ]
        );
        assert_eq!(shown("nonsense"), [""; 0]);
    }

    #[test]
    fn what_bounds_nothing_is_no_limit() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("536870912\n"), Some(512 << 20));
    }
}
