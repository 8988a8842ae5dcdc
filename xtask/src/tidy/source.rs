//! A parsed Rust file, seen as the rules need it: identifiers with lines, test code marked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use proc_macro2::{LexError, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A Rust source file.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Relative to the workspace root.
    pub(super) path: PathBuf,
    pub(super) lines: usize,
    /// Every function with a body outside test code.
    pub(super) functions: Vec<Function>,
    /// Every identifier outside test code, in order, macro arguments included.
    pub(super) words: Vec<Word>,
}

/// A function's place and extent.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    /// From the `fn` keyword to the closing brace.
    pub(super) length: usize,
}

/// An identifier or keyword.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) line: usize,
    /// Whether `::` follows it: then the next word belongs to the same path.
    pub(super) joined: bool,
}

impl SourceFile {
    /// Parses `content`; `path` is relative to the workspace root.
    pub(super) fn parse(path: &Path, content: &str) -> Result<Self> {
        let describe = || format!("cannot parse {}", path.display());
        let tree = syn::parse_file(content).with_context(describe)?;
        let tokens: TokenStream =
            content.parse().map_err(|error: LexError| anyhow!("{error}")).with_context(describe)?;
        let mut outline = Outline::default();
        if is_test_code(&tree.attrs) {
            outline.tests.push((1, usize::MAX));
        }
        outline.visit_file(&tree);
        let mut words = Vec::new();
        collect_words(tokens, &mut words);
        words.retain(|word| !outline.is_test_line(word.line));
        let functions = std::mem::take(&mut outline.functions)
            .into_iter()
            .filter(|function| !outline.is_test_line(function.line))
            .collect();
        Ok(Self { path: path.to_path_buf(), lines: content.lines().count(), functions, words })
    }

    /// The path's parts as text.
    pub(super) fn parts(&self) -> Vec<&str> {
        self.path.iter().filter_map(|part| part.to_str()).collect()
    }

    /// Whether the whole file is test or bench code: below `tests/` or `benches/`, or a `tests` module.
    pub(super) fn is_test_file(&self) -> bool {
        self.parts().iter().any(|part| matches!(*part, "tests" | "benches" | "tests.rs"))
    }
}

/// Functions, and the line ranges of test items.
#[derive(Default)]
struct Outline {
    functions: Vec<Function>,
    tests: Vec<(usize, usize)>,
}

impl Outline {
    fn is_test_line(&self, line: usize) -> bool {
        self.tests.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }

    fn record(&mut self, attributes: &[syn::Attribute], signature: &syn::Signature, end: usize) {
        let line = signature.fn_token.span.start().line;
        if is_test_code(attributes) {
            self.tests.push((line, end));
        }
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line,
            length: end.saturating_sub(line) + 1,
        });
    }
}

impl<'ast> Visit<'ast> for Outline {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if is_test_code(attributes) {
            let span = item.span();
            self.tests.push((span.start().line, span.end().line));
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.record(&function.attrs, &function.sig, function.block.span().end().line);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.record(&function.attrs, &function.sig, function.block.span().end().line);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.record(&function.attrs, &function.sig, block.span().end().line);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Whether attributes mark an item as compiled for tests only.
fn is_test_code(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        if path.segments.last().is_some_and(|segment| segment.ident == "test") {
            return true;
        }
        path.is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn collect_words(tokens: TokenStream, words: &mut Vec<Word>) {
    let mut tokens = tokens.into_iter().peekable();
    let mut colons = 0;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) => {
                let line = word.span().start().line;
                words.push(Word { text: word.to_string(), line, joined: false });
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                if colons == 2
                    && let Some(last) = words.last_mut()
                {
                    last.joined = matches!(tokens.peek(), Some(TokenTree::Ident(_)));
                }
            }
            TokenTree::Group(group) => {
                colons = 0;
                collect_words(group.stream(), words);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => colons = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(content: &str) -> SourceFile {
        SourceFile::parse(Path::new("crates/a/src/state.rs"), content).unwrap()
    }

    #[test]
    fn words_leave_out_comments_strings_and_test_code() {
        let file = parse(
            "//! HashMap in prose\nfn a() { b!(\"HashMap\", inner) }\n\
             #[cfg(test)]\nmod tests {\n use hidden;\n}\n",
        );
        let words: Vec<_> = file.words.iter().map(|word| word.text.as_str()).collect();
        assert!(words.contains(&"inner"));
        assert!(!words.contains(&"HashMap"));
        assert!(!words.contains(&"hidden"));
    }

    #[test]
    fn joined_words_form_paths() {
        let file = parse("fn a() { let x: u8 = std::fs::read(p); }");
        let joined: Vec<_> =
            file.words.iter().filter(|w| w.joined).map(|w| w.text.as_str()).collect();
        assert_eq!(joined, ["std", "fs"]);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let file = parse("/// Doc.\nfn a() {\n    b();\n}\n\n#[test]\nfn t() {\n}\n");
        assert_eq!(file.functions.len(), 1);
        assert_eq!((file.functions[0].line, file.functions[0].length), (2, 3));
    }
}
