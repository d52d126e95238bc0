//! Whether a machine has what a builder needs, and what to do where it has not: `crosskit doctor`.
//!
//! What can be tried is tried: a container is run, an overlay mounted, a namespace made, a program of each architecture
//! executed. What is read from files is judged by functions that take their text.

mod files;
mod judged;
mod rootless;
mod tried;

#[cfg(test)]
mod doctor_tests;

use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// How it is about one need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is met.
    Ok,
    /// Builds work, but not all, or not as fast, or not for long.
    Warn,
    /// Builds do not work.
    Fail,
}

/// What was found out about one need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The need, in a word.
    pub check: &'static str,
    /// How it is about it.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; none where all is well.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Looks at this machine; `root` is where the daemon keeps its state. For somebody who is not root it looks at what a
/// daemon without root's rights needs. Runs for some 100 ms.
pub fn examine(root: &Path) -> Vec<Finding> {
    let mut all = vec![judged::kernel(&files::kernel_release())];
    if files::is_root() {
        all.push(judged::rights(&crosskit_exec::own_capabilities()));
        all.push(judged::cgroups(&files::text("/proc/self/mountinfo")));
        all.push(tried::namespaces());
        all.push(tried::runtime(root));
        all.push(tried::snapshots(root));
    } else {
        all.extend(rootless::examine(root));
    }
    all.extend(tried::platforms());
    all.push(judged::names(
        &files::text("/etc/resolv.conf"),
        &files::text("/run/systemd/resolve/resolv.conf"),
    ));
    all.push(match files::room(root) {
        Ok(room) => judged::disk(&room),
        Err(error) => Finding::fail("disk", error, "name another folder with --root"),
    });
    all.push(judged::clock(files::seconds_now(), files::clock_is_synchronized()));
    all.push(judged::descriptors(files::most_descriptors()));
    all.push(judged::programs(&files::missing(&["git", "ssh"])));
    all
}

const USAGE: &str = "\
Usage: crosskit doctor [--root FOLDER] [--format table|json]

Looks whether this machine has what a builder needs, and says what to do where it has not. Started by somebody who is
not root, it looks for what a daemon without root's rights needs.

  --root FOLDER   where the daemon keeps its state (default /var/lib/buildkit; without root's
                  rights ~/.local/share/buildkit)
  --format FORM   table or json (default table)

Exits with 1 if builds cannot work here, with 2 for wrong arguments.
";

/// Runs the program with these arguments, without its name. Returns the exit code: 1 if a need is not met, 2 for wrong
/// arguments.
pub fn run(args: &[String], stdout: &mut dyn Write, stderr: &mut dyn Write) -> u8 {
    let (mut root, mut json) = (files::usual_root(), false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, given) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let value = || given.or_else(|| args.next().cloned());
        let wrong = match (name, name.starts_with("--").then(value).flatten()) {
            ("-h" | "--help", _) => {
                let _ = write!(stdout, "{USAGE}");
                return 0;
            }
            ("--root", Some(folder)) => {
                root = folder.into();
                continue;
            }
            ("--root", None) => "--root wants a folder".to_owned(),
            ("--format", Some(form)) if form == "json" || form == "table" => {
                json = form == "json";
                continue;
            }
            ("--format", form) => format!("--format is table or json, not {:?}", form.unwrap_or_default()),
            _ => format!("unknown argument {arg:?}"),
        };
        let _ = write!(stderr, "error: {wrong}\n{USAGE}");
        return 2;
    }
    let all = examine(&root);
    let text = match json {
        true => serde_json::to_string_pretty(&all).unwrap_or_default() + "\n",
        false => table(&all),
    };
    let _ = write!(stdout, "{text}");
    u8::from(all.iter().any(|finding| finding.verdict == Verdict::Fail))
}

fn table(all: &[Finding]) -> String {
    let width = all.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { check, verdict, found, advice } in all {
        let mark = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        text.push_str(&format!("{mark}  {check:width$}  {found}\n"));
        if let Some(advice) = advice {
            text.push_str(&format!("      {:width$}  → {advice}\n", ""));
        }
    }
    text
}
