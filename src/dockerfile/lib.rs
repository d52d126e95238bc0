//! How a Dockerfile becomes LLB.
