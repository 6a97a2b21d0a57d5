//! The layers of settings: defaults, then files, then the environment, then the command
//! line. Every mistake of every layer is reported in one run; a wrong value leaves the
//! one below it in force, so that the rest can be checked.

use super::celery;
use super::celery_values::{self, ValueSupport};
use super::diagnostic::{Diagnostic, Faults};
use super::node::{Data, YamlKey, YamlNode};
use super::settings::{Setting, SettingSource, Settings, TABLE, entry};
use super::yaml;

/// An option of the command line that sets a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// As the user knows it, `--concurrency`.
    pub option: String,
    /// The setting, `worker_concurrency`.
    pub setting: String,
    /// The text behind the option.
    pub value: String,
}

/// Words that other programs have for our settings, and what belongs elsewhere; no distance of
/// letters finds them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("entries", "beat_schedule, or a file schedule.yaml with entries in it"),
    ("schedule", "beat_schedule, or a file schedule.yaml with entries in it"),
    ("concurrency", "worker_concurrency"),
    ("queues", "the option --queues (-Q) of qworker worker, or QWORKER_WORKER_QUEUES"),
    ("queue", "task_default_queue"),
    ("default_queue", "task_default_queue"),
    ("routes", "task_routes"),
    ("broker", "broker_url"),
    ("backend", "result_backend"),
    ("loglevel", "the option --loglevel (-l) of qworker worker, or QWORKER_WORKER_LOGLEVEL"),
    ("log_level", "the option --loglevel (-l) of qworker worker, or QWORKER_WORKER_LOGLEVEL"),
    ("logfile", "the option --logfile (-f) of qworker worker, or QWORKER_WORKER_LOGFILE"),
    ("hostname", "the option --hostname (-n) of qworker worker, or QWORKER_WORKER_HOSTNAME"),
    ("env", "task_env"),
    ("environment", "task_env"),
    ("time_limit", "task_time_limit"),
    ("soft_time_limit", "task_soft_time_limit"),
    ("rate_limit", "task_default_rate_limit"),
    ("tasks", "files of tasks.d, such as tasks.d/tasks.yaml"),
];

/// What the settings are made from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layers<'a> {
    /// Name and text of settings files; later ones win.
    pub files: &'a [(&'a str, &'a str)],
    /// Variables of the environment, all of them or those that begin with `QWORKER_`.
    pub environment: &'a [(String, String)],
    /// Options; later ones win.
    pub command_line: &'a [Given],
}

impl Settings {
    /// Reads all layers. The settings are usable whatever was wrong; whether to go on
    /// with them is the caller's decision.
    pub fn load(layers: Layers<'_>) -> (Settings, Vec<Diagnostic>) {
        let mut settings = Settings::default();
        let mut found = Vec::new();
        for (name, text) in layers.files {
            settings.read_file(name, text, &mut found);
        }
        settings.read_environment(layers.environment, &mut found);
        settings.read_command_line(layers.command_line, &mut found);
        settings.check_rules(&mut found);
        (settings, found)
    }

    fn read_file(&mut self, name: &str, text: &str, found: &mut Vec<Diagnostic>) {
        let (root, broken) = yaml::parse(name, text);
        let mut faults = Faults::new(name);
        faults.extend(broken);
        let Some(root) = root else { return found.extend(faults.into_vec()) };
        match &root.data {
            Data::Map(map) => {
                // What stands there by its new name wins over an old one, and that is told.
                let mut seen: Vec<&str> =
                    map.iter().filter_map(|(key, _)| entry(&key.text)).map(|e| e.name).collect();
                for (key, value) in map {
                    let origin = SettingSource::File { file: name.into(), line: key.line };
                    faults.within(&key.text, |faults| match entry(&key.text) {
                        Some(entry) => self.set(entry, value, origin, faults),
                        None => self.strange(key, value, origin, &mut seen, faults),
                    });
                }
            }
            _ if root.is_null() => {}
            _ => faults.mismatch(root.line, root.found_kind(), "a mapping of settings"),
        }
        found.extend(faults.into_vec());
    }

    fn read_environment(&mut self, environment: &[(String, String)], found: &mut Vec<Diagnostic>) {
        let mut faults = Faults::new("environment");
        for entry in TABLE {
            for name in variables(entry.name) {
                // An empty variable is one that was unset with the means of a compose file.
                let given = environment
                    .iter()
                    .find(|(variable, text)| *variable == name && !text.is_empty());
                if let Some((_, text)) = given {
                    let origin = SettingSource::Environment(name.clone());
                    faults.within(&name, |faults| self.set_text(entry, text, origin, faults));
                }
            }
        }
        found.extend(faults.into_vec());
    }

    fn read_command_line(&mut self, given: &[Given], found: &mut Vec<Diagnostic>) {
        let mut faults = Faults::new("command line");
        for Given { option, setting, value } in given {
            faults.within(option, |faults| match entry(setting) {
                Some(entry) => {
                    self.set_text(entry, value, SettingSource::CommandLine(option.clone()), faults)
                }
                None => {
                    let key = YamlKey { line: 0, text: setting.clone() };
                    let origin = SettingSource::CommandLine(option.clone());
                    self.strange(&key, &YamlNode::bare(value), origin, &mut Vec::new(), faults);
                }
            });
        }
        found.extend(faults.into_vec());
    }

    /// Sets from text that is no file: YAML where the setting is a mapping, else the bare text.
    fn set_text(
        &mut self,
        entry: &Setting,
        text: &str,
        origin: SettingSource,
        faults: &mut Faults,
    ) {
        if !entry.nested {
            return self.set(entry, &YamlNode::bare(text), origin, faults);
        }
        let (node, broken) = yaml::parse("", text);
        for fault in broken {
            faults.add(0, fault.message);
        }
        if let Some(node) = node {
            self.set(entry, &without_lines(node), origin, faults);
        }
    }

    fn set(
        &mut self,
        entry: &Setting,
        value: &YamlNode,
        origin: SettingSource,
        faults: &mut Faults,
    ) {
        if (entry.read)(self, value, faults) {
            self.origins.insert(entry.name, origin);
        }
    }

    /// A name that is none of our settings: an old one of such, one of Celery's, or a slip.
    fn strange<'a>(
        &mut self,
        key: &'a YamlKey,
        value: &YamlNode,
        origin: SettingSource,
        seen: &mut Vec<&'a str>,
        faults: &mut Faults,
    ) {
        let old = celery::new_name(&key.text);
        let name = old.unwrap_or(&key.text);
        if let (Some(entry), Some(_)) = (entry(name), old) {
            if seen.contains(&name) {
                faults.add(key.line, format!("is an old name of {name}, which is here too"));
                return;
            }
            seen.push(entry.name);
            faults.note(key.line, format!("is an old name of {name}"));
            return self.set(entry, value, origin, faults);
        }
        let old = old.map_or(String::new(), |new| format!("is an old name of {new}, which "));
        let lower = name.to_ascii_lowercase();
        if let Some((_, ours)) = ELSEWHERE.iter().find(|(known, _)| *known == lower) {
            faults.add(key.line, "unknown setting").hint = Some(ours.to_string());
            return;
        }
        let Some(fate) = celery::fate(name) else {
            return faults.unknown(key.line, "setting", name, TABLE.iter().map(|entry| entry.name));
        };
        match celery_values::verdict(name, fate, value) {
            ValueSupport::Honoured => {}
            ValueSupport::Harmless(why) => faults.note(key.line, format!("{old}{why}")),
            ValueSupport::Refused(why) => {
                faults.add(key.line, format!("{old}{why}"));
            }
        }
    }
}

/// The variables that set a setting; the last wins. `QWORKER_BROKER` is the variable of
/// the option `--broker` and therefore the stronger one, as in Celery.
pub fn variables(setting: &str) -> Vec<String> {
    let mut names = vec![format!("QWORKER_{}", setting.to_ascii_uppercase())];
    if setting == "broker_url" {
        names.push("QWORKER_BROKER".into());
    }
    names
}

/// Lines of a text that is no file mean nothing to a reader.
fn without_lines(node: YamlNode) -> YamlNode {
    let data = match node.data {
        Data::List(list) => Data::List(list.into_iter().map(without_lines).collect()),
        Data::Map(map) => {
            let plain = |(key, value)| (YamlKey { line: 0, ..key }, without_lines(value));
            Data::Map(map.into_iter().map(plain).collect())
        }
        scalar => scalar,
    };
    YamlNode { line: 0, data, ..node }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lines(found: &[Diagnostic]) -> Vec<String> {
        found.iter().map(Diagnostic::to_string).collect()
    }

    fn load_file(text: &str) -> (Settings, Vec<String>) {
        let (settings, found) =
            Settings::load(Layers { files: &[("q.yaml", text)], ..Layers::default() });
        (settings, lines(&found))
    }

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn given(option: &str, setting: &str, value: &str) -> Given {
        Given { option: option.into(), setting: setting.into(), value: value.into() }
    }

    #[test]
    fn a_later_layer_wins_and_each_value_knows_its_origin() {
        let environment = vars(&[
            ("QWORKER_TASK_TIME_LIMIT", "1h30m"),
            ("QWORKER_BROKER", "sqlite:///b.sqlite"),
            ("QWORKER_BROKER_URL", "sqlite:///a.sqlite"),
            ("QWORKER_TASK_DEFAULT_QUEUE", "123"),
            ("QWORKER_TASK_TRACK_STARTED", "1"),
            ("QWORKER_TASK_ENV", "{A: 1, B: two}"),
            ("QWORKER_RESULT_EXPIRES", ""),
            ("QWORKER_TASK_ID", "inherited by tasks"),
            ("HOME", "/"),
        ]);
        let command_line = [
            given("--concurrency", "worker_concurrency", "4"),
            given("-c", "worker_concurrency", "5"),
        ];
        let (settings, found) = Settings::load(Layers {
            files: &[
                ("one.yaml", "worker_concurrency: 2\nresult_expires: 5m\n"),
                ("two.yaml", "\nresult_expires: 0\nwasm_memory: 1.5G\n"),
            ],
            environment: &environment,
            command_line: &command_line,
        });
        assert_eq!(lines(&found), [""; 0]);
        assert_eq!(settings.worker_concurrency, Some(5));
        assert_eq!(settings.origin("worker_concurrency").to_string(), "-c");
        assert_eq!(settings.result_expires, None);
        assert_eq!(settings.origin("result_expires").to_string(), "two.yaml:2");
        assert_eq!(settings.wasm_memory, 3 << 29);
        assert_eq!(settings.task_time_limit, Some(Duration::from_secs(5400)));
        assert_eq!(settings.origin("task_time_limit").to_string(), "QWORKER_TASK_TIME_LIMIT");
        assert_eq!(settings.broker_url.reveal(), "sqlite:///b.sqlite");
        assert_eq!(settings.task_default_queue, "123");
        assert!(settings.task_track_started);
        assert_eq!(settings.task_env, vars(&[("A", "1"), ("B", "two")]));
        assert_eq!(settings.origin("task_max_output"), &SettingSource::Default);
    }

    #[test]
    fn all_mistakes_of_all_layers_are_found_in_one_run_and_the_rest_holds() {
        let text = "worker_concurency: 4\ntask_time_limit: soon\nworker_pool: solo\nBROKER_URL: x\n\
                    beat_enable_remote_control: true\ntask_max_deliveries: 0\ntask_env: {A: [1], 'B=': 2}\n\
                    wasm_memory: 64M\nwasm_memory: 65M\nbroker_url: redis:/u:pw@h\nCELERYD_POOL: x\n";
        let command_line =
            [given("--time-limit", "task_time_limit", "-3"), given("--x", "xyzzy", "")];
        let (settings, found) = Settings::load(Layers {
            files: &[("q.yaml", text)],
            environment: &vars(&[
                ("QWORKER_WORKER_CONCURRENCY", "many"),
                ("QWORKER_TASK_ENV", "{"),
            ]),
            command_line: &command_line,
        });
        let pool = "means nothing here: each task runs in a process or WASM instance of its own, \
                    there is no pool to choose";
        let limit = "expected a duration above 0 and up to 36500d: seconds, or words such as 90s, \
                     5m, 1h30m, 1d";
        let found = lines(&found);
        let expected = [
            "q.yaml:1: worker_concurency: unknown setting; did you mean worker_concurrency?"
                .to_string(),
            format!("q.yaml:2: task_time_limit: found text \"soon\", {limit}"),
            format!("q.yaml:3: worker_pool: {pool}"),
            "q.yaml:4: BROKER_URL: is an old name of broker_url, which is here too".into(),
            "q.yaml:5: beat_enable_remote_control: is not supported by this version".into(),
            "q.yaml:6: task_max_deliveries: found 0, expected a whole number from 1".into(),
            "q.yaml:7: task_env.A: found a list, expected text".into(),
            "q.yaml:7: task_env.B=: a variable's name is not empty and has no = in it".into(),
            "q.yaml:9: wasm_memory: is here twice, first on line 8".into(),
            "q.yaml:10: broker_url: found text \"**\", expected a URL such as \
             sqlite:///var/qworker.sqlite or redis://host:6379/0"
                .into(),
            format!("q.yaml:11: CELERYD_POOL: is an old name of worker_pool, which {pool}"),
        ];
        assert_eq!(found[..expected.len()], expected);
        let rest = &found[expected.len()..];
        assert!(rest[0].starts_with("environment: QWORKER_TASK_ENV: column "), "{rest:?}");
        assert!(rest[1].starts_with(
            "environment: QWORKER_WORKER_CONCURRENCY: found text \"many\", expected a whole"
        ));
        assert_eq!(rest[2], format!("command line: --time-limit: found text \"-3\", {limit}"));
        assert_eq!(rest[3], "command line: --x: unknown setting");
        assert_eq!(rest.len(), 4);
        assert_eq!(settings.wasm_memory, 64 << 20);
        assert_eq!(settings.task_max_deliveries, 5);
    }

    /// As people bring them along from Python, in lower case and in upper case.
    #[test]
    fn settings_of_python_programs_are_read_as_they_are() {
        let (settings, found) = load_file(
            "BROKER_URL: redis://h/0\nCELERY_RESULT_BACKEND: redis://h/1\nCELERY_TASK_SERIALIZER: json\n\
             CELERY_ACCEPT_CONTENT: [json]\nCELERY_RESULT_SERIALIZER: json\nCELERY_TIMEZONE: Europe/Oslo\n\
             CELERY_ENABLE_UTC: true\nCELERYD_PREFETCH_MULTIPLIER: 1\nCELERY_ACKS_LATE: true\n\
             CELERY_IGNORE_RESULT: false\nCELERYD_CONCURRENCY: 3\nCELERY_TASK_RESULT_EXPIRES: 3600\n\
             CELERYBEAT_SCHEDULE: {a: {task: t, schedule: 5}}\nCELERY_IMPORTS: [shop.tasks]\n\
             CELERY_DEFAULT_QUEUE: shop\nbroker_transport_options: {visibility_timeout: 3600, \
             socket_timeout: 30, max_retries: 3, fanout_prefix: true, priority_steps: [0, 3, 6, 9]}\n\
             result_backend_transport_options: {visibility_timeout: 18000, retry_policy: {timeout: 5.0}}\n",
        );
        let mistakes =
            |line: &&String| !line.contains("old name") && !line.contains("means nothing");
        assert_eq!(found.iter().filter(mistakes).collect::<Vec<_>>(), Vec::<&String>::new());
        // What another client would do with its connection is told, and what is so anyway is not.
        let told: Vec<&str> = found
            .iter()
            .filter_map(|line| line.split_once("_transport_options.")?.1.split_once(": means"))
            .map(|(option, _)| option)
            .collect();
        assert_eq!(told, ["socket_timeout", "max_retries", "visibility_timeout", "retry_policy"]);
        assert_eq!(settings.broker_url.reveal(), "redis://h/0");
        assert_eq!((settings.worker_concurrency, &*settings.task_default_queue), (Some(3), "shop"));
        assert_eq!(settings.result_expires, Some(Duration::from_secs(3600)));
        assert_eq!(settings.origin("beat_schedule").to_string(), "q.yaml:13");
        // Options that only the store behind another broker has.
        let wrong =
            load_file("broker_transport_options: {master_name: x, queue_order_strategy: sorted}").1;
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }

    #[test]
    fn words_of_other_programs_lead_to_ours() {
        for (name, ours) in ELSEWHERE {
            assert!(entry(name).is_none() && celery::fate(name).is_none(), "{name}");
            let found = load_file(&format!("{name}: x\n")).1;
            let expected = format!("q.yaml:1: {name}: unknown setting; did you mean {ours}?");
            assert_eq!(found, [expected], "{name}");
        }
        let found = load_file("BROKER: x\n").1;
        assert_eq!(found, ["q.yaml:1: BROKER: unknown setting; did you mean broker_url?"]);
    }

    #[test]
    fn limits_fit_together_across_layers() {
        let (settings, found) = Settings::load(Layers {
            files: &[("q.yaml", "task_soft_time_limit: 60\n")],
            command_line: &[given("--time-limit", "task_time_limit", "60")],
            ..Layers::default()
        });
        assert_eq!(
            lines(&found),
            ["q.yaml:1: task_soft_time_limit: must be shorter than task_time_limit (--time-limit)"]
        );
        assert_eq!(
            (settings.task_soft_time_limit, settings.origin("task_soft_time_limit")),
            (None, &SettingSource::Default)
        );
    }

    #[test]
    fn files_that_are_no_mapping() {
        for text in ["", "# nothing\n", "---\n", "null\n"] {
            assert_eq!(load_file(text).1, [""; 0], "{text:?}");
        }
        assert_eq!(load_file("[a]").1, ["q.yaml:1: found a list, expected a mapping of settings"]);
        assert_eq!(load_file("a: 1\n---\nb: 2\n").1.len(), 1);
        let broken = load_file("task_env:\n  a: 1\n b: 2\n").1;
        assert!(broken.len() == 1 && broken[0].starts_with("q.yaml:3: column "), "{broken:?}");
    }

    /// Whatever the layers hold, loading ends, and what is in force can be shown and read again.
    #[test]
    fn any_text_loads_or_is_refused() {
        let values = [
            "5",
            "-1",
            "0",
            "null",
            "true",
            "'x'",
            "90s",
            "1.5G",
            "10/s",
            "{a: b}",
            "{'*': {queue: q, priority: 3}}",
            "[x]",
            "redis://u:p@h",
            "&x y",
            "*x",
            "{",
            "\u{0}",
            "é",
            "",
            "1e300",
            "~",
        ];
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..5_000 {
            let mut value = || values[random.usize(..values.len())];
            let text: String =
                TABLE.iter().map(|entry| format!("{}: {}\n", entry.name, value())).collect();
            // A few lines, for one broken line loses the file.
            let text: Vec<&str> = text.lines().filter(|_| value().len() < 3).collect();
            let environment: Vec<_> = TABLE
                .iter()
                .map(|entry| (variables(entry.name).remove(0), value().to_string()))
                .collect();
            let (settings, _) = Settings::load(Layers {
                files: &[("q.yaml", &text.join("\n"))],
                environment: &environment,
                command_line: &[given("--x", TABLE[3].name, value())],
            });
            assert_eq!(settings.report().len(), TABLE.len());
            let again: String = TABLE
                .iter()
                .map(|entry| format!("{}: {}\n", entry.name, (entry.write)(&settings)))
                .collect();
            let (read, found) = load_file(&again);
            assert_eq!(found, [""; 0], "{again}");
            for entry in TABLE {
                assert_eq!((entry.write)(&read), (entry.write)(&settings), "{}", entry.name);
            }
        }
    }
}
