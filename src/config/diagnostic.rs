//! What is wrong with something a person wrote, and where. Mistakes are collected, not
//! thrown: one run of `qworker check` finds them all.

use std::fmt;
use std::path::Path;

/// How serious a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weight {
    /// Something is wrong, and is left out.
    #[default]
    Mistake,
    /// Something means nothing here, or something else than its author may think; nothing is
    /// left out because of it.
    Note,
    /// Something of the host is not as it should be, and is replaced.
    Warning,
    /// The host refuses to show what is there, so nobody knows what it says.
    Unseen,
}

/// One mistake. Its `Display` is one line, `qworker.yaml:12: worker_concurency: unknown
/// setting; did you mean worker_concurrency?`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, or `environment`, or `command line`.
    pub file: String,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// The key, with those above it: `media.thumb.time_limit`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// The nearest right name.
    pub hint: Option<String>,
    /// How much it matters.
    pub weight: Weight,
    /// The task that is lost by it, and where that is defined, as `file:line`.
    pub costs: Option<(String, String)>,
    /// A name that is no time zone of ours; the host may know it.
    pub zone: Option<String>,
}

impl Diagnostic {
    /// A mistake of a whole file or of one line in it.
    pub fn new(file: &str, line: Option<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            file: file.into(),
            line,
            key: None,
            message: message.into(),
            expected: None,
            hint: None,
            weight: Weight::Mistake,
            costs: None,
            zone: None,
        }
    }

    /// The host refuses to show what is at `path`.
    pub fn unseen(path: &Path, error: &std::io::Error) -> Diagnostic {
        let why = format!("cannot be read: {error}");
        let fault = Diagnostic::new(&path.display().to_string(), None, why);
        Diagnostic { weight: Weight::Unseen, ..fault }
    }

    /// Is it no mistake?
    pub fn is_note(&self) -> bool {
        matches!(self.weight, Weight::Note | Weight::Warning)
    }

    /// The same mistake, which costs the task `name`, defined at `place`.
    pub fn costing(self, name: &str, place: &str) -> Diagnostic {
        Diagnostic { costs: Some((name.into(), place.into())), ..self }
    }

    /// The same mistake, ascribed to a key.
    pub fn of_key(self, key: impl Into<String>) -> Diagnostic {
        Diagnostic { key: Some(key.into()), ..self }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.file.clone();
        if let Some(number) = self.line {
            line.push_str(&format!(":{number}"));
        }
        if let Some(key) = &self.key {
            line.push_str(&format!(": {}", if key.is_empty() { "\"\"" } else { key }));
        }
        line.push_str(&format!(": {}", self.message));
        if let Some(expected) = &self.expected {
            line.push_str(&format!(", expected {expected}"));
        }
        if let Some(hint) = &self.hint {
            line.push_str(&format!("; did you mean {hint}?"));
        }
        // Keys and parser messages may carry anything a file holds; one mistake is one line.
        line.chars().try_for_each(|c| match c.is_control() {
            true => write!(out, "{}", c.escape_default()),
            false => write!(out, "{c}"),
        })
    }
}

/// The mistakes found so far in one source, and the key that is being read.
#[derive(Debug)]
pub struct Faults {
    file: String,
    path: Vec<String>,
    found: Vec<Diagnostic>,
    /// How many of them are notes.
    notes: usize,
}

impl Faults {
    /// No mistakes yet in `file`.
    pub fn new(file: &str) -> Faults {
        Faults { file: file.into(), path: Vec::new(), found: Vec::new(), notes: 0 }
    }

    /// Runs `read` with `key` added to the path that mistakes are reported under.
    pub fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Faults) -> T) -> T {
        self.path.push(key.into());
        let value = read(self);
        self.path.pop();
        value
    }

    /// Adds a mistake at `line` (0: no line) under the present path; returns it for more detail.
    pub fn add(&mut self, line: usize, message: impl Into<String>) -> &mut Diagnostic {
        let at = self.found.len();
        let mut fault = Diagnostic::new(&self.file, (line > 0).then_some(line), message);
        fault.key = (!self.path.is_empty()).then(|| self.path.join("."));
        self.found.push(fault);
        &mut self.found[at]
    }

    /// Adds what is no mistake, and should be known.
    pub fn note(&mut self, line: usize, message: impl Into<String>) {
        self.add(line, message).weight = Weight::Note;
        self.notes += 1;
    }

    /// Adds "found this, expected that".
    pub fn mismatch(&mut self, line: usize, found: &str, expected: &str) {
        self.add(line, format!("found {found}")).expected = Some(expected.into());
    }

    /// Adds a name that is none of `known`, with the nearest that is.
    pub fn unknown<'a>(
        &mut self,
        line: usize,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let hint = nearest(name, known, 2).join(" or ");
        self.add(line, format!("unknown {what}")).hint = (!hint.is_empty()).then_some(hint);
    }

    /// The source that is being read.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How much has been found by now.
    pub fn mark(&self) -> usize {
        self.found.len()
    }

    /// What was found from `first` on ([`Faults::mark`]) costs the task `name`, defined at `place`.
    pub fn cost(&mut self, first: usize, name: &str, place: &str) {
        for fault in &mut self.found[first..] {
            fault.costs = Some((name.into(), place.into()));
        }
    }

    /// How many mistakes there are by now.
    pub fn count(&self) -> usize {
        self.found.len() - self.notes
    }

    /// Takes over mistakes that were found elsewhere, as by the parser of the same file.
    pub fn extend(&mut self, found: Vec<Diagnostic>) {
        self.notes += found.iter().filter(|fault| fault.is_note()).count();
        self.found.extend(found);
    }

    /// The mistakes by line; of one line in the order in which they were met.
    pub fn into_vec(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|fault| fault.line);
        self.found
    }
}

/// Up to `most` of `known` that somebody who wrote `name` may have meant, nearest first.
/// Near means: at most a third of the letters wrong, the beginning of the name, or the
/// same word behind the last dot.
pub fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    // A name of a megabyte is no typing error, and the distance is quadratic.
    if name.is_empty() || name.len() > 200 {
        return Vec::new();
    }
    let wanted = name.to_lowercase();
    let allowed = (wanted.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = strsim::osa_distance(&wanted, &lower);
            let same_word = lower.rsplit('.').next() == wanted.rsplit('.').next();
            let begun = wanted.len() > 2 && lower.starts_with(&wanted);
            (distance <= allowed || same_word || begun).then_some((distance, candidate))
        })
        .collect();
    near.sort();
    near.truncate(most);
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_file_line_key_and_the_nearest_name() {
        let mut faults = Faults::new("qworker.yaml");
        faults.within("worker_concurency", |f| {
            f.unknown(12, "setting", "worker_concurency", ["worker_pool", "worker_concurrency"])
        });
        faults.within("task_env", |f| f.within("A", |f| f.mismatch(0, "a list", "text")));
        faults.add(3, "column 4: odd\nthings");
        let lines: Vec<String> = faults.into_vec().iter().map(Diagnostic::to_string).collect();
        assert_eq!(
            lines,
            [
                "qworker.yaml: task_env.A: found a list, expected text",
                "qworker.yaml:3: column 4: odd\\nthings",
                "qworker.yaml:12: worker_concurency: unknown setting; did you mean worker_concurrency?",
            ]
        );
    }

    #[test]
    fn near_names() {
        let known = ["add", "media.thumb", "send_mail", "sleep"];
        assert_eq!(nearest("ad", known, 3), ["add"]);
        assert_eq!(nearest("send", known, 3), ["send_mail"]);
        assert_eq!(nearest("thumb", known, 3), ["media.thumb"]);
        assert_eq!(nearest("SEND-MAIL", known, 3), ["send_mail"]);
        assert!(nearest("quite_other", known, 3).is_empty());
        assert!(nearest("", known, 3).is_empty());
        assert!(nearest(&"x".repeat(1 << 20), known, 3).is_empty());
    }
}
