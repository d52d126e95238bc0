//! What can this kernel run: emulators and binfmt_misc.
