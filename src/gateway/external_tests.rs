use super::*;

fn refused(label: &str, wanted: &str, digest: &str, inputs: bool) -> Option<String> {
    let config = serde_json::json!({ "config": { "Labels": { CAPS_LABEL: label } } });
    let config = ImageConfig::parse(config.to_string().as_bytes()).unwrap();
    let options = BTreeMap::from([("frontend.caps".to_string(), wanted.to_string())]);
    let refused = check_caps(&config, digest, &options, inputs).err()?;
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    refused.details().frontend_cap.clone()
}

#[test]
fn a_capability_is_what_stands_before_the_plus() {
    assert_eq!(refused("a,b+old", "b+forward,a", "", false), None);
    assert_eq!(refused("a,,", ",a+forward,", "", false), None);
    assert_eq!(refused("a", "a,c+forward", "", false).as_deref(), Some("c"));
    assert_eq!(refused("", "", "", true).as_deref(), Some(INPUTS_CAP));
    assert_eq!(refused(INPUTS_CAP, "", "", true), None);
    assert_eq!(refused("", "", UNLABELLED_WITH_INPUTS[2], true), None);
}
