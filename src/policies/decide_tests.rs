use super::*;
use crosskit_api::frontend::ResolveSourceImageResponse;
use crosskit_api::sourcepolicy::policysession::DenyMessage;
use crosskit_api::sourcepolicy::{Policy, Rule, Selector};
use std::sync::Mutex;

/// A client that says what it was made to say, and notes what it was asked.
struct Client {
    says: Mutex<Vec<Answer>>,
    asked: Mutex<Vec<String>>,
}

impl Outside for Client {
    type Error = &'static str;

    fn canonical(&self, source: &SourceOp) -> String {
        source.identifier.to_lowercase()
    }

    fn decides(&self) -> bool {
        true
    }

    async fn check(&self, request: CheckPolicyRequest) -> Result<CheckPolicyResponse, &'static str> {
        let known = request.source.unwrap();
        let digest = known.image.map(|image| image.digest).unwrap_or_default();
        let platform = request.platform.map(|platform| platform.architecture).unwrap_or_default();
        self.asked.lock().unwrap().push(format!("{}{digest} {platform}", known.source.unwrap().identifier));
        let mut says = self.says.lock().unwrap();
        match says.len() {
            0 => Err("the client has left"),
            1 => Ok(CheckPolicyResponse { result: Some(says[0].clone()) }),
            _ => Ok(CheckPolicyResponse { result: Some(says.remove(0)) }),
        }
    }

    async fn facts(
        &self,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, &'static str> {
        let image = ResolveSourceImageResponse { digest: "@sha256:aa".into(), ..Default::default() };
        Ok(ResolveSourceMetaResponse { source: request.source, image: Some(image), ..Default::default() })
    }
}

fn source(identifier: &str) -> SourceOp {
    SourceOp { identifier: identifier.into(), attrs: BTreeMap::from([("k".into(), "v".into())]) }
}

fn decision(action: PolicyAction, update: Option<&str>) -> Answer {
    let deny_messages = vec![DenyMessage { message: "take another".into() }];
    Answer::Decision(DecisionResponse { action: action.into(), deny_messages, update: update.map(source) })
}

fn question(source: SourceOp) -> Answer {
    Answer::Request(ResolveSourceMetaRequest { source: Some(source), ..Default::default() })
}

/// What comes of `A`, and what the client was asked.
async fn talk(policies: &Policies, says: Vec<Answer>) -> (Result<String, PolicyError>, Vec<String>) {
    let client = Client { says: Mutex::new(says), asked: Mutex::default() };
    let arm = Platform { architecture: "arm64".into(), ..Platform::default() };
    let decided = decide(policies, &client, source("A"), Some(&arm)).await;
    let decided = decided.map(|source| source.identifier).map_err(|failure| match failure {
        Failure::Policy(error) => error,
        Failure::Outside(error) => panic!("{error}"),
    });
    (decided, client.asked.into_inner().unwrap())
}

#[tokio::test]
async fn a_client_is_told_what_it_wants_to_know_and_decides() {
    let allow = || decision(PolicyAction::Allow, None);
    let none = Policies::default();
    assert_eq!(talk(&none, vec![allow()]).await, (Ok("a".into()), vec!["a arm64".into()]));
    let asked = vec!["a arm64".to_string(), "a@sha256:aa arm64".into()];
    assert_eq!(talk(&none, vec![question(source("a")), allow()]).await, (Ok("a".into()), asked));
    // What it converts to is seen in its one form, and nothing of the old one is known any more.
    let to_b = decision(PolicyAction::Convert, Some("B"));
    let asked = vec!["a arm64".to_string(), "a@sha256:aa arm64".into(), "b arm64".into()];
    assert_eq!(talk(&none, vec![question(source("a")), to_b, allow()]).await, (Ok("b".into()), asked));
}

#[tokio::test]
async fn what_a_client_denies_comes_with_its_words() {
    let (denied, _) = talk(&Policies::default(), vec![decision(PolicyAction::Deny, None)]).await;
    let error = denied.unwrap_err();
    assert_eq!(error.to_string(), "source \"a\" not allowed by policy: action DENY");
    let PolicyError::NotAllowed { messages, .. } = error else { panic!("{error:?}") };
    assert_eq!(messages[0].message, "take another");
}

#[tokio::test]
async fn rules_judge_what_a_client_converts_to() {
    let selector = Selector { identifier: "b".into(), ..Selector::default() };
    let rule = Rule { action: PolicyAction::Deny.into(), selector: Some(selector), updates: None };
    let rules = Policies::new(vec![Policy { version: 1, rules: vec![rule] }]).unwrap();
    let (denied, _) = talk(&rules, vec![decision(PolicyAction::Convert, Some("b"))]).await;
    assert_eq!(denied, Err(PolicyError::Denied("b".into())));
}

#[tokio::test]
async fn a_client_that_never_decides_is_given_up() {
    for endless in [question(source("a")), decision(PolicyAction::Convert, Some("a"))] {
        let (decided, asked) = talk(&Policies::default(), vec![endless]).await;
        assert_eq!((decided, asked.len()), (Err(PolicyError::TooManyQuestions), MAX_QUESTIONS));
    }
}

#[tokio::test]
async fn a_client_may_ask_about_nothing_else() {
    let mut attrs = source("a");
    attrs.attrs.insert("k".into(), "w".into());
    for (asked, text) in [
        (source("b"), "policy requested different source identifier: \"b\" != \"a\""),
        (attrs, "policy requested different source attrs: value mismatch for key k: v != w"),
    ] {
        let (decided, _) = talk(&Policies::default(), vec![question(asked)]).await;
        assert_eq!(decided.unwrap_err().to_string(), text);
    }
    let nothing = decision(PolicyAction::Convert, None);
    assert_eq!(talk(&Policies::default(), vec![nothing]).await.0, Err(PolicyError::NoUpdate));
}
