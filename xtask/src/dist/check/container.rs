//! Checks of the Dockerfile and the `DaemonSet` that need no cluster.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::Looked;
use crate::{command, kubernetes};

/// The manifest, from the root of the source.
const DAEMON_SET: &str = "contrib/kubernetes/daemonset.yaml";

/// Checks both files.
pub(super) fn step(looked: &Looked<'_>) -> Result<()> {
    let contrib = looked.places.root.join("contrib");
    let read = |name: &str| {
        fs::read_to_string(contrib.join(name))
            .with_context(|| format!("cannot read contrib/{name}"))
    };
    let unit = read("systemd/mptcp-trace.service")?;
    let dockerfile = read("docker/Dockerfile")?;
    let daemon_set = daemon_set(looked)?;
    look_at_dockerfile(&dockerfile, &looked.release.version)?;
    look_at_daemon_set(&daemon_set, &looked.release.version)?;
    same_capabilities(&unit, &dockerfile, &daemon_set)
}

/// Validates the `DaemonSet` against the schema of Kubernetes, unknown fields included.
pub(super) fn schema(looked: &Looked<'_>) -> Result<()> {
    let mut validate = Command::new(kubernetes::validator(looked.places)?);
    validate
        .arg("--strict")
        .arg(looked.places.root.join(DAEMON_SET));
    command::output(&mut validate, "the DaemonSet is none for Kubernetes").map(drop)
}

/// The `DaemonSet` as JSON.
pub(super) fn daemon_set(looked: &Looked<'_>) -> Result<Value> {
    let file = looked.places.root.join(DAEMON_SET);
    let mut yaml = Command::new("python3");
    yaml.args([
        "-c",
        "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)",
    ])
    .arg(file);
    let json = command::output(&mut yaml, "the DaemonSet is no YAML")?;
    serde_json::from_slice(&json).context("the DaemonSet is no object")
}

fn look_at_dockerfile(text: &str, version: &str) -> Result<()> {
    for line in ["FROM scratch", "COPY bin/mptcp-trace /usr/bin/mptcp-trace"] {
        if !text.lines().any(|it| it == line) {
            bail!("the Dockerfile has no line {line:?}");
        }
    }
    if !text.contains(&format!("mptcp-trace:{version}")) {
        bail!("the Dockerfile names another version than {version}");
    }
    Ok(())
}

fn look_at_daemon_set(set: &Value, version: &str) -> Result<()> {
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let volumes = mounts.map(|it| it["mountPath"].clone()).collect();
    let probe = |name: &str| container[name]["httpGet"].clone();
    let get = |path: &str| json!({ "path": path, "port": "metrics" });
    let wanted = [
        ("apiVersion", set["apiVersion"].clone(), json!("apps/v1")),
        ("kind", set["kind"].clone(), json!("DaemonSet")),
        (
            "selector",
            set["spec"]["selector"]["matchLabels"].clone(),
            set["spec"]["template"]["metadata"]["labels"].clone(),
        ),
        (
            "image",
            container["image"].clone(),
            json!(format!("mptcp-trace:{version}")),
        ),
        ("hostPID", pod["hostPID"].clone(), json!(true)),
        (
            "volumes",
            volumes,
            json!(["/var/log/pods", "/var/log/containers"]),
        ),
        (
            "readOnlyRootFilesystem",
            security["readOnlyRootFilesystem"].clone(),
            json!(true),
        ),
        (
            "allowPrivilegeEscalation",
            security["allowPrivilegeEscalation"].clone(),
            json!(false),
        ),
        (
            "capabilities.drop",
            security["capabilities"]["drop"].clone(),
            json!(["ALL"]),
        ),
        ("livenessProbe", probe("livenessProbe"), get("/healthz")),
        ("readinessProbe", probe("readinessProbe"), get("/readyz")),
        (
            "ports",
            container["ports"][0]["name"].clone(),
            json!("metrics"),
        ),
        (
            "prometheus.io/port",
            set["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"].clone(),
            json!("9944"),
        ),
    ];
    for (what, is, want) in wanted {
        if is != want || is.is_null() {
            bail!("the DaemonSet's {what} is {is}, not {want}");
        }
    }
    Ok(())
}

/// Compares the capabilities in three files: the program's needs do not depend on what starts it.
fn same_capabilities(unit: &str, dockerfile: &str, daemon_set: &Value) -> Result<()> {
    let of_unit = |key: &str| -> Result<BTreeSet<String>> {
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .ok_or_else(|| anyhow!("the unit has no {key}"))?;
        Ok(line
            .split_whitespace()
            .map(|name| name.trim_start_matches("CAP_").to_owned())
            .collect())
    };
    let of_docker: BTreeSet<String> = dockerfile
        .split("--cap-add ")
        .skip(1)
        .filter_map(|rest| Some(rest.split_whitespace().next()?.to_owned()))
        .collect();
    let added = &daemon_set["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]
        ["add"];
    let of_set: BTreeSet<String> = added
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect();
    let bounding = of_unit("CapabilityBoundingSet")?;
    for (who, theirs) in [
        (
            "AmbientCapabilities of the unit",
            of_unit("AmbientCapabilities")?,
        ),
        ("the Dockerfile", of_docker),
        ("the DaemonSet", of_set),
    ] {
        if theirs != bounding {
            bail!("{who}: {theirs:?}, but the unit's bounding set is {bounding:?}");
        }
    }
    Ok(())
}
