//! The protocol of `sd_notify(3)`: datagrams with lines `NAME=value`, sent to the service manager's
//! socket, which `NOTIFY_SOCKET` names.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Variables that are for this process alone.
pub const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// The manager that started this process, if any.
#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names.
    pub fn of_environment() -> Manager {
        let socket = std::env::var("NOTIFY_SOCKET").ok().and_then(|name| connect(&name));
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| ours && socket.is_some());
        Manager { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// After this long without a `WATCHDOG=1`, it considers us stuck.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends it these lines. A manager that does not listen is no reason to fail.
    pub fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(lines.as_bytes());
        }
    }

    /// Tells it that a reload has begun.
    pub fn reloading(&self) {
        use nix::time::{ClockId, clock_gettime};
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }
}

/// The name is a path, or with an `@` in front an abstract name.
fn connect(name: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    // A stuck manager must not block us.
    socket.set_nonblocking(true).ok()?;
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None => SocketAddr::from_pathname(name).ok()?,
    };
    socket.connect_addr(&address).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_lines_by_path_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("qworker-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (manager, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}")),
        ] {
            let told = Manager { socket: connect(&address), watchdog: None };
            told.tell("READY=1\nSTATUS=ready");
            let mut text = [0; 64];
            let length = manager.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1\nSTATUS=ready");
            drop(manager);
            told.tell("READY=1");
        }
        assert!(connect("/nowhere/notify").is_none());
    }
}
