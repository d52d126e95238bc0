//! What people and programs see of streams of reports.

use super::*;
use crosskit_api::control::{Vertex, VertexLog, VertexStatus, VertexWarning};
use crosskit_api::pb;
use prost_types::Timestamp;

/// Milliseconds after the build began.
fn at(ms: i64) -> Option<Timestamp> {
    let all = 1_700_000_000_000 + ms;
    Some(Timestamp { seconds: all / 1000, nanos: i32::try_from(all % 1000).unwrap() * 1_000_000 })
}

fn begun(digest: &str, name: &str, from: i64) -> Vertex {
    Vertex { digest: digest.into(), name: name.into(), started: at(from), ..Default::default() }
}

fn done(digest: &str, name: &str, from: i64, to: i64) -> Vertex {
    Vertex { completed: at(to), ..begun(digest, name, from) }
}

fn vertexes(vertexes: Vec<Vertex>) -> StatusResponse {
    StatusResponse { vertexes, ..Default::default() }
}

fn task(vertex: &str, id: &str, current: i64, total: i64, ms: i64, completed: bool) -> StatusResponse {
    let status = VertexStatus {
        id: id.into(),
        vertex: vertex.into(),
        current,
        total,
        timestamp: at(ms),
        started: at(0),
        completed: completed.then(|| at(ms)).flatten(),
        ..Default::default()
    };
    StatusResponse { statuses: vec![status], ..Default::default() }
}

fn log(vertex: &str, text: &str, ms: i64) -> StatusResponse {
    let log = VertexLog { vertex: vertex.into(), msg: text.into(), timestamp: at(ms), stream: 1 };
    StatusResponse { logs: vec![log], ..Default::default() }
}

/// The text after each report has been shown at once.
fn plain(reports: &[StatusResponse]) -> String {
    plain_paced(reports, |_| 0)
}

/// The same with the local clock, in milliseconds, before each report.
fn plain_paced(reports: &[StatusResponse], clock: impl Fn(usize) -> u64) -> String {
    let (mut timeline, mut plain, mut out) = (Timeline::default(), Plain::new(false), Vec::new());
    let start = Instant::now();
    let now = |n| start + Duration::from_millis(clock(n));
    for (n, report) in reports.iter().enumerate() {
        timeline.update(report, now(n), 0);
        plain.print(&mut timeline, now(n), &mut out);
    }
    plain.finish(&mut timeline, now(reports.len()), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_build_in_lines() {
    let cached = Vertex { cached: true, ..done("c", "[2/3] RUN x", 20, 20) };
    let warning = VertexWarning { vertex: "a".into(), short: b"Case: mixed".to_vec(), ..Default::default() };
    let text = plain(&[
        vertexes(vec![Vertex { started: None, ..begun("a", "[internal] load", 0) }]),
        vertexes(vec![begun("a", "[internal] load", 0)]),
        task("a", "transferring dockerfile:", 0, 0, 1, false),
        StatusResponse { warnings: vec![warning], ..Default::default() },
        task("a", "transferring dockerfile:", 220, 0, 5, true),
        vertexes(vec![done("a", "[internal] load", 0, 80)]),
        vertexes(vec![begun("b", "[1/3] FROM x", 10)]),
        task("b", "sha256:1", 1000, 991_680, 1000, false),
        task("b", "sha256:1", 991_680, 991_680, 1500, true),
        vertexes(vec![done("b", "[1/3] FROM x", 10, 1510)]),
        vertexes(vec![cached]),
        vertexes(vec![begun("d", "[3/3] RUN y", 2000)]),
        log("d", "one\ntw", 2123),
        log("d", "o\n", 14_500),
        vertexes(vec![done("d", "[3/3] RUN y", 2000, 14_600)]),
    ]);
    assert_eq!(
        text,
        "#1 [internal] load
#1 transferring dockerfile:
#1 WARN: Case: mixed
#1 transferring dockerfile: 220B done
#1 DONE 0.1s

#2 [1/3] FROM x
#2 sha256:1 1.00kB / 991.68kB 1.0s
#2 sha256:1 991.68kB / 991.68kB 1.5s done
#2 DONE 1.5s

#3 [2/3] RUN x
#3 CACHED

#4 [3/3] RUN y
#4 0.123 one
#4 0.123 two
#4 DONE 12.6s
"
    );
}

#[test]
fn nothing_is_shown_in_the_middle_of_a_line() {
    let text = plain(&[
        vertexes(vec![begun("a", "[1/1] RUN x", 0)]),
        log("a", "Password: ", 100),
        task("a", "linux/arm64 here", 0, 0, 1200, true),
        log("a", "right\n", 1200),
        vertexes(vec![done("a", "[1/1] RUN x", 0, 1200)]),
    ]);
    assert_eq!(
        text,
        "#1 [1/1] RUN x
#1 0.100 Password: 
#1 linux/arm64 here 1.2s done
#1 0.100 Password: right
#1 DONE 1.2s
"
    );
}

#[test]
fn failures_are_repeated_at_the_end() {
    let failed =
        |digest: &str, name: &str, error: &str| Vertex { error: error.into(), ..done(digest, name, 0, 50) };
    let text = plain(&[
        vertexes(vec![begun("a", "[linux/amd64 2/2] RUN a", 0)]),
        vertexes(vec![begun("b", "[linux/arm64 2/2] RUN a", 0)]),
        log("a", "before\noops\n", 10),
        vertexes(vec![failed("a", "[linux/amd64 2/2] RUN a", "exit code: 7")]),
        vertexes(vec![failed("b", "[linux/arm64 2/2] RUN a", "killed: context canceled")]),
    ]);
    assert_eq!(
        text,
        "#1 [linux/amd64 2/2] RUN a
#1 0.010 before
#1 0.010 oops
#1 ERROR: exit code: 7

#2 [linux/arm64 2/2] RUN a
#2 CANCELED
------
 > [linux/amd64 2/2] RUN a:
0.010 before
0.010 oops
------
"
    );
}

#[test]
fn ten_lines_of_a_failed_step_are_repeated() {
    let lines: String = (0..25).map(|n| format!("line {n}\n")).collect();
    let text = plain(&[
        vertexes(vec![begun("a", "RUN a", 0)]),
        log("a", &lines, 1),
        vertexes(vec![Vertex { error: "x".into(), ..done("a", "RUN a", 0, 5) }]),
    ]);
    let (_, tail) = text.split_once("------\n").unwrap();
    assert_eq!(tail.lines().count(), 12);
    assert!(tail.starts_with(" > RUN a:\n0.001 line 15\n"));
}

#[test]
fn steps_side_by_side_are_printed_in_blocks() {
    let reports = [
        vertexes(vec![begun("a", "RUN a", 0)]),
        log("a", "a1\na-open", 10),
        vertexes(vec![begun("b", "RUN b", 0)]),
        log("b", "b1\n", 20),
        log("a", "-closed\n", 30),
        vertexes(vec![done("b", "RUN b", 0, 40)]),
        vertexes(vec![done("a", "RUN a", 0, 50)]),
    ];
    assert_eq!(
        plain(&reports),
        "#1 RUN a
#1 0.010 a1
#1 0.010 a-open-closed
#1 ...

#2 RUN b
#2 0.020 b1
#2 DONE 0.0s

#1 RUN a
#1 DONE 0.1s
"
    );
    // After ten seconds without a turn the other step comes forward.
    let text = plain_paced(&reports[..4], |n| if n < 3 { 0 } else { 11_000 });
    assert_eq!(text, "#1 RUN a\n#1 0.010 a1\n#1 0.010 a-open\n#1 ...\n\n#2 RUN b\n#2 0.020 b1\n");
}

#[test]
fn tasks_are_not_printed_too_often() {
    let mut reports = vec![vertexes(vec![begun("a", "pull", 0)])];
    reports.extend((0..100).map(|n| task("a", "layer", n, 100, n, false)));
    let text = plain(&reports);
    assert_eq!(text.matches("layer").count(), 20);
    let steady: Vec<StatusResponse> = (0..60).map(|s| task("a", "slow", s, 0, s * 1000, false)).collect();
    let text = plain(&[&reports[..1], &steady].concat());
    assert_eq!(text.matches("slow").count(), 12);
}

#[test]
fn a_group_is_one_step() {
    let member = |digest: &str, weak, vertex: Vertex| Vertex {
        digest: digest.into(),
        progress_group: Some(pb::ProgressGroup { id: "g".into(), name: "all of it".into(), weak }),
        ..vertex
    };
    let text = plain(&[
        vertexes(vec![member("a", true, begun("", "hidden", 0))]),
        vertexes(vec![
            member("a", true, done("", "hidden", 0, 100)),
            member("b", false, begun("", "b", 100)),
        ]),
        log("b", "from b\n", 110),
        vertexes(vec![member("b", false, done("", "b", 100, 300))]),
    ]);
    assert_eq!(text, "#1 all of it\n#1 0.110 from b\n#1 DONE 0.3s\n");
    assert_eq!(plain(&[vertexes(vec![member("a", true, done("", "hidden", 0, 1))])]), "");
}

#[test]
fn reports_as_json() {
    let mut out = Vec::new();
    let mut report = vertexes(vec![Vertex {
        inputs: vec!["sha256:0".into()],
        cached: true,
        ..done("sha256:1", "RUN <a>", 0, 1500)
    }]);
    rawjson::print(&report, &mut out);
    report = task("sha256:1", "layer", 0, 0, 5, false);
    report.logs = log("sha256:1", "hi\n", 7).logs;
    report.warnings.push(VertexWarning {
        vertex: "sha256:1".into(),
        level: 1,
        short: b"s".to_vec(),
        detail: vec![b"d".to_vec()],
        url: "u".into(),
        info: Some(pb::SourceInfo { filename: "f".into(), ..Default::default() }),
        ranges: vec![pb::Range { start: Some(pb::Position { line: 2, character: 0 }), end: None }],
    });
    rawjson::print(&report, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"vertexes":[{"digest":"sha256:1","inputs":["sha256:0"],"name":"RUN \u003ca\u003e","started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:21.5Z","cached":true}]}
{"statuses":[{"id":"layer","vertex":"sha256:1","current":0,"timestamp":"2023-11-14T22:13:20.005Z","started":"2023-11-14T22:13:20Z"}],"logs":[{"vertex":"sha256:1","stream":1,"data":"aGkK","timestamp":"2023-11-14T22:13:20.007Z"}],"warnings":[{"vertex":"sha256:1","level":1,"short":"cw==","detail":["ZA=="],"url":"u","sourceInfo":{"filename":"f"},"range":[{"start":{"line":2}}]}]}
"#
    );
}

/// What a terminal of that size shows after each of these drawings.
fn screens(reports: &[StatusResponse], size: Dimensions) -> Vec<String> {
    let palette = Palette::read(None, None, &mut |_| ());
    let (mut timeline, mut tty) = (Timeline::default(), Tty::new("Building", palette, OUTPUT_LINES));
    let local = crosskit_platforms::Platform::linux("amd64");
    let platform =
        |arch: &str| pb::Platform { os: local.os.clone(), architecture: arch.into(), ..Default::default() };
    tty.set_workers(vec![WorkerRecord {
        platforms: vec![platform("amd64"), platform("arm64")],
        ..Default::default()
    }]);
    let mut screen = vt100::Parser::new(size.height, size.width, 0);
    let mut shown = Vec::new();
    let wall = 1_700_000_002_000_000_000;
    let mut draw = |tty: &mut Tty, timeline: &Timeline, last: bool| {
        let mut out = Vec::new();
        if last {
            tty.finish(timeline, size, wall, &mut out)
        } else {
            tty.draw(timeline, size, wall, false, &mut out)
        }
        // As the terminal driver does it.
        screen
            .process(String::from_utf8(out).unwrap().replace("\r\n", "\n").replace('\n', "\r\n").as_bytes());
        let rows: Vec<String> =
            screen.screen().rows(0, size.width).map(|r| r.trim_end().to_owned()).collect();
        shown.push(rows.join("\n").trim_end().to_owned());
    };
    for report in reports {
        timeline.update(report, Instant::now(), 1_700_000_000_000_000_000);
        tty.update(report, &mut timeline, size);
        draw(&mut tty, &timeline, false);
    }
    draw(&mut tty, &timeline, true);
    shown
}

#[test]
fn the_live_view_groups_steps_by_platform() {
    let reports = [
        vertexes(vec![
            done("a", "[internal] load", 0, 100),
            begun("b", "[linux/amd64 2/2] RUN make", 0),
            begun("c", "[linux/arm64 2/2] RUN make", 500),
        ]),
        log("c", "compiling\nlinking", 600),
        vertexes(vec![
            done("b", "[linux/amd64 2/2] RUN make", 0, 1000),
            Vertex { error: "exit code: 1".into(), ..done("c", "[linux/arm64 2/2] RUN make", 500, 1500) },
        ]),
    ];
    let screens = screens(&reports, Dimensions { width: 50, height: 24 });
    assert_eq!(
        screens[0],
        "[+] Building 2.0s (1/3)
 => [internal] load                           0.1s
 linux/amd64 (native)
 => [2/2] RUN make                            2.0s
 linux/arm64 (emulated)
 => [2/2] RUN make                            1.5s"
    );
    assert_eq!(screens[1], format!("{}\n => => # compiling\n => => # linking", screens[0]));
    assert_eq!(
        screens[3],
        "[+] Building 2.0s (3/3) FINISHED
 => [internal] load                           0.1s
 linux/amd64 (native)
 => [2/2] RUN make                            1.0s
 linux/arm64 (emulated)
 => ERROR [2/2] RUN make                      1.0s
------
 > [linux/arm64 2/2] RUN make:
0.100 compiling
0.100 linking
------"
    );
}

#[test]
fn a_small_terminal_shows_what_runs() {
    let steps: Vec<Vertex> = (0..20)
        .map(|n| done(&n.to_string(), &format!("[{n}/20] RUN true"), 0, 100))
        .chain([begun("x", "[linux/arm64 1/1] RUN sleep with a very long name indeed", 0)])
        .collect();
    let screens = screens(&[vertexes(steps)], Dimensions { width: 40, height: 8 });
    let lines: Vec<&str> = screens[0].lines().collect();
    assert_eq!(lines[0], "[+] Building 2.0s (20/21)");
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[4], " => [19/20] RUN true                0.1s");
    assert_eq!(lines[6], " => [1/1] RUN sleep with a very lo  2.0s");
    assert!(lines.iter().all(|l| l.chars().count() <= 40));
}
