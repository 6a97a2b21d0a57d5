//! `task_routes`: which queue and priority a task is sent with.

use super::diagnostic::Faults;
use super::kind::{Priority, Queue, ValueKind};
use super::node::{Data, YamlNode, quote};

/// Where tasks of one name, or of a pattern of names, are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// A task's name, or a pattern with `*` (any text) and `?` (any letter).
    pub pattern: String,
    /// The queue, if the route says one.
    pub queue: Option<String>,
    /// The priority, 0 to 9, if the route says one.
    pub priority: Option<u8>,
}

/// The routes in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(pub Vec<Route>);

impl Routes {
    /// The route of `task`: one of exactly that name, else the first pattern that matches.
    pub fn find(&self, task: &str) -> Option<&Route> {
        let exact = self.0.iter().find(|route| route.pattern == task);
        exact.or_else(|| self.0.iter().find(|route| matches(&route.pattern, task)))
    }

    /// The queue of a task whose sender names none: that of its route, its `own`, the default.
    pub fn queue_of(&self, task: &str, own: Option<&String>, default: &String) -> String {
        let route = self.find(task).and_then(|route| route.queue.as_ref());
        route.or(own).unwrap_or(default).clone()
    }

    /// The priority of a task, likewise.
    pub fn priority_of(&self, task: &str, own: Option<u8>, default: Option<u8>) -> Option<u8> {
        self.find(task).and_then(|route| route.priority).or(own).or(default)
    }
}

/// Does the pattern match the whole text? In time proportional to the product of their
/// lengths at the worst: after a mismatch only the last `*` takes one letter more.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

impl ValueKind for Routes {
    type Value = Routes;
    const EXPECTED: &'static str =
        "a mapping of task names or patterns to a queue or to {queue, priority}";
    const NESTED: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Routes> {
        let map = match &node.data {
            Data::Map(map) => map,
            _ if node.is_null() => return Some(Routes::default()),
            _ => return Self::mismatch(node, faults),
        };
        let before = faults.count();
        let routes = map
            .iter()
            .filter_map(|(key, value)| faults.within(&key.text, |f| route(&key.text, value, f)));
        let routes = Routes(routes.collect());
        (faults.count() == before).then_some(routes)
    }

    fn write(value: &Routes) -> String {
        let shown: Vec<String> = value.0.iter().map(write_route).collect();
        format!("{{{}}}", shown.join(", "))
    }
}

fn route(pattern: &str, node: &YamlNode, faults: &mut Faults) -> Option<Route> {
    let mut route = Route { pattern: pattern.into(), queue: None, priority: None };
    if pattern.contains('[') {
        faults.add(node.line, "sets of letters in [ ] are not supported, only * and ?");
        return None;
    }
    let Data::Map(map) = &node.data else {
        if node.as_text().is_none() {
            faults.mismatch(node.line, &node.found(), "a queue's name or {queue, priority}");
            return None;
        }
        return Queue::read(node, faults).map(|queue| Route { queue: Some(queue), ..route });
    };
    let named = map.iter().find(|(key, _)| key.text == "queue").and_then(|(_, q)| q.as_text());
    for (key, value) in map {
        faults.within(&key.text, |f| match key.text.as_str() {
            "queue" => route.queue = Queue::read(value, f),
            "priority" => route.priority = Priority::read(value, f),
            // A queue's own exchange and key, as Celery makes them.
            "exchange" | "routing_key" if value.as_text().is_some() && value.as_text() == named => {
            }
            "exchange_type" if value.as_text() == Some("direct") => {}
            "exchange" | "exchange_type" | "routing_key" => {
                f.add(key.line, "is not supported by this version; name the queue");
            }
            other => f.unknown(key.line, "key", other, ["queue", "priority"]),
        });
    }
    Some(route)
}

fn write_route(route: &Route) -> String {
    let target = match (&route.queue, route.priority) {
        (Some(queue), None) => quote(queue),
        (Some(queue), Some(priority)) => {
            format!("{{queue: {}, priority: {priority}}}", quote(queue))
        }
        (None, Some(priority)) => format!("{{priority: {priority}}}"),
        (None, None) => "{}".into(),
    };
    // Quoted always: a bare * would be an alias in YAML.
    format!("{}: {target}", serde_json::Value::from(route.pattern.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    fn read(text: &str) -> (Option<Routes>, Vec<String>) {
        let (root, _) = parse("r.yaml", text);
        let mut faults = Faults::new("r.yaml");
        let routes = Routes::read(&root.unwrap(), &mut faults);
        (routes, faults.into_vec().iter().map(|d| d.to_string()).collect())
    }

    #[test]
    fn exact_names_before_patterns_and_patterns_in_their_order() {
        let (routes, faults) = read(
            "'media.*': media\n'*.thumb': {queue: thumbs, priority: 3}\nmedia.rare: rare\n'a?c': {priority: 9}",
        );
        assert!(faults.is_empty(), "{faults:?}");
        let routes = routes.unwrap();
        let queue = |task: &str| routes.find(task).and_then(|r| r.queue.as_deref());
        assert_eq!(queue("media.thumb"), Some("media"));
        assert_eq!(queue("media.rare"), Some("rare"));
        assert_eq!(queue("x.thumb"), Some("thumbs"));
        assert_eq!(routes.find("abc").unwrap().priority, Some(9));
        assert_eq!(queue("other"), None);
        let (again, _) = read(&Routes::write(&routes));
        assert_eq!(again, Some(routes));
    }

    #[test]
    fn patterns() {
        let cases = [
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*a*b", "xaxxb", true),
            ("?", "", false),
            ("a", "ab", false),
            ("", "", true),
            ("a**", "a", true),
        ];
        for (pattern, text, yes) in cases {
            assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(50), &"b".repeat(5000)));
    }

    #[test]
    fn every_wrong_route_is_named() {
        let (routes, faults) =
            read("a: [x]\nb: {que: y, priority: 10}\nc: {routing_key: k}\n'd[1]': q\n");
        assert_eq!(routes, None);
        assert_eq!(
            faults,
            [
                "r.yaml:1: a: found a list, expected a queue's name or {queue, priority}",
                "r.yaml:2: b.que: unknown key; did you mean queue?",
                "r.yaml:2: b.priority: found 10, expected a priority from 0 to 9",
                "r.yaml:3: c.routing_key: is not supported by this version; name the queue",
                "r.yaml:4: d[1]: sets of letters in [ ] are not supported, only * and ?",
            ]
        );
    }
}
