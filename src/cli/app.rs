//! The application: a folder with `tasks.d/` and an optional `qworker.yaml`, and what the
//! global options say about it.

use super::exit::Error;
use super::files;
use super::forms::{self, Forms};
use super::output::ToUser;
use crate::client::{self, Client};
use crate::config::diagnostic::Weight;
use crate::config::{Diagnostic, Given, Settings, names};
use crate::link::address::{Address, is_address, redact};
use crate::link::sqlite::Access;
use crate::os;
use crate::os::file::folder_of;
use crate::task::Task;
use crate::task::set::Set;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};

/// Where an application of the system is.
const SYSTEM: &str = "/etc/qworker";

/// What to do about a folder that is not there.
pub(super) const MAKE: &str =
    "make the folder first; only those within the application's own folder are made";

/// Options that stand before the command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct GlobalOptions {
    /// The application: a folder with tasks.d/ and an optional qworker.yaml [default: the
    /// current folder if it has either, else /etc/qworker]
    #[arg(short = 'A', long, value_name = "PATH", env = "QWORKER_APP")]
    pub(super) app: Option<PathBuf>,
    /// Broker: sqlite:///PATH, redis://HOST:PORT/DB, rediss://… or redis+socket:///PATH (also
    /// QWORKER_BROKER_URL)
    #[arg(short, long, value_name = "URL", value_parser = address)]
    pub(super) broker: Option<Address>,
    /// Result store: an address as above, or disabled:// [default: the broker] (also
    /// QWORKER_RESULT_BACKEND)
    #[arg(long, value_name = "URL", value_parser = address)]
    result_backend: Option<Address>,
    /// Change to this folder first
    #[arg(long, value_name = "DIR", env = "QWORKER_WORKDIR")]
    pub(super) workdir: Option<PathBuf>,
    /// No colours (also NO_COLOR)
    #[arg(short = 'C', long, env = "QWORKER_NO_COLOR", value_parser = super::truth())]
    pub(super) no_color: bool,
    /// Less output
    #[arg(short, long, env = "QWORKER_QUIET", value_parser = super::truth())]
    pub(super) quiet: bool,
}

fn address(text: &str) -> Result<Address, std::convert::Infallible> {
    Ok(Address::new(text))
}

/// An opened application.
#[derive(Clone)]
pub(super) struct App {
    /// Its folder, absolute.
    pub(super) folder: PathBuf,
    /// Its settings; usable even where there were faults.
    pub(super) settings: Settings,
    /// What was wrong with the settings.
    pub(super) faults: Vec<Diagnostic>,
    /// What in them means nothing here, or may be worth a look.
    pub(super) notes: Vec<Diagnostic>,
    /// The forms of messages and results.
    pub(super) forms: Forms,
}

impl App {
    /// Finds the application and reads its settings; `given` are a command's own options.
    ///
    /// # Errors
    /// There is no application, or its settings have faults: all of them are named.
    pub(super) fn open(global: &GlobalOptions, given: &[Given]) -> Result<App, Error> {
        let app = App::examine(global, given)?;
        if app.faults.is_empty() {
            return Ok(app);
        }
        let lines: Vec<String> = app.faults.iter().map(ToString::to_string).collect();
        Err(Error::usage(format!("wrong settings\n{}", lines.join("\n"))))
    }

    /// As [`App::open`], but faults of the settings are kept in [`App::faults`].
    ///
    /// # Errors
    /// There is no application.
    pub(super) fn examine(global: &GlobalOptions, given: &[Given]) -> Result<App, Error> {
        let folder = find(global.app.as_deref())?;
        let mut options = Vec::new();
        for (option, setting, value) in [
            ("--broker", "broker_url", &global.broker),
            ("--result-backend", "result_backend", &global.result_backend),
        ] {
            options.extend(value.iter().map(|value| Given {
                option: option.into(),
                setting: setting.into(),
                value: value.reveal().into(),
            }));
        }
        options.extend_from_slice(given);
        let (settings, mut found) = files::settings(&folder, &options)?;
        let (forms, of_keys) = forms::read(&settings, &folder);
        found.extend(of_keys);
        let (notes, faults) = found.into_iter().partition(Diagnostic::is_note);
        Ok(App { folder, settings, faults, notes, forms })
    }

    /// Tells the user what in the settings means nothing here.
    pub(super) fn tell_notes(&self, out: &ToUser) {
        self.notes.iter().for_each(|note| match note.weight {
            Weight::Warning => out.say(&format!("Warning: {note}")),
            _ => out.say(&format!("Note: {note}")),
        });
    }

    /// The valid tasks; errors in the others are reported to the user.
    ///
    /// # Errors
    /// Some of them cannot be seen.
    pub(super) fn tasks(&self, out: &ToUser) -> Result<Set, Error> {
        let (tasks, faults) = self.examine_tasks();
        App::seen(&faults)?;
        for fault in faults {
            out.say(&format!("Warning: {fault}"));
        }
        Ok(tasks)
    }

    /// Refuses what the host does not show: nobody knows which tasks are there.
    ///
    /// # Errors
    /// One of the faults is of that kind.
    pub(super) fn seen(faults: &[Diagnostic]) -> Result<(), Error> {
        match faults.iter().find(|fault| fault.weight == Weight::Unseen) {
            Some(fault) => Err(Error::failure(fault.to_string())),
            None => Ok(()),
        }
    }

    /// The tasks that are whole, and what is wrong with the others.
    pub(super) fn examine_tasks(&self) -> (Set, Vec<Diagnostic>) {
        let (mut tasks, faults) = files::tasks(&self.folder);
        for task in &mut tasks {
            task.max_output.get_or_insert(self.settings.task_max_output);
        }
        (Set::new(tasks), faults)
    }

    /// What the files of tasks look like from outside: it changes with any of them.
    pub(super) fn stamp(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        files::looks(&self.folder.join("tasks.d")).hash(&mut hasher);
        hasher.finish()
    }

    /// The broker's address.
    pub(super) fn broker(&self) -> String {
        self.settings.broker_url.to_string()
    }

    /// Opens the broker and the result store; makes files if there are none. Must be called on an
    /// event loop.
    pub(super) fn client(&self) -> Result<Client, Error> {
        self.client_to(Access::Create)
    }

    /// As [`App::client`], for one who may leave files as they are.
    pub(super) fn client_to(&self, access: Access) -> Result<Client, Error> {
        let broker = self.settings.broker_url.broker(&self.folder)?;
        let backend = self.settings.result_backend.as_ref();
        let backend = backend.map(|url| url.backend(&self.folder)).transpose()?;
        for url in std::iter::once(&broker.clone().into()).chain(&backend) {
            if let Some(file) = url.file().filter(|_| access == Access::Create) {
                self.may_make(file).map_err(|why| {
                    Error::unavailable(format!("cannot open {url}: {why}")).hint(MAKE)
                })?;
            }
        }
        let options = client::ClientOptions {
            prefix: self.settings.broker_transport_options.global_keyprefix.clone(),
            result_prefix: self.settings.result_backend_transport_options.result_prefix(),
            result_expires: self.settings.result_expires,
            results: self.forms.results.clone(),
            timeout: self.settings.client_timeout,
            access,
        };
        Ok(Client::connect(&broker, backend.as_ref(), &options)?)
    }

    /// May this file be made, with its folder? A folder that is missing elsewhere than in the
    /// application is a slip, or a disk that is not there.
    ///
    /// # Errors
    /// Which folder is missing.
    pub(super) fn may_make(&self, file: &Path) -> Result<(), String> {
        let folder = folder_of(file);
        let climbs = folder.components().any(|part| part == Component::ParentDir);
        if folder.starts_with(&self.folder) && !climbs
            || !files::is_there(folder).is_ok_and(|is_there| !is_there)
        {
            return Ok(());
        }
        Err(format!("there is no folder {}", folder.display()))
    }

    /// Where a task of this name is sent to: its route, its own queue, the default.
    pub(super) fn queue_of(&self, name: &str, task: Option<&Task>) -> String {
        let own = task.and_then(|task| task.queue.as_ref());
        self.settings.task_routes.queue_of(name, own, &self.settings.task_default_queue)
    }

    /// The priority that a task of this name is sent with.
    pub(super) fn priority_of(&self, name: &str, task: Option<&Task>) -> Option<u8> {
        let own = task.and_then(|task| task.priority);
        self.settings.task_routes.priority_of(name, own, self.settings.task_default_priority)
    }

    /// The queues that the application's tasks are sent to, the default one first.
    pub(super) fn queues(&self, tasks: &Set) -> Vec<String> {
        let mut queues = vec![self.settings.task_default_queue.clone()];
        let of_tasks = tasks.iter().map(|task| self.queue_of(&task.name, Some(task)));
        let of_routes = self.settings.task_routes.0.iter().filter_map(|route| route.queue.clone());
        for queue in of_tasks.chain(of_routes) {
            if !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        queues
    }

    /// `name@host` for what the user typed: `%h` host, `%n` name part, `%d` domain, `%%`
    /// percent; a bare word is the host part, as in Celery. `name` if nothing was typed.
    ///
    /// # Errors
    /// Another letter.
    pub(super) fn node_name(typed: Option<&str>, name: &str) -> Result<String, Error> {
        let host = os::host::name();
        let typed = typed.map_or_else(|| format!("{name}@%h"), str::to_string);
        let (name, place) = typed.split_once('@').unwrap_or((name, &typed));
        let domain = host.split_once('.').map_or("", |(_, domain)| domain);
        let meaning = |letter| match letter {
            'h' => Some(&*host),
            'n' => Some(name.trim_matches('%')),
            'd' => Some(domain),
            _ => None,
        };
        names::fill(&format!("{name}@{place}"), "%h, %n, %d or %%", meaning)
            .and_then(|node| names::check(&node).map(|()| node))
            .map_err(|error| Error::usage(format!("--hostname {error}")))
    }
}

fn find(app: Option<&Path>) -> Result<PathBuf, Error> {
    let is_app = |folder: &Path| -> Result<bool, Error> {
        for name in std::iter::once("tasks.d").chain(files::SETTINGS) {
            if files::is_there(&folder.join(name))? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let absolute = |folder: &Path| {
        os::cwd::absolute(folder)
            .map_err(|error| Error::usage(format!("{}: {error}", folder.display())))
    };
    if let Some(typed) = app {
        let folder = absolute(typed)?;
        if is_app(&folder)? {
            return Ok(folder);
        }
        // As a path it would be shown with its password.
        if let Some(address) = typed.to_str().filter(|text| is_address(text)) {
            return Err(Error::usage(format!(
                "--app {}: found an address, expected a folder; -b names the broker",
                redact(address)
            )));
        }
        return Err(Error::usage(format!(
            "--app {}: no application: expected a folder with tasks.d/ or qworker.yaml in it",
            folder.display()
        )));
    }
    let here = absolute(Path::new("."))?;
    for folder in [here, PathBuf::from(SYSTEM)] {
        if is_app(&folder)? {
            return Ok(folder);
        }
    }
    Err(Error::usage(format!(
        "no application: neither the current folder nor {SYSTEM} has tasks.d/ or qworker.yaml"
    ))
    .hint("name its folder with -A, or make one: mkdir tasks.d"))
}
