//! What the kernel says of this process: the usual `process_*` numbers.
//!
//! Read from getrusage(2) and `/proc/self` at each scrape. What cannot be read
//! (no `/proc` in a bare chroot) is left out rather than shown as zero.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;

/// CPU seconds, user and system.
pub(super) fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Open descriptors, without the one that counts them.
pub(super) fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some((count as u64).saturating_sub(1))
}

/// The soft limit of descriptors.
pub(super) fn max_fds() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft)
}

/// Numbers of `/proc/self/status`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// `VmRSS` in bytes.
    pub(super) resident: Option<u64>,
    /// `VmSize` in bytes.
    pub(super) virtual_size: Option<u64>,
    /// `Threads`.
    pub(super) threads: Option<u64>,
}

impl Status {
    pub(super) fn read() -> Self {
        let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::parse(&text)
    }

    /// Sizes stand in kB there (proc(5)), which are KiB.
    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let number = value
                .split_whitespace()
                .next()
                .and_then(|number| number.parse::<u64>().ok());
            match key {
                "VmRSS" => status.resident = number.map(|kib| kib * 1024),
                "VmSize" => status.virtual_size = number.map(|kib| kib * 1024),
                "Threads" => status.threads = number,
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_is_read_in_bytes() {
        let text = "Name:\ttidegate\nVmSize:\t  2048 kB\nVmRSS:\t    12 kB\nThreads:\t5\nVmX:\n";
        assert_eq!(
            Status::parse(text),
            Status {
                resident: Some(12 << 10),
                virtual_size: Some(2 << 20),
                threads: Some(5)
            }
        );
        assert_eq!(Status::parse(""), Status::default());
    }

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let status = Status::read();
        assert!(
            status.resident > Some(0) && status.threads > Some(0),
            "{status:?}"
        );
        assert!(open_fds() > Some(2), "{:?}", open_fds());
        assert!(max_fds() >= open_fds());
        assert!(cpu_seconds() > Some(0.0));
    }
}
