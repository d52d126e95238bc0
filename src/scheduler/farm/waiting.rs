use std::collections::{BTreeSet, HashMap};

use super::{BuildId, TicketId};

/// Whose turn it is: that of the build that holds the fewest places, then of the one that got a
/// place, or came, the longest ago; of its tickets that of the first. Less is earlier.
pub(super) type Rank = (u32, u64, TicketId);

/// What a waiting ticket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Any worker.
    Any,
    /// One of its own, for now.
    Own,
    /// Any as well, as it has waited for its own for long enough.
    AnyNow,
}

/// Tickets that wait for the same workers. Those that take any are in the order of their turns.
#[derive(Default)]
pub(super) struct Waiting {
    lines: HashMap<BuildId, Line>,
    any: BTreeSet<(Rank, BuildId)>,
    any_now: BTreeSet<(Rank, BuildId)>,
}

#[derive(Default)]
struct Line {
    /// Places that the build has.
    held: u32,
    /// When the build last got a place, or came, in the numbers of tickets.
    since: u64,
    any: BTreeSet<TicketId>,
    own: BTreeSet<TicketId>,
    any_now: BTreeSet<TicketId>,
}

impl Line {
    fn rank(&self, ticket: TicketId) -> Rank {
        (self.held, self.since, ticket)
    }

    fn tickets(&mut self, takes: Takes) -> &mut BTreeSet<TicketId> {
        match takes {
            Takes::Any => &mut self.any,
            Takes::Own => &mut self.own,
            Takes::AnyNow => &mut self.any_now,
        }
    }
}

impl Waiting {
    /// The rank of a ticket, whether or not it is one of these.
    pub(super) fn rank(&self, build: BuildId, ticket: TicketId) -> Rank {
        self.lines.get(&build).map_or((0, ticket.0, ticket), |line| line.rank(ticket))
    }

    /// Those that take any worker, builds in the order of their turns.
    pub(super) fn any(&self) -> impl Iterator<Item = Rank> + '_ {
        let lines = self.any.iter().filter_map(|(_, build)| self.lines.get(build));
        lines.flat_map(|line| line.any.iter().map(|ticket| line.rank(*ticket)))
    }

    /// Those that take any worker now, builds in the order of their turns.
    pub(super) fn any_now(&self) -> impl Iterator<Item = Rank> + '_ {
        let lines = self.any_now.iter().filter_map(|(_, build)| self.lines.get(build));
        lines.flat_map(|line| line.any_now.iter().map(|ticket| line.rank(*ticket)))
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = TicketId> + '_ {
        let lines = self.lines.values();
        lines.flat_map(|line| line.any.iter().chain(&line.own).chain(&line.any_now).copied())
    }

    /// One comes, or takes something else from now on.
    pub(super) fn put(&mut self, build: BuildId, ticket: TicketId, takes: Takes) {
        self.change(build, ticket.0, |line| {
            for other in [Takes::Any, Takes::Own, Takes::AnyNow] {
                line.tickets(other).remove(&ticket);
            }
            line.tickets(takes).insert(ticket);
        });
    }

    pub(super) fn remove(&mut self, build: BuildId, ticket: TicketId) {
        self.change(build, ticket.0, |line| {
            for takes in [Takes::Any, Takes::Own, Takes::AnyNow] {
                line.tickets(takes).remove(&ticket);
            }
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
        let line = self.lines.entry(build).or_insert_with(|| Line { since, ..Line::default() });
        let turns = |line: &Line| {
            [&line.any, &line.any_now].map(|all| all.first().map(|first| (line.rank(*first), build)))
        };
        let before = turns(line);
        change(line);
        let after = turns(line);
        if line.held == 0 && line.own.is_empty() && after == [None, None] {
            self.lines.remove(&build);
        }
        for ((order, before), after) in [&mut self.any, &mut self.any_now].into_iter().zip(before).zip(after)
        {
            if before != after {
                before.map(|turn| order.remove(&turn));
                after.map(|turn| order.insert(turn));
            }
        }
    }
}
