//! Where results go: image, archives, local, tar.
