//! Nothing is announced that no test uses: clients send an option as soon as its capability is.

use crate::frontend::{Frontend, conversation};
use crate::stage::Stage;
use crosskit_api::frontend::PingRequest;
use crosskit_multiarch::workspace;
use std::collections::BTreeMap;

const DEVICES: &str = "tests/multiarch/tests/llb/devices.rs";
const EXEC: &str = "tests/multiarch/tests/llb/exec.rs";
const FILES: &str = "tests/multiarch/tests/llb/files.rs";
const FRONTENDS: &str = "tests/multiarch/tests/llb/frontends.rs";
const MOUNTS: &str = "tests/multiarch/tests/llb/mounts.rs";
const PROGRESS: &str = "tests/multiarch/tests/llb/progress.rs";
const SHARING: &str = "tests/multiarch/tests/llb/sharing.rs";
const SOURCES: &str = "tests/multiarch/tests/llb/sources.rs";

const BUILDX: &str = "tests/multiarch/tests/buildx.rs";
const CACHES: &str = "tests/multiarch/tests/object_caches.rs";
const GATEWAY: &str = "tests/multiarch/tests/gateway.rs";
const MATRIX: &str = "tests/multiarch/tests/matrix.rs";
const OUTPUTS: &str = "tests/multiarch/tests/outputs.rs";
const POLICIES: &str = "tests/multiarch/tests/source_policies.rs";
const PROXY: &str = "tests/multiarch/tests/proxy_network.rs";
const SIGNATURES: &str = "tests/multiarch/tests/signatures.rs";

const GIT: &str = "src/sources/tests/git.rs";
const HTTP: &str = "src/sources/tests/http.rs";
const IMAGES: &str = "src/sources/tests/images.rs";
const PRUNE: &str = "src/snapshots/prune_tests.rs";

/// Each capability of graphs and clients' requests, and a test that needs it: its file and its name.
const GRAPH: &[(&str, &str, &str)] = &[
    ("cache.azblob", CACHES, "docker_buildx_gives_caches_away_and_uses_them"),
    ("cache.gha", CACHES, "docker_buildx_gives_caches_away_and_uses_them"),
    ("cache.s3", CACHES, "docker_buildx_gives_caches_away_and_uses_them"),
    ("constraints", PROGRESS, "a_filter_of_workers_is_no_hindrance"),
    ("diffop", FILES, "merges_and_differences_have_exactly_what_was_changed"),
    ("exec.cgroup", EXEC, "each_field_is_what_the_step_sees"),
    ("exec.meta.base", EXEC, "each_field_is_what_the_step_sees"),
    ("exec.meta.cdi", DEVICES, "a_step_has_the_devices_that_its_build_was_allowed"),
    ("exec.meta.cgroup.parent", EXEC, "each_field_is_what_the_step_sees"),
    ("exec.meta.linux.resources", EXEC, "the_looser_limit_of_two_builds_holds_for_their_step"),
    ("exec.meta.network", EXEC, "each_field_is_what_the_step_sees"),
    ("exec.meta.network.proxy", PROXY, "pages_come_through_the_proxy_and_provenance_tells_them"),
    ("exec.meta.proxyenv", EXEC, "each_field_is_what_the_step_sees"),
    ("exec.meta.removemountstubs.recursive", EXEC, "folders_of_mount_points_go_with_the_mounts_if_asked"),
    ("exec.meta.security", EXEC, "what_a_step_may_not_have_is_refused"),
    ("exec.meta.setsdefaultpath", EXEC, "each_field_is_what_the_step_sees"),
    ("exec.meta.ulimit", EXEC, "each_field_is_what_the_step_sees"),
    ("exec.mount.bind", MOUNTS, "what_is_written_to_a_mount_without_output_is_gone"),
    ("exec.mount.bind.readwrite-nooutput", MOUNTS, "what_is_written_to_a_mount_without_output_is_gone"),
    ("exec.mount.cache", MOUNTS, "caches_are_kept_and_shared_as_asked"),
    ("exec.mount.cache.content", MOUNTS, "content_counts_for_the_cache_as_the_mount_says"),
    ("exec.mount.cache.sharing", MOUNTS, "caches_are_kept_and_shared_as_asked"),
    ("exec.mount.secret", MOUNTS, "secrets_are_as_private_as_asked"),
    ("exec.mount.selector", MOUNTS, "what_is_written_to_a_mount_without_output_is_gone"),
    ("exec.mount.ssh", MOUNTS, "agents_are_reached_by_their_sockets"),
    ("exec.mount.tmpfs", MOUNTS, "a_tmpfs_is_as_large_as_asked_and_may_be_read_only"),
    ("exec.mount.tmpfs.size", MOUNTS, "a_tmpfs_is_as_large_as_asked_and_may_be_read_only"),
    ("exec.secretenv", MOUNTS, "secrets_are_as_private_as_asked"),
    ("exec.validexitcode", EXEC, "each_field_is_what_the_step_sees"),
    (
        "exporter.image.annotations",
        MATRIX,
        "eight_platforms_become_one_index_with_annotations_at_every_level",
    ),
    ("exporter.image.attestations", BUILDX, "it_pushes_provenance_and_what_a_scanner_finds"),
    ("exporter.multiple", OUTPUTS, "several_outputs_come_from_one_build"),
    ("exporter.session", FRONTENDS, "a_client_names_its_exporters_once_the_result_is_there"),
    ("exporter.sourcedateepoch", MATRIX, "two_clean_builds_with_an_epoch_have_one_digest"),
    ("file.base", FILES, "actions_do_to_files_what_they_say"),
    ("file.copy.alwaysreplaceexistingdestpaths", FILES, "copies_choose_their_files"),
    ("file.copy.includeexcludepatterns", FILES, "copies_choose_their_files"),
    ("file.copy.modestring", FILES, "copies_choose_their_files"),
    ("file.copy.requiredpaths", FILES, "copies_choose_their_files"),
    ("file.rm.nofollowsymlink", FILES, "actions_do_to_files_what_they_say"),
    ("file.rm.wildcard", FILES, "copies_choose_their_files"),
    ("file.symlink.create", FILES, "actions_do_to_files_what_they_say"),
    ("gc.freespacefilter", PRUNE, "limits_become_one_number"),
    ("history.filter", BUILDX, "it_filters_the_history"),
    ("mergeop", FILES, "merges_and_differences_have_exactly_what_was_changed"),
    ("meta.description", PROGRESS, "vertices_are_told_with_their_names_and_groups"),
    ("meta.exportcache", SHARING, "a_cache_elsewhere_has_what_may_be_given_away"),
    ("meta.ignorecache", SHARING, "a_vertex_that_ignores_the_cache_runs_anew_with_an_empty_cache_mount"),
    ("passthroughop", FILES, "what_is_passed_through_waits_for_the_rest"),
    ("platform", FRONTENDS, "sources_are_known_before_they_are_used"),
    ("soruce.http.uidgid", HTTP, "attributes_shape_the_file"),
    ("source.buildop.llbfilename", FILES, "a_graph_in_a_file_is_solved_under_the_same_rules"),
    ("source.git", SOURCES, "a_repository_lets_those_in_whose_secret_it_knows"),
    ("source.git.bundle", GIT, "a_checkout_travels_as_a_bundle"),
    ("source.git.checkoutbundle", GIT, "a_checkout_travels_as_a_bundle"),
    ("source.git.checksum", GIT, "options_change_the_checkout_and_its_key"),
    ("source.git.fetchbycommit", GIT, "options_change_the_checkout_and_its_key"),
    ("source.git.fullurl", SOURCES, "a_repository_is_reached_by_ssh_with_the_clients_agent"),
    ("source.git.httpauth", SOURCES, "a_repository_lets_those_in_whose_secret_it_knows"),
    ("source.git.keepgitdir", GIT, "options_change_the_checkout_and_its_key"),
    ("source.git.knownsshhosts", SOURCES, "a_repository_is_reached_by_ssh_with_the_clients_agent"),
    ("source.git.mountsshsock", SOURCES, "a_repository_is_reached_by_ssh_with_the_clients_agent"),
    ("source.git.mtime", GIT, "options_change_the_checkout_and_its_key"),
    ("source.git.signatureverify", SIGNATURES, "a_commit_has_to_be_signed"),
    ("source.git.skipsubmodules", GIT, "options_change_the_checkout_and_its_key"),
    ("source.git.subdir", GIT, "branches_tags_and_commits_are_checked_out"),
    ("source.http", HTTP, "attributes_shape_the_file"),
    ("source.http.auth", HTTP, "the_client_lends_secrets_and_uploads"),
    ("source.http.checksum", HTTP, "attributes_shape_the_file"),
    ("source.http.header", HTTP, "attributes_shape_the_file"),
    ("source.http.perm", HTTP, "attributes_shape_the_file"),
    ("source.http.signatureverify", SIGNATURES, "a_file_has_to_be_signed"),
    ("source.image", SOURCES, "an_image_is_taken_as_it_was_asked_for"),
    ("source.image.checksum", SOURCES, "an_image_is_taken_as_it_was_asked_for"),
    ("source.image.layerlimit", SOURCES, "an_image_is_taken_as_it_was_asked_for"),
    ("source.image.resolvemode", SOURCES, "an_image_is_taken_as_it_was_asked_for"),
    ("source.imageblob", IMAGES, "an_image_of_a_registry_is_fetched_when_needed"),
    ("source.local", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.local.differ", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.local.excludepatterns", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.local.followpaths", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.local.includepatterns", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.local.metadatatransfer", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.local.sessionid", SOURCES, "a_folder_may_be_that_of_another_session"),
    ("source.local.sharedkeyhint", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.local.unique", SOURCES, "of_a_folder_comes_what_was_asked_for"),
    ("source.ocilayout", FRONTENDS, "an_image_at_the_client_is_a_source_too"),
    ("source.policy", POLICIES, "an_image_is_denied_by_its_full_name"),
    ("source.policy.session", POLICIES, "a_client_decides_itself"),
];

/// The same for calls of frontends.
const FRONTEND: &[(&str, &str, &str)] = &[
    ("frontend.caps", FRONTENDS, "a_frontend_runs_things_when_it_says_so_and_gets_its_inputs"),
    ("frontend.inputs", FRONTENDS, "a_frontend_runs_things_when_it_says_so_and_gets_its_inputs"),
    ("gateway.evaluate", FRONTENDS, "a_frontend_runs_things_when_it_says_so_and_gets_its_inputs"),
    ("gateway.exec", GATEWAY, "processes_of_a_container_share_it_and_have_their_own_streams_and_ends"),
    ("gateway.exec.extrahosts", FRONTENDS, "a_container_has_hosts_and_its_processes_secrets"),
    ("gateway.exec.filesystem", FRONTENDS, "a_container_has_hosts_and_its_processes_secrets"),
    ("gateway.exec.secretenv", FRONTENDS, "a_container_has_hosts_and_its_processes_secrets"),
    ("gateway.exec.signals", GATEWAY, "terminals_change_their_size_and_signals_arrive"),
    ("gateway.solve.evaluate", FRONTENDS, "a_frontend_runs_things_when_it_says_so_and_gets_its_inputs"),
    ("gateway.solve.metadata", FRONTENDS, "a_frontend_runs_things_when_it_says_so_and_gets_its_inputs"),
    ("gateway.warnings", PROGRESS, "warnings_of_frontends_reach_clients_whole"),
    ("importcaches", SHARING, "a_cache_elsewhere_has_what_may_be_given_away"),
    ("proto.refarray", FRONTENDS, "what_a_frontend_returns_is_exported_with_what_it_says_of_it"),
    ("readdir", FRONTENDS, "files_of_results_are_read_listed_and_described"),
    ("readfile", FRONTENDS, "files_of_results_are_read_listed_and_described"),
    ("reference.attestations", FRONTENDS, "what_a_frontend_returns_is_exported_with_what_it_says_of_it"),
    ("reference.output", SHARING, "a_result_is_the_next_graphs_input"),
    ("resolveimage", FRONTENDS, "sources_are_known_before_they_are_used"),
    ("resolveimage.resolvemode", FRONTENDS, "sources_are_known_before_they_are_used"),
    ("return", FRONTENDS, "a_client_names_its_exporters_once_the_result_is_there"),
    ("returnmap", FRONTENDS, "what_a_frontend_returns_is_exported_with_what_it_says_of_it"),
    ("solve.base", FRONTENDS, "a_frontend_runs_things_when_it_says_so_and_gets_its_inputs"),
    ("solve.inlinereturn", FRONTENDS, "a_frontend_runs_things_when_it_says_so_and_gets_its_inputs"),
    ("source.metaresolver", FRONTENDS, "sources_are_known_before_they_are_used"),
    ("source.metaresolver.http.checksumrequest", FRONTENDS, "sources_are_known_before_they_are_used"),
    ("source.metaresolver.image.attestations", POLICIES, "a_client_decides_itself"),
    ("statfile", FRONTENDS, "files_of_results_are_read_listed_and_described"),
];

#[test]
fn nothing_is_announced_that_no_test_uses() {
    let stage = Stage::set();
    let pong = conversation(async {
        let mut frontend = Frontend::begin(&stage.daemon, &[]).await;
        let call = frontend.call(PingRequest {});
        let pong = frontend.bridge.ping(call).await.unwrap().into_inner();
        frontend.end().await;
        pong
    });
    stage.daemon.stop();
    for (announced, tested) in [(pong.llb_caps, GRAPH), (pong.frontend_api_caps, FRONTEND)] {
        let mut announced: Vec<String> = announced.into_iter().map(|cap| cap.id).collect();
        announced.sort();
        assert_eq!(announced, tested.iter().map(|(cap, ..)| *cap).collect::<Vec<_>>());
    }
    let mut sources: BTreeMap<&str, String> = BTreeMap::new();
    for (cap, file, test) in GRAPH.iter().chain(FRONTEND) {
        let source = sources.entry(file).or_insert_with(|| {
            let path = workspace().join(file);
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        assert!(source.contains(&format!("fn {test}(")), "{cap}: there is no {test} in {file}");
    }
}
