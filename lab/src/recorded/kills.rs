//! A recorder that is killed at any moment leaves what happened until a second before.

use std::{path::Path, thread, time::Duration};

use rustix::process::Signal;

use super::{asking, dump, findings, start};
use crate::{cells::judged, load, report::Cell, sys, tracer::OneMethodArgs};

/// Queries per second meanwhile.
const RATE: u64 = 500;
/// The most that a kill may cost, nanoseconds: a second, and what the load itself was late.
const LOST_NS_MAX: u64 = 1_000_000_000 + 100_000_000;

/// Kills it that often, at moments that differ, in one folder.
pub(super) fn run(tried: &OneMethodArgs, folder: &Path, kills: u32) -> anyhow::Result<Cell> {
    let capture = folder.with_extension("dump");
    let mut wrong = Vec::new();
    let mut most_ns = 0;
    // Odd steps visit all remainders.
    let moments = (0..kills).map(|number| 150 + u64::from(number) * 1_237 % 1_900);
    for moment_ms in moments {
        let tracer = start(tried, folder, "1M", &["--cap", "0"])?;
        let seconds = Duration::from_millis(moment_ms + 200).as_secs_f64();
        let load = thread::spawn(move || load::ask(&asking(RATE, seconds)));
        thread::sleep(Duration::from_millis(moment_ms));
        let killed_ns = sys::boottime_ns();
        tracer.signal(Signal::KILL)?;
        let _killed = tracer.stop(Signal::KILL)?;
        let _asked = load
            .join()
            .map_err(|_panic| anyhow::anyhow!("the load panicked"))??;
        let read = dump(tried, folder, None, &capture).and_then(|_| findings(tried, &capture));
        match read {
            Err(why) => wrong.push(format!("killed after {moment_ms} ms: {why:#}")),
            Ok(all) => {
                let last_ns = all.iter().map(|it| it.0).max().unwrap_or(0);
                // The load begins a little later than this thread sleeps.
                let begun_ns = killed_ns - moment_ms * 1_000_000;
                let lost_ns = killed_ns.saturating_sub(last_ns.max(begun_ns));
                most_ns = most_ns.max(lost_ns);
                if lost_ns > LOST_NS_MAX {
                    wrong.push(format!(
                        "killed after {moment_ms} ms: {lost_ns} ns are lost"
                    ));
                }
            }
        }
    }
    let got = format!("{kills} kills, at most {} ms lost", most_ns / 1_000_000);
    let want = "readable, at most the last second lost";
    Ok(judged("recorded-killed", &tried.attach, want, &got, wrong))
}
