//! A timer on the wall clock. It expires at its instant even if the clock is set or the machine
//! is suspended meanwhile, and is exact to the microsecond.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// A timer.
#[derive(Debug)]
pub struct WallTimer(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl WallTimer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<WallTimer> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        // SAFETY: a `TimerFd` stays open, and is the same descriptor, while it lives.
        let timer = unsafe { AsyncFd::register(Timer(timer)) }?;
        Ok(WallTimer(timer))
    }

    /// Waits until this time after the epoch. Dropping this future is fine.
    ///
    /// # Errors
    /// The kernel refuses, which is not expected.
    pub async fn wait_until(&self, since_epoch: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let at = TimeSpec::from_duration(since_epoch.max(Duration::from_nanos(1)));
        let set = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        self.0.get_ref().0.set(Expiration::OneShot(at), set)?;
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                Ok(expired) => return expired,
                // Set again since it was readable.
                Err(_) => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[tokio::test]
    async fn it_expires_at_its_time_and_at_once_for_the_past() {
        let timer = WallTimer::new().unwrap();
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        timer.wait_until(now() - Duration::from_secs(5)).await.unwrap();
        timer.wait_until(Duration::ZERO).await.unwrap();
        let at = now() + Duration::from_millis(20);
        // Cancelled, then set again.
        let _ = tokio::time::timeout(Duration::from_millis(1), timer.wait_until(at)).await;
        timer.wait_until(at).await.unwrap();
        assert!(now() >= at);
    }
}
