//! Messages that are sent in a [`World`].

use super::world::{ITEMS_MAX, World};
use qworker::wire::{BodyFormat, Draft, Payload};
use serde_json::value::RawValue;

impl World {
    /// Sends a call of `task`, `eta` and `expires` in seconds from now.
    pub fn send(&mut self, task: &str, eta: Option<f64>, expires: Option<f64>) {
        let id = format!("{task}-{}", self.broker.letters.len());
        let raw = |text: String| RawValue::from_string(text).unwrap();
        let (task, args) = match task.strip_prefix("map.") {
            Some(inner) => {
                let items = self.rng.usize(0..=ITEMS_MAX);
                let items = raw(format!("{:?}", vec![1; items]));
                ("celery.map", vec![raw(format!("{inner:?}")), items])
            }
            None => (task, Vec::new()),
        };
        let at = |seconds: f64| self.wall(self.now + seconds);
        let draft = Draft {
            task: task.into(),
            args,
            id: id.clone(),
            queue: "celery".into(),
            eta: eta.map(at),
            expires: expires.map(at),
            ..Draft::default()
        };
        let payload = draft.encode(0, at(0.0), &BodyFormat::default()).unwrap();
        self.broker.post(id, payload, eta.map_or(0.0, |eta| self.now + eta));
    }

    /// Sends text that is no message.
    pub fn send_nonsense(&mut self) {
        let id = format!("nonsense-{}", self.broker.letters.len());
        self.broker.post(id, Payload::from_envelope("{"), 0.0);
    }
}
