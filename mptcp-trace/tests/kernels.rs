//! Plans for kernels that no test boots, derived from their type information (BTF) and compared as
//! text.
//!
//! `UPDATE_GOLDENS=1 cargo test -p mptcp-trace --test kernels` updates the expected texts in
//! `tests/kernels/`. Review the diff before you commit it. `tests/kernels/README.md` names the
//! source of the files.
//!
//! # Assumptions
//!
//! Type information does not contain everything that a plan depends on. These tests assume:
//!
//! - every function in the BTF is a symbol of that name, and there are no other symbols. BTF does not
//!   describe copies that the compiler made (`mptcp_dss_corruption.isra.0`), so no plan here has a
//!   probe on one;
//! - the host has all privileges, kprobes and its own BTF, and `net.mptcp.enabled` is set;
//! - [`Kernel::has_option`] and [`Kernel::refuses`] are as observed when those kernels ran.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use mptcp_trace::{
    host::{
        Fact, HostSupport, Preemptible, Surroundings,
        btf::{self, BtfFacts},
        symbols::Symbols,
    },
    model::{Rung, SensorId},
    plan::{Plan, Probe, plan},
};
use mptcp_trace_common::layout::{ABSENT, Architecture, KernelLayout, MemberSpec};

/// A kernel, and the properties that its type information does not contain.
struct Kernel {
    /// Stem of its file names.
    name: &'static str,
    architecture: Architecture,
    /// `TCP_IS_MPTCP` is part of Linux 6.10 and later.
    has_option: bool,
    /// An attach method that looks possible from the facts, but that the kernel refuses.
    refuses: Option<(Rung, &'static str)>,
}

/// The kernels whose reduced type information is committed.
const COMMITTED: [Kernel; 3] = [
    Kernel {
        name: "debian-arm64-6.1.176",
        architecture: Architecture::Aarch64,
        has_option: false,
        refuses: Some((
            Rung::Fexit,
            "errno 524: arm64 has no ftrace direct calls before Linux 6.4, so no trampoline can be attached",
        )),
    },
    Kernel {
        name: "debian-arm64-6.12.117",
        architecture: Architecture::Aarch64,
        has_option: true,
        refuses: None,
    },
    Kernel {
        name: "debian-arm64-7.3.4",
        architecture: Architecture::Aarch64,
        has_option: true,
        refuses: None,
    },
];

/// Test data of the cilium/ebpf project: an x86-64 kernel that Debian did not build.
const FOREIGN: Kernel = Kernel {
    name: "cilium-testdata",
    architecture: Architecture::X86_64,
    has_option: true,
    refuses: None,
};

/// Test data of the btf-rs project: a 32-bit kernel without MPTCP.
const NO_MPTCP: Kernel = Kernel {
    name: "no-mptcp",
    architecture: Architecture::X86_64,
    has_option: false,
    refuses: None,
};

/// The kernel exports it exactly where trampolines can attach to functions that ftrace patches.
const DIRECT_CALLS: &str = "register_ftrace_direct";

/// Environment variable that names the directory with whole files, `NAME.btf.xz`.
const DIRECTORY: &str = "MPTCP_TRACE_BTF_DIR";

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap().to_owned()
}

fn golden(name: &str, extension: &str) -> PathBuf {
    root().join(format!("mptcp-trace/tests/kernels/{name}.{extension}"))
}

fn small(kernel: &Kernel) -> Vec<u8> {
    fs::read(golden(kernel.name, "btf")).unwrap()
}

/// The whole file of a kernel, or why this machine lacks it.
fn whole(kernel: &Kernel) -> Result<Vec<u8>, String> {
    let directory = match env::var_os(DIRECTORY) {
        Some(directory) => root().join(directory),
        None => root().join("../shared/btf"),
    };
    if !directory.is_dir() {
        let directory = directory.display();
        return Err(format!("no directory {directory} ({DIRECTORY})"));
    }
    let packed = directory.join(format!("{}.btf.xz", kernel.name));
    if !packed.is_file() {
        return Err(format!("no file {} ({DIRECTORY})", packed.display()));
    }
    unpack(&packed)
}

fn unpack(packed: &Path) -> Result<Vec<u8>, String> {
    let scratch = tempfile::tempdir().unwrap();
    let unpacked = scratch.path().join("vmlinux.btf");
    let file = fs::File::create(&unpacked).unwrap();
    let mut xz = Command::new("xz");
    match xz.arg("-dc").arg(packed).stdout(file).status() {
        Err(why) => Err(format!("cannot start xz: {why}")),
        Ok(status) => {
            assert!(status.success(), "xz cannot unpack {}", packed.display());
            Ok(fs::read(unpacked).unwrap())
        }
    }
}

/// Prints the line that `cargo xtask test` counts as a skipped test.
fn skip(test: &str, why: &str) {
    println!("skipped: kernels: {test}: {why}");
}

fn facts(kernel: &Kernel, bytes: Vec<u8>) -> BtfFacts {
    btf::parse_for(kernel.architecture, bytes).unwrap()
}

/// A host on which nothing prevents tracing this kernel.
fn surroundings(kernel: &Kernel) -> Surroundings {
    Surroundings {
        kernel: kernel.name.into(),
        privileges: Fact::Yes,
        own_btf: Fact::Yes,
        mptcp_enabled: Fact::Yes,
        option: Fact::from_bool(
            kernel.has_option,
            "this kernel does not support TCP_IS_MPTCP",
        ),
        kprobes: Fact::Yes,
        pid_namespace: None,
        visits_all_tasks: true,
        preemptible: Preemptible::default(),
        cpus: Some(2),
    }
}

/// A host with this kernel; its symbols are the functions in the kernel's BTF.
fn host(kernel: &Kernel, facts: BtfFacts) -> HostSupport {
    let symbols = Symbols::from_names(facts.functions.iter().map(String::as_str));
    HostSupport::new(surroundings(kernel), symbols, Ok(facts))
}

/// Everything derived from a kernel's types: the attached probes, and the offsets that they read.
fn text_of(kernel: &Kernel, bytes: Vec<u8>) -> String {
    let host = host(kernel, facts(kernel, bytes));
    let counters = host.counters.len();
    let numbers = format!("counters: {counters}\n{:?}\n", host.numbers);
    attached_text(kernel, &host) + &numbers + &layout_text(&host)
}

/// The attached probes, and what is missing.
fn attached_text(kernel: &Kernel, host: &HostSupport) -> String {
    let mut text = match plan(host, None) {
        Ok(plan) => plan_text(kernel, &plan),
        Err(refusal) => format!("refused: {refusal}\n"),
    };
    for (path, why) in &host.missing_members {
        writeln!(text, "missing: {path}: {why}").unwrap();
    }
    text
}

fn plan_text(kernel: &Kernel, plan: &Plan) -> String {
    let mut text = String::new();
    for planned in plan.sensors() {
        let name = planned.sensor.name();
        for rung in &planned.rungs {
            text.push_str(&rung_text(name, rung.rung, &rung.probes, &rung.limits));
            let (outermost, decision, children) = (
                rung.outermost_probed(),
                rung.decision_probed(),
                rung.children_probed(),
            );
            // What the programs of these two are configured with.
            if planned.sensor == SensorId::Query {
                writeln!(text, "    outermost function probed: {outermost}").unwrap();
            }
            if planned.sensor == SensorId::Fallback {
                let probed = format!("decision probed: {decision}, children probed: {children}");
                writeln!(text, "    {probed}").unwrap();
            }
        }
        text.push_str(&ruled_out_text(name, &planned.ruled_out));
    }
    for note in &plan.notes {
        writeln!(text, "note: {note}").unwrap();
    }
    text.push_str(&in_use_text(kernel, plan));
    text
}

fn rung_text(sensor: &str, rung: Rung, probes: &[Probe], limits: &[String]) -> String {
    let mut text = format!("{sensor} by {rung}\n");
    for probe in probes {
        writeln!(text, "    {} ({})", probe.target, probe.program()).unwrap();
    }
    for limit in limits {
        writeln!(text, "    limit: {limit}").unwrap();
    }
    text
}

fn ruled_out_text(sensor: &str, ruled_out: &[(Rung, String)]) -> String {
    let line = |(rung, why): &(Rung, String)| format!("{sensor} not by {rung}: {why}\n");
    ruled_out.iter().map(line).collect()
}

/// The attach methods in use, if all of them attach except those that this test knows to be
/// refused.
fn in_use_text(kernel: &Kernel, plan: &Plan) -> String {
    let is_refused = |rung: Rung| kernel.refuses.is_some_and(|(refused, _)| refused == rung);
    let mut text = String::new();
    if let Some((rung, why)) = kernel.refuses {
        writeln!(text, "assumed: the kernel refuses {rung}: {why}").unwrap();
    }
    let query = plan
        .of(SensorId::Query)
        .rungs
        .iter()
        .find(|it| !is_refused(it.rung))
        .unwrap();
    let mut others = Vec::new();
    for sensor in SensorId::ALL.into_iter().filter(|it| it.is_optional()) {
        let mut methods = plan.of(sensor).beside(query.rung);
        let method = methods.find(|it| !is_refused(it.rung));
        let method = method.map_or("nothing", |it| it.rung.name());
        others.push(format!("{sensor} by {method}"));
    }
    writeln!(
        text,
        "in use: query by {}, {}",
        query.rung,
        others.join(", ")
    )
    .unwrap();
    text
}

fn layout_text(host: &HostSupport) -> String {
    let members = KernelLayout::members(host.architecture);
    let offsets = members.iter().zip(host.layout.offsets());
    let line = |(member, offset): (&MemberSpec, u16)| match offset {
        ABSENT => format!("{} = {}: absent\n", member.field, member.path),
        offset => format!("{} = {}: {offset}\n", member.field, member.path),
    };
    offsets.map(line).collect()
}

fn compare(kernel: &Kernel, text: &str) {
    let golden = golden(kernel.name, "txt");
    if env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&golden, text).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    assert_eq!(text, expected, "{}", golden.display());
}

#[test]
fn kernels_for_arm64_get_the_plans_that_they_always_got() {
    for kernel in &COMMITTED {
        compare(kernel, &text_of(kernel, small(kernel)));
    }
}

#[test]
fn a_kernel_that_debian_did_not_build_gets_the_plan_that_it_always_got() {
    let bytes = match whole(&FOREIGN) {
        Ok(bytes) => bytes,
        Err(why) => return skip("a kernel that Debian did not build", &why),
    };
    // Its offsets come from another project's data, so the test compares them with nothing.
    let host = host(&FOREIGN, facts(&FOREIGN, bytes));
    assert!(
        host.counters
            .iter()
            .any(|(_, name)| name == "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK")
    );
    compare(&FOREIGN, &attached_text(&FOREIGN, &host));
}

#[test]
fn a_kernel_without_mptcp_is_refused_by_symbols_and_by_types() {
    let bytes = match whole(&NO_MPTCP) {
        Ok(bytes) => bytes,
        Err(why) => return skip("a kernel without MPTCP", &why),
    };
    let facts = facts(&NO_MPTCP, bytes);
    let listed = Symbols::from_names(facts.functions.iter().map(String::as_str));
    let unreadable = Symbols::unreadable("cannot read /proc/kallsyms");
    for (symbols, says) in [
        (listed, "the kernel has no function mptcp_getsockopt"),
        (
            unreadable,
            "the kernel's type information has no struct mptcp_subflow_context",
        ),
    ] {
        let host = HostSupport::new(surroundings(&NO_MPTCP), symbols, Ok(facts.clone()));
        assert_eq!(
            plan(&host, None).unwrap_err().to_string(),
            format!(
                "this kernel (no-mptcp) is built without MPTCP, so there is nothing to trace: {says} (CONFIG_MPTCP); \
                 run a kernel with CONFIG_MPTCP=y"
            )
        );
    }
}

#[test]
fn a_reduced_file_gives_what_the_whole_file_gives() {
    for kernel in &COMMITTED {
        let bytes = match whole(kernel) {
            Ok(bytes) => bytes,
            Err(why) => return skip("reduced files against whole ones", &why),
        };
        assert_eq!(
            text_of(kernel, bytes.clone()),
            text_of(kernel, small(kernel)),
            "{}",
            kernel.name
        );
        let [of_whole, of_small] = [bytes.clone(), small(kernel)].map(|bytes| {
            let facts = facts(kernel, bytes);
            assert!(!facts.function_numbers.is_empty() && !facts.counters.is_empty());
            // With fewer types, the numbers differ.
            let names: Vec<&str> = facts.function_numbers.keys().copied().collect();
            let function_numbers = std::collections::BTreeMap::new();
            (
                names,
                BtfFacts {
                    function_numbers,
                    ..facts
                },
            )
        });
        assert_eq!(of_whole, of_small, "{}", kernel.name);
        assert!(
            btf::reduce(bytes).unwrap() == small(kernel),
            "{}.btf is not what `cargo xtask btf` makes: make it anew",
            kernel.name
        );
    }
}

#[test]
fn a_kernel_refuses_trampolines_where_its_types_have_no_direct_calls() {
    for kernel in &COMMITTED {
        let functions = facts(kernel, small(kernel)).functions;
        let has_direct_calls = functions.iter().any(|it| it == DIRECT_CALLS);
        let is_refused = matches!(kernel.refuses, Some((Rung::Fexit, _)));
        assert_eq!(has_direct_calls, !is_refused, "{}", kernel.name);
    }
}

/// Lines of one text that the other lacks.
fn only_in<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
    let is_new = |line: &&str| !other.lines().any(|known| known == *line);
    text.lines().filter(is_new).collect()
}

/// The only occurrence of these bytes.
fn place_of(bytes: &[u8], what: &[u8]) -> usize {
    let mut windows = bytes.windows(what.len()).enumerate();
    let mut places = windows.by_ref().filter(|(_, window)| *window == what);
    let Some((place, _)) = places.next() else {
        panic!("{} is missing", String::from_utf8_lossy(what))
    };
    assert!(
        places.next().is_none(),
        "{} is not unique",
        String::from_utf8_lossy(what)
    );
    place
}

/// Renames a type or member to another name of the same length.
fn rename(bytes: &mut [u8], name: &str) {
    let place = place_of(bytes, format!("\0{name}\0").as_bytes());
    bytes[place + 1] = b'X';
}

/// Moves the only member of this name by some bytes.
fn move_member(bytes: &mut [u8], name: &str, by: u32) {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let strings = usize::try_from(word(bytes, 4) + word(bytes, 16)).unwrap();
    let name = place_of(bytes, format!("\0{name}\0").as_bytes()) + 1 - strings;
    let name = u32::try_from(name).unwrap().to_le_bytes();
    let member = place_of(&bytes[..strings], &name);
    let offset = word(bytes, member + 8) + by * 8;
    bytes[member + 8..member + 12].copy_from_slice(&offset.to_le_bytes());
}

/// The lines that appear in a kernel's text after one change of its types; others disappear.
fn lines_added_by(kernel: &Kernel, change: impl Fn(&mut [u8])) -> Vec<String> {
    let before = text_of(kernel, small(kernel));
    let mut bytes = small(kernel);
    change(&mut bytes);
    let after = text_of(kernel, bytes);
    assert!(!only_in(&before, &after).is_empty(), "no line changed");
    let new = only_in(&after, &before);
    new.into_iter().map(str::to_owned).collect()
}

#[test]
fn a_kernel_that_lacks_a_function_is_not_probed_there() {
    let limit = |who: &str| {
        format!(
            "    limit: refused setsockopt calls are not traced: {who} has no function \
             mptcp_setsockopt"
        )
    };
    let added = lines_added_by(&COMMITTED[1], |bytes| rename(bytes, "mptcp_setsockopt"));
    assert_eq!(
        added,
        [limit("the kernel's type information"), limit("the kernel")]
    );
}

#[test]
fn a_kernel_that_lacks_a_tracepoint_shows_no_fallbacks() {
    let added = lines_added_by(&COMMITTED[1], |bytes| {
        rename(bytes, "btf_trace_inet_sock_set_state");
    });
    let of_fallbacks = added.iter().filter(|it| it.starts_with("fallback "));
    let why = "this kernel has no tracepoint inet_sock_set_state";
    let expected = Rung::LADDER.map(|rung| format!("fallback not by {rung}: {why}"));
    assert!(of_fallbacks.eq(&expected), "{added:?}");
    let in_use = added.last().unwrap();
    let nothing = "in use: query by fexit, fallback by nothing";
    assert!(in_use.starts_with(nothing), "{added:?}");
}

#[test]
fn a_member_that_moved_is_read_where_it_is() {
    let added = lines_added_by(&COMMITTED[1], |bytes| {
        move_member(bytes, "icsk_ulp_data", 8);
    });
    assert_eq!(
        added,
        ["icsk_ulp_data = inet_connection_sock.icsk_ulp_data: 1272"]
    );
}

#[test]
fn a_kernel_that_lacks_a_member_gets_no_rung_that_reads_it() {
    const REGISTER: &str = "pt_regs.syscallno cannot be read: it has no member syscallno";
    let added = lines_added_by(&COMMITTED[1], |bytes| rename(bytes, "syscallno"));
    let lines = [
        format!("query not by tracepoint: {REGISTER}"),
        format!("fallback not by tracepoint: {REGISTER}"),
        "missing: pt_regs.syscallno: it has no member syscallno".into(),
        "regs_number = pt_regs.syscallno: absent".into(),
    ];
    assert_eq!(added, lines);
}

#[test]
fn registers_have_the_names_of_the_kernels_architecture() {
    for kernel in &COMMITTED {
        let missing = |architecture| {
            let facts = btf::parse_for(architecture, small(kernel)).unwrap();
            let paths = facts.missing.into_iter().map(|(path, _)| path);
            paths
                .filter(|path| path.starts_with("pt_regs."))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            missing(Architecture::Aarch64),
            Vec::<String>::new(),
            "{}",
            kernel.name
        );
        assert_eq!(missing(Architecture::X86_64).len(), 11, "{}", kernel.name);
    }
}
