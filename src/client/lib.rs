//! The person's side: connection, session server, build, progress.
