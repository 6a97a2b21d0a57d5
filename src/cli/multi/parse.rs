//! The grammar of `multi`: which words are node names, which are options, and for which nodes.
//! It is Celery's, except that the worker's options are known, and whether they take a value.

use super::super::exit::Error;
use std::collections::HashMap;

/// Options in the order they were first given, as `-c` or `--pidfile`, with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OptionList(Vec<(String, Option<String>)>);

/// The words after the command of `multi`, sorted.
#[derive(Debug, Default)]
pub(super) struct ParsedWords {
    /// Names of nodes, or a number of them.
    pub(super) names: Vec<String>,
    /// Options of all nodes.
    pub(super) options: OptionList,
    /// Options of some nodes, by the text after the colon, in the order of first use.
    pub(super) of_some: Vec<(String, OptionList)>,
    /// Passed on to every node unchanged: `--` and everything after it.
    pub(super) behind: Vec<String>,
}

/// Which options are known, and whether they take a value.
#[derive(Debug)]
pub(super) struct KnownOptions(HashMap<String, bool>);

impl OptionList {
    pub(super) fn get(&self, name: &str) -> Option<&Option<String>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A new value in the old place, or at the end.
    pub(super) fn set(&mut self, name: &str, value: Option<String>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Option<String>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Gives an option another name, if it is there, in its place.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if let Some(one) = self.0.iter_mut().find(|(known, _)| known == from) {
            one.0 = to.into();
        }
    }

    pub(super) fn add(&mut self, others: &OptionList) {
        for (name, value) in &others.0 {
            self.set(name, value.clone());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

impl KnownOptions {
    /// Those of the program and of its command `worker`, and `own` ones.
    pub(super) fn new(program: &clap::Command, own: &[(&str, bool)]) -> KnownOptions {
        let worker = program.find_subcommand("worker").into_iter();
        let mut known: HashMap<String, bool> = HashMap::new();
        for arg in worker.chain([program]).flat_map(clap::Command::get_arguments) {
            let takes = arg.get_action().takes_values();
            let shorts = arg.get_short_and_visible_aliases().into_iter().flatten();
            let longs = arg.get_long_and_visible_aliases().into_iter().flatten();
            let hidden = arg.get_aliases().into_iter().flatten();
            let hidden_shorts = arg.get_all_short_aliases().into_iter().flatten();
            known.extend(shorts.chain(hidden_shorts).map(|letter| (format!("-{letter}"), takes)));
            known.extend(longs.chain(hidden).map(|long| (format!("--{long}"), takes)));
        }
        known.extend(own.iter().map(|(name, takes)| ((*name).to_string(), *takes)));
        KnownOptions(known)
    }

    /// Does it take a value? `None` for one that nobody knows.
    fn takes_value(&self, option: &str) -> Option<bool> {
        self.0.get(option).copied()
    }

    /// A word that begins with one hyphen, as option and value: `-c3` is `-c 3`.
    fn split_short(&self, word: &str) -> (String, Option<String>) {
        let mut letters = word.chars();
        let first: String = letters.by_ref().take(2).collect();
        let rest = letters.as_str();
        let attached = !rest.is_empty() && !rest.starts_with(':');
        if attached && self.takes_value(&first) == Some(true) {
            let value = rest.strip_prefix('=').unwrap_or(rest);
            return (first, Some(value.into()));
        }
        (word.into(), None)
    }

    /// Is it one flag, or some behind one hyphen?
    fn is_flags(&self, option: &str) -> bool {
        let letters = option.trim_start_matches('-').chars();
        self.takes_value(option) == Some(false)
            || !option.starts_with("--")
                && letters.map(|l| format!("-{l}")).all(|one| self.takes_value(&one) == Some(false))
    }
}

impl ParsedWords {
    /// Sorts the words.
    ///
    /// # Errors
    /// An option without its value, or one that is no option.
    pub(super) fn parse(words: &[String], known: &KnownOptions) -> Result<ParsedWords, Error> {
        let mut sorted = ParsedWords::default();
        let mut words = words.iter().filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                sorted.behind = [word].into_iter().chain(words).cloned().collect();
                break;
            }
            if !word.starts_with('-') {
                sorted.names.push(word.clone());
                continue;
            }
            let (option, mut value) = match word.split_once('=') {
                Some((option, value)) if word.starts_with("--") => {
                    (option.to_string(), Some(value.to_string()))
                }
                _ if word.starts_with("--") => (word.clone(), None),
                _ => known.split_short(word),
            };
            let (option, nodes) = match option.split_once(':') {
                Some((option, nodes)) => (option.to_string(), Some(nodes)),
                None => (option, None),
            };
            if option.trim_start_matches('-').is_empty() || nodes.is_some_and(str::is_empty) {
                return Err(Error::usage(format!("{word} is no option")));
            }
            // Of a long one that nobody knows, Celery takes no value that stands apart.
            let takes = known.takes_value(&option);
            let apart = takes.unwrap_or(!option.starts_with("--") && !known.is_flags(&option));
            if value.is_none() && apart {
                value = words.next_if(|next| !next.starts_with('-')).cloned();
            }
            if value.is_none() && takes == Some(true) {
                return Err(Error::usage(format!("{word} wants a value")));
            }
            match known.is_flags(&option) {
                true if value.is_none() && !option.starts_with("--") => {
                    let flags = option.chars().skip(1).map(|letter| format!("-{letter}"));
                    flags.for_each(|flag| sorted.options_of(nodes).set(&flag, None));
                }
                _ => sorted.options_of(nodes).set(&option, value),
            }
        }
        Ok(sorted)
    }

    fn options_of(&mut self, nodes: Option<&str>) -> &mut OptionList {
        let Some(nodes) = nodes else { return &mut self.options };
        let at = self.of_some.iter().position(|(known, _)| known == nodes);
        let at = at.unwrap_or_else(|| {
            self.of_some.push((nodes.into(), OptionList::default()));
            self.of_some.len() - 1
        });
        &mut self.of_some[at].1
    }
}

/// A line of a shell's words, with quotes only where they are needed to get the same words back.
pub(super) fn join(words: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = !word.is_empty()
            && !word.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\'));
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The words of a line, as a shell takes it apart.
///
/// # Errors
/// A quote that is not closed.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().extend(letters.next());
            }
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(open) = quote {
        return Err(format!("{line}: the quote {open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> ParsedWords {
        let words = split(line).unwrap();
        let program = crate::cli::command_line();
        ParsedWords::parse(&words, &KnownOptions::new(&program, &[("--timeout", true)])).unwrap()
    }

    fn options(words: &ParsedWords) -> Vec<String> {
        words
            .options
            .iter()
            .map(|(name, value)| format!("{name}={}", value.unwrap_or("-")))
            .collect()
    }

    #[test]
    fn what_is_known_decides_what_is_a_value() {
        for (line, names, wanted) in [
            ("foo --loglevel INFO bar", "foo bar", "--loglevel=INFO"),
            ("foo --unheard INFO", "foo INFO", "--unheard=-"),
            ("foo -C bar", "foo bar", "-C=-"),
            ("foo -c3 bar", "foo bar", "-c=3"),
            ("foo -z 3", "foo", "-z=3"),
            ("foo -z -c 4 -c 5", "foo", "-z=- -c=5"),
            ("foo --app=a=b", "foo", "--app=a=b"),
            ("foo -A /srv/a:b bar", "foo bar", "-A=/srv/a:b"),
            ("foo --timeout 5 bar", "foo bar", "--timeout=5"),
        ] {
            let words = parse(line);
            assert_eq!(
                (words.names.join(" "), options(&words).join(" ")),
                (names.into(), wanted.into())
            );
        }
    }

    #[test]
    fn what_is_of_some_nodes_is_kept_apart() {
        let words = parse("3 -c:1-2 4 --loglevel:3 INFO --unheard:3=x -- -c 5 --pidfile=y");
        assert_eq!(words.of_some.len(), 2);
        assert_eq!(words.of_some[0].0, "1-2");
        assert_eq!(words.of_some[1].1.get("--unheard"), Some(&Some("x".into())));
        assert_eq!(words.behind.join(" "), "-- -c 5 --pidfile=y");
    }

    #[test]
    fn a_line_is_its_words() {
        for line in ["a b", "'a b' c", "'' x", r"'it'\''s'"] {
            assert_eq!(join(&split(line).unwrap()), line);
        }
        assert_eq!(split(r#" a\ b  "c 'd'" "#).unwrap(), ["a b", "c 'd'"]);
        assert!(split("it's").is_err());
    }
}
