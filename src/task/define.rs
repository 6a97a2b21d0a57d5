//! One definition of a task file: the rules between its keys, and the task that it makes.

use super::keys::{TaskDraft, plain};
use super::template::{TemplatePart, TemplateWord};
use super::{Param, Program, Task};
use crate::config::Faults;
use crate::config::node::{Data, YamlNode};
use std::collections::HashMap;
use std::path::Path;

/// Reads the definition of `name`, which stands on `line` of `file`. Paths of modules are
/// relative to that file. `None`: it is broken, and `faults` says how.
pub fn define(
    name: &str,
    file: &Path,
    line: usize,
    node: &YamlNode,
    exists: &dyn Fn(&Path) -> bool,
    faults: &mut Faults,
) -> Option<Task> {
    let Data::Map(map) = &node.data else {
        faults.mismatch(line, &node.found(), "a mapping with shell, exec or wasm in it");
        return None;
    };
    let before = faults.count();
    let task = plain(name, file, line, Program::Shell(String::new()));
    let mut draft = TaskDraft::new(task);
    let lines: HashMap<&str, usize> =
        map.iter().map(|(key, _)| (key.text.as_str(), key.line)).collect();
    let is_wasm = lines.contains_key("wasm");
    for (key, value) in map {
        faults.within(&key.text, |faults| draft.read(key, value, is_wasm, faults));
    }
    draft.check(&lines, faults);
    let program = draft.program(line, &lines, exists, faults);
    let sound = faults.count() == before && !node.is_flawed();
    program.filter(|_| sound).map(|program| Task { program, ..draft.task })
}

impl TaskDraft {
    /// The rules between keys.
    fn check(&self, lines: &HashMap<&str, usize>, faults: &mut Faults) {
        let line = |key: &str| lines.get(key).copied().unwrap_or(0);
        let task = &self.task;
        if let (Some(soft), Some(hard)) = (task.soft_time_limit, task.time_limit)
            && soft >= hard
        {
            faults.within("soft_time_limit", |f| {
                f.add(line("soft_time_limit"), "must be shorter than time_limit");
            });
        }
        if task.ok.is_empty() {
            faults.within("ok", |f| {
                f.mismatch(line("ok"), "an empty list", "at least one exit code")
            });
        }
        if let Some(both) =
            task.retry_on.iter().find(|code| lines.contains_key("ok") && task.ok.contains(code))
        {
            faults.within("retry_on", |f| {
                f.add(line("retry_on"), format!("exit code {both} is in ok too"));
            });
        }
    }

    /// What runs: exactly one of shell, exec and wasm.
    fn program(
        &mut self,
        line: usize,
        lines: &HashMap<&str, usize>,
        exists: &dyn Fn(&Path) -> bool,
        faults: &mut Faults,
    ) -> Option<Program> {
        let given: Vec<&str> =
            ["shell", "exec", "wasm"].into_iter().filter(|key| lines.contains_key(key)).collect();
        match given[..] {
            [] => {
                faults.add(line, "has none of shell, exec and wasm");
                None
            }
            ["shell"] => {
                let text = self.shell.take()?;
                if text.trim().is_empty() {
                    faults.within("shell", |f| f.mismatch(lines["shell"], "nothing", "a command"));
                }
                Some(Program::Shell(text))
            }
            ["exec"] => {
                let (words, params) = (self.exec.take()?, self.task.params.as_deref());
                let words = faults.within("exec", |f| words_of(&words, params, lines["exec"], f));
                words.map(Program::Exec)
            }
            ["wasm"] => {
                let module =
                    self.task.file.parent().unwrap_or(Path::new("")).join(self.wasm.take()?);
                if !exists(&module) {
                    faults.within("wasm", |f| {
                        f.add(lines["wasm"], format!("there is no file {}", module.display()));
                    });
                }
                Some(Program::Wasm { module, export: self.export.take() })
            }
            _ => {
                faults.add(line, format!("has {}, expected only one of them", given.join(" and ")));
                None
            }
        }
    }
}

/// Reads the templates of `exec`. A task without `params` takes any arguments, so that
/// any name may come.
fn words_of(
    texts: &[String],
    params: Option<&[Param]>,
    line: usize,
    faults: &mut Faults,
) -> Option<Vec<TemplateWord>> {
    let mut words = Vec::new();
    for text in texts {
        match TemplateWord::parse(text) {
            Ok(word) => words.push(word),
            Err(wrong) => {
                faults.add(line, format!("{text:?}: {wrong}"));
            }
        }
    }
    if let Some(params) = params {
        words.iter().for_each(|word| check_names(word, params, line, faults));
    }
    (words.len() == texts.len()).then_some(words)
}

/// With `params`, the names in a word of `exec` must be among them.
fn check_names(word: &TemplateWord, params: &[Param], line: usize, faults: &mut Faults) {
    for piece in word.pieces() {
        match piece {
            TemplatePart::Name(name) if !params.iter().any(|param| param.name == *name) => {
                let near =
                    crate::config::nearest(name, params.iter().map(|param| param.name.as_str()), 1);
                let hint = near.first().map(|near| format!("{{{near}}}"));
                faults.add(line, format!("{{{name}}} is not in params")).hint = hint;
            }
            TemplatePart::Position(_) | TemplatePart::All => {
                faults.add(line, format!("{:?}: with params, arguments have names", word.text()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Rate;
    use crate::config::yaml;
    use crate::task::{Dir, ResourceLimits, ResultMode, Stdin};
    use std::time::Duration;

    fn run(text: &str) -> (Option<Task>, Vec<String>) {
        let (root, found) = yaml::parse("m/x.yaml", text);
        assert!(found.is_empty(), "{found:?}");
        let mut faults = Faults::new("x");
        let there = |path: &Path| path != Path::new("m/none.wasm");
        let task = define("t", Path::new("m/x.yaml"), 1, &root.unwrap(), &there, &mut faults);
        (task, faults.into_vec().iter().map(|d| d.to_string()).collect())
    }

    fn good(text: &str) -> Task {
        let (task, found) = run(text);
        assert!(found.is_empty(), "{text}: {found:?}");
        task.unwrap()
    }

    #[test]
    fn every_key_of_a_process() {
        let task = good(
            "exec: [convert, '{path}', -resize, '{size}', 5, true]\n\
             params: [path, {size: 200x200}, {more: {deep: [1, null]}}, {y: }]\n\
             description: |\n  Makes it\n  small.\n\
             queue: media\npriority: 9\ntime_limit: 1m\nsoft_time_limit: 50\nmax_retries: null\n\
             retry_backoff: true\nretry_backoff_max: 1h\nretry_jitter: no\nretry_on: [1, 255]\nrate_limit: 5/m\n\
             expires: 1d\nacks_late: false\nignore_result: true\nenv: {A: 1, B: text, C: true, D: 010}\n\
             cwd: var/work\nstdin: json\nresult: bytes\nok: 3\nmax_output: 64K\nuser: 1000\ngroup: www\nnice: -20\n\
             memory: 1.5G\ncpu_seconds: 1.5\nopen_files: 64\nprocesses: 1\n",
        );
        let words = ["convert", "{path}", "-resize", "{size}", "5", "true"]
            .map(|word| TemplateWord::parse(word).unwrap());
        assert_eq!(task.program, Program::Exec(words.to_vec()));
        let params: Vec<_> = task.params.as_deref().unwrap_or_default().iter().collect();
        let defaults: Vec<_> = params.iter().map(|p| p.default.as_ref().map(|d| d.get())).collect();
        assert_eq!(
            params.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            ["path", "size", "more", "y"]
        );
        assert_eq!(
            defaults,
            [None, Some("\"200x200\""), Some("{\"deep\":[1,null]}"), Some("null")]
        );
        assert_eq!(task.description.as_deref(), Some("Makes it small."));
        assert_eq!((task.queue.as_deref(), task.priority), (Some("media"), Some(9)));
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(
            (task.time_limit, task.soft_time_limit, task.expires),
            (seconds(60), seconds(50), seconds(86_400))
        );
        assert_eq!((task.max_retries, task.retry_backoff), (None, Duration::from_secs(1)));
        assert_eq!((task.retry_backoff_max, task.retry_jitter), (Duration::from_secs(3600), false));
        assert_eq!((task.retry_on, task.ok), (vec![1, 255], vec![3]));
        assert_eq!(task.rate_limit, Some(Rate(5.0 / 60.0)));
        assert_eq!((task.acks_late, task.ignore_result), (Some(false), Some(true)));
        let env = [("A", "1"), ("B", "text"), ("C", "true"), ("D", "010")]
            .map(|(n, v)| (n.into(), v.into()));
        assert_eq!(task.env, env);
        assert_eq!(
            (task.cwd, task.stdin, task.result),
            (Some("var/work".into()), Stdin::Json, ResultMode::Bytes)
        );
        assert_eq!((task.max_output, task.nice), (Some(65_536), Some(-20)));
        assert_eq!((task.user.as_deref(), task.group.as_deref()), (Some("1000"), Some("www")));
        let resource_limits = ResourceLimits {
            memory: Some(3 << 29),
            cpu_seconds: Some(2),
            open_files: Some(64),
            processes: Some(1),
        };
        assert_eq!(task.resource_limits, resource_limits);
    }

    #[test]
    fn every_key_of_wasm() {
        let task = good(
            "wasm: sub/m.wat\nexport: multiply\nmemory: 64M\nfuel: 1000\nenv: {A: b}\n\
             dirs: [{host: data, guest: /data}, {host: /tmp, guest: /t, mode: rw}, 'a:/b', 'a:/c:rw']\n",
        );
        assert_eq!(
            task.program,
            Program::Wasm { module: "m/sub/m.wat".into(), export: Some("multiply".into()) }
        );
        assert_eq!((task.resource_limits.memory, task.fuel), (Some(64 << 20), Some(1000)));
        let dir = |host: &str, guest: &str, writable| Dir {
            host: host.into(),
            guest: guest.into(),
            writable,
        };
        let dirs = [
            dir("data", "/data", false),
            dir("/tmp", "/t", true),
            dir("a", "/b", false),
            dir("a", "/c", true),
        ];
        assert_eq!(task.dirs, dirs);
    }

    #[test]
    fn what_nobody_says_is_at_its_default() {
        let task = good("shell: 'echo $1'");
        assert_eq!(task.program, Program::Shell("echo $1".into()));
        assert_eq!((task.max_retries, task.ok, task.retry_jitter), (Some(3), vec![0], true));
        assert!(task.params.is_none() && task.acks_late.is_none() && task.time_limit.is_none());
        assert!(good("shell: a\nparams: []\n").params.is_some_and(|params| params.is_empty()));
        assert_eq!(good("shell: a\nrate_limit: 0").rate_limit, Some(Rate(0.0)));
        assert_eq!(good("shell: a\nretry_backoff: 0").retry_backoff, Duration::ZERO);
    }

    #[test]
    fn templates_fit_the_params() {
        for text in [
            "exec: [a, '{1}', '{*}', '{any}']",
            "exec: [a, '{x}{{y}}']\nparams: [x]",
            "exec: [awk, '{{print $1}}']\nparams: []",
        ] {
            good(text);
        }
    }

    /// What is wrong, and the line that says so; the task is absent.
    #[test]
    fn every_rule_that_can_be_broken() {
        let cases: &[(&str, &str)] = &[
            ("echo", "x:1: found text \"echo\", expected a mapping with shell, exec or wasm in it"),
            ("queue: a", "x:1: has none of shell, exec and wasm"),
            ("shell: a\nexec: [a]", "x:1: has shell and exec, expected only one of them"),
            ("shell: [a]", "x:1: shell: found a list, expected text"),
            ("shell: ' '", "x:1: shell: found nothing, expected a command"),
            (
                "exec: a b",
                "x:1: exec: found text \"a b\", expected a list of a program and its arguments",
            ),
            ("exec: []", "x:1: exec: the first word must be a program"),
            ("exec: [a, [b]]", "x:1: exec: found a list, expected text"),
            ("exec: [a, '{b']", "x:1: exec: \"{b\": a single {; write {{ for the character itself"),
            (
                "params: [path]\nexec: [a, '{pat}']",
                "x:2: exec: {pat} is not in params; did you mean {path}?",
            ),
            (
                "params: [path]\nexec: [a, '{1}']",
                "x:2: exec: \"{1}\": with params, arguments have names",
            ),
            ("wasm: none.wasm", "x:1: wasm: there is no file m/none.wasm"),
            ("shell: a\nexport: f", "x:2: export: means something for WASM only"),
            ("shell: a\nfuel: 5", "x:2: fuel: means something for WASM only"),
            ("shell: a\ndirs: []", "x:2: dirs: means something for WASM only"),
            ("wasm: a.wat\nuser: me", "x:2: user: means nothing for WASM"),
            ("wasm: a.wat\ngroup: me", "x:2: group: means nothing for WASM"),
            ("wasm: a.wat\nnice: 3", "x:2: nice: means nothing for WASM"),
            ("wasm: a.wat\ncpu_seconds: 3", "x:2: cpu_seconds: means nothing for WASM"),
            ("wasm: a.wat\nopen_files: 3", "x:2: open_files: means nothing for WASM"),
            ("wasm: a.wat\nprocesses: 3", "x:2: processes: means nothing for WASM"),
            ("wasm: a.wat\ncwd: x", "x:2: cwd: means nothing for WASM"),
            ("shell: a\nqueu: b", "x:2: queu: unknown key; did you mean queue?"),
            ("shell: a\ntimeout: 5", "x:2: timeout: unknown key; did you mean time_limit?"),
            (
                "shell: a\nparams: x",
                "x:2: params: found text \"x\", expected a list of names, or of {name: default}",
            ),
            ("shell: a\nparams: [x, x]", "x:2: params: x is here twice"),
            (
                "shell: a\nparams: [{x: 1}, y]",
                "x:2: params: y needs a default, for x before it has one",
            ),
            (
                "shell: a\nparams: [1x]",
                "x:2: params: found \"1x\", expected a name of letters, digits and _",
            ),
            (
                "shell: a\nparams: [{x: 1, y: 2}]",
                "x:2: params: found a mapping, expected a name or {name: default}",
            ),
            (
                "shell: a\nparams: [null]",
                "x:2: params: found null, expected a name or {name: default}",
            ),
            ("shell: a\npriority: 10", "x:2: priority: found 10, expected a priority from 0 to 9"),
            (
                "shell: a\ntime_limit: 5\nsoft_time_limit: 5s",
                "x:3: soft_time_limit: must be shorter than time_limit",
            ),
            (
                "shell: a\nmax_retries: -1",
                "x:2: max_retries: found -1, expected a whole number from 0, or null for ever",
            ),
            (
                "shell: a\nretry_on: [256]",
                "x:2: retry_on: found 256, expected an exit code from 0 to 255",
            ),
            (
                "shell: a\nok:\n  - 0\n  - all",
                "x:4: ok: found text \"all\", expected an exit code from 0 to 255",
            ),
            (
                "shell: a\nok: -1",
                "x:2: ok: found -1, expected an exit code from 0 to 255, or a list of them",
            ),
            ("shell: a\nok: []", "x:2: ok: found an empty list, expected at least one exit code"),
            ("shell: a\nok: [0, 3]\nretry_on: 3", "x:3: retry_on: exit code 3 is in ok too"),
            ("shell: a\nnice: 20", "x:2: nice: found 20, expected a whole number from -20 to 19"),
            ("shell: a\nenv: {A: [b]}", "x:2: env.A: found a list, expected text"),
            ("shell: a\nstdin: yes", "x:2: stdin: found text \"yes\", expected none or json"),
            (
                "shell: a\nresult: xml",
                "x:2: result: found text \"xml\", expected auto, json, text, bytes or none",
            ),
            (
                "shell: a\nmemory: 0",
                "x:2: memory: found 0, expected a size: bytes, or words such as 64K, 1.5MiB, 2G",
            ),
            (
                "shell: a\nacks_late: maybe",
                "x:2: acks_late: found text \"maybe\", expected true or false",
            ),
            (
                "shell: a\nrate_limit: 5/d",
                "x:2: rate_limit: found text \"5/d\", expected a rate: starts per second, or words such as 10/s, 5/m, 100/h",
            ),
            (
                "wasm: a.wat\ndirs: [{host: a, guest: b}]",
                "x:2: dirs: found guest \"b\", expected a folder that begins with /",
            ),
            ("wasm: a.wat\ndirs: ['a:/b:rx']", "x:2: dirs: found mode \"rx\", expected ro or rw"),
            (
                "wasm: a.wat\ndirs: [a]",
                "x:2: dirs: found text \"a\", expected a list of {host, guest, mode}, or of host:guest:mode",
            ),
            ("wasm: a.wat\ndirs: [{guest: /b}]", "x:2: dirs: names no folder of the host"),
            (
                "wasm: a.wat\ndirs: [{hots: a, host: a, guest: /b}]",
                "x:2: dirs.hots: unknown key; did you mean host?",
            ),
        ];
        for (text, line) in cases {
            let (task, found) = run(text);
            assert_eq!(found, [*line], "{text}");
            assert!(task.is_none(), "{text}");
        }
    }

    #[test]
    fn a_definition_with_a_key_twice_is_broken() {
        let (root, _) = yaml::parse("x", "shell: a\nenv: {A: 1, A: 2}\n");
        let mut faults = Faults::new("x");
        assert!(define("t", Path::new("x"), 1, &root.unwrap(), &|_| true, &mut faults).is_none());
    }
}
