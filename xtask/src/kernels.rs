//! Debian's own kernels: the newest package of a series, found at run time, unpacked into the cache
//! and never installed.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    apt::{self, Apt, Package},
    command::{self, say},
    places::{Places, make_empty},
};

/// Releases of a series that are tried before giving up: the lists may name packages that a mirror
/// no longer has.
const CANDIDATES_MAX: usize = 3;
const NAME_PREFIX: &str = "linux-image-";
const NAME_SUFFIX: &str = "-cloud-amd64";

/// A kernel that can be booted.
pub(crate) struct Kernel {
    /// What `uname -r` says.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// Module files by module name; empty for a kernel without modules.
    modules: BTreeMap<String, PathBuf>,
}

/// A module, decompressed.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// The newest kernel of a Debian series such as `6.12`.
pub(crate) fn provide(places: &Places, series: &str) -> Result<Kernel> {
    let kernels = places.cache.join("kernels");
    let failure = match candidates(places, series) {
        Ok((apt, candidates)) => {
            let mut failure = anyhow!(
                "Debian has no kernel of the series {series}; its series are those of \
                 linux-image-VERSION-cloud-amd64, such as 6.12"
            );
            for package in &candidates {
                match unpacked(&apt, package, &kernels) {
                    Ok(kernel) => return Ok(kernel),
                    Err(error) => {
                        say(format_args!(
                            "{error:#}; trying an older release of {series}"
                        ));
                        failure = error;
                    }
                }
            }
            failure
        }
        Err(error) => error,
    };
    // Without a network, yesterday's kernel is better than none.
    let Some(directory) = newest_cached(&kernels, series) else {
        return Err(failure);
    };
    say(format_args!(
        "{failure:#}; using the cached {}",
        directory.display()
    ));
    Kernel::open(&directory)
}

impl Kernel {
    /// A kernel image that stands alone.
    pub(crate) fn without_modules(release: String, image: PathBuf) -> Self {
        Self {
            release,
            image,
            modules: BTreeMap::new(),
        }
    }

    /// The named modules and all that they depend on, in load order. A name that is no module here
    /// is left out: it is built in, or the kernel does not have it, and the program that needs it
    /// will say so.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut loaded = Vec::new();
        for name in names {
            self.load(name, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn load(&self, name: &str, loaded: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        let Some(path) = self.modules.get(&name) else {
            return Ok(());
        };
        if loaded.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let content = decompress(path)?;
        for dependency in dependencies(&content) {
            self.load(&dependency, loaded)?;
        }
        loaded.push(Module { name, content });
        Ok(())
    }

    fn open(directory: &Path) -> Result<Self> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let (release, _) = name
            .split_once('=')
            .ok_or_else(|| anyhow!("{} is no unpacked kernel", directory.display()))?;
        let image = [
            directory.join(format!("boot/vmlinuz-{release}")),
            directory.join(format!("usr/lib/modules/{release}/vmlinuz")),
            directory.join(format!("lib/modules/{release}/vmlinuz")),
        ]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("the package of {release} holds no vmlinuz where Debian puts it"))?;
        let mut modules = BTreeMap::new();
        for parent in ["lib/modules", "usr/lib/modules"] {
            index_modules(&directory.join(parent), &mut modules)?;
        }
        Ok(Self {
            release: release.to_owned(),
            image,
            modules,
        })
    }
}

fn candidates(places: &Places, series: &str) -> Result<(Apt, Vec<Package>)> {
    let apt = Apt::open(places)?;
    let pattern = format!(
        "^{NAME_PREFIX}{}\\..*{NAME_SUFFIX}$",
        series.replace('.', "\\.")
    );
    let mut packages = apt.find(&pattern)?;
    packages.sort_by(|a, b| compare_versions(&b.version, &a.version));
    packages.truncate(CANDIDATES_MAX);
    Ok((apt, packages))
}

fn unpacked(apt: &Apt, package: &Package, kernels: &Path) -> Result<Kernel> {
    let release = package.name.trim_start_matches(NAME_PREFIX);
    let directory = kernels.join(format!("{release}={}", package.version));
    if directory.is_dir() {
        return Kernel::open(&directory);
    }
    // From 6.19 on the image package is empty and depends on these two.
    let parts = package
        .depends
        .iter()
        .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-"));
    let partial = kernels.join(format!("partial-{release}"));
    make_empty(&partial)?;
    for name in std::iter::once(&package.name).chain(parts) {
        let deb = apt.download(name, &package.version)?;
        apt::unpack(&deb, &partial)?;
        if let Some(download) = deb.parent() {
            fs::remove_dir_all(download)
                .with_context(|| format!("cannot remove {}", download.display()))?;
        }
    }
    fs::rename(&partial, &directory)
        .with_context(|| format!("cannot move the kernel to {}", directory.display()))?;
    let kernel = Kernel::open(&directory)?;
    remove_older(kernels, &directory, &series_of(release)?)?;
    Ok(kernel)
}

/// A series keeps one kernel in the cache: the newest that could be fetched.
fn remove_older(kernels: &Path, keep: &Path, series: &str) -> Result<()> {
    for (_, path) in cached(kernels, series).filter(|(_, path)| path != keep) {
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Unpacked kernels of a series, with the versions of their packages.
fn cached(kernels: &Path, series: &str) -> impl Iterator<Item = (String, PathBuf)> {
    let prefix = format!("{series}.");
    fs::read_dir(kernels)
        .ok()
        .into_iter()
        .flatten()
        .filter_map(move |entry| {
            let path = entry.ok()?.path();
            let (release, version) = path.file_name()?.to_str()?.split_once('=')?;
            release
                .starts_with(&prefix)
                .then(|| (version.to_owned(), path.clone()))
        })
}

fn newest_cached(kernels: &Path, series: &str) -> Option<PathBuf> {
    cached(kernels, series)
        .max_by(|(a, _), (b, _)| compare_versions(a, b))
        .map(|(_, path)| path)
}

fn index_modules(directory: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    // usr/lib/modules holds links named build and source that lead nowhere.
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", directory.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            index_modules(&path, modules)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            modules.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        Some(_) | None => {
            return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let purpose = format!("cannot decompress the module {}", path.display());
    command::output(
        Command::new(program)
            .arg("-dc")
            .arg(path)
            .stderr(Stdio::piped()),
        &purpose,
    )
}

/// What a module says in its `.modinfo` section that it needs: Debian's packages hold no
/// modules.dep, since the target machine's depmod writes it.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Order of Debian versions: digits by value, letters before other signs, `~` before the end.
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
    fn a_module_names_what_it_needs() {
        let check = |module: &[u8], want: &[&str]| assert_eq!(dependencies(module), want);
        check(
            b"\x7fELF\0license=GPL\0depends=nf_tables,libcrc32c\0name=x\0",
            &["nf_tables", "libcrc32c"],
        );
        check(b"\x7fELF\0license=GPL\0depends=\0name=x\0", &[]);
        check(b"\x7fELF", &[]);
    }

    #[test]
    fn a_release_tells_its_series() {
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
