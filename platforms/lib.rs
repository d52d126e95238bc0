//! What is a platform: specifiers, normal form, matching order, matrices.
