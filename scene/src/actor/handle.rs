//! Handle to an actor process, for the process that gives the orders.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::BorrowedFd,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::{Done, Order, Reply};
use crate::{lines::write_line, netns};

/// A running actor; dropping the handle ends the process.
pub struct Actor {
    name: String,
    child: Child,
    /// None once stdin of the actor is closed.
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts an actor in a network namespace.
    ///
    /// # Errors
    ///
    /// Fails if the process cannot be started.
    pub fn start(name: &str, namespace: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let me = std::env::current_exe().context("cannot find the path of this program")?;
        let mut child = netns::within(namespace, || {
            Command::new(&me)
                .args(["actor", "--name", name])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {name}"))
        })?;
        let orders = child.stdin.take();
        let replies = child.stdout.take().context("an actor has no stdout")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            orders,
            replies: BufReader::new(replies),
        })
    }

    /// Process number of the actor.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends an order and waits for its result.
    ///
    /// # Errors
    ///
    /// Fails if the actor has exited.
    pub fn try_order(&mut self, order: &Order) -> anyhow::Result<Reply> {
        let orders = self
            .orders
            .as_mut()
            .context("the actor's stdin is closed")?;
        write_line(orders, order).with_context(|| format!("{} is gone", self.name))?;
        let mut line = String::new();
        let length = self.replies.read_line(&mut line);
        if length.with_context(|| format!("cannot read from {}", self.name))? == 0 {
            bail!("{} exited instead of carrying out {order:?}", self.name);
        }
        serde_json::from_str(&line).with_context(|| format!("{} says {line:?}", self.name))
    }

    /// Sends an order that must succeed.
    ///
    /// # Errors
    ///
    /// Fails with the actor's error message.
    pub fn order(&mut self, order: &Order) -> anyhow::Result<Done> {
        match self.try_order(order)? {
            Reply::Done(done) => Ok(done),
            Reply::Failed { why, errno: _ } => bail!("{}: {why}", self.name),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Closing stdin ends the actor; the kernel closes its sockets when it exits.
        self.orders = None;
        let _gone_already = self.child.wait();
    }
}
