//! Debian's own kernels: the newest or the oldest package of a series, found at run time, unpacked
//! into the cache and never installed.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    apt::{self, Apt, Package},
    architecture::Architecture,
    command::{self, say},
    flavour::{Flavour, Wanted},
    places::{Places, make_empty},
    release::{compare_versions, series_of},
};

/// Number of releases to try before giving up: the lists may name packages that a mirror no longer
/// has.
const CANDIDATES_MAX: usize = 4;
const NAME_PREFIX: &str = "linux-image-";

/// A bootable kernel.
pub(crate) struct Kernel {
    /// The output of `uname -r`.
    pub(crate) release: String,
    pub(crate) architecture: Architecture,
    pub(crate) image: PathBuf,
    /// A description of the kernel's types that the kernel itself does not contain.
    pub(crate) btf: Option<PathBuf>,
    /// Module files by module name; empty for a kernel without modules.
    modules: BTreeMap<String, PathBuf>,
}

/// A decompressed module.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// The result of looking up a series in the archive.
pub(crate) enum Found {
    Kernel(Kernel),
    /// No release can be fetched; the reason, in one line.
    Gone(String),
}

/// Provides the newest kernel of a Debian series such as `6.12`, or the oldest for `6.12-oldest`,
/// in the flavour that the name says.
pub(crate) fn provide(places: &Places, wanted: &str) -> Result<Found> {
    let wanted = Wanted::parse(wanted);
    let kernels = places.cache.join("kernels");
    let fetched = fetch(places, wanted, &kernels);
    let why = match &fetched {
        Ok(Found::Kernel(_)) => return fetched,
        Ok(Found::Gone(why)) => why.clone(),
        Err(error) => format!("{error:#}"),
    };
    // Without a network, use the kernel in the cache.
    let Some(directory) = best_cached(&kernels, wanted) else {
        return fetched;
    };
    say(format_args!(
        "{why}; using the cached {}",
        directory.display()
    ));
    Kernel::open(&directory).map(Found::Kernel)
}

fn fetch(places: &Places, wanted: Wanted, kernels: &Path) -> Result<Found> {
    let apt = Apt::open(places)?;
    // Since 6.19 the image package is empty and depends on the two others.
    let listed = apt.find(&format!(
        "^linux-(image|binary|modules)-{}\\..*[0-9]{}$",
        wanted.series.replace('.', "\\."),
        wanted.flavour.package_suffix
    ))?;
    let (complete, incomplete) = wanted.candidates(&listed);
    // Archives keep the signed image longer than its modules. The kernel boots without them, and a
    // test that needs one reports that it is missing.
    let bare = wanted.without_modules(&listed);
    let mut why = incomplete;
    let whole = complete.iter().map(|package| (package, Parts::All));
    let bare = bare.iter().map(|package| (package, Parts::Binary));
    for (package, which) in whole.chain(bare).take(CANDIDATES_MAX) {
        let directory = kernels.join(wanted.directory_name(package));
        if directory.is_dir() {
            return Kernel::open(&directory).map(Found::Kernel);
        }
        if which == Parts::Binary {
            let words = why.clone().unwrap_or_default();
            say(format_args!("{words}; booting it without modules"));
        }
        match download(&apt, package, which) {
            Ok(debs) => return unpack(&debs, wanted, kernels, &directory).map(Found::Kernel),
            Err(error) => {
                let words = one_line(&format!("{error:#}"));
                say(format_args!(
                    "{words}; trying another release of {}",
                    wanted.series
                ));
                why.get_or_insert(words);
            }
        }
    }
    Ok(Found::Gone(why.unwrap_or_else(|| {
        format!(
            "Debian has no kernel of the series {}; its series are those of \
             linux-image-VERSION{}, such as 6.12",
            wanted.series, wanted.flavour.package_suffix
        )
    })))
}

impl Wanted<'_> {
    /// The image packages with all parts in the lists, best first, and what is missing for the best
    /// of the others.
    fn candidates(self, listed: &[Package]) -> (Vec<&Package>, Option<String>) {
        let mut images: Vec<&Package> = listed
            .iter()
            .filter(|package| package.name.starts_with(NAME_PREFIX))
            .collect();
        images.sort_by(|a, b| self.order(&a.version, &b.version));
        images.dedup_by_key(|package| (&package.name, &package.version));
        let missing = |image: &Package| {
            parts(image, Parts::All)
                .find(|part| {
                    let is_it = |one: &Package| one.name == **part && one.version == image.version;
                    !listed.iter().any(is_it)
                })
                .map(|part| {
                    format!(
                        "the archive lists {} {}, but not {part}, which it depends on",
                        image.name, image.version
                    )
                })
        };
        let why = images.iter().find_map(|image| missing(image));
        images.retain(|image| missing(image).is_none());
        (images, why)
    }

    /// The image packages with all parts except the modules, best first.
    fn without_modules(self, listed: &[Package]) -> Vec<&Package> {
        let is_listed = |name: &str, version: &str| {
            listed
                .iter()
                .any(|one| one.name == name && one.version == version)
        };
        let mut images: Vec<&Package> = listed
            .iter()
            .filter(|package| package.name.starts_with(NAME_PREFIX))
            .filter(|image| {
                let mut binaries = parts(image, Parts::Binary).peekable();
                binaries.peek().is_some()
                    && binaries.all(|part| is_listed(part, &image.version))
                    && !parts(image, Parts::All).all(|part| is_listed(part, &image.version))
            })
            .collect();
        images.sort_by(|a, b| self.order(&a.version, &b.version));
        images.dedup_by_key(|package| (&package.name, &package.version));
        images
    }

    /// Orders release strings, best first.
    fn order(self, a: &str, b: &str) -> Ordering {
        if self.oldest {
            compare_versions(a, b)
        } else {
            compare_versions(b, a)
        }
    }

    /// The newest and the oldest kernel have separate directories, so that neither replaces the
    /// other.
    fn directory_name(self, package: &Package) -> String {
        format!(
            "{}={}{}",
            release(package),
            package.version,
            self.cache_suffix()
        )
    }

    fn cache_suffix(self) -> &'static str {
        if self.oldest { "=oldest" } else { "" }
    }
}

impl Kernel {
    /// A kernel image without modules.
    pub(crate) fn without_modules(release: String, image: PathBuf) -> Self {
        Self {
            release,
            architecture: Architecture::X86_64,
            image,
            btf: None,
            modules: BTreeMap::new(),
        }
    }

    /// Adds a file that describes the kernel's types.
    pub(crate) fn with_btf(self, btf: PathBuf) -> Self {
        Self {
            btf: Some(btf),
            ..self
        }
    }

    /// Returns the named modules and their dependencies, in load order. A name without a module
    /// file is skipped: it is built in, or this kernel lacks it, in which case the program that
    /// needs it reports that.
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
        let flavour = Flavour::of_release(release)
            .with_context(|| format!("{release} is no kernel of Debian"))?;
        Ok(Self {
            release: release.to_owned(),
            architecture: flavour.architecture,
            image,
            btf: None,
            modules,
        })
    }
}

/// Which dependencies of an image package to return.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// Everything, modules included.
    All,
    /// Only the part that boots.
    Binary,
}

/// The packages that contain what the image package lacks.
fn parts(image: &Package, which: Parts) -> impl Iterator<Item = &String> {
    image.depends.iter().filter(move |name| {
        name.starts_with("linux-binary-")
            || which == Parts::All && name.starts_with("linux-modules-")
    })
}

fn release(image: &Package) -> &str {
    image.name.trim_start_matches(NAME_PREFIX)
}

fn download(apt: &Apt, image: &Package, which: Parts) -> Result<Vec<PathBuf>> {
    let mut debs = Vec::new();
    for name in std::iter::once(&image.name).chain(parts(image, which)) {
        match apt.download(name, &image.version) {
            Ok(deb) => debs.push(deb),
            Err(error) => {
                remove_downloads(&debs)?;
                return Err(error);
            }
        }
    }
    Ok(debs)
}

fn unpack(debs: &[PathBuf], wanted: Wanted, kernels: &Path, directory: &Path) -> Result<Kernel> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let partial = kernels.join(format!("partial-{}", name.replace('=', "-")));
    make_empty(&partial)?;
    for deb in debs {
        apt::unpack(deb, &partial)?;
    }
    remove_downloads(debs)?;
    fs::rename(&partial, directory)
        .with_context(|| format!("cannot move the kernel to {}", directory.display()))?;
    let kernel = Kernel::open(directory)?;
    remove_others(kernels, directory, wanted)?;
    Ok(kernel)
}

fn remove_downloads(debs: &[PathBuf]) -> Result<()> {
    for download in debs.iter().filter_map(|deb| deb.parent()) {
        fs::remove_dir_all(download)
            .with_context(|| format!("cannot remove {}", download.display()))?;
    }
    Ok(())
}

/// Keeps one directory per wanted kernel: the best that could be fetched.
fn remove_others(kernels: &Path, keep: &Path, wanted: Wanted) -> Result<()> {
    for (_, path) in cached(kernels, wanted).filter(|(_, path)| path != keep) {
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Cached kernels that were fetched for this argument, with the versions of their packages.
fn cached<'a>(
    kernels: &Path,
    wanted: Wanted<'a>,
) -> impl Iterator<Item = (String, PathBuf)> + use<'a> {
    fs::read_dir(kernels)
        .ok()
        .into_iter()
        .flatten()
        .filter_map(move |entry| {
            let path = entry.ok()?.path();
            let (release, version) = path.file_name()?.to_str()?.split_once('=')?;
            let version = version.strip_suffix(wanted.cache_suffix())?;
            (series_of(release).ok()? == wanted.series
                && wanted.flavour.is_of(release)
                && !version.contains('='))
            .then(|| (version.to_owned(), path.clone()))
        })
}

fn best_cached(kernels: &Path, wanted: Wanted) -> Option<PathBuf> {
    cached(kernels, wanted)
        .min_by(|(a, _), (b, _)| wanted.order(a, b))
        .map(|(_, path)| path)
}

/// Joins apt's output, since a skip reason is one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn index_modules(directory: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    // usr/lib/modules contains dangling links named build and source.
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

/// The dependencies that a module lists in its `.modinfo` section. Debian's packages contain no
/// modules.dep: depmod generates it on the target machine.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, depends: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            depends: depends.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn a_series_is_its_newest_kernel_or_its_oldest() {
        let listed = [
            package(
                "linux-image-6.12.43-cloud-amd64",
                "6.12.43-1~bpo12+1",
                &["kmod"],
            ),
            package("linux-image-6.12.118-cloud-amd64", "6.12.118-1", &[]),
            package("linux-image-6.12.118-cloud-amd64", "6.12.118-1", &[]),
            package("linux-image-6.12.90-cloud-amd64", "6.12.90-1", &[]),
        ];
        for (wanted, want) in [
            (
                "6.12",
                [
                    "6.12.118-cloud-amd64=6.12.118-1",
                    "6.12.90-cloud-amd64=6.12.90-1",
                    "6.12.43-cloud-amd64=6.12.43-1~bpo12+1",
                ],
            ),
            (
                "6.12-oldest",
                [
                    "6.12.43-cloud-amd64=6.12.43-1~bpo12+1=oldest",
                    "6.12.90-cloud-amd64=6.12.90-1=oldest",
                    "6.12.118-cloud-amd64=6.12.118-1=oldest",
                ],
            ),
        ] {
            let wanted = Wanted::parse(wanted);
            let (images, why) = wanted.candidates(&listed);
            let got: Vec<String> = images
                .iter()
                .map(|image| wanted.directory_name(image))
                .collect();
            assert_eq!(got, want);
            assert_eq!(why, None);
        }
    }

    #[test]
    fn an_image_without_its_modules_is_no_kernel() {
        let image = |patch: &str| {
            package(
                &format!("linux-image-7.1.{patch}"),
                patch,
                &["dracut", &format!("linux-modules-7.1.{patch}")],
            )
        };
        let listed = [
            image("3"),
            image("7"),
            package("linux-modules-7.1.3", "3", &[]),
        ];
        let (images, why) = Wanted::parse("7.1").candidates(&listed);
        assert_eq!(images, [&image("3")]);
        assert_eq!(
            why.unwrap(),
            "the archive lists linux-image-7.1.7 7, but not linux-modules-7.1.7, which it depends on"
        );
        // In older releases the image package itself contains the kernel: without modules there is
        // none.
        assert!(Wanted::parse("7.1").without_modules(&listed).is_empty());
        let depends = ["linux-binary-7.1.9", "linux-modules-7.1.9"];
        let split = package("linux-image-7.1.9", "9", &depends);
        let listed = [split.clone(), package("linux-binary-7.1.9", "9", &[])];
        let wanted = Wanted::parse("7.1");
        assert_eq!(wanted.without_modules(&listed), [&split]);
        let whole = [&listed[..], &[package("linux-modules-7.1.9", "9", &[])]].concat();
        assert!(wanted.without_modules(&whole).is_empty());
    }

    #[test]
    fn kernels_of_one_series_and_other_ages_or_flavours_do_not_evict_each_other() {
        let kernels = tempfile::tempdir().unwrap();
        let all = [
            "6.1.9-cloud-amd64=6.1.9-1",
            "6.12.43-cloud-amd64=6.12.43-1=oldest",
            "6.12.57-cloud-amd64=6.12.57-1=oldest",
            "6.12.117-cloud-amd64=6.12.117-1",
            "6.12.118-cloud-amd64=6.12.118-1",
            "6.12.119-cloud-arm64=6.12.119-1",
            "partial-6.12.9",
        ];
        for name in all {
            fs::create_dir(kernels.path().join(name)).unwrap();
        }
        let best = |wanted: &str| best_cached(kernels.path(), Wanted::parse(wanted)).unwrap();
        assert!(best("6.12").ends_with(all[4]));
        assert!(best("6.12-oldest").ends_with(all[1]));
        remove_others(kernels.path(), &best("6.12"), Wanted::parse("6.12")).unwrap();
        let left = all.map(|name| kernels.path().join(name).is_dir());
        assert_eq!(left, [true, true, true, false, true, true, true]);
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
}
