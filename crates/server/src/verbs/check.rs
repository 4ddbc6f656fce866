//! `headwater check`: says what is wrong with a configuration without starting anything.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::Serve;
use crate::config::{ConfigError, Sources, check_files, load};

/// 0 when it can be started, 1 when not.
pub(crate) fn run(options: &Serve, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let sources = Sources::of_process(options.config.as_deref(), &options.set);
    let loaded = load(&sources).and_then(|loaded| {
        check_files(&loaded.config, &sources)?;
        Ok(loaded)
    });
    match loaded {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            let flows = &loaded.flows;
            write!(
                out,
                "ok: {} routes, {} delivers, {} sinks",
                flows.routes().len(),
                flows.delivers().len(),
                flows.sinks().len()
            )?;
            match loaded.config.permission.len() {
                0 => writeln!(out)?,
                count => writeln!(out, ", {count} permissions")?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ ConfigError::Read { .. }) => Err(error.into()),
        Err(ConfigError::Invalid(diagnostics)) => {
            for diagnostic in diagnostics {
                writeln!(out, "{diagnostic}")?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
