//! Each check on the smallest tree that shows it.

use serde_json::json;

use super::*;

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn errors(findings: &[Finding]) -> Vec<&str> {
    let errors = findings
        .iter()
        .filter(|finding| finding.level == Level::Error);
    errors.map(|finding| finding.what.as_str()).collect()
}

fn package(name: &str, dependencies: &[Value]) -> Value {
    json!({ "name": name, "dependencies": dependencies, "features": { "default": [] } })
}

fn ours(name: &str, features: &[&str]) -> Value {
    json!({ "name": name, "path": "somewhere", "features": features })
}

fn of_others(name: &str) -> Value {
    json!({ "name": name, "path": null, "features": [] })
}

#[test]
fn arrows_that_point_down_are_allowed() {
    let packages = [
        package("cereus-core", &[of_others("serde")]),
        package(
            "cereus-engine",
            &[ours("cereus-core", &[]), of_others("mlx-rs")],
        ),
        package(
            "cereus-sim",
            &[ours("cereus-core", &[]), ours("cereus-engine", &[])],
        ),
    ];
    assert_eq!(arrows::check(&packages), []);
}

#[test]
fn core_knows_nobody() {
    let findings = arrows::check(&[package("cereus-core", &[ours("cereus-engine", &[])])]);
    assert_eq!(
        errors(&findings),
        ["depends on cereus-engine; it may depend on none of ours"]
    );
}

#[test]
fn an_arrow_for_tests_carries_tests_alone() {
    let with = |kind: Value| {
        let client = json!({ "name": "cereus-client", "path": "p", "features": [], "kind": kind });
        arrows::check(&[package("cereus-coordinator", &[client])])
    };
    assert_eq!(with(json!("dev")), []);
    assert_eq!(errors(&with(Value::Null)).len(), 1);
}

#[test]
fn core_names_no_crate_that_the_list_does_not() {
    let findings = arrows::check(&[package("cereus-core", &[of_others("tokio")])]);
    assert!(errors(&findings)[0].contains("tokio"));
}

#[test]
fn the_simulator_never_switches_the_tensors_on() {
    let findings = arrows::check(&[package("cereus-sim", &[ours("cereus-engine", &["mlx"])])]);
    assert_eq!(
        errors(&findings),
        ["switches on the feature mlx of cereus-engine"]
    );
}

#[test]
fn the_tensors_are_never_on_by_default() {
    let features = json!({ "default": ["mlx"] });
    let engine = json!({ "name": "cereus-engine", "dependencies": [], "features": features });
    let findings = arrows::check(&[engine]);
    assert_eq!(
        errors(&findings),
        ["the feature mlx must not be on by default"]
    );
}

#[test]
fn a_crate_that_nobody_placed_is_refused() {
    let findings = arrows::check(&[package("cereus-extra", &[])]);
    assert!(errors(&findings)[0].contains("ARROWS"));
}

#[test]
fn every_allowed_crate_has_a_reason_and_a_counted_owner() {
    for external in allow::EXTERNALS {
        assert!(external.why.len() > 10, "{}: why?", external.name);
        assert!(
            allow::COUNTED.contains(&external.by),
            "{}: nobody counts",
            external.by
        );
    }
}

#[test]
fn arrows_never_form_a_cycle() {
    // Each crate may only point at crates whose own arrows are already known.
    let mut known: Vec<&str> = vec![];
    while known.len() < allow::ARROWS.len() {
        let next = allow::ARROWS.iter().find(|it| {
            !known.contains(&it.from)
                && it
                    .to
                    .iter()
                    .chain(it.to_in_tests)
                    .all(|to| known.contains(to))
        });
        known.push(next.expect("some crate depends on known ones only").from);
    }
}

#[test]
fn the_top_of_the_tree_holds_what_it_should() {
    let good = [
        file("core/src/lib.rs", ""),
        file(".ci/run", ""),
        file("README.md", ""),
    ];
    assert_eq!(layout::check(&good), []);
    let bad = [
        file("notes/a.md", ""),
        file("notes/b.md", ""),
        file("notes.txt", ""),
    ];
    let at: Vec<String> = layout::check(&bad).into_iter().map(|it| it.at).collect();
    assert_eq!(at, ["notes", "notes.txt"]);
}

#[test]
fn a_pure_crate_says_so_at_its_head() {
    let good = "//! Words.\n#![forbid(unsafe_code)]\n\
                #![deny(clippy::disallowed_types, clippy::disallowed_methods)]\nmod a;\n";
    assert_eq!(layout::check(&[file("core/src/lib.rs", good)]), []);
    let findings = layout::check(&[file("sim/src/lib.rs", "//! Words.\nmod a;\n")]);
    assert_eq!(findings.len(), 3);
}

#[test]
fn a_lock_file_names_only_the_public_registry() {
    let line = "source = \"registry+https://mirror.example/index\"\n";
    let findings = layout::check(&[file("Cargo.lock", line)]);
    assert_eq!(errors(&findings), ["is not from crates.io"]);
}

#[test]
fn a_long_file_is_named_and_a_longer_one_is_refused() {
    let lines = |count: usize| file("core/src/a.rs", &"x\n".repeat(count));
    assert_eq!(text::check(&[lines(600)]), []);
    assert_eq!(text::check(&[lines(601)])[0].level, Level::Warning);
    assert_eq!(text::check(&[lines(800)])[0].level, Level::Warning);
    assert_eq!(text::check(&[lines(801)])[0].level, Level::Error);
}

#[test]
fn silenced_tests_are_refused_however_they_are_written() {
    for line in [
        concat!("    #[ig", "nore]"),
        concat!("#[ig", "nore = \"slow\"]"),
        concat!("#[should_", "panic(expected = \"x\")]"),
        concat!("#[cfg_attr(miri, ig", "nore)]"),
    ] {
        assert_eq!(
            text::check(&[file("sim/src/a.rs", line)]).len(),
            1,
            "{line}"
        );
    }
    let harmless = concat!("// whoever ig", "nores this attribute");
    assert_eq!(text::check(&[file("sim/src/a.rs", harmless)]), []);
}

#[test]
fn leftovers_are_refused_in_what_people_write() {
    let line = concat!("// TO", "DO: later");
    assert_eq!(text::check(&[file("core/src/a.rs", line)]).len(), 1);
    assert_eq!(
        text::check(&[file("engine/models/tiny/tokenizer.json", line)]),
        []
    );
    assert_eq!(
        text::check(&[file("core/src/a.rs", concat!("MASTO", "DON"))]),
        []
    );
}

#[test]
fn folders_of_one_machine_are_refused() {
    let line = concat!("path = \"/ro", "ot/cache\"");
    assert_eq!(text::check(&[file(".ci/run", line)]).len(), 1);
    let harmless = concat!("https://example.com/ho", "me/page");
    assert_eq!(text::check(&[file("README.md", harmless)]), []);
}

const CODE: &str = "\
/// INV-03: postings sum to zero.
fn books_balance(world: &World) {
    assert_eq!(world.sum(), 0);
}

impl Oracle {
    fn ends_once(&self) {
        assert!(self.ends == 1, \"INV-02: ends once\");
    }

    fn unrelated(&self) {}
}
";

fn register(rows: &str) -> [File; 2] {
    [
        file(invariants::REGISTERS[0].path, rows),
        file("sim/src/oracle.rs", CODE),
    ]
}

#[test]
fn an_invariant_with_an_entry_and_a_check_is_accepted() {
    let rows = "| INV-02 | Once. | `sim/src/oracle.rs::ends_once` |\n\
                | INV-03 | Zero. | `sim/src/oracle.rs::books_balance` |\n";
    assert_eq!(invariants::check(&register(rows)), []);
}

#[test]
fn a_check_without_an_entry_is_refused() {
    let rows = "| INV-02 | Once. | `sim/src/oracle.rs::ends_once` |\n";
    let findings = invariants::check(&register(rows));
    assert_eq!(
        errors(&findings),
        ["names INV-03, which sim/INVARIANTS.md does not list"]
    );
}

#[test]
fn an_entry_without_a_check_is_refused() {
    let zero = "| INV-03 | Zero. | `sim/src/oracle.rs::books_balance` |";
    for (place, why) in [
        ("everywhere", "names no check"),
        ("`sim/src/gone.rs::f`", "a file that does not exist"),
        ("`sim/src/oracle.rs::gone`", "does not exist"),
        ("`sim/src/oracle.rs::unrelated`", "does not name INV-02"),
    ] {
        let rows = format!("| INV-02 | Once. | {place} |\n{zero}\n");
        let findings = invariants::check(&register(&rows));
        assert!(errors(&findings)[0].contains(why), "{place}");
    }
}

#[test]
fn an_invariant_may_be_stated_before_the_code_claims_it() {
    let rows = "| INV-02 | Once. | `sim/src/oracle.rs::ends_once` |\n\
                | INV-03 | Zero. | `sim/src/oracle.rs::books_balance` |\n";
    let findings = invariants::check(&register(&format!("{rows}| INV-04 | Later. | not yet |\n")));
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].level, Level::Warning);
}

#[test]
fn an_invariant_that_the_code_claims_has_a_check() {
    let rows = "| INV-02 | Once. | not yet |\n\
                | INV-03 | Zero. | `sim/src/oracle.rs::books_balance` |\n";
    let findings = invariants::check(&register(rows));
    assert_eq!(
        errors(&findings),
        ["INV-02 is claimed by the code and checked by nothing"]
    );
}

#[test]
fn each_register_has_numbers_of_its_own() {
    let rows = "| INV-02 | Once. | `sim/src/oracle.rs::ends_once` |\n\
                | INV-03 | Zero. | `sim/src/oracle.rs::books_balance` |\n";
    let [sim, code] = register(rows);
    let claim = file("engine/src/kv.rs", "// ENG-05\n");
    let row = |rows: &str| file(invariants::REGISTERS[1].path, rows);
    let files = [sim, code, claim, row("| INV-05 | Not here. | not yet |\n")];
    let findings = invariants::check(&files);
    assert_eq!(
        errors(&findings),
        ["names ENG-05, which engine/INVARIANTS.md does not list"]
    );
}

#[test]
fn a_tree_without_invariants_needs_no_register() {
    assert_eq!(
        invariants::check(&[file("core/src/lib.rs", "mod a;\n")]),
        []
    );
    let findings = invariants::check(&[file("core/src/lib.rs", "// INV-01\n")]);
    assert_eq!(errors(&findings).len(), 1);
}

#[test]
fn a_table_of_laws_names_tests_that_exist() {
    let code = file("core/src/a.rs", "    fn it_holds() {\n    }\n");
    let table = |named: &str| file("docs/pitfalls.md", &format!("| 1 | what | `{named}` |"));
    let of = |named: &str| named::check(&[table(named), file("core/src/a.rs", &code.text)]);
    assert_eq!(of("core/src/a.rs::it_holds"), []);
    for missing in ["core/src/a.rs::it_hold", "core/src/b.rs::it_holds"] {
        assert_eq!(of(missing).len(), 1, "{missing}");
    }
}
