//! Attestations on their way over the bridge: those that a frontend returns, and those that it is given of another one.

use crate::GatewayError;
use crate::result::{Attested, Handle};
use crosskit_api::frontend;
use crosskit_attest::{Content, Kind, Subject};

/// An attestation as a frontend returns it; `known` finds its results.
pub(crate) fn received(
    attestation: frontend::Attestation,
    known: impl Fn(&str) -> Result<Option<Handle>, GatewayError>,
) -> Result<Attested, GatewayError> {
    let kind = match frontend::AttestationKind::try_from(attestation.kind) {
        Ok(frontend::AttestationKind::InToto) => Kind::InToto,
        Ok(frontend::AttestationKind::Bundle) => Kind::Bundle,
        Err(_) => {
            return Err(GatewayError::invalid(format!("unknown attestation kind {}", attestation.kind)));
        }
    };
    let subject = |subject: frontend::InTotoSubject| match subject.kind() {
        frontend::InTotoSubjectKind::Self_ => Subject::Own { name: subject.name },
        frontend::InTotoSubjectKind::Raw => Subject::Raw { name: subject.name, digests: subject.digest },
    };
    Ok(Attested {
        kind,
        metadata: attestation.metadata,
        path: attestation.path,
        predicate_type: attestation.in_toto_predicate_type,
        subjects: attestation.in_toto_subjects.into_iter().map(subject).collect(),
        content: Content::Files(match &attestation.r#ref {
            None => None,
            Some(found) => known(&found.id)?,
        }),
    })
}

/// An attestation as a frontend gets it; `keep` gives its result an id. Clients read the id without looking whether
/// there is a result, so an empty one is told as well.
pub(crate) fn sent(
    attested: &Attested,
    keep: impl FnOnce(&Option<Handle>) -> frontend::Ref,
) -> Result<frontend::Attestation, GatewayError> {
    let Content::Files(files) = &attested.content else {
        return Err(GatewayError::plain(format!(
            "attestation {:?} cannot be sent through the gateway: it has no files yet",
            attested.predicate_type
        )));
    };
    let kind = match attested.kind {
        Kind::InToto => frontend::AttestationKind::InToto,
        Kind::Bundle => frontend::AttestationKind::Bundle,
    };
    let subject = |subject: &Subject| {
        let (kind, name, digest) = match subject {
            Subject::Own { name } => (frontend::InTotoSubjectKind::Self_, name, Vec::new()),
            Subject::Raw { name, digests } => (frontend::InTotoSubjectKind::Raw, name, digests.clone()),
        };
        frontend::InTotoSubject { kind: kind.into(), name: name.clone(), digest }
    };
    Ok(frontend::Attestation {
        kind: kind.into(),
        metadata: attested.metadata.clone(),
        path: attested.path.clone(),
        in_toto_predicate_type: attested.predicate_type.clone(),
        in_toto_subjects: attested.subjects.iter().map(subject).collect(),
        r#ref: Some(keep(files)),
    })
}
