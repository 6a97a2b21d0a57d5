//! Checks valid definitions against this machine, which need not be the worker's, so most findings
//! are warnings.

use super::app::App;
use crate::config::Diagnostic;
use crate::os::user::Ids;
use crate::os::which::{self, which};
#[cfg(feature = "wasm")]
use crate::runner::wasm;
#[cfg(not(feature = "wasm"))]
use crate::task::NO_WASM;
use crate::task::lint::{self, Risk};
use crate::task::template::{TemplatePart, TemplateWord};
use crate::task::{Program, Task};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A script that is longer is not looked at.
const SCRIPT_MAX: u64 = 256 * 1024;

/// Shells whose scripts are looked at.
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh", "zsh"];

/// What was found in a task.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// It cannot run anywhere.
    pub(super) errors: Vec<Diagnostic>,
    /// It cannot run here, or not safely.
    pub(super) warnings: Vec<Diagnostic>,
}

/// Looks at one task.
pub(super) fn task(app: &App, task: &Task) -> Findings {
    let mut look = Inspection { app, task, found: Findings::default() };
    match &task.program {
        Program::Shell(text) => look.shell(text),
        Program::Exec(words) => look.exec(words),
        Program::File(file) => look.file(file),
        #[cfg(feature = "wasm")]
        Program::Wasm { module, export } => {
            if let Err(why) = wasm::validate(module, export.as_deref()) {
                look.error("wasm", task.line, format!("{}: {why}", module.display()));
            }
        }
        #[cfg(not(feature = "wasm"))]
        Program::Wasm { .. } => look.error("wasm", task.line, NO_WASM.into()),
    }
    look.surroundings();
    look.found
}

struct Inspection<'a> {
    app: &'a App,
    task: &'a Task,
    found: Findings,
}

impl Inspection<'_> {
    fn diagnostic(&self, key: &str, line: usize, message: String) -> Diagnostic {
        let file = self.task.file.display().to_string();
        let key = match key {
            "" => self.task.name.clone(),
            key => format!("{}.{key}", self.task.name),
        };
        Diagnostic::new(&file, (line > 0).then_some(line), message).of_key(key)
    }

    fn error(&mut self, key: &str, line: usize, message: String) {
        let fault = self.diagnostic(key, line, message);
        self.found.errors.push(fault);
    }

    fn warn(&mut self, key: &str, line: usize, message: String) {
        let fault = self.diagnostic(key, line, message);
        self.found.warnings.push(fault);
    }

    /// The `PATH` of the task, as far as it is known here.
    fn path(&self) -> Option<OsString> {
        let settings = self.app.settings.task_env.iter().chain(&self.task.env);
        let given = settings.rev().find(|(name, _)| name == "PATH");
        given.map(|(_, value)| value.into()).or_else(|| std::env::var_os("PATH"))
    }

    fn cwd(&self) -> std::path::PathBuf {
        let folder = &self.app.folder;
        self.task.cwd.as_ref().map_or_else(|| folder.clone(), |cwd| folder.join(cwd))
    }

    fn params(&self) -> impl Iterator<Item = &str> {
        self.task.params.iter().flatten().map(|param| param.name.as_str())
    }

    fn risks(&mut self, key: &str, first: usize, text: &str) {
        for Risk { line, what } in lint::risks(text, self.params().collect::<Vec<_>>()) {
            self.warn(key, first + line, what);
        }
    }

    fn shell(&mut self, text: &str) {
        let first = self.task.text_line;
        self.risks("shell", first, text);
        let mut names: Vec<String> =
            self.params().map(String::from).chain((1..10).map(|n| n.to_string())).collect();
        if self.task.params.is_none() {
            names.extend(in_braces(text).into_iter().map(String::from));
        }
        for (number, line) in text.lines().enumerate() {
            let template = names.iter().find(|name| {
                let written = format!("{{{name}}}");
                line.match_indices(&written).any(|(at, _)| !line[..at].ends_with(['$', '{']))
            });
            if let Some(name) = template {
                let shown = match name.parse::<u32>() {
                    Ok(number) => format!("\"${number}\""),
                    Err(_) => format!("\"$ARG_{name}\""),
                };
                let what = format!("{{{name}}} stands for an argument in exec only; write {shown}");
                self.warn("shell", first + number, what);
            }
        }
    }

    fn exec(&mut self, words: &[TemplateWord]) {
        let line = self.task.text_line;
        let fixed = |word: &TemplateWord| match word.pieces() {
            [TemplatePart::Text(text)] => Some(text.clone()),
            _ => None,
        };
        let Some(program) = words.first().and_then(fixed) else { return };
        let (path, cwd) = (self.path(), self.cwd());
        match which(OsStr::new(&program), path.as_deref(), &cwd) {
            Ok(file) if !file.exists() => {
                self.warn("exec", line, format!("there is no program {} here", file.display()));
            }
            Ok(file) => self.executable("exec", line, &file, path.as_deref()),
            Err(_) => {
                let path = path.unwrap_or_default();
                let path = path.to_string_lossy();
                self.warn("exec", line, format!("no program {program:?} on PATH here ({path})"));
            }
        }
        // Behind env, nice and the like, too.
        let base = |word: &TemplateWord| {
            let text = fixed(word)?;
            let name = text.rsplit('/').next()?.to_string();
            lint::INTERPRETERS.contains(&name.as_str()).then_some(name)
        };
        let Some((at, name)) =
            words.iter().enumerate().find_map(|(at, word)| Some((at, base(word)?)))
        else {
            return;
        };
        let code = words[at..].windows(2).find(|pair| {
            let has_argument =
                pair[1].pieces().iter().any(|piece| !matches!(piece, TemplatePart::Text(_)));
            fixed(&pair[0]).is_some_and(|flag| flag.starts_with('-') && flag.ends_with(['c', 'e']))
                && has_argument
        });
        if let Some([_, text]) = code {
            let what = format!(
                "the argument in {:?} is read by {name} as code; write it as a word of its own, which the \
                 text has as \"$1\" in a shell, as sys.argv[1] in Python",
                text.text()
            );
            self.warn("exec", line, what);
        }
    }

    fn executable(&mut self, key: &str, line: usize, file: &Path, path: Option<&OsStr>) {
        if let Some(obstacle) = which::obstacle(file, path) {
            let what = format!("{} cannot be executed: {}", file.display(), obstacle.why);
            match obstacle.everywhere {
                true => self.error(key, line, what),
                false => self.warn(key, line, what),
            }
        }
    }

    fn file(&mut self, file: &Path) {
        let path = self.path();
        self.executable("", 0, file, path.as_deref());
        let short = file.metadata().is_ok_and(|about| about.len() <= SCRIPT_MAX);
        let Some(text) = short.then(|| std::fs::read_to_string(file).ok()).flatten() else {
            return;
        };
        let first = text.lines().next().unwrap_or_default();
        let mut words = first.split([' ', '/']).filter(|_| first.starts_with("#!"));
        if words.any(|word| SHELLS.contains(&word.trim_end())) {
            self.risks("", 1, &text);
        }
    }

    /// Where it runs, and as whom.
    fn surroundings(&mut self) {
        let (cwd, line) = (self.cwd(), self.task.line);
        if self.task.cwd.is_some() && !cwd.is_dir() {
            self.warn("cwd", line, format!("there is no folder {} here", cwd.display()));
        }
        if let Err(error) = Ids::of(self.task.user.as_deref(), self.task.group.as_deref()) {
            let of_group = Ids::of(None, self.task.group.as_deref()).is_err();
            self.warn(if of_group { "group" } else { "user" }, line, format!("{error} here"));
        }
        for dir in &self.task.dirs {
            let host = self.app.folder.join(&dir.host);
            if !host.is_dir() {
                self.warn("dirs", line, format!("there is no folder {} here", host.display()));
            }
        }
    }
}

/// Names in braces that a shell hands on as they stand: outside of single quotes, which have other
/// programs' code, and before a document.
fn in_braces(text: &str) -> Vec<&str> {
    let text = text.split("<<").next().unwrap_or_default();
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let mut found = Vec::new();
    let (mut at, mut quoted) = (0, false);
    while let Some(next) = text[at..].find(['\'', '{']) {
        let (before, rest) = text.split_at(at + next);
        at += next + 1;
        if rest.starts_with('\'') {
            quoted = !quoted;
        } else if !quoted && !before.ends_with(['$', '{', '\\'])
            && let Some((name, behind)) = rest[1..].split_once('}')
            // `{fd}>file` is the shell's own.
            && is_name(name) && !behind.starts_with(['<', '>', '}'])
        {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::in_braces;

    #[test]
    fn names_that_nobody_replaces() {
        for (text, names) in [
            ("cp {src} \"{dst}\"", &["src", "dst"][..]),
            ("echo ${src} {} {a,b} {{.Names}} \\{x} {1}", &[]),
            ("awk '{print}' x; exec {fd}>log; f() { echo; }", &[]),
            ("python3 - <<E\nprint(f\"{x}\")\nE", &[]),
            ("echo 'it' {one", &[]),
        ] {
            assert_eq!(in_braces(text), names, "{text}");
        }
    }
}
