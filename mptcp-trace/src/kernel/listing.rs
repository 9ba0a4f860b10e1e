//! Existing sockets and kernel counters, read by programs that userspace runs itself.

use std::{
    fs::File,
    io::{self, Read as _},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, bail};
use aya::{
    maps::{Array, HashMap, MapData},
    programs::{Iter, Program, RawTracePointRunOptions, TestRun as _},
};
use mptcp_trace_common::{calibrated, map_values::NetCounters};

use super::{attach::Tracer, counters, types};
use crate::{
    model::{SensorId, SocketId},
    probes::alone,
};

/// At most this many records that the program behind [`Tracer::list`] adds to the ring before
/// userspace drains it, and no more than fill half of it.
const RECORDS_PER_PAGE_MAX: usize = 512;
const RING_BYTES_PER_RECORD: usize = 512;
/// Limits of [`Tracer::list_counters`]: namespaces in total, namespaces between two drains of the
/// ring, and restarts because a namespace ended meanwhile.
const NAMESPACES_MAX: usize = 65_536;
const NAMESPACES_PER_DRAIN: usize = 256;
const LISTS_MAX: usize = 8;

impl Tracer {
    /// Tracks every MPTCP socket that is open in any process, and adds a record of each to the
    /// ring; calls `drain` repeatedly to empty the ring.
    ///
    /// # Errors
    ///
    /// Fails if this kernel does not support the iterator over files, or if `drain` fails.
    pub fn list(&mut self, drain: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.set_calibrated(calibrated::SWEEP, 0)?;
        let without_room = self.without_room()?;
        self.go_through_files(drain)?;
        // Only if each socket is tracked, an unknown one must have been created later.
        let is_complete = self.sees_all_tasks && self.without_room()? == without_room;
        self.set_calibrated(calibrated::LISTED, u32::from(is_complete))
    }

    /// Number of sockets that could not be tracked so far.
    fn without_room(&self) -> anyhow::Result<u64> {
        let counted = counters::of(&self.ebpf, SensorId::Fallback)?;
        Ok(counted.unfollowed + counted.over_share)
    }

    /// Checks every open MPTCP socket for an unobserved fallback; requires an earlier
    /// [`Self::list`].
    ///
    /// # Errors
    ///
    /// Fails if the iterator over files fails; without the iterator it does nothing.
    pub fn sweep(&mut self) -> anyhow::Result<()> {
        if self.iterator(alone::LISTER)?.fd().is_err() {
            return Ok(());
        }
        self.set_calibrated(calibrated::SWEEP, 1)?;
        self.go_through_files(|| Ok(()))
    }

    /// Adds the kernel's counters to the ring, for each network namespace with an event since the
    /// last reading. If the kernel does not allow such a program, the reconciliation relies on
    /// `/proc` alone.
    pub fn read_counters(&self) {
        if let Err(why) = self.read_noted_counters() {
            log::debug!("cannot read the counters of namespaces: {why:#}");
        }
    }

    fn read_noted_counters(&self) -> anyhow::Result<()> {
        let Some(Program::RawTracePoint(program)) = self.ebpf.program(alone::COUNTED_NOW) else {
            return Ok(());
        };
        let map = self
            .ebpf
            .map("NETS")
            .context("the BPF object has no map NETS")?;
        // Only the keys are read, but the type of the values must match too.
        let nets = HashMap::<&MapData, u64, [u8; size_of::<NetCounters>()]>::try_from(map)
            .context("map NETS has another type")?;
        for cookie in nets.keys().filter_map(Result::ok) {
            let mut options = RawTracePointRunOptions::new();
            options.args[0] = cookie;
            program.test_run(options)?;
        }
        Ok(())
    }

    /// Adds the kernel's counters of every network namespace to the ring; calls `drain` repeatedly
    /// to empty the ring.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not allow such a program, if namespaces end faster than the list
    /// can be walked, or if `drain` fails.
    pub fn list_counters(
        &self,
        mut drain: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // Any socket leads to a namespace, and from there to all others.
        let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot open a socket")?;
        for _ in 0..LISTS_MAX {
            let is_complete = self.go_through_namespaces(&ours, &mut drain)?;
            drain()?;
            if is_complete {
                return Ok(());
            }
        }
        bail!("namespaces come and go faster than they can be listed")
    }

    /// Walks the circular list of namespaces once; false if one ended meanwhile.
    fn go_through_namespaces(
        &self,
        ours: &UdpSocket,
        drain: &mut impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        // Our namespace does not end: our socket holds it.
        let ours = self.answer(
            alone::COUNTED_NEXT,
            [u64::from(ours.as_raw_fd().cast_unsigned()), 0],
        )?;
        let mut at = ours;
        for number in 1..=NAMESPACES_MAX {
            let mut next = self.answer(alone::COUNTED_NEXT, [0, at])?;
            if next == 0 {
                // The ring may have been full.
                drain()?;
                next = self.answer(alone::COUNTED_NEXT, [0, at])?;
            }
            if next == 0 {
                return Ok(false);
            }
            if next == ours {
                return Ok(true);
            }
            at = next;
            if number.is_multiple_of(NAMESPACES_PER_DRAIN) {
                drain()?;
            }
        }
        bail!("there are more than {NAMESPACES_MAX} namespaces")
    }

    fn go_through_files(
        &mut self,
        mut drain: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.load_iterator(alone::LISTER)?;
        let mut file = self.open_iterator(alone::LISTER)?;
        // Reading runs the program. Its records go to the ring; here it returns one byte per
        // record.
        let per_page = self.ring_bytes as usize / RING_BYTES_PER_RECORD;
        let mut page = vec![0; per_page.clamp(1, RECORDS_PER_PAGE_MAX)];
        while next_page(&mut file, &mut page).context(CANNOT_WALK)? > 0 {
            drain()?;
        }
        drain()
    }

    /// Loads the program that [`Self::read_paths`] runs. Requires the privileges of the start.
    ///
    /// # Errors
    ///
    /// Fails if this kernel does not support the iterator over files.
    pub fn prepare_readings(&mut self) -> anyhow::Result<()> {
        self.load_iterator(alone::READER)
    }

    /// Prepares a reading of the open paths of the connection with this socket, which
    /// [`Walk::finish`] makes; requires an earlier [`Self::prepare_readings`].
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses it.
    pub fn read_paths(&mut self, socket: SocketId) -> anyhow::Result<Walk> {
        let map = self
            .ebpf
            .map_mut("READ_NEXT")
            .context("the BPF object has no map READ_NEXT")?;
        let mut map: Array<_, u64> =
            Array::try_from(map).context("map READ_NEXT has another type")?;
        map.set(0, socket.0, 0)
            .context("cannot pass the connection to the BPF program")?;
        self.open_iterator(alone::READER).map(Walk)
    }

    fn load_iterator(&mut self, name: &str) -> anyhow::Result<()> {
        if self.iterator(name)?.fd().is_err() {
            let types = types::of_functions(&self.functions)?;
            let program = self.iterator(name)?;
            program.load(alone::FILES, &types).context(CANNOT_WALK)?;
        }
        Ok(())
    }

    /// Each file walks once, while it is read.
    fn open_iterator(&mut self, name: &str) -> anyhow::Result<File> {
        let program = self.iterator(name)?;
        let link = program.attach().context(CANNOT_WALK)?;
        program.take_link(link)?.into_file().context(CANNOT_WALK)
    }

    fn iterator(&mut self, name: &str) -> anyhow::Result<&mut Iter> {
        let program = self.ebpf.program_mut(name);
        let program = program.with_context(|| format!("the BPF object has no program {name}"))?;
        Ok(program.try_into()?)
    }
}

/// A walk over the files of all tasks that has not begun.
pub struct Walk(File);

impl Walk {
    /// Walks. Any thread can do that, without privileges; it takes as long as there are files.
    ///
    /// # Errors
    ///
    /// Fails if the kernel ends the walk.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let mut page = [0; 64];
        while next_page(&mut self.0, &mut page).context(CANNOT_WALK)? > 0 {}
        Ok(())
    }
}

const CANNOT_WALK: &str = "cannot list the files of all tasks";

/// Reads what the program of an iterator returns; 0 at the end of the walk.
fn next_page(file: &mut File, page: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(page) {
            // The kernel interrupts the walk after many files without a socket, and continues with
            // the next read.
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}
