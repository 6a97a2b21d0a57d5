//! The tasks of an application, by name.

use super::Task;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tasks by name.
#[derive(Debug, Clone, Default)]
pub struct Set {
    tasks: BTreeMap<String, Arc<Task>>,
}

impl Set {
    /// A set of these tasks. Of two with one name the first is in it; `task::load`
    /// gives no such two.
    pub fn new(tasks: Vec<Task>) -> Set {
        let mut set = Set::default();
        for task in tasks {
            set.tasks.entry(task.name.clone()).or_insert_with(|| Arc::new(task));
        }
        set
    }

    /// The task of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Task>> {
        self.tasks.get(name)
    }

    /// The tasks, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Up to three names that `name` may have been meant to be, nearest first.
    pub fn nearest(&self, name: &str) -> Vec<&str> {
        crate::config::nearest(name, self.tasks.keys().map(String::as_str), 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::load::{File, TaskFileKind, load};
    use std::path::Path;

    #[test]
    fn sorted_by_name_with_near_ones() {
        let text = "thumb: {shell: a}\nadd: {shell: a}\nadd2: {shell: a}\nadd3: {shell: a}\nadd4: {shell: a}\n";
        let files = [File { path: "x.yaml".into(), content: TaskFileKind::Yaml(text.into()) }];
        let (tasks, faults) = load(&files, Path::new("tasks.d"), &|_| true);
        assert!(faults.is_empty());
        let set = Set::new(tasks);
        let names: Vec<&str> = set.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["add", "add2", "add3", "add4", "thumb"]);
        assert_eq!(
            (set.len(), set.is_empty(), set.get("add").is_some(), set.get("x").is_some()),
            (5, false, true, false)
        );
        assert_eq!(set.nearest("ad"), ["add"]);
        assert_eq!(set.nearest("adds"), ["add", "add2", "add3"]);
        assert_eq!(set.nearest("media.thumb"), ["thumb"]);
    }
}
