//! Steps of the wall clock, and their reversal. A separate process makes each step: it restores the
//! clock even if its parent dies.

use std::{os::unix::process::CommandExt as _, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::{process::own, sys};

/// How long a step lasts.
const WRONG_FOR: Duration = Duration::from_secs(2);
/// Tolerance when checking that the clock was restored.
const SLACK_NS: i128 = 500_000_000;

/// Arguments of the clock step.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Step in seconds; negative steps back
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) by_s: i64,
}

/// Steps the wall clock for two seconds. The monotonic clock, which cannot be set, serves to
/// restore it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // An interrupted run must wait until the clock is restored.
    sys::ignore_signals(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE]);
    let right = epoch();
    set(right + i128::from(args.by_s) * 1_000_000_000)?;
    std::thread::sleep(WRONG_FOR);
    set(right)
}

/// Makes one step and its reversal, and verifies the result.
pub(super) fn step(by_s: i64) -> anyhow::Result<()> {
    let right = epoch();
    let stepped = own("clock-step")?
        .args(["--by-s", &by_s.to_string()])
        .stdout(Stdio::null())
        // A terminal sends SIGINT to a whole process group.
        .process_group(0)
        .status();
    if (epoch() - right).abs() > SLACK_NS {
        set(right)?;
        anyhow::bail!("the clock was left wrong; it has been restored");
    }
    let status = stepped.context("cannot start the clock-step process")?;
    ensure!(status.success(), "the clock cannot be set: {status}");
    Ok(())
}

/// Wall clock time at which the monotonic clock was zero, nanoseconds.
pub(super) fn epoch() -> i128 {
    nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> i128 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    i128::from(tv_sec) * 1_000_000_000 + i128::from(tv_nsec)
}

fn set(epoch: i128) -> anyhow::Result<()> {
    let now = epoch + nanoseconds(ClockId::Monotonic);
    let time = Timespec {
        tv_sec: i64::try_from(now.div_euclid(1_000_000_000)).context("no such time")?,
        tv_nsec: i64::try_from(now.rem_euclid(1_000_000_000)).context("no such time")?,
    };
    clock_settime(ClockId::Realtime, time).context("cannot set the clock (CAP_SYS_TIME)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_stays_where_it_is_while_time_passes() {
        let before = epoch();
        std::thread::sleep(Duration::from_millis(20));
        assert!((epoch() - before).abs() < 10_000_000);
    }
}
