//! Progress as lines of text, in the form that tools around BuildKit read:
//! `#7 [2/3] RUN make`, `#7 0.412 cc -c a.c`, `#7 DONE 3.1s`.
//!
//! Steps run side by side but are printed in blocks, so the printer stays with one step while it
//! talks, and hands over when another has waited long or the one in front took its share.

use super::failures;
use super::spans::Nanos;
use super::timeline::{Step, StepId, Timeline};
use crate::sizes::Size;
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// How long a step with news may wait behind another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a step keeps its place if it is the only one that talks; less the less it talks.
const SHARE: f64 = 5.0;
/// An unfinished task is printed again after this time …
const TASK_PAUSE: Nanos = 5_000_000_000;
/// … or when it got this part of its whole further.
const TASK_PART: f64 = 0.05;
/// Lines of a step's output that are repeated if it fails.
const TAIL: usize = 10;

/// The printer's memory.
#[derive(Default)]
pub(crate) struct Plain {
    /// The step whose block is open.
    current: Option<StepId>,
    any: bool,
    /// How steps are numbered and how far each is printed.
    printed: HashMap<StepId, Printed>,
    numbers: usize,
    /// When and how far tasks were printed. By name alone: a name that two steps share, such as
    /// `transferring context:`, counts once.
    tasks: HashMap<String, (Nanos, i64)>,
    /// Names are cut at this many bytes.
    name_limit: Option<usize>,
}

#[derive(Default)]
struct Printed {
    number: usize,
    next_line: usize,
    /// How much of line `next_line` is out already.
    offset: usize,
    warnings: usize,
}

impl Plain {
    /// A printer; `truncate` cuts the steps' names.
    pub(crate) fn new(truncate: bool) -> Plain {
        Plain { name_limit: truncate.then_some(72), ..Plain::default() }
    }

    /// Prints what is new.
    pub(crate) fn print(&mut self, timeline: &mut Timeline, now: Instant, out: &mut Vec<u8>) {
        let news: Vec<StepId> =
            timeline.news.iter().copied().filter(|id| !timeline.steps[*id].hidden).collect();
        let (mut over, active): (Vec<StepId>, Vec<StepId>) =
            news.into_iter().partition(|id| timeline.steps[*id].spans.completed().is_some());

        // What is over goes first, the open block before all.
        let before = self.current;
        over.sort_by_key(|id| (Some(*id) != before, timeline.steps[*id].spans.completed()));
        for id in over {
            self.print_step(timeline, id, out);
        }
        if active.is_empty() {
            if before.is_none_or(|id| !timeline.steps[id].running()) {
                let waiting = (0..timeline.steps.len())
                    .find(|id| timeline.steps[*id].running() && !timeline.steps[*id].hidden);
                if let Some(id) = waiting {
                    self.print_step(timeline, id, out);
                }
            }
            return;
        }
        match self.current {
            None => {
                if let Some(id) = busiest(timeline, active.iter().copied(), now) {
                    self.print_step(timeline, id, out);
                }
            }
            Some(current) => {
                if active.contains(&current) {
                    self.print_step(timeline, current, out);
                }
                if let Some(id) = successor(timeline, current, &active, now) {
                    self.print_step(timeline, id, out);
                }
            }
        }
    }

    /// Prints what is left and repeats the output of steps that failed.
    pub(crate) fn finish(&mut self, timeline: &mut Timeline, now: Instant, out: &mut Vec<u8>) {
        self.print(timeline, now, out);
        failures::print(timeline, out);
    }

    fn print_step(&mut self, timeline: &mut Timeline, id: StepId, out: &mut Vec<u8>) {
        timeline.news.remove(&id);
        let numbers = &mut self.numbers;
        let number = self
            .printed
            .entry(id)
            .or_insert_with(|| {
                *numbers += 1;
                Printed { number: *numbers, ..Printed::default() }
            })
            .number;
        if self.current != Some(id) {
            self.leave(timeline, out);
            if std::mem::replace(&mut self.any, true) {
                out.push(b'\n');
            }
            line(out, number, self.cut(&timeline.steps[id].name));
        }
        let step = &mut timeline.steps[id];
        let mut between = Vec::new();
        let open_task = self.print_tasks(step, number, &mut between);
        let Some(printed) = self.printed.get_mut(&id) else { return };
        for warning in &step.warnings[printed.warnings..] {
            line(&mut between, number, format!("WARN: {warning}"));
        }
        printed.warnings = step.warnings.len();
        // A line that a step has not ended yet is shown again afterwards, whole.
        if printed.offset > 0 && !between.is_empty() {
            out.push(b'\n');
            printed.offset = 0;
        }
        out.append(&mut between);
        print_log(step, printed, out);
        self.current = Some(id);
        if step.spans.completed().is_some() && !open_task {
            self.current = None;
            step.busy = 0;
            if step.log.is_open() && printed.offset > 0 {
                out.push(b'\n');
                (printed.next_line, printed.offset) = (step.log.next(), 0);
            }
            line(out, number, outcome(step));
        }
    }

    /// Closes the open block for now.
    fn leave(&mut self, timeline: &mut Timeline, out: &mut Vec<u8>) {
        let Some((id, printed)) = self.current.take().and_then(|id| Some((id, self.printed.get_mut(&id)?)))
        else {
            return;
        };
        if printed.offset > 0 {
            out.push(b'\n');
            printed.offset = 0;
        }
        timeline.steps[id].busy = 0;
        line(out, printed.number, "...");
    }

    /// Says whether a task that is not over was printed.
    fn print_tasks(&mut self, step: &mut Step, number: usize, out: &mut Vec<u8>) -> bool {
        let news = std::mem::take(&mut step.task_news);
        let mut open = false;
        for task in step.tasks.iter().filter(|t| news.contains(&t.id)) {
            if let (Some((at, current)), None) = (self.tasks.get(&task.id), task.completed) {
                let part =
                    if task.total > 0 { (task.current - current) as f64 / task.total as f64 } else { 0.0 };
                if part < TASK_PART && task.at - at < TASK_PAUSE {
                    continue;
                }
            }
            self.tasks.insert(task.id.clone(), (task.at, task.current));
            let mut text = task.id.clone();
            if task.total != 0 {
                text += &format!(" {} / {}", Size(task.current), Size(task.total));
            } else if task.current != 0 {
                text += &format!(" {}", Size(task.current));
            }
            let seconds = (task.completed.unwrap_or(task.at) - task.started) as f64 / 1e9;
            if seconds > 0.01 {
                text += &format!(" {seconds:.1}s");
            }
            if task.completed.is_some() {
                text += " done";
            } else {
                open = true;
            }
            line(out, number, &text);
        }
        open
    }

    fn cut(&self, name: &str) -> String {
        match self.name_limit {
            Some(limit) if name.len() > limit => {
                let end = (0..=limit).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
                format!("{}...", &name[..end])
            }
            _ => name.to_owned(),
        }
    }
}

fn line(out: &mut Vec<u8>, number: usize, text: impl AsRef<str>) {
    // Writing into memory does not fail.
    let _ = writeln!(out, "#{number} {}", text.as_ref());
}

fn print_log(step: &mut Step, printed: &mut Printed, out: &mut Vec<u8>) {
    for (number, text, whole) in step.log.since(printed.next_line) {
        if printed.offset == 0 || number != printed.next_line {
            let _ = write!(out, "#{} ", printed.number);
            printed.offset = 0;
        }
        out.extend_from_slice(&text[printed.offset..]);
        if whole {
            out.push(b'\n');
            (printed.next_line, printed.offset) = (number + 1, 0);
        } else {
            (printed.next_line, printed.offset) = (number, text.len());
        }
    }
    step.log.forget(printed.next_line, TAIL);
}

fn outcome(step: &Step) -> String {
    match step {
        step if step.canceled() => "CANCELED".to_owned(),
        step if step.failed() => format!("ERROR: {}", step.error),
        step if step.cached => "CACHED".to_owned(),
        step => format!("DONE {:.1}s", step.spans.seconds(0)),
    }
}

/// News per second since the step was last in front.
fn pace(step: &Step, now: Instant) -> (Duration, f64) {
    let waited = step.busy_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    (waited, f64::from(step.busy) / waited.as_secs_f64().max(1e-9))
}

fn busiest(timeline: &Timeline, of: impl Iterator<Item = StepId>, now: Instant) -> Option<StepId> {
    of.max_by(|a, b| pace(&timeline.steps[*a], now).1.total_cmp(&pace(&timeline.steps[*b], now).1))
}

/// The step to which the current one hands over, if it is time.
fn successor(timeline: &Timeline, current: StepId, active: &[StepId], now: Instant) -> Option<StepId> {
    let others = || active.iter().copied().filter(|id| *id != current);
    if let Some(id) = others().find(|id| pace(&timeline.steps[*id], now).0 > PATIENCE) {
        return Some(id);
    }
    let (in_front, own) = pace(&timeline.steps[current], now);
    let all: f64 = own + others().map(|id| pace(&timeline.steps[id], now).1).sum::<f64>();
    let share = own / all.max(1e-9);
    if SHARE / (1.0 - share).max(1e-9) < in_front.as_secs_f64() {
        return busiest(timeline, others(), now);
    }
    None
}
