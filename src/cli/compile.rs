//! `qworker compile SOURCE TARGET`, hidden: the worker runs it to compile a module where
//! it can be stopped, and where the compiler's memory is not the worker's.

use super::exit::{Error, Exit};
use super::output::ToUser;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    source: PathBuf,
    target: PathBuf,
}

pub(super) fn run(args: &Args, _: ToUser) -> Result<Exit, Error> {
    crate::runner::wasm::compile(&args.source, &args.target).map_err(Error::failure)?;
    Ok(Exit::Ok)
}
