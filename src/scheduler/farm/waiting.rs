use std::collections::{BTreeSet, HashMap};

use super::{BuildId, TicketId};

/// Whose turn it is: that of the build that holds the fewest places, then of the one that got a
/// place, or came, the longest ago; of its tickets that of the first. Less is earlier.
pub(super) type Rank = (u32, u64, TicketId);

/// Tickets that wait for the same workers, in the order of their turns: those that take any
/// worker, and those that rather have one of their own, the settled ones.
#[derive(Default)]
pub(super) struct Waiting {
    lines: HashMap<BuildId, Line>,
    plain: BTreeSet<(Rank, BuildId)>,
    settled: BTreeSet<(Rank, BuildId)>,
}

struct Line {
    /// Places that the build has.
    held: u32,
    /// When the build last got a place, or came, in the numbers of tickets.
    since: u64,
    plain: BTreeSet<TicketId>,
    settled: BTreeSet<TicketId>,
}

impl Line {
    fn rank(&self, ticket: TicketId) -> Rank {
        (self.held, self.since, ticket)
    }
}

impl Waiting {
    /// The rank of a ticket, whether or not it is one of these.
    pub(super) fn rank(&self, build: BuildId, ticket: TicketId) -> Rank {
        self.lines.get(&build).map_or((0, ticket.0, ticket), |line| line.rank(ticket))
    }

    /// Those that take any worker, builds in the order of their turns.
    pub(super) fn plain(&self) -> impl Iterator<Item = Rank> + '_ {
        let lines = self.plain.iter().filter_map(|(_, build)| self.lines.get(build));
        lines.flat_map(|line| line.plain.iter().map(|ticket| line.rank(*ticket)))
    }

    /// Those that rather have one of their own, builds in the order of their turns.
    pub(super) fn settled(&self) -> impl Iterator<Item = Rank> + '_ {
        let lines = self.settled.iter().filter_map(|(_, build)| self.lines.get(build));
        lines.flat_map(|line| line.settled.iter().map(|ticket| line.rank(*ticket)))
    }

    pub(super) fn push(&mut self, build: BuildId, ticket: TicketId, settled: bool) {
        self.change(build, ticket.0, |line| {
            if settled { &mut line.settled } else { &mut line.plain }.insert(ticket);
        });
    }

    pub(super) fn remove(&mut self, build: BuildId, ticket: TicketId) {
        self.change(build, ticket.0, |line| {
            line.plain.remove(&ticket);
            line.settled.remove(&ticket);
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
        let new = || Line { held: 0, since, plain: BTreeSet::new(), settled: BTreeSet::new() };
        let line = self.lines.entry(build).or_insert_with(new);
        let turns = |line: &Line| {
            [&line.plain, &line.settled].map(|all| all.first().map(|first| (line.rank(*first), build)))
        };
        let before = turns(line);
        change(line);
        let after = turns(line);
        if line.held == 0 && after == [None, None] {
            self.lines.remove(&build);
        }
        for ((order, before), after) in
            [&mut self.plain, &mut self.settled].into_iter().zip(before).zip(after)
        {
            if before != after {
                before.map(|turn| order.remove(&turn));
                after.map(|turn| order.insert(turn));
            }
        }
    }
}
