//! The running process's side: it starts the new one, gives, and waits.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::{Command, Stdio};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::{
    Begin, Described, FromSuccessor, PROTOCOL, Program, Taken, ToSuccessor, VARIABLE, channel,
    systemd,
};
use crate::child::Child;

/// A process that was started to take over. It is killed where this is dropped before it has.
pub(crate) struct Successor {
    /// Before the channel, so that it is killed before that is closed, which would tell it that this
    /// process is gone.
    child: Child,
    channel: UnixDatagram,
}

impl Successor {
    /// Starts `program`. Within a runtime.
    ///
    /// # Errors
    /// It cannot be started, or this process must not end.
    pub(crate) fn start(program: &Program) -> Result<Self, String> {
        if let Some(why) = systemd::forbids() {
            return Err(why.into());
        }
        let failed = |what: &str, error: io::Error| format!("{what}: {error}");
        let (ours, theirs) =
            channel::pair().map_err(|error| failed("no way to a new process", error))?;
        let channel = channel::within_runtime(ours)
            .map_err(|error| failed("no way to a new process", error))?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env(VARIABLE, std::process::id().to_string())
            .stdin(Stdio::from(theirs));
        let child = Child::start(&mut command).map_err(|error| {
            failed(
                &format!("{} cannot be started", program.path.display()),
                error,
            )
        })?;
        Ok(Self { child, channel })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it all that there is.
    ///
    /// # Errors
    /// It does not take it.
    pub(crate) async fn give(
        &mut self,
        begin: Begin,
        sockets: &[(Described, BorrowedFd<'_>)],
    ) -> Result<(), String> {
        let begin = Begin {
            protocol: PROTOCOL,
            sockets: sockets.len(),
            ..begin
        };
        self.say(&ToSuccessor::Begin(begin), &[]).await?;
        for some in sockets.chunks(channel::MOST) {
            let (described, ends): (Vec<_>, Vec<_>) = some.iter().cloned().unzip();
            self.say(&ToSuccessor::Sockets(described), &ends).await?;
        }
        Ok(())
    }

    /// Waits until it has read and bound everything.
    ///
    /// # Errors
    /// It will not serve, or has ended.
    pub(crate) async fn prepared(&mut self) -> Result<(), String> {
        match self.hear().await? {
            FromSuccessor::Prepared => Ok(()),
            FromSuccessor::Refused(reason) => Err(reason),
            FromSuccessor::Ready(_) => Err("the new process is ready before its time".into()),
        }
    }

    /// Tells it that the disk tier is left, and waits until it could serve.
    ///
    /// # Errors
    /// It will not serve, or has ended.
    pub(crate) async fn ready(&mut self) -> Result<Taken, String> {
        self.say(&ToSuccessor::Disk, &[]).await?;
        match self.hear().await? {
            FromSuccessor::Ready(taken) => Ok(taken),
            FromSuccessor::Refused(reason) => Err(reason),
            FromSuccessor::Prepared => Err("the new process says the same twice".into()),
        }
    }

    /// Tells it to serve.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) async fn begin(&mut self) -> Result<(), String> {
        self.say(&ToSuccessor::Yours, &[]).await?;
        self.child.release();
        Ok(())
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn end(self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }

    async fn say(&mut self, word: &ToSuccessor, ends: &[BorrowedFd<'_>]) -> Result<(), String> {
        let say = || channel::send(&self.channel, word, ends, SendFlags::DONTWAIT);
        match self.channel.async_io(Interest::WRITABLE, say).await {
            Ok(()) => Ok(()),
            // What it said before its end is more than that it ended.
            Err(error) if is_gone(&error) => Err(match self.hear().await {
                Ok(FromSuccessor::Refused(reason)) | Err(reason) => reason,
                Ok(_) => self.ended().await,
            }),
            Err(error) => Err(format!("the new process cannot be told: {error}")),
        }
    }

    async fn hear(&mut self) -> Result<FromSuccessor, String> {
        let receive = || channel::receive(&self.channel, RecvFlags::DONTWAIT);
        match self.channel.async_io(Interest::READABLE, receive).await {
            Ok(Some((word, _))) => Ok(word),
            Ok(None) => Err(self.ended().await),
            Err(error) => Err(format!("the new process cannot be understood: {error}")),
        }
    }

    async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => {
                format!(
                    "the new process ended ({status}) without a word; what it printed may say why"
                )
            }
            Err(error) => format!("the new process is gone: {error}"),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
