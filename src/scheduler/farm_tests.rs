use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crosskit_platforms::Platform;
use proptest::prelude::*;

use crate::{
    Ask, Assignment, BuildId, Choice, Entitlements, Farm, Health, Kind, Outcome, PlacementKey, Policy,
    Reason, SchedulerError, TicketId, Turn, WhenFull, WorkerState,
};

const START: Duration = Duration::ZERO;

fn after(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn platform(specifier: &str) -> Platform {
    Platform::parse(specifier).unwrap()
}

fn worker(name: &str, kind: Kind, platforms: &[&str], slots: usize) -> WorkerState {
    let platforms = platforms.iter().map(|it| platform(it)).collect();
    WorkerState { slots: Some(slots), ..WorkerState::idle(name, kind, platforms) }
}

fn remote(name: &str, slots: usize) -> WorkerState {
    worker(name, Kind::Remote, &["linux/arm64"], slots)
}

fn farm(policy: Policy, workers: impl IntoIterator<Item = WorkerState>) -> Farm {
    let mut farm = Farm::new(policy);
    workers.into_iter().for_each(|worker| farm.upsert(worker, START));
    farm
}

/// Workers of four places each.
fn four() -> Farm {
    farm(Policy::default(), ["a", "b", "c", "d"].map(|name| remote(name, 4)))
}

/// A step of a build's only group, for arm64.
fn ask(build: u64, key: u64) -> Ask {
    Ask {
        build: BuildId(build),
        group: 0,
        platform: platform("linux/arm64"),
        placement: PlacementKey(key),
        entitlements: Entitlements::NONE,
        excluded: Vec::new(),
    }
}

fn on(specifier: &str) -> Ask {
    Ask { platform: platform(specifier), ..ask(1, 1) }
}

/// Asks, and is answered at once.
fn place(farm: &mut Farm, ask: Ask, now: Duration) -> Assignment {
    let ticket = farm.ask(ask, now);
    let turn = farm.assign(now);
    turn.assigned.into_iter().find(|it| it.ticket == ticket).expect("a place")
}

fn refused(farm: &mut Farm, ask: Ask, now: Duration) -> SchedulerError {
    let ticket = farm.ask(ask, now);
    let turn = farm.assign(now);
    turn.refused.into_iter().find(|it| it.ticket == ticket).expect("a refusal").error
}

#[test]
fn each_platform_goes_where_it_runs_best() {
    let native = || worker("native", Kind::Native, &["linux/amd64/v3"], 2);
    let qemu = || worker("qemu", Kind::Emulated, &["linux/arm64", "linux/arm/v7", "linux/riscv64"], 2);
    for (specifier, alone, with_remote) in [
        ("linux/amd64", "native", "native"),
        ("linux/amd64/v2", "native", "native"),
        ("linux/arm64", "qemu", "farm"),
        ("linux/arm64/v8", "qemu", "farm"),
        ("linux/arm/v6", "qemu", "qemu"),
    ] {
        let mut farm = farm(Policy::default(), [native(), qemu()]);
        assert_eq!(place(&mut farm, on(specifier), START).decision.worker, alone, "{specifier}");
        farm.upsert(remote("farm", 2), START);
        let build = BuildId(2);
        let placed = place(&mut farm, Ask { build, ..on(specifier) }, START);
        assert_eq!(placed.decision.worker, with_remote, "{specifier}");
    }
}

#[test]
fn a_full_kind_is_waited_for_or_passed_over() {
    for (when_full, expected) in [(WhenFull::Wait, None), (WhenFull::Spill, Some("qemu"))] {
        let qemu = worker("qemu", Kind::Emulated, &["linux/arm64"], 2);
        let mut farm = farm(Policy { when_full, ..Policy::default() }, [remote("farm", 1), qemu]);
        let first = place(&mut farm, ask(1, 1), START);
        farm.ask(ask(2, 2), START);
        let turn = farm.assign(START);
        let second = turn.assigned.first().map(|it| it.decision.worker.as_str());
        assert_eq!(second, expected);
        farm.done(first.ticket, Outcome::Finished, after(1));
        assert_eq!(farm.assign(after(1)).assigned.len(), usize::from(expected.is_none()));
    }
}

#[test]
fn a_policy_may_forbid_a_kind() {
    let policy = Policy { prefer: vec![Kind::Native, Kind::Remote], ..Policy::default() };
    let qemu = worker("qemu", Kind::Emulated, &["linux/arm64"], 2);
    let mut farm = farm(policy, [qemu]);
    assert!(matches!(refused(&mut farm, ask(1, 1), START), SchedulerError::NothingRuns { .. }));
}

#[test]
fn a_decision_gives_a_reason_for_every_worker() {
    let mut workers = vec![
        worker("native", Kind::Native, &["linux/amd64"], 1),
        worker("qemu", Kind::Emulated, &["linux/arm64"], 1),
        WorkerState { busy: 4, ..remote("full", 4) },
        WorkerState { busy: 3, ..remote("busy", 4) },
        WorkerState { health: Health::Down, ..remote("silent", 4) },
        WorkerState { health: Health::Draining, ..remote("leaving", 4) },
        WorkerState { entitlements: Entitlements::DEVICES, ..remote("strict", 4) },
        remote("failed", 4),
        remote("one", 40),
        remote("other", 40),
    ];
    let entitlements = Entitlements::INSECURE;
    let asked = || Ask { entitlements, excluded: vec!["failed".to_owned()], ..ask(1, 1) };
    let decide = |workers: Vec<WorkerState>| {
        let decision = place(&mut farm(Policy::default(), workers), asked(), START).decision;
        let reasons: Vec<_> = decision.verdicts.iter().map(|it| it.reason).collect();
        (decision.worker.clone(), reasons)
    };
    let (chosen, reasons) = decide(workers.clone());
    assert_eq!(
        reasons[..8],
        [
            Reason::OtherPlatforms,
            Reason::KindLikedLess { than: Kind::Remote },
            Reason::Full,
            Reason::Busier,
            Reason::Down,
            Reason::Draining,
            Reason::NotEntitled { lacks: Entitlements::INSECURE },
            Reason::FailedBefore,
        ]
    );
    let (first, second) = if chosen == "one" { (8, 9) } else { (9, 8) };
    assert!(matches!(reasons[first], Reason::Chosen(Choice::First | Choice::Next)), "{reasons:?}");
    assert_eq!(reasons[second], Reason::LaterChoice);
    assert_eq!(reasons[6].to_string(), "does not allow security.insecure");
    // The order in which workers are known does not count.
    workers.reverse();
    assert_eq!(decide(workers).0, chosen);
}

#[test]
fn the_same_work_comes_back_to_the_same_worker() {
    let mut farm = four();
    let mut seen: HashMap<u64, String> = HashMap::new();
    let mut per_worker: BTreeMap<String, usize> = BTreeMap::new();
    for build in 0..4000 {
        let placed = place(&mut farm, ask(build, build % 400), after(build));
        farm.done(placed.ticket, Outcome::Finished, after(build));
        farm.end(BuildId(build));
        let worker = placed.decision.worker.clone();
        *per_worker.entry(worker.clone()).or_default() += 1;
        assert_eq!(*seen.entry(build % 400).or_insert_with(|| worker.clone()), worker);
    }
    assert!(per_worker.values().all(|count| (700..1300).contains(count)), "{per_worker:?}");
}

#[test]
fn the_more_places_the_more_work() {
    let mut farm = farm(Policy::default(), [remote("small", 2), remote("large", 6)]);
    let mut large = 0;
    for key in 0..2000 {
        let placed = place(&mut farm, ask(key, key.wrapping_mul(0x9e37_79b9_7f4a_7c15)), START);
        farm.done(placed.ticket, Outcome::Finished, START);
        large += u32::from(placed.decision.worker == "large");
    }
    assert!((1400..1600).contains(&large), "{large}");
}

/// Four workers three quarters full of builds that come again and again, that remember two in five of
/// these each: how many come to a worker that has them.
#[test]
fn repeats_on_a_steady_farm_find_what_they_had() {
    for seed in 1..=5 {
        let mut farm = four();
        let mut keys: HashMap<TicketId, u64> = HashMap::new();
        let mut running: Vec<TicketId> = Vec::new();
        let mut caches: HashMap<String, Vec<u64>> = HashMap::new();
        let (mut repeats, mut warm) = (0, 0);
        let mut random: u64 = seed;
        for build in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let now = after(build);
            if keys.len() == 12 {
                let ended = running.swap_remove((random >> 50) as usize % running.len());
                keys.remove(&ended);
                farm.done(ended, Outcome::Finished, now);
            }
            let key = (random >> 33) % 100;
            keys.insert(farm.ask(ask(build, key), now), key);
            for placed in farm.assign(now).assigned {
                farm.end(placed.build);
                running.push(placed.ticket);
                let (key, cache) = (keys[&placed.ticket], caches.entry(placed.decision.worker.clone()));
                let cache = cache.or_default();
                let before = cache.iter().position(|known| *known == key).map(|at| cache.remove(at));
                cache.push(key);
                cache.drain(..cache.len().saturating_sub(40));
                if build >= 1000 {
                    repeats += 1;
                    warm += u32::from(before.is_some());
                }
            }
        }
        eprintln!("{warm} of {repeats}");
        assert!(warm * 100 >= repeats * 95, "{warm} of {repeats}");
    }
}

#[test]
fn a_worker_that_leaves_takes_only_its_own_keys_with_it() {
    let mut farm = four();
    let homes = |farm: &mut Farm| -> Vec<String> {
        let home = |key| {
            let placed = place(farm, ask(key, key), START);
            farm.done(placed.ticket, Outcome::Finished, START);
            farm.end(BuildId(key));
            placed.decision.worker.clone()
        };
        (0..2000).map(home).collect()
    };
    let before = homes(&mut farm);
    farm.remove("b", START);
    let without = homes(&mut farm);
    let moved: Vec<_> = before.iter().zip(&without).filter(|(before, now)| before != now).collect();
    assert!(moved.iter().all(|(before, _)| *before == "b"));
    assert!(moved.len() * 100 <= before.len() * 35, "{}", moved.len());
    // When it comes back it knows nothing: it gets what nobody else has done meanwhile.
    farm.upsert(remote("b", 4), START);
    assert_eq!(homes(&mut farm), without);
    let new = |key| place(&mut farm, ask(key, key), START).decision.worker == "b";
    assert!((2000..2016).any(new));
}

#[test]
fn steps_of_a_group_stay_together() {
    let mut farm = four();
    let first = place(&mut farm, ask(1, 7), START);
    let home = first.decision.worker.clone();
    farm.done(first.ticket, Outcome::Finished, START);
    // Their worker has become the busiest of all, and another choice of the key.
    for build in 10..12 {
        farm.ask(ask(build, 7), START);
    }
    farm.assign(START);
    let second = place(&mut farm, ask(1, 7), START);
    assert_eq!((second.decision.worker.as_str(), second.decision.choice), (home.as_str(), Choice::Holds));
    // Another build decides for itself.
    assert_ne!(place(&mut farm, ask(2, 7), START).decision.choice, Choice::Holds);
}

#[test]
fn a_step_waits_for_the_worker_of_its_group_but_not_for_long() {
    let mut farm = farm(Policy::default(), [remote("a", 1), remote("b", 1)]);
    let first = place(&mut farm, ask(1, 1), START);
    let next = farm.ask(ask(1, 1), START);
    assert_eq!(farm.assign(START).assigned, []);
    let wake = farm.wake().unwrap();
    assert!(wake < farm.policy().patience);
    let turn = farm.assign(wake);
    assert_eq!((turn.assigned[0].ticket, turn.assigned[0].waited), (next, wake));
    assert_ne!(turn.assigned[0].decision.worker, first.decision.worker);
    assert_eq!(farm.wake(), None);
}

#[test]
fn a_step_waits_for_a_worker_that_is_warm_as_long_as_it_would_run_at_most() {
    for (takes, frees) in [(2, true), (2, false), (3600, true), (3600, false)] {
        let mut farm = farm(Policy::default(), [remote("a", 1), remote("b", 1)]);
        let first = place(&mut farm, ask(1, 1), START);
        let now = after(takes);
        farm.done(first.ticket, Outcome::Finished, now);
        let again = place(&mut farm, ask(2, 1), now);
        assert_eq!(again.decision.worker, first.decision.worker);
        // It is full, and the other is not.
        let waits = farm.ask(ask(3, 1), now);
        assert_eq!(farm.assign(now), Turn::default());
        let until = now + after(takes).min(farm.policy().patience);
        assert_eq!(farm.wake(), Some(until));
        let turn = if frees {
            farm.done(again.ticket, Outcome::Finished, now);
            farm.assign(now)
        } else {
            farm.assign(until)
        };
        assert_eq!(turn.assigned[0].ticket, waits);
        assert_eq!(turn.assigned[0].decision.worker == first.decision.worker, frees);
    }
}

#[test]
fn builds_take_turns() {
    let mut farm = farm(Policy::default(), [remote("a", 2)]);
    let tickets: Vec<_> = (0..6).map(|step| farm.ask(Ask { group: step, ..ask(1, 1) }, START)).collect();
    farm.assign(START);
    for build in 2..=3 {
        for step in 0..2 {
            farm.ask(Ask { group: step, ..ask(build, 1) }, after(1));
        }
    }
    assert_eq!(farm.assign(after(1)).assigned, []);
    let mut running: Vec<(TicketId, u64)> = tickets[..2].iter().map(|ticket| (*ticket, 1)).collect();
    let mut order = Vec::new();
    for second in 2..10 {
        farm.done(running.remove(0).0, Outcome::Finished, after(second));
        for placed in farm.assign(after(second)).assigned {
            order.push(placed.build.0);
            running.push((placed.ticket, placed.build.0));
        }
    }
    // The build that asked for six gets no more than the others while these wait.
    assert_eq!(order, [2, 1, 3, 2, 1, 3, 1, 1]);
}

#[test]
fn a_failed_worker_is_not_asked_again_for_the_same_step() {
    let qemu = worker("qemu", Kind::Emulated, &["linux/arm64"], 1);
    let mut farm = farm(Policy::default(), [remote("a", 1), remote("b", 1), qemu]);
    let mut excluded = Vec::new();
    let mut placed = Vec::new();
    for _ in 0..3 {
        let here = place(&mut farm, Ask { excluded: excluded.clone(), ..ask(1, 1) }, START);
        farm.done(here.ticket, Outcome::WorkerFailed, START);
        excluded.push(here.decision.worker.clone());
        placed.push(here.decision.worker.clone());
    }
    assert_eq!(placed[..2].iter().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(["a", "b"]));
    assert_eq!(placed[2], "qemu");
    let error = refused(&mut farm, Ask { excluded, ..ask(1, 1) }, START).to_string();
    assert!(error.starts_with("every worker that runs linux/arm64 has failed at this step: "), "{error}");
}

#[test]
fn a_worker_that_failed_rests_until_a_probe_has_passed_or_some_time() {
    let mut farm = farm(Policy::default(), [remote("a", 4)]);
    let fail = |farm: &mut Farm, now| {
        let placed = place(farm, ask(1, 1), now);
        farm.done(placed.ticket, Outcome::WorkerFailed, now);
    };
    fail(&mut farm, START);
    let waits = farm.ask(ask(2, 1), START);
    assert_eq!(farm.assign(START).assigned, []);
    assert!(farm.workers()[0].resting);
    let rest = farm.policy().rest;
    assert_eq!(farm.wake(), Some(rest));
    assert_eq!(farm.assign(rest).assigned[0].ticket, waits);
    farm.done(waits, Outcome::WorkerFailed, rest);
    // Twice as long, unless it is known to be well.
    assert_eq!(farm.wake(), Some(rest * 3));
    farm.set_health("a", Health::Down, rest);
    farm.set_health("a", Health::Up, rest);
    place(&mut farm, ask(3, 1), rest);
}

/// One that has failed again and again rests for longer than a step waits for one that is silent.
#[test]
fn a_step_waits_for_the_only_worker_until_it_has_rested() {
    // Whether its owner wakes in time or much too late.
    for late in [0, 60] {
        let mut farm = farm(Policy::default(), [remote("a", 1)]);
        let (rest, grace) = (farm.policy().rest, farm.policy().grace);
        let fail = |farm: &mut Farm, now| {
            let placed = place(farm, ask(1, 1), now);
            farm.done(placed.ticket, Outcome::WorkerFailed, now);
            farm.assign(now);
        };
        fail(&mut farm, START);
        fail(&mut farm, rest);
        fail(&mut farm, rest * 3);
        let (now, rested) = (rest * 3, rest * 7);
        assert!(rested > now + grace);
        let waits = farm.ask(ask(2, 1), now);
        assert_eq!(farm.assign(now), Turn::default());
        if late == 0 {
            assert_eq!(farm.assign(now + grace), Turn::default());
            assert_eq!(farm.wake(), Some(rested));
        }
        let turn = farm.assign(rested + after(late));
        assert_eq!((turn.assigned[0].ticket, turn.refused.len()), (waits, 0));
        assert_eq!(farm.wake(), None);
    }
}

#[test]
fn what_a_dead_worker_ran_is_said_and_goes_elsewhere() {
    let mut farm = farm(Policy::default(), [remote("a", 2), remote("b", 2)]);
    let first = place(&mut farm, ask(1, 1), START);
    let home = first.decision.worker.clone();
    assert_eq!(farm.set_health(&home, Health::Down, after(1)), [first.ticket]);
    farm.done(first.ticket, Outcome::WorkerFailed, after(1));
    let again = place(&mut farm, Ask { excluded: vec![home.clone()], ..ask(1, 1) }, after(1));
    assert_ne!(again.decision.worker, home);
    // Those that waited for it only do so no longer.
    let waits = farm.ask(ask(1, 1), after(1));
    farm.assign(after(1));
    let other = again.decision.worker.clone();
    farm.set_health(&home, Health::Up, after(2));
    farm.set_health(&other, Health::Down, after(2));
    let turn = farm.assign(after(2));
    assert!(turn.assigned.iter().all(|it| it.ticket != waits || it.decision.worker == home));
}

#[test]
fn a_step_that_nobody_answers_waits_for_a_while() {
    let mut farm = farm(Policy::default(), [WorkerState { health: Health::Down, ..remote("a", 2) }]);
    let grace = farm.policy().grace;
    farm.ask(ask(1, 1), START);
    let turn = farm.assign(START);
    assert_eq!((turn.assigned.len(), turn.refused.len()), (0, 0));
    farm.set_health("a", Health::Up, after(1));
    assert_eq!(farm.assign(after(1)).assigned.len(), 1);
    farm.set_health("a", Health::Down, after(1));
    let late = farm.ask(ask(2, 1), after(1));
    farm.assign(after(1));
    assert_eq!(farm.wake(), Some(after(1) + grace));
    let turn = farm.assign(after(1) + grace);
    assert_eq!(turn.refused[0].ticket, late);
    let text = "no worker that runs linux/arm64 can be reached: a";
    assert_eq!(turn.refused[0].error.to_string(), text);
}

#[test]
fn a_draining_worker_finishes_what_it_has() {
    let mut farm = farm(Policy::default(), [remote("a", 2), remote("b", 2)]);
    let first = place(&mut farm, ask(1, 1), START);
    let home = first.decision.worker.clone();
    farm.set_health(&home, Health::Draining, START);
    let second = place(&mut farm, ask(1, 1), START);
    assert_ne!(second.decision.worker, home);
    let view = farm.workers().into_iter().find(|it| it.state.name == home).unwrap();
    assert_eq!(view.running, 1);
    farm.done(first.ticket, Outcome::Finished, after(3));
    let record = farm.history().find(|record| record.ticket == first.ticket).unwrap();
    assert_eq!((record.ran, record.outcome), (Some(after(3)), Some(Outcome::Finished)));
}

#[test]
fn a_removed_worker_that_comes_back_has_its_places_once() {
    let mut farm = farm(Policy::default(), [remote("a", 1)]);
    let first = place(&mut farm, ask(1, 1), START);
    assert_eq!(farm.remove("a", START), [first.ticket]);
    assert_eq!(farm.workers().len(), 0);
    farm.upsert(remote("a", 1), START);
    farm.ask(ask(2, 1), START);
    assert_eq!(farm.assign(START).assigned, []);
    farm.done(first.ticket, Outcome::Finished, START);
    assert_eq!(farm.assign(START).assigned.len(), 1);
}

#[test]
fn history_is_bounded() {
    let mut farm = farm(Policy { history: 3, ..Policy::default() }, [remote("a", 1)]);
    for build in 0..10 {
        let placed = place(&mut farm, ask(build, 1), START);
        farm.done(placed.ticket, Outcome::Finished, after(build));
    }
    let builds: Vec<_> = farm.history().map(|record| (record.build.0, record.ran.is_some())).collect();
    assert_eq!(builds, [(7, true), (8, true), (9, true)]);
}

/// Something that happens to a farm.
#[derive(Debug, Clone)]
enum Event {
    Ask { build: u64, group: usize, key: u64, platform: usize, exclude: bool },
    Done { which: usize, outcome: usize },
    Cancel { which: usize },
    Health { worker: usize, health: usize },
    Remove { worker: usize },
    Come { worker: usize, slots: usize },
    Later { seconds: u64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..5u64, 0..3usize, 0..6u64, 0..2usize, any::<bool>())
            .prop_map(|(build, group, key, platform, exclude)| Event::Ask { build, group, key, platform, exclude }),
        4 => (0..64usize, 0..3usize).prop_map(|(which, outcome)| Event::Done { which, outcome }),
        1 => (0..64usize).prop_map(|which| Event::Cancel { which }),
        1 => (0..4usize, 0..3usize).prop_map(|(worker, health)| Event::Health { worker, health }),
        1 => (0..4usize).prop_map(|worker| Event::Remove { worker }),
        1 => (0..4usize, 1..4usize).prop_map(|(worker, slots)| Event::Come { worker, slots }),
        2 => (0..8u64).prop_map(|seconds| Event::Later { seconds }),
    ];
    proptest::collection::vec(event, 1..120)
}

fn member(number: usize, slots: usize) -> WorkerState {
    match number {
        0 => worker("w0", Kind::Emulated, &["linux/arm64", "linux/s390x"], slots),
        1 => worker("w1", Kind::Remote, &["linux/s390x"], slots),
        2 => worker("w2", Kind::Remote, &["linux/arm64"], slots),
        _ => worker("w3", Kind::Remote, &["linux/arm64"], slots),
    }
}

fn play(events: Vec<Event>, when_full: WhenFull) {
    let mut farm = Farm::new(Policy { when_full, ..Policy::default() });
    let mut slots: BTreeMap<String, usize> = BTreeMap::new();
    let mut up: BTreeMap<String, bool> = BTreeMap::new();
    let mut waiting: BTreeMap<TicketId, Ask> = BTreeMap::new();
    let mut running: BTreeMap<TicketId, String> = BTreeMap::new();
    let mut now = START;
    for event in events {
        match event {
            Event::Ask { build, group, key, platform: which, exclude } => {
                let platform = platform(["linux/arm64", "linux/s390x"][which]);
                let exclude = exclude && up.contains_key("w2");
                let excluded = if exclude { vec!["w2".to_owned()] } else { Vec::new() };
                let asked = Ask { group, platform, excluded, ..ask(build, key) };
                waiting.insert(farm.ask(asked.clone(), now), asked);
            }
            Event::Done { which, outcome } => {
                let Some(ticket) = running.keys().nth(which % running.len().max(1)).copied() else {
                    continue;
                };
                let outcomes = [Outcome::Finished, Outcome::StepFailed, Outcome::WorkerFailed];
                farm.done(ticket, outcomes[outcome], now);
                running.remove(&ticket);
            }
            Event::Cancel { which } => {
                let Some(ticket) = waiting.keys().nth(which % waiting.len().max(1)).copied() else {
                    continue;
                };
                farm.cancel(ticket, now);
                waiting.remove(&ticket);
            }
            Event::Health { worker, health } => {
                let name = format!("w{worker}");
                let health = [Health::Up, Health::Draining, Health::Down][health];
                farm.set_health(&name, health, now);
                up.entry(name).and_modify(|up| *up = health == Health::Up);
            }
            Event::Remove { worker } => {
                farm.remove(&format!("w{worker}"), now);
                up.remove(&format!("w{worker}"));
                // When it comes back it is another one.
                if worker == 2 {
                    waiting.values_mut().for_each(|ask| ask.excluded.clear());
                }
            }
            Event::Come { worker, slots: count } => {
                farm.upsert(member(worker, count), now);
                slots.insert(format!("w{worker}"), count);
                up.insert(format!("w{worker}"), true);
            }
            Event::Later { seconds } => now += after(seconds),
        }
        let before: BTreeMap<String, usize> = busy(&running);
        let turn = farm.assign(now);
        for refused in &turn.refused {
            assert!(waiting.remove(&refused.ticket).is_some());
        }
        for placed in turn.assigned {
            let asked = waiting.remove(&placed.ticket).expect("it waited");
            let worker = placed.decision.worker.clone();
            assert!(up[&worker], "{worker} takes nothing");
            assert!(!asked.excluded.contains(&worker));
            running.insert(placed.ticket, worker);
        }
        for (worker, count) in busy(&running) {
            // Only a worker whose places were taken away may have more than it has places.
            let had = before.get(&worker).copied().unwrap_or(0);
            assert!(count <= slots[&worker] || count <= had, "{worker}: {count} of {}", slots[&worker]);
        }
        assert_eq!(farm.waiting(), waiting.len());
    }
    // When all is well again, everybody gets a place in the end.
    for worker in 0..4 {
        farm.upsert(member(worker, 2), now);
        farm.set_health(&format!("w{worker}"), Health::Up, now);
    }
    for _ in 0..1000 {
        now += after(60);
        for ticket in std::mem::take(&mut running).into_keys() {
            farm.done(ticket, Outcome::Finished, now);
        }
        let turn = farm.assign(now);
        assert_eq!(turn.refused, [], "there is somebody for everybody");
        for placed in turn.assigned {
            assert!(waiting.remove(&placed.ticket).is_some());
            running.insert(placed.ticket, placed.decision.worker.clone());
        }
        if waiting.is_empty() && running.is_empty() {
            break;
        }
    }
    assert_eq!(waiting, BTreeMap::new(), "somebody waits for ever");
    assert!(farm.workers().iter().all(|it| it.running == 0 && it.waiting == 0));
    // Whoever rests has rested by then.
    assert_eq!(farm.assign(now + after(3600)), Turn::default());
    assert_eq!(farm.wake(), None);
}

fn busy(running: &BTreeMap<TicketId, String>) -> BTreeMap<String, usize> {
    let mut busy = BTreeMap::new();
    for worker in running.values() {
        *busy.entry(worker.clone()).or_default() += 1;
    }
    busy
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn places_are_never_given_twice_and_nobody_waits_for_ever(events in events(), spill in any::<bool>()) {
        play(events, if spill { WhenFull::Spill } else { WhenFull::Wait });
    }
}
