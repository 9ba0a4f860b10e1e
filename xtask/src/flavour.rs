//! Names of kernels, as in `--kernel 6.12-oldest-arm64-16k`: a series, whether the oldest release is
//! wanted, and a flavour.

use std::collections::BTreeSet;

use crate::architecture::Architecture::{self, Aarch64, X86_64};

/// Suffix of a series: the oldest release that the archive still has, not the newest.
pub(crate) const OLDEST: &str = "-oldest";

/// A flavour of Debian's kernels: one configuration for one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// What follows the series in `--kernel`; nothing for the default.
    pub(crate) name: &'static str,
    /// What follows the version in the names of Debian's packages.
    pub(crate) package_suffix: &'static str,
    pub(crate) architecture: Architecture,
}

/// All flavours with MPTCP. A name never ends with another one of the list that comes before it.
const FLAVOURS: [Flavour; 7] = [
    flavour("-arm64-generic", "-arm64", Aarch64),
    flavour("-arm64-16k", "-arm64-16k", Aarch64),
    flavour("-arm64-rt", "-rt-arm64", Aarch64),
    flavour("-arm64", "-cloud-arm64", Aarch64),
    flavour("-generic", "-amd64", X86_64),
    flavour("-rt", "-rt-amd64", X86_64),
    flavour("", "-cloud-amd64", X86_64),
];

const fn flavour(
    name: &'static str,
    package_suffix: &'static str,
    architecture: Architecture,
) -> Flavour {
    Flavour {
        name,
        package_suffix,
        architecture,
    }
}

impl Flavour {
    /// The one without a name.
    pub(crate) const DEFAULT: Self = {
        let [.., default] = FLAVOURS;
        default
    };

    /// The flavour of a release string; `None` for a kernel that Debian did not build.
    pub(crate) fn of_release(release: &str) -> Option<Self> {
        FLAVOURS.into_iter().find(|it| it.is_of(release))
    }

    /// True if a release string, such as `6.12.118+deb13-cloud-amd64`, is of this flavour.
    pub(crate) fn is_of(self, release: &str) -> bool {
        let before = release.strip_suffix(self.package_suffix);
        before.is_some_and(|it| it.split('-').all(starts_with_digit))
    }
}

fn starts_with_digit(part: &str) -> bool {
    part.starts_with(|it: char| it.is_ascii_digit())
}

/// A parsed `--kernel` argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    /// The series, such as `6.12`.
    pub(crate) series: &'a str,
    /// The oldest release, not the newest.
    pub(crate) oldest: bool,
    pub(crate) flavour: Flavour,
}

impl<'a> Wanted<'a> {
    /// Never fails: whatever is unknown is part of the series, which the archive then lacks.
    pub(crate) fn parse(text: &'a str) -> Self {
        let found = FLAVOURS
            .into_iter()
            .find_map(|it| Some((text.strip_suffix(it.name)?, it)));
        let (rest, flavour) = found.unwrap_or((text, Flavour::DEFAULT));
        let series = rest.strip_suffix(OLDEST);
        Self {
            series: series.unwrap_or(rest),
            oldest: series.is_some(),
            flavour,
        }
    }
}

/// The architecture of the kernel that a `--kernel` argument names.
pub(crate) fn architecture_of(text: &str) -> Architecture {
    Wanted::parse(text).flavour.architecture
}

/// The architectures of the kernels that these arguments name, each once.
pub(crate) fn architectures_of(kernels: &[String]) -> BTreeSet<Architecture> {
    kernels
        .iter()
        .map(|kernel| architecture_of(kernel))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_of_one_flavour() {
        for (release, name) in [
            ("6.1.0-57-cloud-amd64", "6.1"),
            ("6.1.0-57-amd64", "6.1-generic"),
            ("6.1.0-57-rt-amd64", "6.1-rt"),
            ("6.12.118+deb13-arm64-16k", "6.12-arm64-16k"),
            ("6.12.118+deb13-cloud-arm64", "6.12-arm64"),
            ("6.12.118+deb13-rt-arm64", "6.12-arm64-rt"),
            ("6.12.118+deb13-arm64", "6.12-arm64-generic"),
        ] {
            let of: Vec<Flavour> = FLAVOURS
                .into_iter()
                .filter(|it| it.is_of(release))
                .collect();
            assert_eq!(of, [Wanted::parse(name).flavour], "{release}");
        }
    }

    #[test]
    fn a_name_is_a_series_and_perhaps_an_age_and_a_flavour() {
        let check = |text: &str, series: &str, oldest: bool, package: &str| {
            let wanted = Wanted::parse(text);
            assert_eq!(
                (wanted.series, wanted.oldest, wanted.flavour.package_suffix),
                (series, oldest, package),
                "{text}"
            );
        };
        check("6.12", "6.12", false, "-cloud-amd64");
        check("6.12-oldest", "6.12", true, "-cloud-amd64");
        check("6.12-rt", "6.12", false, "-rt-amd64");
        check("6.1-generic", "6.1", false, "-amd64");
        check("6.12-arm64", "6.12", false, "-cloud-arm64");
        check("6.12-oldest-arm64-16k", "6.12", true, "-arm64-16k");
        check("7.3-arm64-rt", "7.3", false, "-rt-arm64");
        check("7.3-arm64-generic", "7.3", false, "-arm64");
        check("sol-tcp", "sol-tcp", false, "-cloud-amd64");
        check("6.12-mips", "6.12-mips", false, "-cloud-amd64");
    }
}
