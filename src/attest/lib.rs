//! What we can prove: provenance, SBOM.
