//! The quick start and the five-minute tour of the README, taken as a newcomer would: every
//! command of their blocks in order, in one shell each, in a fresh folder. What the README says that a command
//! prints is what it must print; a line `...` stands for any lines, `...` in a line for
//! any text of it, and `<id>` for a task id.

use crate::harness::{SOON, process};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// One command, and what it is said to print.
#[derive(Debug, PartialEq)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The steps in the ```console blocks of a section.
fn steps(readme: &str, section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut in_block) = (false, false);
    // The end mark of a here-document that is being read.
    let mut here: Option<String> = None;
    for line in readme.lines() {
        if !in_block {
            if line.starts_with('#') && !line.starts_with("###") {
                inside = line.trim_start_matches('#').trim() == section;
            }
            in_block = inside && line.trim_end() == "```console";
            continue;
        }
        if let Some(mark) = &here {
            let step = steps.last_mut().unwrap();
            step.command += &format!("\n{line}");
            if line == mark {
                here = None;
            }
        } else if line.trim_end() == "```" {
            in_block = false;
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.into(), output: Vec::new() });
            here = end_mark(command);
        } else {
            let step = steps.last_mut().expect("a block begins with a command");
            // A command goes on where its line ends with a backslash.
            if step.output.is_empty() && step.command.ends_with('\\') {
                step.command += &format!("\n{line}");
            } else {
                step.output.push(line.into());
            }
        }
    }
    assert!(!in_block && here.is_none(), "a block of the tour has no end");
    steps
}

/// The word that ends the here-document which a command begins.
fn end_mark(command: &str) -> Option<String> {
    let (_, after) = command.split_once("<<")?;
    let word = after.trim_start_matches('-').split_whitespace().next()?;
    Some(word.trim_matches(['\'', '"']).to_string())
}

/// Do these lines look as expected?
fn matches(expected: &[&str], lines: &[&str]) -> bool {
    match expected {
        [] => lines.is_empty(),
        ["...", rest @ ..] => (0..=lines.len()).any(|skip| matches(rest, &lines[skip..])),
        [first, rest @ ..] => {
            lines.first().is_some_and(|line| line_matches(first, line))
                && matches(rest, &lines[1..])
        }
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let (expected, line) = (expected.trim_end(), line.trim_end());
    match (expected.find("<id>"), expected.find("...")) {
        (Some(at), dots) if dots.is_none_or(|dots| at < dots) => {
            line.get(..at) == Some(&expected[..at])
                && line.get(at..at + 36).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
                && line_matches(&expected[at + 4..], &line[at + 36..])
        }
        (_, Some(at)) => {
            line.get(..at) == Some(&expected[..at])
                && (at..=line.len())
                    .filter(|next| line.is_char_boundary(*next))
                    .any(|next| line_matches(&expected[at + 3..], &line[next..]))
        }
        _ => expected == line,
    }
}

/// A shell in a fresh folder; whatever it started ends with it.
struct Shell {
    folder: tempfile::TempDir,
    mark: String,
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    count: usize,
}

impl Shell {
    fn start() -> Shell {
        let folder = tempfile::Builder::new().prefix("qworker-tour-").tempdir().unwrap();
        let id = uuid::Uuid::new_v4();
        let program = Path::new(env!("CARGO_BIN_EXE_qworker")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QWORKER_") {
                command.env_remove(name);
            }
        }
        fs::create_dir(folder.path().join("home")).unwrap();
        let mut child = command
            .arg("-s")
            .current_dir(folder.path().join("home"))
            .env("PATH", format!("{}:{path}", program.display()))
            .env("QWTEST_MARK", id.to_string())
            .env("NO_COLOR", "1")
            .env("COLUMNS", "100")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let answers = BufReader::new(output).lines();
        Shell { folder, mark: format!("QWTEST_MARK={id}"), child, input, answers, count: 0 }
    }

    /// Takes one step; `Err` says what was printed instead.
    fn take(&mut self, step: &Step) -> Result<(), String> {
        self.count += 1;
        let file = |kind: &str| self.folder.path().join(format!("{}.{kind}", self.count));
        let (script, out) = (file("sh"), file("out"));
        let shown = out.display();
        // What goes on in the background has its output to itself.
        let background = step.command.strip_suffix('&').filter(|text| !text.ends_with('&'));
        let text = match background {
            Some(text) => format!("{text} >'{shown}' 2>&1 &\n"),
            None => format!("{}\n", step.command),
        };
        fs::write(&script, text).unwrap();
        fs::write(&out, "").unwrap();
        let to = if background.is_some() { "/dev/null".into() } else { shown.to_string() };
        let line = format!(". '{}' >'{to}' 2>&1 </dev/null; echo done\n", script.display());
        self.input.write_all(line.as_bytes()).unwrap();
        self.input.flush().unwrap();
        if !matches!(self.answers.next(), Some(Ok(line)) if line == "done") {
            return Err("the shell ended".into());
        }
        let read = || String::from_utf8_lossy(&fs::read(&out).unwrap()).into_owned();
        let mut expected: Vec<&str> = step.output.iter().map(String::as_str).collect();
        if background.is_none() {
            let text = read();
            // Where a machine is slow, whoever waits is told what for.
            let is_told = |line: &&str| line.starts_with("Task ") && line.contains("; alive: ");
            let lines: Vec<&str> = text.lines().filter(|line| !is_told(line)).collect();
            return if matches(&expected, &lines) { Ok(()) } else { Err(text) };
        }
        if expected.is_empty() {
            return Ok(());
        }
        // It goes on: what is told of it comes sooner or later.
        expected.insert(0, "...");
        expected.push("...");
        let begin = std::time::Instant::now();
        loop {
            let text = read();
            let lines: Vec<&str> = text.lines().collect();
            if matches(&expected, &lines) {
                return Ok(());
            }
            if begin.elapsed() > SOON {
                return Err(text);
            }
            // A shell that writes to a file tells nobody.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let own = self.child.id() as i32;
        let others = || process::marked(&self.mark).into_iter().filter(|pid| *pid != own);
        // As a user would at the end: workers finish in good order.
        others().for_each(|pid| process::send(pid, Signal::SIGTERM));
        let _ = self.child.kill();
        let _ = self.child.wait();
        let begin = std::time::Instant::now();
        while others().next().is_some() {
            if begin.elapsed() > std::time::Duration::from_secs(5) {
                others().for_each(|pid| process::send(pid, Signal::SIGKILL));
            }
            std::thread::yield_now();
        }
    }
}

fn tour(steps: &[Step]) -> Result<(), String> {
    let mut shell = Shell::start();
    for step in steps {
        shell.take(step).map_err(|printed| {
            let expected = step.output.join("\n");
            format!("$ {}\nwas to print:\n{expected}\nbut printed:\n{printed}", step.command)
        })?;
    }
    Ok(())
}

#[test]
fn the_tour_of_the_readme() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).expect("a README.md");
    for section in ["Quick start", "A five-minute tour"] {
        let steps = steps(&readme, section);
        assert!(steps.len() >= 5, "the README has no section {section:?} of console blocks");
        if let Err(why) = tour(&steps) {
            panic!("{why}");
        }
    }
}

const SAMPLE: &str = r#"
# A program
```console
$ false # not in the tour
```
## A tour
Text.
```console
$ mkdir -p shop/tasks.d && cd shop
$ cat > tasks.d/shop.yaml <<'EOF'
add:
  shell: 'echo $(( $1 + $2 ))'

$ this is text
EOF
$ sed -i '/^\$/d' tasks.d/shop.yaml
$ qworker worker -c 2 -l INFO &
...
[...] celery@... ready.
$ qworker call add --args '[2, 3]' \
    --wait
5
$ qworker call add --args '[2, 3]'
<id>
$ id=$(qworker call add --args '[20, 22]') && qworker result $id --wait
42
```
### Below
```sh
not this
```
```console
$ qworker list tasks
Task ...
add  ...
$ qworker call ad
Error: no task "ad"...
...
$ qworker status | grep -c 'OK'
1
$ kill $!; wait
```
## After
```console
$ false
```
"#;

#[test]
fn steps_are_read() {
    let steps = steps(SAMPLE, "A tour");
    assert_eq!(steps.len(), 11);
    assert_eq!(steps[1].command.lines().count(), 6);
    assert_eq!(steps[3].output, ["...", "[...] celery@... ready."]);
    assert_eq!(steps[4].command, "qworker call add --args '[2, 3]' \\\n    --wait");
    assert_eq!(steps[7].output, ["Task ...", "add  ..."]);
}

#[test]
fn a_tour_is_taken() {
    tour(&steps(SAMPLE, "A tour")).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_tour_that_is_out_of_date_is_noticed() {
    for (command, output) in [
        ("echo 1", vec!["2"]),
        ("echo 1", vec![]),
        ("true", vec!["1"]),
        ("echo 1; echo 2", vec!["1"]),
        ("echo not-an-id", vec!["<id>"]),
        ("echo lost >&2", vec![]),
        ("exit 0", vec![]),
    ] {
        let output = output.iter().map(|line| line.to_string()).collect();
        let step = Step { command: command.into(), output };
        assert!(tour(&[step]).is_err(), "{command}");
    }
    let id = uuid::Uuid::new_v4();
    let output = vec!["...".into(), "<id> b...".into()];
    let good = Step { command: format!("echo a; echo {id} b c"), output };
    assert_eq!(tour(&[good]), Ok(()));
}
