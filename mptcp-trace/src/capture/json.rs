//! Facts and losses as a capture holds them (JSON).

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Checkpoint, ns};
use crate::model::{
    Counted, Dump, Facts, Growth, Loss, LossReport, Pod, Rung, SensorId, SensorState,
};

/// At most this many MPTCP counters, with names of at most that many bytes; no kernel comes close.
/// Each record is compared with all of them.
pub(super) const CAUSES_MAX: usize = 512;
pub(super) const CAUSE_BYTES_MAX: usize = 128;

/// [`Pod`] as stored in a file.
#[derive(Serialize, Deserialize)]
pub(super) struct PodTwin {
    uid: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    container: Option<String>,
}

impl From<&Pod> for PodTwin {
    fn from(pod: &Pod) -> Self {
        let Pod {
            uid,
            namespace,
            name,
            container,
        } = pod.clone();
        Self {
            uid,
            namespace,
            name,
            container,
        }
    }
}

impl From<PodTwin> for Pod {
    fn from(twin: PodTwin) -> Self {
        let PodTwin {
            uid,
            namespace,
            name,
            container,
        } = twin;
        Self {
            uid,
            namespace,
            name,
            container,
        }
    }
}

/// [`Facts`] as stored in a file.
#[derive(Serialize, Deserialize)]
pub(super) struct FactsTwin {
    version: String,
    kernel: String,
    boot_epoch_ns: u64,
    fallback_bit: Option<u8>,
    /// Absent in captures older than the fallback sensor.
    #[serde(default)]
    causes: Vec<(i32, String)>,
    #[serde(default)]
    counters_read_at_ns: BTreeMap<u32, (u64, u64)>,
    #[serde(default)]
    counters_listed_at_ns: Option<(u64, u64)>,
    #[serde(default)]
    counters_at_start: BTreeMap<u64, BTreeMap<String, u64>>,
    sensors: Vec<SensorTwin>,
    /// Begin and end of a dump; older versions overlook it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dump_ns: Option<(u64, Option<u64>)>,
}

#[derive(Serialize, Deserialize)]
struct SensorTwin {
    name: String,
    rung: String,
    probes: Vec<String>,
    limits: Vec<String>,
}

impl From<&Facts> for FactsTwin {
    fn from(facts: &Facts) -> Self {
        let Facts {
            version,
            kernel,
            boot_epoch,
            fallback_bit,
            causes,
            counters_read_at,
            counters_listed_at,
            counters_at_start,
            sensors,
            dump,
        } = facts;
        Self {
            version: version.clone(),
            kernel: kernel.clone(),
            boot_epoch_ns: u64::try_from(boot_epoch.as_nanos()).unwrap_or(u64::MAX),
            fallback_bit: *fallback_bit,
            causes: causes.clone(),
            counters_read_at_ns: counters_read_at
                .iter()
                .map(|(netns, (from, to))| (*netns, (ns(*from), ns(*to))))
                .collect(),
            counters_listed_at_ns: counters_listed_at.map(|(from, to)| (ns(from), ns(to))),
            counters_at_start: counters_at_start.clone(),
            sensors: sensors
                .iter()
                .map(
                    |SensorState {
                         sensor,
                         rung,
                         probes,
                         limits,
                     }| SensorTwin {
                        name: sensor.name().to_owned(),
                        rung: rung.name().to_owned(),
                        probes: probes.clone(),
                        limits: limits.clone(),
                    },
                )
                .collect(),
            dump_ns: dump.map(|Dump { from, to }| (ns(from), to.map(ns))),
        }
    }
}

impl TryFrom<FactsTwin> for Facts {
    type Error = anyhow::Error;

    fn try_from(twin: FactsTwin) -> anyhow::Result<Self> {
        let FactsTwin {
            version,
            kernel,
            boot_epoch_ns,
            fallback_bit,
            causes,
            counters_read_at_ns,
            counters_listed_at_ns,
            counters_at_start,
            sensors,
            dump_ns,
        } = twin;
        let sensors = sensors
            .into_iter()
            .map(
                |SensorTwin {
                     name,
                     rung,
                     probes,
                     limits,
                 }| {
                    let rung: Rung = rung.parse().map_err(anyhow::Error::msg)?;
                    Ok(SensorState {
                        sensor: sensor_named(&name)?,
                        rung,
                        probes,
                        limits,
                    })
                },
            )
            .collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(
            fallback_bit.is_none_or(|bit| bit < 64),
            "fallback bit is not a bit of a 64-bit word"
        );
        only_once(sensors.iter().map(|it| it.sensor))?;
        anyhow::ensure!(
            causes.len() <= CAUSES_MAX
                && causes.iter().all(|(_, name)| name.len() <= CAUSE_BYTES_MAX),
            "more than {CAUSES_MAX} causes, or one with a name of more than {CAUSE_BYTES_MAX} bytes"
        );
        let boot_epoch = Duration::from_nanos(boot_epoch_ns);
        Ok(Self {
            version,
            kernel,
            boot_epoch,
            fallback_bit,
            causes,
            counters_read_at: counters_read_at_ns
                .into_iter()
                .map(|(netns, (from, to))| {
                    (
                        netns,
                        (Duration::from_nanos(from), Duration::from_nanos(to)),
                    )
                })
                .collect(),
            counters_listed_at: counters_listed_at_ns
                .map(|(from, to)| (Duration::from_nanos(from), Duration::from_nanos(to))),
            counters_at_start,
            sensors,
            dump: dump_ns.map(|(from, to)| Dump {
                from: Duration::from_nanos(from),
                to: to.map(Duration::from_nanos),
            }),
        })
    }
}

/// Parses a sensor's name. A newer version may have more sensors, whose records this one cannot
/// read.
fn sensor_named(name: &str) -> anyhow::Result<SensorId> {
    name.parse().map_err(anyhow::Error::msg)
}

/// Rejects duplicate sensors.
fn only_once(sensors: impl Iterator<Item = SensorId>) -> anyhow::Result<()> {
    let mut known = Vec::new();
    for sensor in sensors {
        anyhow::ensure!(!known.contains(&sensor), "sensor {sensor} is listed twice");
        known.push(sensor);
    }
    Ok(())
}

/// [`LossReport`] as stored in a file.
#[derive(Serialize, Deserialize)]
pub(super) struct LossesTwin {
    sensors: Vec<LossTwin>,
    #[serde(default)]
    counted: Vec<CountedTwin>,
    #[serde(default)]
    paths_under_way: u64,
}

/// [`Checkpoint`] as stored in a file.
#[derive(Serialize, Deserialize)]
pub(super) struct CheckpointTwin {
    at_ns: u64,
    losses: LossesTwin,
    unrecorded: u64,
    omitted: u64,
    after_gap: bool,
}

impl From<&Checkpoint> for CheckpointTwin {
    fn from(checkpoint: &Checkpoint) -> Self {
        let Checkpoint {
            at,
            losses,
            unrecorded,
            omitted,
            after_gap,
        } = checkpoint;
        Self {
            at_ns: ns(*at),
            losses: losses.into(),
            unrecorded: *unrecorded,
            omitted: *omitted,
            after_gap: *after_gap,
        }
    }
}

impl TryFrom<CheckpointTwin> for Checkpoint {
    type Error = anyhow::Error;

    fn try_from(twin: CheckpointTwin) -> anyhow::Result<Self> {
        let CheckpointTwin {
            at_ns,
            losses,
            unrecorded,
            omitted,
            after_gap,
        } = twin;
        Ok(Self {
            at: Duration::from_nanos(at_ns),
            losses: losses.try_into()?,
            unrecorded,
            omitted,
            after_gap,
        })
    }
}

/// [`Counted`] as stored in a file.
#[derive(Serialize, Deserialize)]
struct CountedTwin {
    netns: u32,
    counters: BTreeMap<String, u64>,
    counters_after: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paths: Option<GrowthTwin>,
    doubt: Option<String>,
}

/// [`Growth`] as stored in a file.
#[derive(Serialize, Deserialize)]
struct GrowthTwin {
    before: BTreeMap<String, u64>,
    after: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
struct LossTwin {
    sensor: String,
    #[serde(flatten)]
    counters: BTreeMap<String, u64>,
}

impl From<&LossReport> for LossesTwin {
    fn from(report: &LossReport) -> Self {
        let twin = |loss: &Loss| {
            let counters = loss.counters();
            LossTwin {
                sensor: loss.sensor.name().to_owned(),
                counters: counters
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            }
        };
        let counted = |it: &Counted| {
            let Counted {
                netns,
                counters,
                counters_after,
                paths,
                doubt,
            } = it.clone();
            CountedTwin {
                netns,
                counters,
                counters_after,
                paths: paths.map(|Growth { before, after }| GrowthTwin { before, after }),
                doubt,
            }
        };
        Self {
            sensors: report.sensors.iter().map(twin).collect(),
            counted: report.counted.iter().map(counted).collect(),
            paths_under_way: report.paths_under_way,
        }
    }
}

impl TryFrom<LossesTwin> for LossReport {
    type Error = anyhow::Error;

    fn try_from(twin: LossesTwin) -> anyhow::Result<Self> {
        let loss = |LossTwin { sensor, counters }| {
            // A counter that an older version did not have is 0.
            let value = |name: &str| counters.get(name).copied().unwrap_or(0);
            Ok(Loss::from_counters(sensor_named(&sensor)?, value))
        };
        let counted = |twin: CountedTwin| {
            let CountedTwin {
                netns,
                counters,
                counters_after,
                paths,
                doubt,
            } = twin;
            Counted {
                netns,
                counters,
                counters_after,
                paths: paths.map(|GrowthTwin { before, after }| Growth { before, after }),
                doubt,
            }
        };
        let sensors: Vec<Loss> = twin
            .sensors
            .into_iter()
            .map(loss)
            .collect::<anyhow::Result<_>>()?;
        only_once(sensors.iter().map(|it| it.sensor))?;
        Ok(Self {
            sensors,
            counted: twin.counted.into_iter().map(counted).collect(),
            paths_under_way: twin.paths_under_way,
        })
    }
}
