//! A program that is not part of the lab, on the client's side of a stage.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::{ARRIVE_MS_MAX, MESSAGE_BYTES, SERVER, Stage};
use crate::{actor::Order, netns, recipes::cast::Who};

impl Stage {
    /// Runs an external program that connects to the listener, sends a message, receives one, and
    /// prints one line with its port and the answer to its query. It gets the address and the port
    /// as its last arguments and exits when its stdin is closed.
    ///
    /// # Errors
    ///
    /// Names the step that failed.
    pub fn run_program(&mut self, program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        let to = self.target.context("the server does not listen")?;
        let name = program.display();
        let mut child = netns::within(self.bed.near(), || {
            Command::new(program)
                .args(arguments)
                .args([to.ip().to_string(), to.port().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot run {name}"))
        })?;
        self.children.push((Who::Program, child.id()));
        let said = child.stdout.take().context("it has no stdout")?;
        self.program = Some(child);
        self.accept(Who::Server)?;
        let bytes = MESSAGE_BYTES;
        let socket = || SERVER.to_owned();
        let heard = self.order(
            Who::Server,
            Order::Recv {
                socket: socket(),
                bytes,
                patience_ms: ARRIVE_MS_MAX,
            },
        )?;
        ensure!(
            heard.bytes == Some(bytes),
            "{name} sent {:?} bytes",
            heard.bytes
        );
        let socket = socket();
        self.order(Who::Server, Order::Send { socket, bytes })?;
        let mut line = String::new();
        BufReader::new(said)
            .read_line(&mut line)
            .with_context(|| format!("cannot read from {name}"))?;
        let (port, answer) = line
            .trim()
            .split_once(' ')
            .with_context(|| format!("{name} says {line:?}"))?;
        let port = port
            .parse()
            .with_context(|| format!("{name} says {line:?}"))?;
        let own = SocketAddr::new(self.bed.addresses(self.family).0, port);
        self.connections.push((own.into(), to.into()));
        self.answers.push(("client-after".into(), answer.into()));
        Ok(())
    }
}
