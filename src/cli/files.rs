//! Reads what an application is made of, and hands its text to those who understand it.

use super::exit::Error;
use crate::config::{Diagnostic, Given, Layers, Settings};
use crate::task::Task;
use std::path::Path;

/// The settings of the application in `folder`, and what is wrong with them.
///
/// # Errors
/// There is a settings file that cannot be read.
pub(super) fn settings(
    folder: &Path,
    options: &[Given],
) -> Result<(Settings, Vec<Diagnostic>), Error> {
    let path = folder.join("qworker.yaml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::usage(format!("{}: {error}", path.display()))),
    };
    let name = path.display().to_string();
    let files: Vec<(&str, &str)> = text.iter().map(|text| (name.as_str(), text.as_str())).collect();
    // What is no text cannot be a setting of ours.
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("QWORKER_"))
        .collect();
    let layers = Layers { files: &files, environment: &environment, command_line: options };
    Ok(Settings::load(layers))
}

/// The tasks of the application in `folder`, and what is wrong with the others.
pub(super) fn tasks(_folder: &Path) -> (Vec<Task>, Vec<Diagnostic>) {
    (vec![], vec![])
}
