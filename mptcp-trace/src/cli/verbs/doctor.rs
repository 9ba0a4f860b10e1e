//! `mptcp-trace doctor`: what works on this host, verified by a self-test.

use anyhow::Context as _;

use crate::{
    cli::{CANNOT_ANSWER, DONE, Exit, args::DoctorArgs, examine::report, print, terminal},
    sink::without_error_numbers,
};

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &DoctorArgs, verbose: u8) -> Result<u8, Exit> {
    let report = report(&args.attach.options(), args.break_sensor, verbose)?;
    if args.json {
        let json = serde_json::to_string(&report).context("cannot write the report")?;
        print(&format!("{}\n", without_error_numbers(&json)))?;
    } else {
        print(&without_error_numbers(&report.text(terminal::columns())))?;
    }
    Ok(if report.works { DONE } else { CANNOT_ANSWER })
}
