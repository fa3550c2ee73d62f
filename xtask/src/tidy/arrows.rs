//! Which crate depends on which, as cargo's metadata has it.

use serde_json::Value;

use super::Finding;
use super::allow::{ARROWS, Arrow, COUNTED, EXTERNALS};

const CHECK: &str = "arrows";

pub(super) fn check(packages: &[Value]) -> Vec<Finding> {
    let mut findings = vec![];
    for package in packages {
        let name = text(&package["name"]);
        let Some(arrow) = ARROWS.iter().find(|arrow| arrow.from == name) else {
            findings.push(Finding::error(
                CHECK,
                name,
                "this crate has no line in ARROWS: say what it may depend on",
            ));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            check_ours(arrow, dependency, &mut findings);
            check_external(name, dependency, &mut findings);
        }
        check_default_features(package, &mut findings);
    }
    findings
}

fn check_ours(arrow: &Arrow, dependency: &Value, findings: &mut Vec<Finding>) {
    let name = text(&dependency["name"]);
    if dependency["path"].is_null() || !ARROWS.iter().any(|it| it.from == name) {
        return;
    }
    let is_for_tests = text(&dependency["kind"]) == "dev";
    let is_allowed =
        arrow.to.contains(&name) || (is_for_tests && arrow.to_in_tests.contains(&name));
    if !is_allowed {
        let may = if arrow.to.is_empty() {
            "none of ours".to_owned()
        } else {
            arrow.to.join(", ")
        };
        let what = format!("depends on {name}; it may depend on {may}");
        findings.push(Finding::error(CHECK, arrow.from, what));
    }
    for (of, feature) in arrow.without {
        if name == *of
            && list(&dependency["features"])
                .iter()
                .any(|it| text(it) == *feature)
        {
            let what = format!("switches on the feature {feature} of {of}");
            findings.push(Finding::error(CHECK, arrow.from, what));
        }
    }
}

fn check_external(package: &str, dependency: &Value, findings: &mut Vec<Finding>) {
    let name = text(&dependency["name"]);
    let is_external = dependency["path"].is_null();
    let is_listed = EXTERNALS
        .iter()
        .any(|it| it.by == package && it.name == name);
    if is_external && COUNTED.contains(&package) && !is_listed {
        let what = format!(
            "names {name}, which EXTERNALS does not list: add it with its reason, or do without"
        );
        findings.push(Finding::error(CHECK, package, what));
    }
}

/// Features that a dependent forbids must not come in by default either.
fn check_default_features(package: &Value, findings: &mut Vec<Finding>) {
    let name = text(&package["name"]);
    let defaults = list(&package["features"]["default"]);
    for (of, feature) in ARROWS.iter().flat_map(|arrow| arrow.without) {
        if *of == name && defaults.iter().any(|it| text(it) == *feature) {
            let what = format!("the feature {feature} must not be on by default");
            findings.push(Finding::error(CHECK, name, what));
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
