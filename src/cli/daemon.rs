//! Options of long-running programs: detaching, user and group, umask, pidfile.

use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::config::names;
use crate::os::daemon::{self, LaunchReport, Side};
use crate::os::pidfile::{Pidfile, PidfileRefusal};
use crate::os::user::Ids;
use nix::sys::stat::{Mode, umask};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
// Beside others of its name in one command.
#[group(skip)]
pub(super) struct Args {
    /// Run in the background. The command exits with 0 once the program is ready, else it reports
    /// why it is not
    #[arg(short = 'D', long)]
    pub(super) detach: bool,
    /// Write the process id to this file; an empty name means no file; %n, %h, %d and %p stand
    /// for parts of the node name
    #[arg(long, value_name = "FILE", env = "QWORKER_WORKER_PIDFILE")]
    pidfile: Option<OsString>,
    /// Run as this user, a name or an id; only root can
    #[arg(long, value_name = "USER", env = "QWORKER_WORKER_UID")]
    uid: Option<String>,
    /// Run as this group, a name or an id [default: the user's]
    #[arg(long, value_name = "GROUP", env = "QWORKER_WORKER_GID")]
    gid: Option<String>,
    /// File mode creation mask in octal, such as 027
    #[arg(long, value_name = "MASK", env = "QWORKER_WORKER_UMASK", value_parser = mask)]
    umask: Option<Mode>,
}

/// Options of a worker beside those of [`Args`].
#[derive(Debug, clap::Args)]
pub(super) struct OfWorker {
    /// Take the place of the worker with this process number once ready, and end it then
    #[arg(long, value_name = "PID", hide = true, requires = "pidfile")]
    pub(super) replace: Option<i32>,
    /// The executable of the worker, also after a restart [default: this one]
    #[arg(long, value_name = "FILE", env = "QWORKER_WORKER_EXECUTABLE")]
    executable: Option<PathBuf>,
}

fn mask(text: &str) -> Result<Mode, String> {
    // A sign is none of octal numbers.
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let bits = digits.and_then(|text| u32::from_str_radix(text, 8).ok());
    let bits = bits.filter(|bits| *bits <= 0o777);
    bits.map(Mode::from_bits_truncate).ok_or_else(|| "expected an octal number up to 777".into())
}

/// The result of applying the options.
pub(super) enum DaemonStart {
    /// This process is the program.
    Here {
        /// Its pidfile.
        pidfile: Option<Pidfile>,
        /// Who waits until it works.
        launcher: Option<LaunchReport>,
    },
    /// The program is another process; this one ends so.
    Elsewhere(Exit),
}

impl OfWorker {
    /// The program that is to run the worker, if it is another one; absolute.
    ///
    /// # Errors
    /// There is no such file.
    pub(super) fn executable(&self) -> Result<Option<PathBuf>, Error> {
        let Some(path) = &self.executable else { return Ok(None) };
        let wrong = |why: String| Error::usage(format!("--executable {}: {why}", path.display()));
        let absolute = std::path::absolute(path).map_err(|error| wrong(error.to_string()))?;
        if !absolute.is_file() {
            return Err(wrong("no such file".into()));
        }
        Ok(Some(absolute))
    }
}

impl Args {
    /// Takes on user, group and mask.
    ///
    /// # Errors
    /// They do not exist, or we may not.
    pub(super) fn become_user(&self) -> Result<(), Error> {
        if let Some(mask) = self.umask {
            umask(mask);
        }
        let wrong = |why: String| Error::usage(format!("--uid, --gid: {why}"));
        let ids = Ids::of(self.uid.as_deref(), self.gid.as_deref())
            .map_err(|error| wrong(error.to_string()))?;
        match ids {
            Some(ids) if !ids.are_ours() => {
                if !Ids::may_change() {
                    return Err(wrong("only root can change the user or group".into()));
                }
                ids.assume().map_err(|error| wrong(error.to_string()))?;
                ids.log_in();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Where the pidfile of `node` is, if there is to be one; absolute.
    ///
    /// # Errors
    /// A letter after a percent sign means nothing.
    pub(super) fn pidfile(&self, node: &str) -> Result<Option<PathBuf>, Error> {
        // An empty name is none, as in Celery's images.
        let Some(template) = self.pidfile.as_ref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let wrong = |why: String| Error::usage(format!("--pidfile {why}"));
        let path = names::expand_path(template, node).map_err(wrong)?;
        let absolute = std::path::absolute(&path)
            .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        Ok(Some(absolute))
    }

    /// Detaches if that is wanted, and takes the pidfile; `replace` is the process that has it
    /// and is to be succeeded.
    ///
    /// # Errors
    /// No process can be made, or the pidfile is not ours.
    pub(super) fn begin(
        &self,
        node: &str,
        replace: Option<i32>,
        out: &ToUser,
    ) -> Result<DaemonStart, Error> {
        let path = self.pidfile(node)?;
        let launcher = if self.detach {
            let side = daemon::detach();
            match side.map_err(|error| Error::failure(format!("cannot detach: {error}")))? {
                Side::Launcher(code) => return Ok(DaemonStart::Elsewhere(Exit::Code(code))),
                Side::Daemon(report) => Some(report),
            }
        } else {
            None
        };
        let take = |path: &Path| match replace {
            Some(old) => told(Pidfile::succeed(path, old), path),
            None => claim(path),
        };
        match path.as_deref().map(take).transpose() {
            Ok(pidfile) => Ok(DaemonStart::Here { pidfile, launcher }),
            Err(error) => {
                let exit = error.report(out);
                if let Some(launcher) = launcher {
                    launcher.failed(exit.code());
                }
                Ok(DaemonStart::Elsewhere(exit))
            }
        }
    }

    /// Goes on in the place of an earlier program of this process, which had the pidfile as `fd`.
    ///
    /// # Errors
    /// The pidfile is not ours any more, and cannot be taken.
    pub(super) fn go_on(&self, node: &str, fd: Option<RawFd>) -> Result<Option<Pidfile>, Error> {
        Ok(match (self.pidfile(node)?, fd) {
            (Some(path), Some(fd)) => match Pidfile::inherit(fd, &path) {
                Some(pidfile) => Some(pidfile),
                None => Some(claim(&path)?),
            },
            (Some(path), None) => Some(claim(&path)?),
            (None, _) => None,
        })
    }
}

fn claim(path: &Path) -> Result<Pidfile, Error> {
    told(Pidfile::claim(path), path)
}

fn told(pidfile: Result<Pidfile, PidfileRefusal>, path: &Path) -> Result<Pidfile, Error> {
    let name = path.display();
    pidfile.map_err(|refused| match refused {
        PidfileRefusal::Held(pid) => Error {
            exit: Exit::CannotCreate,
            message: format!("Pidfile ({name}) already exists."),
            hints: vec![format!("Seems we're already running? (pid: {pid})")],
        },
        PidfileRefusal::Foreign(found) => Error::usage(format!(
            "--pidfile {name}: found {found}, expected no file or a pidfile of this user"
        )),
        PidfileRefusal::Failed(error) => Error::usage(format!("--pidfile {name}: {error}")),
    })
}
