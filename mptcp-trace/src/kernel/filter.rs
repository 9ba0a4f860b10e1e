//! Maintains the filter maps that the programs read.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::maps::{HashMap, MapData, MapError};

use super::{Tracer, TracerConfig, family};
use crate::host::procfs;

impl Tracer {
    /// Admits a process.
    ///
    /// # Errors
    ///
    /// Fails if the map is full.
    pub fn admit(&mut self, pid: u32) -> anyhow::Result<()> {
        self.pids()?
            .insert(pid, 1, 0)
            .with_context(|| format!("cannot add process {pid} to the filter"))
    }

    /// Stops admitting a process.
    ///
    /// # Errors
    ///
    /// Fails if the filter cannot be changed; removing an absent process is no error.
    pub fn remove_pid(&mut self, pid: u32) -> anyhow::Result<()> {
        match self.pids()?.remove(&pid) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(why) => {
                Err(why).with_context(|| format!("cannot remove process {pid} from the filter"))
            }
        }
    }

    /// Follows the existing descendants of named processes. The programs observe later forks, so
    /// that repeating the search finds the descendants of a process that was missed.
    pub(super) fn adopt(&mut self, config: &TracerConfig) -> anyhow::Result<()> {
        const LOOKS_MAX: usize = 16;
        let mut known = BTreeSet::new();
        for _ in 0..LOOKS_MAX {
            let found = family::descendants(&family::parents(), &config.pids);
            let new: Vec<u32> = found.difference(&known).copied().collect();
            if new.is_empty() {
                break;
            }
            for pid in &new {
                // The BPF side keeps followed processes by their id in the initial PID namespace,
                // which is unknown in another one: there they are added as named processes.
                match config.pid_namespace {
                    None => self.follow(*pid)?,
                    Some(_) => {
                        if let Err(why) = self.admit(*pid) {
                            log::warn!("descendants are no longer followed: {why:#}");
                            return Ok(());
                        }
                    }
                }
                if !procfs::of(*pid).exists() {
                    self.let_go(*pid)?;
                }
            }
            known.extend(new);
        }
        Ok(())
    }

    fn follow(&mut self, tgid: u32) -> anyhow::Result<()> {
        self.family()?
            .insert(tgid, 1, 0)
            .with_context(|| format!("cannot follow process {tgid}"))
    }

    /// Removes a process that ended before it was followed, so that its end was not observed.
    fn let_go(&mut self, pid: u32) -> anyhow::Result<()> {
        self.remove_pid(pid)?;
        match self.family()?.remove(&pid) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(why) => Err(why).with_context(|| format!("cannot stop following process {pid}")),
        }
    }

    fn family(&mut self) -> anyhow::Result<HashMap<&mut MapData, u32, u8>> {
        self.processes("FAMILY")
    }

    /// True if a followed child is alive (the programs remove them when they end).
    ///
    /// # Errors
    ///
    /// Fails if the filter cannot be read.
    pub fn has_children(&self) -> anyhow::Result<bool> {
        let map = self
            .ebpf
            .map("FAMILY")
            .context("the BPF object has no map FAMILY")?;
        let family: HashMap<_, u32, u8> =
            HashMap::try_from(map).context("map FAMILY has another type")?;
        Ok(family.keys().next().is_some())
    }

    fn pids(&mut self) -> anyhow::Result<HashMap<&mut MapData, u32, u8>> {
        self.processes("PIDS")
    }

    /// A map of process ids.
    fn processes(&mut self, name: &str) -> anyhow::Result<HashMap<&mut MapData, u32, u8>> {
        let map = self
            .ebpf
            .map_mut(name)
            .with_context(|| format!("the BPF object has no map {name}"))?;
        HashMap::try_from(map).with_context(|| format!("map {name} has another type"))
    }

    pub(super) fn fill_filters(&mut self, config: &TracerConfig) -> anyhow::Result<()> {
        for pid in &config.pids {
            self.admit(*pid)?;
        }
        let map = self
            .ebpf
            .map_mut("COMMS")
            .context("the BPF object has no map COMMS")?;
        let mut comms: HashMap<_, [u8; 16], u8> = HashMap::try_from(map)?;
        for comm in &config.comms {
            comms
                .insert(comm, 1, 0)
                .context("too many names for --comm")?;
        }
        let map = self
            .ebpf
            .map_mut("NETNS")
            .context("the BPF object has no map NETNS")?;
        let mut netns: HashMap<_, u32, u8> = HashMap::try_from(map)?;
        for inum in &config.netns {
            netns
                .insert(inum, 1, 0)
                .context("too many namespaces for --netns")?;
        }
        Ok(())
    }
}
