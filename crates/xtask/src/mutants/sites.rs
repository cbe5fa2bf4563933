//! Finding what can be switched off in a source file, from its syntax.
//!
//! - A *step*: a call whose value is not used, as a statement of its own (`flush`, `sync_pages()?`, `note_activity`); and the
//!   calls that give evidence (`fence`, `sync`, `settle`), which are left out while their evidence is given.
//! - A *check*: a comparison, or a condition. It is made always true, and always false.
//! - A *lock*: a call of `lock`, `read` or `write` without arguments, or of their `try_` forms. It does not exclude. A
//!   function that takes a lock for its caller says so by `track_caller`: then the callers are the places.

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ExprMethodCall, Stmt};

/// What is switched off, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A statement that is left out.
    Statement,
    /// A call of this function of a medium, of which only the evidence is left.
    Evidence(&'static str),
    /// A condition that is always true.
    True,
    /// A condition that is always false.
    False,
    /// A lock that excludes nobody.
    Lock,
}

/// A place in a source file.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) kind: Kind,
    /// Bytes of the file.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Line, from one.
    pub(crate) line: usize,
    /// Column, from one: of the name of the function, for a lock.
    pub(crate) column: usize,
    /// The function that it is in.
    pub(crate) function: String,
    /// The code, on one line.
    pub(crate) text: String,
}

/// What is looked for in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) steps: bool,
    pub(crate) checks: bool,
    pub(crate) locks: bool,
}

/// All places in `source`, in order.
pub(crate) fn find(source: &str, wanted: Wanted) -> syn::Result<Vec<Site>> {
    let file = syn::parse_file(source)?;
    let mut finder = Finder {
        lines: Lines::of(source),
        source,
        wanted,
        function: Vec::new(),
        tracks_caller: false,
        sites: Vec::new(),
    };
    finder.visit_file(&file);
    finder.sites.sort_by_key(|site| (site.start, site.end));
    Ok(finder.sites)
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(source: &str) -> Self {
        Self(std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The byte at a position that syn gives, whose columns count characters.
    fn byte(&self, source: &str, at: LineColumn) -> usize {
        let start = self.0[at.line - 1];
        start + source[start..].chars().take(at.column).map(char::len_utf8).sum::<usize>()
    }
}

struct Finder<'s> {
    source: &'s str,
    lines: Lines,
    wanted: Wanted,
    function: Vec<String>,
    /// Whether the function takes locks for its callers.
    tracks_caller: bool,
    sites: Vec<Site>,
}

/// Functions of a medium that give evidence of something done.
const EVIDENCE: [&str; 3] = ["fence", "sync", "settle"];
const LOCKS: [&str; 5] = ["lock", "read", "write", "try_lock", "try_read"];

impl Finder<'_> {
    fn add(&mut self, kind: Kind, what: &impl Spanned, named: &impl Spanned) {
        let (span, name) = (what.span(), named.span().start());
        let start = self.lines.byte(self.source, span.start());
        let end = self.lines.byte(self.source, span.end());
        let text = self.source[start..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let function = self.function.join("::");
        self.sites.push(Site { kind, start, end, line: name.line, column: name.column + 1, function, text });
    }

    fn add_check(&mut self, condition: &Expr) {
        self.add(Kind::True, condition, condition);
        self.add(Kind::False, condition, condition);
    }

    fn within(&mut self, name: String, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.tracks_caller, mention(attributes, "track_caller"));
        self.function.push(name);
        visit(self);
        self.function.pop();
        self.tracks_caller = outside;
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    mention(attributes, "test")
}

/// Whether one of the attributes is called, or says something of, `word`.
fn mention(attributes: &[syn::Attribute], word: &str) -> bool {
    let says = |attribute: &syn::Attribute| {
        attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains(word))
    };
    attributes.iter().any(|attribute| attribute.path().is_ident(word) || says(attribute))
}

fn is_comparison(operator: BinOp) -> bool {
    use BinOp::{And, Eq, Ge, Gt, Le, Lt, Ne, Or};
    matches!(operator, And(_) | Or(_) | Eq(_) | Ne(_) | Lt(_) | Le(_) | Gt(_) | Ge(_))
}

/// Whether patterns are matched in a condition, which then is no value.
fn has_let(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

/// A call, maybe with `?` behind it.
fn is_call(expression: &Expr) -> bool {
    match expression {
        Expr::Try(inner) => is_call(&inner.expr),
        Expr::MethodCall(_) | Expr::Call(_) => true,
        _ => false,
    }
}

/// A call that does nothing but where tests watch.
fn only_for_tests(expression: &Expr) -> bool {
    match expression {
        Expr::MethodCall(call) => call.method == "log_read",
        Expr::Call(call) => matches!(&*call.func, Expr::Path(path) if path.path.is_ident("point")),
        _ => false,
    }
}

impl<'a> Visit<'a> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    // What the compiler evaluates cannot be switched.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if item.sig.constness.is_none() && !is_test(&item.attrs) {
            self.within(item.sig.ident.to_string(), &item.attrs, |this| visit::visit_item_fn(this, item));
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if item.sig.constness.is_none() && !is_test(&item.attrs) {
            self.within(item.sig.ident.to_string(), &item.attrs, |this| {
                visit::visit_impl_item_fn(this, item);
            });
        }
    }

    fn visit_block(&mut self, block: &'a Block) {
        for statement in &block.stmts {
            if self.wanted.steps
                && let Stmt::Expr(expression, Some(_)) = statement
                && is_call(expression)
                && !only_for_tests(expression)
            {
                self.add(Kind::Statement, statement, statement);
            }
        }
        visit::visit_block(self, block);
    }

    fn visit_expr_method_call(&mut self, call: &'a ExprMethodCall) {
        let name = call.method.to_string();
        if self.wanted.locks && !self.tracks_caller && call.args.is_empty() && LOCKS.contains(&name.as_str())
        {
            self.add(Kind::Lock, call, &call.method);
        }
        let of_medium = matches!(&*call.receiver, Expr::Field(field) if matches!(&field.member, syn::Member::Named(name) if name == "medium"));
        if self.wanted.steps
            && of_medium
            && let Some(name) = EVIDENCE.into_iter().find(|evidence| *evidence == name)
        {
            self.add(Kind::Evidence(name), call, &call.method);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_binary(&mut self, binary: &'a syn::ExprBinary) {
        let expression = Expr::Binary(binary.clone());
        if self.wanted.checks && is_comparison(binary.op) && !has_let(&expression) {
            self.add_check(&expression);
            return;
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_if(&mut self, item: &'a syn::ExprIf) {
        let is_call = matches!(&*item.cond, Expr::MethodCall(_) | Expr::Call(_) | Expr::Unary(_));
        if self.wanted.checks && is_call {
            self.add_check(&item.cond);
        }
        visit::visit_expr_if(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted { steps: true, checks: true, locks: true };

    fn found(body: &str) -> Vec<(Kind, String)> {
        let source = format!("impl Thing {{\n    fn act(&self) {{ {body} }}\n}}\n");
        let sites = find(&source, ALL).unwrap();
        assert!(sites.iter().all(|site| site.function == "act" && site.line == 2));
        sites.into_iter().map(|site| (site.kind, site.text)).collect()
    }

    fn of(kind: Kind, text: &str) -> (Kind, String) {
        (kind, text.to_owned())
    }

    #[test]
    fn steps_are_statements_and_evidence() {
        assert_eq!(found("self.flush(1)?; let a = f(2);"), [of(Kind::Statement, "self.flush(1)?;")]);
        assert_eq!(
            found("let done = volume.medium.fence(x);"),
            [of(Kind::Evidence("fence"), "volume.medium.fence(x)")]
        );
    }

    #[test]
    fn checks_are_outermost_conditions() {
        let (both, call) = ("a == b && c", "!self.is_whole()");
        assert_eq!(found("(a == b && c).then(|| 1)"), [of(Kind::True, both), of(Kind::False, both)]);
        assert_eq!(found("if !self.is_whole() { return }"), [of(Kind::True, call), of(Kind::False, call)]);
        assert_eq!(found("if let Some(a) = b {}"), []);
    }

    #[test]
    fn locks_are_named_where_they_are_called() {
        let sites =
            find("fn act() {\n    let held = self\n        .keeper\n        .lock();\n}\n", ALL).unwrap();
        assert_eq!(sites.len(), 1);
        assert_eq!((sites[0].kind, sites[0].line, sites[0].column), (Kind::Lock, 4, 10));
        assert_eq!(found("medium.read(at, &mut bytes)"), []);
    }

    #[test]
    fn tests_and_constants_are_left_alone() {
        let source = "#[cfg(test)] mod tests { fn f() { g(); } }\nconst A: bool = 1 == 2;\nconst fn h() -> bool { 1 < 2 }\n";
        assert!(find(source, ALL).unwrap().is_empty());
    }
}
