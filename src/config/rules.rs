//! The rules between settings.

use super::diagnostic::{Diagnostic, Weight};
use super::forms::AUTH;
use super::settings::{SettingSource, Settings, entry};

impl Settings {
    /// Reports what does not go together, and resets what would do harm.
    pub(super) fn check_rules(&mut self, found: &mut Vec<Diagnostic>) {
        self.check_limits(found);
        self.check_keys(found);
        self.check_forms(found);
    }

    /// A mistake in this setting, where it was set.
    pub fn fault(&self, name: &str, message: impl Into<String>) -> Diagnostic {
        let (file, line, key) = match self.origin(name) {
            SettingSource::File { file, line } => (&**file, Some(*line), name),
            SettingSource::Environment(variable) => ("environment", None, &**variable),
            SettingSource::CommandLine(option) => ("command line", None, &**option),
            SettingSource::Default => ("settings", None, name),
        };
        Diagnostic::new(file, line, message).of_key(key)
    }

    /// A soft limit at or above the hard one would never be felt.
    fn check_limits(&mut self, found: &mut Vec<Diagnostic>) {
        let (Some(soft), Some(hard)) = (self.task_soft_time_limit, self.task_time_limit) else {
            return;
        };
        if soft < hard {
            return;
        }
        let name = "task_soft_time_limit";
        let why =
            format!("must be shorter than task_time_limit ({})", self.origin("task_time_limit"));
        found.push(self.fault(name, why));
        self.reset(name);
    }

    /// Puts the default back.
    fn reset(&mut self, name: &str) {
        if let Some(entry) = entry(name) {
            (entry.reset)(self);
            self.origins.remove(name);
        }
    }

    /// What signs needs a key and its certificate, and what verifies needs those of others.
    fn check_keys(&mut self, found: &mut Vec<Diagnostic>) {
        let signs = self.security_key.is_some() && self.security_certificate.is_some();
        for (name, value) in [
            ("task_serializer", &self.task_serializer),
            ("result_serializer", &self.result_serializer),
        ] {
            if value == AUTH && !signs {
                let why = "auth needs the settings security_key and security_certificate";
                found.push(self.fault(name, why));
            }
        }
        for (name, value) in [
            ("accept_content", Some(&self.accept_content)),
            ("result_accept_content", self.result_accept_content.as_ref()),
        ] {
            let has_auth = value.is_some_and(|all| all.iter().any(|one| one == AUTH));
            if has_auth && self.security_cert_store.is_none() {
                found.push(self.fault(name, "auth needs the setting security_cert_store"));
            }
        }
        let alone = match (&self.security_key, &self.security_certificate) {
            (Some(_), None) => Some(("security_key", "security_certificate")),
            (None, Some(_)) => Some(("security_certificate", "security_key")),
            _ => None,
        };
        if let Some((name, other)) = alone {
            found.push(self.fault(name, format!("needs the setting {other} too")));
            self.reset(name);
        }
    }

    /// What would not be read where it is written, and signatures that nobody needs.
    fn check_forms(&self, found: &mut Vec<Diagnostic>) {
        let mut note = |name: &str, why: String| {
            found.push(Diagnostic { weight: Weight::Note, ..self.fault(name, why) });
        };
        let reads = |all: &[String], one: &str| all.iter().any(|known| known == one);
        let accept = &self.accept_content;
        if !reads(accept, &self.task_serializer) {
            let why = format!(
                "a worker with these settings refuses these messages: accept_content has {}",
                accept.join(", ")
            );
            note("task_serializer", why);
        }
        let results = self.result_accept_content.as_ref().unwrap_or(accept);
        if !reads(results, &self.result_serializer) {
            let why = format!(
                "these results are not read with these settings: result_accept_content has {}",
                results.join(", ")
            );
            note("result_serializer", why);
        }
        if reads(accept, AUTH) && accept.len() > 1 {
            let why = "messages without a signature are accepted too; expected [auth]";
            note("accept_content", why.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layers, Settings};

    fn load(text: &str) -> (Settings, Vec<String>) {
        let layers = Layers { files: &[("q.yaml", text)], ..Layers::default() };
        let (settings, found) = Settings::load(layers);
        (settings, found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_every_tutorial_has_is_taken() {
        let text = "task_serializer: json\nresult_serializer: json\naccept_content: [json]\n\
                    enable_utc: true\ntimezone: Europe/Oslo\ntask_compression: gzip\n\
                    result_compression: null\nresult_accept_content: [json]\n";
        let (settings, found) = load(text);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(settings.task_compression.as_deref(), Some("gzip"));
    }

    #[test]
    fn what_is_written_and_not_read_is_told() {
        let (_, found) = load("task_serializer: pickle\nresult_serializer: yaml\n");
        let expected = [
            "q.yaml:1: task_serializer: a worker with these settings refuses these messages: \
             accept_content has json",
            "q.yaml:2: result_serializer: these results are not read with these settings: \
             result_accept_content has json",
        ];
        assert_eq!(found, expected);
        let (_, found) = load("task_serializer: pickle\naccept_content: [json, pickle]\n");
        assert!(found.is_empty(), "{found:?}");
    }

    #[cfg(feature = "auth")]
    #[test]
    fn auth_needs_keys() {
        let (_, found) = load("task_serializer: auth\naccept_content: [auth]\nsecurity_key: k\n");
        let expected = [
            "q.yaml:1: task_serializer: auth needs the settings security_key and \
             security_certificate",
            "q.yaml:2: accept_content: auth needs the setting security_cert_store",
            "q.yaml:3: security_key: needs the setting security_certificate too",
        ];
        assert_eq!(found[..3], expected);
        let all = "security_key: k\nsecurity_certificate: c\nsecurity_cert_store: d\n";
        let (settings, found) = load(&format!("{all}accept_content: [auth, json]\n"));
        let expected = "q.yaml:4: accept_content: messages without a signature are accepted too; \
                        expected [auth]";
        assert_eq!(found, [expected]);
        assert_eq!(settings.security_digest, "sha256");
    }

    #[test]
    fn a_password_is_not_shown() {
        let (settings, found) = load("security_key_password: 12345\n");
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(settings.security_key_password.as_deref(), Some("12345"));
        let rows = settings.report();
        let row = rows.iter().find(|row| row.name == "security_key_password").unwrap();
        assert_eq!(row.value, "'********'");
        let (_, found) = load("security_key_password: [hush]\n");
        assert!(!found[0].contains("hush"), "{found:?}");
    }
}
