//! The words of a shell text, as far as quotes and what stands in `$`… are concerned.

use super::Finder;

/// Maximum depth of nested expansions; deeper ones are not read.
const DEPTH_MAX: usize = 50;

/// A word of a command.
#[derive(Debug, Default)]
pub(super) struct ShellWord {
    /// Its letters, without quotes and expansions.
    pub(super) text: String,
    /// Its line, from 0.
    pub(super) line: usize,
    /// An argument stands in it without quotes.
    pub(super) bare: bool,
    /// An argument stands in it, in quotes.
    quoted: bool,
    /// The first such expansion.
    pub(super) shown: String,
    begun: bool,
    /// Where it goes behind `<` and `>`.
    is_target: bool,
}

impl ShellWord {
    /// Has it anything of an argument in it?
    pub(super) fn is_from_outside(&self) -> bool {
        self.bare || self.quoted
    }

    /// The name in `NAME=…`.
    pub(super) fn assigns(&self) -> Option<&str> {
        let (name, _) = self.text.split_once('=')?;
        let name = name.strip_suffix('+').unwrap_or(name);
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(fits)).then_some(name)
    }

    fn take_in(&mut self, expansion: &Expansion, in_quotes: bool) {
        self.begun = true;
        if expansion.outside {
            if self.shown.is_empty() {
                self.shown = expansion.shown.clone();
            }
            // What a command prints is taken to pieces too, and mostly on purpose.
            self.bare |= !in_quotes && !expansion.is_command;
            self.quoted |= in_quotes || expansion.is_command;
        }
    }
}

/// What stands behind a `$`.
#[derive(Debug, Default)]
struct Expansion {
    outside: bool,
    is_command: bool,
    shown: String,
}

/// Reads a text once, from its start to its end.
pub(super) struct ShellScanner {
    chars: Vec<char>,
    at: usize,
    line: usize,
    depth: usize,
    /// The ends of the here-documents that begin on the next line.
    here: Vec<String>,
}

impl ShellScanner {
    /// At the start of `text`.
    pub(super) fn new(text: &str) -> ShellScanner {
        ShellScanner { chars: text.chars().collect(), at: 0, line: 0, depth: 0, here: Vec::new() }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(letter == '\n');
        Some(letter)
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(n, letter)| self.peek(n) == Some(letter))
    }

    /// Reads commands up to `end`, or to the end of all; has one of them an argument in it?
    pub(super) fn commands(&mut self, finder: &mut Finder, end: Option<char>) -> bool {
        let (mut words, mut word, mut outside) = (Vec::new(), ShellWord::default(), false);
        loop {
            let letter = self.peek(0);
            let ends = letter.is_none() || letter == end;
            let splits = letter.is_some_and(|letter| " \t\n;&|()<>".contains(letter));
            if ends || splits {
                let is_target = matches!(letter, Some('<' | '>'));
                self.put(&mut word, &mut words, &mut outside);
                word.is_target = is_target;
            }
            if ends || letter.is_some_and(|letter| "\n;&|()".contains(letter)) {
                finder.command(&words);
                words.clear();
            }
            if ends {
                self.next();
                return outside;
            }
            let is_first = words.iter().all(|word| word.assigns().is_some());
            self.step(&mut word, is_first, finder);
        }
    }

    /// A word is complete.
    fn put(&mut self, word: &mut ShellWord, words: &mut Vec<ShellWord>, outside: &mut bool) {
        if !word.begun {
            return;
        }
        let done = std::mem::take(word);
        *outside |= done.is_from_outside();
        if !done.is_target {
            words.push(done);
        }
    }

    /// One letter, or what begins with it.
    fn step(&mut self, word: &mut ShellWord, is_first: bool, finder: &mut Finder) {
        if !word.begun {
            word.line = self.line;
        }
        match self.peek(0) {
            Some('#') if !word.begun => {
                while self.peek(0).is_some_and(|letter| letter != '\n') {
                    self.next();
                }
            }
            Some('\n') => {
                self.next();
                self.skip_documents();
            }
            Some('(') if is_first && !word.begun && self.starts_with("((") => {
                self.arithmetic(2, finder);
            }
            Some('<') if self.starts_with("<<") && !self.starts_with("<<<") => self.document(),
            Some('\'') => {
                self.next();
                word.begun = true;
                while let Some(letter) = self.next().filter(|letter| *letter != '\'') {
                    word.text.push(letter);
                }
            }
            Some('"') => self.quotes(word, finder),
            Some('\\') => {
                self.next();
                if let Some(letter) = self.next().filter(|letter| *letter != '\n') {
                    word.begun = true;
                    word.text.push(letter);
                }
            }
            Some('$' | '`') => {
                let expansion = self.expansion(finder);
                // What is assigned is not taken to pieces.
                let is_assigned = is_first && word.assigns().is_some();
                word.take_in(&expansion, is_assigned);
            }
            Some(letter) => {
                self.next();
                if !" \t;&|()<>".contains(letter) {
                    word.begun = true;
                    word.text.push(letter);
                }
            }
            None => {}
        }
    }

    /// From a quotation mark to the next.
    fn quotes(&mut self, word: &mut ShellWord, finder: &mut Finder) {
        self.next();
        word.begun = true;
        loop {
            match self.peek(0) {
                None => return,
                Some('"') => {
                    self.next();
                    return;
                }
                Some('\\') => {
                    self.next();
                    word.text.extend(self.next());
                }
                Some('$' | '`') => {
                    let expansion = self.expansion(finder);
                    word.take_in(&expansion, true);
                }
                Some(letter) => {
                    self.next();
                    word.text.push(letter);
                }
            }
        }
    }

    /// What begins with `$` or a backtick.
    fn expansion(&mut self, finder: &mut Finder) -> Expansion {
        let from = self.at;
        self.depth += 1;
        let mut found = Expansion::default();
        if self.depth > DEPTH_MAX {
            self.next();
        } else if self.starts_with("$((") {
            self.arithmetic(3, finder);
        } else if self.starts_with("$(") || self.starts_with("`") {
            let end = if self.next() == Some('`') { '`' } else { ')' };
            if end == ')' {
                self.next();
            }
            found.is_command = true;
            found.outside = self.commands(finder, Some(end));
        } else if self.starts_with("${") {
            let inside = self.until_closed(2, '{', '}');
            let name: String = inside
                .chars()
                .enumerate()
                .take_while(|(n, c)| {
                    c.is_alphanumeric() || *c == '_' || (*n == 0 && "@*".contains(*c))
                })
                .map(|(_, c)| c)
                .collect();
            found.outside = !name.is_empty() && finder.holds(&name);
        } else {
            self.next();
            let mut name = String::new();
            while let Some(letter) = self.peek(0) {
                let is_name = letter.is_ascii_alphanumeric() || letter == '_';
                let special = name.is_empty() && "@*#?$!-".contains(letter);
                let digit = name.chars().all(|c| c.is_ascii_digit()) && !name.is_empty();
                if !(is_name || special) || digit {
                    break;
                }
                name.push(letter);
                self.next();
                if special {
                    break;
                }
            }
            found.outside = !name.is_empty() && finder.holds(&name);
        }
        self.depth -= 1;
        found.shown = self.chars[from..self.at].iter().take(30).collect();
        found
    }

    /// `$(( … ))` or `(( … ))`, whose beginning has `length` letters.
    fn arithmetic(&mut self, length: usize, finder: &mut Finder) {
        let line = self.line;
        let inside = self.until_closed(length, '(', ')');
        self.at += usize::from(self.peek(0) == Some(')'));
        finder.arithmetic(line, &inside);
    }

    /// The text from behind `length` letters up to the closing one, which is read too.
    fn until_closed(&mut self, length: usize, open: char, close: char) -> String {
        for _ in 0..length {
            self.next();
        }
        let (mut depth, mut inside) = (0, String::new());
        while let Some(letter) = self.next() {
            if letter == close && depth == 0 {
                break;
            }
            depth += usize::from(letter == open);
            depth -= usize::from(letter == close);
            inside.push(letter);
        }
        inside
    }

    /// `<<END`: remembers the end.
    fn document(&mut self) {
        self.at += 2;
        while self.peek(0).is_some_and(|letter| letter == '-' || letter == ' ') {
            self.next();
        }
        let mut end = String::new();
        while let Some(letter) = self.peek(0).filter(|letter| !" \t\n;&|()<>".contains(*letter)) {
            self.next();
            if !"'\"\\".contains(letter) {
                end.push(letter);
            }
        }
        self.here.push(end);
    }

    /// Here-documents are no words.
    fn skip_documents(&mut self) {
        for end in std::mem::take(&mut self.here) {
            while self.peek(0).is_some() {
                let mut line = String::new();
                while let Some(letter) = self.next().filter(|letter| *letter != '\n') {
                    line.push(letter);
                }
                if line.trim_start_matches('\t') == end {
                    break;
                }
            }
        }
    }
}
