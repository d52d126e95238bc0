//! What the live view shows: steps by platform, cut to the height and width of the terminal.

use super::machines::{Running, platform_of};
use super::spans::Nanos;
use super::timeline::{Step, StepId, Timeline};
use crate::sizes::Size;

/// What a row is about, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Running,
    Done,
    Canceled,
    Failed,
    Warning,
    Heading,
    Output,
}

/// A row of the view, not yet cut to a width.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) text: String,
    /// Shown behind the text if there is room.
    pub(crate) status: String,
    /// At the right edge.
    pub(crate) timer: String,
    pub(crate) look: Look,
    /// The step that the row tells about.
    pub(crate) step: Option<StepId>,
}

impl Row {
    fn may_go(&self) -> bool {
        !matches!(self.look, Look::Running | Look::Heading | Look::Output)
    }

    /// The row as text of at most `width` characters, or nothing if there is no room for it.
    pub(crate) fn fit(&self, width: usize) -> Option<String> {
        if self.timer.is_empty() {
            return Some(self.text.chars().take(width).collect());
        }
        let mut left = width.checked_sub(self.timer.chars().count() + 2)?;
        let with_status = !self.status.is_empty() && left > 20;
        if with_status {
            left = left.saturating_sub(self.status.chars().count() + 1);
        }
        // Too narrow to tell anything.
        if left < 12 {
            return None;
        }
        let mut text: String = self.text.chars().take(left).collect();
        if with_status {
            text = format!("{text} {}", self.status);
        }
        let space = width.saturating_sub(self.timer.chars().count() + 1);
        Some(format!("{text:<space$} {}", self.timer))
    }
}

/// All rows: steps of no platform first, then each platform under its heading.
pub(crate) fn rows(timeline: &Timeline, now: Nanos, running: &dyn Fn(&str) -> Option<Running>) -> Vec<Row> {
    let mut shared = Vec::new();
    let mut platforms: Vec<(&str, Vec<StepId>)> = Vec::new();
    for &id in &timeline.begun {
        let step = &timeline.steps[id];
        match platform_of(&step.name) {
            None => step_rows(step, id, None, now, &mut shared),
            Some(platform) => match platforms.iter_mut().find(|(name, _)| *name == platform) {
                Some((_, steps)) => steps.push(id),
                None => platforms.push((platform, vec![id])),
            },
        }
    }
    for (platform, steps) in platforms {
        let how = running(platform).map(|how| format!(" ({})", how.word())).unwrap_or_default();
        shared.push(Row {
            text: format!(" {platform}{how}"),
            status: String::new(),
            timer: String::new(),
            look: Look::Heading,
            step: None,
        });
        for id in steps {
            step_rows(&timeline.steps[id], id, Some(platform), now, &mut shared);
        }
    }
    shared
}

fn step_rows(step: &Step, id: StepId, platform: Option<&str>, now: Nanos, rows: &mut Vec<Row>) {
    let timer = |seconds: f64| format!("{:.1}s", if seconds < 0.05 { 0.0 } else { seconds });
    let mut name = step.name.replace(['\t', '\n', '\r'], " ");
    if let Some(platform) = platform {
        // The heading says it already.
        name = name.replacen(&format!("[{platform} "), "[", 1).replacen(&format!("[{platform}] "), "", 1);
    }
    let over = step.spans.completed().is_some();
    let (prefix, look) = match step {
        step if step.canceled() => ("CANCELED ", Look::Canceled),
        step if step.failed() => ("ERROR ", Look::Failed),
        _ if !over => ("", Look::Running),
        step if step.cached => ("CACHED ", Look::Done),
        _ => ("", Look::Done),
    };
    rows.push(Row {
        text: format!(" => {prefix}{name}"),
        status: String::new(),
        timer: timer(step.spans.seconds(now)),
        look,
        step: Some(id),
    });
    for task in &step.tasks {
        let status = match (task.current, task.total) {
            (0, 0) => String::new(),
            (current, 0) => Size(current).to_string(),
            (current, total) => format!("{} / {}", Size(current), Size(total)),
        };
        rows.push(Row {
            text: format!(" => => {}", task.id),
            status,
            timer: timer((task.completed.unwrap_or(now) - task.started) as f64 / 1e9),
            look: if task.completed.is_some() || over { Look::Done } else { Look::Running },
            step: Some(id),
        });
    }
    for warning in &step.warnings {
        rows.push(Row {
            text: format!(" => => WARN: {warning}"),
            status: String::new(),
            timer: String::new(),
            look: Look::Warning,
            step: Some(id),
        });
    }
}

/// Cuts rows to `limit`: what is over goes first, the oldest before all; then headings that have
/// nothing below them; then what runs the longest.
pub(crate) fn crop(mut rows: Vec<Row>, limit: usize) -> Vec<Row> {
    let mut excess = rows.len().saturating_sub(limit);
    rows.retain(|row| {
        let goes = excess > 0 && row.may_go();
        excess -= usize::from(goes);
        !goes
    });
    if excess > 0 {
        let bare: Vec<bool> = (0..rows.len())
            .map(|at| {
                rows[at].look == Look::Heading
                    && rows.get(at + 1).is_none_or(|next| next.look == Look::Heading)
            })
            .collect();
        let mut bare = bare.into_iter();
        rows.retain(|_| {
            let goes = bare.next().unwrap_or(false) && excess > 0;
            excess -= usize::from(goes);
            !goes
        });
    }
    rows.split_off(excess)
}
