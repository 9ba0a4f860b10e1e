//! The applications of `many-paths`: a server that echoes, and clients with many short connections.

use std::{
    fs::File,
    io::{BufWriter, Read as _, Write as _},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::{
    account,
    lines::write_line,
    net::{self, Endpoint, Family, Kind},
    sys,
};

/// Timeout for the paths of a connection, or for data: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two messages while paths come up.
const PAUSE: Duration = Duration::from_millis(2);
/// Largest message, bytes.
const MESSAGE_BYTES_MAX: u32 = 1 << 16;

/// Arguments of the server.
#[derive(clap::Args)]
pub(crate) struct ServerArgs {
    /// Address to listen on
    #[arg(long)]
    at: SocketAddr,
    /// Write what the connections carried to FILE
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of a client.
#[derive(clap::Args)]
pub(crate) struct ClientArgs {
    /// Address to bind to
    #[arg(long)]
    from: SocketAddr,
    /// Address of the server
    #[arg(long)]
    to: SocketAddr,
    /// Number of connections, one after the other
    #[arg(long)]
    connections: u32,
    /// Number of endpoints that each connection tries
    #[arg(long)]
    endpoints: u8,
    /// Number of these that become paths
    #[arg(long)]
    joins: u8,
    /// Bytes of a message
    #[arg(long)]
    bytes: u32,
    /// Pause before each of these, milliseconds
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Number of messages once the paths are up
    #[arg(long)]
    messages: u32,
    /// Close every second connection without lingering
    #[arg(long)]
    abort: bool,
    /// Write the connections to FILE
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A connection, as one end knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    /// Times on `CLOCK_BOOTTIME` before the socket was opened and before it was closed; 0 at the server.
    pub(super) during_ns: [u64; 2],
    /// The addresses of every path that was up, the first one included; empty at the server.
    pub(super) paths: Vec<(Endpoint, Endpoint)>,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// Payload that the kernel sent on another path once more; none if it does not count it.
    pub(super) bytes_resent: Option<u64>,
}

/// First line of the server.
#[derive(Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) at: SocketAddr,
}

/// The server: answers each message with the number of joins, and the message.
pub(crate) fn serve(args: &ServerArgs) -> anyhow::Result<()> {
    sys::set_process_name("lab-many-server").context("cannot change the name of the process")?;
    let listener = open(args.at)?;
    listener.listen(512).context("cannot listen")?;
    let own = listener.local_addr()?.as_socket();
    let at = own.context("a listener without an address")?;
    write_line(&mut std::io::stdout(), &Listening { at })?;
    let file = File::create(&args.out).context("cannot write the list of connections")?;
    std::thread::scope(|scope| {
        loop {
            let (client, _peer) = listener.accept().context("cannot accept")?;
            let file = &file;
            scope.spawn(move || {
                // A connection that the client aborts ends with an error.
                match echo(client) {
                    Ok(made) => write_line(&mut &*file, &made),
                    Err(why) => Err(why),
                }
            });
        }
    })
}

fn echo(mut client: Socket) -> anyhow::Result<Made> {
    client.set_read_timeout(Some(PATIENCE))?;
    let ends = (client.local_addr()?, client.peer_addr()?);
    let mut made = made(&ends)?;
    let mut message = Vec::new();
    loop {
        let mut length = [0; 4];
        match client.read(&mut length)? {
            0 => break,
            got => client.read_exact(&mut length[got..])?,
        }
        let bytes = u32::from_be_bytes(length);
        ensure!(bytes <= MESSAGE_BYTES_MAX, "a message of {bytes} bytes");
        message.resize(bytes as usize + 1, 0);
        client.read_exact(&mut message[1..])?;
        made.bytes_received += 4 + u64::from(bytes);
        message[0] = account::connection(client.as_raw_fd())?.joins;
        client.write_all(&message)?;
        made.bytes_sent += 1 + u64::from(bytes);
        made.bytes_resent = account::connection(client.as_raw_fd())?.bytes_resent;
    }
    Ok(made)
}

fn made((local, remote): &(socket2::SockAddr, socket2::SockAddr)) -> anyhow::Result<Made> {
    let none = "a connection without an address";
    Ok(Made {
        local: net::endpoint(local).context(none)?,
        remote: net::endpoint(remote).context(none)?,
        during_ns: [0; 2],
        paths: Vec::new(),
        bytes_sent: 0,
        bytes_received: 0,
        bytes_resent: None,
    })
}

fn open(at: SocketAddr) -> anyhow::Result<Socket> {
    let family = match at {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    let socket = net::open(Kind::Mptcp, family).context("cannot open a socket")?;
    net::bind(&socket, at).with_context(|| format!("cannot bind to {at}"))?;
    Ok(socket)
}

/// A client: opens connections one after the other, and waits for the paths of each.
pub(crate) fn make(args: &ClientArgs) -> anyhow::Result<()> {
    sys::set_process_name("lab-many-client").context("cannot change the name of the process")?;
    let file = File::create(&args.out).context("cannot write the list of connections")?;
    let mut out = BufWriter::new(file);
    for number in 0..args.connections {
        let (made, client) = one(args).with_context(|| format!("connection {number}"))?;
        if args.abort && number % 2 == 1 {
            client.set_linger(Some(Duration::ZERO))?;
        }
        serde_json::to_writer(&mut out, &made)?;
        out.write_all(b"\n")?;
    }
    out.flush().context("cannot write the list of connections")
}

fn one(args: &ClientArgs) -> anyhow::Result<(Made, Socket)> {
    let opened_ns = sys::boottime_ns();
    let mut client = open(args.from)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.connect(&args.to.into()).context("cannot connect")?;
    let mut made = made(&(client.local_addr()?, client.peer_addr()?))?;
    let start = Instant::now();
    loop {
        let joins_there = say(&mut client, args.bytes, &mut made)?;
        let here = account::connection(client.as_raw_fd()).context("cannot read MPTCP_INFO")?;
        let is_settled = here.endpoints_used == args.endpoints
            && here.joins == args.joins
            && joins_there == args.joins;
        if is_settled {
            break;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{joins_there} joins at the server, here {here:?}"
        );
        std::thread::sleep(PAUSE);
    }
    for _ in 0..args.messages {
        std::thread::sleep(Duration::from_millis(args.pause_ms));
        say(&mut client, args.bytes, &mut made)?;
    }
    made.paths = account::addresses(client.as_raw_fd()).context("cannot list the paths")?;
    let here = account::connection(client.as_raw_fd()).context("cannot read MPTCP_INFO")?;
    made.bytes_resent = here.bytes_resent;
    made.during_ns = [opened_ns, sys::boottime_ns()];
    Ok((made, client))
}

/// Sends a message and receives it; returns the number of joins at the server.
fn say(client: &mut Socket, bytes: u32, made: &mut Made) -> anyhow::Result<u8> {
    let words = [&bytes.to_be_bytes()[..], &vec![b'm'; bytes as usize]].concat();
    client.write_all(&words).context("cannot send")?;
    made.bytes_sent += words.len() as u64;
    let mut answer = vec![0; bytes as usize + 1];
    client.read_exact(&mut answer).context("no answer")?;
    made.bytes_received += answer.len() as u64;
    Ok(answer[0])
}
