//! Netlink messages, for what has no file in /proc: devices, addresses, routes, and the path manager
//! of MPTCP.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::Context as _;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with,
};

/// A netlink socket in the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// A route netlink socket.
    pub(crate) fn route() -> anyhow::Result<Self> {
        Self::open(None).context("cannot open a route netlink socket")
    }

    /// A generic netlink socket.
    pub(crate) fn generic() -> anyhow::Result<Self> {
        Self::open(Some(netlink::GENERIC)).context("cannot open a generic netlink socket")
    }

    fn open(protocol: Option<Protocol>) -> anyhow::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            protocol,
        )?;
        Ok(Self { socket })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn ask(&self, message: &Message) -> anyhow::Result<()> {
        self.answer(message).map(|_answer| ())
    }

    /// Sends a request; returns the body of the first message that comes back, which is empty for an
    /// acknowledgement.
    pub(crate) fn answer(&self, message: &Message) -> anyhow::Result<Vec<u8>> {
        send(self.socket.as_fd(), &message.finished(), SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (_, length) = recv(self.socket.as_fd(), &mut answer, RecvFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        let short = || format!("the kernel's answer has {length} bytes");
        let (header, body) = answer.split_at_checked(HEADER_BYTES).with_context(short)?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if i32::from(kind) != libc::NLMSG_ERROR {
            return Ok(body.to_vec());
        }
        // The acknowledgement is an error message, whose code 0 means success.
        let code = body.first_chunk().with_context(short)?;
        match i32::from_ne_bytes(*code) {
            0 => Ok(Vec::new()),
            error => Err(io::Error::from_raw_os_error(error.wrapping_neg()).into()),
        }
    }
}

impl Netlink {
    /// Asks for a list; returns the body of each message of the answer.
    pub(crate) fn dump(&self, message: &Message) -> anyhow::Result<Vec<Vec<u8>>> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        send(
            self.socket.as_fd(),
            &message.with(flags),
            SendFlags::empty(),
        )?;
        let mut bodies = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let (_, length) = recv(
                self.socket.as_fd(),
                buffer.as_mut_slice(),
                RecvFlags::empty(),
            )?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((header, _)) = rest.split_first_chunk::<HEADER_BYTES>() {
                let length =
                    u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
                let body = rest.get(HEADER_BYTES..length);
                let body = body.context("a message ends behind the kernel's answer")?;
                if kind == libc::NLMSG_DONE {
                    return Ok(bodies);
                }
                if kind == libc::NLMSG_ERROR {
                    let code = body.first_chunk().context("an error without a code")?;
                    let error = i32::from_ne_bytes(*code).wrapping_neg();
                    return Err(io::Error::from_raw_os_error(error).into());
                }
                bodies.push(body.to_vec());
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Length of a struct nlmsghdr.
const HEADER_BYTES: usize = 16;

/// A netlink message, without its header.
pub(crate) struct Message {
    kind: u16,
    flags: i32,
    body: Vec<u8>,
}

impl Message {
    /// A request.
    pub(crate) fn new(kind: u16, body: Vec<u8>) -> Self {
        let flags = 0;
        Self { kind, flags, body }
    }

    /// A request to create something that must not exist yet.
    pub(crate) fn creating(kind: u16, body: Vec<u8>) -> Self {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        Self { kind, flags, body }
    }

    /// Prepends the header.
    fn finished(&self) -> Vec<u8> {
        self.with(libc::NLM_F_REQUEST | libc::NLM_F_ACK | self.flags)
    }

    /// Prepends a header with these flags.
    fn with(&self, flags: i32) -> Vec<u8> {
        let flags = flags as u16;
        let length = (HEADER_BYTES + self.body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(self.kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence number and port id: this socket has only one user.
        message.extend([0; 8]);
        message.extend(&self.body);
        message
    }
}

/// A netlink attribute, padded to the alignment of the next one.
pub(crate) fn attribute(kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = (ATTRIBUTE_BYTES + value.len()) as u16;
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Length of a struct nlattr.
const ATTRIBUTE_BYTES: usize = 4;

/// The value of the first attribute of a kind.
pub(crate) fn find(all: &[u8], kind: u16) -> anyhow::Result<&[u8]> {
    let mut all = attributes(all)?.into_iter();
    let found = all.find(|(found, _value)| *found == kind);
    let (_kind, value) =
        found.with_context(|| format!("the kernel's answer has no attribute {kind}"))?;
    Ok(value)
}

/// All attributes: kind and value.
pub(crate) fn attributes(mut rest: &[u8]) -> anyhow::Result<Vec<(u16, &[u8])>> {
    /// Marks an attribute that holds others, or a number in network byte order.
    const FLAGS: u16 = 0xc000;
    let mut all = Vec::new();
    while let Some((header, _)) = rest.split_first_chunk::<ATTRIBUTE_BYTES>() {
        let [low, high, kind_low, kind_high] = *header;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = rest.get(ATTRIBUTE_BYTES..length);
        let value = value.context("an attribute ends behind its message")?;
        all.push((u16::from_ne_bytes([kind_low, kind_high]) & !FLAGS, value));
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_has_its_length_without_the_padding_and_is_found_again() {
        let rows: [(&[&[u8]], &[u8]); 3] = [
            (&[], &[4, 0, 3, 0]),
            (&[b"ab", b"c"], &[7, 0, 3, 0, b'a', b'b', b'c', 0]),
            (&[b"abcd"], &[8, 0, 3, 0, b'a', b'b', b'c', b'd']),
        ];
        for (parts, bytes) in rows {
            assert_eq!(attribute(3, parts), bytes);
            let two = [&attribute(2, &[b"xyz"])[..], bytes].concat();
            assert_eq!(find(&two, 3).unwrap(), parts.concat());
            assert!(find(&two, 4).is_err());
        }
        assert!(find(&[9, 0, 3, 0], 3).is_err());
    }
}
