//! Where clients connect: a TCP port or a Unix socket.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    process::{geteuid, umask},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
};

/// Most bytes in the path of a socket: `sun_path` holds 108, with the byte that ends the path.
pub const PATH_BYTES_MAX: usize = 107;

/// How often an instance tries to lock a folder that another one has locked for its start.
const LOCK_TRIES: u32 = 100;
/// Pause between two of these tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What a socket of ours grants to others: nothing. Its owner and its group may connect.
const OTHERS: Mode = Mode::RWXO.union(Mode::XUSR).union(Mode::XGRP);

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener, SocketFile),
}

/// A client's connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl Listener {
    /// Listens on an address. A Unix socket that nobody listens on any more is replaced, if it belongs
    /// to this user.
    ///
    /// # Errors
    ///
    /// Fails if the address is in use or not available.
    pub async fn bind(address: &Address) -> anyhow::Result<Self> {
        let bound = match address {
            Address::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Self::Tcp)
                .map_err(Into::into),
            Address::Unix(path) => bind_unix(path).await,
        };
        bound.with_context(|| format!("cannot listen on {address}; see --listen"))
    }

    /// The address that clients connect to: a requested port 0 is replaced by the real one.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not report it.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// Waits for the next client; returns its connection and its name for messages.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses, e.g. because of too many open files.
    pub async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Box::new(stream), peer.to_string()))
            }
            Self::Unix(listener, _) => {
                let (stream, _unnamed) = listener.accept().await?;
                let peer = match stream.peer_cred() {
                    Ok(peer) => match peer.pid() {
                        Some(pid) => format!("process {pid} of user {}", peer.uid()),
                        None => format!("a process of user {}", peer.uid()),
                    },
                    Err(_unknown) => "a process".to_owned(),
                };
                Ok((Box::new(stream), peer))
            }
        }
    }
}

/// The file of a bound Unix socket, removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: another program may have put a file of its own there since.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if !is_ours {
            return;
        }
        if let Err(why) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {why}", self.path.display());
        }
    }
}

async fn bind_unix(path: &Path) -> anyhow::Result<Listener> {
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty())
        && !folder.is_dir()
    {
        bail!(
            "there is no directory {}; create it, or let systemd do that (RuntimeDirectory=)",
            folder.display()
        );
    }
    // Of two instances that start at once, the second one must find the first one listening.
    let _lock = lock_folder(path).await?;
    remove_stale(path).await?;
    // The file must never exist with more permissions. No other thread creates files meanwhile: there
    // is none yet.
    let before = umask(OTHERS);
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    let file = fs::symlink_metadata(path).context("its file is gone already")?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (file.dev(), file.ino()),
    };
    Ok(Listener::Unix(listener, file))
}

/// Locks the folder of a socket until the result is dropped, against other instances.
async fn lock_folder(path: &Path) -> anyhow::Result<OwnedFd> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let what = || format!("cannot lock the directory {}", folder.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty()).with_context(what)?;
    for _try in 0..LOCK_TRIES {
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(opened),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(why) => return Err(why).with_context(what),
        }
    }
    bail!("{}: another program has locked it", what())
}

/// Removes a socket that nobody listens on, left by an instance that was killed. Anything else stays,
/// and is an error.
async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why).context("cannot examine its path"),
    };
    if !file.file_type().is_socket() {
        bail!("this path exists and is not a socket; choose another one, or remove it");
    }
    match UnixStream::connect(path).await {
        Ok(_answered) => bail!("another program listens on it"),
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {}
        // A full queue of clients, a socket of another type, missing permissions.
        Err(why) => {
            return Err(anyhow!(why).context("a socket exists there that may be in use"));
        }
    }
    if file.uid() != geteuid().as_raw() {
        bail!(
            "a socket of user {} exists there; nobody listens on it, so you may remove it",
            file.uid()
        );
    }
    fs::remove_file(path).context("cannot remove the socket of an earlier run")?;
    log::info!("removed {}, the socket of an earlier run", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt as _, symlink},
        net,
    };

    use super::*;

    fn block_on<T>(what: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(what)
    }

    fn bind(path: &Path) -> Result<Listener, String> {
        let bound = block_on(Listener::bind(&Address::Unix(path.to_owned())));
        bound.map_err(|why| format!("{why:#}"))
    }

    #[test]
    fn only_owner_and_group_may_connect_and_the_file_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (address, mode) = block_on(async {
            let listener = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            (listener.address().unwrap(), mode & 0o7777)
        });
        assert_eq!(address, Address::Unix(path.clone()));
        assert_eq!(format!("{mode:o}"), "660");
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = block_on(async {
            let listener = Listener::bind(&Address::Unix(path.clone())).await?;
            let client = UnixStream::connect(&path).await?;
            let (_stream, peer) = listener.accept().await?;
            drop(client);
            anyhow::Ok(peer)
        });
        let me = format!(
            "process {} of user {}",
            std::process::id(),
            geteuid().as_raw()
        );
        assert_eq!(bound.unwrap(), me);
    }

    #[test]
    fn a_stale_socket_is_left_alone_while_another_instance_starts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(net::UnixListener::bind(&path).unwrap());
        let address = Address::Unix(path.clone());
        block_on(async {
            // The other instance has examined the socket, and is about to replace it.
            let lock = lock_folder(&path).await.unwrap();
            let second = Listener::bind(&address);
            tokio::pin!(second);
            let early = tokio::time::timeout(LOCK_PAUSE * 3, &mut second).await;
            assert!(early.is_err(), "{early:?}");
            fs::remove_file(&path).unwrap();
            let first = UnixListener::bind(&path).unwrap();
            drop(lock);
            let why = format!("{:#}", second.await.unwrap_err());
            assert!(why.contains("another program listens"), "{why}");
            UnixStream::connect(&path).await.unwrap();
            first.accept().await.unwrap();
        });
    }

    #[test]
    fn what_may_be_of_use_to_others_stays_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        let _listening = net::UnixListener::bind(at("live")).unwrap();
        let _datagrams = net::UnixDatagram::bind(at("datagrams")).unwrap();
        drop(net::UnixListener::bind(at("stale")).unwrap());
        symlink(at("stale"), at("link-to-socket")).unwrap();
        for (name, why) in [
            ("file", "exists and is not a socket"),
            ("folder", "exists and is not a socket"),
            ("link", "exists and is not a socket"),
            ("link-to-socket", "exists and is not a socket"),
            ("live", "another program listens on it"),
            ("datagrams", "may be in use"),
            ("missing/s", "there is no directory"),
            ("file/s", "there is no directory"),
        ] {
            let said = bind(&at(name)).unwrap_err();
            assert!(said.contains(why), "{name}: {said}");
            assert!(said.contains("--listen"), "{name}: {said}");
            let survives = fs::symlink_metadata(at(name)).is_ok();
            assert_eq!(survives, !name.ends_with("/s"), "{name}");
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"x");
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        block_on(async {
            let first = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
            fs::remove_file(&path).unwrap();
            // An inode that is free again may get its number again.
            fs::write(folder.path().join("other"), "").unwrap();
            let second = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
            drop(first);
            assert!(path.exists());
            drop(second);
        });
        assert!(!path.exists());
    }
}
