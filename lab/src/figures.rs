//! `mptcp-lab figures`: what tracing costs, next to bpftrace scripts that do the same, in one run.
//!
//! Machines are noisy: every configuration is measured once a round, in turn, and what is reported is the
//! median over the rounds of the difference to the untraced calls of the same round.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::matrix::scratch;

/// Prints a line a query.
const PRINTING: &str = "\
tracepoint:syscalls:sys_enter_getsockopt /args->level == 6 && args->optname == 43/ { @t[tid] = nsecs; }
tracepoint:syscalls:sys_exit_getsockopt /@t[tid]/ {
  printf(\"%d %d %s %d %d\\n\", nsecs, pid, comm, args->ret, nsecs - @t[tid]); delete(@t[tid]); }
";
/// Counts queries by process and result.
const COUNTING: &str = "\
tracepoint:syscalls:sys_enter_getsockopt /args->level == 6 && args->optname == 43/ { @q[tid] = 1; }
tracepoint:syscalls:sys_exit_getsockopt /@q[tid]/ { @[pid, comm, args->ret] = count(); delete(@q[tid]); }
";

/// Longest that a tracer may take to start.
const START_MAX: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// The mptcp-trace to measure
    #[arg(long, value_name = "PATH")]
    pub tracer: PathBuf,
    /// Rounds
    #[arg(long, default_value_t = 7)]
    pub rounds: u32,
    /// Calls in a batch; a round takes the median of its batches
    #[arg(long, default_value_t = 20_000)]
    pub queries: u32,
    /// Leave bpftrace out
    #[arg(long)]
    pub no_bpftrace: bool,
}

/// Something to run beside the asker.
struct Configuration {
    name: &'static str,
    command: Vec<String>,
    /// How it says that it is live.
    ready: Ready,
}

enum Ready {
    /// There is nothing to wait for.
    Nothing,
    /// By this file.
    File(PathBuf),
    /// By a line on stderr or stdout, and then some time.
    Output(PathBuf),
}

#[derive(Default)]
struct Figures {
    traced_ns: Vec<f64>,
    other_ns: Vec<f64>,
    start_ms: Vec<f64>,
    resident_kb: Vec<f64>,
}

/// Measures, and prints a table in Markdown.
///
/// # Errors
///
/// Fails if a tracer does not start.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let configurations = configurations(args)?;
    let mut figures: Vec<Figures> = configurations.iter().map(|_| Figures::default()).collect();
    for round in 0..args.rounds {
        eprintln!("mptcp-lab: round {} of {}", round + 1, args.rounds);
        for (configuration, figures) in configurations.iter().zip(&mut figures) {
            measure(args, configuration, figures)
                .with_context(|| format!("cannot measure {}", configuration.name))?;
        }
    }
    let (base, rest) = figures.split_first().context("nothing was measured")?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| beside the asker | traced query, ns | other option, ns | start, ms | resident, KB |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    writeln!(
        out,
        "| nothing (the call itself) | {:.0} | {:.0} | - | - |",
        median(&base.traced_ns),
        median(&base.other_ns)
    )?;
    for (configuration, figures) in configurations[1..].iter().zip(rest) {
        writeln!(
            out,
            "| {} | +{:.0} | +{:.0} | {:.0} | {:.0} |",
            configuration.name,
            median(&differences(&figures.traced_ns, &base.traced_ns)),
            median(&differences(&figures.other_ns, &base.other_ns)),
            median(&figures.start_ms),
            median(&figures.resident_kb),
        )?;
    }
    let size = fs::metadata(&args.tracer)
        .context("cannot look at the tracer")?
        .len();
    writeln!(out, "\nBinary: {:.1} MB.", size as f64 / 1e6)?;
    for file in [
        "ready",
        "printing.bt",
        "counting.bt",
        "printing.out",
        "counting.out",
    ] {
        let _never_made = fs::remove_file(scratch(file));
    }
    Ok(())
}

fn configurations(args: &Args) -> anyhow::Result<Vec<Configuration>> {
    let ready = scratch("ready");
    let tracer = |name, options: &[&str]| {
        let mut command = vec![args.tracer.display().to_string(), "live".into()];
        command.extend(options.iter().map(|&option| option.to_owned()));
        command.extend(["--ready-file".into(), ready.display().to_string()]);
        Configuration {
            name,
            command,
            ready: Ready::File(ready.clone()),
        }
    };
    let own = std::process::id().to_string();
    let mut configurations = vec![
        Configuration {
            name: "nothing",
            command: Vec::new(),
            ready: Ready::Nothing,
        },
        tracer("mptcp-trace, text", &[]),
        tracer("mptcp-trace, JSON", &["--json"]),
        tracer("mptcp-trace --pid of another process", &["--pid", &own]),
    ];
    if !args.no_bpftrace {
        for (name, script, stem) in [
            ("bpftrace, printing", PRINTING, "printing"),
            ("bpftrace, counting", COUNTING, "counting"),
        ] {
            let file = scratch(&format!("{stem}.bt"));
            fs::write(&file, script).context("cannot write a bpftrace script")?;
            let output = scratch(&format!("{stem}.out"));
            // tracefs for bpftrace alone, as mptcp-trace makes it for itself.
            let shell = format!(
                "[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; \
                 exec bpftrace {}",
                file.display()
            );
            let command = ["unshare", "--mount", "sh", "-c", &shell]
                .map(str::to_owned)
                .to_vec();
            configurations.push(Configuration {
                name,
                command,
                ready: Ready::Output(output),
            });
        }
    }
    Ok(configurations)
}

fn measure(
    args: &Args,
    configuration: &Configuration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let tracer = begin(configuration)?;
    figures.start_ms.push(start.elapsed().as_secs_f64() * 1e3);
    if matches!(configuration.ready, Ready::Output(_)) {
        // It says that it is attaching, not that it has attached.
        std::thread::sleep(Duration::from_millis(1500));
    }
    figures.traced_ns.push(ask(args, "is-mptcp")?);
    figures.other_ns.push(ask(args, "other")?);
    if let Some(mut tracer) = tracer {
        let status = fs::read_to_string(format!("/proc/{}/status", tracer.id()));
        let resident = status.ok().and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<f64>().ok()
        });
        figures.resident_kb.extend(resident);
        let pid = rustix::process::Pid::from_child(&tracer);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        tracer.wait()?;
    }
    Ok(())
}

/// Starts a tracer and waits until it says that it is live.
fn begin(configuration: &Configuration) -> anyhow::Result<Option<Child>> {
    let Some((program, args)) = configuration.command.split_first() else {
        return Ok(None);
    };
    let (stdout, stderr): (Stdio, Stdio) = match &configuration.ready {
        Ready::Output(file) => {
            let file = File::create(file).context("cannot make a file for the output")?;
            (file.try_clone()?.into(), file.into())
        }
        Ready::File(file) => {
            let _absent = fs::remove_file(file);
            (Stdio::null(), Stdio::null())
        }
        Ready::Nothing => (Stdio::null(), Stdio::null()),
    };
    let mut child = Command::new(program)
        .args(args)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let start = Instant::now();
    while !is_ready(&configuration.ready) {
        if let Some(status) = child.try_wait()? {
            bail!("{program} ended with {status}");
        }
        if start.elapsed() > START_MAX {
            child.kill()?;
            bail!("{program} does not start within {} s", START_MAX.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Some(child))
}

fn is_ready(ready: &Ready) -> bool {
    let says =
        |file: &Path, word: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(word));
    match ready {
        Ready::Nothing => true,
        Ready::File(file) => says(file, "\n"),
        Ready::Output(file) => says(file, "Attaching"),
    }
}

#[derive(Deserialize)]
struct Measured {
    ns_median: f64,
}

fn ask(args: &Args, option: &str) -> anyhow::Result<f64> {
    let me = std::env::current_exe().context("cannot find myself")?;
    let output = Command::new(me)
        .args([
            "bench-asker",
            "--opt",
            option,
            "--queries",
            &args.queries.to_string(),
        ])
        .output()
        .context("cannot run the asker")?;
    let measured: Measured = serde_json::from_slice(&output.stdout).context("the asker failed")?;
    Ok(measured.ns_median)
}

fn differences(with: &[f64], without: &[f64]) -> Vec<f64> {
    with.iter()
        .zip(without)
        .map(|(with, without)| with - without)
        .collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
        assert_eq!(differences(&[3.0, 5.0], &[1.0, 1.0]), [2.0, 4.0]);
    }
}
