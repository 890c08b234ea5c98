//! Rewritten templates, and templates that exceed a limit.

use super::{add_checks, add_checks_and_marks};

#[test]
fn marks_keep_the_white_space_of_their_tags() {
    let source = "a\n{%- generation %}{{ x }}{% endgeneration -%}\nb";
    assert_eq!(
        add_checks_and_marks(source).as_deref(),
        Ok("a\n{%- with %}{{ _generation_start }}{% if true %}{{ x }}\
         {% endif %}{{ _generation_end }}{% endwith -%}\nb")
    );
}

#[test]
fn checks_stand_where_values_are_stored_added_or_compared() {
    for (source, expected) in [
        ("a { b } {{ x }}", "a { b } {{ x }}"),
        ("{{- a + b -}}", "{{- a|_length + b -}}"),
        ("{%+ if a == b and c in d +%}", "{%+ if a|_read == b and c|_read in (d)|_read +%}"),
        (
            "{% if x is not none and y not in z %}",
            "{% if x is not none and y|_read not in (z)|_read %}",
        ),
        ("{% if x is divisibleby 3 == y %}", "{% if x is divisibleby 3 == y %}"),
        ("{% for a, b in x + y %}", "{% for a, b in x|_length + y %}"),
        ("{% for (a, b) in x if a in b %}", "{% for (a, b) in x if a|_read in (b)|_read %}"),
        (
            "{% set x = [1, {'a': 2}] -%}",
            "{% set x = (([1, ({'a': 2}|_checked)]|_checked))|_checked -%}",
        ),
        ("{% set x %}", "{% set x %}"),
        ("{% set ns.x = -1 %}", "{% set ns.x = -1 %}"),
        ("{% set ns.x = ns.x + y.z %}", "{% set ns.x = (ns.x|_length + y.z)|_stored %}"),
        ("{% with a = b, c = d %}", "{% with a = (b)|_checked, c = (d)|_checked %}"),
        ("{{ f(a, k=b, *c) }}", "{{ f((a)|_passed, k=(b)|_passed, *c) }}"),
        (
            "{{ x[y['a'][i]] }}",
            "{{ (x|_indexed)[(((y|_indexed)['a']|_indexed)[(i)|_read])|_read] }}",
        ),
        (
            "{{ x[1:] ~ y.z('a')[0] }}",
            "{{ ((x|_indexed)[1:])|_read ~ ((y.z('a')|_indexed)[0])|_read }}",
        ),
        (
            "{{ (a[0] + b)[1].c|f(d[2])|g }}",
            "{{ ((((a|_indexed)[0]|_length + b)|_checked)|_indexed)[1].c|f(((d|_indexed)[2])|_passed)|g }}",
        ),
        (
            "{{ (a, b) ~ (c) ~ +1 ~ 2 ** 3 }}",
            "{{ (((a, b)|_checked))|_read ~ ((c))|_read ~ +1 ~ (2 ** 3)|_read }}",
        ),
        ("{% macro m(a, b=[]) %}", "{% macro m(a, b=([]|_checked)) %}"),
        ("{{ 'a + b }}' + \"\\\"+\" }}", "{{ 'a + b }}'|_length + \"\\\"+\" }}"),
        (
            "{# a + b #}{% raw %}{{ a + b }}{% endraw %}",
            "{# a + b #}{% raw %}{{ a + b }}{% endraw %}",
        ),
        ("{%- generation -%}{{ x }}{% endgeneration%}", "{%- with -%}{{ x }}{% endwith%}"),
        ("{{ {'a': {'b': 1}} }}", "{{ ({'a': ({'b': 1}|_checked)}|_checked) }}"),
        ("{{ x|join|length }}", "{{ x|_read|join|length }}"),
        ("{{ x.join(y) ~ '.' }}", "{{ (x.join((y)|_read))|_read ~ '.' }}"),
        (
            "{{ ((a * 2) ~ [b + c, d])|upper }}",
            "{{ ((((a|_length * 2)|_checked))|_read ~ (([b|_length + c, d]|_checked))|_read)|_read|upper }}",
        ),
        ("{% unterminated + x", "{% unterminated + x"),
    ] {
        assert_eq!(add_checks(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn deep_expressions_are_refused_with_their_line() {
    let chain = |part: &str, n: usize| format!("a\n{{{{ 1{} }}}}", part.repeat(n));
    for part in ["+1", "-1", "*x", "**2", "~''", "()", "[0]", ".a", "|f", " and 1", " is x"] {
        assert!(add_checks(&chain(part, 100)).is_ok(), "{part}");
        let refused = add_checks(&chain(part, 501)).expect_err(part);
        assert_eq!(refused, "more than 500 operators in one tag (line 2)", "{part}");
    }
    assert!(add_checks(&format!("{{{{ {}1 }}}}", "-".repeat(20_000))).is_err());
    assert!(add_checks(&format!("{{{{{}1 }}}}", "-".repeat(20_000))).is_err());
    assert!(add_checks(&format!("{{% if x %}}{}", "{% elif y %}".repeat(501))).is_err());
    // Lists are flat, whatever their length.
    assert!(add_checks(&format!("{{{{ [{}] }}}}", "1, ".repeat(2000))).is_ok());
    assert!(add_checks(&format!("{{{{ {} }}}}", "a".repeat(1001))).is_err());
}
