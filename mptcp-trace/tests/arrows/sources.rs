//! The source files of a crate without their tests, and the names in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ImplItemFn, ItemFn, ItemMod, ItemUse, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A source file of the product, without its tests.
pub(crate) struct Source {
    /// Path relative to the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Path segments of the module within the crate.
    pub(crate) module: Vec<String>,
    file: syn::File,
}

pub(crate) fn sources(of: &str) -> Vec<Source> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), found);
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path.to_owned());
        }
    }
    let directory = root().join(of).join("src");
    let mut paths = Vec::new();
    walk(&directory, &mut paths);
    assert!(!paths.is_empty(), "{of} has no sources");
    let is_test = |path: &PathBuf| path.to_string_lossy().ends_with("tests.rs");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let within = path.strip_prefix(&directory).unwrap().with_extension("");
        let segments = within.iter().map(|it| it.to_string_lossy().into_owned());
        let module = segments
            .filter(|it| it != "mod" && it != "lib" && it != "main")
            .collect();
        Source {
            path: path.strip_prefix(root()).unwrap().display().to_string(),
            file: syn::parse_file(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display())),
            text,
            module,
        }
    };
    paths
        .into_iter()
        .filter(|it| !is_test(it))
        .map(read)
        .collect()
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    let is_test = |it: &Attribute| {
        it.path().is_ident("test")
            || it.path().is_ident("cfg")
                && it
                    .parse_args::<syn::Path>()
                    .is_ok_and(|it| it.is_ident("test"))
    };
    attributes.iter().any(is_test)
}

/// The names in a file, and the lengths of its functions.
#[derive(Default)]
pub(crate) struct Named {
    /// Paths as segments, each with its line number.
    pub(crate) paths: Vec<(Vec<String>, usize)>,
    pub(crate) has_unsafe: Option<usize>,
    pub(crate) functions: Vec<(String, usize)>,
    /// Words in macro input, which is not syntax before its expansion.
    words: Vec<(Vec<String>, usize)>,
}

impl Named {
    pub(crate) fn of(source: &Source) -> Self {
        let mut named = Self::default();
        named.visit_file(&source.file);
        named
    }

    fn uses(&mut self, before: &[String], tree: &UseTree) {
        let mut path = before.to_vec();
        match tree {
            UseTree::Path(it) => {
                path.push(it.ident.to_string());
                self.uses(&path, &it.tree);
            }
            UseTree::Name(it) => {
                path.push(it.ident.to_string());
                self.paths.push((path, it.span().start().line));
            }
            UseTree::Rename(it) => {
                path.push(it.ident.to_string());
                self.paths.push((path, it.span().start().line));
            }
            UseTree::Glob(it) => self.paths.push((path, it.span().start().line)),
            UseTree::Group(it) => it.items.iter().for_each(|tree| self.uses(&path, tree)),
        }
    }

    fn function(&mut self, name: String, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        self.functions.push((name, lines));
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &(Vec<String>, usize)> {
        self.paths.iter().chain(&self.words)
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_mod(&mut self, it: &'ast ItemMod) {
        if !is_of_tests(&it.attrs) {
            visit::visit_item_mod(self, it);
        }
    }

    fn visit_item_use(&mut self, it: &'ast ItemUse) {
        if !is_of_tests(&it.attrs) {
            self.uses(&[], &it.tree);
        }
    }

    fn visit_item_fn(&mut self, it: &'ast ItemFn) {
        if !is_of_tests(&it.attrs) {
            self.function(it.sig.ident.to_string(), it.block.span());
            self.has_unsafe = self
                .has_unsafe
                .or(it.sig.unsafety.map(|it| it.span().start().line));
            visit::visit_item_fn(self, it);
        }
    }

    fn visit_item_impl(&mut self, it: &'ast syn::ItemImpl) {
        if !is_of_tests(&it.attrs) {
            self.has_unsafe = self
                .has_unsafe
                .or(it.unsafety.map(|it| it.span().start().line));
            visit::visit_item_impl(self, it);
        }
    }

    fn visit_impl_item_fn(&mut self, it: &'ast ImplItemFn) {
        if !is_of_tests(&it.attrs) {
            self.function(it.sig.ident.to_string(), it.block.span());
            visit::visit_impl_item_fn(self, it);
        }
    }

    fn visit_expr_unsafe(&mut self, it: &'ast syn::ExprUnsafe) {
        self.has_unsafe = self
            .has_unsafe
            .or(Some(it.unsafe_token.span().start().line));
        visit::visit_expr_unsafe(self, it);
    }

    fn visit_path(&mut self, it: &'ast syn::Path) {
        let segments = it.segments.iter().map(|it| it.ident.to_string());
        self.paths
            .push((segments.collect(), it.span().start().line));
        visit::visit_path(self, it);
    }

    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        let line = it.span().start().line;
        let text = it
            .tokens
            .to_string()
            .replace(" :: ", "::")
            .replace(":: ", "::");
        let is_part = |letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':');
        for word in text.split(is_part).filter(|word| word.contains("::")) {
            self.words
                .push((word.split("::").map(str::to_owned).collect(), line));
        }
        if names_unsafe(it.tokens.clone()) {
            self.has_unsafe = self.has_unsafe.or(Some(line));
        }
        visit::visit_macro(self, it);
    }
}

/// True if the keyword `unsafe` occurs as a token, not in a string.
fn names_unsafe(tokens: proc_macro2::TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        proc_macro2::TokenTree::Ident(it) => it == "unsafe",
        proc_macro2::TokenTree::Group(it) => names_unsafe(it.stream()),
        proc_macro2::TokenTree::Punct(_) | proc_macro2::TokenTree::Literal(_) => false,
    })
}
