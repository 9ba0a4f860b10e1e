//! `summary`: sums, printed instead of lines.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{Sum, SumRow, SumTable};

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
        }
    }
}
