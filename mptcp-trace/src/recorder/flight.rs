//! The event loop's end of the recorder, and what others may ask of it while tracing runs.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;

use super::{
    Room, Rule, Rules, Shared, Sums,
    dump::{Dumped, Plan, Span, utc},
    folder::{self, Folder, create_dump, keep_dumps},
    thread::{Message, QUEUE_BYTES_MAX, Recording, boottime},
};
use crate::{
    capture::Frame,
    decode::sensor_of,
    model::{Facts, Finding, LossReport, SensorId},
};

/// Most dumps that stay in the folder.
pub const DUMPS_MAX: usize = 8;
/// Dumps without a time cover this much.
const DUMP_SINCE: Duration = Duration::from_secs(600);
/// Frames are handed over in batches of that many bytes.
const BATCH_BYTES: u64 = 64 * 1024;
/// How long anybody waits for the thread.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What a frame takes in memory beside its content, bytes: itself, and the allocation of the content.
const FRAME_BYTES: u64 = size_of::<Frame>() as u64 + 16;

/// A recorder that the event loop feeds.
#[derive(Debug)]
pub struct Flight {
    handle: Handle,
    batch: Vec<Frame>,
    batch_bytes: u64,
}

/// Access to a recorder for those who do not feed it.
#[derive(Clone, Debug)]
pub struct Handle {
    to: Sender<Message>,
    shared: Arc<Shared>,
    folder: PathBuf,
    keep: Arc<AtomicU64>,
    dumping: Arc<AtomicBool>,
    /// When to make a dump without being asked.
    rules: Arc<Mutex<Rules>>,
}

/// The right to make a dump: at most one is made at a time.
#[derive(Debug)]
pub struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Who asked for a dump, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked(pub String);

impl Flight {
    /// Begins to record. The thread has the privileges that this one has now.
    ///
    /// # Errors
    ///
    /// Fails if the first segment cannot be written, or the thread cannot be started.
    pub fn begin(
        folder: Folder,
        keep: u64,
        facts: &Facts,
        rules: Vec<Rule>,
    ) -> anyhow::Result<Self> {
        let path = folder.path().to_owned();
        let what = || format!("cannot record in {}", path.display());
        let shared = Arc::<Shared>::default();
        let recording = Recording::begin(folder, keep, facts.clone(), shared.clone(), boottime)
            .with_context(what)?;
        let (to, messages) = channel();
        thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || recording.run(&messages))
            .with_context(what)?;
        Ok(Self {
            handle: Handle {
                to,
                shared,
                folder: path,
                keep: Arc::new(keep.into()),
                dumping: Arc::default(),
                rules: Arc::new(Mutex::new(Rules::new(rules))),
            },
            batch: Vec::new(),
            batch_bytes: 0,
        })
    }

    /// Access for others.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Records a frame.
    pub fn add(&mut self, frame: Frame) {
        self.batch_bytes += FRAME_BYTES
            + match &frame {
                Frame::Record(bytes) => bytes.len() as u64,
                Frame::Place(_, path) => path.len() as u64,
                Frame::Pod(..) | Frame::Clock(_) | Frame::Missed(..) => 0,
                Frame::End(_) | Frame::CutOff => 0,
            };
        self.batch.push(frame);
        if self.batch_bytes >= BATCH_BYTES {
            self.hand_over();
        }
    }

    /// Gives what was added to the thread. If its queue is full, the records are counted as missing.
    pub fn hand_over(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let queued = &self.handle.shared.queued;
        if queued.load(Ordering::Relaxed) + self.batch_bytes > QUEUE_BYTES_MAX {
            self.batch.retain(|frame| match frame {
                Frame::Record(bytes) => {
                    let sensor = sensor_of(bytes).unwrap_or(SensorId::Fallback);
                    let missing = self.handle.shared.queue_full.of(sensor);
                    missing.fetch_add(1, Ordering::Relaxed);
                    false
                }
                // Each is only said once.
                Frame::Place(..) | Frame::Pod(..) => true,
                Frame::Clock(_) | Frame::Missed(..) | Frame::End(_) | Frame::CutOff => false,
            });
            self.batch_bytes = self.batch.len() as u64 * FRAME_BYTES;
            return;
        }
        queued.fetch_add(self.batch_bytes, Ordering::Relaxed);
        let (frames, bytes) = (std::mem::take(&mut self.batch), self.batch_bytes);
        self.batch_bytes = 0;
        self.handle.send(Message::Frames(frames, bytes));
    }

    /// Counts a finding for the rules.
    pub fn count(&mut self, finding: &Finding) {
        self.handle.rules().count(finding, Instant::now());
    }

    /// Takes the losses so far; makes a dump if a rule asks for it.
    pub fn losses(&mut self, losses: LossReport) {
        let lost = losses.sensors.iter().map(|it| it.lost() + it.missed).sum();
        self.hand_over();
        self.handle.send(Message::Losses(losses));
        let asks = self.handle.rules().check(lost, Instant::now());
        if let Some(why) = asks {
            self.dump(Asked(why));
        }
    }

    /// Makes a dump of the last ten minutes in the folder.
    pub fn dump(&mut self, asked: Asked) {
        self.hand_over();
        self.handle.dump(asked);
    }

    /// Ends the recording; returns its account, and whether nothing is missing.
    #[must_use]
    pub fn end(mut self, losses: LossReport) -> (String, bool) {
        self.hand_over();
        let (done, ended) = sync_channel(1);
        self.handle.send(Message::End(losses, done));
        let is_late = ended.recv_timeout(WAIT_MAX).is_err();
        self.handle.account(is_late)
    }
}

impl Handle {
    fn send(&self, message: Message) {
        // The thread ends with the recorder, not before.
        let _ended = self.to.send(message);
    }

    /// The numbers now.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.shared.sums()
    }

    /// Uses that many bytes of disk from now on.
    pub fn set_keep(&self, keep: u64) {
        self.keep.store(keep, Ordering::Relaxed);
        self.send(Message::Keep(keep));
    }

    /// Uses other rules from now on.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.rules().replace(rules);
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The right to make a dump; `None` while another one is being made.
    #[must_use]
    pub fn turn(&self) -> Option<Turn> {
        let is_taken = self.dumping.swap(true, Ordering::Relaxed);
        (!is_taken).then(|| Turn(self.dumping.clone()))
    }

    /// Waits until what happened so far is in the files, but not for long.
    fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        self.send(Message::Flush(done));
        let _late = flushed.recv_timeout(WAIT_MAX);
    }

    /// Makes a dump of the last ten minutes in the folder, and reports it on stderr. Does not wait
    /// for it.
    pub fn dump(&self, asked: Asked) {
        let Some(turn) = self.turn() else {
            stderr_line!("mptcp-trace: a dump is being made already ({})", asked.0);
            return;
        };
        let handle = self.clone();
        let made = thread::Builder::new()
            .name("dump".to_owned())
            .spawn(move || {
                handle.dump_now(&asked);
                drop(turn);
            });
        if let Err(why) = made {
            log::error!("cannot make a dump: {why}");
        }
    }

    fn dump_now(&self, Asked(asked): &Asked) {
        match self.dump_into_folder() {
            Ok((path, dumped)) => {
                self.shared.dumps.fetch_add(1, Ordering::Relaxed);
                stderr_line!(
                    "mptcp-trace: dump {}: {} records since {} ({})",
                    path.display(),
                    dumped.records,
                    utc(dumped.from),
                    asked
                );
                for note in dumped.notes {
                    stderr_line!("mptcp-trace: note: {note}");
                }
            }
            Err(why) => {
                self.shared.failed_dumps.fetch_add(1, Ordering::Relaxed);
                log::error!(
                    "cannot make a dump in {} ({asked}): {why:#}",
                    self.folder.display()
                );
            }
        }
    }

    fn dump_into_folder(&self) -> anyhow::Result<(PathBuf, Dumped)> {
        let most = Room::of(self.keep.load(Ordering::Relaxed)).dumps;
        self.flush();
        let now = SystemTime::now();
        let span = Span {
            since: now.checked_sub(DUMP_SINCE),
            until: None,
        };
        // It may have been replaced since the recorder began.
        folder::check(&self.folder)?;
        let plan = Plan::of(&self.folder, span, Some(most))?;
        // Room for it: the older ones go.
        keep_dumps(
            &self.folder,
            DUMPS_MAX - 1,
            most.saturating_sub(plan.bytes()),
        )?;
        let (partial, file, path) = create_dump(&self.folder, &utc(now).replace(['-', ':'], ""))?;
        let written = plan.write(&mut &file).and_then(|dumped| {
            std::fs::rename(&partial, &path)?;
            Ok(dumped)
        });
        match written {
            Ok(dumped) => Ok((path, dumped)),
            Err(why) => {
                let _stays = std::fs::remove_file(&partial);
                Err(why.into())
            }
        }
    }

    /// A dump that can be written elsewhere, of what happened so far.
    ///
    /// # Errors
    ///
    /// Reports that nothing was recorded in that time, or why it cannot be read.
    pub fn plan(&self, span: Span) -> anyhow::Result<Plan> {
        self.flush();
        Plan::of(&self.folder, span, None)
    }

    /// What became of the recording, for the end of a run.
    fn account(&self, is_late: bool) -> (String, bool) {
        let sums = self.sums();
        let folder = self.folder.display();
        let mut text = format!(
            "recording in {folder}: {} records, {} bytes",
            sums.recorded, sums.bytes
        );
        let missing = sums.queue_full + sums.unwritten;
        if missing > 0 {
            // Writing to memory does not fail.
            let _infallible = write!(
                text,
                "; {missing} more are missing ({} the disk was too slow for, {} could not be written)",
                sums.queue_full, sums.unwritten
            );
        }
        if let Some(why) = self.shared.failure() {
            let _infallible = write!(text, "; it had stopped: {why}");
        }
        if is_late {
            text.push_str("; the disk did not take its end in time");
        }
        (text, missing == 0 && sums.writes && !is_late)
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
