//! The folder `tasks.d`: which files count, what their tasks are called, and what becomes
//! of mistakes. A mistake costs the task it is in, or the file that cannot be parsed;
//! the others stay.

use super::define::define;
use super::keys::plain;
use super::{NO_WASM, Program, Task};
use crate::config::node::Data;
use crate::config::yaml;
use crate::config::{Diagnostic, Faults};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// A file of `tasks.d`.
#[derive(Debug, Clone)]
pub struct File {
    /// Relative to `tasks.d`.
    pub path: PathBuf,
    /// What it is.
    pub content: TaskFileKind,
}

/// What a file of `tasks.d` is.
#[derive(Debug, Clone)]
pub enum TaskFileKind {
    /// Definitions, with the file's text.
    Yaml(String),
    /// An executable file, which is a task itself.
    Program,
    /// A WASM module, in bytes or in text, which is a task itself.
    Wasm,
}

/// What a file is by its name and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Definitions: read it.
    Yaml,
    /// An executable file.
    Program,
    /// A WASM module.
    Wasm,
}

/// Which sort of file `path` (relative to `tasks.d`) is; `None` for those that are no
/// tasks: hidden ones and what is in hidden folders, copies that editors leave (`x~`,
/// `x.bak`), READMEs, and files that cannot be executed.
pub fn sort(path: &Path, executable: bool) -> Option<Sort> {
    if is_skipped(path) {
        return None;
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("yaml" | "yml") => Some(Sort::Yaml),
        Some("wasm" | "wat") => Some(Sort::Wasm),
        _ => executable.then_some(Sort::Program),
    }
}

fn is_skipped(path: &Path) -> bool {
    let hidden = |part: Component<'_>| part.as_os_str().to_string_lossy().starts_with('.');
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.components().any(hidden)
        || name.ends_with('~')
        || name.ends_with(".bak")
        || name.starts_with("README")
}

/// Reads the files of `tasks_dir`, definitions before programs, in the order of their paths.
/// `exists` tells whether
/// a file is there, for the modules that definitions name. Of two tasks with one name
/// the first stays, even if it is broken: a name must not change its meaning by a slip.
pub fn load(
    files: &[File],
    tasks_dir: &Path,
    exists: &dyn Fn(&Path) -> bool,
) -> (Vec<Task>, Vec<Diagnostic>) {
    let mut files: Vec<&File> = files.iter().filter(|file| !is_skipped(&file.path)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut folder =
        Folder { tasks_dir, exists, places: HashMap::new(), tasks: Vec::new(), found: Vec::new() };
    for file in &files {
        if let TaskFileKind::Yaml(text) = &file.content {
            folder.read_definitions(&file.path, text);
        }
    }
    // A module that a definition names is that task's, and no task of its own.
    let named = |path: &Path| {
        let file = tasks_dir.join(path);
        let is_it =
            |task: &Task| matches!(&task.program, Program::Wasm { module, .. } if *module == file);
        folder.tasks.iter().any(is_it)
    };
    let spare: Vec<&&File> = files.iter().filter(|file| !named(&file.path)).collect();
    for file in spare {
        match &file.content {
            TaskFileKind::Yaml(_) => {}
            TaskFileKind::Program => folder.drop_in(&file.path, Program::File),
            TaskFileKind::Wasm => {
                folder.drop_in(&file.path, |module| Program::Wasm { module, export: None })
            }
        }
    }
    if !cfg!(feature = "wasm") {
        folder.refuse_wasm();
    }
    (folder.tasks, folder.found)
}

/// What is read so far.
struct Folder<'a> {
    tasks_dir: &'a Path,
    exists: &'a dyn Fn(&Path) -> bool,
    /// Where each name was defined first, as `file:line`.
    places: HashMap<String, String>,
    tasks: Vec<Task>,
    found: Vec<Diagnostic>,
}

impl Folder<'_> {
    fn refuse_wasm(&mut self) {
        for task in self.tasks.extract_if(.., |task| !task.program.is_process()) {
            let file = task.file.display().to_string();
            let line = (task.line > 0).then_some(task.line);
            let found = Diagnostic::new(&file, line, NO_WASM.to_string());
            self.found.push(found.of_key(format!("{}.wasm", task.name)));
        }
    }

    fn read_definitions(&mut self, path: &Path, text: &str) {
        let file = self.tasks_dir.join(path);
        let label = file.display().to_string();
        let (root, broken) = yaml::parse(&label, text);
        let mut faults = Faults::new(&label);
        faults.extend(broken);
        let Some(root) = root else { return self.found.extend(faults.into_vec()) };
        match &root.data {
            Data::Map(map) => {
                // A name that begins with a dot is hidden, as a file is: a home for anchors.
                for (key, node) in map.iter().filter(|(key, _)| !key.text.starts_with('.')) {
                    let name = if key.text.contains('.') {
                        key.text.clone()
                    } else {
                        name_in(path, &key.text)
                    };
                    let (place, before) = (format!("{label}:{}", key.line), faults.mark());
                    let task = faults.within(&name, |faults| {
                        let free = self.claim(&name, place.clone(), key.line, faults);
                        let task = define(&name, &file, key.line, node, self.exists, faults);
                        task.filter(|_| free)
                    });
                    if task.is_none() {
                        faults.cost(before, &name, &place);
                    }
                    self.tasks.extend(task);
                }
            }
            _ if root.is_null() => {}
            _ => {
                faults.mismatch(root.line, &root.found(), "a mapping of task names to definitions")
            }
        }
        self.found.extend(faults.into_vec());
    }

    fn drop_in(&mut self, path: &Path, program: impl FnOnce(PathBuf) -> Program) {
        let file = self.tasks_dir.join(path);
        let label = file.display().to_string();
        let name = name_in(path, &path.file_stem().unwrap_or_default().to_string_lossy());
        let mut faults = Faults::new(&label);
        if faults.within(&name, |faults| self.claim(&name, label.clone(), 0, faults)) {
            self.tasks.push(plain(&name, &file, 0, program(file.clone())));
        }
        self.found.extend(faults.into_vec());
    }

    /// Takes the name for the task at `place`; whether it was free and can be a name.
    fn claim(&mut self, name: &str, place: String, line: usize, faults: &mut Faults) -> bool {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if name.rsplit('.').next().is_none_or(str::is_empty) {
            faults.add(line, "a task's name is not empty, and does not end in a dot");
            return false;
        }
        if name.contains(odd) {
            faults.add(line, "a task's name has no blanks in it");
            return false;
        }
        if let Some(first) = self.places.get(name) {
            faults.add(line, format!("is defined already, at {first}"));
            return false;
        }
        self.places.insert(name.into(), place);
        true
    }
}

/// The name of a task `word` of a file: the file's folders go before it.
pub fn name_in(path: &Path, word: &str) -> String {
    let folders = path.parent().unwrap_or(Path::new("")).components();
    let parts = folders.map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.chain([word.to_string()]).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(path: &str, text: &str) -> File {
        File { path: path.into(), content: TaskFileKind::Yaml(text.into()) }
    }

    fn run(files: &[File]) -> (Vec<Task>, Vec<String>) {
        let there = |path: &Path| !path.ends_with("missing.wasm");
        let (tasks, found) = load(files, Path::new("tasks.d"), &there);
        (tasks, found.iter().map(Diagnostic::to_string).collect())
    }

    fn names(tasks: &[Task]) -> Vec<&str> {
        tasks.iter().map(|task| task.name.as_str()).collect()
    }

    #[test]
    fn names_come_from_keys_folders_and_stems() {
        let (tasks, found) = run(&[
            yaml(
                "media/x.yml",
                "thumb: {shell: a}\nshop.buy: {shell: b}\n.hidden: &h {shell: c}\nother: {<<: *h}\n",
            ),
            yaml("add.yaml", "# sums\n\nadd:\n  shell: echo\n"),
            File { path: "media/x.sh".into(), content: TaskFileKind::Program },
            File { path: "media/deep/y.wasm".into(), content: TaskFileKind::Wasm },
            yaml(".git/x.yaml", "a: {shell: a}"),
            yaml("README.yaml", "a: {shell: a}"),
            yaml("empty.yaml", "# nothing yet\n"),
        ]);
        assert_eq!(found, [""; 0]);
        assert_eq!(
            names(&tasks),
            ["add", "media.thumb", "shop.buy", "media.other", "media.deep.y", "media.x"]
        );
        assert_eq!((tasks[0].file.as_path(), tasks[0].line), (Path::new("tasks.d/add.yaml"), 3));
        assert_eq!(tasks[5].program, Program::File("tasks.d/media/x.sh".into()));
        let module = Program::Wasm { module: "tasks.d/media/deep/y.wasm".into(), export: None };
        assert_eq!((&tasks[4].program, tasks[4].line), (&module, 0));
        assert_eq!(tasks[3].program, Program::Shell("c".into()));
    }

    #[test]
    fn which_files_count() {
        let cases = [
            ("a.yaml", false, Some(Sort::Yaml)),
            ("m/a.yml", true, Some(Sort::Yaml)),
            ("a.wasm", false, Some(Sort::Wasm)),
            ("a.wat", true, Some(Sort::Wasm)),
            ("a.sh", true, Some(Sort::Program)),
            ("a", true, Some(Sort::Program)),
            ("a.sh", false, None),
            (".a.yaml", true, None),
            (".git/a", true, None),
            ("a.yaml~", true, None),
            ("a.bak", true, None),
            ("README", true, None),
            ("m/README.md", true, None),
        ];
        for (path, executable, expected) in cases {
            assert_eq!(sort(Path::new(path), executable), expected, "{path}");
        }
    }

    #[test]
    fn a_mistake_costs_the_task_or_file_it_is_in() {
        let (tasks, found) = run(&[
            yaml(
                "a.yaml",
                "one: {shell: a}\ntwo:\n  shell: b\n  time_limit: soon\nthree: {shell: c}\n",
            ),
            yaml("b.yaml", "four: {shell: 'x}\n"),
            yaml("c.yaml", "five: {shell: a}\nfive: {shell: b}\nsix: {shell: a, shell: b}\n"),
            yaml("d.yaml", "- list\n"),
            yaml("e.yaml", "'two words': {shell: a}\n'': {shell: a}\n"),
            yaml("sub/f.yaml", "'': {shell: a}\n"),
        ]);
        assert_eq!(names(&tasks), ["one", "three", "five"]);
        assert_eq!(tasks[2].program, Program::Shell("a".into()));
        assert_eq!(
            found[0],
            "tasks.d/a.yaml:4: two.time_limit: found text \"soon\", expected a duration above 0 and up to 36500d: \
             seconds, or words such as 90s, 5m, 1h30m, 1d"
        );
        assert!(found[1].starts_with("tasks.d/b.yaml:"), "{}", found[1]);
        assert_eq!(
            found[2..],
            [
                "tasks.d/c.yaml:2: five: is here twice, first on line 1",
                "tasks.d/c.yaml:3: shell: is here twice, first on line 3",
                "tasks.d/d.yaml:1: found a list, expected a mapping of task names to definitions",
                "tasks.d/e.yaml:1: two words: a task's name has no blanks in it",
                "tasks.d/e.yaml:2: \"\": a task's name is not empty, and does not end in a dot",
                "tasks.d/sub/f.yaml:1: sub.: a task's name is not empty, and does not end in a dot",
            ]
            .map(String::from)
        );
    }

    #[test]
    fn of_two_tasks_with_one_name_the_first_stays() {
        let (tasks, found) = run(&[
            File { path: "x.sh".into(), content: TaskFileKind::Program },
            File { path: "x.py".into(), content: TaskFileKind::Program },
            yaml("b.yaml", "add: {shell: b}\nbad: {shell: b}\nx: {shell: a}\n"),
            yaml("a.yaml", "\nadd: {shell: a}\nbad: {shel: a}\n"),
        ]);
        assert_eq!(names(&tasks), ["add", "x"]);
        assert_eq!(tasks[0].program, Program::Shell("a".into()));
        assert_eq!(
            found,
            [
                "tasks.d/a.yaml:3: bad.shel: unknown key; did you mean shell?",
                "tasks.d/a.yaml:3: bad: has none of shell, exec and wasm",
                "tasks.d/b.yaml:1: add: is defined already, at tasks.d/a.yaml:2",
                "tasks.d/b.yaml:2: bad: is defined already, at tasks.d/a.yaml:3",
                "tasks.d/x.py: x: is defined already, at tasks.d/b.yaml:3",
                "tasks.d/x.sh: x: is defined already, at tasks.d/b.yaml:3",
            ]
        );
    }

    /// Whatever files hold, loading them ends, and a task that comes out has a name.
    #[test]
    fn any_text_loads_or_is_refused() {
        let pieces = [
            "a",
            "b.c",
            ": ",
            "\n",
            "\n  ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "shell",
            "exec",
            "wasm",
            "params",
            "env",
            "dirs",
            "time_limit",
            "retry_on",
            "&x ",
            "*x",
            "<<",
            "'",
            "5",
            "-1",
            "true",
            "{1}",
            "h:/g:rw",
            ", ",
            "\u{0}",
            "é",
        ];
        let mut random = fastrand::Rng::with_seed(11);
        let mut loaded = 0;
        for _ in 0..20_000 {
            let mut text: String =
                (0..random.usize(..30)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            if random.bool() {
                text = format!("a:\n  shell: b\n  {text}");
            }
            let (tasks, found) = run(&[yaml("x.yaml", &text)]);
            loaded += tasks.len();
            assert!(tasks.iter().all(|task| !task.name.is_empty()));
            assert!(
                found.iter().all(|line| line.starts_with("tasks.d/x.yaml") && !line.contains('\n'))
            );
        }
        assert!(loaded > 100);
    }
}
