//! What the board keeps of paths, and of the ends of connections.

use std::{rc::Rc, time::Duration};

use super::{Board, CONCLUSIONS_MAX, Row, TimelineKind};
use crate::model::{
    By, CauseCertainty, Closed, Finding, Outcome, Path, PathKind, PathRole, Sum, SumRow, SumTable,
    amount, displayed, short,
};

/// Most causes of paths; the others are counted as one. No kernel has as many.
const PATH_CAUSES_MAX: usize = 256;

impl Board {
    pub(super) fn count_cause(&mut self, path: &Path) {
        let is_failed = matches!(path.kind, PathKind::Failed | PathKind::ConnectFailed);
        if !is_failed && path.kind != PathKind::Down {
            return;
        }
        let name = path.cause.as_deref().unwrap_or("unknown");
        let has_room =
            self.path_causes.len() < PATH_CAUSES_MAX || self.path_causes.contains_key(name);
        let name = if has_room { name } else { "(others)" };
        let causes = self.path_causes.entry(name.to_owned()).or_default();
        causes.failed += u64::from(is_failed);
        causes.ended += u64::from(!is_failed);
    }

    /// Takes what an open path has carried so far.
    pub fn read(&mut self, path: &Path) {
        let shown = path.connection.and_then(|id| self.ledger.latest_mut(id));
        if let Some(shown) = shown {
            Rc::make_mut(&mut shown.row).paths.read(path);
        }
    }

    /// The sums by cause, with a row for each cause of paths.
    pub(super) fn with_path_causes(&self, mut table: SumTable) -> SumTable {
        if table.by == By::Cause {
            for name in self.path_causes.keys() {
                if !table.rows.iter().any(|row| row.key == *name) {
                    table.rows.push(SumRow {
                        key: name.clone(),
                        sum: Sum::default(),
                    });
                }
            }
        }
        table
    }
}

impl Row {
    /// Adds what the packet of a finding shows, and what the connections so far say of the peer.
    pub(super) fn concludes(&mut self, finding: &Finding, at: Duration, moments_max: usize) {
        let shown = finding.packet().into_iter().flat_map(|it| &it.conclusions);
        for conclusion in shown {
            let words = format!("the packet shows {conclusion}");
            self.moment(at, TimelineKind::Other, words, moments_max);
            if self.conclusions.len() < CONCLUSIONS_MAX {
                self.conclusions.push(conclusion.clone());
            }
        }
        if let Finding::Connection(event) = finding
            && let Some(words) = event.history.as_ref().and_then(|it| it.clause())
        {
            self.moment(at, TimelineKind::Other, words, moments_max);
        }
    }

    pub(super) fn path(&mut self, path: &Path, at: Duration, moments_max: usize) {
        self.paths.take(path);
        self.is_not_opened |= path.kind == PathKind::ConnectFailed;
        let is_up = matches!(path.kind, PathKind::Up | PathKind::Open);
        if is_up && path.is_mptcp && self.fell_back.is_none() {
            self.fell_back = Some(false);
        }
        if path.role == PathRole::First && !path.kind.is_of_address() {
            self.side = path.side.or(self.side);
        }
        let (local, remote) = (displayed(path.socket.local), displayed(path.socket.remote));
        let role = path.role.name();
        let cause = match (path.cause.as_deref(), path.known) {
            (Some(cause), CauseCertainty::Reported) => cause.to_owned(),
            (Some(cause), CauseCertainty::Inferred | CauseCertainty::Unknown) => {
                format!("{cause} (inferred)")
            }
            (None, _) => "cause unknown".to_owned(),
        };
        let what = match path.kind {
            PathKind::Up => match path.handshake().filter(|it| !it.is_zero()) {
                Some(took) => format!("came up after {}", short(took)),
                None => "came up".to_owned(),
            },
            PathKind::Open => "is open".to_owned(),
            PathKind::Failed | PathKind::ConnectFailed => format!("FAILED: {cause}"),
            PathKind::Down => format!("ended: {cause}"),
            PathKind::Stale => "is stale: the scheduler avoids it".to_owned(),
            PathKind::Recovered => "is used again".to_owned(),
            PathKind::Priority => match path.backup_here || path.backup_peer {
                true => "is a backup now".to_owned(),
                false => "is no backup any more".to_owned(),
            },
            PathKind::AddressAnnounced
            | PathKind::AddressEchoed
            | PathKind::AddressDropped
            | PathKind::AddressOverLimit
            | PathKind::AddressRemoved => {
                let words = path.kind.name().replace('_', " ");
                self.moment(at, TimelineKind::Other, words, moments_max);
                return;
            }
        };
        let words = format!("path {local} -> {remote} ({role}) {what}");
        self.moment(at, TimelineKind::Other, words, moments_max);
    }

    pub(super) fn closed(&mut self, closed: &Closed, at: Duration, moments_max: usize) {
        self.is_closed = true;
        self.side = closed.side.or(self.side);
        self.outcome = Some(closed.outcome.clone());
        let outcome = match &closed.outcome {
            Outcome::Mptcp => {
                self.fell_back.get_or_insert(false);
                "MPTCP to the end"
            }
            Outcome::FellBack { .. } => "had fallen back",
            Outcome::Unknown => "unknown whether it fell back",
        };
        let (sent, received) = (amount(closed.bytes.0), amount(closed.bytes.1));
        let words = format!(
            "closed: {outcome}, {} of {} paths came up, {sent} sent, {received} received",
            closed.paths_up, closed.paths_tried
        );
        self.moment(at, TimelineKind::End, words, moments_max);
    }

    /// What stands in place of a cause: why it could not be opened, or that it ended well.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        if self.is_not_opened {
            let mut ends = self.paths.iter().filter_map(|it| it.end.as_ref());
            return ends.find(|it| it.is_failed)?.cause.as_deref();
        }
        match self.outcome {
            Some(Outcome::Mptcp) => Some("MPTCP to the end"),
            Some(Outcome::FellBack { .. } | Outcome::Unknown) | None => None,
        }
    }
}
