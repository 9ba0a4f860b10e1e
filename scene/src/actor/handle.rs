//! An actor as whoever gives the orders has it.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::BorrowedFd,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::{Done, Order, Reply};
use crate::{lines::write_line, netns};

/// A process that does what it is told, until this is dropped.
pub struct Actor {
    name: String,
    child: Child,
    /// None once there are no more orders.
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts one in a network namespace.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be started.
    pub fn start(name: &str, namespace: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let me = std::env::current_exe().context("cannot find myself")?;
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

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits for what comes of it.
    ///
    /// # Errors
    ///
    /// Fails if the actor is gone.
    pub fn try_order(&mut self, order: &Order) -> anyhow::Result<Reply> {
        let orders = self.orders.as_mut().context("there are no more orders")?;
        write_line(orders, order).with_context(|| format!("{} is gone", self.name))?;
        let mut line = String::new();
        let length = self.replies.read_line(&mut line);
        if length.with_context(|| format!("cannot hear {}", self.name))? == 0 {
            bail!("{} is gone instead of doing {order:?}", self.name);
        }
        serde_json::from_str(&line).with_context(|| format!("{} says {line:?}", self.name))
    }

    /// Gives an order that must be obeyed.
    ///
    /// # Errors
    ///
    /// Says what the actor could not do.
    pub fn order(&mut self, order: &Order) -> anyhow::Result<Done> {
        match self.try_order(order)? {
            Reply::Done(done) => Ok(done),
            Reply::Failed { why, errno: _ } => bail!("{}: {why}", self.name),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // The end of the orders is the end of the actor; what it had open is closed when it is gone.
        self.orders = None;
        let _gone_already = self.child.wait();
    }
}
