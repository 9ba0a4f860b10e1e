//! The wards: what happens to connections between their ends, and what must be said about it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;

use super::app::{self, Made};
use crate::{
    boxes::{self, BoxKind, Installed},
    chain::Chain,
    net::{Family, Kind},
    netns,
    path_manager::{self, Endpoint, Flags, Limits},
    rules::{Rules, Treatment},
    side_by_side, veth,
    wait::Patience,
};

/// What is in the way.
#[derive(Clone, Copy)]
pub(super) enum InTheWay {
    /// Only the NAT.
    Nothing,
    /// Something that follows rules.
    Rules(Rules),
    /// One of the boxes.
    Box(BoxKind),
    /// Something that answers with an RST once the connections are open.
    ResetMidway,
    /// Something that follows rules once the connections are open, and while each of them opens a
    /// second path.
    OnJoins(Rules),
}

/// Connections between a client and a server, and what must be said about each.
pub(super) struct Ward {
    pub(super) name: &'static str,
    family: Family,
    in_the_way: InTheWay,
    /// Sockets of the client and of the server.
    sockets: [Kind; 2],
    checksums: bool,
    /// The NAT gives the server another address and port, as it does with the client.
    is_renamed: bool,
    /// The judgement.
    pub(super) judgement: &'static str,
    /// The packet: any of these.
    pub(super) packets: &'static [&'static str],
    /// What the attach method `tracepoint` may say as well: less, but nothing wrong. Whether the server
    /// got the SYN with its option is unknown there, so the packet that arrived at the client has to
    /// show it, and that is missing if the client was still inside of `connect()`.
    pub(super) vague_by_tracepoint: &'static [&'static str],
    /// By what the ends are joined; none if the other end is not traced.
    pub(super) by: Option<&'static str>,
}

/// Where a ward is played.
pub(super) struct Bed {
    pub(super) chain: Chain,
    /// Of the box.
    installed: Option<Installed>,
    /// The server has another address and port for its clients.
    is_renamed: bool,
}

const PLAIN: Ward = Ward {
    name: "",
    family: Family::V4,
    in_the_way: InTheWay::Nothing,
    sockets: [Kind::Mptcp, Kind::Mptcp],
    checksums: false,
    is_renamed: true,
    judgement: "mptcp",
    packets: &[],
    vague_by_tracepoint: &[],
    by: Some("sequence-numbers"),
};

const NO_SYN: Treatment = Treatment {
    strip_syn: true,
    ..Treatment::NONE
};
const NONE_AFTER_3: Treatment = Treatment {
    strip_from: Some(4),
    ..Treatment::NONE
};

const fn to_server(treatment: Treatment) -> InTheWay {
    InTheWay::Rules(Rules {
        to_server: treatment,
        to_client: Treatment::NONE,
    })
}

const fn to_client(treatment: Treatment) -> InTheWay {
    InTheWay::Rules(Rules {
        to_server: Treatment::NONE,
        to_client: treatment,
    })
}

const JOINED: Ward = Ward {
    in_the_way: InTheWay::OnJoins(Rules::NONE),
    ..PLAIN
};

const fn join_to_server(treatment: Treatment) -> InTheWay {
    InTheWay::OnJoins(Rules {
        to_server: treatment,
        to_client: Treatment::NONE,
    })
}

const fn join_to_client(treatment: Treatment) -> InTheWay {
    InTheWay::OnJoins(Rules {
        to_server: Treatment::NONE,
        to_client: treatment,
    })
}

const REMOVED: Ward = Ward {
    judgement: "option-removed",
    ..PLAIN
};

/// The port that clients connect to, and that of the servers behind the NAT.
const OUTER_PORT: u16 = 80;
const INNER_PORT: u16 = 5_000;
/// The router with the box, and the one with the NAT.
const BOX_AT: usize = 1;
const NAT_AT: usize = 2;
/// Device of the client, and its second addresses.
const CLIENT_DEVICE: &str = "hop0";
const SECOND_V4: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 200);
const SECOND_V6: Ipv6Addr = Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 0x200);
/// Timeout for second paths that come up: an emulated machine is slow.
const JOINS_PATIENCE: Patience = Patience::new(Duration::from_secs(20), Duration::from_millis(20));
/// Time for second paths that fail.
const JOINS_FAIL: Duration = Duration::from_secs(2);
/// Connections of a ward that are made at the same time.
const AT_ONCE: u32 = 4;

pub(super) const WARDS: &[Ward] = &[
    Ward {
        name: "paired-v4",
        ..PLAIN
    },
    Ward {
        name: "paired-v6",
        family: Family::V6,
        ..PLAIN
    },
    Ward {
        name: "paired-syn",
        in_the_way: to_server(NO_SYN),
        packets: &["syn"],
        vague_by_tracepoint: &["syn-or-syn-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-syn-ack",
        family: Family::V6,
        in_the_way: to_client(NO_SYN),
        packets: &["syn-ack"],
        vague_by_tracepoint: &["syn-or-syn-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-third-ack",
        in_the_way: to_server(Treatment {
            strip_from: Some(0),
            ..Treatment::NONE
        }),
        packets: &["third-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-to-client",
        in_the_way: to_client(NONE_AFTER_3),
        packets: &["data-to-client"],
        ..REMOVED
    },
    Ward {
        name: "paired-to-server",
        family: Family::V6,
        in_the_way: to_server(NONE_AFTER_3),
        packets: &["data-to-server"],
        ..REMOVED
    },
    Ward {
        name: "paired-strip-data",
        in_the_way: InTheWay::Box(BoxKind::StripData),
        packets: &["data-to-client", "data-to-server", "third-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-mirror",
        in_the_way: InTheWay::Box(BoxKind::Mirror),
        packets: &["syn-ack", "third-ack"],
        vague_by_tracepoint: &["syn-or-syn-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-compact",
        in_the_way: InTheWay::Box(BoxKind::Compact),
        packets: &["syn"],
        vague_by_tracepoint: &["syn-or-syn-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-checksum",
        in_the_way: to_server(Treatment {
            flip_payload_at: Some(4),
            ..Treatment::NONE
        }),
        checksums: true,
        judgement: "changed",
        packets: &["data-to-server"],
        ..PLAIN
    },
    Ward {
        name: "paired-shortened",
        family: Family::V6,
        in_the_way: to_client(Treatment {
            shorten_dss_from: Some(4),
            ..Treatment::NONE
        }),
        judgement: "changed",
        packets: &["data-to-client"],
        ..PLAIN
    },
    Ward {
        name: "paired-rewrite",
        in_the_way: InTheWay::Box(BoxKind::Rewrite),
        by: Some("keys"),
        ..PLAIN
    },
    Ward {
        name: "paired-proxy",
        family: Family::V6,
        // What ends connections is known by the service that they are for.
        is_renamed: false,
        in_the_way: InTheWay::Box(BoxKind::Proxy),
        judgement: "proxy",
        by: Some("time"),
        ..PLAIN
    },
    Ward {
        name: "paired-drop-syn",
        in_the_way: InTheWay::Box(BoxKind::DropSyn),
        judgement: "never-arrived",
        packets: &["syn"],
        ..PLAIN
    },
    Ward {
        name: "paired-reset",
        in_the_way: InTheWay::ResetMidway,
        judgement: "reset-between",
        ..PLAIN
    },
    Ward {
        name: "paired-join-v4",
        ..JOINED
    },
    Ward {
        name: "paired-join-v6",
        family: Family::V6,
        ..JOINED
    },
    Ward {
        name: "paired-join-syn",
        in_the_way: join_to_server(NO_SYN),
        // The server takes it for a connection of its own, which the client resets before it begins.
        packets: &["syn", "syn-or-syn-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-join-syn-ack",
        family: Family::V6,
        in_the_way: join_to_client(NO_SYN),
        packets: &["syn-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-join-third-ack",
        in_the_way: join_to_server(Treatment {
            strip_from: Some(0),
            ..Treatment::NONE
        }),
        packets: &["third-ack"],
        ..REMOVED
    },
    Ward {
        name: "paired-join-token",
        in_the_way: join_to_server(Treatment {
            spoil_join_syn: true,
            ..Treatment::NONE
        }),
        judgement: "changed",
        packets: &["syn"],
        ..PLAIN
    },
    Ward {
        name: "paired-join-hmac",
        family: Family::V6,
        in_the_way: join_to_client(Treatment {
            spoil_join_syn: true,
            ..Treatment::NONE
        }),
        judgement: "changed",
        packets: &["syn-ack"],
        ..PLAIN
    },
    Ward {
        name: "paired-join-ack-hmac",
        in_the_way: join_to_server(Treatment {
            spoil_join_ack: true,
            ..Treatment::NONE
        }),
        judgement: "changed",
        packets: &["third-ack"],
        ..PLAIN
    },
    Ward {
        name: "paired-join-reset",
        in_the_way: join_to_server(Treatment {
            reject: true,
            ..Treatment::NONE
        }),
        judgement: "reset-between",
        ..PLAIN
    },
    Ward {
        name: "paired-tcp-listener",
        sockets: [Kind::Mptcp, Kind::Tcp],
        judgement: "not-in-other",
        by: None,
        ..PLAIN
    },
    Ward {
        name: "paired-tcp-client",
        sockets: [Kind::Tcp, Kind::Mptcp],
        judgement: "not-in-other",
        by: None,
        ..PLAIN
    },
];

impl Ward {
    /// Something changes its connections, or one end is without MPTCP.
    pub(super) fn is_touched(&self) -> bool {
        self.judgement != "mptcp" || !matches!(self.in_the_way, InTheWay::Nothing)
    }

    /// The end at which the tracer sees a connection even if it has no partner.
    pub(super) fn is_seen_at_server_only(&self) -> bool {
        matches!(self.sockets, [Kind::Tcp, Kind::Mptcp])
    }

    /// The namespaces with the NAT and what is in the way.
    pub(super) fn prepared(&self, direct: bool) -> anyhow::Result<Bed> {
        let chain = Chain::new(2)?;
        if !direct {
            self.translate(&chain)?;
        }
        for namespace in [chain.client(), chain.server()] {
            let checksums = if self.checksums { "1" } else { "0" };
            netns::set_sysctl(namespace, "net.mptcp.checksum_enabled", checksums)?;
            // Else the kernel stops asking for MPTCP after the first lost SYN.
            netns::set_sysctl(namespace, "net.mptcp.blackhole_timeout", "0")?;
            netns::set_sysctl(namespace, "net.mptcp.syn_retrans_before_tcp_fallback", "1")?;
            let limits = Limits {
                paths: u32::from(self.rules_on_joins().is_some()),
                addresses: 0,
            };
            path_manager::limit(namespace, limits)?;
            // What is not answered times out after one more packet.
            for name in ["net.ipv4.tcp_syn_retries", "net.ipv4.tcp_synack_retries"] {
                if self.rules_on_joins().is_some() {
                    netns::set_sysctl(namespace, name, "1")?;
                }
            }
        }
        if self.rules_on_joins().is_some() {
            veth::add_address(chain.client(), CLIENT_DEVICE, self.second_address())?;
        }
        let installed = match self.in_the_way {
            InTheWay::Nothing => None,
            InTheWay::Rules(rules) => Some(boxes::treat(&chain.place(BOX_AT), rules)?),
            InTheWay::ResetMidway | InTheWay::OnJoins(_) => {
                Some(boxes::treat(&chain.place(BOX_AT), Rules::NONE)?)
            }
            InTheWay::Box(kind) => Some(chain.install(kind, BOX_AT)?),
        };
        let is_renamed = self.is_renamed && !direct;
        Ok(Bed {
            chain,
            installed,
            is_renamed,
        })
    }

    /// What is done to second paths; none if there are none.
    pub(super) fn rules_on_joins(&self) -> Option<Rules> {
        match self.in_the_way {
            InTheWay::OnJoins(rules) => Some(rules),
            InTheWay::Nothing | InTheWay::Rules(_) | InTheWay::Box(_) | InTheWay::ResetMidway => {
                None
            }
        }
    }

    /// The address from which second paths are opened.
    pub(super) fn second_address(&self) -> IpAddr {
        match self.family {
            Family::V4 | Family::Mapped => SECOND_V4.into(),
            Family::V6 => SECOND_V6.into(),
        }
    }

    /// Lets each connection open a second path, and waits until it is up, or has failed.
    fn join(&self, bed: &Bed, opened: &[app::Client]) -> anyhow::Result<()> {
        let endpoint = Endpoint {
            address: self.second_address(),
            port: None,
            device: None,
            flags: Flags::SUBFLOW,
        };
        path_manager::add(bed.chain.client(), endpoint)?;
        match self.judgement {
            "mptcp" => {
                let are_up = || {
                    Ok(opened
                        .iter()
                        .all(|it| it.joins().is_ok_and(|joins| joins == 1)))
                };
                let are_up = JOINS_PATIENCE.holds(are_up)?;
                anyhow::ensure!(are_up, "{}: second paths do not come up", self.name);
            }
            _fails_at_once => std::thread::sleep(JOINS_FAIL),
        }
        Ok(())
    }

    /// It needs a program that not every machine has, also without NAT.
    pub(super) fn needs_nft(&self) -> bool {
        matches!(self.in_the_way, InTheWay::Box(BoxKind::Proxy))
    }

    /// Lets the second router translate the addresses of both ends.
    fn translate(&self, chain: &Chain) -> anyhow::Result<()> {
        let server = chain.server_address(self.family);
        let (ip, target) = match server {
            IpAddr::V4(v4) => ("ip", format!("{v4}:{INNER_PORT}")),
            IpAddr::V6(v6) => ("ip6", format!("[{v6}]:{INNER_PORT}")),
        };
        let place = chain.place(NAT_AT);
        let rules = format!(
            "add table inet nat; add chain inet nat in {{ type nat hook prerouting priority -100; }}; add \
             chain inet nat out {{ type nat hook postrouting priority 100; }}; add rule inet nat in \
             iifname {} tcp dport {OUTER_PORT} dnat {ip} to {target}; add rule inet nat out oifname {} \
             masquerade random",
            place.to_client, place.to_server
        );
        netns::within(chain.router(NAT_AT), || boxes::nft(&rules))
    }

    /// Makes the connections; returns what both ends know of them.
    pub(super) fn play(&self, bed: &Bed, connections: u32) -> anyhow::Result<Vec<Made>> {
        let [client, server] = self.sockets;
        // The same address in several namespaces is several services.
        let port = INNER_PORT + u16::from(!self.is_renamed);
        let at = SocketAddr::new(bed.chain.server_address(self.family), port);
        let served = app::serve(bed.chain.server(), server, self.family, at)?;
        let to = match bed.is_renamed {
            true => SocketAddr::new(bed.chain.router_address(NAT_AT, self.family), OUTER_PORT),
            false => at,
        };
        let from = bed.chain.client_address(self.family);
        // A SYN that is lost takes seconds.
        let at_once = match self.in_the_way {
            InTheWay::Box(BoxKind::DropSyn) => connections,
            InTheWay::Nothing
            | InTheWay::Rules(_)
            | InTheWay::Box(_)
            | InTheWay::ResetMidway
            | InTheWay::OnJoins(_) => AT_ONCE,
        };
        let namespace = bed.chain.client();
        let opened = side_by_side::each((0..connections).collect(), at_once, |number| {
            netns::within(namespace, || {
                let open = app::Client::open(client, self.family, (from, 0).into(), to, number);
                let mut open = open.with_context(|| format!("connection {number}"))?;
                match self.in_the_way {
                    InTheWay::ResetMidway => {}
                    InTheWay::Nothing
                    | InTheWay::Rules(_)
                    | InTheWay::Box(_)
                    | InTheWay::OnJoins(_) => {
                        open.talk(app::MESSAGES)?;
                    }
                }
                Ok(open)
            })
        });
        let mut opened: Vec<app::Client> = opened.into_iter().collect::<anyhow::Result<_>>()?;
        if let (InTheWay::ResetMidway, Some(installed)) = (self.in_the_way, &bed.installed) {
            installed.set(Rules {
                to_server: Treatment {
                    reject: true,
                    ..Treatment::NONE
                },
                to_client: Treatment::NONE,
            })?;
            for client in &mut opened {
                client.hurry()?;
                anyhow::ensure!(client.talk(1).is_err(), "{} is not reset", self.name);
            }
        }
        if let (Some(rules), Some(installed)) = (self.rules_on_joins(), &bed.installed) {
            installed.set(rules)?;
            self.join(bed, &opened)?;
            installed.set(Rules::NONE)?;
        }
        let ends: Vec<_> = opened.iter().map(app::Client::ends).collect();
        drop(opened);
        // The servers see the ends.
        std::thread::sleep(Duration::from_millis(200));
        let served = served.all();
        let made = ends.into_iter().map(|(number, client)| Made {
            client,
            server: served.get(&number).copied(),
        });
        Ok(made.collect())
    }
}
