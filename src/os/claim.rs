//! Names of this host that one process has at a time, without a file: sockets in the kernel's own
//! space of names, which takes them back when their holder dies. Hosts that share a disk, and
//! containers with a network of their own, do not see each other's.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A name that is ours until this is dropped.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "it is held, not used")] UnixDatagram);

impl Claim {
    /// Takes the name, at most 100 bytes, unless somebody has it.
    ///
    /// # Errors
    /// There are no such names here, or no descriptors.
    pub fn take(name: &str) -> io::Result<Option<Claim>> {
        match UnixDatagram::bind_addr(&address(name)?) {
            Ok(socket) => Ok(Some(Claim(socket))),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does somebody have the name?
    ///
    /// # Errors
    /// As [`Claim::take`].
    pub fn is_taken(name: &str) -> io::Result<bool> {
        match UnixDatagram::unbound()?.connect_addr(&address(name)?) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_one_at_a_time() {
        let name = format!("qworker.test.{}", std::process::id());
        assert!(!Claim::is_taken(&name).unwrap());
        let claim = Claim::take(&name).unwrap().unwrap();
        assert!(Claim::take(&name).unwrap().is_none());
        assert!(Claim::is_taken(&name).unwrap());
        drop(claim);
        assert!(!Claim::is_taken(&name).unwrap());
        assert!(Claim::take(&name).unwrap().is_some());
    }
}
