//! kombu's keys and ours: their names.

/// kombu's priority steps: 0, served first, is a queue's own list.
pub(super) const STEPS: [u8; 4] = [0, 3, 6, 9];

/// Stands between a queue and its step.
pub(super) const SEPARATOR: &str = "\u{6}\u{16}";

/// The names of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) prefix: String,
}

impl Layout {
    pub(super) fn list(&self, queue: &str, step: u8) -> String {
        match step {
            0 => format!("{}{queue}", self.prefix),
            _ => format!("{}{queue}{SEPARATOR}{step}", self.prefix),
        }
    }

    pub(super) fn scheduled(&self, queue: &str) -> String {
        format!("{}qworker.scheduled.{queue}", self.prefix)
    }

    pub(super) fn unacked(&self) -> String {
        format!("{}unacked", self.prefix)
    }

    pub(super) fn unacked_index(&self) -> String {
        format!("{}unacked_index", self.prefix)
    }

    pub(super) fn dead(&self) -> String {
        format!("{}qworker.dead", self.prefix)
    }

    pub(super) fn queues(&self) -> String {
        format!("{}qworker.queues", self.prefix)
    }

    pub(super) fn workers(&self) -> String {
        format!("{}qworker.workers", self.prefix)
    }

    pub(super) fn worker(&self, instance: &str) -> String {
        format!("{}qworker.worker.{instance}", self.prefix)
    }

    pub(super) fn token(&self, token: &str) -> String {
        format!("{}qworker.once.{token}", self.prefix)
    }

    /// The key of a token; none for none.
    pub(super) fn token_or_none(&self, token: &str) -> String {
        if token.is_empty() { String::new() } else { self.token(token) }
    }

    pub(super) fn bindings(&self, exchange: &str) -> String {
        format!("{}_kombu.binding.{exchange}", self.prefix)
    }

    /// Binds a queue to the exchange of its name, so that others find it, and messages to the
    /// exchange reach it.
    pub(super) fn bind(&self, queue: &str, pipe: &mut redis::Pipeline) {
        for key in [self.bindings(queue), self.lasting_bindings(queue)] {
            pipe.cmd("SADD").arg(key).arg(binding(queue)).ignore();
        }
    }

    pub(super) fn lasting_bindings(&self, exchange: &str) -> String {
        format!("{}_kombu.binding_permanent.{exchange}", self.prefix)
    }
}

/// kombu rounds a priority down to a step.
pub(super) fn step_of(priority: u8) -> u8 {
    STEPS.into_iter().rev().find(|step| *step <= priority).unwrap_or(0)
}

/// The member of a set of bindings: routing key, pattern (none) and queue.
pub(super) fn binding(queue: &str) -> String {
    format!("{queue}{SEPARATOR}{SEPARATOR}{queue}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_kombu() {
        let layout = Layout { prefix: "app:".into() };
        assert_eq!(layout.list("celery", 0), "app:celery");
        assert_eq!(layout.list("celery", 6), "app:celery\u{6}\u{16}6");
        assert_eq!(binding("celery"), "celery\u{6}\u{16}\u{6}\u{16}celery");
        let steps: Vec<u8> = (0..=10).map(step_of).collect();
        assert_eq!(steps, [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9]);
    }

    #[test]
    fn a_higher_priority_is_a_lower_number_there() {
        let number = |priority| super::super::ABILITIES.priorities.number(priority);
        assert_eq!([None, Some(9), Some(5), Some(0)].map(|p| step_of(number(p))), [0, 0, 3, 9]);
    }
}
