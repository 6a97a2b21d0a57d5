//! A timer of the wall clock: it rings at an instant, also when the clock is set or the machine
//! sleeps meanwhile, and to the microsecond.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// A timer.
#[derive(Debug)]
pub struct Alarm(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Alarm> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        // SAFETY: a `TimerFd` stays open, and is the same descriptor, while it lives.
        let timer = unsafe { AsyncFd::register(Timer(timer)) }?;
        Ok(Alarm(timer))
    }

    /// Waits until so long after the epoch. Dropping this future is fine.
    ///
    /// # Errors
    /// The kernel refuses, which it has no reason to.
    pub async fn ring_at(&self, since_epoch: Duration) -> io::Result<()> {
        // Zero would switch it off.
        let at = TimeSpec::from_duration(since_epoch.max(Duration::from_nanos(1)));
        let set = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        self.0.get_ref().0.set(Expiration::OneShot(at), set)?;
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                Ok(rung) => return rung,
                // Set anew since it was readable.
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
    async fn it_rings_at_its_time_and_at_once_for_the_past() {
        let alarm = Alarm::new().unwrap();
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        alarm.ring_at(now() - Duration::from_secs(5)).await.unwrap();
        alarm.ring_at(Duration::ZERO).await.unwrap();
        let at = now() + Duration::from_millis(20);
        // Given up, it is set anew.
        let _ = tokio::time::timeout(Duration::from_millis(1), alarm.ring_at(at)).await;
        alarm.ring_at(at).await.unwrap();
        assert!(now() >= at);
    }
}
