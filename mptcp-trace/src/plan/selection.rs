//! Which attach method each sensor gets, and what is tried if one does not work.

use super::{Plan, Probe, RungPlan};
use crate::model::{PerSensor, SensorId};

/// The attach method of each sensor; an optional sensor may have none.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    query: &'a RungPlan,
    sensors: PerSensor<Option<&'a RungPlan>>,
}

impl<'a> Selection<'a> {
    /// This method for queries, and for each other sensor its best one that is not better: a
    /// method that does not work for queries is not tried again.
    #[must_use]
    pub fn best(plan: &'a Plan, query: &'a RungPlan) -> Self {
        let sensors = PerSensor::from_fn(|sensor| match sensor.is_optional() {
            true => plan.of(sensor).beside(query.rung).next(),
            false => Some(query),
        });
        Self { query, sensors }
    }

    /// The same, but the next worse method for this sensor, or none; `None` if it has to run, or
    /// is off already.
    #[must_use]
    pub fn with_worse(mut self, plan: &'a Plan, sensor: SensorId) -> Option<Self> {
        let failed = self.of(sensor).filter(|_| sensor.is_optional())?;
        let mut worse = plan.of(sensor).beside(failed.rung);
        *self.sensors.of_mut(sensor) = worse.find(|it| it.rung > failed.rung);
        Some(self)
    }

    /// The method of the query sensor.
    #[must_use]
    pub fn query(&self) -> &'a RungPlan {
        self.query
    }

    /// The method of a sensor, if it runs.
    #[must_use]
    pub fn of(&self, sensor: SensorId) -> Option<&'a RungPlan> {
        *self.sensors.of(sensor)
    }

    /// The sensors that run.
    pub fn sensors(&self) -> impl DoubleEndedIterator<Item = (SensorId, &'a RungPlan)> {
        let of = |sensor| Some((sensor, self.of(sensor)?));
        SensorId::ALL.into_iter().filter_map(of)
    }

    /// The probes of a sensor, without those that a program of another one serves.
    #[must_use]
    pub fn probes_of(&self, sensor: SensorId) -> Vec<Probe> {
        let planned = self.of(sensor).map_or(&[][..], |plan| &plan.probes);
        let is_own = |probe: &&Probe| !self.is_served(probe);
        planned.iter().filter(is_own).cloned().collect()
    }

    /// True if a program of another sensor serves this one too.
    #[must_use]
    pub fn is_shared(&self, sensor: SensorId) -> bool {
        let plan = self.of(sensor);
        plan.is_some_and(|plan| plan.probes.iter().any(|probe| self.is_served(probe)))
    }

    fn is_served(&self, probe: &Probe) -> bool {
        let mut planned = self.sensors().flat_map(|(_, plan)| &plan.probes);
        let by = probe.attachment.served_by;
        by.is_some_and(|by| planned.any(|it| it.program() == by))
    }
}
