//! Debian packages from a private apt state in the cache directory, with its own list of sources:
//! the machine's own packages stay untouched. The mirror is the one that the machine itself uses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    command::{self, say},
    places::Places,
};

/// Suites with the kernels and compiler sources that xtask needs; within a release, security comes
/// first.
const SUITES: [(Archive, &str); 8] = [
    (Archive::Main, "bullseye"),
    (Archive::Security, "bullseye-security"),
    (Archive::Main, "bookworm"),
    (Archive::Security, "bookworm-security"),
    (Archive::Main, "bookworm-backports"),
    (Archive::Main, "trixie"),
    (Archive::Security, "trixie-security"),
    (Archive::Main, "trixie-backports"),
];
/// Package lists older than this are refreshed, because point releases replace packages.
const LISTS_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Environment variable that names a Debian mirror if the machine's own configuration has none.
const MIRROR_VARIABLE: &str = "MPTCP_TRACE_DEBIAN_MIRROR";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Archive {
    Main,
    Security,
}

/// One version of one package, as described by the package lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Package names in `Depends`, without versions and alternatives.
    pub(crate) depends: Vec<String>,
}

/// Locks the private apt state, so that only one fetch at a time writes to it.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static FETCHING: Mutex<()> = Mutex::new(());
    FETCHING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A private apt state.
pub(crate) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Creates the private apt state, and fetches the package lists unless they are recent.
    pub(crate) fn open(places: &Places) -> Result<Self> {
        let apt = Self {
            directory: places.cache.join("apt"),
        };
        if command::find_program("apt-get").is_none() {
            bail!(
                "cannot fetch Debian packages: there is no apt-get; run this on Debian, or in a \
                 Debian container"
            );
        }
        for directory in ["lists/partial", "cache/archives/partial", "debs"] {
            let directory = apt.directory.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        fs::write(apt.directory.join("status"), "").context("cannot write apt's empty status")?;
        fs::write(apt.directory.join("apt.conf"), apt.configuration())
            .context("cannot write the private apt configuration")?;
        let sources = sources(&mirrors_of_this_machine()?);
        let sources_path = apt.directory.join("sources.list");
        let unchanged = fs::read_to_string(&sources_path).is_ok_and(|old| old == sources);
        fs::write(&sources_path, sources).context("cannot write the private apt sources")?;
        if !(unchanged && apt.lists_are_fresh()) {
            apt.update()?;
        }
        Ok(apt)
    }

    /// Returns every version of every package whose name matches the regular expression.
    pub(crate) fn find(&self, name_pattern: &str) -> Result<Vec<Package>> {
        let found = command::text(
            self.command("apt-cache")
                .args(["search", "--names-only", name_pattern]),
            "cannot search the package lists",
        )?;
        let names: Vec<&str> = found
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let stanzas = command::text(
            self.command("apt-cache").arg("show").args(names),
            "cannot read the package lists",
        )?;
        Ok(packages(&stanzas))
    }

    /// Downloads one package and returns the file; apt checks its hash against the signed lists.
    pub(crate) fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        self.download_as(&format!("{package}={version}"))
    }

    /// Downloads the version of a package that `suite` provides.
    pub(crate) fn download_from(&self, package: &str, suite: &str) -> Result<PathBuf> {
        self.download_as(&format!("{package}/{suite}"))
    }

    /// Downloads a package by apt's notation, `name=version` or `name/suite`.
    fn download_as(&self, package: &str) -> Result<PathBuf> {
        say(format_args!("fetching {package} from the Debian archive"));
        let directory = self.directory.join("debs").join(package.replace('/', "="));
        crate::places::make_empty(&directory)?;
        command::output(
            self.command("apt-get")
                .args(["download", package])
                .current_dir(&directory),
            &format!("cannot fetch the package {package}"),
        )?;
        fs::read_dir(&directory)
            .with_context(|| format!("cannot list {}", directory.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| anyhow!("apt-get fetched no file for {package}"))
    }

    fn update(&self) -> Result<()> {
        say("fetching the package lists of Debian (private apt state, the machine's is untouched)");
        let output = self
            .command("apt-get")
            .arg("update")
            .output()
            .context("cannot start apt-get to fetch Debian's package lists")?;
        // For apt, a suite that cannot be fetched is only a warning. The other suites suffice to
        // continue; the failed one is retried next time.
        let said = String::from_utf8_lossy(&output.stderr);
        let complaints: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("Failed to fetch") || line.starts_with("E: "))
            .collect();
        if output.status.success() && complaints.is_empty() {
            return fs::write(self.stamp(), "").context("cannot stamp the package lists");
        }
        for complaint in &complaints {
            say(format_args!("apt-get update: {complaint}"));
        }
        let lists = fs::read_dir(self.directory.join("lists"))
            .ok()
            .into_iter()
            .flatten();
        let mut names = lists.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        if names.any(|name| name.contains("_Packages")) {
            say("continuing with the existing package lists");
            return Ok(());
        }
        bail!("cannot fetch Debian's package lists: see above, and check the network")
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("updated")
    }

    fn lists_are_fresh(&self) -> bool {
        fs::metadata(self.stamp())
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age < LISTS_AGE_MAX)
            })
    }

    /// apt still reads the machine's own apt.conf.d first: it holds proxies and credentials.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-q")
            .arg("-c")
            .arg(self.directory.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    fn configuration(&self) -> String {
        let directory = self.directory.display();
        format!(
            "Dir::State \"{directory}\";\n\
             Dir::State::status \"{directory}/status\";\n\
             Dir::State::lists \"{directory}/lists\";\n\
             Dir::Cache \"{directory}/cache\";\n\
             Dir::Etc::sourcelist \"{directory}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             APT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::Retries \"3\";\n\
             #clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n"
        )
    }
}

/// Unpacks a package into a directory without installing it.
pub(crate) fn unpack(deb: &Path, into: &Path) -> Result<()> {
    command::output(
        Command::new("dpkg-deb").arg("-x").arg(deb).arg(into),
        &format!("cannot unpack {}", deb.display()),
    )?;
    Ok(())
}

fn sources((main, security): &(String, String)) -> String {
    SUITES
        .iter()
        .map(|(archive, suite)| {
            let mirror = match archive {
                Archive::Main => main,
                Archive::Security => security,
            };
            format!("deb [signed-by={KEYRING} arch=amd64,arm64 lang=none targets=Packages] {mirror} {suite} main\n")
        })
        .collect()
}

/// Returns the Debian archive and the security archive from the machine's apt configuration.
pub(crate) fn mirrors_of_this_machine() -> Result<(String, String)> {
    if let Ok(main) = std::env::var(MIRROR_VARIABLE) {
        let main = main.trim_end_matches('/');
        return Ok((main.to_owned(), format!("{main}-security")));
    }
    let mut texts = Vec::new();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    for file in files {
        texts.push(fs::read_to_string(file).unwrap_or_default());
    }
    mirrors(&texts.join("\n"), |list| {
        fs::read_to_string(list).unwrap_or_default()
    })
    .with_context(|| {
        format!(
            "the apt configuration of this machine names no Debian archive; name one with \
             {MIRROR_VARIABLE}=http://HOST/debian"
        )
    })
}

fn mirrors(sources: &str, read: impl Fn(&str) -> String) -> Option<(String, String)> {
    let mut words: Vec<String> = Vec::new();
    for word in sources
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
    {
        // Cloud images name a file that lists the mirrors.
        match word.strip_prefix("mirror+file:") {
            Some(list) => words.extend(read(list).lines().map(|line| line.trim().to_owned())),
            None => words.push(word.to_owned()),
        }
    }
    let archive = |name: &str| {
        let suffix = format!("/{name}");
        words
            .iter()
            .map(|word| word.trim_end_matches('/'))
            .find(|word| word.contains("://") && word.ends_with(&suffix))
            .map(str::to_owned)
    };
    let main = archive("debian")?;
    let security = archive("debian-security").unwrap_or_else(|| format!("{main}-security"));
    Some((main, security))
}

fn packages(stanzas: &str) -> Vec<Package> {
    stanzas
        .split("\n\n")
        .map(|stanza| {
            let mut package = Package::default();
            for line in stanza.lines() {
                match line.split_once(": ") {
                    Some(("Package", value)) => package.name = value.to_owned(),
                    Some(("Version", value)) => package.version = value.to_owned(),
                    Some(("Depends", value)) => {
                        package.depends = value
                            .split(',')
                            .filter_map(|one| one.split_whitespace().next())
                            .map(str::to_owned)
                            .collect();
                    }
                    Some(_) | None => {}
                }
            }
            package
        })
        .filter(|package| !package.name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sources: &str, main: &str, security: &str) {
        let list = |_: &str| "http://a.example/debian\n".to_owned();
        assert_eq!(
            mirrors(sources, list),
            Some((main.to_owned(), security.to_owned()))
        );
    }

    #[test]
    fn the_mirror_is_the_machines_own() {
        check(
            "deb http://m.example/debian/ bookworm main\ndeb http://m.example/debian-security x main",
            "http://m.example/debian",
            "http://m.example/debian-security",
        );
        check(
            "# http://no.example/debian\nTypes: deb\nURIs: http://m.example/debian\nSuites: bookworm",
            "http://m.example/debian",
            "http://m.example/debian-security",
        );
        check(
            "URIs: mirror+file:/etc/apt/mirrors/debian.list",
            "http://a.example/debian",
            "http://a.example/debian-security",
        );
        let none = mirrors("deb http://m.example/ubuntu noble main", |_| String::new());
        assert_eq!(none, None);
    }

    #[test]
    fn a_stanza_becomes_a_package() {
        let got = packages(
            "Package: linux-image-7.3.4\nVersion: 7.3.4-1\nDepends: dracut | initramfs-tools, \
             linux-modules-7.3.4 (= 7.3.4-1)\nDescription: x\n y: z\n\nPackage: b\nVersion: 2\n",
        );
        let want = [
            (
                "linux-image-7.3.4",
                "7.3.4-1",
                vec!["dracut", "linux-modules-7.3.4"],
            ),
            ("b", "2", vec![]),
        ];
        assert_eq!(got.len(), want.len());
        for (got, (name, version, depends)) in got.iter().zip(want) {
            assert_eq!((got.name.as_str(), got.version.as_str()), (name, version));
            assert_eq!(got.depends, depends);
        }
    }
}
