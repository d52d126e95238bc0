//! What the client lends the daemon: files, credentials, secrets, ssh, content, upload, export.
