//! `multi names`, `expand`, `show` and `get` beside the real Celery's: the same answers to
//! two hundred random argument lists.

use super::json;
use crate::harness::python::python;
use crate::harness::{Output, TestDir};
use std::process::{Command, Stdio};

/// Celery's tool in one process: argument lists in, what it prints for each out; nothing for
/// those it refuses. It makes no folders here.
const ORACLE: &str = r#"
import io, json, os, sys
from celery.bin.multi import MultiTool
os.makedirs = lambda *_, **__: None

def answer(words):
    at = words.index("multi")
    out = io.StringIO()
    try:
        tool = MultiTool(stdout=out, stderr=io.StringIO(), nosplash=True, no_color=True)
        failed = tool.execute_from_commandline(words[at:] + words[:at])
    except Exception:
        return None
    return None if failed else out.getvalue()

answers = [answer(words) for words in json.load(sys.stdin)]
print(json.dumps({"python": sys.executable, "answers": answers}))
"#;

/// How many lists of arguments.
const LISTS: usize = 200;

/// What is the same for all nodes or for some; `:` is where those are named.
const SHORTS: &[(&str, &[&str])] = &[
    ("-c:", &["1", "3", "10"]),
    ("-Q:", &["images,video", "data", "q-%n"]),
    ("-l:", &["INFO", "debug"]),
    ("-z:", &["%h.%d", "5"]),
    ("-A:", &["shop", "/srv/%n"]),
    ("-b:", &["redis://localhost/1", "sqlite:///%n.db"]),
];
const LONGS: &[(&str, &[&str])] = &[
    ("--time-limit:", &["=5", "=60"]),
    ("--loglevel:", &["=INFO"]),
    ("--pidfile:", &["=/run/%n.pid", "=/run/%N%I-%i.pid", "=var/%p.pid"]),
    ("--logfile:", &["=/log/%n%I.log", "=%d/%%i-%h.log"]),
    ("--workdir:", &["=/srv/%n", "=/srv"]),
    ("--broker:", &["=redis://h/%n"]),
    ("--unheard:", &["", "=%p", "=a=b", "=%x"]),
    ("--result-backend:", &["=disabled://"]),
];

/// A generator of argument lists.
struct Lists(fastrand::Rng);

impl Lists {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.usize(..of.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.0.u32(..100) < percent
    }

    /// Groups of words that stay together: names, and what options of some nodes may name.
    fn names(&mut self) -> (Vec<String>, Vec<String>) {
        if self.chance(50) {
            let count = self.0.usize(1..9);
            let mut whose: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
            let (from, to) = (self.0.usize(1..=count), self.0.usize(1..12));
            let list = format!("{},{}", self.0.usize(1..12), self.0.usize(1..12));
            whose.push(list.clone());
            if from < to {
                whose.extend([format!("{from}-{to}"), format!("{from}-{to},{}", to + 2)]);
            }
            return (vec![count.to_string()], whose);
        }
        let mut all = ["foo", "bar", "image", "video", "Leslie", "w9", "my-node"];
        self.0.shuffle(&mut all);
        let mut names: Vec<String> =
            all[..self.0.usize(1..6)].iter().map(|name| (*name).to_string()).collect();
        if self.chance(25) {
            // Options of such a one by its number get lost in Celery.
            let at = self.one(&["@%h", "@box.lan", "@%n-%d"]);
            names[0].push_str(at);
            return (names, vec![]);
        }
        let numbers = (1..=names.len()).map(|n| n.to_string());
        let mut whose: Vec<String> = names.iter().cloned().chain(numbers).collect();
        let pick = |this: &mut Self, of: &[String]| of[this.0.usize(..of.len())].clone();
        let pairs = (0..3).map(|_| format!("{},{}", pick(self, &whose), pick(self, &whose)));
        let pairs: Vec<String> = pairs.collect();
        whose.extend(pairs);
        (names, whose)
    }

    fn option(&mut self, whose: &[String]) -> Vec<String> {
        let short = self.chance(50);
        let (option, values) = if short { SHORTS } else { LONGS }
            [self.0.usize(..if short { SHORTS.len() } else { LONGS.len() })];
        let value = self.one(values);
        let option = match whose.is_empty() || self.chance(45) {
            true => option.trim_end_matches(':').to_string(),
            false => format!("{option}{}", whose[self.0.usize(..whose.len())]),
        };
        if short { vec![option, value.into()] } else { vec![format!("{option}{value}")] }
    }

    fn list(&mut self) -> Vec<String> {
        let (names, whose) = self.names();
        let host = crate::harness::host();
        let wanted = match names[0].parse::<usize>() {
            Ok(count) => format!("celery{}@{host}", self.0.usize(1..=count)),
            Err(_) => format!("{}@{host}", names[0]),
        };
        let mut groups: Vec<Vec<String>> = names.into_iter().map(|name| vec![name]).collect();
        for _ in 0..self.0.usize(..6) {
            let group = self.option(&whose);
            let at = self.0.usize(..=groups.len());
            groups.insert(at, group);
        }
        for own in [
            "--prefix=p-",
            "--suffix=lan",
            "--suffix=\"\"",
            "--range-prefix=w",
            "--hostname=h.example.com",
            "-n box.lan",
            "--append=-E %n",
            "--quiet",
            "--nosplash",
            "--no-color",
        ] {
            if self.chance(8) {
                let words = if own.starts_with("-n") {
                    own.split(' ').map(String::from).collect()
                } else {
                    vec![own.to_string()]
                };
                groups.insert(self.0.usize(..=groups.len()), words);
            }
        }
        let command = match self.0.u32(..4) {
            0 => vec!["names".to_string()],
            1 => vec!["show".to_string()],
            2 => vec!["get".to_string(), wanted],
            _ => vec![
                "expand".to_string(),
                self.one(&["%n", "%p %h %d", "/x/%N%I.%i", "%%"]).to_string(),
            ],
        };
        let mut before = Vec::new();
        if self.chance(15) {
            before.extend(["-A", "/srv/shop"].map(String::from));
        }
        if self.chance(10) {
            before.extend(["--broker=redis://%n", "-C"].map(String::from));
        }
        let behind = self.chance(15) && before.is_empty();
        let behind = if behind { vec!["--", "-c", "%n", "--x=y"] } else { vec![] };
        let behind = behind.into_iter().map(String::from);
        let multi = ["multi".to_string()];
        [before, multi.to_vec(), command, groups.concat()]
            .concat()
            .into_iter()
            .chain(behind)
            .collect()
    }
}

fn celery(lists: &[Vec<String>]) -> (String, Vec<Option<String>>) {
    use std::io::Write;
    let mut child = Command::new(python())
        .args(["-c", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = serde_json::to_string(lists).unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = Output::from(child.wait_with_output().unwrap());
    assert_eq!(output.code, 0);
    let said = json(&output.stdout);
    let answers = said["answers"].as_array().unwrap().iter();
    (
        said["python"].as_str().unwrap().into(),
        answers.map(|one| one.as_str().map(String::from)).collect(),
    )
}

/// Celery's answer in our words: the program's name, the folders that have its name, and an
/// option that says what is the case anyway.
fn in_our_words(answer: &str, python: &str) -> String {
    let ours = env!("CARGO_BIN_EXE_qworker");
    answer
        .replace(&format!(" --executable={python}"), "")
        .replace(&format!("{python} -m celery "), &format!("{ours} "))
        .replace("-m celery ", "")
        .replace("/var/run/celery/", "/var/run/qworker/")
        .replace("/var/log/celery/", "/var/log/qworker/")
}

#[test]
fn two_hundred_random_lists_are_answered_as_celery_does() {
    let mut random = Lists(fastrand::Rng::with_seed(28));
    let lists: Vec<Vec<String>> = (0..LISTS).map(|_| random.list()).collect();
    let (python, answers) = celery(&lists);
    let refused = answers.iter().filter(|answer| answer.is_none()).count();
    assert!(refused < LISTS / 4, "{refused} are refused: hardly a comparison");
    let app = TestDir::new();
    let mut differences = Vec::new();
    for (list, answer) in lists.iter().zip(&answers) {
        let words: Vec<&str> = list.iter().map(String::as_str).collect();
        let ours = app.qworker(&words);
        let same = match answer {
            Some(answer) => ours.code == 0 && ours.stdout == in_our_words(answer, &python),
            None => ours.code != 0 && ours.stdout.is_empty(),
        };
        if !same {
            let theirs = answer.as_deref().map(|answer| in_our_words(answer, &python));
            differences.push(format!("{words:?}\nCelery: {theirs:?}\nours:   {ours:?}\n"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
