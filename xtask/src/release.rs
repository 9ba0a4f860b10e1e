//! Versions of packages and releases of kernels, as words.

use std::cmp::Ordering;

use anyhow::{Result, bail};

/// Compares Debian versions: digits by value, letters before other signs, `~` before the end.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let number = |bytes: &mut &[u8]| {
        let length = bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (digits, rest) = bytes.split_at(length);
        *bytes = rest;
        digits.iter().fold(0u64, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    };
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !(a.is_empty() && b.is_empty()) {
        let is_text = |bytes: &[u8]| bytes.first().is_some_and(|byte| !byte.is_ascii_digit());
        while is_text(a) || is_text(b) {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (
                a.get(1..).unwrap_or_default(),
                b.get(1..).unwrap_or_default(),
            );
        }
        let order = number(&mut a).cmp(&number(&mut b));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// The series of a release string: `6.12` for `6.12.117+deb13-cloud-amd64`.
pub(crate) fn series_of(release: &str) -> Result<String> {
    let mut numbers = release.split(['.', '-', '+']);
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if !major.is_empty() && !minor.is_empty() => {
            Ok(format!("{major}.{minor}"))
        }
        _ => bail!("{release:?} is no kernel release"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "6.12.9-1",
            "6.12.115-2~deb12u1",
            "6.12.115-2",
            "6.12.117-1~bpo12+1",
            "6.12.117-1~deb12u1",
            "6.12.117-1",
            "6.12.117-1+deb13u1",
            "6.12.117-2",
        ];
        for (index, low) in ascending.iter().enumerate() {
            for (other, high) in ascending.iter().enumerate() {
                assert_eq!(
                    compare_versions(low, high),
                    index.cmp(&other),
                    "{low} and {high}"
                );
            }
        }
    }

    #[test]
    fn a_release_belongs_to_its_series() {
        for (release, want) in [
            ("6.12.117+deb13-cloud-amd64", "6.12"),
            ("5.10.0-46-cloud-amd64", "5.10"),
            ("7.3-rc1", "7.3"),
        ] {
            assert_eq!(series_of(release).unwrap(), want);
        }
        assert!(series_of("").is_err());
    }
}
