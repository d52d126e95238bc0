use super::*;
use crosskit_platforms::Platform;

fn mount(input: i64, dest: &str, output: i64) -> pb::Mount {
    pb::Mount { input, dest: dest.into(), output, ..Default::default() }
}

fn exec(mounts: Vec<pb::Mount>) -> pb::ExecOp {
    let meta = pb::Meta { args: vec!["true".into()], cwd: "/".into(), ..Default::default() };
    pb::ExecOp { meta: Some(meta), mounts, ..Default::default() }
}

#[test]
fn a_plain_run_is_hashed_without_its_mount() {
    let amd64 = Platform::linux("amd64");
    let expected = r#"{"Type":"buildkit.exec.v0","Exec":{"meta":{"args":["true"],"cwd":"/"}},"OS":"linux","Arch":"amd64"}"#;
    assert_eq!(exec_digest(&exec(vec![mount(0, "/", 0)]), &amd64), KeyDigest::of(expected.as_bytes()));
}

#[test]
fn proxies_and_addresses_of_hosts_do_not_count() {
    let arm = Platform::new("linux", "arm", "v7");
    let mut other = exec(vec![mount(0, "/", 0)]);
    let plain = {
        let mut op = other.clone();
        op.meta.as_mut().unwrap().extra_hosts.push(pb::HostIp { host: "h".into(), ip: "1.1.1.1".into() });
        exec_digest(&op, &arm)
    };
    let meta = other.meta.as_mut().unwrap();
    meta.proxy_env = Some(pb::ProxyEnv { http_proxy: "p".into(), ..Default::default() });
    meta.extra_hosts.push(pb::HostIp { host: "h".into(), ip: "2.2.2.2".into() });
    assert_eq!(exec_digest(&other, &arm), plain);
    assert_ne!(exec_digest(&other, &Platform::linux("arm64")), plain);
}

#[test]
fn ids_of_cache_mounts_count_only_where_they_are_the_place() {
    let amd64 = Platform::linux("amd64");
    let with = |id: &str| {
        let mut cache = mount(-1, "/cache", -1);
        cache.mount_type = pb::MountType::Cache.into();
        cache.cache_opt = Some(pb::CacheOpt { id: id.into(), sharing: 0 });
        exec_digest(&exec(vec![mount(0, "/", 0), cache]), &amd64)
    };
    assert_eq!(with("a"), with("b"));
    assert_ne!(with("/cache"), with("a"));
    assert_ne!(with("ns//cache"), with("/cache"));
}

#[test]
fn content_of_mounts_counts_where_it_is_safe() {
    let mut selected = mount(1, "/m", -1);
    selected.selector = "sub/dir".into();
    let inputs = exec_inputs(&exec(vec![mount(0, "/", 0), selected.clone()]), 2).unwrap();
    assert_eq!(inputs[0], InputKey { selector: Some(KeyDigest::of(b"/")), content: None });
    assert_eq!(inputs[1].selector, Some(KeyDigest::of(b"/sub/dir")));
    let files = Selector { path: "/sub/dir".into(), follow_links: true, ..Default::default() };
    assert_eq!(inputs[1].content, Some(vec![files]));

    // Written to and handed on: other files of the input are in the result too.
    selected.output = 1;
    assert_eq!(exec_inputs(&exec(vec![selected.clone()]), 2).unwrap()[1].content, None);
    selected.content_cache = pb::MountContentCache::On.into();
    assert!(exec_inputs(&exec(vec![selected]), 2).is_err());
    assert!(exec_inputs(&exec(vec![mount(7, "/", 0)]), 2).is_err());
}

fn copy(src: &str) -> pb::FileActionCopy {
    pb::FileActionCopy { src: src.into(), dest: "/d".into(), mode: -1, timestamp: -1, ..Default::default() }
}

fn action(input: i64, secondary: i64, output: i64, action: file_action::Action) -> pb::FileAction {
    pb::FileAction { input, secondary_input: secondary, output, action: Some(action) }
}

use crosskit_api::pb::file_action::{self, Action};

#[test]
fn a_copy_is_known_by_content_not_by_place() {
    let one = pb::FileOp { actions: vec![action(0, 1, 0, Action::Copy(copy("/a/file")))] };
    let other = pb::FileOp { actions: vec![action(0, 1, 0, Action::Copy(copy("/b/file")))] };
    assert_eq!(file_digest(&one, 2), file_digest(&other, 2));
    let inner = r#"{"src":"file","dest":"/d","mode":-1,"timestamp":-1}"#;
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(inner);
    let expected = format!(r#"{{"Type":"buildkit.file.v0","Actions":["{encoded}"]}}"#);
    assert_eq!(file_digest(&one, 2), KeyDigest::of(expected.as_bytes()));

    let inputs = file_inputs(&one, 2).unwrap();
    assert_eq!(inputs[0], InputKey::default());
    assert_eq!(inputs[1].selector, Some(KeyDigest::of(b"/a/file")));
    assert_eq!(inputs[1].content.as_ref().unwrap()[0].path, "/a/file");
}

#[test]
fn unusual_chains_count_their_indexes() {
    let chain = pb::FileOp {
        actions: vec![
            action(0, 1, -1, Action::Copy(copy("/a"))),
            action(3, -1, 0, Action::Mkdir(pb::FileActionMkDir { path: "/x".into(), ..Default::default() })),
        ],
    };
    let mut odd = chain.clone();
    odd.actions[1].input = 0;
    assert_ne!(file_digest(&chain, 2), file_digest(&odd, 2));
}

#[test]
fn an_input_that_is_changed_is_not_known_by_content() {
    let op = pb::FileOp { actions: vec![action(0, 0, 0, Action::Copy(copy("/a")))] };
    assert_eq!(file_inputs(&op, 1).unwrap(), vec![InputKey::default()]);
}

#[test]
fn names_of_owners_select_the_files_they_are_looked_up_in() {
    let named = |name: &str, input| {
        Some(pb::UserOpt {
            user: Some(pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.into(), input })),
        })
    };
    let mut owned = copy("/a");
    owned.owner = Some(pb::ChownOpt { user: named("u", 1), group: named("g", 1) });
    let op = pb::FileOp { actions: vec![action(0, 1, 0, Action::Copy(owned.clone()))] };
    let key = &file_inputs(&op, 2).unwrap()[1];
    assert_eq!(key.selector, Some(KeyDigest::of(b"/etc/passwd\0/etc/group\0/a")));
    owned.owner = Some(pb::ChownOpt { user: named("u", 9), group: None });
    let op = pb::FileOp { actions: vec![action(0, 1, 0, Action::Copy(owned))] };
    assert_eq!(file_inputs(&op, 2).unwrap_err().to_string(), "invalid user index 9");
}

#[test]
fn nested_paths_say_nothing_new() {
    let paths = |list: &[&str]| without_nested(list.iter().map(|s| (*s).to_string()).collect());
    assert_eq!(paths(&["/foo/bar", "/foo", "/foobar", "/foo"]), ["/foo", "/foobar"]);
}

#[test]
fn local_sources_hold_for_one_session() {
    assert!(source_digest("session:context:sha256:00").is_random());
    assert!(!source_digest("sha256:00").is_random());
}
