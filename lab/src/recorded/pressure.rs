//! A recorder whose disk is full, and one that gets more than it can keep.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::{PATIENCE, asking, bytes, compared, dump, findings, lacking, start};
use crate::{
    cells::judged,
    load,
    report::Cell,
    tracer::{OneMethodArgs, Tracer},
    truth::play,
};

/// Room of the small disk.
const DISK_BYTES: u64 = 2 << 20;
/// Room of the recording under floods.
const KEEP_BYTES: u64 = 4 << 20;
/// What the recorder's queue may hold, as it counts (`QUEUE_BYTES_MAX`), kB.
const QUEUE_KB_MAX: u64 = 8 * 1024;
/// Growth of resident memory that is no leak, kB, in a run so short that only its second half may have
/// filled the queue: what the queue holds takes up to half more than it counts (`FRAME_BYTES`), the
/// allocator keeps it for the next flood, and what is read from the ring meanwhile comes on top. A run
/// of a few seconds has millions of queries: a leak of eight bytes each exceeds it.
const GROWTH_OF_SHORT_KB_MAX: u64 = QUEUE_KB_MAX * 2;
/// The same in a long run, whose halves have both filled it many times: their medians differ by what a
/// few samples of one half may have and those of the other not.
const GROWTH_KB_MAX: u64 = 3 * 1024;
/// A run shorter than this is short.
const LONG: Duration = Duration::from_secs(60);

/// A mounted file system, which is unmounted at the end.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _left = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// The disk fills while it records, and has room again later.
pub(super) fn full(tried: &OneMethodArgs, disk: &Path) -> anyhow::Result<Cell> {
    const CASE: &str = "recorded-full";
    fs::create_dir(disk)?;
    let options = format!("size={DISK_BYTES},mode=0700");
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", &options, "none"])
        .arg(disk);
    if !mount.status().is_ok_and(|it| it.success()) {
        return Ok(lacking(CASE, tried, "no tmpfs can be mounted"));
    }
    let _mounted = Mounted(disk);
    let folder = disk.join("kept");
    let tracer = start(tried, &folder, "1M", &["--cap", "0"])?;
    let filler = disk.join("filler");
    let room = 256 * 1024;
    let used = bytes(&folder)?;
    let filled = fs::write(&filler, vec![0; (DISK_BYTES - used - room) as usize]);
    filled.context("cannot fill the disk")?;
    let _asked = load::ask(&asking(20_000, 2.0))?;
    let says = |word: &str| PATIENCE.holds(|| Ok(tracer.said()?.contains(word)));
    let mut wrong = Vec::new();
    if !says("cannot record in")? {
        wrong.push("it does not say that the disk is full".to_owned());
    }
    let lines_while_full = load::ask(&asking(100, 1.0))?.asked;
    fs::remove_file(&filler)?;
    if !says(" again after ")? {
        wrong.push("it does not record again when there is room".to_owned());
    }
    let _asked = load::ask(&asking(500, 1.5))?;
    let ended = tracer.stop(Signal::INT)?.in_order()?;
    let said = ended.said;
    if said.matches("cannot record in").count() != 1 {
        wrong.push(format!("it complains more than once: {said}"));
    }
    if !said.contains("more are missing") {
        wrong.push("its account does not say what is missing".to_owned());
    }
    if !said.contains("0 lost") {
        wrong.push("the trace has lost something".to_owned());
    }
    let capture = disk.with_extension("dump");
    let noted = dump(tried, &folder, None, &capture)?;
    if !noted.contains("records of that time are missing") {
        wrong.push(format!(
            "the dump does not say that it lacks records: {noted}"
        ));
    }
    let all = findings(tried, &capture)?.len();
    let got = format!("{all} lines in the dump; {lines_while_full} queries while it was full");
    let want = "the recording stops and goes on, the trace does not";
    Ok(judged(CASE, &tried.attach, want, &got, wrong))
}

/// A recorder that keeps all of it, and writes a capture too. It takes few of the queries of a flood, so
/// that they fit on the disk.
struct Beside {
    tracer: Tracer,
    folder: PathBuf,
    capture: PathBuf,
}

impl Beside {
    fn start(tried: &OneMethodArgs, folder: PathBuf) -> anyhow::Result<Self> {
        let capture = folder.with_extension("capture");
        let to = capture.to_str().context("the path is no text")?;
        let more = ["--cap", "100", "--duration", "12h", "--capture", to];
        Ok(Self {
            tracer: start(tried, &folder, "256M", &more)?,
            folder,
            capture,
        })
    }

    /// Its dump has the lines of its capture.
    fn end(self, tried: &OneMethodArgs, took: Duration) -> anyhow::Result<Cell> {
        self.tracer.stop(Signal::INT)?.in_order()?;
        let whole = self.folder.with_extension("whole");
        dump(tried, &self.folder, None, &whole)?;
        let (lines, differ) = compared(tried, &self.capture, &whole)?;
        let wrong = match (lines, &differ[..]) {
            (1.., "") => Vec::new(),
            _otherwise => vec![format!("{lines} lines are the same; {differ}")],
        };
        let got = format!("{lines} lines in {} s", took.as_secs());
        let want = "the lines of the capture";
        Ok(judged("recorded-beside", &tried.attach, want, &got, wrong))
    }
}

/// Fallbacks and floods for some time: memory and disk stay flat, and a dump of all of it is what a
/// capture beside it has.
pub(super) fn floods(
    tried: &OneMethodArgs,
    folder: &Path,
    duration: Duration,
) -> anyhow::Result<[Cell; 2]> {
    let beside = Beside::start(tried, folder.with_extension("beside"))?;
    let tracer = start(tried, folder, "4M", &["--cap", "0", "--duration", "12h"])?;
    let begun = Instant::now();
    let mut asked = 0;
    let (mut disk_max, mut resident_kb) = (0, Vec::new());
    while begun.elapsed() < duration || resident_kb.len() < 2 {
        let flood = thread::spawn(|| load::ask(&asking(0, 2.0)));
        play()?;
        asked += flood
            .join()
            .map_err(|_panic| anyhow::anyhow!("the load panicked"))??
            .asked;
        disk_max = disk_max.max(bytes(folder)?);
        resident_kb.push(tracer.memory()?.resident_kb);
    }
    let since = "5s";
    let capture = folder.with_extension("dump");
    dump(tried, folder, Some(since), &capture)?;
    let lines = findings(tried, &capture)?.len();
    ensure!(lines > 0, "the dump of the last {since} is empty");
    let said = tracer.stop(Signal::INT)?.in_order()?.said;
    // The first floods fill what is then reused.
    let warm_up = resident_kb.len() / 5;
    let settled = &mut resident_kb[warm_up..];
    let (begin, end) = settled.split_at_mut(settled.len() / 2);
    let (first_kb, last_kb) = (median(begin), median(end));
    let took = begun.elapsed();
    let beside = beside.end(tried, took)?;
    let mut wrong = Vec::new();
    if disk_max > KEEP_BYTES {
        wrong.push(format!("{disk_max} bytes on disk"));
    }
    let growth_max = match took < LONG {
        true => GROWTH_OF_SHORT_KB_MAX,
        false => GROWTH_KB_MAX,
    };
    if last_kb > first_kb + growth_max {
        wrong.push(format!("memory grew from {first_kb} to {last_kb} kB"));
    }
    let account = said.lines().rfind(|it| it.contains("recording in"));
    let account = account.context("there is no account of the recording")?;
    let account = account.rsplit(": ").next().unwrap_or(account);
    let got = format!(
        "{asked} queries in {} s: at most {disk_max} bytes; median {first_kb} kB, then {last_kb} kB; \
         {account}",
        took.as_secs()
    );
    let want = format!("at most {KEEP_BYTES} bytes, memory as before");
    let flat = judged("recorded-floods", &tried.attach, &want, &got, wrong);
    Ok([flat, beside])
}

fn median(samples: &mut [u64]) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}
