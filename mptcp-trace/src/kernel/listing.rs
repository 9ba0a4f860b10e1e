//! What is there already, and what the kernel has counted: programs that userspace runs itself.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, bail};
use aya::{
    maps::{HashMap, MapData},
    programs::{Iter, Program, RawTracePointRunOptions, TestRun as _},
};
use mptcp_trace_common::{calibrated, record::NetCounters};

use super::{attach::Tracer, counters, types};
use crate::{model::SensorId, probes::alone};

/// Sockets that the program behind [`Tracer::list`] puts into the ring before userspace may empty it: at most this many,
/// and no more than fill half of it.
const SOCKETS_PER_PAGE_MAX: usize = 512;
const RING_BYTES_PER_SOCKET: usize = 512;
/// How many namespaces [`Tracer::list_counters`] goes through, how many at most between two looks at the ring, and how often
/// it begins again because one ended meanwhile.
const NAMESPACES_MAX: usize = 65_536;
const NAMESPACES_PER_DRAIN: usize = 256;
const LISTS_MAX: usize = 8;

impl Tracer {
    /// Notes down, and puts into the ring, every MPTCP socket that is open in any process; `drain` is called again and
    /// again meanwhile, to empty the ring.
    ///
    /// # Errors
    ///
    /// Fails if this kernel does not let programs go through its files, or if `drain` fails.
    pub fn list(&mut self, drain: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.set_calibrated(calibrated::SWEEP, 0)?;
        let without_room = self.without_room()?;
        self.go_through_files(drain)?;
        // Only if each of them is noted, another one that turns up is known to be of later.
        let is_complete = self.sees_all_tasks && self.without_room()? == without_room;
        self.set_calibrated(calibrated::LISTED, u32::from(is_complete))
    }

    /// Sockets of which nothing could be noted so far.
    fn without_room(&self) -> anyhow::Result<u64> {
        let counted = counters::of(&self.ebpf, SensorId::Fallback)?;
        Ok(counted.unfollowed + counted.over_share)
    }

    /// Looks at every open MPTCP socket for a fallback that no probe saw; [`Self::list`] has been called.
    ///
    /// # Errors
    ///
    /// Fails if this kernel does not let programs go through its files.
    pub fn sweep(&mut self) -> anyhow::Result<()> {
        if self.lister()?.fd().is_err() {
            return Ok(());
        }
        self.set_calibrated(calibrated::SWEEP, 1)?;
        self.go_through_files(|| Ok(()))
    }

    /// Puts into the ring what the kernel has counted in each network namespace in which something was told of since the last
    /// time. Where the kernel lets no program do that, accounts rest on `/proc` alone.
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
        // Only the keys are read; the type of the values has to fit all the same.
        let nets = HashMap::<&MapData, u64, [u8; size_of::<NetCounters>()]>::try_from(map)
            .context("map NETS has another type")?;
        for cookie in nets.keys().filter_map(Result::ok) {
            let mut options = RawTracePointRunOptions::new();
            options.args[0] = cookie;
            program.test_run(options)?;
        }
        Ok(())
    }

    /// Puts into the ring what the kernel has counted in every network namespace that there is; `drain` is called again and
    /// again meanwhile, to empty the ring.
    ///
    /// # Errors
    ///
    /// Fails where the kernel lets no program do that, if namespaces end faster than they can be gone through, or if `drain`
    /// fails.
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

    /// Goes once around the ring of namespaces; false if one ended meanwhile.
    fn go_through_namespaces(
        &self,
        ours: &UdpSocket,
        drain: &mut impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        // Ours does not end: our socket keeps it.
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
        let what = "cannot list the files of all tasks";
        if self.lister()?.fd().is_err() {
            let types = types::of_functions(&self.functions)?;
            self.lister()?.load(alone::FILES, &types).context(what)?;
        }
        let program = self.lister()?;
        let link = program.attach().context(what)?;
        let mut file = program.take_link(link)?.into_file().context(what)?;
        // Reading makes the program run. What it finds is in the ring; here it says with a byte that it found something.
        let per_page = self.ring_bytes as usize / RING_BYTES_PER_SOCKET;
        let mut page = vec![0; per_page.clamp(1, SOCKETS_PER_PAGE_MAX)];
        loop {
            match file.read(&mut page) {
                Ok(0) => return drain(),
                Ok(_found) => drain()?,
                // So many files without a socket of ours that the kernel wants to know whether we still want it to go on.
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Err(why).context(what),
            }
        }
    }

    fn lister(&mut self) -> anyhow::Result<&mut Iter> {
        let program = self.ebpf.program_mut(alone::LISTER);
        let program =
            program.with_context(|| format!("the BPF object has no program {}", alone::LISTER))?;
        Ok(program.try_into()?)
    }
}
