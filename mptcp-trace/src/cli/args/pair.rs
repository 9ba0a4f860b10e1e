//! Arguments of `pair`.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser as _};

use super::{ConnectionFilterArgs, view::CONNECTIONS};
use crate::pair::Judgement;

/// Options of `pair`.
#[derive(Args, Debug)]
#[command(
    after_help = "Record both ends at the same time, then compare them on any machine:\n  \
                  client$ mptcp-trace --capture client.mpt --duration 1m\n  \
                  server$ mptcp-trace --capture server.mpt --duration 1m\n  \
                  mptcp-trace pair client.mpt server.mpt\n\n\
                  Examples:\n  mptcp-trace pair client.mpt server.mpt\n  \
                  mptcp-trace pair client.mpt server.mpt --port 443 --kind option-removed\n  \
                  mptcp-trace pair client.mpt server.mpt -v     # also the connections without trouble\n  \
                  mptcp-trace pair client.mpt server.mpt --json | jq -r .data.why\n  \
                  ssh server mptcp-trace dump --since 10m -o - | mptcp-trace pair client.mpt -"
)]
pub struct PairArgs {
    /// Capture, dump or bundle of the host that opens the connections; - is stdin
    pub client: PathBuf,
    /// Capture, dump or bundle of the host that accepts them, of the same time; - is stdin
    pub server: PathBuf,
    /// Print JSON lines (docs/output.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Show only connections with this judgement
    ///
    /// Without it, all but mptcp are shown; with -v, also these.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_parser = PossibleValuesParser::new(Judgement::ALL.map(Judgement::name)).map(judgement))]
    pub kind: Vec<Judgement>,
    /// Show times in UTC instead of local time
    #[arg(long, conflicts_with = "json")]
    pub utc: bool,
    /// Filter by connection: shown if one of its ends matches.
    #[command(flatten)]
    pub which: ConnectionFilterArgs,
    /// Track at most N connections of a capture; when full, evict the least recently active one
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

/// The judgement of a name, which clap has checked.
#[expect(clippy::needless_pass_by_value, reason = "clap hands it over")]
fn judgement(name: String) -> Judgement {
    let mut all = Judgement::ALL.into_iter();
    all.find(|it| it.name() == name)
        .unwrap_or(Judgement::CannotSay)
}
