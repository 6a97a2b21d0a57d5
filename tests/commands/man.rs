//! The manual pages in `man/` are those of the command line, of the table of settings and of
//! the keys of task files. What these do not know is written by hand in `man/*.inc`.
//! `QWORKER_UPDATE=1` rewrites them.

use qworker::config::settings::{Settings, TABLE};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The day of the pages; it goes with the version.
const DATE: &str = "2026-11-21";

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
    use qworker::worker::signals::{SIGNALS, STATES, SignalAction, action};
    let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
    let columns = "l ".repeat(names.len());
    let mut text = format!(".TS\ntab(|) box;\nl | {columns}.\nstate|{}\n_\n", names.join("|"));
    for state in STATES {
        let cells = SIGNALS.map(|(name, meaning)| match (name, action(state, meaning)) {
            ("HUP", SignalAction::Drain(_)) => "draining, new start".to_string(),
            (_, SignalAction::Drain(code)) => format!("draining, exit {code}"),
            (_, SignalAction::Stop) => "stopping".into(),
            (_, SignalAction::Kill) => "killing".into(),
            (_, SignalAction::Explain) => "log".into(),
            (_, SignalAction::Nothing) => "\\-".into(),
        });
        text.push_str(&format!("{}|{}\n", state.name(), cells.join("|")));
    }
    format!("{text}.TE\n")
}

/// What every page begins with.
fn header(name: &str, section: char, body: &str) -> String {
    let table = if body.contains(".TS") { "'\\\" t\n" } else { "" };
    let (name, version) = (name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    format!("{table}{QUOTES}.TH {name} {section} {DATE} \"qworker {version}\" \"qworker\"\n")
}

/// What every page ends with: the others, named `qworker.1` and so on.
fn see_also(of: &str, pages: &[String]) -> String {
    let others = pages.iter().filter(|page| *page != of).map(|page| {
        let (name, section) = page.rsplit_once('.').unwrap();
        format!(".BR {} ({section})", name.replace('-', "\\-"))
    });
    format!(".SH SEE ALSO\n{}\n", others.collect::<Vec<_>>().join(",\n"))
}

/// Lines of text no longer than a screen, without blanks at their ends.
fn wrapped(page: &str) -> String {
    let mut text = String::new();
    let mut as_it_is = false;
    for line in page.replace('…', "...").lines().map(str::trim_end) {
        match line {
            ".nf" | ".TS" => as_it_is = true,
            ".fi" | ".TE" => as_it_is = false,
            _ => {}
        }
        // What clap leaves between the paragraphs of an option.
        if !as_it_is && (line.is_empty() || (line == ".br" && text.ends_with("\n.br\n"))) {
            continue;
        }
        let is_text = !as_it_is && !line.starts_with(['.', '\'']);
        let mut width = 0;
        for word in line.split(' ') {
            if width > 0 && is_text && width + word.len() >= 80 {
                text.push('\n');
                // What stands first in a line must not be taken for a macro.
                text.push_str(if word.starts_with(['.', '\'']) { "\\&" } else { "" });
                width = 0;
            } else if width > 0 {
                text.push(' ');
                width += 1;
            }
            text.push_str(word);
            width += word.len().max(1);
        }
        text.push('\n');
    }
    text
}

fn page(command: clap::Command, hand: &str, pages: &[String]) -> String {
    // The shell that runs the test may have set some of the variables.
    let command = command.mut_args(|arg| arg.hide_env_values(true));
    let root = command.get_display_name() == Some("qworker");
    let nested = if root { String::new() } else { nested(&command) };
    let name = command.get_display_name().unwrap_or_default().to_string();
    let title = header(&name, '1', hand);
    let others = see_also(&format!("{name}.1"), pages);
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
    wrapped(&format!("{title}{text}{nested}{hand}{others}"))
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

/// Any text as roff.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// The page of `qworker.yaml`: its settings are those of the table.
fn settings() -> String {
    let defaults = Settings::default().report();
    let mut text =
        format!("qworker.yaml \\- settings of qworker\n{}.SH SETTINGS\n", by_hand("settings"));
    for (entry, row) in TABLE.iter().zip(defaults) {
        let meaning: Vec<&str> = entry.meaning.iter().map(|line| line.trim()).collect();
        let (name, value) = (roff(entry.name), roff(&row.value));
        text.push_str(&format!(".TP\n.B {name}\n{}\n", roff(&meaning.join(" "))));
        text.push_str(&format!(
            "Expected: {}.\n.br\nDefault:\n.BR \"{value}\" .\n",
            roff(entry.expected)
        ));
    }
    text
}

/// The page of task files.
fn tasks() -> String {
    format!("qworker\\-tasks \\- task files of qworker\n{}", by_hand("tasks"))
}

/// The page of files of entries.
fn schedule() -> String {
    format!("qworker\\-schedule \\- schedules of qworker\n{}", by_hand("schedule"))
}

/// The page of workflow files.
fn flow() -> String {
    format!("qworker\\-flow \\- workflow files of qworker\n{}", by_hand("flow"))
}

/// The page of what tasks say to their worker.
fn protocol() -> String {
    let text = by_hand("task-protocol");
    format!("qworker\\-task\\-protocol \\- what a task says to its worker\n{text}")
}

/// The page of what all commands have in common. A line `.INCLUDE x` is the text of `x.inc`.
fn concepts() -> String {
    let mut text = "qworker \\- what is promised, and where things are\n".to_string();
    for line in by_hand("concepts").lines() {
        match line.strip_prefix(".INCLUDE ") {
            Some(name) => text.push_str(&by_hand(name)),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

/// Every page by the name of its file.
fn pages() -> BTreeMap<String, String> {
    let mut root = qworker::cli::command_line().disable_help_subcommand(true);
    root.build();
    let visible: Vec<clap::Command> =
        root.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let mut names = vec!["qworker.1".to_string()];
    names.extend(visible.iter().map(|command| format!("qworker-{}.1", command.get_name())));
    let of_words = [
        "qworker.yaml.5",
        "qworker-tasks.5",
        "qworker-schedule.5",
        "qworker-flow.5",
        "qworker.7",
        "qworker-task-protocol.7",
    ];
    let texts = [settings(), tasks(), schedule(), flow(), concepts(), protocol()];
    names.extend(of_words.map(String::from));
    let mut pages = BTreeMap::new();
    for command in visible {
        let (name, hand) = (format!("qworker-{}", command.get_name()), by_hand(command.get_name()));
        let bin = format!("qworker {}", command.get_name());
        let command = command.name(name.clone()).display_name(name.clone()).bin_name(bin);
        pages.insert(format!("{name}.1"), page(command, &hand, &names));
    }
    let root = root.display_name("qworker");
    pages.insert("qworker.1".into(), page(root, &by_hand("qworker"), &names));
    for (page, body) in of_words.into_iter().zip(texts) {
        let (name, section) = page.rsplit_once('.').unwrap();
        let head = header(name, section.chars().next().unwrap(), &body);
        let text = format!("{head}.SH NAME\n{body}{}", see_also(page, &names));
        pages.insert(page.into(), wrapped(&text));
    }
    pages
}

#[test]
fn the_pages_are_those_of_the_program() {
    let pages = pages();
    if std::env::var_os("QWORKER_UPDATE").is_some() {
        for (name, text) in &pages {
            fs::write(folder().join(name), text).unwrap();
        }
    }
    let committed: BTreeMap<String, String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end != "inc"))
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

/// Every key has one entry in the page of task files, and every entry is a key.
#[test]
fn the_page_of_task_files_has_every_key() {
    let page = by_hand("tasks");
    let keys = page.split("\n.SH ENVIRONMENT").next().unwrap();
    let entry = |(tag, text): (&str, &str)| {
        tag.strip_prefix(".B ").map(|key| (key.to_string(), text.to_string()))
    };
    let said: BTreeMap<String, String> = keys
        .split(".TP\n")
        .skip(1)
        .filter_map(|one| entry(one.split_once('\n').unwrap()))
        .collect();
    let known: Vec<&str> = qworker::task::keys::names().collect();
    for key in &known {
        let text = said.get(*key).unwrap_or_else(|| panic!("man/tasks.inc lacks {key}"));
        assert!(text.trim_end().ends_with('.') || text.contains("\n.SH"), "{key}: {text}");
    }
    for key in said.keys() {
        assert!(known.contains(&key.as_str()), "man/tasks.inc has {key}, which is no key");
    }
}

/// Every request has a paragraph, and the numbers are those of the program.
#[test]
fn the_page_of_the_protocol_has_every_request() {
    use qworker::wire::task_protocol::{FRAME_MAX, METHODS, VERSION};
    let page = by_hand("task-protocol").replace("\\-", "-");
    for method in METHODS {
        assert!(page.contains(&format!("\n.B {method}")), "man/task-protocol.inc lacks {method}");
    }
    for part in [format!("version is {VERSION}"), format!("{FRAME_MAX} bytes")] {
        assert!(page.contains(&part), "man/task-protocol.inc lacks {part:?}");
    }
}

/// Every option of a node has a paragraph.
#[test]
fn the_page_of_workflow_files_has_every_option() {
    use qworker::flow::options::{CALLBACKS, OPTIONS};
    let page = by_hand("flow");
    let section = page.split(".SH OPTIONS").nth(1).unwrap().split("\n.SH").next().unwrap();
    let tags = section.split(".TP\n.B ").skip(1).map(|one| one.lines().next().unwrap());
    let known: Vec<&str> = OPTIONS.into_iter().chain(CALLBACKS).collect();
    assert_eq!(tags.collect::<Vec<_>>(), known);
}

/// Every key and every option of an entry has a paragraph.
#[test]
fn the_page_of_schedules_has_every_key() {
    let page = by_hand("schedule");
    let section = |name: &str| page.split(name).nth(1).unwrap().split("\n.S").next().unwrap();
    let paragraphs = |text: &str| {
        let tags = text.split(".TP\n.B").skip(1).map(|one| one.lines().next().unwrap());
        tags.map(|tag| tag.trim_start_matches('R').trim().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(paragraphs(section(".SS Keys of an entry")), qworker::schedule::define::KEYS);
    assert_eq!(paragraphs(section(".SH OPTIONS")), qworker::schedule::options::OPTIONS);
    let crontabs = section(".SH CRONTABS");
    for key in qworker::schedule::crontab_file::KEYS {
        assert!(crontabs.split_once("Options are").unwrap().1.contains(key), "{key}");
    }
}

/// Long lines, blanks at their ends, macros that are none: mandoc knows what a page should be.
#[test]
fn a_strict_reader_has_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages();
    for (name, text) in &pages {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut mandoc = Command::new("mandoc");
    mandoc.args(["-T", "lint"]).args(pages.keys()).current_dir(dir.path());
    let output = mandoc.output();
    let output = output.expect("mandoc, which scripts/test installs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn lines_are_cut_between_words() {
    let long = "word ".repeat(20);
    assert_eq!(wrapped(&format!(".B {long}")).lines().count(), 1);
    assert_eq!(wrapped(&format!(".nf\n{long}\n.fi")).lines().count(), 3);
    let cut = wrapped(&long);
    assert_eq!((cut.lines().count(), cut.replace('\n', " ").trim()), (2, long.trim()));
    let dotted = wrapped(&format!("{}.dot", "x".repeat(79) + " "));
    assert!(dotted.ends_with("\n\\&.dot\n"), "{dotted}");
    assert_eq!(wrapped("  two blanks"), "  two blanks\n");
}
