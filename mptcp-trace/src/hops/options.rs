//! TCP options of a packet of ours, as a router quotes them.

/// Kind of the MPTCP option.
pub(super) const MPTCP: u8 = 30;
const END: u8 = 0;
pub(super) const NOP: u8 = 1;
const TIMESTAMPS: u8 = 8;

/// What became of the MPTCP option of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptionState {
    /// The quote has it, byte by byte.
    Intact,
    /// NOPs stand in its place.
    Cleared,
    /// It is gone, and nothing stands in its place.
    Removed,
    /// The quote has another MPTCP option.
    Changed,
    /// The quote is too short, or malformed before the place of the option.
    Unknown,
}

impl OptionState {
    /// The word in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Cleared => "cleared",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
        }
    }

    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Intact,
        Self::Cleared,
        Self::Removed,
        Self::Changed,
        Self::Unknown,
    ];

    /// A box has touched the option.
    #[must_use]
    pub fn is_touched(self) -> bool {
        match self {
            Self::Cleared | Self::Removed | Self::Changed => true,
            Self::Intact | Self::Unknown => false,
        }
    }
}

/// The options of a header, and whether the list ended as it should.
pub(super) struct Listed<'a> {
    /// Each option with its kind and length.
    pub(super) options: Vec<&'a [u8]>,
    /// The list is not cut off, and no length is absurd.
    pub(super) is_whole: bool,
}

/// Splits a list of options. A NOP is an option of one byte.
pub(super) fn list(mut rest: &[u8]) -> Listed<'_> {
    let mut options = Vec::new();
    while let Some(&kind) = rest.first() {
        let length = match (kind, rest.get(1)) {
            (END, _) => break,
            (NOP, _) => 1,
            (_, Some(&length)) if length >= 2 => usize::from(length),
            _absurd_or_cut_off => {
                return Listed {
                    options,
                    is_whole: false,
                };
            }
        };
        let Some((option, behind)) = rest.split_at_checked(length) else {
            return Listed {
                options,
                is_whole: false,
            };
        };
        options.push(option);
        rest = behind;
    }
    Listed {
        options,
        is_whole: true,
    }
}

/// The first MPTCP option.
pub(super) fn mptcp(options: &[u8]) -> Option<&[u8]> {
    let listed = list(options);
    listed.options.into_iter().find(|it| it[0] == MPTCP)
}

/// Both values of a timestamps option: its sender's, and the one that it echoes.
pub(super) fn timestamps(options: &[u8]) -> Option<[u32; 2]> {
    let listed = list(options);
    let found = listed
        .options
        .into_iter()
        .find(|it| it[0] == TIMESTAMPS && it.len() == 10)?;
    let number = |at: usize| Some(u32::from_be_bytes(*found.get(at..)?.first_chunk()?));
    Some([number(2)?, number(6)?])
}

/// The longest run of NOPs: where it begins, and its length.
pub(super) fn nops(options: &[u8]) -> (usize, usize) {
    let (mut at, mut run) = (0, 0);
    let mut longest = (0, 0);
    for option in list(options).options {
        at += option.len();
        run = if option[0] == NOP { run + 1 } else { 0 };
        if run > longest.1 {
            longest = (at - run, run);
        }
    }
    longest
}

/// Compares the options that were sent with those of a quote. `has_all`: the quote has the whole
/// header.
pub(super) fn compare(sent: &[u8], quoted: &[u8], has_all: bool) -> OptionState {
    let Some(own) = mptcp(sent) else {
        return OptionState::Unknown;
    };
    match mptcp(quoted) {
        Some(found) if found == own => return OptionState::Intact,
        Some(_) => return OptionState::Changed,
        None => {}
    }
    if !has_all || !list(quoted).is_whole {
        return OptionState::Unknown;
    }
    let count = |options: &[u8]| {
        list(options)
            .options
            .iter()
            .filter(|it| it[0] == NOP)
            .count()
    };
    match count(quoted) >= count(sent) + own.len() {
        true => OptionState::Cleared,
        false => OptionState::Removed,
    }
}
