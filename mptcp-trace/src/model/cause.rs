//! Why a connection fell back: the kernel's names of the causes, and explanations. Those of paths
//! are in `path_cause`.
//!
//! The names are those of the kernel's `MPTcpExt` counters (`/proc/net/netstat`, `nstat`), which
//! are stable, while the numbers behind them change between releases (`enum
//! linux_mptcp_mib_field`).

use super::{Stage, path_causes};

/// The party that can act on a cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Culprit {
    /// The peer.
    Peer,
    /// A device between the two hosts: a firewall, a load balancer, a provider's middlebox.
    Path,
    /// This host: its settings, or its memory of earlier failures.
    Host,
    /// The program itself.
    Application,
}

impl Culprit {
    /// The name as printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Path => "path",
            Self::Host => "host",
            Self::Application => "application",
        }
    }
}

/// What a cause is a cause of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CauseGroup {
    /// A fallback to TCP.
    Fallback,
    /// What leads to a fallback, refuses one, or looks like one.
    Around,
    /// A first path that failed: there is no connection.
    Connect,
    /// A join of this end that failed.
    Join,
    /// A join of the peer that this end refused.
    Refusal,
    /// The end of a path.
    End,
}

impl CauseGroup {
    /// What its causes are causes of, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Fallback => "a connection fell back to TCP",
            Self::Around => "not a fallback itself",
            Self::Connect => "a connection could not be opened",
            Self::Join => "another path could not join the connection",
            Self::Refusal => "this end did not let a path join the connection",
            Self::End => "a path ended",
        }
    }
}

/// Next step: capture the SYNs. `tcp[...]` matches IPv4 only, so IPv6 has a term of its own: next
/// header TCP, and the flags behind a header without extensions.
const CAPTURE_SYNS: &str = "on both ends: tcpdump -ni any -v '(tcp[tcpflags] & tcp-syn != 0) or \
                            (ip6[6] == 6 and ip6[53] & 2 != 0)' (does `mptcp capable` arrive as it \
                            was sent?)";

/// Next step: capture a connection, of IPv4 or IPv6, to answer a question.
macro_rules! capture_port {
    ($question:literal) => {
        concat!(
            "on both ends: tcpdump -ni any -v tcp port PORT (",
            $question,
            ")"
        )
    };
}

/// A cause, explained: a counter of the kernel, or a word of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cause {
    /// Name of the counter, without `MPTcpExt`; of a path, in the same style if no kernel has a
    /// counter for it.
    pub name: &'static str,
    /// Its enumerator in `enum linux_mptcp_mib_field`; empty if it counts no fallbacks, nor what is
    /// around them.
    pub enumerator: &'static str,
    /// The stage at which a connection falls back because of it; `None` if that varies.
    pub stage: Option<Stage>,
    /// True if it counts fallbacks; others count what leads to a fallback, or refuses one.
    pub is_fallback: bool,
    /// What it is a cause of.
    pub group: CauseGroup,
    /// Which side counts it, and when.
    pub when: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// Kernel function that decides it.
    pub function: &'static str,
    /// Section of RFC 8684.
    pub rfc_section: &'static str,
    /// Usual culprits, likeliest first.
    pub culprits: &'static [Culprit],
    /// Commands to run next, without the probe: see [`Cause::next_steps`].
    pub next: &'static [&'static str],
}

/// Next step: ask the path.
const PROBE: &str = "on the host that connects: mptcp-trace probe HOST:PORT (between which hops does \
                     MPTCP get lost?)";

impl Cause {
    /// Whether `mptcp-trace probe` can find out more: a peer or a path is a culprit, and a handshake
    /// or its data is at fault.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        let is_outside = self.culprits.iter().any(|it| match it {
            Culprit::Peer | Culprit::Path => true,
            Culprit::Host | Culprit::Application => false,
        });
        is_outside
            && match self.group {
                CauseGroup::Fallback
                | CauseGroup::Around
                | CauseGroup::Connect
                | CauseGroup::Join => true,
                CauseGroup::Refusal | CauseGroup::End => false,
            }
    }

    /// Commands to run next, the probe included.
    pub fn next_steps(&self) -> impl Iterator<Item = &'static str> {
        let probe = self.is_probed().then_some(PROBE);
        self.next.iter().copied().chain(probe)
    }
}

/// The counters that count fallbacks, in the order in which the BPF side reads them.
pub fn fallback_causes() -> impl Iterator<Item = &'static str> {
    let causes = CAUSES.iter().filter(|cause| cause.is_fallback);
    causes.map(|cause| cause.name)
}

/// Looks a cause up by name, ignoring case; the prefix `MPTcpExt` is optional.
#[must_use]
pub fn find(name: &str) -> Option<&'static Cause> {
    let name = name.trim();
    let bare = match name.get(..8) {
        Some(prefix) if prefix.eq_ignore_ascii_case("MPTcpExt") => &name[8..],
        Some(_) | None => name,
    };
    all().find(|cause| cause.name.eq_ignore_ascii_case(bare))
}

/// All names that options accept: the counters, `plain`, and the causes of paths.
pub fn all() -> impl Iterator<Item = &'static Cause> {
    CAUSES.iter().chain([&PLAIN]).chain(path_causes())
}

/// The explanation of a `plain` line: no kernel counter counts it.
const PLAIN: Cause = Cause {
    name: "plain",
    enumerator: "",
    stage: None,
    is_fallback: false,
    group: CauseGroup::Around,
    when: "server, when the handshake ends",
    meaning: "A client without MPTCP connected to an MPTCP listener, and the accepted socket is a \
              TCP socket. This is normal, unless the client did request MPTCP: then a middlebox \
              stripped the option from its SYN, or this host had no token left for the connection. \
              The client counts MPCapableFallbackSYNACK in both cases; here only the second one is \
              counted, as MPFallbackTokenInit.",
    function: "mptcp_subflow_drop_ctx",
    rfc_section: "3.1, 3.7",
    culprits: &[Culprit::Peer, Culprit::Path],
    next: &[
        "on the client: does the program open its socket with IPPROTO_MPTCP? (mptcpize run PROGRAM)",
        CAPTURE_SYNS,
    ],
};

/// Name of the counter of an enumerator of `enum linux_mptcp_mib_field`, if it is a known cause.
#[must_use]
pub fn name_of_enumerator(enumerator: &str) -> Option<&'static str> {
    let cause = CAUSES.iter().find(|cause| cause.enumerator == enumerator);
    cause.map(|cause| cause.name)
}

/// All causes, in the order of a connection's life.
pub const CAUSES: &[Cause] = &[
    Cause {
        name: "MPCapableFallbackSYNACK",
        enumerator: "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK",
        stage: Some(Stage::SynAck),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "client, when the SYN/ACK arrives",
        meaning: "This host requested MPTCP, but the SYN/ACK came without the option: the server \
                  has no MPTCP, its program listens on a TCP socket, or a middlebox stripped the \
                  option from the SYN or the SYN/ACK. The client cannot distinguish these cases.",
        function: "subflow_finish_connect",
        rfc_section: "3.1, 3.7",
        culprits: &[Culprit::Peer, Culprit::Path],
        next: &[
            "on the server: ss -M -l (is the listener in the list?), sysctl net.mptcp.enabled",
            CAPTURE_SYNS,
        ],
    },
    Cause {
        name: "MPCapableFallbackACK",
        enumerator: "MPTCP_MIB_MPCAPABLEPASSIVEFALLBACK",
        stage: Some(Stage::ThirdAck),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "server, when the third packet of the handshake arrives",
        meaning: "The client requested MPTCP, but the packet that completes the handshake came \
                  without the option. An MPTCP client always sends it: a middlebox strips it from \
                  packets other than SYNs, or the client itself fell back because it received the \
                  SYN/ACK without the option.",
        function: "subflow_syn_recv_sock",
        rfc_section: "3.1, 3.7",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[capture_port!("is `mptcp` in the third packet?")],
    },
    Cause {
        name: "MPCapableSYNTXDrop",
        enumerator: "MPTCP_MIB_MPCAPABLEACTIVEDROP",
        stage: Some(Stage::Syn),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "client, when a SYN is retransmitted",
        meaning: "SYNs with MPTCP are not answered, so the next one is sent without it. Either the \
                  server is down or unreachable, or a middlebox drops SYNs with unknown options. \
                  If the plain SYN is answered, the kernel assumes the latter, counts a Blackhole, \
                  and stops requesting MPTCP for some time. If it is not, the connection is never \
                  established.",
        function: "mptcp_active_detect_blackhole",
        rfc_section: "3.7",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[
            "sysctl net.mptcp.syn_retrans_before_tcp_fallback (how many SYNs are tried with the option)",
            "nstat -asz MPTcpExtBlackhole (did the plain SYN get through?)",
        ],
    },
    Cause {
        name: "Blackhole",
        enumerator: "MPTCP_MIB_BLACKHOLE",
        stage: None,
        is_fallback: false,
        group: CauseGroup::Around,
        when: "client, when the plain SYN is answered after those for MPTCP were not",
        meaning: "MPTCP is now switched off for new connections of this network namespace, for \
                  net.mptcp.blackhole_timeout seconds, doubled each time it happens again. One bad \
                  path is enough: connections to all other destinations are plain TCP too during \
                  that time (MPCapableSYNTXDisabled).",
        function: "mptcp_active_disable",
        rfc_section: "3.7",
        culprits: &[Culprit::Path],
        next: &["sysctl net.mptcp.blackhole_timeout (0 disables this; writing it ends the period)"],
    },
    Cause {
        name: "MPCapableSYNTXDisabled",
        enumerator: "MPTCP_MIB_MPCAPABLEACTIVEDISABLED",
        stage: Some(Stage::Syn),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "client, in connect()",
        meaning: "The kernel did not request MPTCP: an earlier connection of this network \
                  namespace, to any destination, was considered blackholed, and the resulting \
                  period is not over.",
        function: "mptcp_connect (mptcp_active_should_disable)",
        rfc_section: "3.7",
        culprits: &[Culprit::Host, Culprit::Path],
        next: &[
            "nstat -asz MPTcpExtBlackhole (how often it happened since boot)",
            "sysctl net.mptcp.blackhole_timeout (writing it ends the period)",
        ],
    },
    Cause {
        name: "MPFallbackTokenInit",
        enumerator: "MPTCP_MIB_TOKENFALLBACKINIT",
        stage: Some(Stage::Syn),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "client, in connect(); server, when the SYN arrives",
        meaning: "No unique token could be created for the connection after several attempts.",
        function: "mptcp_connect (mptcp_token_new_connect), subflow_check_req",
        rfc_section: "3.1",
        culprits: &[Culprit::Host],
        next: &["ss -M | wc -l (are there very many connections?)"],
    },
    Cause {
        name: "MD5SigFallback",
        enumerator: "MPTCP_MIB_MD5SIGFALLBACK",
        stage: Some(Stage::Syn),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "client, in connect()",
        meaning: "The socket signs its segments (TCP_MD5SIG), which leaves no room for MPTCP \
                  options.",
        function: "mptcp_connect",
        rfc_section: "3.7",
        culprits: &[Culprit::Application],
        next: &["use a plain TCP socket where segments must be signed"],
    },
    Cause {
        name: "SimultConnectFallback",
        enumerator: "MPTCP_MIB_SIMULTCONNFALLBACK",
        stage: Some(Stage::SynAck),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "client, when a SYN arrives while it waits for the SYN/ACK",
        meaning: "Both ends connected to each other at once, or the socket connected to itself (a client whose \
                  port the kernel chose happens to be the one it connects to). MPTCP has no simultaneous open.",
        function: "mptcp_syn_options, subflow_state_change",
        rfc_section: "3.1, 3.7",
        culprits: &[Culprit::Application],
        next: &[
            "is the destination a port of the local range? sysctl net.ipv4.ip_local_port_range",
        ],
    },
    Cause {
        name: "MPCapableDataFallback",
        enumerator: "MPTCP_MIB_MPCAPABLEDATAFALLBACK",
        stage: Some(Stage::Data),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "either side, at the first packet after the handshake",
        meaning: "The handshake completed with MPTCP, but the first packet after it came without: \
                  a middlebox passes the option on SYNs only, or strips it from packets with data.",
        function: "mptcp_incoming_options (check_fully_established)",
        rfc_section: "3.7",
        culprits: &[Culprit::Path],
        next: &[capture_port!("where does `mptcp dss` end?")],
    },
    Cause {
        name: "DssFallback",
        enumerator: "MPTCP_MIB_DSSFALLBACK",
        stage: Some(Stage::Data),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "either side, when data arrives",
        meaning: "Data arrived that cannot be placed: without a mapping, with one that does not \
                  match, with a bad checksum before any good one, or with the mapping that \
                  announces a fallback of the sender. Counters that increase at the same time show \
                  which: DSSNotMatching, DSSNoMatchTCP, DataCsumErr, InfiniteMapRx.",
        function: "mptcp_subflow_data_available (subflow_check_data_avail)",
        rfc_section: "3.3.1, 3.7",
        culprits: &[Culprit::Path],
        next: &[
            "nstat -asz 'MPTcpExtDSS*' 'MPTcpExtDataCsum*' 'MPTcpExtInfiniteMap*'",
            capture_port!("who changes or splits segments?"),
        ],
    },
    Cause {
        name: "DSSCorruptionFallback",
        enumerator: "MPTCP_MIB_DSSCORRUPTIONFALLBACK",
        stage: Some(Stage::Data),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "either side, when data is handed to the connection",
        meaning: "The mapping of accepted data does not cover it: a middlebox joined, split or \
                  rewrote segments without regard to MPTCP.",
        function: "mptcp_dss_corruption",
        rfc_section: "3.3.1, 3.7",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[capture_port!(
            "compare the lengths in `dss` with those of the data"
        )],
    },
    Cause {
        name: "InfiniteMapTx",
        enumerator: "MPTCP_MIB_INFINITEMAPTX",
        stage: Some(Stage::Data),
        is_fallback: true,
        group: CauseGroup::Fallback,
        when: "sender, with its next data",
        meaning: "The peer reported that our data arrived with a wrong checksum (MP_FAIL). There \
                  is only one subflow, so the connection continues as TCP from the next byte, and \
                  announces this with an infinite mapping. A middlebox changes the payload, e.g. \
                  an application gateway or a rewriting proxy.",
        function: "mptcp_sendmsg_frag (mptcp_update_infinite_map)",
        rfc_section: "3.7",
        culprits: &[Culprit::Path],
        next: &["nstat -asz 'MPTcpExtMPFail*' (who complained first?)"],
    },
    Cause {
        name: "FallbackFailed",
        enumerator: "MPTCP_MIB_FALLBACKFAILED",
        stage: None,
        is_fallback: false,
        group: CauseGroup::Around,
        when: "either side",
        meaning: "The connection should have fallen back but could not: there are or were other \
                  subflows, or data was retransmitted at the MPTCP level. The subflow was reset \
                  instead.",
        function: "callers of __mptcp_try_fallback",
        rfc_section: "3.6, 3.7",
        culprits: &[Culprit::Path],
        next: &[
            "nstat -asz 'MPTcpExtMPRst*'",
            "ip mptcp monitor (which subflows close?)",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_by_its_enumerator() {
        for cause in CAUSES {
            assert_eq!(name_of_enumerator(cause.enumerator), Some(cause.name));
        }
        for none in ["", "MPTCP_MIB_NUM"] {
            assert_eq!(name_of_enumerator(none), None);
        }
    }

    #[test]
    fn the_probe_is_advised_where_the_peer_or_the_path_may_be_at_fault_and_nowhere_else() {
        for (name, is_probed) in [
            ("MPCapableFallbackSYNACK", true),
            ("DssFallback", true),
            ("Blackhole", true),
            ("MPCapableSYNTXDisabled", true),
            ("MPFallbackTokenInit", false),
            ("MD5SigFallback", false),
        ] {
            let cause = find(name).unwrap();
            assert_eq!(cause.is_probed(), is_probed, "{name}");
            let advised = cause
                .next_steps()
                .filter(|it| it.contains("probe HOST:PORT"));
            assert_eq!(advised.count(), usize::from(is_probed), "{name}");
        }
        assert!(all().filter(|it| it.is_probed()).count() > 10);
    }

    #[test]
    fn a_cause_is_found_as_the_counters_print_it() {
        for name in [
            "DssFallback",
            "dssfallback",
            "MPTcpExtDssFallback",
            " DSSFALLBACK ",
        ] {
            assert_eq!(
                find(name).map(|cause| cause.name),
                Some("DssFallback"),
                "{name}"
            );
        }
        for name in ["", "MPTcpExt", "Dss", "żółw-żółw", "MPTcpExtżółw"] {
            assert_eq!(find(name), None, "{name}");
        }
    }

    #[test]
    fn every_cause_says_everything_and_its_name_is_its_own() {
        for (index, cause) in CAUSES.iter().enumerate() {
            let Cause {
                name,
                enumerator,
                stage,
                is_fallback,
                group,
                when,
                meaning,
                function,
                rfc_section,
                culprits,
                next,
            } = cause;
            assert!(stage.is_some() || !is_fallback, "{name}");
            assert_eq!(*group == CauseGroup::Fallback, *is_fallback, "{name}");
            for text in [name, enumerator, when, meaning, function, rfc_section] {
                assert!(!text.is_empty(), "{name}");
            }
            assert!(
                meaning.ends_with('.') && !culprits.is_empty() && !next.is_empty(),
                "{name}"
            );
            assert!(
                CAUSES[..index].iter().all(|other| other.name != *name),
                "{name} stands there twice"
            );
        }
    }

    /// The filters of tcpdump commands in a text, without their quotes.
    fn filters(text: &str) -> Vec<String> {
        let commands = text.split("tcpdump ").skip(1);
        commands
            .map(|command| {
                let options = "-ni any -v ";
                let filter = command.strip_prefix(options);
                let filter = filter.unwrap_or_else(|| panic!("not tcpdump {options}: {command}"));
                match filter.strip_prefix('\'') {
                    Some(quoted) => quoted.split('\'').next().unwrap_or_default(),
                    None => filter.split(" (").next().unwrap_or_default(),
                }
                .to_owned()
            })
            .collect()
    }

    fn tcpdump_filters() -> Vec<(&'static str, String)> {
        let steps = all().flat_map(|cause| cause.next.iter().map(|next| (cause.name, *next)));
        steps
            .flat_map(|(name, next)| filters(next).into_iter().map(move |filter| (name, filter)))
            .collect()
    }

    #[test]
    fn each_tcpdump_filter_matches_ipv4_and_ipv6() {
        let filters = tcpdump_filters();
        assert!(filters.len() >= 6, "{filters:?}");
        for (name, filter) in filters {
            // libpcap's `tcp[...]`, `udp[...]`, ... compile to a test for IPv4.
            if filter.contains("tcp[") {
                assert!(filter.contains(" or (ip6["), "{name}: {filter}");
            }
        }
    }

    #[test]
    fn tcpdump_compiles_each_filter_for_both_families() {
        for (name, filter) in tcpdump_filters() {
            let filter = filter.replace("PORT", "443");
            let ran = std::process::Command::new("tcpdump")
                .args(["-y", "LINUX_SLL2", "-d", &filter])
                .output();
            let ran = match ran {
                Ok(ran) => ran,
                Err(why) => {
                    println!("skipped: cannot run tcpdump: {why}; Debian: apt-get install tcpdump");
                    return;
                }
            };
            let program = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success(), "{name}: {filter}: {ran:?}");
            // EtherTypes of IPv4 and IPv6.
            for family in ["#0x800 ", "#0x86dd "] {
                assert!(program.contains(family), "{name}: {filter}: {program}");
            }
        }
    }
}
