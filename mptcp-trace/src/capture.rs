//! Capture files: the facts and raw records of a run, for replay without privileges.
//!
//! Layout: 8 bytes of magic, then frames of `kind: u32, length: u32, length bytes`, little endian.
//! The first frame holds the facts (JSON), then one frame per record (the bytes of the ring), and
//! last the losses (JSON): a capture without that last frame is truncated, and its reader reports
//! that.

mod json;
mod layout_1;
mod layout_2;

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read, Write},
    mem::offset_of,
    time::Duration,
};

use anyhow::Context as _;
use mptcp_trace_common::record::{Kind, PacketRecord, PathRecord};
use zerocopy::FromBytes as _;

use self::json::{CheckpointTwin, FactsTwin, LossesTwin, PodTwin};
use crate::model::{Facts, LossReport, Pod, TcpOption};

/// First bytes of a capture; the last one is the version of its layout: it increases with changes
/// of the frames, and of the records in them.
const MAGIC: [u8; 8] = *b"MPTCPTR\x03";
/// The older layouts that can be read too.
const LAYOUT_1: u8 = 1;
const LAYOUT_2: u8 = 2;

const FRAME_FACTS: u32 = 1;
const FRAME_RECORD: u32 = 2;
const FRAME_LOSSES: u32 = 3;
const FRAME_PLACE: u32 = 4;
const FRAME_CLOCK: u32 = 5;
const FRAME_MISSED: u32 = 6;
const FRAME_POD: u32 = 7;
const FRAME_CHECKPOINT: u32 = 8;

/// Maximum length of a frame, bytes: a longer one means that the file is damaged.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Nearly all frames are shorter than this, bytes.
const FRAME_BYTES_USUAL: usize = 1024;

/// Writes a capture.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Starts a capture with the facts.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn new(mut out: W, facts: &Facts) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        let mut writer = Self { out };
        let facts = serde_json::to_vec(&FactsTwin::from(facts))?;
        writer.frame(FRAME_FACTS, &facts)?;
        Ok(writer)
    }

    /// Continues a capture whose begin is written.
    pub fn continued(out: W) -> Self {
        Self { out }
    }

    /// Adds the state of a continuous recording: part of its segments only, and nothing to a replay.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        let checkpoint = serde_json::to_vec(&CheckpointTwin::from(checkpoint))?;
        self.frame(FRAME_CHECKPOINT, &checkpoint)
    }

    /// Adds one record, with the bytes of the ring, but without the keys of a connection. Nothing else
    /// writes records to a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn record(&mut self, record: &[u8]) -> io::Result<()> {
        self.frame(FRAME_RECORD, &without_keys(record))
    }

    /// Adds a process's control group path: `/proc` does not show it at replay.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn place(&mut self, cgroup_id: u64, path: &str) -> io::Result<()> {
        let mut bytes = cgroup_id.to_le_bytes().to_vec();
        bytes.extend(path.bytes());
        self.frame(FRAME_PLACE, &bytes)
    }

    /// Adds the pod of a control group, whose path precedes it.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn pod(&mut self, cgroup_id: u64, pod: &Pod) -> io::Result<()> {
        let mut bytes = cgroup_id.to_le_bytes().to_vec();
        bytes.extend(serde_json::to_vec(&PodTwin::from(pod))?);
        self.frame(FRAME_POD, &bytes)
    }

    /// Adds the time at which waiting findings were released, so that a replay yields the same
    /// lines in the same order.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn clock(&mut self, now: Duration) -> io::Result<()> {
        self.frame(FRAME_CLOCK, &ns(now).to_le_bytes())
    }

    /// Adds the total number of queries that the probes may have missed by this time.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn missed(&mut self, by: Duration, count: u64) -> io::Result<()> {
        let [by, count] = [ns(by), count].map(u64::to_le_bytes);
        self.frame(FRAME_MISSED, &[by, count].concat())
    }

    /// Adds a frame of another capture. The last one ends this capture like that one.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn add(&mut self, frame: &Frame) -> io::Result<()> {
        match frame {
            Frame::Record(record) => self.record(record),
            Frame::Place(cgroup_id, path) => self.place(*cgroup_id, path),
            Frame::Pod(cgroup_id, pod) => self.pod(*cgroup_id, pod),
            Frame::Clock(now) => self.clock(*now),
            Frame::Missed(by, count) => self.missed(*by, *count),
            Frame::End(losses) => self.end(losses),
            Frame::CutOff => self.flush(),
        }
    }

    /// Flushes buffered bytes to the file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the capture with the losses.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn finish(mut self, losses: &LossReport) -> io::Result<()> {
        self.end(losses)
    }

    fn end(&mut self, losses: &LossReport) -> io::Result<()> {
        let losses = serde_json::to_vec(&LossesTwin::from(losses))?;
        self.frame(FRAME_LOSSES, &losses)?;
        self.out.flush()
    }

    fn frame(&mut self, kind: u32, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|length| *length <= FRAME_BYTES_MAX)
            .ok_or_else(|| io::Error::other("frame is too long for a capture"))?;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(bytes)
    }
}

/// Losses in the format of a capture's end.
///
/// # Errors
///
/// None known.
pub fn losses_json(losses: &LossReport) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&LossesTwin::from(losses))
}

/// The state of a continuous recording at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// The moment, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Losses since tracing began; records that the recording lacks count as lost.
    pub losses: LossReport,
    /// Records that the recording lacks: the disk was too slow, or full.
    pub unrecorded: u64,
    /// Connections whose history was dropped, because there are too many.
    pub omitted: u64,
    /// Records between the previous segment and this one are missing.
    pub after_gap: bool,
}

/// The next part of a segment of a continuous recording.
#[derive(Clone, Debug)]
pub enum Step {
    /// A part of any capture.
    Frame(Frame),
    /// The state of the recording.
    Checkpoint(Box<Checkpoint>),
}

/// The next part of a capture.
#[derive(Clone, Debug)]
pub enum Frame {
    /// One record, in the layout of this version.
    Record(Vec<u8>),
    /// Path of a control group, by its id.
    Place(u64, String),
    /// Pod of a control group, by its id, as the file has it.
    Pod(u64, Pod),
    /// The time at which waiting findings were released, on `CLOCK_BOOTTIME`.
    Clock(Duration),
    /// By this time (`CLOCK_BOOTTIME`) the probes may have missed this many queries in total.
    Missed(Duration, u64),
    /// The regular end.
    End(LossReport),
    /// The file ends early: truncated, or still being written.
    CutOff,
}

impl Frame {
    /// True if nothing follows.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::End(_) | Self::CutOff)
    }
}

/// Why a file cannot be read as a capture.
#[derive(Debug)]
pub enum OpenError {
    /// The file is empty.
    Empty,
    /// Not a capture.
    Foreign,
    /// A capture of this other layout version.
    Version(u8),
    /// Truncated before its facts are complete.
    CutOff,
    /// Its facts are invalid.
    Facts(anyhow::Error),
    /// Reading failed.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("the file is empty: the run that wrote it ended before tracing began")
            }
            Self::Foreign => f.write_str("this is not an mptcp-trace capture"),
            Self::Version(version) => {
                let ours = MAGIC[7];
                write!(
                    f,
                    "capture has layout {version}, but this program reads up to layout {ours}"
                )
            }
            Self::CutOff => f.write_str("the file ends before its first record"),
            Self::Facts(why) => write!(f, "its facts cannot be read: {why:#}"),
            Self::Io(why) => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Reads a capture.
pub struct Reader<R: Read> {
    input: R,
    /// Layout of the file.
    layout: u8,
}

impl<R: Read> Reader<R> {
    /// Opens a capture and returns its facts.
    ///
    /// # Errors
    ///
    /// Reports why the file is not a capture.
    pub fn open(mut input: R) -> Result<(Self, Facts), OpenError> {
        let mut magic = [0; MAGIC.len()];
        match read_up_to(&mut input, &mut magic).map_err(OpenError::Io)? {
            0 => return Err(OpenError::Empty),
            n if n < MAGIC.len() && MAGIC.starts_with(&magic[..n]) => {
                return Err(OpenError::CutOff);
            }
            _ => {}
        }
        if magic[..7] != MAGIC[..7] {
            return Err(OpenError::Foreign);
        }
        let layout = magic[7];
        if ![LAYOUT_1, LAYOUT_2, MAGIC[7]].contains(&layout) {
            return Err(OpenError::Version(layout));
        }
        let mut reader = Self { input, layout };
        let facts = match reader.frame().map_err(OpenError::Facts)? {
            Some((FRAME_FACTS, bytes)) => serde_json::from_slice::<FactsTwin>(&bytes)
                .context("facts are not what this version writes")
                .and_then(Facts::try_from)
                .map_err(OpenError::Facts)?,
            Some((kind, _)) => {
                return Err(OpenError::Facts(anyhow::anyhow!(
                    "first frame is of kind {kind}"
                )));
            }
            None => return Err(OpenError::CutOff),
        };
        Ok((reader, facts))
    }

    /// Reads the next frame. The checkpoints of a continuous recording are left out.
    ///
    /// # Errors
    ///
    /// Fails on a frame that no version of this program writes, and on read errors.
    pub fn next_frame(&mut self) -> anyhow::Result<Frame> {
        loop {
            if let Step::Frame(frame) = self.next_step()? {
                return Ok(frame);
            }
        }
    }

    /// Reads the next frame or checkpoint.
    ///
    /// # Errors
    ///
    /// As [`Self::next_frame`].
    pub fn next_step(&mut self) -> anyhow::Result<Step> {
        let frame = self.frame()?;
        if let Some((FRAME_CHECKPOINT, bytes)) = &frame {
            let checkpoint: CheckpointTwin = serde_json::from_slice(bytes)
                .context("a checkpoint is not what this version writes")?;
            return Ok(Step::Checkpoint(Box::new(checkpoint.try_into()?)));
        }
        self.understood(frame).map(Step::Frame)
    }

    fn understood(&self, frame: Option<(u32, Vec<u8>)>) -> anyhow::Result<Frame> {
        match frame {
            None => Ok(Frame::CutOff),
            Some((FRAME_RECORD, bytes)) => Ok(Frame::Record(match self.layout {
                LAYOUT_1 => layout_1::converted(bytes),
                LAYOUT_2 => layout_2::converted(bytes),
                _ => bytes,
            })),
            Some((FRAME_PLACE, bytes)) => {
                let (id, path) = bytes
                    .split_first_chunk::<8>()
                    .context("a place without a control group: the file is damaged")?;
                let path = String::from_utf8_lossy(path).into_owned();
                Ok(Frame::Place(u64::from_le_bytes(*id), path))
            }
            Some((FRAME_POD, bytes)) => {
                let (id, pod) = bytes
                    .split_first_chunk::<8>()
                    .context("a pod without a control group: the file is damaged")?;
                let pod: PodTwin = serde_json::from_slice(pod)
                    .context("a pod is not what this version writes: the file is damaged")?;
                Ok(Frame::Pod(u64::from_le_bytes(*id), pod.into()))
            }
            Some((FRAME_CLOCK, bytes)) => {
                let now = <[u8; 8]>::try_from(&bytes[..])
                    .ok()
                    .context("a clock without a time: the file is damaged")?;
                Ok(Frame::Clock(Duration::from_nanos(u64::from_le_bytes(now))))
            }
            Some((FRAME_MISSED, bytes)) => {
                let what = "missed queries without a time or a number: the file is damaged";
                let (by, count) = bytes.split_first_chunk::<8>().context(what)?;
                let count = <[u8; 8]>::try_from(count).ok().context(what)?;
                let by = Duration::from_nanos(u64::from_le_bytes(*by));
                Ok(Frame::Missed(by, u64::from_le_bytes(count)))
            }
            Some((FRAME_LOSSES, bytes)) => {
                let losses: LossesTwin = serde_json::from_slice(&bytes)
                    .context("losses are not what this version writes")?;
                Ok(Frame::End(losses.try_into()?))
            }
            Some((kind, _)) => anyhow::bail!("frame of unknown kind {kind}: the file is damaged"),
        }
    }

    /// True if more bytes follow.
    ///
    /// # Errors
    ///
    /// Fails on read errors.
    pub fn has_more(&mut self) -> io::Result<bool> {
        Ok(read_up_to(&mut self.input, &mut [0])? > 0)
    }

    /// One frame; `None` if the file ends before it is complete.
    fn frame(&mut self) -> anyhow::Result<Option<(u32, Vec<u8>)>> {
        let mut head = [0; 8];
        if read_up_to(&mut self.input, &mut head)? < head.len() {
            return Ok(None);
        }
        let [k0, k1, k2, k3, l0, l1, l2, l3] = head;
        let kind = u32::from_le_bytes([k0, k1, k2, k3]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        anyhow::ensure!(
            length <= FRAME_BYTES_MAX,
            "frame of {length} bytes: the file is damaged"
        );
        // Memory grows with the bytes present, not with the length that the file claims.
        let mut bytes = Vec::with_capacity(usize::try_from(length)?.min(FRAME_BYTES_USUAL));
        let whole = (&mut self.input)
            .take(length.into())
            .read_to_end(&mut bytes)?;
        Ok((whole == usize::try_from(length)?).then_some((kind, bytes)))
    }
}

/// A record in which the keys of MPTCP options are zero.
fn without_keys(record: &[u8]) -> Cow<'_, [u8]> {
    /// Lengths of a TCP header without options, and of all options.
    const TCP_HEADER: usize = 20;
    const OPTIONS: usize = 40;
    let options = match Kind::read_from_prefix(record) {
        Ok((Kind::PACKET, _)) => offset_of!(PacketRecord, tcp) + TCP_HEADER,
        Ok((kind, _)) if kind.is_of_path() => offset_of!(PathRecord, options),
        Ok(_) | Err(_) => return record.into(),
    };
    let mut record = record.to_vec();
    if let Some(options) = record.get_mut(options..options + OPTIONS) {
        TcpOption::zero_keys(options);
    }
    record.into()
}

/// Fills the buffer until it is full or the input ends.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(filled)
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
