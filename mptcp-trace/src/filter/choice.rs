//! Values of filter options, as they are typed.

use crate::model::{Finding, Prefix, RESET_REASONS};

/// A value to show, or, after `!`, one to leave out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice<T> {
    /// What is shown or left out.
    pub value: T,
    /// It is left out.
    pub is_excluded: bool,
}

impl<T> From<T> for Choice<T> {
    fn from(value: T) -> Self {
        Self {
            value,
            is_excluded: false,
        }
    }
}

/// A parser of values that `!` may precede.
pub fn choice<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<Choice<T>, String> + Clone {
    move |text| {
        let (text, is_excluded) = match text.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        Ok(Choice {
            value: parse(text)?,
            is_excluded,
        })
    }
}

/// True if no value is left out that holds, and one of those to show holds, if there are any.
pub(super) fn admits<T>(choices: &[Choice<T>], holds: impl Fn(&T) -> bool) -> bool {
    let excluded = choices.iter().filter(|it| it.is_excluded);
    let mut wanted = choices.iter().filter(|it| !it.is_excluded).peekable();
    !excluded.into_iter().any(|it| holds(&it.value))
        && (wanted.peek().is_none() || wanted.any(|it| holds(&it.value)))
}

/// True if one of the values to show holds.
pub(super) fn named<T>(choices: &[Choice<T>], holds: impl Fn(&T) -> bool) -> bool {
    let mut wanted = choices.iter().filter(|it| !it.is_excluded);
    wanted.any(|it| holds(&it.value))
}

/// A range of ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Parses a port, or a range such as `8000-8080`.
    ///
    /// # Errors
    ///
    /// Explains the syntax.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            (Some(first), Some(last)) => Err(format!("write the lower port first: {last}-{first}")),
            _ => Err("write a port from 1 to 65535, or a range: 443, 8000-8080".into()),
        }
    }

    /// True if the port is in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// Parses an address or a network. Brackets are accepted, and so is the zone of a link-local
/// address (`fe80::5%eth0`), which is not compared: the kernel's records have none.
///
/// # Errors
///
/// Explains the syntax.
pub fn addr(text: &str) -> Result<Prefix, String> {
    let inner = text.strip_prefix('[').unwrap_or(text);
    let (bare, after) = inner.split_once(']').unwrap_or((inner, ""));
    if let Some(port) = after.strip_prefix(':') {
        return Err(format!("ports have an option of their own: --port {port}"));
    }
    let (bare, zone) = bare.split_once('%').unwrap_or((bare, ""));
    // A prefix length follows the zone, if there is one.
    let bits = zone.split_once('/').map_or("", |(_zone, bits)| bits);
    let typed = match bits {
        "" => format!("{bare}{after}"),
        _ => format!("{bare}/{bits}"),
    };
    typed.parse()
}

/// Every kind of finding, those included that are only shown if they are named.
pub const ALL_KINDS: &str = "all";

/// Every kind of finding about a path.
pub const PATH_KINDS: &str = "path";

/// The kind of a finding, as in the `type` of its JSON line, or a group of kinds.
///
/// # Errors
///
/// Names the closest kind, or lists all.
pub fn kind(name: &str) -> Result<&'static str, String> {
    let name = name.replace('-', "_");
    let known = || Finding::KINDS.into_iter().chain([PATH_KINDS, ALL_KINDS]);
    known()
        .find(|kind| kind.eq_ignore_ascii_case(&name))
        .ok_or_else(|| {
            let all: Vec<&str> = known().collect();
            unknown(&name, &all, "")
        })
}

/// True if a finding is of this kind, or of a kind in this group.
pub(super) fn is_of(finding: &Finding, kind: &str) -> bool {
    match kind {
        ALL_KINDS => true,
        PATH_KINDS => matches!(finding, Finding::Path(_)),
        kind => finding.kind() == kind,
    }
}

/// The code of a reason in an RST, by its name or number.
///
/// # Errors
///
/// Names the closest reason, or lists all.
pub fn reset_reason(text: &str) -> Result<u8, String> {
    if let Ok(code) = text.parse() {
        return Ok(code);
    }
    let names = RESET_REASONS.map(|it| it.name);
    (0..)
        .zip(names)
        .find(|(_, name)| name.eq_ignore_ascii_case(text))
        .map(|(code, _)| code)
        .ok_or_else(|| unknown(text, &names, " (or a code from 0 to 255)"))
}

/// A process id.
///
/// # Errors
///
/// Explains how to select a process by its name.
pub fn pid(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(_) => Err("process ids start at 1".into()),
        Err(_) if text.starts_with(|first: char| first.is_ascii_digit() || first == '-') => {
            Err("write a process id".into())
        }
        Err(_) => Err(format!(
            "write a process id; to select processes by their name: --comm {text}"
        )),
    }
}

/// How similar two words must be for one to be offered for the other: one of three letters may be
/// wrong, missing, or swapped with its neighbour (normalized Damerau-Levenshtein distance).
const SIMILAR: f64 = 0.65;

/// The known name that is most similar to this one, if any is similar.
#[must_use]
pub fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness =
        |known: &str| strsim::normalized_damerau_levenshtein(&name, &known.to_lowercase());
    known
        .iter()
        .copied()
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
        .filter(|it| likeness(it) > SIMILAR)
}

/// What to type instead of an unknown name: the most similar one, or one of the list; `more` says
/// where to read about them.
pub fn unknown(name: &str, known: &[&str], more: &str) -> String {
    match closest(name, known) {
        Some(closest) => format!("did you mean {closest}?{more}"),
        None => format!("known are {}{more}", known.join(", ")),
    }
}
