//! Signals as words of `stop` and `restart`: `-9`, `-KILL`, `-SIGQUIT`.

use nix::sys::signal::Signal;

/// Takes the words that are signals out; the last of them counts.
pub(super) fn take(words: &mut Vec<String>) -> Option<Signal> {
    let mut last = None;
    words.retain(|word| {
        let signal = parse(word);
        last = signal.or(last);
        signal.is_none()
    });
    last
}

fn parse(word: &str) -> Option<Signal> {
    let name = word.strip_prefix('-')?;
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Signal::try_from(name.parse::<i32>().ok()?).ok();
    }
    // In capitals only: `-Q` and `-int` are something else.
    let full = if name.starts_with("SIG") { name.to_string() } else { format!("SIG{name}") };
    full.parse().ok()
}

/// As it is written behind a node: `TERM`.
pub(super) fn name(signal: Signal) -> &'static str {
    signal.as_str().trim_start_matches("SIG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        for (word, signal) in [
            ("-9", Some(Signal::SIGKILL)),
            ("-12", Some(Signal::SIGUSR2)),
            ("-KILL", Some(Signal::SIGKILL)),
            ("-SIGQUIT", Some(Signal::SIGQUIT)),
            ("-INT", Some(Signal::SIGINT)),
            ("-int", None),
            ("-Q", None),
            ("--", None),
            ("-", None),
            ("-99", None),
            ("9", None),
        ] {
            assert_eq!(parse(word), signal, "{word}");
        }
        let mut words = ["a", "-9", "-c", "3", "-TERM"].map(String::from).to_vec();
        assert_eq!(take(&mut words), Some(Signal::SIGTERM));
        assert_eq!(words, ["a", "-c", "3"]);
    }
}
