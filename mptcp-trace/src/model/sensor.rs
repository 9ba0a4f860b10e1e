//! The sensors: each observes one kind of event in the kernel.

use std::{fmt, str::FromStr};

/// What output says about a sensor.
struct Row {
    name: &'static str,
    /// One of its events, and several.
    event: &'static str,
    events: &'static str,
    /// What its counter `unfollowed` counts.
    unfollowed: &'static str,
    /// The limit behind its counter `capped`.
    cap: &'static str,
    /// The consequence if it is off.
    without_it: &'static str,
}

/// Defines the sensors, each with its row: neither can be forgotten.
macro_rules! sensors {
    ($($(#[$doc:meta])* $sensor:ident as $field:ident { $($column:ident: $value:expr,)* })*) => {
        /// A sensor.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum SensorId {
            $($(#[$doc])* $sensor,)*
        }

        impl SensorId {
            /// All sensors, in the order of output; the probes of a later one are attached first.
            pub const ALL: [Self; [$(Self::$sensor),*].len()] = [$(Self::$sensor),*];

            fn row(self) -> &'static Row {
                match self {
                    $(Self::$sensor => const { &Row { $($column: $value),* } },)*
                }
            }
        }

        /// One value for each sensor.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct PerSensor<T> {
            $($(#[$doc])* pub $field: T,)*
        }

        impl<T> PerSensor<T> {
            /// Creates the value of each sensor with `value`.
            pub fn from_fn(mut value: impl FnMut(SensorId) -> T) -> Self {
                Self { $($field: value(SensorId::$sensor)),* }
            }

            /// Fallible variant of [`Self::from_fn`].
            ///
            /// # Errors
            ///
            /// The first error.
            pub fn try_from_fn<E>(
                mut value: impl FnMut(SensorId) -> Result<T, E>,
            ) -> Result<Self, E> {
                Ok(Self { $($field: value(SensorId::$sensor)?),* })
            }

            /// The value of a sensor.
            pub fn of(&self, sensor: SensorId) -> &T {
                match sensor {
                    $(SensorId::$sensor => &self.$field,)*
                }
            }

            /// Mutable access to the value of a sensor.
            pub fn of_mut(&mut self, sensor: SensorId) -> &mut T {
                match sensor {
                    $(SensorId::$sensor => &mut self.$field,)*
                }
            }
        }
    };
}

sensors! {
    /// Observes queries by applications. Without it there is nothing to trace.
    Query as query {
        name: "query",
        event: "query",
        events: "queries",
        unfollowed: "children not followed",
        cap: "--cap",
        without_it: "nothing is traced",
    }
    /// Observes fallbacks, and births, owners and ends of connections.
    Fallback as fallback {
        name: "fallback",
        event: "fallback",
        events: "fallbacks",
        unfollowed: "sockets not tracked",
        cap: "no limit",
        without_it: "only queries are traced",
    }
    /// Observes the paths of connections: how they come up, fail and end.
    Subflow as subflow {
        name: "subflow",
        event: "path event",
        events: "path events",
        unfollowed: "paths not tracked",
        cap: "100 a second per connection or listener",
        without_it: "paths and the ends of connections are not traced",
    }
}

impl SensorId {
    /// Its name, as printed and as stored in captures.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The word for this many of its events.
    #[must_use]
    pub fn events(self, count: usize) -> &'static str {
        match count {
            1 => self.row().event,
            _ => self.row().events,
        }
    }

    /// What its counter `unfollowed` counts.
    #[must_use]
    pub fn unfollowed(self) -> &'static str {
        self.row().unfollowed
    }

    /// The limit behind its counter `capped`.
    #[must_use]
    pub fn cap(self) -> &'static str {
        self.row().cap
    }

    /// The consequence if it is off.
    #[must_use]
    pub fn without_it(self) -> &'static str {
        self.row().without_it
    }

    /// False for the sensor without which there is nothing to trace.
    #[must_use]
    pub fn is_optional(self) -> bool {
        self != Self::Query
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
