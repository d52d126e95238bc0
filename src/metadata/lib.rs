//! What we remember between starts: one transactional database with group commit.
