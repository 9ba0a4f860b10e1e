//! The sensors: each observes one kind of event in the kernel.

use std::{fmt, str::FromStr};

/// A sensor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SensorId {
    /// Observes queries by applications. Without it there is nothing to trace.
    Query,
    /// Observes fallbacks, and births, owners and ends of connections.
    Fallback,
}

impl SensorId {
    /// All sensors, in the order of output.
    pub const ALL: [Self; 2] = [Self::Query, Self::Fallback];

    /// Its name, as printed and as stored in captures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for SensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SensorId {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|sensor| sensor.name() == name)
            .ok_or_else(|| format!("unknown sensor: {name:?}"))
    }
}

/// One value for each sensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerSensor<T>([T; SensorId::ALL.len()]);

impl<T> PerSensor<T> {
    /// Creates the value of each sensor with `value`.
    pub fn from_fn(value: impl FnMut(SensorId) -> T) -> Self {
        Self(SensorId::ALL.map(value))
    }

    /// Fallible variant of [`Self::from_fn`].
    ///
    /// # Errors
    ///
    /// The first error.
    pub fn try_from_fn<E>(mut value: impl FnMut(SensorId) -> Result<T, E>) -> Result<Self, E> {
        let [query, fallback] = SensorId::ALL;
        Ok(Self([value(query)?, value(fallback)?]))
    }

    /// The value of a sensor.
    pub fn of(&self, sensor: SensorId) -> &T {
        let [query, fallback] = &self.0;
        match sensor {
            SensorId::Query => query,
            SensorId::Fallback => fallback,
        }
    }

    /// Mutable access to the value of a sensor.
    pub fn of_mut(&mut self, sensor: SensorId) -> &mut T {
        let [query, fallback] = &mut self.0;
        match sensor {
            SensorId::Query => query,
            SensorId::Fallback => fallback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sensor_has_a_name_and_a_place_of_its_own() {
        let numbers = PerSensor::from_fn(|sensor| sensor as usize);
        for sensor in SensorId::ALL {
            assert_eq!(sensor.name().parse(), Ok(sensor));
            assert_eq!(*numbers.of(sensor), sensor as usize);
        }
        assert!("path".parse::<SensorId>().is_err());
    }
}
