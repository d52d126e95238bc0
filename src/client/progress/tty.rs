//! The live view on a terminal: redrawn in place, steps grouped by platform, with the last lines
//! that running steps wrote.

use super::colors::Palette;
use super::failures;
use super::layout::{self, Look, Row};
use super::machines::{self, Running};
use super::spans::Nanos;
use super::timeline::{StepId, Timeline};
use crosskit_api::control::StatusResponse;
use crosskit_api::types::WorkerRecord;
use crosskit_platforms::Platform;
use crossterm::cursor::{Hide, MoveToColumn, MoveUp, Show};
use crossterm::style::{Attribute, Color, SetAttribute, SetForegroundColor};
use crossterm::terminal::{Clear, ClearType, DisableLineWrap, EnableLineWrap};
use crossterm::{Command, QueueableCommand as _};
use std::collections::HashMap;

/// Columns kept free to the right of a step's output.
const OUTPUT_MARGIN: u16 = 10;
/// Rows of the terminal that output may not take.
const RESERVED_ROWS: usize = 7;
/// How much output of a step is kept, to be repeated if it fails.
const KEPT_OUTPUT: usize = 4 << 20;

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dimensions {
    pub(crate) width: u16,
    pub(crate) height: u16,
}

/// What the view remembers between two drawings.
pub(crate) struct Tty {
    phase: String,
    palette: Palette,
    /// Lines of output shown below a running step.
    output_lines: u16,
    workers: Vec<WorkerRecord>,
    screens: HashMap<StepId, Output>,
    drawn: u16,
}

/// A step's output as a small terminal shows it.
struct Output {
    screen: vt100::Parser,
    bytes: usize,
}

impl Tty {
    /// A view with nothing drawn yet.
    pub(crate) fn new(phase: &str, palette: Palette, output_lines: u16) -> Tty {
        Tty {
            phase: phase.to_owned(),
            palette,
            output_lines,
            workers: Vec::new(),
            screens: HashMap::new(),
            drawn: 0,
        }
    }

    /// Tells where platforms can run.
    pub(crate) fn set_workers(&mut self, workers: Vec<WorkerRecord>) {
        self.workers = workers;
    }

    /// Takes in the output of steps; the timeline has the status already.
    pub(crate) fn update(&mut self, status: &StatusResponse, timeline: &mut Timeline, size: Dimensions) {
        let columns = size.width.saturating_sub(OUTPUT_MARGIN).max(1);
        for log in &status.logs {
            let Some(id) = timeline.step_of(&log.vertex) else { continue };
            let lines = self.output_lines;
            let output = self
                .screens
                .entry(id)
                .or_insert_with(|| Output { screen: vt100::Parser::new(lines, columns, 0), bytes: 0 });
            if output.screen.screen().size().1 != columns {
                output.screen.screen_mut().set_size(lines, columns);
            }
            for (at, line) in log.msg.split(|b| *b == b'\n').enumerate() {
                if at > 0 {
                    output.screen.process(b"\r\n");
                }
                output.screen.process(line);
            }
            output.bytes += log.msg.len();
            timeline.steps[id].log.limit(KEPT_OUTPUT);
        }
        // The view is drawn as a whole, so nobody asks what is new.
        timeline.news.clear();
    }

    /// Draws over what was drawn before.
    pub(crate) fn draw(
        &mut self,
        timeline: &Timeline,
        size: Dimensions,
        wall: Nanos,
        last: bool,
        out: &mut Vec<u8>,
    ) {
        let now = wall - timeline.behind.unwrap_or(0);
        let running = |platform: &str| -> Option<Running> {
            machines::running(&self.workers, &Platform::parse(platform).ok()?)
        };
        let mut rows = layout::rows(timeline, now, &running);
        if !last {
            let room = usize::from(size.height.saturating_sub(2));
            rows = layout::crop(rows, room);
            rows = self.add_output(rows, timeline, size);
        }
        queue(out, Hide);
        queue(out, DisableLineWrap);
        if self.drawn > 0 {
            queue(out, MoveUp(self.drawn));
        }
        queue(out, MoveToColumn(0));
        self.drawn = 0;
        let (over, all) = timeline.counts();
        let seconds = timeline.first_start.map_or(0.0, |start| (now - start).max(0) as f64 / 1e9);
        let state = if last && all > 0 && over == all { " FINISHED" } else { "" };
        let head = format!("[+] {} {seconds:.1}s ({over}/{all}){state}", self.phase);
        self.line(out, &head.chars().take(size.width.into()).collect::<String>(), None);
        for row in rows {
            if let Some(text) = row.fit(size.width.into()) {
                self.line(out, &text, Some(row.look));
            }
        }
        queue(out, Clear(ClearType::FromCursorDown));
        queue(out, EnableLineWrap);
        queue(out, Show);
    }

    /// Draws everything for the last time and repeats the output of steps that failed.
    pub(crate) fn finish(&mut self, timeline: &Timeline, size: Dimensions, wall: Nanos, out: &mut Vec<u8>) {
        self.draw(timeline, size, wall, true, out);
        failures::print(timeline, out);
    }

    fn line(&mut self, out: &mut Vec<u8>, text: &str, look: Option<Look>) {
        let color: Option<Color> = match look {
            Some(Look::Done) => self.palette.done,
            Some(Look::Canceled) => self.palette.canceled,
            Some(Look::Failed) => self.palette.error,
            Some(Look::Warning) => self.palette.warning,
            _ => None,
        };
        let attribute = match look {
            // Bold and faint are no colours, yet who wants none wants plain text.
            _ if self.palette.done.is_none() => None,
            Some(Look::Heading) => Some(Attribute::Bold),
            Some(Look::Output) => Some(Attribute::Dim),
            _ => None,
        };
        if let Some(color) = color {
            queue(out, SetForegroundColor(color));
        }
        if let Some(attribute) = attribute {
            queue(out, SetAttribute(attribute));
        }
        out.extend_from_slice(text.as_bytes());
        if color.is_some() || attribute.is_some() {
            queue(out, SetAttribute(Attribute::Reset));
        }
        queue(out, Clear(ClearType::UntilNewLine));
        out.extend_from_slice(b"\r\n");
        self.drawn += 1;
    }

    /// Puts the last output of the most talkative running steps below them while there is room.
    fn add_output(&self, rows: Vec<Row>, timeline: &Timeline, size: Dimensions) -> Vec<Row> {
        let most = usize::from(self.output_lines).min(usize::from(size.height).saturating_sub(RESERVED_ROWS));
        let mut room = usize::from(size.height).saturating_sub(rows.len() + 2);
        let mut talkers: Vec<(&StepId, &Output)> =
            self.screens.iter().filter(|(id, _)| timeline.steps[**id].running()).collect();
        talkers.sort_by_key(|(id, output)| (std::cmp::Reverse(output.bytes), **id));
        let mut shown: HashMap<StepId, Vec<String>> = HashMap::new();
        for (id, output) in talkers {
            let screen = output.screen.screen();
            let mut lines: Vec<String> =
                screen.rows(0, screen.size().1).filter(|line| !line.trim().is_empty()).collect();
            lines.drain(..lines.len().saturating_sub(most));
            if lines.len() > room {
                break;
            }
            room -= lines.len();
            shown.insert(*id, lines);
        }
        let mut out = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter().peekable();
        while let Some(row) = rows.next() {
            let step = row.step;
            out.push(row);
            if rows.peek().map(|next| next.step) == Some(step) {
                continue;
            }
            for line in step.and_then(|id| shown.remove(&id)).unwrap_or_default() {
                let text = format!(" => => # {line}");
                out.push(Row { text, status: String::new(), timer: String::new(), look: Look::Output, step });
            }
        }
        out
    }
}

fn queue(out: &mut Vec<u8>, command: impl Command) {
    // Writing into memory does not fail.
    let _ = out.queue(command);
}
