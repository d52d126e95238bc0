//! Questions about a Dockerfile instead of a build of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crosskit_api::pb;
use crosskit_llb::json::{GoJson, Object, to_string_indented};

use crate::bridge::Bridge;
use crate::error::{DockerfileError, Lines, Result};
use crate::frontend::Frontend;
use crate::lint::{Linter, Warning};
use crate::plan::outline::{ArgInfo, Asked, Asks};
use crate::text::table::table;

/// The answer: metadata of a result without a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subrequest {
    /// `result.json`, `result.txt` and others.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

const VERSION: &str = "1.0.0";
const DESCRIBE: &str = "frontend.subrequests.describe";
const OUTLINE: &str = "frontend.outline";
const TARGETS: &str = "frontend.targets";
const LINT: &str = "frontend.lint";

/// The start of the error that says that a question is not known; clients look for it.
pub const UNSUPPORTED: &str = "unsupported request";

fn answer(json: String, text: String) -> Subrequest {
    let mut metadata = BTreeMap::new();
    for (key, value) in [("result.json", json), ("result.txt", text), ("version", VERSION.to_owned())] {
        metadata.insert(key.to_owned(), value.into_bytes());
    }
    Subrequest { metadata }
}

impl<B: Bridge + 'static> Frontend<B> {
    /// Answers the question of the request, if there is one.
    pub async fn subrequest(&self) -> Result<Option<Subrequest>> {
        let Some(request) = self.options.get("requestid") else {
            return Ok(None);
        };
        let answer = match request {
            DESCRIBE => Ok(describe()),
            OUTLINE => self.outline().await,
            TARGETS => self.targets(),
            LINT => self.lint().await,
            other => Err(DockerfileError::user(format!("{UNSUPPORTED} {other}"))),
        };
        answer.map(Some).map_err(|error| error.in_file(&self.source))
    }

    async fn asks(&self, linter: Linter, all: bool) -> Result<Asks> {
        let file = Arc::new(self.parse(&linter)?);
        let request = self.request(file, None, linter, all);
        Ok(self.convert(request, crate::plan::Plan::asks).await?.0)
    }

    async fn outline(&self) -> Result<Subrequest> {
        let linter = self.linter()?;
        let asks = self.asks(linter.clone(), false).await;
        self.report(&linter);
        let asks = asks?;
        let outline = Outline { asks, source: self.source.data.clone() };
        Ok(answer(to_string_indented(&outline), outline.text()))
    }

    fn targets(&self) -> Result<Subrequest> {
        let file = self.parse_stages(&Linter::silent())?;
        let last = file.stages.len().saturating_sub(1);
        let target = |(position, stage): (usize, crate::instruction::Stage)| Target {
            name: stage.name,
            default: position == last,
            doc: stage.doc,
            base: stage.base,
            platform: stage.platform,
            lines: stage.lines,
        };
        let targets: Vec<Target> = file.stages.into_iter().enumerate().map(target).collect();
        let rows = targets.iter().map(|target| {
            let name = match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            vec![name, target.doc.clone()]
        });
        let text = table(&["TARGET", "DESCRIPTION"], rows, 1);
        let list = Targets { targets, source: self.source.data.clone() };
        Ok(answer(to_string_indented(&list), text))
    }

    async fn lint(&self) -> Result<Subrequest> {
        let all = self.options.target.is_empty();
        let (linter, failed) = match self.linter() {
            Ok(linter) => (linter.clone(), self.asks(linter, all).await.err()),
            Err(error) => (Linter::silent(), Some(error)),
        };
        let info = pb::SourceInfo {
            filename: self.source.filename.clone(),
            data: self.source.data.clone(),
            definition: self.source.definition.clone(),
            language: self.source.language.clone(),
        };
        let results = LintResults { warnings: linter.take(), source: info, failed };
        let mut answer = answer(to_string_indented(&results), results.text());
        let status = if results.warnings.is_empty() && results.failed.is_none() { "0" } else { "1" };
        answer.metadata.insert("result.statuscode".to_owned(), status.as_bytes().to_vec());
        Ok(answer)
    }
}

/// Lines as the wire has them, in file 0.
fn location(lines: Lines) -> Option<pb::Location> {
    (lines.first > 0).then(|| pb::Location { source_index: 0, ranges: lines.to_ranges() })
}

struct Question {
    name: &'static str,
    description: &'static str,
    opts: &'static [(&'static str, &'static str)],
}

impl GoJson for Question {
    fn fields(&self, o: &mut Object<'_>) {
        o.string("name", self.name);
        o.string("version", VERSION);
        o.string("type", "rpc");
        o.string("description", self.description);
        let named = |(name, description): &(&'static str, &'static str)| Named { name, description };
        match (self.name, self.opts) {
            (DESCRIBE, _) => o.null("opts"),
            (_, opts) => o.objects_always("opts", &opts.iter().map(named).collect::<Vec<_>>()),
        }
        o.null("inputs");
        let files = ["result.json", "result.txt"].map(|name| Named { name, description: "" });
        o.objects_always("metadata", &files);
        o.null("refs");
    }
}

struct Named {
    name: &'static str,
    description: &'static str,
}

impl GoJson for Named {
    fn fields(&self, o: &mut Object<'_>) {
        o.string_always("name", self.name);
        o.string_always("description", self.description);
    }
}

/// The questions that there are.
fn describe() -> Subrequest {
    let all = [
        Question {
            name: OUTLINE,
            description: "List all parameters current build target supports",
            opts: &[("target", "Target build stage")],
        },
        Question { name: TARGETS, description: "List all targets current build supports", opts: &[] },
        Question { name: DESCRIBE, description: "List available subrequest types", opts: &[] },
    ];
    let rows = all.iter().map(|question| {
        let name = question.name.strip_prefix("frontend.").unwrap_or(question.name);
        vec![name.to_owned(), VERSION.to_owned(), question.description.to_owned()]
    });
    let text = table(&["NAME", "VERSION", "DESCRIPTION"], rows, 1);
    answer(crosskit_llb::json::list_indented(&all), text)
}

struct Outline {
    asks: Asks,
    source: Vec<u8>,
}

struct NamedArg<'a>(&'a str, &'a ArgInfo);
struct NamedAsk<'a>(&'a str, &'a Asked);

impl GoJson for NamedArg<'_> {
    fn fields(&self, o: &mut Object<'_>) {
        o.string_always("name", self.0);
        o.string("description", &self.1.doc);
        o.string("value", &self.1.value);
        o.object("location", location(self.1.lines).as_ref());
    }
}

impl GoJson for NamedAsk<'_> {
    fn fields(&self, o: &mut Object<'_>) {
        o.string_always("name", self.0);
        o.flag("required", self.1.required);
        o.object("location", location(self.1.lines).as_ref());
    }
}

impl GoJson for Outline {
    fn fields(&self, o: &mut Object<'_>) {
        let Asks { name, doc, args, secrets, ssh } = &self.asks;
        o.string("name", name);
        o.string("description", doc);
        o.objects("args", &args.iter().map(|(name, info)| NamedArg(name, info)).collect::<Vec<_>>());
        let asked = |(name, asked)| NamedAsk(name, asked);
        let list =
            |list| Vec::from_iter(<[(String, Asked)]>::iter(list).map(|(n, a)| asked((n.as_str(), a))));
        o.objects("secrets", &list(secrets));
        o.objects("ssh", &list(ssh));
        o.byte_strings("sources", std::slice::from_ref(&self.source));
    }
}

impl Outline {
    fn text(&self) -> String {
        let Asks { name, doc, args, secrets, ssh } = &self.asks;
        let mut out = String::new();
        if !name.is_empty() || !doc.is_empty() {
            let shown = if name.is_empty() { "(default)" } else { name };
            let doc = (!doc.is_empty()).then(|| vec!["DESCRIPTION:".to_owned(), doc.clone()]);
            out.push_str(&table(&["TARGET:", shown], doc, 1));
            out.push('\n');
        }
        if !args.is_empty() {
            let row =
                |(name, info): &(String, ArgInfo)| vec![name.clone(), info.value.clone(), info.doc.clone()];
            out.push_str(&table(&["BUILD ARG", "VALUE", "DESCRIPTION"], args.iter().map(row), 3));
            out.push('\n');
        }
        for (title, list) in [("SECRET", secrets), ("SSH", ssh)] {
            if !list.is_empty() {
                let row = |(name, asked): &(String, Asked)| {
                    vec![name.clone(), if asked.required { "true".to_owned() } else { String::new() }]
                };
                out.push_str(&table(&[title, "REQUIRED"], list.iter().map(row), 3));
                out.push('\n');
            }
        }
        out
    }
}

struct Target {
    name: String,
    default: bool,
    doc: String,
    base: String,
    platform: String,
    lines: Lines,
}

impl GoJson for Target {
    fn fields(&self, o: &mut Object<'_>) {
        o.string("name", &self.name);
        o.flag("default", self.default);
        o.string("description", &self.doc);
        o.string("base", &self.base);
        o.string("platform", &self.platform);
        o.object("location", location(self.lines).as_ref());
    }
}

struct Targets {
    targets: Vec<Target>,
    source: Vec<u8>,
}

impl GoJson for Targets {
    fn fields(&self, o: &mut Object<'_>) {
        match self.targets.as_slice() {
            [] => o.null("targets"),
            targets => o.objects_always("targets", targets),
        }
        o.byte_strings("sources", std::slice::from_ref(&self.source));
    }
}

struct LintResults {
    warnings: Vec<Warning>,
    source: pb::SourceInfo,
    failed: Option<DockerfileError>,
}

impl GoJson for Warning {
    fn fields(&self, o: &mut Object<'_>) {
        o.string_always("ruleName", self.rule.name);
        o.string("description", self.rule.description);
        o.string("url", self.rule.url);
        o.string("detail", &self.message);
        let location = pb::Location { source_index: 0, ranges: self.lines.to_ranges() };
        o.object("location", Some(&location));
    }
}

/// A failed build within the results.
struct Failed<'a>(&'a DockerfileError);

impl GoJson for Failed<'_> {
    fn fields(&self, o: &mut Object<'_>) {
        o.string_always("message", &self.0.to_string());
        let mut lines = self.0.locations.clone();
        lines.sort();
        let mut ranges: Vec<pb::Range> = Vec::new();
        for line in lines.into_iter().flat_map(Lines::to_ranges) {
            if ranges.last() != Some(&line) {
                ranges.push(line);
            }
        }
        o.object("location", Some(&pb::Location { source_index: 0, ranges }));
    }
}

impl GoJson for LintResults {
    fn fields(&self, o: &mut Object<'_>) {
        match self.warnings.as_slice() {
            [] => o.null("warnings"),
            warnings => o.objects("warnings", warnings),
        }
        o.objects("sources", std::slice::from_ref(&self.source));
        o.object("buildError", self.failed.as_ref().map(Failed).as_ref());
    }
}

impl LintResults {
    fn text(&self) -> String {
        let mut warnings: Vec<&Warning> = self.warnings.iter().collect();
        warnings.sort_by_key(|warning| warning.lines.first);
        let mut out = String::new();
        for warning in warnings {
            out.push_str(&format!("\nWARNING: {}", warning.rule.name));
            if !warning.rule.url.is_empty() {
                out.push_str(&format!(" - {}", warning.rule.url));
            }
            out.push_str(&format!("\n{}\n", warning.message));
            out.push_str(&crate::text::excerpt::excerpt(&self.source, warning.lines));
        }
        out
    }
}
