//! The bill of materials in `CycloneDX` 1.5: what is linked into the static program, and the macros
//! that generated parts of it.
//!
//! It is built from `cargo metadata` rather than by cargo-cyclonedx, which writes a file beside
//! every Cargo.toml, includes the name of the directory in which it ran, and omits the linked C
//! library.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Release,
    licences::{self, Notices},
    sums,
};
use crate::{command, places::Places};

/// The parts of `cargo metadata` that are needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
    repository: Option<String>,
    /// `None` for the workspace's own crates.
    source: Option<String>,
    #[serde(default)]
    authors: Vec<String>,
    /// Path of its Cargo.toml on this machine.
    #[serde(default)]
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

/// `None` is a normal dependency; `build` and `dev` are not part of the program.
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// Returns the bill of materials, and the copyright notices of the crates in it.
pub(super) fn of(places: &Places, release: &Release) -> Result<(Value, Notices)> {
    let mut cargo = command::cargo(&places.root);
    cargo
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", release.architecture.triple()]);
    let said = command::output(&mut cargo, "cannot ask cargo for the dependencies")?;
    let metadata: Metadata =
        serde_json::from_slice(&said).context("cargo metadata is not as expected")?;
    let lock =
        fs::read_to_string(places.root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let linked = [rust(places)?, c_library()?];
    let mut bill = bill(&metadata, &checksums(&lock), &linked)?;
    let at = Timestamp::from_second(release.epoch).context("SOURCE_DATE_EPOCH is no time")?;
    bill["metadata"]["timestamp"] = json!(at.to_string());
    bill["metadata"]["component"]["hashes"] =
        json!([{ "alg": "SHA-256", "content": sums::of_file(&release.program)? }]);
    Ok((bill, notices(&metadata)?))
}

/// The copyright notices of all crates from a registry.
fn notices(metadata: &Metadata) -> Result<Notices> {
    metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .map(|package| {
            let folder = package.manifest_path.parent().unwrap_or(Path::new(""));
            let key = (package.name.clone(), package.version.clone());
            let notices = licences::notices(folder, &package.name, &package.authors)?;
            Ok((key, notices))
        })
        .collect()
}

/// Everything except the date and the program's own hash.
fn bill(
    metadata: &Metadata,
    checksums: &BTreeMap<(String, String), String>,
    linked: &[Value],
) -> Result<Value> {
    let root = metadata
        .packages
        .iter()
        .find(|package| package.name == "mptcp-trace" && package.source.is_none())
        .ok_or_else(|| anyhow!("cargo metadata does not list mptcp-trace"))?;
    let needed = needed(&metadata.resolve.nodes, &root.id);
    let mut packages: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| needed.contains_key(package.id.as_str()))
        .collect();
    packages.sort_by_key(|package| (&package.name, &package.version));
    let references: BTreeMap<&str, String> = packages
        .iter()
        .map(|package| (package.id.as_str(), purl(package)))
        .collect();
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for package in packages {
        let mut on: Vec<&String> = needed
            .get(package.id.as_str())
            .into_iter()
            .flatten()
            .filter_map(|id| references.get(id))
            .collect();
        on.sort();
        let mut on: Vec<Value> = on.into_iter().map(|purl| json!(purl)).collect();
        if package.id == root.id {
            on.extend(linked.iter().map(|part| part["bom-ref"].clone()));
        } else {
            components.push(component(package, checksums));
        }
        dependencies.push(json!({ "ref": purl(package), "dependsOn": on }));
    }
    components.extend(linked.iter().cloned());
    let mut program = component(root, checksums);
    program["type"] = json!("application");
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": program },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// Packages that are linked into the program: ids, each with the ids of its dependencies.
fn needed<'a>(nodes: &'a [Node], root: &'a str) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut needed = BTreeMap::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if needed.contains_key(id) {
            continue;
        }
        let uses: BTreeSet<&str> = nodes
            .iter()
            .filter(|node| node.id == id)
            .flat_map(|node| &node.deps)
            .filter(|on| on.dep_kinds.iter().any(|kind| kind.kind.is_none()))
            .map(|on| on.pkg.as_str())
            .collect();
        open.extend(&uses);
        needed.insert(id, uses);
    }
    needed
}

fn component(package: &Package, checksums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
        "scope": "required",
    });
    if let Some(description) = &package.description {
        component["description"] = json!(description.trim());
    }
    if let Some(licence) = &package.license {
        // Old crates use a slash, from the time before SPDX expressions.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    let key = (package.name.clone(), package.version.clone());
    if let Some(sum) = checksums.get(&key).filter(|_| package.source.is_some()) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

/// The checksums of the crates' archives in Cargo.lock, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |stanza: &str, key: &str| {
        stanza.lines().find_map(|line| {
            let rest = line.strip_prefix(key)?.strip_prefix(" = \"")?;
            Some(rest.strip_suffix('"')?.to_owned())
        })
    };
    lock.split("[[package]]")
        .filter_map(|stanza| {
            let key = (value(stanza, "name")?, value(stanza, "version")?);
            Some((key, value(stanza, "checksum")?))
        })
        .collect()
}

/// The standard library that rustc links in.
fn rust(places: &Places) -> Result<Value> {
    let mut rustc = Command::new("rustc");
    rustc.arg("-vV").current_dir(&places.root);
    let said = command::text(&mut rustc, "cannot ask rustc for its version")?;
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .ok_or_else(|| anyhow!("rustc does not print its version"))?;
    Ok(linked(
        "rust-std",
        version,
        "pkg:generic/rust-std",
        "MIT OR Apache-2.0",
    ))
}

/// The C library of this machine, which the linker adds.
fn c_library() -> Result<Value> {
    let said = command::text(
        Command::new("getconf").arg("GNU_LIBC_VERSION"),
        "cannot ask for the version of the C library",
    )?;
    let version = said.trim().strip_prefix("glibc ").ok_or_else(|| {
        anyhow!(
            "the C library of this machine is not glibc: {}",
            said.trim()
        )
    })?;
    Ok(linked(
        "glibc",
        version,
        "pkg:generic/glibc",
        "LGPL-2.1-or-later",
    ))
}

fn linked(name: &str, version: &str, purl: &str, licence: &str) -> Value {
    let purl = format!("{purl}@{version}");
    json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "scope": "required",
        "licenses": [{ "expression": licence }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let package = |name: &str, source: Option<&str>| {
            json!({ "id": format!("path/{name}"), "name": name, "version": "1.2.3",
                "license": "MIT/Apache-2.0", "description": null, "repository": null, "source": source })
        };
        let on = |name: &str, kind: Option<&str>| json!({ "pkg": format!("path/{name}"), "dep_kinds": [{ "kind": kind }] });
        serde_json::from_value(json!({
            "packages": [
                package("mptcp-trace", None),
                package("used", Some("registry")),
                package("below", Some("registry")),
                package("tester", Some("registry")),
                package("builder", Some("registry")),
            ],
            "resolve": { "nodes": [
                { "id": "path/mptcp-trace", "deps": [on("used", None), on("tester", Some("dev"))] },
                { "id": "path/used", "deps": [on("below", None), on("builder", Some("build"))] },
                { "id": "path/below", "deps": [] },
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_or_tests_is_not() {
        let lock = "[[package]]\nname = \"used\"\nversion = \"1.2.3\"\nchecksum = \"abc\"\n";
        let linked = [linked(
            "glibc",
            "2.36",
            "pkg:generic/glibc",
            "LGPL-2.1-or-later",
        )];
        let bill = bill(&metadata(), &checksums(lock), &linked).unwrap();
        let names: Vec<&str> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["below", "used", "glibc"]);
        assert_eq!(bill["metadata"]["component"]["name"], "mptcp-trace");
        assert_eq!(bill["components"][1]["hashes"][0]["content"], "abc");
        assert_eq!(
            bill["components"][1]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(
            bill["dependencies"][1],
            json!({ "ref": "pkg:cargo/mptcp-trace@1.2.3",
                "dependsOn": ["pkg:cargo/used@1.2.3", "pkg:generic/glibc@2.36"] })
        );
    }

    #[test]
    fn no_path_of_this_machine_is_in_it() {
        let bill = bill(&metadata(), &BTreeMap::new(), &[]).unwrap();
        assert!(!bill.to_string().contains("path/"), "{bill}");
    }
}
