//! An application that queries at a fixed rate: its threads query in bursts, one per millisecond,
//! or as fast as possible.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::bench::{Call, Caller};
use crate::{lines::write_line, side_by_side};

/// Interval of the bursts.
const BURST: Duration = Duration::from_millis(1);
/// Queries between two checks of the clock, without a rate.
const BETWEEN_LOOKS: u64 = 256;

/// Arguments of `mptcp-lab load-asker`.
#[derive(clap::Args, Clone)]
pub struct Args {
    /// Querying threads
    #[arg(long, default_value_t = 2)]
    pub threads: u32,
    /// Queries per second, all threads together; 0: as fast as possible
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Duration in seconds
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Maximum number of queries per thread
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    pub queries: u64,
    /// Create FILE when the queries start
    #[arg(long, value_name = "FILE")]
    pub begun: Option<PathBuf>,
}

/// Result of a load.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Asked {
    /// Number of queries.
    pub asked: u64,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Asked {
    /// Queries per second.
    pub fn rate(self) -> f64 {
        self.asked as f64 / self.seconds
    }
}

/// Runs the application, and prints the result as a JSON line.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(file) = &args.begun {
        std::fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
    }
    write_line(&mut std::io::stdout(), &ask(args)?)
}

/// Makes the queries in threads of this process.
pub fn ask(args: &Args) -> anyhow::Result<Asked> {
    ensure!(args.threads > 0, "no threads to query with");
    let start = Instant::now();
    let asked = side_by_side::all(0..args.threads, |_thread| one_thread(args))?;
    Ok(Asked {
        asked: asked.into_iter().sum(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn one_thread(args: &Args) -> anyhow::Result<u64> {
    let caller = Caller::new(Call::IsMptcp)?;
    let start = Instant::now();
    let limit = Duration::from_secs_f64(args.seconds);
    let mut asked = 0;
    loop {
        let elapsed = start.elapsed().min(limit);
        let is_over = elapsed == limit;
        let burst = match args.rate {
            0 if is_over => 0,
            0 => BETWEEN_LOOKS,
            rate => due(rate, args.threads, elapsed) - asked,
        };
        let burst = burst.min(args.queries - asked);
        let _time = caller.batch(u32::try_from(burst).unwrap_or(u32::MAX));
        asked += burst;
        if is_over || asked == args.queries {
            return Ok(asked);
        }
        if args.rate > 0 {
            std::thread::sleep(BURST);
        }
    }
}

/// Queries due from one thread after this time.
fn due(rate: u64, threads: u32, elapsed: Duration) -> u64 {
    (rate as f64 / f64::from(threads) * elapsed.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_a_rate() {
        assert_eq!(due(200_000, 2, Duration::from_millis(10)), 1_000);
        assert_eq!(due(10_000, 1, Duration::from_secs(10)), 100_000);
        assert_eq!(due(10_000, 3, Duration::ZERO), 0);
    }
}
