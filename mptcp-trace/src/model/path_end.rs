//! How paths end that were up: words of this program, and explanations.

use super::{
    Cause, Culprit,
    path_cause::{BASE, ENDPOINTS, PACKETS, ROUTES},
};

/// How paths end that were up.
pub const PATH_ENDS: &[Cause] = &[
    Cause {
        name: "connection-closed",
        when: "either end, at the end of the connection",
        meaning: "The connection was closed, and its paths with it. Not a failure.",
        function: "__mptcp_close",
        rfc_section: "3.3.3",
        culprits: &[Culprit::Application],
        next: &["nothing: this is how paths usually end"],
        ..BASE
    },
    Cause {
        name: "peer-closed",
        when: "either end",
        meaning: "The peer closed this path with a FIN; the connection goes on. Not a failure.",
        function: "subflow_state_change",
        rfc_section: "3.3.3",
        culprits: &[Culprit::Peer],
        next: &["on the peer: ip mptcp endpoint show (was an endpoint deleted?)"],
        ..BASE
    },
    Cause {
        name: "removed",
        when: "this end",
        meaning: "The path manager of this host removed the path: its endpoint was deleted, or a \
                  program that manages paths closed it. Not a failure.",
        function: "mptcp_subflow_shutdown",
        rfc_section: "3.4.2",
        culprits: &[Culprit::Host],
        next: &[
            ENDPOINTS,
            "who deleted it? NetworkManager, mptcpd or a script: journalctl",
        ],
        ..BASE
    },
    Cause {
        name: "address-removed",
        when: "this end, when the peer takes an address back",
        meaning: "The peer announced that it has lost the address of this path (REMOVE_ADDR). Not \
                  a failure of the path itself.",
        function: "mptcp_pm_rm_addr_received",
        rfc_section: "3.4.2",
        culprits: &[Culprit::Peer],
        next: &["on the peer: ip mptcp endpoint show, ip address show"],
        ..BASE
    },
    Cause {
        name: "mp-rst-received",
        when: "either end",
        meaning: "The peer's MPTCP reset the path and gave a reason: the line has it.",
        function: "tcp_reset",
        rfc_section: "3.6",
        culprits: &[Culprit::Peer, Culprit::Path],
        next: &[
            "mptcp-trace explain REASON",
            "on the peer: mptcp-trace --kind path",
            PACKETS,
        ],
        ..BASE
    },
    Cause {
        name: "rst-received",
        when: "either end",
        meaning: "An RST without MPTCP options ended the path: a firewall or NAT that forgot it, \
                  or a host that restarted.",
        function: "tcp_reset",
        rfc_section: "3.6",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[
            "on both ends: tcpdump -ni any -v '(tcp[tcpflags] & tcp-rst != 0) or (ip6[6] == 6 and ip6[53] & 4 != 0)' (who sends it?)",
            "is the path idle for longer than the NAT remembers? (SO_KEEPALIVE)",
        ],
        ..BASE
    },
    Cause {
        name: "fastclose-received",
        when: "either end",
        meaning: "The peer aborted the whole connection (MP_FASTCLOSE): its application closed it \
                  with unread data or SO_LINGER 0, or died.",
        function: "mptcp_check_fastclose",
        rfc_section: "3.5",
        culprits: &[Culprit::Peer],
        next: &["on the peer: did the program end or crash? journalctl, dmesg"],
        ..BASE
    },
    Cause {
        name: "fastclose-sent",
        when: "this end",
        meaning: "This end aborted the whole connection (MP_FASTCLOSE): its application closed it \
                  with unread data or SO_LINGER 0, or the peer did not close its side in time.",
        function: "mptcp_do_fastclose",
        rfc_section: "3.5",
        culprits: &[Culprit::Application],
        next: &[
            "strace -f -e trace=setsockopt,close PROGRAM (SO_LINGER?)",
            "sysctl net.mptcp.close_timeout",
        ],
        ..BASE
    },
    Cause {
        name: "killed",
        when: "this end",
        meaning: "An administrator aborted the path (ss -K).",
        function: "tcp_abort",
        rfc_section: "3.6",
        culprits: &[Culprit::Host],
        next: &["who runs ss -K on this host?"],
        ..BASE
    },
    Cause {
        name: "timeout",
        when: "this end",
        meaning: "The peer acknowledged nothing for so long that the kernel gave the path up: the \
                  path is dead, or an interface is down.",
        function: "tcp_write_timeout, tcp_keepalive_timer",
        rfc_section: "3.3.6",
        culprits: &[Culprit::Path, Culprit::Host],
        next: &[
            "ip link show, ip route get REMOTE from LOCAL",
            "nstat -asz TcpExtTCPAbortOnTimeout",
        ],
        ..BASE
    },
    Cause {
        name: "unreachable",
        when: "this end",
        meaning: "The kernel gave the path up after ICMP messages or without a route: the network \
                  between these addresses is down.",
        function: "tcp_write_timeout",
        rfc_section: "3.3.6",
        culprits: &[Culprit::Path, Culprit::Host],
        next: &[ROUTES, "tcpdump -ni any -v icmp or icmp6 (who says so?)"],
        ..BASE
    },
    Cause {
        name: "bad-data",
        when: "this end, when data arrives",
        meaning: "Data arrived that does not belong to its mapping, has a wrong checksum, or has \
                  no mapping, so this end reset the path: a middlebox changes, joins or splits \
                  segments, or strips options.",
        function: "subflow_check_data_avail",
        rfc_section: "3.3.1, 3.6, 3.7",
        culprits: &[Culprit::Path],
        next: &["nstat -asz 'MPTcpExtDSS*' 'MPTcpExtDataCsum*'", PACKETS],
        ..BASE
    },
    Cause {
        name: "reset",
        when: "this end",
        meaning: "This end reset the path because MPTCP cannot use it any more, for example after \
                  damaged data, or because a fallback was not possible.",
        function: "mptcp_subflow_reset",
        rfc_section: "3.6, 3.7",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[
            "nstat -asz 'MPTcpExtMPRst*' 'MPTcpExt*Fail*' 'MPTcpExtDSS*'",
            PACKETS,
        ],
        ..BASE
    },
];
