//! The manual pages in `man/` are those of the command line. Their options come from clap;
//! the rest is written by hand in `man/*.inc`. `QWORKER_UPDATE=1` rewrites them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Apostrophes in groff and elsewhere; a page says it once.
const QUOTES: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

/// Sections that clap knows nothing of.
fn by_hand(name: &str) -> String {
    let text = fs::read_to_string(folder().join(format!("{name}.inc"))).unwrap_or_default();
    text.replace("@SIGNALS@\n", &signals())
}

/// The table of the worker's code: state x signal.
fn signals() -> String {
    use qworker::worker::signals::{Action, SIGNALS, STATES, action};
    let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
    let columns = "l ".repeat(names.len());
    let mut text = format!(".TS\ntab(|) box;\nl | {columns}.\nstate|{}\n_\n", names.join("|"));
    for state in STATES {
        let cells = SIGNALS.map(|(name, meaning)| match (name, action(state, meaning)) {
            ("HUP", Action::Drain(_)) => "draining, new start".to_string(),
            (_, Action::Drain(code)) => format!("draining, exit {code}"),
            (_, Action::Stop) => "stopping".into(),
            (_, Action::Kill) => "killing".into(),
            (_, Action::Explain) => "log".into(),
            (_, Action::Nothing) => "\\-".into(),
        });
        text.push_str(&format!("{}|{}\n", state.name(), cells.join("|")));
    }
    format!("{text}.TE\n")
}

fn page(command: clap::Command, hand: &str, see_also: &[String]) -> String {
    let others: Vec<String> = see_also
        .iter()
        .filter(|name| Some(name.as_str()) != command.get_display_name())
        .map(|name| format!("\\fB{}\\fR(1)", name.replace('-', "\\-")))
        .collect();
    // The shell that runs the test may have set some of the variables.
    let command = command.mut_args(|arg| arg.hide_env_values(true));
    let table = if hand.contains(".TS") { "'\\\" t\n" } else { "" };
    let root = command.get_display_name() == Some("qworker");
    let nested = if root { String::new() } else { nested(&command) };
    let name = command.get_display_name().unwrap_or_default().to_uppercase();
    let version = env!("CARGO_PKG_VERSION");
    let title = format!("{QUOTES}.TH {name} 1 \"\" \"qworker {version}\" \"qworker\"\n");
    let man = clap_mangen::Man::new(command);
    let mut text = Vec::new();
    man.render_name_section(&mut text).unwrap();
    man.render_synopsis_section(&mut text).unwrap();
    man.render_description_section(&mut text).unwrap();
    man.render_options_section(&mut text).unwrap();
    if root {
        man.render_subcommands_section(&mut text).unwrap();
    }
    let text = String::from_utf8(text).unwrap();
    // Each section was rendered as if it were alone.
    let text = text.replace(QUOTES, "");
    format!("{table}{title}{text}{nested}{hand}.SH SEE ALSO\n{}\n", others.join(", "))
}

/// Commands of a command, as `dead list`: they have no page of their own.
fn nested(command: &clap::Command) -> String {
    let mut text = String::new();
    let escaped = |text: String| text.replace('-', "\\-");
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        let bin = command.get_bin_name().unwrap_or_default();
        text.push_str(&format!(".SS {bin} {}\n", one.get_name()));
        text.push_str(&format!("{}\n", one.get_about().unwrap()));
        for arg in one.get_arguments().filter(|arg| arg.get_id() != "help") {
            let name = match (arg.get_short(), arg.get_long()) {
                (Some(short), Some(long)) => format!("-{short}, --{long}"),
                (None, Some(long)) => format!("--{long}"),
                _ => arg.get_id().to_string().to_uppercase(),
            };
            text.push_str(&format!(".TP\n\\fB{}\\fR\n", escaped(name)));
            text.push_str(&format!("{}\n", escaped(arg.get_help().unwrap().to_string())));
        }
    }
    if text.is_empty() { text } else { format!(".SH COMMANDS\n{text}") }
}

/// Every page by the name of its file.
fn pages() -> BTreeMap<String, String> {
    let mut root = qworker::cli::command_line().disable_help_subcommand(true);
    root.build();
    let visible: Vec<clap::Command> =
        root.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let mut names = vec!["qworker".to_string()];
    names.extend(visible.iter().map(|command| format!("qworker-{}", command.get_name())));
    let mut pages = BTreeMap::new();
    for command in visible {
        let (name, hand) = (format!("qworker-{}", command.get_name()), by_hand(command.get_name()));
        let bin = format!("qworker {}", command.get_name());
        let command = command.name(name.clone()).display_name(name.clone()).bin_name(bin);
        pages.insert(format!("{name}.1"), page(command, &hand, &names));
    }
    let root = root.display_name("qworker");
    pages.insert("qworker.1".into(), page(root, &by_hand("qworker"), &names));
    pages
}

#[test]
fn the_pages_are_those_of_the_command_line() {
    let pages = pages();
    if std::env::var_os("QWORKER_UPDATE").is_some() {
        for (name, text) in &pages {
            fs::write(folder().join(name), text).unwrap();
        }
    }
    let committed: BTreeMap<String, String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "1"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&pages), "QWORKER_UPDATE=1 cargo test writes them");
    for (name, text) in pages {
        assert!(
            committed[&name] == text,
            "man/{name} is out of date: QWORKER_UPDATE=1 cargo test man"
        );
    }
}

#[test]
fn the_pages_say_what_help_says() {
    let pages = pages();
    let text = |name: &str| pages[name].replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
    for part in [
        "SH TASK FILES",
        "SH FILES",
        "SH ENVIRONMENT",
        "SH EXIT STATUS",
        "--broker",
        "qworker-call(1)",
    ] {
        assert!(text("qworker.1").contains(part), "{part}");
    }
    for part in ["SH SIGNALS", "REMAP_SIGTERM", "--concurrency", "SH EXIT STATUS", ".TS"] {
        assert!(text("qworker-worker.1").contains(part), "{part}");
    }
    for command in qworker::cli::command_line().get_subcommands() {
        let page = format!("qworker-{}.1", command.get_name());
        assert_eq!(pages.contains_key(&page), !command.is_hide_set(), "{page}");
    }
    // The README's table has every key.
    let readme = include_str!("../../README.md");
    let table = readme.split("## Task files").nth(1).unwrap().split("\n## ").next().unwrap();
    let firsts =
        table.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').nth(1));
    let keys: Vec<&str> =
        firsts.flat_map(|cell| cell.unwrap().split('`').skip(1).step_by(2)).collect();
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        assert!(pages["qworker.1"].contains(key), "TASK FILES lacks {key}");
    }
}
