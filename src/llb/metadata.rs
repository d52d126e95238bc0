use crosskit_api::pb;

/// Adds what `more` says about a vertex to `base`: flags and capabilities accumulate, single
/// values of `more` win.
pub fn merge_metadata(base: &mut pb::OpMetadata, more: pb::OpMetadata) {
    base.ignore_cache |= more.ignore_cache;
    base.description.extend(more.description);
    base.caps.extend(more.caps);
    if more.export_cache.is_some() {
        base.export_cache = more.export_cache;
    }
    if more.progress_group.is_some() {
        base.progress_group = more.progress_group;
    }
    if more.linux_resources.is_some() {
        base.linux_resources = more.linux_resources;
    }
}
