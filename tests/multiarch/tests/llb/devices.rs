//! Devices by the Container Device Interface.

use crate::stage::{Stage, talk};
use crosskit_api::pb;
use crosskit_multiarch::DaemonOptions;

const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: acme.example/card
devices:
- name: zero
  annotations: {org.mobyproject.buildkit.device.class: fast}
  containerEdits:
    deviceNodes:
    - {path: /dev/card, hostPath: /dev/zero, permissions: rw}
- name: full
  containerEdits:
    deviceNodes:
    - {path: /dev/full-card, hostPath: /dev/full}
- name: free
  annotations: {org.mobyproject.buildkit.device.autoallow: true}
  containerEdits:
    deviceNodes:
    - {path: /dev/free, hostPath: /dev/null}
"#;

#[test]
fn a_step_has_the_devices_that_its_build_was_allowed() {
    let stage = Stage::with(|scene| {
        let specs = scene.context("cdi", &[("acme.yaml", SPEC)]);
        let config =
            format!("[cdi]\n  specDirs = [{specs:?}]\n  autoAllowed = [\"acme.example/card=full\"]\n");
        DaemonOptions { config, ..DaemonOptions::default() }
    });
    let (zero, full) = ("acme.example/card=zero", "acme.example/card=full");
    talk(async {
        let mut round = 0;
        let mut build = async |device: &str, optional: bool, granted: &[&str]| {
            round += 1;
            let script = format!(
                ": {round}; cd /dev; for d in *card* free; do test -e $d && stat -c %F:%n:%t:%T $d; done; \
                 test -e card && head -c 3 card | od -An -tx1; true"
            );
            let step = stage.step(&script, |exec, _| {
                exec.devices = vec![pb::CdiDevice { name: device.into(), optional }];
            });
            stage.ask(step).granted(granted).solve().await
        };
        let card = "character special file:card:1:5\n 00 00 00\n";
        for (device, granted) in [
            (zero, &["device"][..]),
            (zero, &["device=acme.example/card=zero"]),
            (zero, &["device=fast"]),
            ("fast", &["device=acme.example/card=zero"]),
            ("mine", &["device=acme.example/card=zero,alias=mine"]),
        ] {
            assert_eq!(build(device, false, granted).await.ok().said(), card, "{device} {granted:?}");
        }
        for granted in [&[][..], &["device=acme.example/card=full"]] {
            let refused = build(zero, false, granted).await;
            refused.refused("device acme.example/card=zero is requested by the build but not allowed");
        }
        // The file says that anybody may have it, or the daemon's config.
        let free = "character special file:free:1:3\n";
        assert_eq!(build("acme.example/card=free", false, &[]).await.ok().said(), free);
        let card = "character special file:full-card:1:7\n";
        assert_eq!(build(full, false, &[]).await.ok().said(), card);

        assert_eq!(build("acme.example/none=1", true, &["device"]).await.ok().said(), "");
        let refused = build("acme.example/none=1", false, &["device"]).await;
        refused.refused("required device \"acme.example/none=1\" is not registered");
    });
    stage.daemon.stop();
}
