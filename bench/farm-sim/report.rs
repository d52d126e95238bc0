use std::fmt;
use std::time::Duration;

use crate::Histogram;

/// How builds of some size fared.
#[derive(Clone, Default)]
pub struct Fared {
    /// How long a step waited for a place, in microseconds.
    pub waits: Histogram,
    /// How many times longer than it could have a build took, in thousandths.
    pub stretch: Histogram,
}

/// Why repeats came to workers that had nothing of them.
#[derive(Clone, Default)]
pub struct Cold {
    /// No worker had it any more.
    pub forgotten: u64,
    /// Those that had it were dead or drained.
    pub away: u64,
    /// Those that had it had no place.
    pub full: u64,
    /// Somebody had it and a place.
    pub passed: u64,
}

/// What came of a simulation.
#[derive(Clone, Default)]
pub struct Report {
    /// Builds that ended, well or with a failing step of their own.
    pub builds: u64,
    /// Steps that ended.
    pub steps: u64,
    /// Steps that nobody could be found for.
    pub refused: u64,
    /// Workers that died.
    pub deaths: u64,
    /// Steps that were lost with a worker and ran again elsewhere.
    pub lost: u64,
    /// When the last build ended.
    pub makespan: Duration,
    /// When it would have ended at the earliest: with every cache warm, every worker there all the
    /// time, and no place ever empty while there is work.
    pub bound: Duration,
    /// The part of all places that were in use, while builds came.
    pub used: f64,
    /// Groups that came to a worker.
    pub placed: u64,
    /// Of these, groups that somebody had run before.
    pub repeats: u64,
    /// Of these, groups that came to a worker that still had it.
    pub warm: u64,
    /// The same of the builds of the second half, when the farm has settled.
    pub settled: (u64, u64),
    /// Why the others did not.
    pub cold: Cold,
    /// Steps that found no place at the worker that an endpoint had sent them to, and how long
    /// they waited there, in microseconds.
    pub queued: Histogram,
    /// Groups that changed their worker on the way, deaths aside.
    pub moved: u64,
    /// How long the farm took for a decision, in nanoseconds: asking, giving back and assigning.
    pub decisions: Histogram,
    /// The most steps that waited at a time.
    pub most_waiting: usize,
    /// The most steps that ran at a time.
    pub most_running: usize,
    /// Builds of at most ten steps.
    pub small: Fared,
    /// Builds of ten to a hundred.
    pub middle: Fared,
    /// Larger ones.
    pub large: Fared,
    /// Jain's index of how much longer than they could have builds took: 1 if all the same.
    pub fairness: f64,
}

impl Report {
    /// The part of repeats that found what they had.
    pub fn warm_share(&self) -> f64 {
        self.warm as f64 / self.repeats.max(1) as f64
    }

    /// The same where the farm has settled: in the second half.
    pub fn settled_share(&self) -> f64 {
        self.settled.1 as f64 / self.settled.0.max(1) as f64
    }

    /// How many times longer than the bound all took.
    pub fn overhead(&self) -> f64 {
        self.makespan.as_secs_f64() / self.bound.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// How builds of this size fared.
    pub(crate) fn of_size(&mut self, steps: usize) -> &mut Fared {
        match steps {
            0..=10 => &mut self.small,
            11..=100 => &mut self.middle,
            _ => &mut self.large,
        }
    }
}

fn micros(nanoseconds: f64) -> String {
    format!("{:.1} µs", nanoseconds / 1000.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
        writeln!(f, "| | |\n|---|---|")?;
        let mut row = |name: &str, value: String| writeln!(f, "| {name} | {value} |");
        row("builds, steps", format!("{}, {}", self.builds, self.steps))?;
        row(
            "makespan; lower bound",
            format!(
                "{:.0} s; {:.0} s: {:.3} times",
                self.makespan.as_secs_f64(),
                self.bound.as_secs_f64(),
                self.overhead()
            ),
        )?;
        row("places in use while builds came", format!("{:.1} %", self.used * 100.0))?;
        row(
            "most steps at a time: running; waiting",
            format!("{}; {}", self.most_running, self.most_waiting),
        )?;
        row(
            "groups that ran before; found warm",
            format!("{} of {}; {:.2} %", self.repeats, self.placed, self.warm_share() * 100.0),
        )?;
        row(
            "the same in the second half",
            format!("{} of {}; {:.2} %", self.settled.1, self.settled.0, self.settled_share() * 100.0),
        )?;
        let cold = &self.cold;
        row(
            "cold, as those who had it: forgot it; were away; were full; were passed over",
            format!(
                "{:.2} %; {:.2} %; {:.2} %; {:.2} %",
                percent(cold.forgotten, self.repeats),
                percent(cold.away, self.repeats),
                percent(cold.full, self.repeats),
                percent(cold.passed, self.repeats)
            ),
        )?;
        if self.queued.count() > 0 {
            row(
                "steps that waited at a worker for others' endpoints; how long, mean, p99",
                format!(
                    "{} ({:.2} %); {:.1} s; {:.1} s",
                    self.queued.count(),
                    percent(self.queued.count(), self.steps),
                    self.queued.mean() / 1e6,
                    self.queued.quantile(0.99) as f64 / 1e6
                ),
            )?;
        }
        row(
            "groups moved for want of a place",
            format!("{} ({:.2} %)", self.moved, percent(self.moved, self.placed)),
        )?;
        row(
            "workers that died; steps run again; steps refused",
            format!("{}; {}; {}", self.deaths, self.lost, self.refused),
        )?;
        let decisions = &self.decisions;
        row(
            "a decision: median; p99; p99.9; longest",
            format!(
                "{}; {}; {}; {}",
                micros(decisions.quantile(0.5) as f64),
                micros(decisions.quantile(0.99) as f64),
                micros(decisions.quantile(0.999) as f64),
                micros(decisions.most() as f64)
            ),
        )?;
        row("decisions one core makes in a second", format!("{:.0}", 1e9 / decisions.mean().max(1.0)))?;
        row("fairness (Jain's index of stretches)", format!("{:.3}", self.fairness))?;
        for (name, fared) in
            [("≤ 10 steps", &self.small), ("≤ 100 steps", &self.middle), ("> 100 steps", &self.large)]
        {
            let wait = |part: f64| fared.waits.quantile(part) as f64 / 1e6;
            let stretch = |part: f64| fared.stretch.quantile(part) as f64 / 1000.0;
            row(
                &format!("builds of {name}: how many; a step's wait, mean, p99; stretch, median, p99"),
                format!(
                    "{}; {:.2} s, {:.1} s; {:.2}, {:.1}",
                    fared.stretch.count(),
                    fared.waits.mean() / 1e6,
                    wait(0.99),
                    stretch(0.5),
                    stretch(0.99)
                ),
            )?;
        }
        Ok(())
    }
}
