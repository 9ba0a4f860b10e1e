//! Exit codes of each subcommand, for its help and for docs/output.md.

use std::fmt::Write as _;

use clap::Command;

use super::{CANNOT_ANSWER, DONE, FAILED, FOUND, UNPROVEN, USAGE};

/// Exit codes of a subcommand, and what each means there.
#[derive(Clone, Copy, Debug)]
pub struct ExitCodes {
    /// The subcommand.
    pub verb: &'static str,
    /// Codes and their meaning; `N` is that of a COMMAND.
    pub codes: &'static [(&'static str, &'static str)],
}

/// The code as text: all have one digit.
const fn digit(code: u8) -> &'static str {
    const DIGITS: &str = "0123456789";
    let (_, rest) = DIGITS.split_at(code as usize);
    rest.split_at(1).0
}

const FAILS: (&str, &str) = (digit(FAILED), "failure");
const USAGE_ERROR: (&str, &str) = (digit(USAGE), "usage error");
const CANNOT: (&str, &str) = (
    digit(CANNOT_ANSWER),
    "this kernel or these privileges cannot answer",
);
const MATCHED: (&str, &str) = (digit(FOUND), "a finding matched --fail-on");
const MAY_HAVE: (&str, &str) = (
    digit(UNPROVEN),
    "no finding matched --fail-on, but one may have been missed",
);
const OF_COMMAND: (&str, &str) = (
    "N",
    "with a COMMAND: its exit code (128 + signal number; 127 if it does not exist, 126 if it \
     cannot run), unless that is 0",
);
const DAMAGED: (&str, &str) = (
    digit(FAILED),
    "failure, also if the capture is truncated or damaged",
);

/// Exit codes of all subcommands, in the order of the help.
pub const ALL: [ExitCodes; 17] = [
    ExitCodes {
        verb: "live",
        codes: &[
            (digit(DONE), "success"),
            FAILS,
            USAGE_ERROR,
            CANNOT,
            MATCHED,
            MAY_HAVE,
            OF_COMMAND,
        ],
    },
    ExitCodes {
        verb: "replay",
        codes: &[
            (digit(DONE), "success"),
            DAMAGED,
            USAGE_ERROR,
            MATCHED,
            MAY_HAVE,
        ],
    },
    ExitCodes {
        verb: "report",
        codes: &[(digit(DONE), "the report is written"), DAMAGED, USAGE_ERROR],
    },
    ExitCodes {
        verb: "annotate",
        codes: &[
            (
                digit(DONE),
                "the packets are written, also if no finding belongs to one",
            ),
            (
                digit(FAILED),
                "failure, also if the packets or the capture are truncated or damaged",
            ),
            USAGE_ERROR,
        ],
    },
    ExitCodes {
        verb: "dump",
        codes: &[
            (digit(DONE), "the capture is written"),
            (
                digit(FAILED),
                "failure, also if nothing was recorded in that time",
            ),
            USAGE_ERROR,
        ],
    },
    ExitCodes {
        verb: "pair",
        codes: &[
            (
                digit(DONE),
                "the captures were compared, whatever was found",
            ),
            (
                digit(FAILED),
                "failure, also if a capture is truncated or damaged",
            ),
            USAGE_ERROR,
        ],
    },
    ExitCodes {
        verb: "serve",
        codes: &[
            (digit(DONE), "a signal stopped it"),
            FAILS,
            USAGE_ERROR,
            CANNOT,
        ],
    },
    ExitCodes {
        verb: "top",
        codes: &[
            (digit(DONE), "it was left with q or Ctrl-C"),
            DAMAGED,
            USAGE_ERROR,
            CANNOT,
        ],
    },
    ExitCodes {
        verb: "doctor",
        codes: &[
            (digit(DONE), "tracing works, as the self-test proves"),
            FAILS,
            USAGE_ERROR,
            CANNOT,
        ],
    },
    ExitCodes {
        verb: "list",
        codes: &[
            (digit(DONE), "success, also without any socket"),
            FAILS,
            USAGE_ERROR,
            CANNOT,
        ],
    },
    ExitCodes {
        verb: "bundle",
        codes: &[
            (digit(DONE), "the bundle is written"),
            FAILS,
            USAGE_ERROR,
            CANNOT,
            OF_COMMAND,
        ],
    },
    ExitCodes {
        verb: "probe",
        codes: &[
            (digit(DONE), "MPTCP passes in both directions"),
            FAILS,
            USAGE_ERROR,
            (digit(CANNOT_ANSWER), "these privileges do not allow it"),
            (digit(FOUND), "MPTCP does not pass"),
            (digit(UNPROVEN), "cannot say whether MPTCP passes"),
        ],
    },
    ExitCodes {
        verb: "demo",
        codes: &[
            (digit(DONE), "the demo ran and was traced"),
            FAILS,
            USAGE_ERROR,
            CANNOT,
        ],
    },
    ExitCodes {
        verb: "explain",
        codes: &[
            (digit(DONE), "success"),
            FAILS,
            (digit(USAGE), "usage error, or no such cause"),
        ],
    },
    ExitCodes {
        verb: "completions",
        codes: &[(digit(DONE), "success"), FAILS, USAGE_ERROR],
    },
    ExitCodes {
        verb: "schema",
        codes: &[(digit(DONE), "success"), FAILS, USAGE_ERROR],
    },
    ExitCodes {
        verb: "help",
        codes: &[
            (digit(DONE), "success"),
            (digit(USAGE), "no such subcommand"),
        ],
    },
];

/// Adds the exit codes of a subcommand to its help.
pub(super) fn add(command: Command) -> Command {
    let Some(of_verb) = ALL.iter().find(|it| it.verb == command.get_name()) else {
        return command;
    };
    let before = command.get_after_help().map(ToString::to_string);
    command.after_help(with_codes(before, of_verb))
}

/// The examples of the program, and the exit codes of `live`, which runs without a subcommand.
pub(super) fn program(examples: &str) -> String {
    let live = ALL.iter().find(|it| it.verb == "live");
    live.map_or_else(String::new, |it| with_codes(Some(examples.to_owned()), it))
}

fn with_codes(before: Option<String>, of_verb: &ExitCodes) -> String {
    let mut text = before.map(|it| it + "\n\n").unwrap_or_default();
    text.push_str("Exit codes:");
    for (code, meaning) in of_verb.codes {
        // Writing to memory does not fail.
        let _infallible = write!(text, "\n  {code}  {meaning}");
    }
    text
}
