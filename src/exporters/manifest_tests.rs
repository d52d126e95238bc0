use super::*;

fn layer(n: u8, created: &str) -> Layer {
    Layer {
        desc: Descriptor::of(media_types::DOCKER_LAYER_GZIP, &[n]),
        diff_id: Digest::of([n]),
        description: format!("RUN step {n}"),
        created: Some(created.to_string()),
    }
}

fn line(by: &str, created: Option<&str>, empty: bool) -> History {
    History {
        created: created.map(str::to_string),
        created_by: by.to_string(),
        empty_layer: empty,
        ..History::default()
    }
}

#[test]
fn layers_without_a_line_get_one_and_lines_without_a_time_too() {
    let lines = completed_history(
        vec![
            line("base", Some("2020-01-01T00:00:00Z"), false),
            line("ENV a=b", None, true),
            line("RUN x", None, false),
        ],
        &[
            layer(1, "2020-01-01T00:00:00Z"),
            layer(2, "2026-01-02T00:00:00Z"),
            layer(3, "2026-01-03T00:00:00Z"),
        ],
    );
    let told: Vec<(&str, &str)> =
        lines.iter().map(|l| (l.created_by.as_str(), l.created.as_deref().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("base", "2020-01-01T00:00:00Z"),
            ("ENV a=b", "2026-01-02T00:00:00Z"),
            ("RUN x", "2026-01-02T00:00:00Z"),
            ("RUN step 3", "2026-01-03T00:00:00Z"),
        ]
    );
    assert_eq!(lines[3].comment, COMMENT);
}

#[test]
fn lines_of_layers_that_are_not_there_become_empty() {
    let lines = completed_history(
        vec![line("a", None, false), line("b", None, false)],
        &[layer(1, "2026-01-02T00:00:00Z")],
    );
    assert_eq!(lines.iter().map(|l| l.empty_layer).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn an_epoch_clamps_times_but_not_the_base_images() {
    let base = br#"{"history":[{"created":"2030-01-01T00:00:00Z","created_by":"base"}]}"#;
    let config = br#"{"os":"linux","architecture":"amd64","created":"2031-05-05T00:00:00Z","history":[
        {"created":"2030-01-01T00:00:00Z","created_by":"base"},{"created":"2031-01-01T00:00:00Z","created_by":"RUN"}],"x":[1, 2]}"#;
    let made = documents(
        Some(config),
        Some(base),
        vec![layer(1, "2030-01-01T00:00:00Z"), layer(2, "2031-01-01T00:00:00Z")],
        true,
        Some(0),
        BTreeMap::new(),
        None,
    )
    .unwrap();
    let expected = format!(
        concat!(
            r#"{{"architecture":"amd64","created":"1970-01-01T00:00:00Z","history":["#,
            r#"{{"created":"2030-01-01T00:00:00Z","created_by":"base"}},{{"created":"1970-01-01T00:00:00Z","created_by":"RUN"}}],"#,
            r#""os":"linux","rootfs":{{"type":"layers","diff_ids":["{}","{}"]}},"x":[1,2]}}"#
        ),
        Digest::of([1]),
        Digest::of([2])
    );
    assert_eq!(String::from_utf8(made.config).unwrap(), expected);
    assert_eq!(made.manifest_desc.media_type, media_types::OCI_MANIFEST);
    let manifest = crosskit_images::Manifest::parse(&made.manifest).unwrap();
    assert_eq!(manifest.layers[0].media_type, media_types::OCI_LAYER_GZIP);
}

#[test]
fn nothing_at_all_is_an_image_too() {
    let made = documents(None, None, Vec::new(), false, None, BTreeMap::new(), None).unwrap();
    let text = String::from_utf8(made.config).unwrap();
    assert!(text.contains(r#""rootfs":{"type":"layers","diff_ids":null}"#), "{text}");
    assert!(text.contains(r#""history":null"#) && text.contains(r#""created":null"#), "{text}");
    assert_eq!(made.manifest_desc.media_type, media_types::DOCKER_MANIFEST);
}

#[test]
fn configs_that_are_none_are_refused() {
    for (config, expected) in [
        ("null", "invalid null image config for export"),
        (r#"{"os":"linux"}"#, "invalid image config for export: missing architecture"),
        (r#"{"architecture":"amd64"}"#, "invalid image config for export: missing os"),
    ] {
        let error = documents(Some(config.as_bytes()), None, Vec::new(), true, None, BTreeMap::new(), None)
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
