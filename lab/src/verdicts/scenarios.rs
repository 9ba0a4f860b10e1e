//! Scenarios: what applications query, and when, on connections that fall back or do not, with the
//! expected verdicts.

use std::{thread::sleep, time::Duration};

use crate::{
    net::Kind::{Mptcp, Tcp},
    question::Api,
    recipes::{
        DROP_CAPABLE_SYNS, Held, NotHere, STRIP_BOTH_AFTER_3, STRIP_SYN_ACK, Stage, Sysctl, Who,
    },
    rules::Rules,
};

/// The socket concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// The connecting socket.
    Client,
    /// The accepted socket.
    Server,
    /// The listening socket.
    Listener,
}

/// Expected verdicts of one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) at: At,
    /// Index of the connection, in the order in which the script creates them.
    pub(super) connection: usize,
    /// Verdicts on the answers in order, with consecutive repeats collapsed.
    pub(super) told: &'static [&'static str],
    /// Closing verdict.
    pub(super) at_end: Option<&'static str>,
    /// Accepted causes, wherever a verdict names one.
    pub(super) causes: &'static [&'static str],
    /// Whether the API exists also on kernels without `TCP_IS_MPTCP`.
    pub(super) everywhere: bool,
    /// Verdicts allowed instead with an attach method one of whose limits contains this word.
    pub(super) limited: Option<(&'static str, &'static [&'static str])>,
}

impl Expected {
    /// Verdicts on the answers on this kernel.
    pub(super) fn told_here(&self, has_option: bool) -> &'static [&'static str] {
        if self.told.is_empty() || has_option || self.everywhere {
            self.told
        } else {
            &["unsupported"]
        }
    }

    /// Closing verdict on this kernel: an application that got no answer holds no wrong belief. One
    /// that queries only the second connection of a socket never queried the first.
    pub(super) fn at_end_here(&self, has_option: bool) -> Option<&'static str> {
        let is_told = self.told.is_empty() || has_option || self.everywhere;
        self.at_end.filter(|word| is_told || *word == NEVER)
    }
}

/// Optional requirement of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// A Python interpreter.
    Python,
    /// The program in Go (lab/go).
    Go,
}

/// External programs.
#[derive(Clone, Copy)]
pub(super) struct Programs<'a> {
    pub(super) go: Option<&'a std::path::Path>,
}

type Script = fn(&mut Stage, Programs<'_>) -> anyhow::Result<()>;

/// Applications, their queries, and the environment.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Rules of the middlebox.
    pub(super) rules: Rules,
    /// Sysctls to set in both namespaces.
    pub(super) sysctls: &'static [Sysctl],
    /// Actions before the tracer's start.
    pub(super) before: Option<Script>,
    /// Actions while the tracer runs.
    pub(super) script: Script,
    pub(super) expected: &'static [Expected],
    /// Answers that the kernel must give, by query name.
    pub(super) answers: &'static [(&'static str, &'static str)],
    /// Expected periods in which MPTCP is disabled in the client's namespace, milliseconds.
    pub(super) off_ms: &'static [u64],
    pub(super) needs: &'static [Need],
}

const SYN_ACK: &[&str] = &["MPCapableFallbackSYNACK"];
const THIRD_ACK: &[&str] = &["MPCapableFallbackACK"];
const DSS: &[&str] = &["DssFallback"];

const EXPLAINED: &[&str] = &["explained"];
const STILL: &[&str] = &["still-mptcp"];
const NEVER: &str = "never-asked";
const EARLY: &[&str] = &["too-early"];
const UNEXPLAINED: &[&str] = &["unexplained"];
const PLAIN: &[&str] = &["plain-tcp"];
const FELL: &[&str] = &["still-mptcp", "explained"];

const NOTHING: Expected = Expected {
    at: At::Client,
    connection: 0,
    told: &[],
    at_end: None,
    causes: &[],
    everywhere: false,
    limited: None,
};
const SERVER: Expected = Expected {
    at: At::Server,
    ..NOTHING
};

const fn client(told: &'static [&'static str], causes: &'static [&'static str]) -> Expected {
    Expected {
        told,
        causes,
        ..NOTHING
    }
}

const fn server(told: &'static [&'static str], causes: &'static [&'static str]) -> Expected {
    Expected {
        told,
        causes,
        ..SERVER
    }
}

const fn then(row: Expected, at_end: &'static str) -> Expected {
    Expected {
        at_end: Some(at_end),
        ..row
    }
}

/// Uses an API that every kernel with MPTCP has.
const fn everywhere(row: Expected) -> Expected {
    Expected {
        everywhere: true,
        ..row
    }
}

const EMPTY: Scenario = Scenario {
    name: "",
    rules: Rules::NONE,
    sysctls: &[],
    before: None,
    script: healthy,
    expected: &[],
    answers: &[],
    off_ms: &[],
    needs: &[],
};
const BOTH_TCP: &[(&str, &str)] = &[("client-after", "0"), ("server-after", "0")];
const BOTH_MPTCP: &[(&str, &str)] = &[("client-after", "1"), ("server-after", "1")];
const BOTH_MPTCP_BEFORE: &[(&str, &str)] = &[("client-before", "1"), ("server-before", "1")];
const OFF: &[Sysctl] = &[Sysctl {
    name: "net.mptcp.enabled",
    value: "0",
    must: true,
}];

const OFF_FOR_A_MINUTE: &[Sysctl] = &[
    Sysctl {
        name: "net.mptcp.blackhole_timeout",
        value: "60",
        must: true,
    },
    // The first retransmitted SYN is already without MPTCP.
    Sysctl {
        name: "net.mptcp.syn_retrans_before_tcp_fallback",
        value: "0",
        must: false,
    },
];

/// Every scenario, in the order of execution.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "explained",
        script: to_tcp,
        expected: &[client(EXPLAINED, SYN_ACK), server(PLAIN, &[])],
        answers: BOTH_TCP,
        ..EMPTY
    },
    Scenario {
        name: "explained-at-once",
        script: asked_at_once,
        expected: &[client(EXPLAINED, SYN_ACK)],
        answers: &[("client-after", "0")],
        ..EMPTY
    },
    Scenario {
        name: "explained-midway",
        rules: STRIP_BOTH_AFTER_3,
        script: asked_after_many,
        expected: &[client(EXPLAINED, DSS), server(EXPLAINED, DSS)],
        answers: BOTH_TCP,
        ..EMPTY
    },
    Scenario {
        name: "explained-handshake",
        rules: STRIP_SYN_ACK,
        script: asked_after_one,
        expected: &[
            client(EXPLAINED, SYN_ACK),
            Expected {
                limited: Some(("MPCapableFallbackACK", PLAIN)),
                ..server(EXPLAINED, THIRD_ACK)
            },
        ],
        answers: BOTH_TCP,
        ..EMPTY
    },
    Scenario {
        name: "plain-tcp",
        script: from_tcp,
        expected: &[client(PLAIN, &[]), server(PLAIN, &[])],
        answers: BOTH_TCP,
        ..EMPTY
    },
    Scenario {
        name: "still-mptcp",
        expected: &[client(STILL, &[]), server(STILL, &[])],
        answers: BOTH_MPTCP,
        ..EMPTY
    },
    Scenario {
        name: "too-early-then-tcp",
        script: asked_too_early_then_tcp,
        expected: &[then(client(EARLY, SYN_ACK), "too-early")],
        answers: &[("client-before", "1")],
        ..EMPTY
    },
    Scenario {
        name: "too-early-then-mptcp",
        script: asked_too_early_then_mptcp,
        expected: &[client(EARLY, &[])],
        answers: &[("client-before", "1")],
        ..EMPTY
    },
    Scenario {
        name: "too-early-then-right",
        script: asked_too_early_and_after,
        expected: &[client(&["too-early", "explained"], SYN_ACK)],
        answers: &[("client-before", "1"), ("client-after", "0")],
        ..EMPTY
    },
    Scenario {
        name: "too-early-listener",
        script: asked_listener,
        expected: &[
            Expected {
                at: At::Listener,
                told: EARLY,
                ..NOTHING
            },
            server(PLAIN, &[]),
        ],
        answers: &[("listener", "1"), ("server-after", "0")],
        ..EMPTY
    },
    Scenario {
        name: "stale",
        rules: STRIP_BOTH_AFTER_3,
        script: asked_before_many,
        expected: &[
            then(client(STILL, DSS), "stale"),
            then(server(STILL, DSS), "stale"),
        ],
        answers: BOTH_MPTCP_BEFORE,
        ..EMPTY
    },
    Scenario {
        name: "never-asked",
        script: never_asked,
        expected: &[then(client(&[], SYN_ACK), "never-asked")],
        ..EMPTY
    },
    Scenario {
        name: "never-asked-midway",
        rules: STRIP_BOTH_AFTER_3,
        script: never_asked_midway,
        expected: &[
            then(client(&[], DSS), "never-asked"),
            then(server(&[], DSS), "never-asked"),
        ],
        ..EMPTY
    },
    Scenario {
        name: "poller",
        rules: STRIP_BOTH_AFTER_3,
        script: polled,
        expected: &[client(FELL, DSS), server(FELL, DSS)],
        ..EMPTY
    },
    Scenario {
        name: "unexplained",
        before: Some(never_asked),
        script: asked_client,
        expected: &[client(UNEXPLAINED, &[])],
        answers: &[("client-after", "0")],
        ..EMPTY
    },
    Scenario {
        name: "unexplained-midway",
        rules: STRIP_BOTH_AFTER_3,
        before: Some(never_asked_midway),
        script: asked_both,
        expected: &[client(UNEXPLAINED, &[]), server(UNEXPLAINED, &[])],
        answers: BOTH_TCP,
        ..EMPTY
    },
    Scenario {
        name: "stale-of-old",
        rules: STRIP_BOTH_AFTER_3,
        before: Some(begun),
        script: asked_before_rest,
        expected: &[
            then(client(STILL, DSS), "stale"),
            then(server(STILL, DSS), "stale"),
        ],
        answers: BOTH_MPTCP_BEFORE,
        ..EMPTY
    },
    Scenario {
        name: "reconnect",
        script: reconnected,
        // The first connection fell back, and ends when the socket connects again.
        expected: &[Expected {
            connection: 1,
            ..then(
                client(&["too-early", "still-mptcp"], SYN_ACK),
                "never-asked",
            )
        }],
        answers: &[("client-disconnected", "1"), ("client-second", "1")],
        ..EMPTY
    },
    Scenario {
        name: "reconnect-asked",
        script: reconnected_asked,
        expected: &[Expected {
            connection: 1,
            ..client(
                &["explained", "too-early", "still-mptcp", "explained"],
                SYN_ACK,
            )
        }],
        answers: &[
            ("client-first", "0"),
            ("client-disconnected", "1"),
            ("client-second", "1"),
            ("client-third", "0"),
        ],
        ..EMPTY
    },
    Scenario {
        name: "misled",
        script: misled_after,
        expected: &[everywhere(client(&["misled"], SYN_ACK))],
        answers: &[("client-after", "262")],
        ..EMPTY
    },
    Scenario {
        name: "misled-before",
        rules: STRIP_BOTH_AFTER_3,
        script: misled_before,
        expected: &[
            then(everywhere(client(STILL, DSS)), "misled"),
            then(everywhere(server(STILL, DSS)), "misled"),
        ],
        answers: &[("client-before", "262"), ("server-before", "262")],
        ..EMPTY
    },
    Scenario {
        name: "asked-otherwise",
        rules: STRIP_BOTH_AFTER_3,
        script: asked_otherwise,
        expected: &[everywhere(client(FELL, DSS)), everywhere(server(FELL, DSS))],
        ..EMPTY
    },
    Scenario {
        name: "asked-full-info",
        rules: STRIP_BOTH_AFTER_3,
        script: asked_full_info,
        expected: &[everywhere(client(FELL, DSS)), everywhere(server(FELL, DSS))],
        ..EMPTY
    },
    Scenario {
        name: "socket-refused",
        sysctls: OFF,
        script: refused,
        answers: &[("socket", "ENOPROTOOPT")],
        ..EMPTY
    },
    Scenario {
        name: "option-refused",
        script: options_of_mptcp,
        answers: &[
            ("TCP_MD5SIG before", "ENOPROTOOPT"),
            ("TCP_ULP before", "ENOPROTOOPT"),
            ("TCP_MD5SIG after", "ENOPROTOOPT"),
            ("TCP_ULP after", "ENOPROTOOPT"),
        ],
        ..EMPTY
    },
    Scenario {
        name: "option-refused-by-tcp",
        script: options_of_tcp,
        expected: &[then(client(&[], SYN_ACK), "never-asked")],
        ..EMPTY
    },
    Scenario {
        name: "option-refused-midway",
        rules: STRIP_BOTH_AFTER_3,
        script: options_midway,
        expected: &[
            then(client(&[], DSS), "never-asked"),
            then(server(&[], DSS), "never-asked"),
        ],
        ..EMPTY
    },
    Scenario {
        name: "switched-off",
        rules: DROP_CAPABLE_SYNS,
        sysctls: OFF_FOR_A_MINUTE,
        script: switched_off,
        expected: &[
            client(EXPLAINED, &["MPCapableSYNTXDrop"]),
            server(PLAIN, &[]),
            Expected {
                connection: 1,
                ..client(EXPLAINED, &["MPCapableSYNTXDisabled"])
            },
            Expected {
                connection: 1,
                ..server(PLAIN, &[])
            },
        ],
        answers: BOTH_TCP,
        off_ms: &[60_000],
        ..EMPTY
    },
    Scenario {
        name: "python",
        script: python,
        expected: &[client(EXPLAINED, SYN_ACK)],
        answers: &[("client-after", "0")],
        needs: &[Need::Python],
        ..EMPTY
    },
    Scenario {
        name: "go-to-tcp",
        script: go_to_tcp,
        expected: &[everywhere(client(EXPLAINED, SYN_ACK))],
        answers: &[("client-after", "false")],
        needs: &[Need::Go],
        ..EMPTY
    },
    Scenario {
        name: "go-to-mptcp",
        script: go_to_mptcp,
        expected: &[everywhere(client(STILL, &[])), server(STILL, &[])],
        answers: &[("client-after", "true"), ("server-after", "1")],
        needs: &[Need::Go],
        ..EMPTY
    },
];

/// Rounds in which the middlebox passes the options.
const ROUNDS_BEFORE: u32 = 2;
/// Rounds after which both ends have noticed that it strips them.
const ROUNDS_AFTER: u32 = 6;
/// Pause of a poller between two queries.
const POLLED_EVERY: Duration = Duration::from_millis(3);
/// How long to poll while nothing else happens.
const QUIET: Duration = Duration::from_millis(60);

fn healthy(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 6)?;
    stage.ask_both("after")
}

fn to_tcp(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    never_asked(stage, programs)?;
    stage.ask_both("after")
}

fn asked_at_once(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    stage.ask("client-after", Who::Client)
}

fn asked_after_many(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    never_asked_midway(stage, programs)?;
    stage.ask_both("after")
}

fn asked_after_one(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

fn from_tcp(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.pair(Tcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

fn asked_too_early(stage: &mut Stage) -> anyhow::Result<()> {
    stage.open(Mptcp)?;
    stage.ask("client-before", Who::Client)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)
}

fn asked_too_early_then_tcp(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    asked_too_early(stage)?;
    stage.talk(Who::Client, Who::Server, 1)
}

fn asked_too_early_then_mptcp(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    asked_too_early(stage)?;
    stage.talk(Who::Client, Who::Server, 6)
}

fn asked_too_early_and_after(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    asked_too_early_then_tcp(stage, programs)?;
    stage.ask("client-after", Who::Client)
}

/// The listener answers MPTCP; the socket that it accepts is not.
fn asked_listener(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.pair(Tcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_listener("listener")?;
    stage.ask("server-after", Who::Server)
}

fn begun(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_BEFORE)
}

fn asked_before_rest(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.ask_both("before")?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)
}

fn asked_before_many(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    begun(stage, programs)?;
    asked_before_rest(stage, programs)
}

fn never_asked(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.pair(Mptcp, Tcp)?;
    stage.talk(Who::Client, Who::Server, 1)
}

fn never_asked_midway(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    begun(stage, programs)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)
}

fn polled(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.pair(Mptcp, Mptcp)?;
    stage.poll_both(POLLED_EVERY)?;
    sleep(QUIET);
    stage.talk(Who::Client, Who::Server, ROUNDS_BEFORE + ROUNDS_AFTER)?;
    sleep(QUIET);
    stage.polled_both()
}

fn asked_client(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.ask("client-after", Who::Client)
}

fn asked_both(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.ask_both("after")
}

fn connect_again(stage: &mut Stage) -> anyhow::Result<()> {
    stage.connect(Who::Client).map_err(|why| {
        if format!("{why:#}").contains("Invalid argument") {
            // Linux 6.17.13 does, and leaves the old subflow as it was.
            NotHere("this kernel connects no MPTCP socket again after connect(AF_UNSPEC)").into()
        } else {
            why
        }
    })?;
    stage.accept(Who::Server)
}

fn reconnected(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    never_asked(stage, programs)?;
    reconnect(stage)
}

fn reconnect(stage: &mut Stage) -> anyhow::Result<()> {
    stage.disconnect()?;
    stage.ask("client-disconnected", Who::Client)?;
    stage.listen(Mptcp)?;
    connect_again(stage)?;
    stage.talk(Who::Client, Who::Server, 2)?;
    stage.ask("client-second", Who::Client)
}

fn reconnected_asked(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    never_asked(stage, programs)?;
    stage.ask("client-first", Who::Client)?;
    reconnect(stage)?;
    stage.disconnect()?;
    stage.listen(Tcp)?;
    connect_again(stage)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask("client-third", Who::Client)
}

fn misled_after(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    never_asked(stage, programs)?;
    stage.ask_by("client-after", Who::Client, Api::SoProtocol)
}

fn misled_before(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    begun(stage, programs)?;
    stage.ask_by("client-before", Who::Client, Api::SoProtocol)?;
    stage.ask_by("server-before", Who::Server, Api::SoProtocol)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)
}

fn asked_otherwise(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    before_and_after(
        stage,
        programs,
        &[Api::MptcpInfo, Api::MptcpTcpinfo, Api::MptcpSubflowAddrs],
    )
}

fn asked_full_info(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    before_and_after(stage, programs, &[Api::MptcpFullInfo])
}

fn before_and_after(
    stage: &mut Stage,
    programs: Programs<'_>,
    questions: &[Api],
) -> anyhow::Result<()> {
    begun(stage, programs)?;
    for &api in questions {
        stage.ask_by("client-before", Who::Client, api)?;
        if stage.answers.last().is_some_and(|(_, told)| told != "ok") {
            return Err(NotHere("this kernel does not know the question").into());
        }
        stage.ask_by("server-before", Who::Server, api)?;
    }
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)?;
    for &api in questions {
        stage.ask_by("client-after", Who::Client, api)?;
        stage.ask_by("server-after", Who::Server, api)?;
    }
    Ok(())
}

fn refused(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.open_refused(Mptcp)
}

fn options_of_mptcp(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    stage.open(Mptcp)?;
    stage.try_options("before", Who::Client, Held::Mptcp)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.try_options("after", Who::Client, Held::Mptcp)?;
    stage.try_options("after", Who::Server, Held::Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)
}

/// TCP refuses some of them with the same errors: on a TCP socket, and on one that fell back.
fn options_of_tcp(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    never_asked(stage, programs)?;
    stage.try_options("after", Who::Client, Held::Tcp)?;
    stage.try_options("after", Who::Server, Held::Tcp)
}

fn options_midway(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    begun(stage, programs)?;
    stage.try_options("before", Who::Client, Held::Mptcp)?;
    stage.try_options("before", Who::Server, Held::Mptcp)?;
    stage.talk(Who::Client, Who::Server, ROUNDS_AFTER)?;
    stage.try_options("after", Who::Client, Held::Tcp)?;
    stage.try_options("after", Who::Server, Held::Tcp)
}

/// The first connection detects that MPTCP SYNs are lost; it affects the second one.
fn switched_off(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    if !stage.counts("MPCapableSYNTXDrop") {
        return Err(NotHere("this kernel does not switch MPTCP off for a while").into());
    }
    stage.pair(Mptcp, Mptcp)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")?;
    stage.close_pair()?;
    stage.open(Mptcp)?;
    stage.connect(Who::Client)?;
    stage.accept(Who::Server)?;
    stage.talk(Who::Client, Who::Server, 1)?;
    stage.ask_both("after")
}

const PYTHON: &str = r#"
import errno, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
connection = socket.socket(family, socket.SOCK_STREAM, 262)
connection.connect((address, port))
connection.sendall(b"a" * 20)
connection.recv(20)
try:
    told = connection.getsockopt(socket.IPPROTO_TCP, 43)
except OSError as why:
    told = errno.errorcode[why.errno]
print(connection.getsockname()[1], told, flush=True)
sys.stdin.read()
"#;

fn python(stage: &mut Stage, _: Programs<'_>) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    stage.run_program("python3".as_ref(), &["-c", PYTHON])
}

fn go(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    let program = programs.go.ok_or(NotHere("no program in Go was given"))?;
    stage.run_program(program, &[])
}

fn go_to_tcp(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    stage.listen(Tcp)?;
    go(stage, programs)
}

fn go_to_mptcp(stage: &mut Stage, programs: Programs<'_>) -> anyhow::Result<()> {
    stage.listen(Mptcp)?;
    go(stage, programs)?;
    stage.ask("server-after", Who::Server)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_every_verdict_that_can_be_provoked_is_expected() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        let words: BTreeSet<&str> = SCENARIOS
            .iter()
            .flat_map(|scenario| scenario.expected)
            .flat_map(|row| row.told.iter().copied().chain(row.at_end))
            .collect();
        // "contradicted" is a bug, and "unsupported" is every answer on a kernel without the
        // option.
        let known = [
            "explained",
            "misled",
            "never-asked",
            "plain-tcp",
            "stale",
            "still-mptcp",
            "too-early",
            "unexplained",
        ];
        assert_eq!(words, BTreeSet::from(known));
    }

    #[test]
    fn a_kernel_without_the_option_leaves_no_belief() {
        let row = then(client(STILL, DSS), "stale");
        assert_eq!(row.told_here(true), STILL);
        assert_eq!(row.at_end_here(true), Some("stale"));
        assert_eq!(row.told_here(false), ["unsupported"]);
        assert_eq!(row.at_end_here(false), None);
        let never = then(client(&[], DSS), "never-asked");
        assert_eq!(never.at_end_here(false), Some("never-asked"));
        assert_eq!(everywhere(row).at_end_here(false), Some("stale"));
        let again = then(client(&["still-mptcp"], DSS), "never-asked");
        assert_eq!(again.at_end_here(false), Some("never-asked"));
    }
}
