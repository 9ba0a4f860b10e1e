//! What is left of a stage, until the tracer has ended.

use std::{fs::File, os::fd::AsFd as _};

use crate::{
    actor::Actor,
    netns::{self, Counters, Namespaces},
};

/// What remains of a stage. The actors stay alive, so that the namespaces can still be found
/// through their processes.
pub struct Cleared {
    pub(super) near: File,
    pub(super) far: File,
    pub(super) before: [Counters; 2],
    pub(super) _actors: (Actor, Actor, Option<Actor>),
}

impl Cleared {
    /// Inode numbers of the client's and the server's namespace.
    ///
    /// # Errors
    ///
    /// Fails if the namespaces are gone.
    pub fn numbers(&self) -> anyhow::Result<Namespaces> {
        Ok(Namespaces {
            near: netns::number(self.near.as_fd())?,
            far: netns::number(self.far.as_fd())?,
        })
    }

    /// Counter changes in each namespace up to now.
    ///
    /// # Errors
    ///
    /// Fails if the counters cannot be read.
    pub fn moved(&self) -> anyhow::Result<[Counters; 2]> {
        let [near, far] = &self.before;
        Ok([
            netns::moved(near, &netns::counters(self.near.as_fd())?),
            netns::moved(far, &netns::counters(self.far.as_fd())?),
        ])
    }

    /// Names of the MPTCP counters of this kernel.
    #[must_use]
    pub fn counter_names(&self) -> Vec<String> {
        self.before[0].keys().cloned().collect()
    }
}
