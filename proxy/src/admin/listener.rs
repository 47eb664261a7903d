//! Where the admin server listens: a TCP address or a Unix socket.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use conf::AdminAddress;

/// Who may connect to a Unix socket: its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// A bound listener, not yet in any runtime. Dropping it removes its Unix socket.
#[derive(Debug)]
pub(crate) struct AdminListener(Bound);

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl AdminListener {
    /// Binds. A Unix socket that a dead process left behind is replaced, one that
    /// somebody listens on is not, and neither is a file that is no socket.
    ///
    /// # Errors
    /// What bind(2) says; [`io::ErrorKind::AddrInUse`] when somebody listens there.
    pub(crate) fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self(Bound::Tcp(listener)))
            }
            AdminAddress::Unix(path) => {
                let listener = bind_unix(path)?;
                listener.set_nonblocking(true)?;
                let file = SocketFile::of(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
                Ok(Self(Bound::Unix(listener, file)))
            }
        }
    }

    /// Goes on with a socket that the process before had at this address. Its file is that process's
    /// until [`Self::own`] is called: this one may still fail.
    ///
    /// # Errors
    /// The file of a Unix socket is not there any more.
    pub(crate) fn inherit(address: &AdminAddress, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(match address {
            AdminAddress::Tcp(_) => Bound::Tcp(socket.into()),
            AdminAddress::Unix(path) => {
                let file = SocketFile::of(path)?;
                file.is_kept.store(true, Ordering::Relaxed);
                Bound::Unix(socket.into(), file)
            }
        }))
    }

    /// The process before has given away what was inherited: this one removes its file at the end.
    pub(crate) fn own(&self) {
        if let Bound::Unix(_, file) = &self.0 {
            file.is_kept.store(false, Ordering::Relaxed);
        }
    }

    /// The socket once more, for a process that takes over, and what keeps its file then.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn held(&self) -> io::Result<HeldAdmin> {
        let (socket, is_kept) = match &self.0 {
            Bound::Tcp(listener) => (listener.as_fd(), Arc::default()),
            Bound::Unix(listener, file) => (listener.as_fd(), file.is_kept.clone()),
        };
        let socket = socket.try_clone_to_owned()?;
        Ok(HeldAdmin { socket, is_kept })
    }

    /// Where it listens: `127.0.0.1:9901` or `unix:/run/tidegate/admin.sock`. Tells the
    /// port that was found for port 0.
    #[cfg(test)]
    pub(super) fn address(&self) -> String {
        match &self.0 {
            Bound::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.to_string(),
                Err(error) => error.to_string(),
            },
            Bound::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

/// What another process would go on with.
#[derive(Debug)]
pub(crate) struct HeldAdmin {
    pub(crate) socket: OwnedFd,
    is_kept: Arc<AtomicBool>,
}

impl HeldAdmin {
    /// The other process has it: a Unix socket's file stays.
    pub(crate) fn hand_over(self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Whether this is a socket that nobody listens on.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The socket's file, removed at the end unless another process has replaced it, or taken it over.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    is_kept: Arc<AtomicBool>,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inode: inode(path)?,
            is_kept: Arc::default(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_kept = self.is_kept.load(Ordering::Relaxed);
        if !is_kept && inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // It may be gone by now; there is nothing to do about any failure.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// The listener in a runtime.
pub(super) enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(
        tokio::net::UnixListener,
        #[expect(dead_code, reason = "held for its drop")] SocketFile,
    ),
}

/// A connection of either kind.
pub(super) enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Acceptor {
    pub(super) fn new(listener: AdminListener) -> io::Result<Self> {
        Ok(match listener.0 {
            Bound::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Bound::Unix(listener, file) => {
                Self::Unix(tokio::net::UnixListener::from_std(listener)?, file)
            }
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
            Self::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("tidegate-admin-{}-{name}", std::process::id()));
            fs::create_dir_all(&directory).expect("a directory of our own");
            Self(directory)
        }
        fn socket(&self) -> PathBuf {
            self.0.join("admin.sock")
        }
        fn bind(&self) -> io::Result<AdminListener> {
            AdminListener::bind(&AdminAddress::Unix(self.socket()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_socket_that_a_dead_process_left_is_replaced() {
        let scratch = Scratch::new("stale");
        drop(UnixListener::bind(scratch.socket()).expect("binds"));
        assert!(scratch.socket().exists(), "the file outlives its listener");
        let listener = scratch.bind().expect("binds again");
        assert!(listener.address().starts_with("unix:/"));
        let mode = fs::metadata(scratch.socket()).expect("there").mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        drop(listener);
        assert!(!scratch.socket().exists(), "removed at the end");
    }

    #[test]
    fn a_socket_that_somebody_listens_on_is_left_alone() {
        let scratch = Scratch::new("taken");
        let first = scratch.bind().expect("binds");
        let error = scratch.bind().expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let scratch = Scratch::new("file");
        fs::write(scratch.socket(), "precious").expect("written");
        scratch.bind().expect_err("not a socket");
        let kept = fs::read_to_string(scratch.socket()).expect("still there");
        assert_eq!(kept, "precious");
    }

    #[test]
    fn a_socket_that_was_replaced_meanwhile_is_not_removed_at_the_end() {
        let scratch = Scratch::new("replaced");
        let old = scratch.bind().expect("binds");
        // Both live at once, so that the file system cannot give the same inode twice.
        let next = scratch.0.join("next.sock");
        let new = UnixListener::bind(&next).expect("binds");
        fs::rename(&next, scratch.socket()).expect("renamed");
        drop(old);
        assert!(scratch.socket().exists());
        drop(new);
    }

    #[test]
    fn a_socket_that_is_handed_over_stays_until_the_next_process_ends() {
        let scratch = Scratch::new("handed-over");
        let address = AdminAddress::Unix(scratch.socket());
        let old = scratch.bind().expect("binds");
        let held = old.held().expect("a descriptor");
        let socket = held.socket.try_clone().expect("a descriptor");
        let inherit = |socket| AdminListener::inherit(&address, socket).expect("its file is there");
        // One that fails before it serves takes nothing with it.
        drop(inherit(held.socket.try_clone().expect("a descriptor")));
        let new = inherit(socket);
        new.own();
        held.hand_over();
        drop(old);
        assert!(UnixStream::connect(scratch.socket()).is_ok());
        drop(new);
        assert!(!scratch.socket().exists());
    }

    #[test]
    fn a_taken_port_is_an_error_and_port_0_tells_what_it_got() {
        let any = AdminAddress::Tcp(([127, 0, 0, 1], 0).into());
        let first = AdminListener::bind(&any).expect("binds");
        let taken = first.address().parse().expect("an address with its port");
        let error = AdminListener::bind(&AdminAddress::Tcp(taken)).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
