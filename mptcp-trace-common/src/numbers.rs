//! Constants of the kernel's UAPI that both sides use.

/// Address family of IPv4.
pub const AF_INET: u16 = 2;
/// Address family of IPv6.
pub const AF_INET6: u16 = 10;

/// Protocol number of TCP sockets.
pub const IPPROTO_TCP: u16 = 6;
/// Protocol number of MPTCP sockets.
pub const IPPROTO_MPTCP: u16 = 262;

/// Level of options of IPv4.
pub const SOL_IP: u32 = 0;
/// Level of options of every socket.
pub const SOL_SOCKET: u32 = 1;
/// Level of options of TCP.
pub const SOL_TCP: u32 = 6;
/// Level of options of IPv6.
pub const SOL_IPV6: u32 = 41;
/// Level of options of MPTCP.
pub const SOL_MPTCP: u32 = 284;

/// Option of [`SOL_SOCKET`]: the protocol that the socket was created with.
pub const SO_PROTOCOL: u32 = 38;
/// Option of [`SOL_TCP`]: whether the connection uses MPTCP, that is, has not fallen back.
pub const TCP_IS_MPTCP: u32 = 43;
/// Option of [`SOL_MPTCP`]: state of the connection. The first of its options.
pub const MPTCP_INFO: u32 = 1;
/// Option of [`SOL_MPTCP`]: TCP state of each subflow.
pub const MPTCP_TCPINFO: u32 = 2;
/// Option of [`SOL_MPTCP`]: addresses of each subflow.
pub const MPTCP_SUBFLOW_ADDRS: u32 = 3;
/// Option of [`SOL_MPTCP`]: all of the above. The last of its options.
pub const MPTCP_FULL_INFO: u32 = 4;
