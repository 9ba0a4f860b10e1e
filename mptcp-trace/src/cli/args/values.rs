//! Values of options, as they are typed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::{
    filter::unknown,
    serve::listen::{Address, PATH_BYTES_MAX},
    sink::Column,
};

/// Parses a duration like `10s` or `1h30m`; a bare number is in seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bare = text
        .parse::<u32>()
        .map(|seconds| Duration::from_secs(seconds.into()));
    let duration = match bare {
        Ok(duration) => duration,
        Err(_not_a_number) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or("write it like 10s, 5m or 1h30m")?,
    };
    if duration.is_zero() {
        return Err("it must be longer than zero".into());
    }
    Ok(duration)
}

/// Parses a replay speed, a factor.
pub(super) fn parse_speed(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|speed| (0.0625..=4096.0).contains(speed))
        .ok_or_else(|| "write a number from 0.0625 to 4096".to_owned())
}

/// A column of the lines.
pub(super) fn parse_column(name: &str) -> Result<Column, String> {
    let all = Column::FOR_FINDINGS.map(Column::name);
    Column::find(name).ok_or_else(|| unknown(name, &all, ""))
}

/// An address and a port, or the path of a Unix socket, as people write them. No name but `localhost`
/// is looked up.
pub(in crate::cli) fn parse_listen(text: &str) -> Result<Address, String> {
    match text.strip_prefix("unix:") {
        Some(path) => parse_socket(path),
        None if text.starts_with('/') => parse_socket(text),
        None => parse_port(text).map(Address::Tcp),
    }
}

fn parse_socket(path: &str) -> Result<Address, String> {
    if path.is_empty() || path.ends_with('/') {
        return Err("write the path of a socket, like unix:/run/mptcp-trace/metrics.sock".into());
    }
    if path.starts_with('@') {
        return Err("abstract sockets have no permissions: write a path".into());
    }
    // Also accepts unix:///run/..., as other programs write it.
    let path: PathBuf = PathBuf::from(path).components().collect();
    match path.as_os_str().len() {
        0..=PATH_BYTES_MAX => Ok(Address::Unix(path)),
        bytes => Err(format!(
            "the path of a socket has at most {PATH_BYTES_MAX} bytes, this one has {bytes}"
        )),
    }
}

fn parse_port(text: &str) -> Result<SocketAddr, String> {
    let (addr, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let addr: IpAddr = match addr {
        "" => Ipv6Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => return text.parse().map_err(|_syntax| LISTEN_SYNTAX.to_owned()),
    };
    port.parse()
        .map(|port| SocketAddr::new(addr, port))
        .map_err(|_no_number| LISTEN_SYNTAX.to_owned())
}

const LISTEN_SYNTAX: &str = "write 127.0.0.1:9944, [::1]:9944, localhost:9944, :9944 for all \
                             addresses, or unix:/PATH for a Unix socket";

/// Parses a size like `64K` or `4M` that the kernel accepts for a ring buffer.
pub(super) fn parse_ring_size(text: &str) -> Result<u32, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| bytes.is_power_of_two() && (4096..=1 << 30).contains(bytes))
        .ok_or_else(|| "write a power of two from 4K to 1024M, like 4M".to_owned())
}

/// Parses the name of a file that is written beside stdout.
pub(super) fn file_to_write() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => {
            Err("this is a file, not stdout: write /dev/stdout, or ./- for a file of that name")
        }
        false => Ok(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Verb};
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn an_address_to_listen_on_is_taken_as_people_write_it() {
        for (text, addr) in [
            ("127.0.0.1:9944", Some("127.0.0.1:9944")),
            ("[::1]:0", Some("[::1]:0")),
            ("localhost:9944", Some("127.0.0.1:9944")),
            (":9944", Some("[::]:9944")),
            ("9944", None),
            ("example.com:80", None),
            (":x", None),
            ("", None),
        ] {
            let addr = addr.map(|addr| Address::Tcp(addr.parse().unwrap()));
            assert_eq!(parse_listen(text).ok(), addr, "{text}");
        }
    }

    #[test]
    fn a_socket_to_listen_on_is_a_path_that_fits() {
        let longest = format!("/{}", "x".repeat(PATH_BYTES_MAX - 1));
        for (text, path) in [
            ("unix:/run/m.sock", "/run/m.sock"),
            ("/run/m.sock", "/run/m.sock"),
            ("unix:///run/m.sock", "/run/m.sock"),
            ("unix:m.sock", "m.sock"),
            (&longest, &longest),
        ] {
            assert_eq!(parse_listen(text), Ok(Address::Unix(path.into())), "{text}");
        }
        let too_long = format!("unix:{longest}x");
        for (text, why) in [
            ("unix:", "write the path"),
            ("unix:/run/", "write the path"),
            ("/", "write the path"),
            ("unix:@m", "abstract"),
            (&too_long, "at most 107 bytes, this one has 108"),
        ] {
            let said = parse_listen(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_without_an_effect_are_hidden_and_still_accepted() {
        use clap::Parser as _;
        for (words, is_hidden) in [
            (
                &["annotate", "a", "b", "-o", "c", "--color", "never"][..],
                true,
            ),
            (&["doctor", "--color", "never"], true),
            (&["doctor", "--quiet"], false),
            (&["explain", "--color", "never"], true),
            (&["explain", "--quiet"], true),
            (&["schema", "--verbose"], true),
            (&["replay", "a", "--color", "never"], false),
            (&["list", "--color", "never"], false),
        ] {
            let line = [&["mptcp-trace"], words].concat();
            let cli = Cli::try_parse_from(&line).unwrap();
            let flag = words.iter().find(|it| it.starts_with("--")).unwrap();
            let has = match *flag {
                "--color" => cli.color == clap::ColorChoice::Never,
                "--quiet" => cli.quiet,
                _ => cli.verbose == 1,
            };
            assert!(has, "{words:?} has no effect");
            let mut program = Cli::command();
            program.build();
            let help = program
                .find_subcommand_mut(words[0])
                .unwrap()
                .render_long_help()
                .to_string();
            assert_eq!(!help.contains(flag), is_hidden, "{words:?}");
        }
    }

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        for (text, seconds) in [("10s", 10), ("5m", 300), ("1h30m", 5400), ("7", 7)] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "0", "0s", "-5s", "soon", "10x"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (text, bytes) in [("4K", 4096), ("4096", 4096), ("4M", 4 << 20)] {
            assert_eq!(parse_ring_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "3K", "4G", "5M", "99999999999M"] {
            assert!(parse_ring_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_headline_works_as_typed() {
        let cli = Cli::try_parse_from(["mptcp-trace", "--pid", "4312"]).unwrap();
        assert!(cli.verb.is_none());
        assert_eq!(cli.live.pid, [4312]);
        let cli = Cli::try_parse_from(["mptcp-trace", "live", "--", "curl", "-s", "x"]).unwrap();
        assert!(matches!(cli.verb, Some(Verb::Live(args)) if args.command.len() == 3));
        assert!(Cli::try_parse_from(["mptcp-trace", "--pid", "0"]).is_err());
        assert!(Cli::try_parse_from(["mptcp-trace", "curl"]).is_err());
    }
}
