//! The new process's side: what it gets from the one that started it, and when it serves.
//!
//! It waits for words without an event loop, for there is none yet. If the other process ends
//! before the last word, it has not given up (then it would have ended this one first): somebody has
//! to serve, and this one has the sockets.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};

use super::{Begin, FromSuccessor, Inheritance, PROTOCOL, Taken, ToSuccessor, VARIABLE, channel};

/// The other process has everything at hand; its disk may be slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process that this one is to take over from.
#[derive(Debug)]
pub struct Predecessor {
    channel: OwnedFd,
    id: u32,
}

impl Predecessor {
    /// `None`: this process was started by somebody else. To be called before anything is read from
    /// the standard input.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let id = env::var(VARIABLE).ok()?.parse().ok()?;
        // The variable goes on to every program that is started below; the parent does not.
        if parent_id() != id {
            return None;
        }
        let channel = io::stdin().as_fd().try_clone_to_owned().ok()?;
        if let Ok(nothing) = File::open("/dev/null") {
            // Else programs that are started from here would hold the channel.
            let _ = nix::unistd::dup2_stdin(nothing);
        }
        set_socket_timeout(&channel, Timeout::Recv, Some(PATIENCE)).ok()?;
        Some(Self { channel, id })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Tells it that this process will not serve, and why.
    pub fn refuse(&self, reason: &str) {
        // Whether it hears that or sees the end of this process comes to the same.
        let _ = self.say(&FromSuccessor::Refused(reason.to_owned()));
    }

    /// What it gives away.
    ///
    /// # Errors
    /// It says something else, or nothing.
    pub(crate) fn inherit(&self) -> Result<Inheritance, String> {
        let Some((ToSuccessor::Begin(begin), _)) = self.hear()? else {
            return Err("it does not say what there is to take over".into());
        };
        if begin.protocol != PROTOCOL {
            return Err(format!(
                "it speaks version {} of this, and this binary {PROTOCOL}; restart instead",
                begin.protocol
            ));
        }
        let mut sockets = Vec::with_capacity(begin.sockets);
        while sockets.len() < begin.sockets {
            let Some((ToSuccessor::Sockets(described), descriptors)) = self.hear()? else {
                return Err("not all of its sockets came".into());
            };
            if described.len() != descriptors.len() || described.is_empty() {
                return Err(format!(
                    "{} of {} sockets came; is the limit of open files (ulimit -n) high enough?",
                    descriptors.len(),
                    described.len()
                ));
            }
            sockets.extend(described.into_iter().zip(descriptors));
        }
        Ok(Inheritance::new(&begin, sockets))
    }

    /// Waits until it has left the disk tier of the cache.
    ///
    /// # Errors
    /// It says something else, or nothing.
    pub(crate) fn prepared(&self) -> Result<(), String> {
        // An error means that it is gone; so is its lock.
        let _ = self.say(&FromSuccessor::Prepared);
        match self.hear()? {
            Some((ToSuccessor::Disk, _)) | None => Ok(()),
            Some(_) => Err("it says something else than was asked".into()),
        }
    }

    /// Waits until everything is this process's.
    ///
    /// # Errors
    /// It says something else, or nothing.
    pub(crate) fn ready(&self, taken: Taken) -> Result<(), String> {
        let _ = self.say(&FromSuccessor::Ready(taken));
        // From here on both could go on alone, so this one does not give up by itself: the other ends
        // it where it does, and its own end shows here.
        let heard = loop {
            match channel::receive(&self.channel, RecvFlags::empty()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
                Ok(heard) => break heard,
            }
        };
        match heard {
            Some((ToSuccessor::Yours, _)) => Ok(()),
            None => {
                tracing::warn!(predecessor = self.id, "it ended before its time");
                Ok(())
            }
            Some(_) => Err("it says something else than was asked".into()),
        }
    }

    fn say(&self, word: &FromSuccessor) -> io::Result<()> {
        channel::send(&self.channel, word, &[], SendFlags::empty())
    }

    fn hear(&self) -> Result<Option<(ToSuccessor, Vec<OwnedFd>)>, String> {
        channel::receive(&self.channel, RecvFlags::empty()).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => format!("it says nothing for {} s", PATIENCE.as_secs()),
            _ => error.to_string(),
        })
    }
}

impl Inheritance {
    fn new(begin: &Begin, sockets: Vec<(super::Described, OwnedFd)>) -> Self {
        Self {
            generation: begin.generation.wrapping_add(1),
            cookie_key: Some(begin.cookie_key),
            // This one counts, if it comes to its end.
            upgrades: (begin.upgrades.0 + 1, begin.upgrades.1),
            sockets,
            taken: Taken::default(),
        }
    }
}
