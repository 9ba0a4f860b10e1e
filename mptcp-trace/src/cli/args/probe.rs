//! Options of `probe`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use clap::{Args, builder::NonEmptyStringValueParser};

use super::values::parse_duration;

/// A peer, as typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The address without brackets that remains if its last group was meant as the port.
    pub perhaps: Option<(Ipv6Addr, u16)>,
}

/// The port of HTTPS, if none is typed.
const PORT: u16 = 443;

/// Options of `probe`.
#[derive(Args, Debug)]
#[command(
    after_help = "Sends packets: SYNs, two pings and a datagram, most of which expire at a router on the way, and\n\
                  opens and closes one connection without sending data. No other verb sends anything.\n\
                  docs/probe.md says what each answer means, and what cannot be tested.\n\n\
                  Examples:\n  mptcp-trace probe multipath-tcp.org\n  \
                  mptcp-trace probe 192.0.2.7:8443 --interface wwan0\n  \
                  mptcp-trace probe '[2001:db8::7]:443' --source 2001:db8:1::2\n  \
                  mptcp-trace probe --json multipath-tcp.org | jq .data.conclusion"
)]
pub struct ProbeArgs {
    /// The peer: a name, an IPv4 address, or an IPv6 address (in brackets before a port); port 443 if
    /// none is given
    #[arg(value_name = "HOST[:PORT]", value_parser = parse_target)]
    pub target: Target,
    /// Print a JSON line (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Use only IPv4 addresses of the name
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Use only IPv6 addresses of the name
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Send from this address of this host
    #[arg(long, value_name = "ADDR", value_parser = parse_source)]
    pub source: Option<IpAddr>,
    /// Send through this interface: each uplink is another path
    #[arg(long, value_name = "DEV", value_parser = NonEmptyStringValueParser::new())]
    pub interface: Option<String>,
    /// Wait this long for the answers to packets that are sent together, e.g. 500ms, at most 60s; packets
    /// without an answer are sent twice
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_timeout)]
    pub timeout: Duration,
    /// Look at most this far
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub max_hops: u8,
    /// Send at most this many packets, not counting those of the connection that the kernel opens
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub max_packets: u32,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(60);
    match parse_duration(text)? {
        timeout if timeout > MAX => Err("it must be at most 60s: an answer takes no longer".into()),
        timeout => Ok(timeout),
    }
}

/// Refuses an address with a zone: such addresses are those of the own link.
fn without_zone(text: &str) -> Result<(), String> {
    match text.split_once('%') {
        Some((address, zone)) if address.trim_start_matches('[').parse::<Ipv6Addr>().is_ok() => {
            let zone = zone.split(']').next().unwrap_or(zone);
            Err(format!(
                "an address with a zone is one of the own link, without routers on the way: write a \
                 global address, and --interface {zone} for the way out"
            ))
        }
        Some(_) | None => Ok(()),
    }
}

fn parse_source(text: &str) -> Result<IpAddr, String> {
    without_zone(text)?;
    let source: IpAddr = text
        .parse()
        .map_err(|_unreadable| "write an address of this host")?;
    let is_broadcast = source == IpAddr::V4(Ipv4Addr::BROADCAST);
    if source.is_unspecified() || source.is_multicast() || is_broadcast {
        return Err("no host sends from it: write an address of this host".into());
    }
    Ok(source)
}

/// Parses a peer: `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`, or an IPv6 address alone.
fn parse_target(text: &str) -> Result<Target, String> {
    without_zone(text)?;
    if text.contains("://") {
        return Err(
            "a URL is too much: write its host, and its port if it has one, like \
                    multipath-tcp.org:443"
                .into(),
        );
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let port = match behind.strip_prefix(':') {
                Some(port) => port_of(port)?,
                None if behind.is_empty() => PORT,
                None => {
                    return Err("write a port behind the brackets like [2001:db8::7]:443".into());
                }
            };
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(format!("{host:?} in brackets is no IPv6 address"));
            }
            (host, port)
        }
        None if text.parse::<Ipv6Addr>().is_ok() => (text, PORT),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, port_of(port)?),
            None => (text, PORT),
        },
    };
    let is_v6 = host.parse::<Ipv6Addr>().is_ok();
    if host.is_empty() || !is_v6 && host.contains([':', '/', ' ']) {
        return Err(
            "write a name or an address, like multipath-tcp.org:443 or [2001:db8::7]:443".into(),
        );
    }
    let has_brackets = text.starts_with('[');
    Ok(Target {
        host: host.to_owned(),
        port,
        perhaps: perhaps(host).filter(|_| !has_brackets),
    })
}

/// Splits an IPv6 address whose last group could be a port behind another address.
fn perhaps(host: &str) -> Option<(Ipv6Addr, u16)> {
    host.parse::<Ipv6Addr>().ok()?;
    let (address, port) = host.rsplit_once(':')?;
    Some((address.parse().ok()?, port_of(port).ok()?))
}

fn port_of(text: &str) -> Result<u16, String> {
    let is_number = text.bytes().all(|it| it.is_ascii_digit());
    let port = text.parse::<u16>().ok();
    let port = port.filter(|port| *port > 0 && is_number);
    port.ok_or_else(|| format!("{text:?} is no port: write a number from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_host_and_a_port_and_nothing_else() {
        for (text, expected) in [
            ("multipath-tcp.org", Some(("multipath-tcp.org", 443))),
            ("a.example:80", Some(("a.example", 80))),
            ("192.0.2.7", Some(("192.0.2.7", 443))),
            ("192.0.2.7:8443", Some(("192.0.2.7", 8443))),
            ("2001:db8::7", Some(("2001:db8::7", 443))),
            ("[2001:db8::7]", Some(("2001:db8::7", 443))),
            ("[2001:db8::7]:80", Some(("2001:db8::7", 80))),
            ("[2001:db8::7", None),
            ("[2001:db8::7]80", None),
            ("[name]:80", None),
            ("https://a.example", None),
            ("a.example:0", None),
            ("a.example:65536", None),
            ("a.example:+80", None),
            ("[2001:db8::7]:+80", None),
            (":80", None),
            ("", None),
        ] {
            let parsed = parse_target(text).ok();
            let parsed = parsed.as_ref().map(|it| (it.host.as_str(), it.port));
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn a_url_is_refused_with_what_to_write_instead() {
        for text in ["https://a.example", "http://192.0.2.7:80/", "http://[::1]/"] {
            let why = parse_target(text).unwrap_err();
            assert!(why.starts_with("a URL is too much"), "{text}: {why}");
        }
    }

    #[test]
    fn a_zone_is_refused_with_what_to_write_instead() {
        for text in [
            "fe80::1%eth0",
            "[fe80::1%eth0]",
            "[fe80::1%eth0]:443",
            "2001:db8::1%eth0",
        ] {
            let why = parse_target(text).unwrap_err();
            assert!(why.contains("--interface eth0 "), "{text}: {why}");
        }
        let why = parse_source("fe80::1%eth0").unwrap_err();
        assert!(why.contains("--interface eth0 "), "{why}");
    }

    #[test]
    fn no_interface_is_an_error_and_not_any_interface() {
        #[derive(clap::Parser, Debug)]
        struct Probe {
            #[command(flatten)]
            args: ProbeArgs,
        }
        let of = |device: &str| {
            let words = ["probe", "a.example", "--interface", device];
            <Probe as clap::Parser>::try_parse_from(words).map(|it| it.args.interface)
        };
        assert_eq!(of("eth1").unwrap().as_deref(), Some("eth1"));
        assert!(of("").is_err());
    }

    #[test]
    fn an_address_whose_last_group_could_be_a_port_is_noticed() {
        let perhaps = |text: &str| parse_target(text).unwrap().perhaps;
        let address = "fd91:2::2".parse().unwrap();
        assert_eq!(perhaps("fd91:2::2:8080"), Some((address, 8080)));
        for text in [
            "[fd91:2::2]:8080",
            "[fd91:2::2:8080]",
            "fd91:2::2",
            "fd91:2::2:80ff",
            "1:2:3:4:5:6:7:8",
            "192.0.2.7:80",
        ] {
            assert_eq!(perhaps(text), None, "{text}");
        }
    }

    #[test]
    fn a_source_is_of_one_host_and_a_timeout_has_a_limit() {
        for text in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "x",
        ] {
            assert!(parse_source(text).is_err(), "{text}");
        }
        assert!(parse_source("192.0.2.1").is_ok() && parse_source("fd91::1").is_ok());
        assert_eq!(parse_timeout("60s"), Ok(Duration::from_secs(60)));
        assert!(parse_timeout("61s").is_err() && parse_timeout("0").is_err());
    }
}
