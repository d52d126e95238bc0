//! Asking the client whether a source may be used.

use crate::{Session, SessionError};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::sourcepolicy::policysession::policy_verifier_client::PolicyVerifierClient;
use crosskit_api::sourcepolicy::policysession::{CheckPolicyRequest, CheckPolicyResponse};

impl Session {
    /// Asks the client about a source. The answer is a decision, or a question about the source
    /// that has to be answered in the next call.
    pub async fn check_policy(
        &self,
        request: CheckPolicyRequest,
    ) -> Result<CheckPolicyResponse, SessionError> {
        let mut client = PolicyVerifierClient::with_origin(self.channel(), self.origin())
            .max_decoding_message_size(MAX_MESSAGE);
        let answer = client.check_policy(request).await.map_err(SessionError::call("check policy"))?;
        Ok(answer.into_inner())
    }
}
