//! `summary`: sums, printed instead of lines.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{PathSum, Spoke, Sum, SumRow, SumTable};

#[derive(Serialize)]
pub(super) struct SummaryData<'a> {
    by: &'static str,
    rows: Vec<SumRowData<'a>>,
    others: Option<SumData>,
    forgotten: u64,
}

#[derive(Serialize)]
struct SumRowData<'a> {
    key: &'a str,
    #[serde(flatten)]
    sum: SumData,
}

#[derive(Serialize)]
struct SumData {
    connections: u64,
    fallbacks: u64,
    #[serde(rename = "questions")]
    queries: u64,
    refusals: u64,
    verdicts: BTreeMap<&'static str, u64>,
    share: Option<f64>,
    paths_up: u64,
    paths_failed: u64,
    paths_down: u64,
    bytes_sent: u64,
    bytes_received: u64,
    retransmissions: u64,
    peer_or_path: Option<&'static str>,
    spoke: Vec<SpokeData>,
}

#[derive(Serialize)]
struct SpokeData {
    over: String,
    mptcp: u64,
    tcp: u64,
}

impl<'a> SummaryData<'a> {
    pub(super) fn of(table: &'a SumTable) -> Self {
        let SumTable {
            by,
            rows,
            others,
            forgotten,
        } = table;
        Self {
            by: by.name(),
            rows: rows
                .iter()
                .map(|SumRow { key, sum }| SumRowData {
                    key,
                    sum: SumData::of(sum),
                })
                .collect(),
            others: others.as_ref().map(SumData::of),
            forgotten: *forgotten,
        }
    }
}

impl SumData {
    fn of(sum: &Sum) -> Self {
        let Sum {
            connections,
            fallbacks,
            deceived: _,
            queries,
            refusals,
            verdicts,
            paths:
                PathSum {
                    up,
                    failed,
                    down,
                    bytes_sent,
                    bytes_received,
                    retransmissions,
                },
            history,
        } = sum;
        Self {
            connections: *connections,
            fallbacks: *fallbacks,
            queries: *queries,
            refusals: *refusals,
            verdicts: verdicts
                .iter()
                .map(|(verdict, count)| (verdict.name(), *count))
                .collect(),
            share: sum.share(),
            paths_up: *up,
            paths_failed: *failed,
            paths_down: *down,
            bytes_sent: *bytes_sent,
            bytes_received: *bytes_received,
            retransmissions: *retransmissions,
            peer_or_path: history.as_ref().map(|it| it.whose.name()),
            spoke: history.iter().flat_map(|it| &it.spoke).map(spoke).collect(),
        }
    }
}

fn spoke(of: &Spoke) -> SpokeData {
    let Spoke { local, mptcp, tcp } = of;
    SpokeData {
        over: local.clone(),
        mptcp: *mptcp,
        tcp: *tcp,
    }
}
