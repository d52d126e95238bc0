//! What is an image: descriptors, content, registries, layers, layouts, indexes.
