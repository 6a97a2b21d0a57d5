//! What the death of a worker costs the messages that it held.

use crate::bounds;
use chrono::{DateTime, Utc};

/// What the loss of its worker means for a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Loss {
    /// It counts.
    pub counts: bool,
    /// It is not redelivered before; `None` is at once.
    pub until: Option<DateTime<Utc>>,
}

/// What a message has lost whose worker died at `now`, after `deliveries` losses. `started`: it may
/// have been the cause. A message that was never lost may always be, since nothing is written before
/// it starts; a suspect only from its mark on. The first loss is most often the worker's own end,
/// not the task's doing, so the delay begins with the second.
pub(super) fn loss(deliveries: u32, started: bool, now: DateTime<Utc>) -> Loss {
    let delay = bounds::redelivery_delay(if started { deliveries } else { 0 });
    Loss { counts: started, until: (!delay.is_zero()).then(|| now + delay) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_second_loss_waits_and_what_never_started_costs_nothing() {
        let now = clock::now();
        let after = |seconds| Some(now + chrono::TimeDelta::seconds(seconds));
        for (deliveries, started, until) in
            [(0, true, None), (1, true, after(1)), (2, true, after(2)), (5, false, None)]
        {
            assert_eq!(loss(deliveries, started, now), Loss { counts: started, until });
        }
    }
}
