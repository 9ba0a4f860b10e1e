//! Where a recipe is played: two network namespaces with a middlebox between them, on one path or on
//! two, or a single namespace.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Context as _;

use crate::{
    middlebox::{self, Middlebox},
    net::Family,
    netns,
    rules::Rules,
};

/// Environment of a recipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Loopback, in one namespace.
    Loopback,
    /// Through a middlebox, between two namespaces.
    Middlebox,
    /// On two paths through a middlebox, between two namespaces.
    TwoPaths,
}

/// The network namespaces and the devices between them.
pub struct TestBed {
    middlebox: Option<Middlebox>,
    near: File,
    far: File,
}

impl TestBed {
    /// Creates the namespaces.
    ///
    /// # Errors
    ///
    /// Fails without root, or if the kernel lacks a feature.
    pub fn new(place: Place, rules: Rules) -> anyhow::Result<Self> {
        match place {
            Place::Loopback => {
                let near = netns::new()?;
                let far = near.try_clone().context("cannot share the namespace")?;
                Ok(Self {
                    middlebox: None,
                    near,
                    far,
                })
            }
            Place::Middlebox | Place::TwoPaths => {
                let middlebox = match place {
                    Place::TwoPaths => Middlebox::with_two_paths()?,
                    Place::Loopback | Place::Middlebox => Middlebox::new()?,
                };
                middlebox.set(rules)?;
                let own = |fd: BorrowedFd<'_>| anyhow::Ok(File::from(fd.try_clone_to_owned()?));
                Ok(Self {
                    near: own(middlebox.near())?,
                    far: own(middlebox.far())?,
                    middlebox: Some(middlebox),
                })
            }
        }
    }

    /// Replaces the rules of a path, numbered from 0.
    ///
    /// # Errors
    ///
    /// Fails if there is no such path, or with the kernel's error.
    pub fn set_rules(&self, path: usize, rules: Rules) -> anyhow::Result<()> {
        let middlebox = self.middlebox.as_ref();
        middlebox
            .context("there is no middlebox")?
            .set_on(path, rules)
    }

    /// The client's network namespace.
    #[must_use]
    pub fn near(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }

    /// The server's network namespace.
    #[must_use]
    pub fn far(&self) -> BorrowedFd<'_> {
        self.far.as_fd()
    }

    /// Addresses of the client and the server.
    #[must_use]
    pub fn addresses(&self, family: Family) -> (IpAddr, IpAddr) {
        match self.middlebox {
            None => (family.loopback().ip(), family.loopback().ip()),
            Some(_) => (
                middlebox::client_address(family),
                middlebox::server_address(family),
            ),
        }
    }
}
