//! What the actors of a stage query and try.

use std::time::Duration;

use anyhow::Context as _;

use super::{LISTENER, Stage, own_socket};
use crate::{
    actor::Order,
    option::CHOICES,
    query::Api,
    recipes::cast::{Aim, Held, Tried, Who},
};

impl Stage {
    /// Queries `TCP_IS_MPTCP` at one end.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask(&mut self, name: &str, who: Who) -> anyhow::Result<()> {
        self.ask_by(name, who, Api::TcpIsMptcp)
    }

    /// Queries one end with one of the APIs.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask_by(&mut self, name: &str, who: Who, api: Api) -> anyhow::Result<()> {
        self.ask_about(name, who, own_socket(who), api)
    }

    /// Queries `TCP_IS_MPTCP` on the listening socket.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask_listener(&mut self, name: &str) -> anyhow::Result<()> {
        self.ask_about(name, Who::Server, LISTENER, Api::TcpIsMptcp)
    }

    fn ask_about(&mut self, name: &str, who: Who, socket: &str, api: Api) -> anyhow::Result<()> {
        let socket = socket.into();
        let done = self.order(who, Order::Ask { socket, api })?;
        let answer = done.answer.context("no answer")?;
        self.answers.push((name.to_owned(), answer));
        Ok(())
    }

    /// Tries every option at one end; records the results of the named ones as answers.
    ///
    /// # Errors
    ///
    /// Fails if an end is missing.
    pub fn try_options(&mut self, when: &str, who: Who, held: Held) -> anyhow::Result<()> {
        for &choice in CHOICES {
            let order = Order::Try {
                socket: own_socket(who).into(),
                attempt: choice.into(),
            };
            let done = self.order(who, order)?;
            let told = done.answer.context("no answer")?;
            if let Some(name) = choice.name {
                self.answers.push((format!("{name} {when}"), told.clone()));
            }
            self.tried.push(Tried {
                who,
                pid: done.pid,
                what: Aim::Option {
                    choice,
                    held,
                    local: done.local.context("a socket without an address")?,
                    remote: done.remote,
                },
                told,
            });
        }
        Ok(())
    }

    /// Makes both ends poll `TCP_IS_MPTCP` from now on.
    ///
    /// # Errors
    ///
    /// Fails if an end is missing.
    pub fn poll_both(&mut self, every: Duration) -> anyhow::Result<()> {
        for who in [Who::Client, Who::Server] {
            let order = Order::Poll {
                socket: own_socket(who).into(),
                every_ms: every.as_millis() as u64,
            };
            self.order(who, order)?;
        }
        Ok(())
    }

    /// Stops polling; records its answers, with consecutive repeats collapsed.
    ///
    /// # Errors
    ///
    /// Fails if no poller is running.
    pub fn polled_both(&mut self) -> anyhow::Result<()> {
        for (who, name) in [
            (Who::Client, "client-polled"),
            (Who::Server, "server-polled"),
        ] {
            let done = self.order(who, Order::Polled)?;
            let answer = done.answer.context("no answer")?;
            self.answers.push((name.to_owned(), answer));
        }
        Ok(())
    }

    /// Queries both ends.
    ///
    /// # Errors
    ///
    /// Fails if there is no answer at all.
    pub fn ask_both(&mut self, when: &str) -> anyhow::Result<()> {
        self.ask(&format!("client-{when}"), Who::Client)?;
        self.ask(&format!("server-{when}"), Who::Server)
    }
}
