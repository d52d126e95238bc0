use std::collections::{BTreeSet, HashMap};

use super::{BuildId, TicketId};

/// Whose turn it is: that of the build that holds the fewest places, then of the one that got a
/// place, or came, the longest ago; of its tickets that of the first. Less is earlier.
pub(super) type Rank = (u32, u64, TicketId);

/// Tickets that wait for the same workers, in the order of their turns.
#[derive(Default)]
pub(super) struct Waiting {
    lines: HashMap<BuildId, Line>,
    order: BTreeSet<(Rank, BuildId)>,
}

struct Line {
    /// Places that the build has.
    held: u32,
    /// When the build last got a place, or came, in the numbers of tickets.
    since: u64,
    tickets: BTreeSet<TicketId>,
}

impl Waiting {
    /// The rank of a ticket, whether or not it is one of these.
    pub(super) fn rank(&self, build: BuildId, ticket: TicketId) -> Rank {
        self.lines.get(&build).map_or((0, ticket.0, ticket), |line| (line.held, line.since, ticket))
    }

    /// Whose turn is next.
    pub(super) fn first(&self) -> Option<Rank> {
        self.order.first().map(|(rank, _)| *rank)
    }

    /// All of them, builds in the order of their turns.
    pub(super) fn all(&self) -> impl Iterator<Item = Rank> + '_ {
        let lines = self.order.iter().filter_map(|(_, build)| self.lines.get(build));
        lines.flat_map(|line| line.tickets.iter().map(|ticket| (line.held, line.since, *ticket)))
    }

    pub(super) fn push(&mut self, build: BuildId, ticket: TicketId) {
        self.change(build, ticket.0, |line| {
            line.tickets.insert(ticket);
        });
    }

    pub(super) fn remove(&mut self, build: BuildId, ticket: TicketId) {
        self.change(build, ticket.0, |line| {
            line.tickets.remove(&ticket);
        });
    }

    /// The build has one more place since `now`, in the numbers of tickets.
    pub(super) fn hold(&mut self, build: BuildId, now: u64) {
        self.change(build, now, |line| {
            line.held += 1;
            line.since = now;
        });
    }

    /// The build has one place less.
    pub(super) fn release(&mut self, build: BuildId) {
        self.change(build, 0, |line| line.held = line.held.saturating_sub(1));
    }

    fn change(&mut self, build: BuildId, since: u64, change: impl FnOnce(&mut Line)) {
        let new = || Line { held: 0, since, tickets: BTreeSet::new() };
        let line = self.lines.entry(build).or_insert_with(new);
        let turn = |line: &Line| line.tickets.first().map(|first| ((line.held, line.since, *first), build));
        let before = turn(line);
        change(line);
        let after = turn(line);
        if line.held == 0 && line.tickets.is_empty() {
            self.lines.remove(&build);
        }
        if before != after {
            before.map(|turn| self.order.remove(&turn));
            after.map(|turn| self.order.insert(turn));
        }
    }
}
