//! The documentation agrees with itself and with the repository: its links, its page lengths, and the files, names in the code, recipes,
//! packages, commands and flags that it mentions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::harness::CARTWHEEL;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

const README_LINES_MAX: usize = 150;
const ARCHITECTURE_LINES_MAX: usize = 120;
const CHAPTER_LINES_MAX: usize = 250;
/// Headers of one word, which are not types.
const HEADERS: [&str; 5] = ["Accept", "Allow", "ETag", "Host", "Origin"];

/// The parts of one Markdown file that can be checked.
struct Page {
    /// Relative to the repository's root.
    path: PathBuf,
    lines: usize,
    links: Vec<String>,
    /// The anchors of its headings.
    anchors: BTreeSet<String>,
    /// Inline code, and the lines of shell blocks.
    code: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files of the repository whose name has this ending, relative to its root.
fn files_ending(suffix: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name == "target" || name == "node_modules" || name.starts_with('.') || path.is_symlink() {
                continue;
            }
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    for top in ["crates", "docs", "examples", "packaging"] {
        walk(&root.join(top), &mut found);
    }
    found.extend(fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    found.retain(|path| path.to_string_lossy().ends_with(suffix));
    let mut found: Vec<PathBuf> = found.iter().map(|path| path.strip_prefix(&root).unwrap().to_path_buf()).collect();
    found.sort();
    found
}

/// The anchor that GitHub and mdBook generate for a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.trim().replace(' ', "-")
}

fn parse(path: &Path) -> Page {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let mut page = Page {
        path: path.to_path_buf(),
        lines: text.lines().count(),
        links: Vec::new(),
        anchors: BTreeSet::new(),
        code: Vec::new(),
    };
    let (mut heading, mut shell) = (None::<String>, None::<String>);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string())
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                page.anchors.insert(anchor(&heading.take().unwrap_or_default()));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(name))) if &*name == "sh" => shell = Some(String::new()),
            Event::End(TagEnd::CodeBlock) => {
                let commands = shell.take().unwrap_or_default().replace("\\\n", " ");
                page.code.extend(commands.lines().map(|line| line.trim().to_owned()));
            }
            Event::Code(code) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&code);
                }
                page.code.push(code.into_string());
            }
            Event::Text(text) => {
                if let Some(into) = heading.as_mut().or(shell.as_mut()) {
                    into.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

fn pages() -> Vec<Page> {
    files_ending(".md").iter().map(|path| parse(path)).collect()
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
        path
    })
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let pages = pages();
    let by_path: BTreeMap<&Path, &Page> = pages.iter().map(|page| (page.path.as_path(), page)).collect();
    let mut broken = Vec::new();
    for page in &pages {
        for link in page.links.iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, heading) =
                link.split_once('#').map_or((link.as_str(), None), |(file, heading)| (file, Some(heading)));
            let target =
                if file.is_empty() { page.path.clone() } else { normal(&page.path.parent().unwrap().join(file)) };
            let has_anchor = |heading| by_path.get(target.as_path()).is_some_and(|page| page.anchors.contains(heading));
            if !root().join(&target).exists() || !heading.is_none_or(has_anchor) {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn the_summary_lists_every_page() {
    let summary = parse(Path::new("docs/src/SUMMARY.md"));
    let listed: BTreeSet<PathBuf> = summary.links.iter().map(|link| Path::new("docs/src").join(link)).collect();
    let pages: BTreeSet<PathBuf> = files_ending(".md")
        .into_iter()
        .filter(|path| path.starts_with("docs/src") && !path.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(listed, pages);
    assert_eq!(summary.links.len(), listed.len(), "a page is listed twice");
}

#[test]
fn pages_are_short_enough_to_be_read() {
    for page in pages() {
        let lines_max = if page.path == Path::new("README.md") {
            README_LINES_MAX
        } else if page.path == Path::new("ARCHITECTURE.md") {
            ARCHITECTURE_LINES_MAX
        } else if page.path.starts_with("docs/src/how-it-works") {
            CHAPTER_LINES_MAX
        } else {
            continue;
        };
        assert!(page.lines <= lines_max, "{} has {} lines, more than {lines_max}", page.path.display(), page.lines);
    }
}

#[test]
fn named_source_files_exist() {
    let sources = files_ending(".rs");
    let is_there = |name: &str| sources.iter().any(|path| path.ends_with(name));
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| page.path != Path::new("CHANGELOG.md")) {
        for code in page.code.iter().filter(|code| code.ends_with(".rs") && code.contains('/') && !code.contains(' ')) {
            if !is_there(code) {
                missing.push(format!("{}: {code}", page.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
}

#[test]
fn named_types_and_items_exist() {
    let words: BTreeSet<String> = files_ending(".rs")
        .iter()
        .filter(|path| path.starts_with("crates"))
        .flat_map(|path| {
            let text = fs::read_to_string(root().join(path)).unwrap();
            text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    // `Type`, `Type::item`, `CONSTANT_NAME` and `item_name`; a header or a method has another form.
    let is_name = |code: &str| {
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        let has_lower = code.contains(|c: char| c.is_lowercase()) || code.contains('_');
        let is_type = code.starts_with(|c: char| c.is_uppercase()) && has_lower;
        let is_item =
            code.starts_with(|c: char| c.is_lowercase()) && code.contains('_') && !code.starts_with("cartwheel_");
        (is_type || is_item) && code.split("::").all(is_word)
    };
    let mut missing = Vec::new();
    let describes_code = |page: &&Page| {
        let places = [
            "docs/src/how-it-works",
            "docs/src/testing",
            "docs/src/decisions.md",
            "CONTRIBUTING.md",
            "ARCHITECTURE.md",
        ];
        places.iter().any(|place| page.path.starts_with(place))
    };
    for page in pages().iter().filter(describes_code) {
        for code in page.code.iter().filter(|code| is_name(code) && !HEADERS.contains(&code.as_str())) {
            if code.split("::").any(|word| !words.contains(word) && word != "YourRule") {
                missing.push(format!("{}: {code}", page.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such names in the code:\n{}", missing.join("\n"));
}

#[test]
fn named_recipes_and_cargo_targets_exist() {
    let justfile = fs::read_to_string(root().join("justfile")).unwrap();
    let is_recipe = |name: &str| {
        justfile.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':'])))
    };
    let packages: BTreeSet<String> = files_ending("Cargo.toml")
        .iter()
        .filter_map(|path| Some(path.parent()?.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let sources = files_ending(".rs");
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| page.path != Path::new("CHANGELOG.md")) {
        for code in &page.code {
            let words: Vec<&str> = code.split_whitespace().collect();
            let is_missing = match words[..] {
                ["just", recipe, ..] => !is_recipe(recipe),
                ["cargo", _, ..] => words.windows(2).any(|pair| match pair[0] {
                    "-p" | "--package" => !packages.contains(pair[1]),
                    "--bench" => !sources.iter().any(|path| path.ends_with(format!("benches/{}.rs", pair[1]))),
                    "--example" => !sources.iter().any(|path| path.ends_with(format!("examples/{}.rs", pair[1]))),
                    "--test" => !sources.iter().any(|path| {
                        path.ends_with(format!("tests/{}.rs", pair[1]))
                            || path.ends_with(format!("tests/{}/main.rs", pair[1]))
                    }),
                    _ => false,
                }),
                _ => false,
            };
            if is_missing {
                missing.push(format!("{}: {code}", page.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such recipe or target:\n{}", missing.join("\n"));
}

#[test]
fn each_dependency_is_explained() {
    let listed = parse(Path::new("docs/src/how-it-works/dependencies.md")).code;
    let mut missing = BTreeSet::new();
    for manifest in files_ending("Cargo.toml") {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let mut is_dependency = false;
        for line in text.lines() {
            if line.starts_with('[') {
                is_dependency = line.ends_with("dependencies]");
            } else if is_dependency && let Some((name, how)) = line.split_once(['=', '.']) {
                let (name, is_ours) = (name.trim(), how.contains("path =") || name.starts_with("cartwheel"));
                if !name.starts_with('#') && !is_ours && !listed.iter().any(|listed| listed == name) {
                    missing.insert(name.to_owned());
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/src/how-it-works/dependencies.md: {missing:?}");
}

/// The help texts of subcommands; each is run once and kept.
#[derive(Default)]
struct Help(BTreeMap<Vec<String>, String>);

impl Help {
    fn of(&mut self, subcommand: &[String]) -> &str {
        self.0.entry(subcommand.to_vec()).or_insert_with(|| {
            let output = Command::new(CARTWHEEL).args(subcommand).arg("--help").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// The flags of this command line that the program does not know, or its subcommand if that is unknown.
    fn unknown(&mut self, words: &[&str]) -> Vec<String> {
        let mut subcommand = Vec::new();
        let mut rest = words;
        while let [word, after @ ..] = rest {
            let is_listed = |line: &str| line.starts_with("  ") && line.split_whitespace().next() == Some(word);
            if word.starts_with('-') || !self.of(&subcommand).split("\nOptions:").next().unwrap().lines().any(is_listed)
            {
                break;
            }
            subcommand.push((*word).to_owned());
            rest = after;
        }
        if subcommand.is_empty() && words.first().is_some_and(|word| !word.starts_with('-')) {
            return vec![words[0].to_owned()];
        }
        let help = self.of(&subcommand).to_owned();
        let knows = |flag: &str| help.split(|c: char| c != '-' && !c.is_ascii_alphanumeric()).any(|word| word == flag);
        let flags = rest.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap());
        flags.filter(|flag| !knows(flag)).map(|flag| format!("{flag} of {}", subcommand.join(" "))).collect()
    }
}

#[test]
fn shown_commands_and_flags_exist() {
    let mut help = Help::default();
    let mut unknown = Vec::new();
    for page in pages().iter().filter(|page| page.path != Path::new("CHANGELOG.md")) {
        for code in &page.code {
            // A command ends where the shell would begin another command or a comment.
            let command: Vec<&str> = code
                .split_whitespace()
                .take_while(|word| !matches!(*word, "#" | "|" | "&&" | ";" | ">" | "<" | "&"))
                .collect();
            if let ["cartwheel", words @ ..] = &command[..] {
                unknown.extend(
                    help.unknown(words).iter().map(|what| format!("{}: {what} in `{code}`", page.path.display())),
                );
            }
        }
    }
    assert!(unknown.is_empty(), "unknown to the command line:\n{}", unknown.join("\n"));
}
