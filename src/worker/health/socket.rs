//! The worker's local socket, where `health` asks for its status.

use crate::client::health::StatusDocument;
use crate::os::node_socket::{self, SocketAddress};
use crate::worker::plan::Plan;
use std::cell::RefCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// How long a client may take to read its answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How often the socket's file is checked.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// How many clients wait for an answer at most.
const WAITING_MAX: usize = 64;

/// The open socket; dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Socket(Rc<RefCell<Option<SocketPlace>>>);

/// Where the socket is.
#[derive(Debug)]
struct SocketPlace {
    address: SocketAddress,
    /// Of the file; a later worker of the same name replaces the file by its own.
    inode: Option<u64>,
}

impl Socket {
    /// Opens the socket of the worker with this plan. Clients arrive at the receiver: the worker's
    /// own loop answers them, so an answer proves that the loop runs. A socket whose file is
    /// removed, as by a logout or a cleanup of `/tmp`, is opened again; one that cannot be opened
    /// is retried.
    pub(crate) fn open(plan: &Plan) -> (Socket, mpsc::Receiver<UnixStream>) {
        let socket = Socket(Rc::default());
        let (sender, clients) = mpsc::channel(WAITING_MAX);
        let what = format!("{}\0{}", plan.app.display(), plan.broker);
        let (node, place) = (plan.hostname.clone(), socket.0.clone());
        let mut listener = listen(&node, &what, &place, true);
        tokio::task::spawn_local(async move {
            let mut checks = tokio::time::interval(CHECK_EVERY);
            checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    stream = accept(listener.as_ref()) => match stream {
                        // A client too many gets no answer.
                        Ok(stream) => drop(sender.try_send(stream)),
                        // No descriptors are left; wait until some are closed.
                        Err(_) => tokio::time::sleep(ANSWER_MAX).await,
                    },
                    _ = checks.tick() => {
                        if !place.borrow().as_ref().is_some_and(SocketPlace::is_there) {
                            listener = listen(&node, &what, &place, false);
                        }
                    }
                }
            }
        });
        (socket, clients)
    }
}

/// Opens a socket; the worker also works without one. With `warn`, the log says why there is none.
fn listen(
    node: &str,
    what: &str,
    place: &RefCell<Option<SocketPlace>>,
    warn: bool,
) -> Option<UnixListener> {
    let open = || {
        let (listener, address) = node_socket::listen(node, what)?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>((UnixListener::from_std(listener)?, address))
    };
    match open() {
        Ok((listener, address)) => {
            let inode = SocketPlace::inode(&address);
            place.replace(Some(SocketPlace { address, inode }));
            Some(listener)
        }
        Err(error) => {
            if warn {
                tracing::warn!("no local socket, so `health` cannot reach this worker: {error}");
            }
            place.replace(None);
            None
        }
    }
}

async fn accept(listener: Option<&UnixListener>) -> io::Result<UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

impl SocketPlace {
    fn inode(address: &SocketAddress) -> Option<u64> {
        match address {
            SocketAddress::File(path) => path.symlink_metadata().ok().map(|found| found.ino()),
            SocketAddress::Name(..) => None,
        }
    }

    /// Is there still a socket, possibly that of a later worker of the same name?
    fn is_there(&self) -> bool {
        matches!(self.address, SocketAddress::Name(..))
            || SocketPlace::inode(&self.address).is_some()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(SocketPlace { address, inode }) = self.0.take()
            && let SocketAddress::File(path) = &address
            && SocketPlace::inode(&address) == inode
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Answers one client, without waiting for it to read.
pub(crate) fn answer(mut stream: UnixStream, status: &StatusDocument) {
    let text = serde_json::to_string(status).unwrap_or_default();
    tokio::task::spawn_local(async move {
        let _ = tokio::time::timeout(ANSWER_MAX, stream.write_all(text.as_bytes())).await;
    });
}
