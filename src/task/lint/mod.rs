//! Where the text of a shell task gives an argument to something that reads it as code, or lets the
//! shell take it to pieces. Good enough to find what people write; no shell.

mod scan;

use scan::{ShellScanner, ShellWord};
use std::collections::HashSet;

/// Programs that run the word behind `-c` or `-e`.
pub const INTERPRETERS: &[&str] = &[
    "sh", "bash", "dash", "ash", "ksh", "zsh", "su", "python", "python3", "perl", "ruby", "node",
    "php", "psql", "lua",
];

/// What may stand before a command.
const BEFORE: &[&str] =
    &["if", "then", "elif", "else", "while", "until", "do", "!", "time", "{", "exec", "command"];

/// Comparisons of numbers, which bash computes in `[[`; `-v` looks at an index.
const COMPUTED: &[&str] = &["-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v"];

/// Something that an argument is not safe in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// Line of the text, from 0.
    pub line: usize,
    /// What it is, and what to write instead.
    pub what: String,
}

/// The risks of `text`; `params` are the names of the task's arguments.
pub fn risks<'a>(text: &str, params: impl IntoIterator<Item = &'a str>) -> Vec<Risk> {
    let from_outside = params.into_iter().map(|name| format!("ARG_{name}")).collect();
    let mut finder = Finder {
        from_outside,
        // Who looks at the characters himself needs no advice.
        looks: ["[!0-9", "[^0-9", "[!-0-9", "[^-0-9"].iter().any(|guard| text.contains(guard)),
        found: Vec::new(),
    };
    ShellScanner::new(text).commands(&mut finder, None);
    finder.found
}

/// What is known of a text so far.
struct Finder {
    /// Variables that hold what came from outside.
    from_outside: HashSet<String>,
    looks: bool,
    found: Vec<Risk>,
}

impl Finder {
    fn add(&mut self, line: usize, what: String) {
        // Of one line the first is enough.
        if !self.found.iter().any(|risk| risk.line == line) {
            self.found.push(Risk { line, what });
        }
    }

    /// Does this variable hold an argument?
    fn holds(&self, name: &str) -> bool {
        let number = name.bytes().all(|byte| byte.is_ascii_digit()) && name != "0";
        number
            || name == "@"
            || name == "*"
            || name.starts_with("ARG_")
            || self.from_outside.contains(name)
    }

    /// Something is computed.
    fn arithmetic(&mut self, line: usize, text: &str) {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let names = text.split(|c: char| !word(c)).filter(|name| !name.is_empty());
        let positional = text.match_indices('$').any(|(at, _)| {
            let rest = text[at + 1..].trim_start_matches('{');
            rest.starts_with(|c: char| c.is_ascii_digit() && c != '0' || c == '@' || c == '*')
        });
        let variable = names
            .into_iter()
            .find(|name| !name.starts_with(|c: char| c.is_ascii_digit()) && self.holds(name));
        if (positional || variable.is_some()) && !self.looks {
            let shown: String = text.trim().chars().take(40).collect();
            self.add(
                line,
                format!(
                    "computes with an argument ({shown}): where /bin/sh is bash, an argument such as \
                     a[$(reboot)] runs the command in it; write exec: [expr, \"{{1}}\", +, \"{{2}}\"], or let \
                     digits only pass before: case $1 in ''|*[!0-9]*) exit 64;; esac"
                ),
            );
        }
    }

    /// A simple command is complete.
    fn command(&mut self, words: &[ShellWord]) {
        let mut words = words;
        while let Some((first, rest)) = words.split_first() {
            if let Some(name) = first.assigns() {
                if first.is_from_outside() {
                    self.from_outside.insert(name.into());
                }
            } else if !BEFORE.contains(&first.text.as_str()) {
                break;
            }
            words = rest;
        }
        let Some((first, rest)) = words.split_first() else { return };
        let outside = || rest.iter().find(|word| word.is_from_outside());
        match first.text.as_str() {
            "case" => return,
            "[[" => {
                let computes = rest.iter().any(|word| COMPUTED.contains(&word.text.as_str()));
                if let Some(word) = outside().filter(|_| computes) {
                    self.arithmetic(word.line, "$1 in [[ ]]");
                }
                return;
            }
            "for" => {
                let all = rest.get(1).is_none_or(|word| word.text != "in") || outside().is_some();
                if let Some(name) = rest.first().filter(|_| all) {
                    self.from_outside.insert(name.text.clone());
                }
            }
            "let" => {
                if let Some(word) = outside() {
                    self.arithmetic(word.line, "$1 in let");
                }
            }
            "declare" | "typeset" | "unset" | "eval" => {
                if let Some(word) = outside() {
                    let what = format!("{} reads an argument as code", first.text);
                    self.add(
                        word.line,
                        format!("{what}; leave it out, or quote the argument for it"),
                    );
                }
            }
            "local" | "export" | "readonly" => {
                for word in rest.iter().filter(|word| word.is_from_outside()) {
                    self.from_outside.extend(word.assigns().map(String::from));
                }
            }
            _ => {}
        }
        self.spliced(words);
        if let Some(word) = words.iter().find(|word| word.bare) {
            self.add(
                word.line,
                format!(
                    "{} without quotes: the shell takes the argument to pieces at blanks and puts file \
                     names for * in it; write \"{}\"",
                    word.shown, word.shown
                ),
            );
        }
    }

    /// Is an argument part of a program's text?
    fn spliced(&mut self, words: &[ShellWord]) {
        let name = |word: &ShellWord| word.text.rsplit('/').next().unwrap_or_default().to_string();
        let Some(at) = words.iter().position(|word| INTERPRETERS.contains(&name(word).as_str()))
        else {
            return;
        };
        let code = words[at..].windows(2).find(|pair| {
            let flag = pair[0].text.as_str();
            flag.starts_with('-')
                && flag.len() < 5
                && flag.ends_with(['c', 'e'])
                && pair[1].is_from_outside()
        });
        if let Some([_, text]) = code {
            let program = name(&words[at]);
            self.add(
                text.line,
                format!(
                    "an argument is part of the text that {program} runs, and is read as code; hand it over \
                     as an argument of its own, which the text has as \"$1\" in a shell, sys.argv in Python"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        let risks = risks(text, ["x", "y"]);
        risks.into_iter().map(|risk| (risk.line, risk.what)).collect()
    }

    #[test]
    fn what_runs_an_argument_is_found() {
        for (text, line, part) in [
            ("echo $(( $1 + $2 ))", 0, "computes"),
            ("echo \"$(( ${1:-0} + 1 ))\"", 0, "computes"),
            ("echo $((ARG_x+1))", 0, "computes"),
            ("n=$1\n\necho $((n * 2))", 2, "computes"),
            ("n=\"$(printf %s \"$1\")\"; echo $((n))", 0, "computes"),
            ("for n; do echo $((n)); done", 0, "computes"),
            ("for n in \"$@\"; do\n  : $((n))\ndone", 1, "computes"),
            ("(( $1 > 3 )) && echo", 0, "computes"),
            ("let \"n = $1\"", 0, "computes"),
            ("if [[ \"$1\" -eq 0 ]]; then :; fi", 0, "computes"),
            ("[[ -v $1 ]]", 0, "computes"),
            ("eval \"$1\"", 0, "eval"),
            ("declare \"$1=3\"", 0, "declare"),
            ("bash -c \"echo $1\"", 0, "bash runs"),
            ("sudo -u me /bin/sh -ec \"rm $ARG_x\"", 0, "sh runs"),
            ("python3 -c \"print('$1')\"", 0, "python3 runs"),
            ("echo $1", 0, "write \"$1\""),
            ("rm -r /srv/$ARG_x", 0, "without quotes"),
            ("ls $*", 0, "without quotes"),
            ("x=$(ls $1)", 0, "without quotes"),
            ("x=`ls $1`", 0, "without quotes"),
        ] {
            let found = found(text);
            assert!(
                found.len() == 1 && found[0].0 == line && found[0].1.contains(part),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_safe_is_not() {
        for text in [
            "echo \"$1\"",
            "echo '$(( $1 ))' \"\\$1\"  # echo $1",
            "x=$1; y=$2; case $1 in a) echo \"$x$y\";; esac",
            "i=0; while [ $i -lt 3 ]; do i=$((i+1)); done",
            "[ \"$1\" -eq 3 ] && echo \"$#\" $? $$ $0",
            "case $1 in ''|*[!0-9]*) exit 64;; esac; echo $(( $1 + 1 ))",
            "sh -c 'echo \"$1\"' sh \"$1\"",
            "grep -e \"$1\" file; python3 -m tool -e x \"$1\"",
            "[[ $1 == x* ]]",
            "cat <<EOF\n$1 $(( 1 ))\nEOF\necho done",
            "cat <<'EOF'\n$(( $1 ))\nEOF\necho done",
            "curl --data \"to=$1\" \"$URL\" >\"$2\"",
            "printf '%s\\n' \"$@\" | wc -l",
            "exec \"$@\"",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn any_text_comes_to_an_end() {
        let pieces = [
            "$", "(", ")", "((", "$((", "\"", "'", "`", "{", "}", "$1", "\\", "\n", "<<", "E", " ",
            "é", "#", "-c", "sh", ";",
        ];
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let text: String =
                (0..random.usize(..40)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let lines = text.lines().count().max(1);
            assert!(found(&text).iter().all(|(line, _)| *line <= lines), "{text}");
        }
    }
}
