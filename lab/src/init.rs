//! Init process of a virtual machine: mounts file systems, runs its job, powers off.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::{
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
    termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr},
};
use serde::Deserialize;

use crate::{link, sys};

/// Device for results: the second serial port. On arm64, QEMU's own port is no `ttyS`, so that the
/// second one is `ttyS0`.
const RESULTS: &str = if cfg!(target_arch = "aarch64") {
    "/dev/ttyS0"
} else {
    "/dev/ttyS1"
};
/// Device for messages.
const CONSOLE: &str = "/dev/console";
/// Exit code of a job that timed out.
const TIMED_OUT: i32 = 124;

/// The job: preparation of the machine.
#[derive(Deserialize)]
struct Job {
    /// Modules to load, in order.
    modules: Vec<String>,
    /// Timeout of each command, seconds.
    timeout_s: u64,
    /// Also mount tracefs. The tracer must work without: it cannot rely on the mount.
    #[serde(default)]
    tracefs: bool,
}

/// Runs the job and powers off. Never returns.
pub(crate) fn run(job: &Path) -> ! {
    let code = match work(job) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("mptcp-lab: {why:#}");
            1
        }
    };
    let told = File::options()
        .write(true)
        .open(RESULTS)
        .and_then(|mut results| {
            writeln!(
                results,
                "{{\"type\":\"exit\",\"data\":{{\"code\":{code}}}}}"
            )?;
            results.flush()?;
            tcdrain(&results)?;
            Ok(())
        });
    if let Err(why) = told {
        eprintln!("mptcp-lab: cannot write to {RESULTS}: {why}");
    }
    sys::power_off();
    // Unreachable on a machine that can power off.
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn work(job: &Path) -> anyhow::Result<i32> {
    for (what, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
    ] {
        fs::create_dir_all(place)?;
        mount(what, place, what, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    // Kernels without it have no cgroups to report.
    let _absent = mount(
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        MountFlags::empty(),
        None,
    );
    // As distributions do; kernels without security modules lack it.
    let security = "/sys/kernel/security";
    let _absent = mount(
        "securityfs",
        security,
        "securityfs",
        MountFlags::empty(),
        None,
    );
    link::bring_up("lo").context("cannot bring loopback up")?;
    let text = fs::read(job).with_context(|| format!("cannot read {}", job.display()))?;
    let job: Job = serde_json::from_slice(&text).context("cannot parse the job")?;
    if job.tracefs {
        let place = "/sys/kernel/tracing";
        mount("tracefs", place, "tracefs", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    for module in &job.modules {
        let file = File::open(module).with_context(|| format!("cannot open {module}"))?;
        if let Err(why) = sys::load_module(&file) {
            eprintln!("mptcp-lab: cannot load {module}: {why}");
        }
    }
    let mut results = File::options()
        .write(true)
        .open(RESULTS)
        .with_context(|| format!("cannot open {RESULTS}"))?;
    let mut terminal = tcgetattr(&results).context("no serial port for the results")?;
    terminal.make_raw();
    tcsetattr(&results, OptionalActions::Now, &terminal)?;
    let orders = File::open(RESULTS).with_context(|| format!("cannot open {RESULTS}"))?;
    serve(&job, BufReader::new(orders), &mut results)
}

/// Runs commands from the serial port, one JSON array of words per line; an empty array is the
/// last. Each command's lines are followed by its exit code; the worst code becomes the job's.
fn serve(job: &Job, mut orders: impl BufRead, results: &mut File) -> anyhow::Result<i32> {
    let say = |results: &mut File, line: &str| {
        writeln!(results, "{line}").with_context(|| format!("cannot write to {RESULTS}"))
    };
    // Anything sent before this line is lost: the driver drains the port when it starts.
    say(results, r#"{"type":"ready","data":{}}"#)?;
    let mut worst = 0;
    loop {
        let mut line = String::new();
        let length = orders
            .read_line(&mut line)
            .with_context(|| format!("cannot read {RESULTS}"))?;
        ensure!(length > 0, "the orders ended without an empty one");
        let command: Vec<String> =
            serde_json::from_str(&line).with_context(|| format!("no order: {line:?}"))?;
        if command.is_empty() {
            return Ok(worst);
        }
        let code = execute(&command, results, Duration::from_secs(job.timeout_s))?;
        let ended = format!(r#"{{"type":"ended","data":{{"code":{code}}}}}"#);
        say(results, &ended)?;
        worst = worst.max(code);
    }
}

fn execute(command: &[String], results: &File, patience: Duration) -> anyhow::Result<i32> {
    let console = File::options()
        .write(true)
        .open(CONSOLE)
        .with_context(|| format!("cannot open {CONSOLE}"))?;
    let (program, args) = command.split_first().context("the job has no program")?;
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", "/bin")
        .stdin(Stdio::null())
        .stdout(results.try_clone().context("cannot share the results")?)
        .stderr(console)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    wait_for(&mut child, patience)
}

/// Waits for the job, and reaps any other child.
fn wait_for(child: &mut std::process::Child, patience: Duration) -> anyhow::Result<i32> {
    let start = Instant::now();
    let pid = rustix::process::Pid::from_child(child);
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((dead, status))) if dead == pid => {
                let code = status.exit_status();
                return Ok(code.unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0)));
            }
            Ok(Some(_orphan)) => continue,
            Ok(None) => {}
            Err(why) => return Err(why).context("cannot wait for the job"),
        }
        if start.elapsed() > patience {
            eprintln!(
                "mptcp-lab: the job timed out after {} s",
                patience.as_secs()
            );
            // Kill its children too, so that they cannot write after the final line.
            sys::kill_all();
            return Ok(TIMED_OUT);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
