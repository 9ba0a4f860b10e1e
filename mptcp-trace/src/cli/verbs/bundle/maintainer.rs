//! The text of a bundle for the maintainers of MPTCP in the kernel: what their bug report form and
//! mptcpd's `mptcp-get-debug` ask for, under the names of the commands that they use.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use mptcp_trace_scene::path_manager::{Configured, Limits, Settings};

use crate::{cli::built::LONG_VERSION, host::netstat::Counters, redact::Redactor};

/// What is known of the host.
#[derive(Debug)]
pub(super) struct Host {
    /// `uname -a`, without the name of the host.
    kernel: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    distribution: Option<String>,
    sysctls: BTreeMap<String, String>,
    /// Settings of the path manager, or why they are unknown.
    path_manager: Result<Settings, String>,
}

/// Counters of each network namespace.
pub(super) type Counted = BTreeMap<u32, Counters>;

impl Host {
    /// Asks this host. Settings are those of the network namespace of this process.
    pub(super) fn of_this_machine(sysctls: BTreeMap<String, String>) -> Self {
        let uname = rustix::system::uname();
        let words = [
            uname.sysname(),
            uname.release(),
            uname.version(),
            uname.machine(),
        ];
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            kernel: words.map(|it| it.to_string_lossy()).join(" "),
            distribution: pretty_name(&release),
            sysctls,
            path_manager: mptcp_trace_scene::path_manager::settings()
                .map_err(|why| format!("{why:#}")),
        }
    }

    /// Replaces the addresses of endpoints.
    pub(super) fn redact(&mut self, redactor: &mut Redactor) {
        for endpoint in self
            .path_manager
            .iter_mut()
            .flat_map(|settings| &mut settings.endpoints)
        {
            endpoint.address = redactor.address(endpoint.address);
            endpoint.device = None;
        }
    }
}

/// What a trace found, as text.
#[derive(Debug)]
pub(super) struct Traced {
    /// Open sockets with their paths.
    pub(super) sockets: String,
    pub(super) findings: String,
}

/// The text. `host` is unknown if an existing capture is packed; `traced` is the reason if nothing was traced.
pub(super) fn text(
    host: Option<&Host>,
    counters: Option<(&Counted, &Counted)>,
    traced: &Result<Traced, String>,
) -> String {
    let mut text = format!(
        "For a report at https://github.com/multipath-tcp/mptcp_net-next/issues: describe what you \
         expected and what happened, and paste the following.\n\nmptcp-trace {}\n",
        LONG_VERSION.as_str()
    );
    if let Some(host) = host {
        section(
            &mut text,
            "uname -a (without the name of the host)",
            &host.kernel,
        );
        let distribution = host.distribution.as_deref().unwrap_or("unknown");
        section(&mut text, "distribution", distribution);
        let sysctls = host.sysctls.iter();
        let sysctls: Vec<String> = sysctls
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        section(&mut text, "sysctl net.mptcp", &sysctls.join("\n"));
        let (endpoints, limits) = match &host.path_manager {
            Ok(settings) => (
                settings
                    .endpoints
                    .iter()
                    .map(endpoint)
                    .collect::<Vec<_>>()
                    .join("\n"),
                limits(settings.limits),
            ),
            Err(why) => (format!("unknown: {why}"), format!("unknown: {why}")),
        };
        section(&mut text, "ip mptcp endpoint show", &endpoints);
        section(&mut text, "ip mptcp limits show", &limits);
    }
    let Traced { sockets, findings } = match traced {
        Ok(traced) => traced,
        // "none" below would be a claim about the kernel.
        Err(why) => {
            section(&mut text, "nothing was traced", why);
            return text;
        }
    };
    section(
        &mut text,
        "MPTCP sockets and their paths when tracing began (compare ss -ManiH)",
        sockets,
    );
    section(
        &mut text,
        "events while tracing (compare ip mptcp monitor)",
        findings,
    );
    if let Some((before, after)) = counters {
        section(
            &mut text,
            "counters that changed while tracing (compare nstat)",
            &changed(before, after),
        );
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    const LINE: &str = "========================================";
    let body = match body.trim_end() {
        "" => "none",
        body => body,
    };
    let _infallible = write!(text, "\n{LINE}\n{title}\n{LINE}\n{body}\n");
}

/// As `ip mptcp endpoint show` prints it.
fn endpoint(it: &Configured) -> String {
    let mut words = vec![it.address.to_string()];
    words.extend(it.port.map(|port| format!("port {port}")));
    words.push(format!("id {}", it.id));
    words.extend(it.flags.iter().cloned());
    words.extend(it.device.as_ref().map(|name| format!("dev {name}")));
    words.join(" ")
}

/// As `ip mptcp limits show` prints them.
fn limits(limits: Limits) -> String {
    format!(
        "add_addr_accepted {} subflows {}",
        limits.addresses, limits.paths
    )
}

/// The growth of each counter, by network namespace.
fn changed(before: &Counted, after: &Counted) -> String {
    let mut lines = Vec::new();
    for (netns, counters) in after {
        let earlier = before.get(netns);
        for (name, value) in counters {
            let old = earlier.and_then(|it| it.get(name)).copied().unwrap_or(0);
            if *value != old {
                let growth = value.wrapping_sub(old);
                lines.push(format!("netns {netns}  MPTcpExt{name:<32} {growth}"));
            }
        }
    }
    lines.join("\n")
}

/// The distribution's name for people, from the text of `/etc/os-release`.
fn pretty_name(release: &str) -> Option<String> {
    let mut lines = release.lines();
    let value = lines.find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            kernel: "Linux 6.12.0 #1 x86_64".to_owned(),
            distribution: pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n"),
            sysctls: BTreeMap::from([("net.mptcp.enabled".to_owned(), "1".to_owned())]),
            path_manager: Ok(Settings {
                limits: Limits {
                    paths: 2,
                    addresses: 1,
                },
                endpoints: vec![Configured {
                    id: 3,
                    address: [203, 0, 113, 7].into(),
                    port: Some(4433),
                    device: Some("wan0".to_owned()),
                    flags: vec!["signal".to_owned()],
                }],
            }),
        }
    }

    fn nothing_found() -> Result<Traced, String> {
        Ok(Traced {
            sockets: String::new(),
            findings: String::new(),
        })
    }

    #[test]
    fn no_event_is_claimed_missing_where_nothing_was_traced() {
        let counters = Counted::new();
        let told = text(
            None,
            Some((&counters, &counters)),
            &Err("no BTF".to_owned()),
        );
        assert!(told.contains("\nnothing was traced\n"), "{told}");
        assert!(
            told.contains("\nno BTF\n") && !told.contains("none"),
            "{told}"
        );
        let told = text(None, Some((&counters, &counters)), &nothing_found());
        assert_eq!(told.matches("\nnone\n").count(), 3, "{told}");
    }

    #[test]
    fn settings_are_printed_as_ip_prints_them() {
        let told = text(Some(&host()), None, &nothing_found());
        for wanted in [
            "\ndistribution\n========================================\nDebian GNU/Linux 13\n",
            "\n203.0.113.7 port 4433 id 3 signal dev wan0\n",
            "\nadd_addr_accepted 1 subflows 2\n",
            "\nnet.mptcp.enabled = 1\n",
        ] {
            assert!(told.contains(wanted), "{wanted:?} is not in:\n{told}");
        }
        let refused = Host {
            path_manager: Err("Operation not permitted".to_owned()),
            ..host()
        };
        let told = text(Some(&refused), None, &nothing_found());
        assert!(told.contains("unknown: Operation not permitted"), "{told}");
    }

    #[test]
    fn a_redacted_endpoint_has_neither_its_address_nor_its_device() {
        let mut host = host();
        let mut redactor = Redactor::default();
        host.redact(&mut redactor);
        let told = text(Some(&host), None, &nothing_found());
        assert!(
            !told.contains("203.0.113.7") && !told.contains("wan0"),
            "{told}"
        );
        // The capture of the same bundle has the same pseudonym.
        let pseudonym = redactor.address([203, 0, 113, 7].into());
        assert!(
            told.contains(&format!("\n{pseudonym} port 4433 id 3 signal\n")),
            "{told}"
        );
    }

    #[test]
    fn only_counters_that_changed_are_printed() {
        let counters = |joins: u64| {
            let of_one = [("MPJoinSynRx", joins), ("MPFailTx", 7)];
            BTreeMap::from([(1, of_one.map(|(name, it)| (name.to_owned(), it)).into())])
        };
        let lines = changed(&counters(40), &counters(42));
        assert_eq!(lines.lines().count(), 1);
        assert!(
            lines.contains("MPTcpExtMPJoinSynRx ") && lines.ends_with(" 2"),
            "{lines}"
        );
        // A namespace that is new has counted from zero.
        assert!(changed(&Counted::new(), &counters(5)).contains("MPTcpExtMPFailTx"));
    }
}
