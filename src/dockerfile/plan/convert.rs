//! The end of a plan: graph and image.

use std::collections::BTreeSet;
use std::sync::Arc;

use crosskit_llb::{Graph, LocalSource};

use crate::error::{DockerfileError, Result};
use crate::image::Image;
use crate::plan::Plan;
use crate::plan::supply::ContextSource;

/// One platform's result.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) graph: Graph,
    pub(crate) image: Image,
    pub(crate) base_image: Option<Arc<Image>>,
    pub(crate) epoch: Option<i64>,
    pub(crate) scan: ScanTargets,
    /// A step that could not be made.
    pub(crate) refused: Option<DockerfileError>,
}

/// What the stages want to have scanned besides the result.
#[derive(Debug, Default)]
pub(crate) struct ScanTargets {
    /// By name: `context`, and stages.
    pub(crate) extras: Vec<(String, Graph)>,
    pub(crate) ignore_cache: bool,
}

/// The paths that are read, relative and sorted; none when all of it is.
fn follow(paths: &BTreeSet<String>) -> Vec<String> {
    if paths.contains("/") {
        return Vec::new();
    }
    let mut all: Vec<String> = paths.iter().map(|path| crosskit_llb::paths::join(&[".", path])).collect();
    all.sort();
    all
}

impl Plan {
    /// Makes the graph. `context` is the main context, with what is ignored of it already left out.
    pub(crate) fn convert(&mut self, context: ContextSource) -> Result<Converted> {
        // Which entry of `locals` is the main context, whose paths are counted apart.
        let main_local = match &context {
            ContextSource::Local(..) => Some(self.locals.len()),
            _ => None,
        };
        self.context = self.add_context(context, 0);
        self.dispatch_stages()?;
        self.request.linter.check()?;
        let mut read = BTreeSet::new();
        for stage in &self.stages {
            read.extend(stage.context_paths.iter().cloned());
        }
        for (position, (output, local, used)) in std::mem::take(&mut self.locals).into_iter().enumerate() {
            let paths = if Some(position) == main_local { &read } else { &self.used_paths[used] };
            let follow_paths = follow(paths);
            if !follow_paths.is_empty() {
                self.builder.update_local(output, &LocalSource { follow_paths, ..local });
            }
        }
        let scan = self.scan_targets()?;
        let builder = std::mem::take(&mut self.builder);
        let graph = builder.into_graph(self.stages[self.target].fs.output)?;
        let image = self.result_image();
        let target = &self.stages[self.target];
        let (base_image, refused) = (target.base_image.clone(), self.refused.take());
        Ok(Converted { graph, image, base_image, epoch: self.epoch, scan, refused })
    }

    fn scan_targets(&self) -> Result<ScanTargets> {
        let target = &self.stages[self.target];
        let mut scan = ScanTargets { extras: Vec::new(), ignore_cache: target.ignore_cache };
        if target.scan_context {
            scan.extras.push(("context".to_owned(), self.builder.graph(self.context)?));
        }
        for position in self.reachable_order() {
            let stage = &self.stages[position];
            if position != self.target && stage.scan_stage {
                scan.extras.push((stage.shown.clone(), self.builder.graph(stage.fs.output)?));
                scan.ignore_cache |= stage.ignore_cache;
            }
        }
        Ok(scan)
    }

    fn result_image(&mut self) -> Image {
        let target = self.target;
        let mut image = Image::clone(&self.stages[target].image);
        image.config.labels.extend(self.request.options.labels.clone());
        let mut bases = vec![target];
        while let Some(base) = bases.last().and_then(|stage| self.stages[*stage].base) {
            bases.push(base);
        }
        for stage in bases.into_iter().rev() {
            image.history.extend(self.stages[stage].history.iter().cloned());
        }
        if !self.implicit_target {
            let wanted = &self.target_platform;
            let found = &mut image.platform;
            let same = wanted.os == found.os && wanted.architecture == found.architecture;
            found.os.clone_from(&wanted.os);
            found.architecture.clone_from(&wanted.architecture);
            if !wanted.variant.is_empty() || !same {
                found.variant.clone_from(&wanted.variant);
            }
            if !wanted.os_version.is_empty() || !same {
                found.os_version.clone_from(&wanted.os_version);
            }
            if !wanted.os_features.is_empty() {
                found.os_features.clone_from(&wanted.os_features);
            }
        }
        image.platform = image.platform.normalize();
        image
    }
}
