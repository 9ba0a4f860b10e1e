//! `mptcp-trace serve`: traces until stopped by a signal, and serves metrics.

mod collector;
mod recorded;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use sd_notify::NotifyState;
use serde::Deserialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, mpsc, oneshot},
    task::LocalSet,
};

use crate::{
    cli::{
        Exit, USAGE,
        args::{Encoding, LabelBy, ServeArgs, parse_listen},
        ending::conclude,
        interfaces,
        keep::Keep,
        options::Scope,
        tracing::{self, write_ready_file},
    },
    correlate::Limits,
    host::{self, privileges::RuntimeNeeds},
    model::Facts,
    observe::State,
    pipeline::{Ask, PeerBook, Stages, Stop, Until, View, dump_signal, run as run_pipeline},
    recorder::Handle,
    serve::{
        counters::Shared,
        exposition::{Family, Flavour},
        http::{self, Answers, NoDump, Parts},
        labels::Whose,
        listen::{Address, Listener},
        metrics::{About, families},
        otlp::{
            Resource,
            export::{Exporter, FLUSH_TIME_MAX, Measures},
            queue::Sums,
        },
        process::Usage,
    },
    sink::{Format, Source, escape},
};

/// Most pending requests to the loop.
const ASKS_MAX: usize = 8;
/// Maximum age of a cached answer of the loop: an answer scans all sockets, and any client may ask.
const STATE_AGE_MAX: Duration = Duration::from_secs(1);
/// Maximum time that the loop may take to answer.
const STATE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Address without `--listen` and `listen`.
const LISTEN_DEFAULT: Address =
    Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9944));

/// Settings of `--config`; missing ones come from the options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    /// Overridden by `--listen`; read at the start only.
    listen: Option<String>,
    /// Overrides `--label`.
    label: Option<LabelBy>,
    /// Overrides `--otlp`.
    otlp: Option<String>,
    /// Overrides `--otlp-ca`.
    otlp_ca: Option<PathBuf>,
    /// Overrides `--otlp-client-cert`.
    otlp_client_cert: Option<PathBuf>,
    /// Overrides `--otlp-client-key`.
    otlp_client_key: Option<PathBuf>,
    /// Overrides `--otlp-compression`.
    otlp_compression: Option<Encoding>,
    /// Added to `--otlp-header`.
    otlp_headers: BTreeMap<String, String>,
    /// Overrides `--keep`.
    keep: Option<String>,
    /// Overrides `--keep-dir`; read at the start only.
    keep_dir: Option<PathBuf>,
    /// Overrides `--dump-on`.
    dump_on: Option<Vec<String>>,
}

/// Runs the verb; returns the exit code.
pub(in crate::cli) fn run(args: &ServeArgs, verbose: u8) -> Result<u8, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    LocalSet::new().block_on(&runtime, serve(args, verbose))
}

async fn serve(args: &ServeArgs, verbose: u8) -> Result<u8, Exit> {
    // A wrong address or file is reported before anything is attached.
    let usage = |why: anyhow::Error| Exit::Because(USAGE, format!("{why:#}"));
    let config = read_config(args, false).map_err(usage)?;
    let exporter = Exporter::new(config.target(args, false).map_err(usage)?);
    let keep = config.recorder(args).map_err(usage)?;
    let listens_on = config.address(args).map_err(usage)?;
    let listener = Listener::bind(&listens_on).await?;
    let address = listener.address().context("cannot determine the port")?;
    let folder = keep.as_ref().map(Keep::lock).transpose()?;
    let mut attaching = args.attach.options();
    attaching.wants_pods |= config.whose(args) == Some(Whose::Pod);
    let started = tracing::start(&attaching, &Scope::All, verbose).await?;
    started.say(false);
    let (mut session, signals) = (started.session, started.signals);
    let facts = session.facts.clone();
    let counters = Shared::new(config.whose(args), &facts).naming(interfaces::of_address);
    let view = View {
        observers: vec![Box::new(counters.clone()), Box::new(exporter.clone())],
        limits: Limits {
            connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
            ..Limits::STATED
        },
        peers: PeerBook::naming(interfaces::of_address),
        ..View::default()
    };
    let mut stages = Stages::new(
        facts.clone(),
        Format::Nothing,
        Source::Live,
        io::sink(),
        None,
        view,
        None,
    );
    stages.look_up(&args.attach.pod_logs);
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let since = SystemTime::now();
    let resource = resource(&facts);
    let mut tracer = Tracer {
        asks,
        counters,
        exporter: exporter.clone(),
        about: Rc::new(About { facts, since }),
        last: Rc::new(Mutex::new(None)),
        over: Rc::default(),
        recorder: None,
    };
    let until = Until {
        asks: Some(asked),
        survives_hangup: true,
        signals: Some(signals),
        dumps: Some(dump_signal().context("cannot take signals")?),
        ..Until::default()
    };
    // A reload opens the settings again, with the privileges left at that point.
    session.drop_privileges(RuntimeNeeds::default())?;
    tracer.recorder = recorded::begin(keep.zip(folder), &session.facts, &mut stages)?;
    is_live(args, &address)?;
    // A task of its own: it continues after the loop has ended, with the loop's last findings.
    let interval = args.collector.otlp_interval;
    let sends = exporter
        .clone()
        .run(resource, tracer.clone(), since, interval);
    let sends = tokio::task::spawn_local(sends);
    let ended = tokio::select! {
        ended = run_pipeline(&mut session, &mut stages, until, None) => ended,
        never = http::serve(listener, tracer.clone()) => match never {},
        failed = reloads(args, &listens_on, &tracer) => Err(Stop::Failed(failed)),
        () = watchdog(&tracer) => Ok(None),
    };
    notify(&[NotifyState::Stopping]);
    let concluded = conclude(ended, None, &mut session, &mut stages);
    *tracer.over.borrow_mut() = session
        .losses()
        .ok()
        .map(|losses| stages.state(&losses, Duration::ZERO));
    say_lost(&exporter.end(sends).await);
    concluded
}

/// The description of this host for a collector.
fn resource(facts: &Facts) -> Resource {
    Resource {
        host: host::system::host_name(),
        kernel: facts.kernel.clone(),
        version: facts.version.clone(),
    }
}

/// Reports how many findings no collector accepted, since the start.
fn say_lost(sums: &Sums) {
    if let Some(lost) = sums.lost(FLUSH_TIME_MAX) {
        stderr_line!("mptcp-trace: {lost}");
    }
}

/// Reports that tracing is live: on stderr, in the ready file, and to systemd.
fn is_live(args: &ServeArgs, address: &Address) -> anyhow::Result<()> {
    match address {
        Address::Tcp(address) => {
            stderr_line!("mptcp-trace: serving http://{address}/metrics");
            if !address.ip().is_loopback() {
                stderr_line!(
                    "mptcp-trace: note: any client that reaches {address} can read causes and \
                     counts, {}",
                    match args.label {
                        None => "but no process names or addresses",
                        Some(LabelBy::Process) => "and process names",
                        Some(LabelBy::Cgroup) => "and control group paths",
                        Some(LabelBy::Pod) => "and names of pods",
                        Some(LabelBy::Interface) => "and names of interfaces",
                    }
                );
            }
        }
        Address::Unix(path) => {
            let path = escape(&path.display().to_string());
            stderr_line!("mptcp-trace: serving /metrics on unix:{path}");
        }
    }
    if let Some(path) = &args.ready_file {
        write_ready_file(path)?;
    }
    notify(&[NotifyState::Ready]);
    Ok(())
}

/// Notifies systemd, if it listens. A failure is only logged.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(false, state) {
        log::warn!("cannot notify systemd: {why}");
    }
}

impl Config {
    /// Where to listen.
    fn address(&self, args: &ServeArgs) -> anyhow::Result<Address> {
        match (&args.listen, &self.listen) {
            (Some(typed), _) => Ok(typed.clone()),
            (None, Some(read)) => parse_listen(read)
                .map_err(anyhow::Error::msg)
                .context("`listen` in --config is invalid"),
            (None, None) => Ok(LISTEN_DEFAULT),
        }
    }

    fn whose(&self, args: &ServeArgs) -> Option<Whose> {
        self.label.or(args.label).map(|label| match label {
            LabelBy::Process => Whose::Process,
            LabelBy::Cgroup => Whose::Cgroup,
            LabelBy::Pod => Whose::Pod,
            LabelBy::Interface => Whose::Interface,
        })
    }
}

/// `again`: the loop is running and must not block on the file.
fn read_config(args: &ServeArgs, again: bool) -> anyhow::Result<Config> {
    let Some(path) = &args.config else {
        return Ok(Config::default());
    };
    let text = read(path, CONFIG_BYTES_MAX, again)
        .and_then(|bytes| Ok(String::from_utf8(bytes)?))
        .with_context(|| format!("cannot read --config {}", path.display()))?;
    understand(&text).with_context(|| format!("--config {} is invalid", path.display()))
}

/// Parses settings. Errors quote neither the text nor the parser's message, which quotes it: it may
/// be a secret.
fn understand(text: &str) -> anyhow::Result<Config> {
    toml::from_str(text).map_err(|why| {
        let place = match why.span() {
            Some(span) => {
                let before = text.get(..span.start).unwrap_or(text);
                format!("line {}", before.matches('\n').count() + 1)
            }
            None => "the file as a whole".to_owned(),
        };
        anyhow::anyhow!(
            "{place} is not valid TOML or not a known setting (listen, label, otlp, \
             otlp-ca, otlp-client-cert, otlp-client-key, otlp-compression, keep, keep-dir, dump-on, [otlp-headers] with a text for each name); its text is not shown because it may be a secret"
        )
    })
}

/// Largest settings file, bytes.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

fn read(path: &Path, bytes_max: u64, again: bool) -> anyhow::Result<Vec<u8>> {
    use io::Read as _;
    let mut text = Vec::new();
    let mut how = fs::OpenOptions::new();
    how.read(true);
    if again {
        how.custom_flags(libc::O_NONBLOCK);
    }
    let file = how.open(path)?;
    anyhow::ensure!(
        !again || file.metadata()?.is_file(),
        "it is not a regular file, and reading it might block the tracer"
    );
    file.take(bytes_max + 1).read_to_end(&mut text)?;
    anyhow::ensure!(
        text.len() as u64 <= bytes_max,
        "it is larger than {bytes_max} bytes"
    );
    Ok(text)
}

/// Reloads the settings on each SIGHUP; invalid ones change nothing. Returns only if SIGHUP cannot
/// be received.
async fn reloads(args: &ServeArgs, listens_on: &Address, tracer: &Tracer) -> anyhow::Error {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(why) => return anyhow::Error::new(why).context("cannot take SIGHUP"),
    };
    loop {
        hangups.recv().await;
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        notify(&states);
        let read = read_config(args, true).and_then(|config| {
            let target = config.target(args, true)?;
            let keep = config.recorder(args)?;
            Ok((config.address(args)?, config, target, keep))
        });
        match read {
            Ok((address, config, target, keep)) => {
                recorded::change(tracer.recorder.as_ref(), keep);
                tracer.exporter.send_to(target);
                tracer.counters.set_whose(config.whose(args));
                stderr_line!("mptcp-trace: settings reloaded; counters are kept");
                if address != *listens_on {
                    log::warn!("`listen` changed: that takes effect at the next start");
                }
            }
            Err(why) => log::error!("settings unchanged: {why:#}"),
        }
        notify(&[NotifyState::Ready]);
    }
}

/// Notifies systemd's watchdog, as often as it requires, while the loop responds. Never returns.
async fn watchdog(tracer: &Tracer) {
    let mut usec = 0;
    if !sd_notify::watchdog_enabled(false, &mut usec) {
        return std::future::pending().await;
    }
    let mut clock = tokio::time::interval(Duration::from_micros(usec) / 2);
    loop {
        clock.tick().await;
        if tracer.is_alive().await {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// The loop, as seen by HTTP clients.
#[derive(Clone)]
struct Tracer {
    asks: mpsc::Sender<Ask>,
    counters: Shared,
    about: Rc<About>,
    /// The last answer and its time.
    last: Rc<Mutex<Option<(Instant, State)>>>,
    exporter: Exporter,
    /// The final state, once the loop has ended.
    over: Rc<RefCell<Option<State>>>,
    recorder: Option<Handle>,
}

impl Tracer {
    /// The current state, at most [`STATE_AGE_MAX`] old.
    async fn state(&self) -> Option<State> {
        if let Some(state) = &*self.over.borrow() {
            return Some(state.clone());
        }
        // Concurrent clients share one answer.
        let mut last = self.last.lock().await;
        if let Some((at, state)) = &*last
            && at.elapsed() < STATE_AGE_MAX
        {
            return Some(state.clone());
        }
        let (to, answer) = oneshot::channel();
        let asked = async {
            self.asks.send(Ask::State(to)).await.ok()?;
            answer.await.ok()
        };
        let state = tokio::time::timeout(STATE_WAIT_MAX, asked).await.ok()??;
        *last = Some((Instant::now(), state.clone()));
        Some(state)
    }
}

impl Measures for Tracer {
    async fn families(&self) -> Option<Vec<Family>> {
        let state = self.state().await?;
        let sent = self.exporter.sums();
        let recorded = self.recorder.as_ref().map(Handle::sums).unwrap_or_default();
        let usage = Usage::of_self(self.about.facts.boot_epoch);
        Some(
            self.counters
                .with(|counters| families(counters, &state, &self.about, sent, recorded, usage)),
        )
    }
}

impl Answers for Tracer {
    async fn metrics(&self, flavour: Flavour) -> Option<String> {
        Some(flavour.render(&self.families().await?))
    }

    async fn is_alive(&self) -> bool {
        self.state().await.is_some()
    }

    async fn dump(&self, query: &str) -> Result<Parts, NoDump> {
        recorded::dump(self.recorder.as_ref(), query).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};

    #[test]
    fn settings_that_cannot_be_understood_are_complained_about_without_their_text() {
        for line in [
            "authorization=\"Bearer hunter2\" x",
            "authorization=hunter2",
            "authorization=\"Bearer hunter2",
            "authorization=[\"hunter2\"]",
            "hunter2",
        ] {
            let why = understand(&format!("[otlp-headers]\n{line}\n")).unwrap_err();
            let said = format!("{why:#} {why:?}");
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.contains("line 2") || said.contains("line 3"), "{said}");
        }
        for text in ["label = \"hunter2\"", "hunter2 = 1", "otlp = 4711"] {
            let said = format!("{:#}", understand(text).unwrap_err());
            assert!(
                !said.contains("hunter2") && !said.contains("4711"),
                "{said}"
            );
        }
        assert!(understand("label = \"cgroup\"").is_ok());
    }

    #[test]
    fn the_command_line_wins_over_the_settings_and_both_over_the_default() {
        use clap::Parser as _;
        let address = |typed: &[&str], text: &str| {
            let line = [&["mptcp-trace", "serve"], typed].concat();
            let Some(Verb::Serve(args)) = Cli::parse_from(line).verb else {
                unreachable!()
            };
            understand(text).unwrap().address(&args)
        };
        for (typed, text, want) in [
            (&[][..], "", "127.0.0.1:9944"),
            (&[], "listen = ':9945'", "[::]:9945"),
            (&[], "listen = 'unix:/run/m.sock'", "unix:/run/m.sock"),
            (
                &["--listen", "127.0.0.1:9944"],
                "listen = ':9945'",
                "127.0.0.1:9944",
            ),
        ] {
            let got = address(typed, text).unwrap().to_string();
            assert_eq!(got, want, "{typed:?} {text}");
        }
        let why = address(&[], "listen = 'unix:'").unwrap_err();
        assert!(
            format!("{why:#}").contains("`listen` in --config"),
            "{why:#}"
        );
    }

    #[test]
    fn a_reload_waits_for_no_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let why = read(&pipe, CONFIG_BYTES_MAX, true).unwrap_err();
        assert!(why.to_string().contains("not a regular file"), "{why}");
    }
}
